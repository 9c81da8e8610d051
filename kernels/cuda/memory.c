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

static size_t block_bytes(const struct hg_kv_desc *d)
{
    return (size_t)d->n_kv_heads * HG_BLOCK_TOKENS * (size_t)d->head_dim * hg_dtype_bytes(d->type);
}

enum hg_status cuda_kv_create(struct hg_backend *b, const struct hg_kv_desc *d, struct hg_kv **out,
                              struct hg_error *err)
{
    size_t total = 0;
    *out = NULL;
    HG_TRY(hg_kv_desc_check(d, d->head_dim, &total, err));
    total *= hg_dtype_bytes(d->type);
    struct hg_kv *kv = calloc(1, sizeof *kv);
    if (!kv)
        return hg_fail(err, HG_STATUS_NO_MEMORY, "kv cache");
    kv->desc = *d;
    enum hg_status status = cuda_alloc(b, total, &kv->k, err);
    if (status == HG_STATUS_OK)
        status = cuda_alloc(b, total, &kv->v, err);
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
    free(kv);
}

enum hg_status cuda_kv_zero(struct hg_backend *b, struct hg_kv *kv, const int32_t *blocks, int n)
{
    struct cuda_backend *c = cuda_of(b);
    const struct hg_kv_desc *d = &kv->desc;
    size_t bytes = block_bytes(d);
    if (c->lost)
        return HG_STATUS_DEVICE;
    for (int i = 0; i < n; i++) {
        if (blocks[i] < 0 || blocks[i] >= d->n_blocks)
            return cuda_refuse("kv_zero: block %d of %d", blocks[i], d->n_blocks);
        for (int l = 0; l < d->n_layers; l++) {
            size_t at = ((size_t)l * (size_t)d->n_blocks + (size_t)blocks[i]) * bytes;
            HG_TRY(
                cuda_check(c, cudaMemsetAsync((char *)kv->k + at, 0, bytes, c->stream), "kv_zero"));
            HG_TRY(
                cuda_check(c, cudaMemsetAsync((char *)kv->v + at, 0, bytes, c->stream), "kv_zero"));
        }
    }
    return HG_STATUS_OK;
}
