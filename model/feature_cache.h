/* model/feature_cache.h - which slot holds the projector rows of which picture. The rows live in
 * the backend; here are integers only.
 *
 * Slots are equal: n_image_rows rows each. A slot is owned by the sequences whose prompt is not yet
 * in the KV cache; without an owner it is kept until its place is needed, the longest unused first,
 * so a second question about a picture need not pay the vision tower again. Sequences that want the
 * same picture at once own one slot: whoever of them is first in the tower fills it for all, and
 * when he leaves before that, the next one does. A key is a keyed hash of tenant, task and
 * preprocessed pixels. Engine thread only. */
#ifndef HG_MODEL_FEATURE_CACHE_H
#define HG_MODEL_FEATURE_CACHE_H

#include <stdbool.h>

#include "common/siphash.h"
#include "common/status.h"

struct hg_feature_slot {
    struct hg_hash128 key;
    bool complete; /* the rows of `key` are there */
    bool hidden;   /* nobody else finds it */
    int n_owners;
    uint64_t used; /* clock of the last release; 0: not worth keeping */
};

struct hg_feature_cache {
    struct hg_feature_slot *slots;
    int n_slots;
    uint64_t clock;
};

enum hg_status hg_feature_cache_init(struct hg_feature_cache *c, int n_slots, struct hg_error *err);
void hg_feature_cache_deinit(struct hg_feature_cache *c);

/* One owner more for the slot of this key, if its rows are there or another owner is to fill it;
 * else a slot to fill; -1: all are owned. apart: always a slot of its own, which nobody finds. */
int hg_feature_cache_acquire(struct hg_feature_cache *c, struct hg_hash128 key, bool apart);
bool hg_feature_cache_is_complete(const struct hg_feature_cache *c, int slot);
/* The rows of the key it was acquired for have been written. */
void hg_feature_cache_complete(struct hg_feature_cache *c, int slot);
void hg_feature_cache_release(struct hg_feature_cache *c, int slot);
int hg_feature_cache_n_owned(const struct hg_feature_cache *c);
/* Rows of this key that are there are not to be found any more; those who own them keep them. */
void hg_feature_cache_drop(struct hg_feature_cache *c, struct hg_hash128 key);
/* Nothing is found any more. */
void hg_feature_cache_forget(struct hg_feature_cache *c);

#endif
