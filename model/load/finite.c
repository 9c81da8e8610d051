/* model/load/finite.c - exponents that are all ones. */
#include "model/load/finite.h"

#include <stdbool.h>
#include <string.h>

enum { BLOCK = 4096 };

/* Is there an exponent of all ones among n elements? Branch-free, so that it is vectorised. */
static bool any_u16(const uint16_t *x, size_t n, uint16_t mask)
{
    uint16_t hit = 0;
    for (size_t i = 0; i < n; i++)
        hit |= (uint16_t) - ((x[i] & mask) == mask);
    return hit != 0;
}

static bool any_u32(const uint32_t *x, size_t n)
{
    uint32_t hit = 0;
    for (size_t i = 0; i < n; i++)
        hit |= (uint32_t) - ((x[i] & 0x7f800000u) == 0x7f800000u);
    return hit != 0;
}

static bool any_u64(const uint64_t *x, size_t n)
{
    const uint64_t mask = 0x7ff0000000000000u;
    bool hit = false;
    for (size_t i = 0; i < n; i++)
        hit |= (x[i] & mask) == mask;
    return hit;
}

static bool any(const void *block, size_t n, enum hg_tensor_type type)
{
    switch (type) {
    case HG_TENSOR_TYPE_F16:
        return any_u16(block, n, 0x7c00);
    case HG_TENSOR_TYPE_BF16:
        return any_u16(block, n, 0x7f80);
    case HG_TENSOR_TYPE_F32:
        return any_u32(block, n);
    case HG_TENSOR_TYPE_F64:
        return any_u64(block, n);
    default:
        return false;
    }
}

/* The first in n <= BLOCK bytes' worth of elements at p, which may be unaligned. */
static int64_t scan(const unsigned char *p, size_t n, size_t size, enum hg_tensor_type type)
{
    uint64_t block[BLOCK / 8];
    memcpy(block, p, n * size);
    if (!any(block, n, type))
        return -1;
    for (size_t i = 0; i < n; i++)
        if (any((const char *)block + i * size, 1, type))
            return (int64_t)i;
    return -1;
}

static int64_t scan_views(const struct hg_tensor *t, size_t size)
{
    int64_t at[HG_TENSOR_MAX_DIMS] = {0}, n = hg_tensor_count(t);
    for (int64_t k = 0; k < n; k++) {
        int64_t offset = 0;
        for (int i = 0; i < t->n_dims; i++)
            offset += at[i] * t->strides[i];
        if (scan(t->data + (size_t)offset * size, 1, size, t->type) == 0)
            return k;
        for (int i = t->n_dims - 1; i >= 0 && ++at[i] == t->dims[i]; i--)
            at[i] = 0;
    }
    return -1;
}

int64_t hg_tensor_not_finite(const struct hg_tensor *t, int samples)
{
    size_t size = hg_tensor_type_bytes(t->type), n = (size_t)hg_tensor_count(t),
           once = BLOCK / size;
    if (t->type > HG_TENSOR_TYPE_F64 || n == 0)
        return -1;
    if (!hg_tensor_is_contiguous(t))
        return scan_views(t, size);
    size_t blocks = (n + once - 1) / once;
    bool some = samples > 1 && (size_t)samples < blocks;
    size_t visits = some ? (size_t)samples : blocks;
    for (size_t k = 0; k < visits; k++) {
        size_t first = (some ? k * (blocks - 1) / (visits - 1) : k) * once;
        int64_t i =
            scan(t->data + first * size, n - first < once ? n - first : once, size, t->type);
        if (i >= 0)
            return (int64_t)first + i;
    }
    return -1;
}
