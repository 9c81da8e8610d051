/* model/load/tensor_convert.c - strided tensors of any float type -> contiguous F32, F16 or BF16.
 *
 * Everything goes through blocks of F32, which are exact for F16 and BF16; F64 is rounded to F32
 * first. Rounding is to nearest even. The same type without strides is a copy. */
#include <string.h>

#include "common/half.h"
#include "model/load/weights.h"

enum { BLOCK = 512 };

/* n <= BLOCK packed elements at p (unaligned) -> F32. */
static void widen(enum hg_tensor_type type, const unsigned char *p, float *dst, size_t n)
{
    uint16_t half[BLOCK];
    double wide[BLOCK];
    switch (type) {
    case HG_TENSOR_TYPE_F32:
        memcpy(dst, p, n * 4);
        return;
    case HG_TENSOR_TYPE_F64:
        memcpy(wide, p, n * 8);
        for (size_t i = 0; i < n; i++)
            dst[i] = (float)wide[i];
        return;
    case HG_TENSOR_TYPE_BF16:
        memcpy(half, p, n * 2);
        for (size_t i = 0; i < n; i++)
            dst[i] = hg_bf16_to_f32(half[i]);
        return;
    case HG_TENSOR_TYPE_F16:
        memcpy(half, p, n * 2);
        hg_f16_to_f32_n(half, dst, n);
        return;
    default: /* integers are no weights: hg_weights_get refuses them */
        memset(dst, 0, n * 4);
        return;
    }
}

static void narrow(enum hg_dtype type, const float *src, unsigned char *dst, size_t n)
{
    uint16_t half[BLOCK];
    if (type == HG_DTYPE_F32) {
        memcpy(dst, src, n * 4);
        return;
    }
    if (type == HG_DTYPE_BF16) {
        for (size_t i = 0; i < n; i++)
            half[i] = hg_f32_to_bf16(src[i]);
    } else {
        hg_f32_to_f16_n(src, half, n);
    }
    memcpy(dst, half, n * 2);
}

/* Gather n elements that start at flat index `at` into `out`, packed. */
static void gather(const struct hg_tensor *t, int64_t at, size_t n, size_t size, unsigned char *out)
{
    int64_t index[HG_TENSOR_MAX_DIMS] = {0};
    int64_t offset = 0;
    for (int d = t->n_dims - 1; d >= 0; d--) {
        index[d] = at % t->dims[d];
        at /= t->dims[d];
        offset += index[d] * t->strides[d];
    }
    for (size_t i = 0; i < n; i++) {
        memcpy(out + i * size, t->data + (size_t)offset * size, size);
        for (int d = t->n_dims - 1; d >= 0; d--) {
            offset += t->strides[d];
            if (++index[d] < t->dims[d])
                break;
            offset -= t->dims[d] * t->strides[d];
            index[d] = 0;
        }
    }
}

static int same_type(enum hg_tensor_type a, enum hg_dtype b)
{
    return (a == HG_TENSOR_TYPE_F32 && b == HG_DTYPE_F32) ||
           (a == HG_TENSOR_TYPE_F16 && b == HG_DTYPE_F16) ||
           (a == HG_TENSOR_TYPE_BF16 && b == HG_DTYPE_BF16);
}

void hg_tensor_convert(const struct hg_tensor *t, enum hg_dtype type, void *dst)
{
    unsigned char packed[BLOCK * 8];
    float block[BLOCK];
    unsigned char *out = dst;
    size_t size = hg_tensor_type_bytes(t->type);
    int64_t count = hg_tensor_count(t);
    int contiguous = hg_tensor_is_contiguous(t);
    if (contiguous && same_type(t->type, type)) {
        if (count)
            memcpy(dst, t->data, (size_t)count * size);
        return;
    }
    for (int64_t at = 0; at < count; at += BLOCK) {
        size_t n = count - at < BLOCK ? (size_t)(count - at) : BLOCK;
        const unsigned char *src = packed;
        if (contiguous)
            src = t->data + (size_t)at * size;
        else
            gather(t, at, n, size, packed);
        if (same_type(t->type, type)) {
            memcpy(out, src, n * size);
        } else {
            widen(t->type, src, block, n);
            narrow(type, block, out, n);
        }
        out += n * hg_dtype_bytes(type);
    }
}
