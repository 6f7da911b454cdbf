// The kernels for a CPU: loops over the grid, and where C puts the members of the tables.

#include <stddef.h>

#include "kernels.cu"

#define RUN(kernel, Job)                                                                  \
    void run_##kernel(const Job* jobs, int count) {                                       \
        for (int number = 0; number < count; number++)                                    \
            for (int row = 0; row < jobs[number].height; row++)                           \
                for (int column = 0; column < jobs[number].width; column++)               \
                    kernel(jobs, column, row, number);                                    \
    }

RUN(resample, Resample)
RUN(warp, Warp)
RUN(copy_items, Copy)
RUN(sum_luma, SumLuma)

const int plane_offsets[] = {
    offsetof(Plane, address), offsetof(Plane, row),    offsetof(Plane, step),  offsetof(Plane, width),
    offsetof(Plane, height),  offsetof(Plane, unused), offsetof(Plane, start), offsetof(Plane, scale),
};
const int resample_offsets[] = {
    offsetof(Resample, width),          offsetof(Resample, height),       offsetof(Resample, plane),
    offsetof(Resample, planes),         offsetof(Resample, sample_bytes), offsetof(Resample, depth),
    offsetof(Resample, transpose),      offsetof(Resample, flip_x),       offsetof(Resample, flip_y),
    offsetof(Resample, matrix),         offsetof(Resample, target),       offsetof(Resample, target_row),
    offsetof(Resample, target_pixel),   offsetof(Resample, target_channel),
    offsetof(Resample, target_float),   offsetof(Resample, unused),
};
const int warp_offsets[] = {
    offsetof(Warp, width),        offsetof(Warp, height),        offsetof(Warp, source), offsetof(Warp, source_row),
    offsetof(Warp, source_width), offsetof(Warp, source_height), offsetof(Warp, matrix), offsetof(Warp, target),
    offsetof(Warp, target_row),
};
const int copy_offsets[] = {
    offsetof(Copy, width),  offsetof(Copy, height),   offsetof(Copy, source),
    offsetof(Copy, target), offsetof(Copy, mirrored), offsetof(Copy, unused),
};
const int sum_luma_offsets[] = {
    offsetof(SumLuma, width),        offsetof(SumLuma, height), offsetof(SumLuma, address), offsetof(SumLuma, row),
    offsetof(SumLuma, step),         offsetof(SumLuma, sample_bytes),
    offsetof(SumLuma, target),       offsetof(SumLuma, rows),   offsetof(SumLuma, columns),
};
