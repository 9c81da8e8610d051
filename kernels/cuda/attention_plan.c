/* kernels/cuda/attention_plan.c - cuts a step's attention into blocks of work, on the host, once
 * for all layers.
 *
 * Consecutive tokens of a sequence, times the heads of a group, are cut into tiles of 64 rows, or
 * of 16 where that is enough. When the tiles alone are too few for the device, or unequal, their
 * contexts are cut too: into pieces of whole chunks, so many that FULL blocks per multiprocessor
 * come out. No cut changes a bit of a result (attend.cuh). */
#include "kernels/cuda/cuda.h"

enum { WIDE = 64, NARROW = 16, FULL = 4 };

struct walk {
    const struct hg_attention_args *a;
    bool wide;
    int group, first, end, row; /* tokens [first, end) of one sequence; the next of their rows */
};

static int first_key(const struct hg_attention_args *a, int token)
{
    int32_t pos = a->plan->pos[token];
    return a->window > 0 && pos >= a->window ? pos - a->window + 1 : 0;
}

/* The next tile, as a block that does all of it. */
static bool next_tile(struct walk *w, struct attend_work *t)
{
    const struct hg_plan *p = w->a->plan;
    if (w->row == (w->end - w->first) * w->group) {
        w->first = w->end;
        w->row = 0;
        if (w->first == p->n_tokens)
            return false;
        while (w->end < p->n_tokens && p->seq[w->end] == p->seq[w->first])
            w->end++;
    }
    int left = (w->end - w->first) * w->group - w->row,
        most = w->wide && left > NARROW ? WIDE : NARROW;
    int n = left < most ? left : most;
    int chunk0 = first_key(w->a, w->first + w->row / w->group) / ATTENTION_CHUNK;
    int last = p->pos[w->first + (w->row + n - 1) / w->group];
    *t = (struct attend_work){.first = w->first,
                              .row0 = w->row,
                              .n_rows = n,
                              .seq = p->seq[w->first],
                              .chunk0 = chunk0,
                              .n_chunks = last / ATTENTION_CHUNK + 1 - chunk0,
                              .slot = -1,
                              .n_blocks = 1};
    w->row += n;
    return true;
}

struct budget {
    int per_block; /* chunks */
    int64_t slots; /* records that scratch holds */
    int64_t slot, counter, extra;
};

/* Cut the context of a tile in pieces where there is room; returns the blocks written to `to`. */
static int cut_tile(struct budget *b, const struct attend_work *t, int n_kv_heads,
                    struct attend_work *to)
{
    int n = (t->n_chunks + b->per_block - 1) / b->per_block;
    int64_t records = (int64_t)t->n_chunks * n_kv_heads * t->n_rows;
    if (n == 1 || b->slot + records > b->slots || n - 1 > b->extra ||
        b->counter + n_kv_heads > ATTENTION_COUNTERS) {
        *to = *t;
        return 1;
    }
    for (int i = 0; i < n; i++) {
        int at = i * b->per_block, left = t->n_chunks - at;
        to[i] = *t;
        to[i].chunk0 = t->chunk0 + at;
        to[i].n_chunks = left < b->per_block ? left : b->per_block;
        to[i].slot = (int32_t)b->slot;
        to[i].counter = (int32_t)b->counter;
        to[i].n_blocks = n;
    }
    b->slot += records;
    b->counter += n_kv_heads;
    b->extra -= n - 1;
    return n;
}

/* All tiles of one width. */
static int emit(const struct walk *start, bool wide, struct budget *b, struct attend_work *to)
{
    struct walk w = *start;
    struct attend_work t;
    int n = 0;
    while (next_tile(&w, &t))
        if ((t.n_rows > NARROW) == wide)
            n += cut_tile(b, &t, w.a->n_kv_heads, to + n);
    return n;
}

enum hg_status cuda_plan_attention(struct cuda_backend *c, const struct hg_attention_args *a,
                                   bool wide)
{
    struct cuda_attention_plan *p = &c->attention;
    struct walk start = {.a = a, .wide = wide, .group = a->n_heads / a->n_kv_heads};
    struct walk w = start;
    struct attend_work t;
    int64_t n_tiles = 0, n_chunks = 0;
    if (p->plan == a->plan && p->n_heads == a->n_heads && p->n_kv_heads == a->n_kv_heads &&
        p->head_dim == a->head_dim && p->window == a->window)
        return HG_STATUS_OK;
    while (next_tile(&w, &t)) {
        n_tiles++;
        n_chunks += t.n_chunks;
    }
    if (n_tiles > p->capacity)
        return cuda_refuse(
            "attention: %d tokens in groups of %d heads make %lld tiles, reserved %d",
            a->plan->n_tokens, start.group, (long long)n_tiles, p->capacity);
    if (p->plan) /* the copy of the plan before may still read the pinned side */
        HG_TRY(cuda_sync(&c->base));
    int64_t blocks = (int64_t)FULL * c->n_sms;
    int64_t pitch = 4 + (a->head_dim + 3) / 4 * 4;
    struct budget b = {
        .per_block = (int)((n_chunks * a->n_kv_heads + blocks - 1) / blocks),
        .slots = (int64_t)(c->scratch.partial_bytes / sizeof(float) - ATTENTION_COUNTERS) / pitch,
        .extra = p->capacity - n_tiles};
    p->n_wide = emit(&start, true, &b, p->host);
    p->n_narrow = emit(&start, false, &b, p->host + p->n_wide);
    p->plan = a->plan;
    p->n_heads = a->n_heads;
    p->n_kv_heads = a->n_kv_heads;
    p->head_dim = a->head_dim;
    p->window = a->window;
    size_t n = (size_t)p->n_wide + (size_t)p->n_narrow;
    return cuda_upload(&c->base, p->device, p->host, n * sizeof *p->host);
}
