/* model/kv_cache.h - which KV block belongs to whom, and what it holds. The keys and values live in
 * the backend; here are integers only. Blocks hold HG_BLOCK_TOKENS positions of all layers.
 *
 * A block is free, owned by one or more sequences, or kept: nobody owns it, but what it holds is
 * known by its key and may be found again. Kept blocks count as free: the one that was not used for
 * the longest time is zeroed and handed out when no other is left. A block without a key is zeroed
 * when its last owner leaves.
 *
 * Quarantine: a block that a numeric fault was in (suspect) is zeroed too, but its next owner is a
 * probe, a sequence whose results are known (server/engine/canary.h). Only when those were right it
 * is like any other. Blocks in quarantine do not count as free; at most all blocks are there, and
 * the engine empties it before it refuses work for want of blocks.
 *
 * A key is a keyed hash of all that decides the block's content: tenant, task, and every token from
 * position 0 on. On a hit the block's own tokens and the key before it are compared too.
 *
 * Engine thread only, but for n_free. */
#ifndef HG_MODEL_KV_CACHE_H
#define HG_MODEL_KV_CACHE_H

#include <stdatomic.h>

#include "common/siphash.h"
#include "kernels/backend.h"

/* What HG_BLOCK_TOKENS consecutive positions hold: an id, or a hash of the picture and its row. */
struct hg_kv_text {
    struct hg_hash128 before; /* key of the block before, or the root of the chain */
    uint64_t word[HG_BLOCK_TOKENS];
};

struct hg_kv_block;

struct hg_kv_cache {
    struct hg_backend *backend;
    struct hg_kv *kv;
    struct hg_kv_block *blocks; /* [n_blocks] */
    int32_t *free_blocks;       /* stack of block ids */
    int32_t *buckets;           /* [n_buckets] first block of a chain, -1 none */
    int32_t *evicted;           /* [n_blocks] scratch */
    int32_t *quarantine;        /* [n_blocks] zeroed, not yet trusted */
    int n_blocks, n_stack, n_kept, n_buckets;
    int32_t oldest, newest; /* of the kept, -1 none */
    atomic_int n_free;      /* stack and kept; hg_model_info reads it on any thread */
    atomic_int n_quarantine;
    size_t bytes; /* of keys, values and scales */
};

/* The desc's n_blocks is the size of the pool. */
enum hg_status hg_kv_cache_init(struct hg_kv_cache *c, struct hg_backend *b,
                                const struct hg_kv_desc *desc, struct hg_error *err);
void hg_kv_cache_deinit(struct hg_kv_cache *c);

int hg_kv_cache_blocks_for(int n_positions);

/* Take n zeroed blocks into blocks[], one owner each; BUSY (and none taken) when fewer are free. */
enum hg_status hg_kv_cache_acquire(struct hg_kv_cache *c, int n, int32_t *blocks,
                                   struct hg_error *err);
/* The same for a probe: those in quarantine first. */
enum hg_status hg_kv_cache_acquire_probe(struct hg_kv_cache *c, int n, int32_t *blocks,
                                         struct hg_error *err);
/* One owner less for each. Blocks that could not be zeroed are never handed out again. */
void hg_kv_cache_release(struct hg_kv_cache *c, const int32_t *blocks, int n);

/* The block with this key and content, with one owner more; -1 when there is none. */
int32_t hg_kv_cache_find(struct hg_kv_cache *c, struct hg_hash128 key,
                         const struct hg_kv_text *text);
/* An owned block's content is complete and will not change. Nothing happens when another block has
 * the key already. */
void hg_kv_cache_publish(struct hg_kv_cache *c, int32_t block, struct hg_hash128 key,
                         const struct hg_kv_text *text);
/* A fault was in these owned blocks: their content is not to be found any more, and after their
 * last owner they go into quarantine. */
void hg_kv_cache_suspect(struct hg_kv_cache *c, const int32_t *blocks, int n);
/* What was computed in these owned blocks was right: they are like any other. */
void hg_kv_cache_trust(struct hg_kv_cache *c, const int32_t *blocks, int n);
/* Where there is no probe: being zeroed has to do. */
void hg_kv_cache_trust_all(struct hg_kv_cache *c);
/* Zero and free every kept block. */
void hg_kv_cache_forget(struct hg_kv_cache *c);

#endif
