/* model/kv_cache.c - block pool of the KV cache. */
#include "model/kv_cache.h"

#include <stdlib.h>
#include <string.h>

enum hg_status hg_kv_cache_init(struct hg_kv_cache *c, struct hg_backend *b,
                                const struct hg_kv_desc *desc, struct hg_error *err)
{
    memset(c, 0, sizeof *c);
    c->backend = b;
    c->n_blocks = desc->n_blocks;
    c->free_blocks = calloc((size_t)desc->n_blocks, sizeof *c->free_blocks);
    if (!c->free_blocks)
        return hg_fail(err, HG_STATUS_NO_MEMORY, "KV cache: table of %d blocks", desc->n_blocks);
    enum hg_status status = b->ops->kv_create(b, desc, &c->kv, err);
    if (status != HG_STATUS_OK) {
        hg_kv_cache_deinit(c);
        return status;
    }
    /* Highest id at the bottom: blocks are handed out from 0 up. */
    for (int i = 0; i < desc->n_blocks; i++)
        c->free_blocks[i] = desc->n_blocks - 1 - i;
    atomic_store(&c->n_free, desc->n_blocks);
    c->bytes = hg_kv_desc_bytes(desc);
    return HG_STATUS_OK;
}

void hg_kv_cache_deinit(struct hg_kv_cache *c)
{
    if (c->kv)
        c->backend->ops->kv_free(c->backend, c->kv);
    free(c->free_blocks);
    memset(c, 0, sizeof *c);
}

int hg_kv_cache_blocks_for(int n_positions)
{
    return (n_positions + HG_BLOCK_TOKENS - 1) / HG_BLOCK_TOKENS;
}

enum hg_status hg_kv_cache_acquire(struct hg_kv_cache *c, int n, int32_t *blocks,
                                   struct hg_error *err)
{
    int n_free = atomic_load(&c->n_free);
    if (n > n_free)
        return hg_fail(err, HG_STATUS_BUSY, "KV cache: %d blocks needed, %d of %d free", n, n_free,
                       c->n_blocks);
    for (int i = 0; i < n; i++)
        blocks[i] = c->free_blocks[--n_free];
    atomic_store(&c->n_free, n_free);
    return HG_STATUS_OK;
}

void hg_kv_cache_release(struct hg_kv_cache *c, const int32_t *blocks, int n)
{
    if (n <= 0)
        return;
    /* A patient's keys and values do not outlive the request. */
    c->backend->ops->kv_zero(c->backend, c->kv, blocks, n);
    int n_free = atomic_load(&c->n_free);
    for (int i = n - 1; i >= 0; i--)
        c->free_blocks[n_free++] = blocks[i];
    atomic_store(&c->n_free, n_free);
}
