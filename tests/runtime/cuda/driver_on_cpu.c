/* Answers as NVIDIA's driver does, for tests without a GPU. The struct is written down from cuviddec.h once more. */

#include <stddef.h>

struct caps {
    int codec, chroma;
    unsigned int depth_minus_8, reserved1[3];
    unsigned char supported, engines;
    unsigned short surface_mask;
    unsigned int max_width, max_height, max_macroblocks;
    unsigned short min_width, min_height;
    unsigned char histogram, histogram_depth;
    unsigned short histogram_bins;
    unsigned int reserved3[10];
};

int caps_bytes = sizeof(struct caps), caps_min_height_at = offsetof(struct caps, min_height);

enum { H264 = 4, HEVC = 8, AV1 = 11, CHROMA_420 = 1, INVALID_VALUE = 1, NV12 = 1 << 0, P016 = 1 << 1 };

int without_context = 0;

int cuvidGetDecoderCaps(struct caps *caps)
{
    if (without_context)
        return 201;
    if (caps->codec == AV1 || caps->reserved1[0] || caps->reserved1[1] || caps->reserved1[2])
        return INVALID_VALUE;
    if (caps->chroma != CHROMA_420)
        return 0;
    if (caps->codec == H264 && caps->depth_minus_8 == 0) {
        caps->supported = 1;
        caps->engines = 5;
        caps->surface_mask = NV12;
        caps->max_width = 4096;
        caps->max_height = 4032;
        caps->max_macroblocks = 65536;
        caps->min_width = 48;
        caps->min_height = 16;
    }
    if (caps->codec == HEVC && caps->depth_minus_8 <= 2) {
        caps->supported = 1;
        caps->engines = 7;
        caps->surface_mask = NV12 | P016;
        caps->max_width = caps->max_height = 8192;
        caps->max_macroblocks = 262144;
        caps->min_width = caps->min_height = 144;
    }
    return 0;
}
