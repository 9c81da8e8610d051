/* model/kv_cache.c - block pool of the KV cache. */
#include "model/kv_cache.h"

#include <stdlib.h>
#include <string.h>

#include "common/fault.h"
#include "common/log.h"

struct hg_kv_block {
    int n_owners;
    bool keyed, suspect;
    struct hg_hash128 key;
    struct hg_kv_text text;
    int32_t next;         /* in its bucket, -1 */
    int32_t older, newer; /* among the kept, -1 */
};

static void count_free(struct hg_kv_cache *c)
{
    atomic_store(&c->n_free, c->n_stack + c->n_kept);
}

static void fill(int32_t *p, int n, int32_t v)
{
    for (int i = 0; i < n; i++)
        p[i] = v;
}

enum hg_status hg_kv_cache_init(struct hg_kv_cache *c, struct hg_backend *b,
                                const struct hg_kv_desc *desc, struct hg_error *err)
{
    size_t n = (size_t)desc->n_blocks;
    memset(c, 0, sizeof *c);
    c->backend = b;
    c->n_blocks = desc->n_blocks;
    c->oldest = c->newest = -1;
    for (c->n_buckets = 16; c->n_buckets < desc->n_blocks; c->n_buckets *= 2)
        ;
    c->blocks = calloc(n, sizeof *c->blocks);
    c->free_blocks = calloc(n, sizeof *c->free_blocks);
    c->evicted = calloc(n, sizeof *c->evicted);
    c->buckets = calloc((size_t)c->n_buckets, sizeof *c->buckets);
    c->quarantine = calloc(n, sizeof *c->quarantine);
    if (!c->blocks || !c->free_blocks || !c->evicted || !c->buckets || !c->quarantine) {
        hg_kv_cache_deinit(c);
        return hg_fail(err, HG_STATUS_NO_MEMORY, "KV cache: table of %d blocks", desc->n_blocks);
    }
    enum hg_status status = b->ops->kv_create(b, desc, &c->kv, err);
    if (status != HG_STATUS_OK) {
        hg_kv_cache_deinit(c);
        return status;
    }
    fill(c->buckets, c->n_buckets, -1);
    /* Highest id at the bottom: blocks are handed out from 0 up. */
    for (int i = 0; i < desc->n_blocks; i++)
        c->free_blocks[i] = desc->n_blocks - 1 - i;
    c->n_stack = desc->n_blocks;
    count_free(c);
    c->bytes = hg_kv_desc_bytes(desc);
    return HG_STATUS_OK;
}

void hg_kv_cache_deinit(struct hg_kv_cache *c)
{
    if (c->kv)
        c->backend->ops->kv_free(c->backend, c->kv);
    free(c->blocks);
    free(c->free_blocks);
    free(c->evicted);
    free(c->quarantine);
    free(c->buckets);
    memset(c, 0, sizeof *c);
}

int hg_kv_cache_blocks_for(int n_positions)
{
    return (n_positions + HG_BLOCK_TOKENS - 1) / HG_BLOCK_TOKENS;
}

/* ---- the kept -------------------------------------------------------------------------------- */

static void keep(struct hg_kv_cache *c, int32_t i)
{
    struct hg_kv_block *b = &c->blocks[i];
    b->older = c->newest;
    b->newer = -1;
    if (c->newest >= 0)
        c->blocks[c->newest].newer = i;
    else
        c->oldest = i;
    c->newest = i;
    c->n_kept++;
}

static void unkeep(struct hg_kv_cache *c, int32_t i)
{
    struct hg_kv_block *b = &c->blocks[i];
    *(b->older >= 0 ? &c->blocks[b->older].newer : &c->oldest) = b->newer;
    *(b->newer >= 0 ? &c->blocks[b->newer].older : &c->newest) = b->older;
    c->n_kept--;
}

/* ---- keys ------------------------------------------------------------------------------------ */

static int32_t *bucket_of(struct hg_kv_cache *c, struct hg_hash128 key)
{
    return &c->buckets[key.lo & (uint64_t)(c->n_buckets - 1)];
}

static int32_t look_up(struct hg_kv_cache *c, struct hg_hash128 key)
{
    int32_t i = *bucket_of(c, key);
    while (i >= 0 && !hg_hash128_equal(c->blocks[i].key, key))
        i = c->blocks[i].next;
    return i;
}

static void remove_key(struct hg_kv_cache *c, int32_t i)
{
    struct hg_kv_block *b = &c->blocks[i];
    if (!b->keyed)
        return;
    int32_t *at = bucket_of(c, b->key);
    while (*at != i)
        at = &c->blocks[*at].next;
    *at = b->next;
    b->keyed = false;
}

static bool same_text(const struct hg_kv_text *a, const struct hg_kv_text *b)
{
    return hg_hash128_equal(a->before, b->before) && memcmp(a->word, b->word, sizeof a->word) == 0;
}

int32_t hg_kv_cache_find(struct hg_kv_cache *c, struct hg_hash128 key,
                         const struct hg_kv_text *text)
{
    int32_t i = look_up(c, key);
    if (i < 0 || !same_text(&c->blocks[i].text, text))
        return -1;
    if (c->blocks[i].n_owners++ == 0)
        unkeep(c, i);
    count_free(c);
    return i;
}

void hg_kv_cache_publish(struct hg_kv_cache *c, int32_t block, struct hg_hash128 key,
                         const struct hg_kv_text *text)
{
    struct hg_kv_block *b = &c->blocks[block];
    if (b->keyed || b->suspect || look_up(c, key) >= 0)
        return;
    b->keyed = true;
    b->key = key;
    b->text = *text;
    b->next = *bucket_of(c, key);
    *bucket_of(c, key) = block;
}

void hg_kv_cache_suspect(struct hg_kv_cache *c, const int32_t *blocks, int n)
{
    for (int i = 0; i < n; i++) {
        remove_key(c, blocks[i]);
        c->blocks[blocks[i]].suspect = true;
    }
}

void hg_kv_cache_trust(struct hg_kv_cache *c, const int32_t *blocks, int n)
{
    for (int i = 0; i < n; i++)
        c->blocks[blocks[i]].suspect = false;
}

/* ---- owners ---------------------------------------------------------------------------------- */

/* A patient's keys and values do not outlive their use, nor does a NaN reach the next one. What
 * cannot be zeroed is not used again: nothing is put on the stack. Suspects go into quarantine. */
static void wipe(struct hg_kv_cache *c, int n)
{
    if (n <= 0)
        return;
    if (c->backend->ops->kv_zero(c->backend, c->kv, c->evicted, n) != HG_STATUS_OK) {
        hg_log(HG_LOG_ERROR, "KV cache: %d blocks could not be zeroed and are not used again", n);
        return;
    }
    for (int k = n - 1; k >= 0; k--) {
        if (c->blocks[c->evicted[k]].suspect)
            c->quarantine[atomic_fetch_add(&c->n_quarantine, 1)] = c->evicted[k];
        else
            c->free_blocks[c->n_stack++] = c->evicted[k];
    }
}

/* The n longest unused of the kept become free. */
static void evict(struct hg_kv_cache *c, int n)
{
    for (int k = 0; k < n; k++) {
        int32_t i = c->oldest;
        unkeep(c, i);
        remove_key(c, i);
        c->evicted[k] = i;
    }
    wipe(c, n);
}

enum hg_status hg_kv_cache_acquire(struct hg_kv_cache *c, int n, int32_t *blocks,
                                   struct hg_error *err)
{
    int n_free = hg_fault(HG_FAULT_KV_EXHAUST, NULL) ? 0 : c->n_stack + c->n_kept;
    if (n > n_free)
        return hg_fail(err, HG_STATUS_BUSY, "KV cache: %d blocks needed, %d of %d free", n, n_free,
                       c->n_blocks);
    if (n > c->n_stack)
        evict(c, n - c->n_stack);
    if (n > c->n_stack)
        return hg_fail(err, HG_STATUS_DEVICE, "KV cache: %d blocks could not be zeroed", n);
    for (int i = 0; i < n; i++) {
        blocks[i] = c->free_blocks[--c->n_stack];
        c->blocks[blocks[i]].n_owners = 1;
    }
    count_free(c);
    return HG_STATUS_OK;
}

enum hg_status hg_kv_cache_acquire_probe(struct hg_kv_cache *c, int n, int32_t *blocks,
                                         struct hg_error *err)
{
    int n_quarantine = atomic_load(&c->n_quarantine);
    int n_suspects = n < n_quarantine ? n : n_quarantine;
    HG_TRY(hg_kv_cache_acquire(c, n - n_suspects, blocks + n_suspects, err));
    for (int i = 0; i < n_suspects; i++) {
        blocks[i] = c->quarantine[--n_quarantine];
        c->blocks[blocks[i]].n_owners = 1;
    }
    atomic_store(&c->n_quarantine, n_quarantine);
    return HG_STATUS_OK;
}

void hg_kv_cache_trust_all(struct hg_kv_cache *c)
{
    for (int n = atomic_exchange(&c->n_quarantine, 0); n > 0; n--) {
        c->blocks[c->quarantine[n - 1]].suspect = false;
        c->free_blocks[c->n_stack++] = c->quarantine[n - 1];
    }
    count_free(c);
}

void hg_kv_cache_release(struct hg_kv_cache *c, const int32_t *blocks, int n)
{
    int n_gone = 0;
    /* The end of a chain first: it is of no use once its beginning is gone. */
    for (int k = n - 1; k >= 0; k--) {
        struct hg_kv_block *b = &c->blocks[blocks[k]];
        if (--b->n_owners > 0)
            continue;
        if (b->keyed)
            keep(c, blocks[k]);
        else
            c->evicted[n_gone++] = blocks[k];
    }
    wipe(c, n_gone);
    count_free(c);
}

void hg_kv_cache_forget(struct hg_kv_cache *c)
{
    evict(c, c->n_kept);
    count_free(c);
}
