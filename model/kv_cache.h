/* model/kv_cache.h - which KV block belongs to whom. The keys and values live in the backend; here
 * are integers only. Blocks hold HG_BLOCK_TOKENS positions of all layers. Engine thread only, but
 * for n_free. */
#ifndef HG_MODEL_KV_CACHE_H
#define HG_MODEL_KV_CACHE_H

#include <stdatomic.h>

#include "kernels/backend.h"

struct hg_kv_cache {
    struct hg_backend *backend;
    struct hg_kv *kv;
    int32_t *free_blocks; /* stack of block ids */
    int n_blocks;
    atomic_int n_free; /* written by the engine thread; hg_model_info reads it on any */
    size_t bytes;      /* of keys, values and scales */
};

/* The desc's n_blocks is the size of the pool. */
enum hg_status hg_kv_cache_init(struct hg_kv_cache *c, struct hg_backend *b,
                                const struct hg_kv_desc *desc, struct hg_error *err);
void hg_kv_cache_deinit(struct hg_kv_cache *c);

int hg_kv_cache_blocks_for(int n_positions);

/* Take n blocks into blocks[]; BUSY (and none taken) when fewer are free. */
enum hg_status hg_kv_cache_acquire(struct hg_kv_cache *c, int n, int32_t *blocks,
                                   struct hg_error *err);
/* Zero and give back. */
void hg_kv_cache_release(struct hg_kv_cache *c, const int32_t *blocks, int n);

#endif
