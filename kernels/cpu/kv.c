/* kernels/cpu/kv.c - the paged key/value cache, laid out as panels for the attention tiles. */
#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/cpu.h"

enum hg_status cpu_kv_create(struct hg_backend *b, const struct hg_kv_desc *desc,
                             struct hg_kv **out, struct hg_error *err)
{
    size_t n = 0, n_scales = 0;
    *out = NULL;
    HG_TRY(hg_kv_desc_check(desc, cpu_round_up(desc->head_dim, CPU_LANES), &n, &n_scales, err));
    if (desc->head_dim > CPU_MAX_HEAD_DIM)
        return hg_fail(err, HG_STATUS_UNSUPPORTED, "kv cache: head dim %d, at most %d",
                       desc->head_dim, CPU_MAX_HEAD_DIM);
    struct hg_kv *kv = calloc(1, sizeof *kv);
    if (!kv)
        return hg_fail(err, HG_STATUS_NO_MEMORY, "kv cache");
    kv->desc = *desc;
    kv->dim_pad = (int)cpu_round_up(desc->head_dim, CPU_LANES);
    enum hg_status status = cpu_array(b, &kv->k, (int64_t)n, hg_dtype_bytes(desc->type), err);
    if (status == HG_STATUS_OK)
        status = cpu_array(b, &kv->v, (int64_t)n, hg_dtype_bytes(desc->type), err);
    if (status == HG_STATUS_OK && n_scales)
        status = cpu_scratch(&kv->k_scale, (int64_t)n_scales, sizeof(float), err);
    if (status == HG_STATUS_OK && n_scales)
        status = cpu_scratch(&kv->v_scale, (int64_t)n_scales, sizeof(float), err);
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
    free(kv->k_scale);
    free(kv->v_scale);
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
            size_t rows = (size_t)d->n_kv_heads * HG_BLOCK_TOKENS;
            memset((char *)kv->k + k, 0, rows * (size_t)d->head_dim * element);
            memset((char *)kv->v + v, 0, rows * (size_t)kv->dim_pad * element);
            if (d->type == HG_DTYPE_I8) {
                int64_t row = cpu_kv_at(kv, 1, l, blocks[i], 0);
                memset(kv->k_scale + row, 0, rows * sizeof(float));
                memset(kv->v_scale + row, 0, rows * sizeof(float));
            }
        }
    }
    return HG_STATUS_OK;
}
