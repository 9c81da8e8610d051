/* tools/bench/peak.h - what this machine can do at most, measured on all members of a pool. */
#ifndef HG_TOOLS_BENCH_PEAK_H
#define HG_TOOLS_BENCH_PEAK_H

#include <stddef.h>

#include "common/pool.h"

enum peak_kind { PEAK_FP32, PEAK_BF16, PEAK_INT8, PEAK_COUNT };

/* Both are the fastest of a few short passes. Bytes per second of reading `bytes` at `data`,
 * contiguous shares. */
double peak_read(struct hg_pool *pool, const void *data, size_t bytes);
/* Operations (2 per multiply-add) per second from registers; 0 when the processor lacks the
 * AVX-512 instruction. */
double peak_ops(struct hg_pool *pool, enum peak_kind kind);

#endif
