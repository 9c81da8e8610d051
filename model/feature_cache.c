/* model/feature_cache.c - see feature_cache.h. There are few slots: they are searched one by one.
 */
#include "model/feature_cache.h"

#include <stdlib.h>
#include <string.h>

enum hg_status hg_feature_cache_init(struct hg_feature_cache *c, int n_slots, struct hg_error *err)
{
    memset(c, 0, sizeof *c);
    c->slots = calloc((size_t)n_slots, sizeof *c->slots);
    if (!c->slots)
        return hg_fail(err, HG_STATUS_NO_MEMORY, "%d image slots", n_slots);
    c->n_slots = n_slots;
    return HG_STATUS_OK;
}

void hg_feature_cache_deinit(struct hg_feature_cache *c)
{
    free(c->slots);
    memset(c, 0, sizeof *c);
}

/* Rows that are there, or that an owner will write. */
static bool is_found(const struct hg_feature_slot *s, struct hg_hash128 key)
{
    return !s->hidden && (s->complete || s->n_owners > 0) && hg_hash128_equal(s->key, key);
}

int hg_feature_cache_acquire(struct hg_feature_cache *c, struct hg_hash128 key, bool apart)
{
    int oldest = -1;
    for (int i = 0; i < c->n_slots; i++) {
        struct hg_feature_slot *s = &c->slots[i];
        if (!apart && is_found(s, key)) {
            s->n_owners++;
            return i;
        }
        if (s->n_owners == 0 && (oldest < 0 || s->used < c->slots[oldest].used))
            oldest = i;
    }
    if (oldest >= 0)
        c->slots[oldest] = (struct hg_feature_slot){.key = key, .hidden = apart, .n_owners = 1};
    return oldest;
}

bool hg_feature_cache_is_complete(const struct hg_feature_cache *c, int slot)
{
    return c->slots[slot].complete;
}

void hg_feature_cache_complete(struct hg_feature_cache *c, int slot)
{
    c->slots[slot].complete = true;
}

void hg_feature_cache_release(struct hg_feature_cache *c, int slot)
{
    struct hg_feature_slot *s = &c->slots[slot];
    s->n_owners--;
    s->used = s->complete && !s->hidden ? ++c->clock : 0; /* 0: worth nothing, the next to go */
}

void hg_feature_cache_drop(struct hg_feature_cache *c, struct hg_hash128 key)
{
    for (int i = 0; i < c->n_slots; i++)
        if (c->slots[i].complete && hg_hash128_equal(c->slots[i].key, key)) {
            c->slots[i].hidden = true;
            c->slots[i].used = 0;
        }
}

int hg_feature_cache_n_owned(const struct hg_feature_cache *c)
{
    int n = 0;
    for (int i = 0; i < c->n_slots; i++)
        n += c->slots[i].n_owners > 0;
    return n;
}

void hg_feature_cache_forget(struct hg_feature_cache *c)
{
    for (int i = 0; i < c->n_slots; i++)
        if (c->slots[i].n_owners == 0)
            c->slots[i] = (struct hg_feature_slot){.n_owners = 0};
}
