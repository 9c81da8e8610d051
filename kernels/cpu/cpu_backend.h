/* kernels/cpu/cpu_backend.h - the fast CPU backend. */
#ifndef HG_KERNELS_CPU_CPU_BACKEND_H
#define HG_KERNELS_CPU_CPU_BACKEND_H

#include "kernels/backend.h"

/* path: "auto" (the best this processor has), "scalar", "avx2" (with FMA and F16C) or "avx512" (F,
 * BW, DQ, VL; VNNI and BF16 are used where present). UNSUPPORTED when the processor lacks the path,
 * BAD_REQUEST for another word. n_threads 0: one per online CPU. */
enum hg_status hg_cpu_open(const char *path, int n_threads, struct hg_backend **out,
                           struct hg_error *err);

#endif
