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

/* ---- the heap: smallest key on top, four children a node (one cache line) ---- */

static enum hg_status heap_push(struct hg_bpe_work *w, uint64_t key)
{
    if (w->n_heap == w->heap_cap) {
        size_t cap = w->heap_cap ? w->heap_cap * 2 : 256;
        uint64_t *heap = realloc(w->heap, cap * sizeof *heap);
        if (!heap)
            return HG_STATUS_NO_MEMORY;
        w->heap = heap;
        w->heap_cap = cap;
    }
    size_t i = w->n_heap++;
    while (i > 0 && w->heap[(i - 1) / 4] > key) {
        w->heap[i] = w->heap[(i - 1) / 4];
        i = (i - 1) / 4;
        w->n_steps++;
    }
    w->heap[i] = key;
    return HG_STATUS_OK;
}

static uint64_t heap_pop(struct hg_bpe_work *w)
{
    uint64_t top = w->heap[0], last = w->heap[--w->n_heap];
    size_t i = 0;
    for (size_t first; (first = 4 * i + 1) < w->n_heap;) {
        w->n_steps++;
        size_t least = first, end = first + 4 < w->n_heap ? first + 4 : w->n_heap;
        for (size_t child = first + 1; child < end; child++)
            if (w->heap[child] < w->heap[least])
                least = child;
        if (w->heap[least] >= last)
            break;
        w->heap[i] = w->heap[least];
        i = least;
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

enum hg_status hg_bpe_add(struct hg_bpe_work *w, int32_t id, size_t at, size_t len)
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
    w->symbols[i] =
        (struct hg_symbol){.id = id, .prev = i - 1, .next = -1, .at = (uint32_t)at, .joined = -1};
    w->end = (uint32_t)(at + len);
    return HG_STATUS_OK;
}

size_t hg_bpe_len(const struct hg_bpe_work *w, const struct hg_symbol *s)
{
    return (s->next >= 0 ? w->symbols[s->next].at : w->end) - s->at;
}

/* Fill a->joined and a->cost for `a` and its right neighbour `b`. */
static void judge(const struct hg_bpe_work *w, const struct hg_vocab *v,
                  const struct hg_merges *merges, const char *text, struct hg_symbol *a,
                  const struct hg_symbol *b)
{
    a->joined = -1;
    if (merges) {
        if (a->id < 0 || b->id < 0 || merges->n == 0)
            return;
        const struct hg_merge *m = slot_of(merges, pair_key(a->id, b->id));
        if (m->key != UINT64_MAX && hg_vocab_mergeable(v, m->id)) {
            a->joined = m->id;
            a->cost = m->rank;
        }
        return;
    }
    size_t len = hg_bpe_len(w, a) + hg_bpe_len(w, b);
    if (len > v->max_len)
        return;
    int32_t id = hg_vocab_find(v, text + a->at, len);
    if (id >= 0 && hg_vocab_mergeable(v, id)) {
        a->joined = id;
        a->cost = v->pieces[id].cost;
    }
}

static enum hg_status offer(struct hg_bpe_work *w, const struct hg_vocab *v,
                            const struct hg_merges *merges, const char *text, int32_t left)
{
    struct hg_symbol *a = &w->symbols[left];
    w->n_steps++;
    if (a->next < 0) {
        a->joined = -1;
        return HG_STATUS_OK;
    }
    judge(w, v, merges, text, a, &w->symbols[a->next]);
    if (a->joined < 0)
        return HG_STATUS_OK;
    if (v->pieces[a->joined].kind == HG_PIECE_UNUSED) {
        if (!w->unused_left && !(w->unused_left = calloc(v->n, sizeof *w->unused_left)))
            return HG_STATUS_NO_MEMORY;
        w->unused_left[a->joined] = (uint32_t)hg_bpe_len(w, a);
    }
    return heap_push(w, (uint64_t)a->cost << 32 | (uint32_t)left);
}

enum hg_status hg_bpe_run(struct hg_bpe_work *w, const struct hg_vocab *v,
                          const struct hg_merges *merges, const char *text)
{
    for (size_t i = 0; i + 1 < w->n_symbols; i++)
        HG_TRY(offer(w, v, merges, text, (int32_t)i));
    while (w->n_heap > 0) {
        uint64_t best = heap_pop(w);
        /* one of the top five comes next: a word of 256 KiB is larger than the nearer caches */
        for (size_t i = 0; i < 5 && i < w->n_heap; i++)
            __builtin_prefetch(&w->symbols[w->heap[i] & 0xffffffffu], 1);
        int32_t left = (int32_t)(best & 0xffffffffu);
        struct hg_symbol *a = &w->symbols[left];
        if (a->joined < 0 || a->cost != best >> 32) /* it merged, or has a new neighbour, since */
            continue;
        struct hg_symbol *b = &w->symbols[a->next];
        a->id = a->joined;
        a->next = b->next;
        b->joined = -1;
        if (a->next >= 0)
            w->symbols[a->next].prev = left;
        HG_TRY(offer(w, v, merges, text, left));
        if (a->prev >= 0)
            HG_TRY(offer(w, v, merges, text, a->prev));
    }
    return HG_STATUS_OK;
}
