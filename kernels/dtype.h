/* kernels/dtype.h - element types of weights, caches and host tensors. */
#ifndef HG_KERNELS_DTYPE_H
#define HG_KERNELS_DTYPE_H

#include <stdbool.h>
#include <stddef.h>

/* From I8 on: quantised: base weights, I8 adapters and caches too; backend.h defines how. */
enum hg_dtype {
    HG_DTYPE_F32,
    HG_DTYPE_F16,
    HG_DTYPE_BF16,
    HG_DTYPE_I8,
    HG_DTYPE_F8, /* E4M3 */
    HG_DTYPE_I4,
    HG_DTYPE_COUNT
};

enum { HG_I4_GROUP = 128 /* inputs that share a scale */ };

static inline bool hg_dtype_is_quantised(enum hg_dtype t)
{
    return t >= HG_DTYPE_I8;
}

/* What tables beside base weights of a type are kept in, and adapters unless told otherwise. */
static inline enum hg_dtype hg_dtype_beside(enum hg_dtype t)
{
    return hg_dtype_is_quantised(t) ? HG_DTYPE_BF16 : t;
}

static inline size_t hg_dtype_bits(enum hg_dtype t)
{
    return t == HG_DTYPE_F32 ? 32 : t == HG_DTYPE_I4 ? 4 : hg_dtype_is_quantised(t) ? 8 : 16;
}

/* Of the types that are not quantised. */
static inline size_t hg_dtype_bytes(enum hg_dtype t)
{
    return hg_dtype_bits(t) / 8;
}

/* Bytes of a row of n quantised values as a host tensor holds it: codes, and scales beside them. */
static inline size_t hg_code_bytes(enum hg_dtype t, int n)
{
    return t == HG_DTYPE_I4 ? ((size_t)n + 7) / 8 * 4 : (size_t)n;
}

static inline size_t hg_scale_bytes(enum hg_dtype t, int n)
{
    return t == HG_DTYPE_I4 ? ((size_t)n + HG_I4_GROUP - 1) / HG_I4_GROUP * 2 : 4;
}

static inline const char *hg_dtype_name(enum hg_dtype t)
{
    static const char *const names[] = {"f32", "f16", "bf16", "i8", "f8", "i4"};
    return (unsigned)t < HG_DTYPE_COUNT ? names[t] : "?";
}

#endif
