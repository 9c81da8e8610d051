/* kernels/dtype.h - element types of weights, caches and host tensors. */
#ifndef HG_KERNELS_DTYPE_H
#define HG_KERNELS_DTYPE_H

#include <stddef.h>

enum hg_dtype { HG_DTYPE_F32, HG_DTYPE_F16, HG_DTYPE_BF16, HG_DTYPE_I8, HG_DTYPE_COUNT };

static inline size_t hg_dtype_bytes(enum hg_dtype t)
{
    return t == HG_DTYPE_F32 ? 4 : t == HG_DTYPE_I8 ? 1 : 2;
}

static inline const char *hg_dtype_name(enum hg_dtype t)
{
    static const char *const names[] = {"f32", "f16", "bf16", "i8"};
    return (unsigned)t < HG_DTYPE_COUNT ? names[t] : "?";
}

#endif
