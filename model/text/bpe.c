#include "model/text/bpe.h"

#include <stdlib.h>
#include <string.h>

/* ---- the merge table ---- */

void hg_merges_deinit(struct hg_merges *m)
{
    free(m->slots);
    *m = (struct hg_merges){0};
}

static uint64_t pair_key(int32_t left, int32_t right)
{
    return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}

static struct hg_merge *slot_of(const struct hg_merges *m, uint64_t key)
{
    size_t mask = m->n_slots - 1;
    size_t i = (size_t)((key * 0x9E3779B97F4A7C15u) >> 32) & mask;
    while (m->slots[i].key != key && m->slots[i].key != UINT64_MAX)
        i = (i + 1) & mask;
    return &m->slots[i];
}

static enum hg_status grow_merges(struct hg_merges *m)
{
    struct hg_merges bigger = {.n_slots = m->n_slots ? m->n_slots * 2 : 1024, .n = m->n};
    bigger.slots = malloc(bigger.n_slots * sizeof *bigger.slots);
    if (!bigger.slots)
        return HG_STATUS_NO_MEMORY;
    memset(bigger.slots, 0xff, bigger.n_slots * sizeof *bigger.slots);
    for (size_t i = 0; i < m->n_slots; i++)
        if (m->slots[i].key != UINT64_MAX)
            *slot_of(&bigger, m->slots[i].key) = m->slots[i];
    free(m->slots);
    *m = bigger;
    return HG_STATUS_OK;
}

enum hg_status hg_merges_put(struct hg_merges *m, int32_t left, int32_t right, uint32_t rank,
                             int32_t id)
{
    if ((m->n + 1) * 2 > m->n_slots)
        HG_TRY(grow_merges(m));
    uint64_t key = pair_key(left, right);
    struct hg_merge *slot = slot_of(m, key);
    m->n += slot->key == UINT64_MAX;
    *slot = (struct hg_merge){key, rank, id};
    return HG_STATUS_OK;
}

/* ---- the heap: smallest key on top ---- */

static enum hg_status heap_push(struct hg_bpe_work *w, struct hg_bpe_pair pair)
{
    if (w->n_heap == w->heap_cap) {
        size_t cap = w->heap_cap ? w->heap_cap * 2 : 256;
        struct hg_bpe_pair *heap = realloc(w->heap, cap * sizeof *heap);
        if (!heap)
            return HG_STATUS_NO_MEMORY;
        w->heap = heap;
        w->heap_cap = cap;
    }
    size_t i = w->n_heap++;
    while (i > 0 && w->heap[(i - 1) / 2].key > pair.key) {
        w->heap[i] = w->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    w->heap[i] = pair;
    return HG_STATUS_OK;
}

static struct hg_bpe_pair heap_pop(struct hg_bpe_work *w)
{
    struct hg_bpe_pair top = w->heap[0], last = w->heap[--w->n_heap];
    size_t i = 0;
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= w->n_heap)
            break;
        if (child + 1 < w->n_heap && w->heap[child + 1].key < w->heap[child].key)
            child++;
        if (w->heap[child].key >= last.key)
            break;
        w->heap[i] = w->heap[child];
        i = child;
    }
    w->heap[i] = last;
    return top;
}

/* ---- merging ---- */

void hg_bpe_deinit(struct hg_bpe_work *w)
{
    free(w->symbols);
    free(w->heap);
    free(w->unused_left);
    *w = (struct hg_bpe_work){0};
}

void hg_bpe_start(struct hg_bpe_work *w)
{
    w->n_symbols = 0;
    w->n_heap = 0;
}

enum hg_status hg_bpe_add(struct hg_bpe_work *w, int32_t id, size_t at, size_t len, bool frozen)
{
    if (w->n_symbols == w->symbols_cap) {
        size_t cap = w->symbols_cap ? w->symbols_cap * 2 : 256;
        if (cap > INT32_MAX)
            return HG_STATUS_TOO_LARGE;
        struct hg_symbol *symbols = realloc(w->symbols, cap * sizeof *symbols);
        if (!symbols)
            return HG_STATUS_NO_MEMORY;
        w->symbols = symbols;
        w->symbols_cap = cap;
    }
    int32_t i = (int32_t)w->n_symbols++;
    if (i > 0)
        w->symbols[i - 1].next = i;
    w->symbols[i] = (struct hg_symbol){.id = id,
                                       .prev = i - 1,
                                       .next = -1,
                                       .at = (uint32_t)at,
                                       .len = (uint32_t)len,
                                       .frozen = frozen};
    return HG_STATUS_OK;
}

/* The piece two neighbours merge to, and its cost; -1: they do not merge. */
static int32_t judge(const struct hg_vocab *v, const struct hg_merges *merges, const char *text,
                     const struct hg_symbol *left, const struct hg_symbol *right, uint32_t *cost)
{
    if (merges) {
        if (left->id < 0 || right->id < 0 || merges->n == 0)
            return -1;
        const struct hg_merge *m = slot_of(merges, pair_key(left->id, right->id));
        if (m->key == UINT64_MAX || !hg_vocab_mergeable(v, m->id))
            return -1;
        *cost = m->rank;
        return m->id;
    }
    size_t len = (size_t)left->len + right->len;
    if (len > v->max_len)
        return -1;
    int32_t id = hg_vocab_find(v, text + left->at, len);
    if (id < 0 || !hg_vocab_mergeable(v, id))
        return -1;
    *cost = v->pieces[id].cost;
    return id;
}

static enum hg_status offer(struct hg_bpe_work *w, const struct hg_vocab *v,
                            const struct hg_merges *merges, const char *text, int32_t left)
{
    const struct hg_symbol *a = &w->symbols[left];
    if (a->next < 0)
        return HG_STATUS_OK;
    const struct hg_symbol *b = &w->symbols[a->next];
    if (a->frozen || b->frozen)
        return HG_STATUS_OK;
    uint32_t cost;
    int32_t id = judge(v, merges, text, a, b, &cost);
    if (id < 0)
        return HG_STATUS_OK;
    if (v->pieces[id].kind == HG_PIECE_UNUSED) {
        if (!w->unused_left && !(w->unused_left = calloc(v->n, sizeof *w->unused_left)))
            return HG_STATUS_NO_MEMORY;
        w->unused_left[id] = a->len;
    }
    return heap_push(w, (struct hg_bpe_pair){.key = (uint64_t)cost << 32 | (uint32_t)left,
                                             .len = a->len + b->len,
                                             .id = id});
}

enum hg_status hg_bpe_run(struct hg_bpe_work *w, const struct hg_vocab *v,
                          const struct hg_merges *merges, const char *text)
{
    for (size_t i = 0; i + 1 < w->n_symbols; i++)
        HG_TRY(offer(w, v, merges, text, (int32_t)i));
    while (w->n_heap > 0) {
        struct hg_bpe_pair best = heap_pop(w);
        int32_t left = (int32_t)(best.key & 0xffffffffu);
        struct hg_symbol *a = &w->symbols[left];
        if (a->len == 0 || a->next < 0)
            continue;
        struct hg_symbol *b = &w->symbols[a->next];
        if (a->len + b->len != best.len) /* one of the two has merged otherwise since */
            continue;
        a->id = best.id;
        a->len = best.len;
        b->len = 0;
        a->next = b->next;
        if (a->next >= 0)
            w->symbols[a->next].prev = left;
        HG_TRY(offer(w, v, merges, text, left));
        if (a->prev >= 0)
            HG_TRY(offer(w, v, merges, text, a->prev));
    }
    return HG_STATUS_OK;
}
