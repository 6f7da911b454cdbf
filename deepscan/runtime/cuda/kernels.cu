// Kernels that make crops: CUDA C++ on a GPU, and as they stand also C11, which is how they are tested on a CPU.
//
// Each takes a table of jobs, laid out as `jobs.py` says. The grid's z counts jobs; x and y cover the largest one.
// In integers wherever the reference computes in integers, so that results are its results, not only near them.

#ifdef __CUDACC__
#define KERNEL(name, Job) extern "C" __global__ void name(const Job* jobs)
#define FUNCTION static __device__
#define COLUMN ((int)(blockIdx.x * blockDim.x + threadIdx.x))
#define ROW ((int)(blockIdx.y * blockDim.y + threadIdx.y))
#define NUMBER ((int)blockIdx.z)
#else
#include <math.h>
#define KERNEL(name, Job) void name(const Job* jobs, int COLUMN, int ROW, int NUMBER)
#define FUNCTION static
#define static_assert _Static_assert
#endif

typedef unsigned long long Address;
typedef unsigned char Byte;

typedef struct {
    Address address;
    long long row;
    int step, width, height, unused;
    double start[2], scale[2];
} Plane;

typedef struct {
    int width, height;
    Plane plane[3];
    int planes, sample_bytes, depth;
    int transpose, flip_x, flip_y;
    float matrix[3][4];
    Address target;
    long long target_row;
    int target_pixel, target_channel, target_float, unused;
} Resample;

typedef struct {
    int width, height;
    Address source;
    long long source_row;
    int source_width, source_height;
    double matrix[2][3];
    Address target;
    long long target_row;
} Warp;

typedef struct {
    int width, height;
    Address source, target;
    int mirrored, unused;
} Copy;

#define BLOCKS 16
#define BLOCK_SAMPLES 6

typedef struct {
    int width, height;
    Address address;
    long long row;
    int step, sample_bytes;
    Address target;
    int rows[BLOCKS * BLOCK_SAMPLES], columns[BLOCKS * BLOCK_SAMPLES];
} SumLuma;

static_assert(sizeof(Resample) == 304, "see RESAMPLE in jobs.py");
static_assert(sizeof(Warp) == 96, "see WARP in jobs.py");
static_assert(sizeof(Copy) == 32, "see COPY in jobs.py");
static_assert(sizeof(SumLuma) == 808, "see SUM_LUMA in jobs.py");

FUNCTION int clamped(int value, int low, int high) { return value < low ? low : value > high ? high : value; }

// Resampling. Pillow rounds weights to 22 bits, and what it has after each of its two passes to 8 bits: rows first. (From
// version 13 on, columns first where the height shrinks much more than the width: one level of a plane apart from this.)

#define WEIGHT_BITS 22
#define HALF_WEIGHT (1 << (WEIGHT_BITS - 1))
#define NEUTRAL_CHROMA 128
#define FACTOR_BITS 10  // of the colour matrix in OpenCV's transform of bytes

// The samples of one row or column that make one sample of the result.
typedef struct {
    int first, count;
    float start, step;  // distance of the first one from the middle, and of each from the next, in filter widths
    float unit;         // makes the weights sum to 1 << WEIGHT_BITS
} Taps;

FUNCTION float triangle(const Taps* taps, int index) {
    float height = 1.0f - fabsf(taps->start + (float)index * taps->step);
    return height > 0.0f ? height : 0.0f;
}

FUNCTION int weight(const Taps* taps, int index) { return (int)(triangle(taps, index) * taps->unit + 0.5f); }

FUNCTION Taps taps_at(double start, double scale, int place) {
    double support = scale > 1.0 ? scale : 1.0;
    double middle = start + (place + 0.5) * scale;
    Taps taps;
    taps.first = (int)floor(middle - support + 0.5);
    taps.count = (int)floor(middle + support + 0.5) - taps.first;
    taps.step = 1.0f / (float)support;
    taps.start = (float)(taps.first + 0.5 - middle) * taps.step;
    float sum = 0.0f;
    for (int index = 0; index < taps.count; index++) sum += triangle(&taps, index);
    taps.unit = (float)(1 << WEIGHT_BITS) / sum;
    return taps;
}

// A sample of more than 8 bits lies in two bytes.
FUNCTION int eight_bits(const Byte* sample, int sample_bytes, int depth) {
    if (sample_bytes == 1) return sample[0];
    int shift = depth - 8;
    return clamped(((sample[0] | sample[1] << 8) + (1 << (shift - 1))) >> shift, 0, 255);
}

FUNCTION int resampled(const Resample* job, const Plane* plane, int place_x, int place_y) {
    const Taps across = taps_at(plane->start[0], plane->scale[0], place_x);
    const Taps down = taps_at(plane->start[1], plane->scale[1], place_y);
    int sum = HALF_WEIGHT;
    for (int y = 0; y < down.count; y++) {
        long long row = clamped(down.first + y, 0, plane->height - 1) * plane->row;
        int line = HALF_WEIGHT;
        for (int x = 0; x < across.count; x++) {
            long long column = (long long)clamped(across.first + x, 0, plane->width - 1) * plane->step;
            const Byte* sample = (const Byte*)plane->address + row + column;
            line += weight(&across, x) * eight_bits(sample, job->sample_bytes, job->depth);
        }
        sum += weight(&down, y) * clamped(line >> WEIGHT_BITS, 0, 255);
    }
    return clamped(sum >> WEIGHT_BITS, 0, 255);
}

FUNCTION int fixed_factor(float factor) { return (int)rintf(factor * (1 << FACTOR_BITS)); }

KERNEL(resample, Resample) {
    const Resample* job = jobs + NUMBER;
    if (COLUMN >= job->width || ROW >= job->height) return;
    // From the upright picture back to the decoded one: undo the flips, then the transposition before them.
    int x = job->flip_x ? job->width - 1 - COLUMN : COLUMN;
    int y = job->flip_y ? job->height - 1 - ROW : ROW;
    int value[3] = {NEUTRAL_CHROMA, NEUTRAL_CHROMA, NEUTRAL_CHROMA};
    for (int number = 0; number < job->planes; number++)
        value[number] = resampled(job, &job->plane[number], job->transpose ? y : x, job->transpose ? x : y);
    Byte* pixel = (Byte*)job->target + ROW * job->target_row + (long long)COLUMN * job->target_pixel;
    for (int channel = 0; channel < 3; channel++) {
        const float* line = job->matrix[channel];
        int sum = fixed_factor(line[3] + 0.5f);
        for (int number = 0; number < 3; number++) sum += fixed_factor(line[number]) * value[number];
        int level = clamped(sum >> FACTOR_BITS, 0, 255);
        Byte* place = pixel + (long long)channel * job->target_channel;
        if (job->target_float)
            *(float*)place = (float)level;
        else
            *place = (Byte)level;
    }
}

// Warping. OpenCV takes places to 1/1024 pixel, column and row by themselves, and their sum to 1/32 pixel.

#define PLACE_BITS 10
#define STEP_BITS 5
#define STEPS (1 << STEP_BITS)
#define FAR 1e9  // so that sums stay integers; no picture reaches there

FUNCTION int fixed_place(double place) {
    double fixed = rint(place * (1 << PLACE_BITS));
    return (int)(fixed < -FAR ? -FAR : fixed > FAR ? FAR : fixed);
}

FUNCTION int source_step(const double* line, int x, int y) {
    int place = fixed_place(line[0] * x) + fixed_place(line[1] * y + line[2]);
    return (place + (1 << (PLACE_BITS - STEP_BITS - 1))) >> (PLACE_BITS - STEP_BITS);
}

FUNCTION int source_level(const Warp* job, int x, int y, int channel) {
    if (x < 0 || y < 0 || x >= job->source_width || y >= job->source_height) return 0;
    return ((const Byte*)job->source)[y * job->source_row + 3LL * x + channel];
}

KERNEL(warp, Warp) {
    const Warp* job = jobs + NUMBER;
    if (COLUMN >= job->width || ROW >= job->height) return;
    int step_x = source_step(job->matrix[0], COLUMN, ROW), step_y = source_step(job->matrix[1], COLUMN, ROW);
    int x = step_x >> STEP_BITS, y = step_y >> STEP_BITS;
    int right = step_x & (STEPS - 1), below = step_y & (STEPS - 1);
    Byte* pixel = (Byte*)job->target + ROW * job->target_row + 3LL * COLUMN;
    for (int channel = 0; channel < 3; channel++) {
        int upper = source_level(job, x, y, channel) * (STEPS - right) + source_level(job, x + 1, y, channel) * right;
        int lower =
            source_level(job, x, y + 1, channel) * (STEPS - right) + source_level(job, x + 1, y + 1, channel) * right;
        pixel[channel] = (Byte)((upper * (STEPS - below) + lower * below + STEPS * STEPS / 2) >> (2 * STEP_BITS));
    }
}

KERNEL(copy_items, Copy) {
    const Copy* job = jobs + NUMBER;
    if (COLUMN >= job->width || ROW >= job->height) return;
    long long row = 3LL * job->width * ROW;
    const Byte* source = (const Byte*)job->source + row + 3LL * (job->mirrored ? job->width - 1 - COLUMN : COLUMN);
    Byte* target = (Byte*)job->target + row + 3LL * COLUMN;
    for (int channel = 0; channel < 3; channel++) target[channel] = source[channel];
}

// Cuts: sums over a few samples of each block of a plane.

KERNEL(sum_luma, SumLuma) {
    const SumLuma* job = jobs + NUMBER;
    if (COLUMN >= job->width || ROW >= job->height) return;
    unsigned sum = 0;
    for (int below = 0; below < BLOCK_SAMPLES; below++) {
        const Byte* row = (const Byte*)job->address + job->rows[ROW * BLOCK_SAMPLES + below] * job->row;
        for (int right = 0; right < BLOCK_SAMPLES; right++) {
            const Byte* sample = row + (long long)job->columns[COLUMN * BLOCK_SAMPLES + right] * job->step;
            sum += job->sample_bytes == 1 ? *sample : *(const unsigned short*)sample;
        }
    }
    ((unsigned*)job->target)[ROW * job->width + COLUMN] = sum;
}
