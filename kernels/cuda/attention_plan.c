/* kernels/cuda/attention_plan.c - cuts a step's attention into blocks of work, on the host, once
 * for all layers.
 *
 * Consecutive tokens of a sequence, times the heads of a group, are cut into tiles of 64 rows, or
 * of 16 where that is enough. When the tiles alone are too few for the device, or unequal, their
 * contexts are cut too: into pieces of whole chunks, so many that FULL blocks per multiprocessor
 * come out. No cut changes a bit of a result (attend.cuh).
 *
 * The list lies behind the plan's tables, in their pinned and device buffers. For a decode step it
 * is made by step_begin, from the shape that the step before showed, and filled with idle entries
 * (n_rows 0: the block leaves) up to 1, 2, 3, 4, 6, 8, 12, ... so that a graph of the step stays
 * valid while contexts grow. */
#include <string.h>

#include "kernels/cuda/cuda.h"

enum { WIDE = 64, NARROW = 16, FULL = 4 };

struct walk {
    const struct hg_plan *plan;
    const struct cuda_attention_shape *shape;
    int group, first, end, row; /* tokens [first, end) of one sequence; the next of their rows */
};

static int first_key(const struct walk *w, int token)
{
    int32_t pos = w->plan->pos[token], window = w->shape->window;
    return window > 0 && pos >= window ? pos - window + 1 : 0;
}

/* The next tile, as a block that does all of it. */
static bool next_tile(struct walk *w, struct attend_work *t)
{
    const struct hg_plan *p = w->plan;
    if (w->row == (w->end - w->first) * w->group) {
        w->first = w->end;
        w->row = 0;
        if (w->first == p->n_tokens)
            return false;
        while (w->end < p->n_tokens && p->seq[w->end] == p->seq[w->first])
            w->end++;
    }
    int left = (w->end - w->first) * w->group - w->row,
        most = w->shape->wide && left > NARROW ? WIDE : NARROW;
    int n = left < most ? left : most;
    int chunk0 = first_key(w, w->first + w->row / w->group) / ATTENTION_CHUNK;
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
            n += cut_tile(b, &t, w.shape->n_kv_heads, to + n);
    return n;
}

/* 1, 2, 3, 4, 6, 8, 12, 16, 24, ...: the next from n on; 0 stays 0. */
static int round_up(int n)
{
    int power = 1;
    while (power < n)
        power *= 2;
    return n <= 0 ? 0 : power >= 4 && n <= power / 4 * 3 ? power / 4 * 3 : power;
}

/* n entries become round_up(n) where idle ones are wanted. */
static int fill_up(struct attend_work *to, int n, bool idle)
{
    int full = idle ? round_up(n) : n;
    memset(to + n, 0, (size_t)(full - n) * sizeof *to);
    return full;
}

/* Make the list at the end of what is packed; false: no room. */
static bool make_list(struct cuda_backend *c, const struct hg_plan *plan,
                      const struct cuda_attention_shape *shape, bool idle)
{
    struct cuda_attention_plan *p = &c->attention;
    struct walk start = {.plan = plan, .shape = shape, .group = shape->n_heads / shape->n_kv_heads};
    struct walk w = start;
    struct attend_work t;
    int64_t n_tiles = 0, n_chunks = 0;
    while (next_tile(&w, &t)) {
        n_tiles++;
        n_chunks += t.n_chunks;
    }
    size_t at = (c->plan_at + 15) / 16 * 16;
    int64_t room = at < c->plan_room ? (int64_t)((c->plan_room - at) / sizeof t) : 0;
    int most = plan->n_tokens <= CUDA_SMALL_ROWS ? CUDA_SMALL_WORK : p->capacity;
    room = room < most ? room : most;
    if (idle)
        room = room * 2 / 3; /* the rest is for idle entries */
    if (n_tiles > room)
        return false;
    int64_t blocks = (int64_t)FULL * c->n_sms;
    int64_t pitch = 4 + (shape->head_dim + 3) / 4 * 4;
    struct budget b = {
        .per_block = (int)((n_chunks * shape->n_kv_heads + blocks - 1) / blocks),
        .slots = (int64_t)(c->scratch.partial_bytes / sizeof(float) - ATTENTION_COUNTERS) / pitch,
        .extra = room - n_tiles};
    struct attend_work *to = (void *)((char *)c->plan_host + at);
    p->n_wide = fill_up(to, emit(&start, true, &b, to), idle);
    to += p->n_wide;
    p->n_narrow = fill_up(to, emit(&start, false, &b, to), idle);
    p->device = (const void *)((const char *)c->plan_device + at);
    p->plan = plan;
    p->shape = *shape;
    return true;
}

static size_t list_bytes(const struct cuda_attention_plan *p)
{
    return ((size_t)p->n_wide + (size_t)p->n_narrow) * sizeof *p->device;
}

bool cuda_pack_attention(struct cuda_backend *c, const struct hg_plan *plan)
{
    const struct cuda_attention_shape shape = c->attention.shape;
    if (shape.n_heads == 0 || !make_list(c, plan, &shape, true))
        return false;
    c->plan_at = (c->plan_at + 15) / 16 * 16 + list_bytes(&c->attention);
    return true;
}

enum hg_status cuda_plan_attention(struct cuda_backend *c, const struct hg_attention_args *a,
                                   bool wide)
{
    struct cuda_attention_plan *p = &c->attention;
    struct cuda_attention_shape shape = {a->n_heads, a->n_kv_heads, a->head_dim, a->window, wide};
    if (p->plan == a->plan && memcmp(&p->shape, &shape, sizeof shape) == 0)
        return HG_STATUS_OK;
    if (cuda_graphs_spoil(c, "attention of another shape"))
        return HG_STATUS_OK;
    if (p->late) /* the copy of the list before may still read the pinned side */
        HG_TRY(cuda_sync(&c->base));
    if (!make_list(c, a->plan, &shape, false))
        return cuda_refuse("attention: %d tokens in groups of %d heads: no room for their tiles",
                           a->plan->n_tokens, a->n_heads / a->n_kv_heads);
    p->late = true;
    size_t at = (c->plan_at + 15) / 16 * 16;
    return cuda_upload(&c->base, (char *)c->plan_device + at, (char *)c->plan_host + at,
                       list_bytes(p));
}
