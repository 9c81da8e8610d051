/* kernels/cuda/memory.c - transfers, the paged cache. */
#include <stdint.h>
#include <stdlib.h>

#include "kernels/cuda/cuda.h"

enum hg_status cuda_upload(struct hg_backend *b, void *dst, const void *src, size_t bytes)
{
    struct cuda_backend *c = cuda_of(b);
    if (c->lost)
        return HG_STATUS_DEVICE;
    if (cuda_graphs_spoil(c, "an upload"))
        return HG_STATUS_OK;
    return cuda_check(c, cudaMemcpyAsync(dst, src, bytes, cudaMemcpyHostToDevice, c->stream),
                      "upload");
}

enum hg_status cuda_download(struct hg_backend *b, void *dst, const void *src, size_t bytes)
{
    struct cuda_backend *c = cuda_of(b);
    if (c->lost)
        return HG_STATUS_DEVICE;
    if (cuda_graphs_spoil(c, "a download"))
        return HG_STATUS_OK;
    return cuda_check(c, cudaMemcpyAsync(dst, src, bytes, cudaMemcpyDeviceToHost, c->stream),
                      "download");
}

enum hg_status cuda_sync(struct hg_backend *b)
{
    struct cuda_backend *c = cuda_of(b);
    if (c->lost)
        return HG_STATUS_DEVICE;
    if (cuda_graphs_spoil(c, "a wait"))
        return HG_STATUS_OK;
    return cuda_check(c, cudaStreamSynchronize(c->stream), "sync");
}

/* ---- the cache ----------------------------------------------------------------------------------
 */

/* Keys and values that a layer keeps per block. */
static size_t block_rows(const struct hg_kv_desc *d)
{
    return (size_t)d->n_kv_heads * HG_BLOCK_TOKENS;
}

static enum hg_status alloc_floats(struct hg_backend *b, size_t n, float **out,
                                   struct hg_error *err)
{
    void *p = NULL;
    enum hg_status status = cuda_alloc(b, n * sizeof **out, &p, err);
    *out = p;
    return status;
}

static enum hg_status alloc_kv(struct hg_backend *b, size_t bytes, size_t n_scales,
                               struct hg_kv *kv, struct hg_error *err)
{
    const struct hg_kv_desc *d = &kv->desc;
    HG_TRY(cuda_alloc(b, bytes, &kv->k, err));
    HG_TRY(cuda_alloc(b, bytes, &kv->v, err));
    if (!n_scales)
        return HG_STATUS_OK;
    HG_TRY(alloc_floats(b, n_scales, &kv->k_scale, err));
    HG_TRY(alloc_floats(b, n_scales, &kv->v_scale, err));
    kv->max_rows = cuda_of(b)->limits.max_rows;
    size_t rows = kv->max_rows > 0 ? (size_t)kv->max_rows : 0;
    return alloc_floats(b, rows * 2 * (size_t)d->n_kv_heads * (size_t)d->head_dim, &kv->rows, err);
}

enum hg_status cuda_kv_create(struct hg_backend *b, const struct hg_kv_desc *d, struct hg_kv **out,
                              struct hg_error *err)
{
    size_t total = 0, n_scales = 0;
    *out = NULL;
    HG_TRY(hg_kv_desc_check(d, d->head_dim, &total, &n_scales, err));
    struct hg_kv *kv = calloc(1, sizeof *kv);
    if (!kv)
        return hg_fail(err, HG_STATUS_NO_MEMORY, "kv cache");
    kv->desc = *d;
    enum hg_status status = alloc_kv(b, total * hg_dtype_bytes(d->type), n_scales, kv, err);
    if (status != HG_STATUS_OK) {
        cuda_kv_free(b, kv);
        return status;
    }
    *out = kv;
    return HG_STATUS_OK;
}

void cuda_kv_free(struct hg_backend *b, struct hg_kv *kv)
{
    if (!kv)
        return;
    cuda_free(b, kv->k);
    cuda_free(b, kv->v);
    cuda_free(b, kv->k_scale);
    cuda_free(b, kv->v_scale);
    cuda_free(b, kv->rows);
    free(kv);
}

/* Block number `at` (over all layers) of an array of `bytes` per block. */
static enum hg_status zero_block(struct cuda_backend *c, void *base, size_t at, size_t bytes)
{
    return cuda_check(c, cudaMemsetAsync((char *)base + at * bytes, 0, bytes, c->stream),
                      "kv_zero");
}

enum hg_status cuda_kv_zero(struct hg_backend *b, struct hg_kv *kv, const int32_t *blocks, int n)
{
    struct cuda_backend *c = cuda_of(b);
    const struct hg_kv_desc *d = &kv->desc;
    size_t rows = block_rows(d), bytes = rows * (size_t)d->head_dim * hg_dtype_bytes(d->type);
    if (c->lost)
        return HG_STATUS_DEVICE;
    for (int i = 0; i < n; i++) {
        if (blocks[i] < 0 || blocks[i] >= d->n_blocks)
            return cuda_refuse("kv_zero: block %d of %d", blocks[i], d->n_blocks);
        for (int l = 0; l < d->n_layers; l++) {
            size_t at = (size_t)l * (size_t)d->n_blocks + (size_t)blocks[i];
            HG_TRY(zero_block(c, kv->k, at, bytes));
            HG_TRY(zero_block(c, kv->v, at, bytes));
            if (d->type != HG_DTYPE_I8)
                continue;
            HG_TRY(zero_block(c, kv->k_scale, at, rows * sizeof(float)));
            HG_TRY(zero_block(c, kv->v_scale, at, rows * sizeof(float)));
        }
    }
    return HG_STATUS_OK;
}
