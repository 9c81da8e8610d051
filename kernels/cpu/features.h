/* kernels/cpu/features.h - which primitives this processor runs. */
#ifndef HG_KERNELS_CPU_FEATURES_H
#define HG_KERNELS_CPU_FEATURES_H

#include "common/status.h"
#include "kernels/cpu/simd.h"

struct cpu_features {
    bool avx2;   /* with FMA and F16C */
    bool avx512; /* F, BW, DQ and VL; implies avx2 */
    bool vnni, bf16;
};

/* What the processor has and the system lets us use. */
struct cpu_features cpu_features_here(void);

/* *out = the table of a path ("auto", "scalar", "avx2", "avx512") with the tiles that `f` allows.
 * UNSUPPORTED when f lacks the path, BAD_REQUEST for an unknown word. */
enum hg_status cpu_select_from(const char *path, const struct cpu_features *f, struct cpu_simd *out,
                               struct hg_error *err);
enum hg_status cpu_select(const char *path, struct cpu_simd *out, struct hg_error *err);

#endif
