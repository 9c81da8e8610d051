/* kernels/cpu/kv.c - the paged key/value cache, laid out as panels for the attention tiles. */
#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/cpu.h"

static enum hg_status count_elements(const struct hg_kv_desc *d, size_t *n, struct hg_error *err)
{
    if (d->n_layers <= 0 || d->n_blocks <= 0 || d->n_kv_heads <= 0 || d->head_dim <= 0 ||
        d->head_dim > CPU_MAX_HEAD_DIM ||
        (d->type != HG_DTYPE_F32 && d->type != HG_DTYPE_F16 && d->type != HG_DTYPE_BF16))
        return hg_fail(err, HG_STATUS_UNSUPPORTED,
                       "kv cache of %d layers, %d blocks, %d heads, head dim %d, type %s",
                       d->n_layers, d->n_blocks, d->n_kv_heads, d->head_dim,
                       hg_dtype_name(d->type));
    size_t total = HG_BLOCK_TOKENS;
    const size_t dims[] = {(size_t)d->n_layers, (size_t)d->n_blocks, (size_t)d->n_kv_heads,
                           (size_t)cpu_round_up(d->head_dim, CPU_LANES)};
    for (int i = 0; i < 4; i++)
        if (__builtin_mul_overflow(total, dims[i], &total) || total > SIZE_MAX / 16)
            return hg_fail(err, HG_STATUS_TOO_LARGE, "kv cache size overflows");
    *n = total;
    return HG_STATUS_OK;
}

enum hg_status cpu_kv_create(struct hg_backend *b, const struct hg_kv_desc *desc,
                             struct hg_kv **out, struct hg_error *err)
{
    size_t n = 0;
    *out = NULL;
    HG_TRY(count_elements(desc, &n, err));
    struct hg_kv *kv = calloc(1, sizeof *kv);
    if (!kv)
        return hg_fail(err, HG_STATUS_NO_MEMORY, "kv cache");
    kv->desc = *desc;
    kv->dim_pad = (int)cpu_round_up(desc->head_dim, CPU_LANES);
    enum hg_status status = cpu_scratch(&kv->k, (int64_t)n, hg_dtype_bytes(desc->type), err);
    if (status == HG_STATUS_OK)
        status = cpu_scratch(&kv->v, (int64_t)n, hg_dtype_bytes(desc->type), err);
    if (status != HG_STATUS_OK) {
        cpu_kv_free(b, kv);
        return status;
    }
    *out = kv;
    return HG_STATUS_OK;
}

void cpu_kv_free(struct hg_backend *b, struct hg_kv *kv)
{
    (void)b;
    if (!kv)
        return;
    free(kv->k);
    free(kv->v);
    free(kv);
}

int64_t cpu_kv_at(const struct hg_kv *kv, int64_t dim, int layer, int32_t block, int head)
{
    int64_t i = (int64_t)layer * kv->desc.n_blocks + block;
    return (i * kv->desc.n_kv_heads + head) * dim * HG_BLOCK_TOKENS;
}

enum hg_status cpu_kv_zero(struct hg_backend *b, struct hg_kv *kv, const int32_t *blocks, int n)
{
    (void)b;
    const struct hg_kv_desc *d = &kv->desc;
    size_t element = hg_dtype_bytes(d->type);
    for (int i = 0; i < n; i++) {
        if (blocks[i] < 0 || blocks[i] >= d->n_blocks)
            return cpu_refuse("kv_zero: block %d of %d", blocks[i], d->n_blocks);
        for (int l = 0; l < d->n_layers; l++) {
            size_t k = (size_t)cpu_kv_at(kv, d->head_dim, l, blocks[i], 0) * element;
            size_t v = (size_t)cpu_kv_at(kv, kv->dim_pad, l, blocks[i], 0) * element;
            size_t rows = (size_t)d->n_kv_heads * HG_BLOCK_TOKENS * element;
            memset((char *)kv->k + k, 0, rows * (size_t)d->head_dim);
            memset((char *)kv->v + v, 0, rows * (size_t)kv->dim_pad);
        }
    }
    return HG_STATUS_OK;
}
