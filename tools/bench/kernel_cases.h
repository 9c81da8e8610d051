/* tools/bench/kernel_cases.h - the kernels of a layer of M3 and L14, and of pictures, alone, on any
 * backend. */
#ifndef HG_TOOLS_BENCH_KERNEL_CASES_H
#define HG_TOOLS_BENCH_KERNEL_CASES_H

#include <stddef.h>

#include "common/status.h"

/* Prints one JSON object per case and line: the time of one call in microseconds (median, 10th and
 * 90th percentile of `rounds`) and the bytes and operations that it cannot do without. Linears
 * rotate over `mib` MiB of weights and attention over layers, so that no cache holds them; a round
 * ends with sync() and lasts long enough to hide what that costs. tiny: small shapes, which show
 * that the cases run and nothing else; one: qkv of M3 in bf16, one row, for a profiler; brief: M3
 * in bf16, fewer rows, with and without one plug-in, to compare builds. */
enum kernel_cases_size {
    KERNEL_CASES_FULL,
    KERNEL_CASES_TINY,
    KERNEL_CASES_ONE,
    KERNEL_CASES_BRIEF
};
enum hg_status kernel_cases(const char *backend, size_t mib, int rounds,
                            enum kernel_cases_size size, struct hg_error *err);

#endif
