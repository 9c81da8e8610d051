/* kernels/cpu/gemm.c - prepared rows through the panels of a weight and of its adapters.
 *
 * One thread begins with a contiguous run of panel pairs (or, for a narrow weight and many rows, of
 * rows) and walks it pair by pair: base tiles, adapter tiles of the rows that have one, bias,
 * epilogue. An output element is one chain over k for the base and one for the adapter, whatever
 * the rows beside it. Bound by weight bytes up to about 12 rows, by the multiply units above. */
#include <string.h>

#include "kernels/cpu/cpu.h"
#include "kernels/quantise.h"

enum {
    MANY_ROWS = 12,          /* above: a pair is read from cache again, so cut K to fit it */
    BLOCK_BYTES = 96 * 1024, /* of a pair; with the rows' inputs this stays in L2 */
    MIN_PAIRS_PER_THREAD = 2
};

int cpu_chunk_rows(const struct cpu_backend *c, int n_in)
{
    int64_t rows = c->x_cap / cpu_round_up(n_in, 64);
    return rows < c->chunk ? (int)rows : c->chunk;
}

static int64_t ld_of(const struct cpu_gemm *g)
{
    return cpu_round_up(g->w->n_in, 64);
}

static int64_t scales_per_row(const struct cpu_gemm *g)
{
    return g->w->form == CPU_FORM_I4 ? hg_i4_groups(g->w->n_in) : 1;
}

/* int8 with one scale, or one per group. */
static void quantise_row(const struct cpu_gemm *g, int i, const float *x)
{
    struct cpu_backend *c = g->c;
    int n = g->w->n_in, step = g->w->form == CPU_FORM_I4 ? HG_I4_GROUP : n;
    int64_t ld = ld_of(g), s = i * scales_per_row(g);
    int8_t *q = c->x8 + i * ld;
    for (int at = 0; at < n; at += step, s++)
        c->x_scale[s] =
            c->simd.quantise(x + at, n - at < step ? n - at : step, q + at, &c->x_sum[s]);
    memset(q + n, 0, (size_t)(ld - n));
}

/* int8 for adapters beside a weight that wants its rows in another form. */
static bool own_bytes(const struct cpu_gemm *g)
{
    return g->w->adapter_form == CPU_FORM_I8 && g->w->form != CPU_FORM_I8;
}

/* Where they are: in the rows of the form that such a weight has no use for. */
static int8_t *adapter_x8(const struct cpu_gemm *g)
{
    return g->w->form == CPU_FORM_I4 ? (int8_t *)(void *)g->c->x16 : g->c->x8;
}

void cpu_prepare_row(const struct cpu_gemm *g, int i, const float *x)
{
    struct cpu_backend *c = g->c;
    int n = g->w->n_in;
    int64_t ld = ld_of(g);
    enum cpu_form form = g->w->form, plugin = i >= g->slot_at[0] ? g->w->adapter_form : form;
    if (form == CPU_FORM_I8 || form == CPU_FORM_I4)
        quantise_row(g, i, x);
    if (form == CPU_FORM_BF16 || plugin == CPU_FORM_BF16) {
        uint16_t *h = c->x16 + i * ld;
        c->simd.to_bf16(x, n, h);
        memset(h + n, 0, (size_t)(ld - n) * sizeof *h);
    }
    if (plugin == CPU_FORM_I8 && own_bytes(g)) {
        int8_t *q = adapter_x8(g) + i * ld;
        c->xa_scale[i] = c->simd.quantise(x, n, q, &c->xa_sum[i]);
        memset(q + n, 0, (size_t)(ld - n));
    }
    if ((cpu_meets_float(form) || cpu_meets_float(plugin)) && x != c->x32 + i * ld)
        memcpy(c->x32 + i * ld, x, (size_t)n * sizeof *x);
}

static const void *prepared(const struct cpu_gemm *g, enum cpu_form form, int64_t *ld)
{
    int64_t n = ld_of(g);
    bool bytes = form == CPU_FORM_I8 || form == CPU_FORM_I4;
    *ld = n * (bytes ? 1 : form == CPU_FORM_BF16 ? 2 : 4);
    return bytes                   ? (const void *)g->c->x8
           : form == CPU_FORM_BF16 ? (const void *)g->c->x16
                                   : (const void *)g->c->x32;
}

void cpu_use_prepared(struct cpu_gemm *g)
{
    g->x = prepared(g, g->w->form, &g->ldx);
    g->xa = prepared(g, g->w->adapter_form, &g->ldxa);
    g->xa_scale = g->c->x_scale;
    g->xa_sum = g->c->x_sum;
    if (own_bytes(g)) {
        g->xa = adapter_x8(g);
        g->xa_scale = g->c->xa_scale;
        g->xa_sum = g->c->xa_sum;
    }
}

/* block[r][32] = W x for rows [first, end) and one pair. */
static void base_block(const struct cpu_gemm *g, const struct cpu_panels *p, int pair, int first,
                       int end, float *block)
{
    int width = cpu_pair_width(p, pair), n_k = p->n_k;
    int64_t step = (int64_t)width * cpu_group_bytes(p->form), scales = scales_per_row(g);
    if (end - first > MANY_ROWS && n_k > BLOCK_BYTES / step)
        n_k = (int)(BLOCK_BYTES / step); /* whole groups of I4 too */
    for (int k = 0; k < p->n_k; k += n_k) {
        struct cpu_tile t = {.w = cpu_pair_at(p, pair) + k * step,
                             .w_step = step,
                             .x = (const char *)g->x + first * g->ldx +
                                  (int64_t)k * cpu_group_x_bytes(p->form),
                             .ldx = g->ldx,
                             .acc = block,
                             .ld_acc = CPU_PAIR,
                             .n_k = p->n_k - k < n_k ? p->n_k - k : n_k,
                             .n_rows = end - first,
                             .width = width,
                             .first = k == 0};
        if (p->form == CPU_FORM_I4) {
            int64_t at = first * scales + k / CPU_I4_STEPS;
            t.w_scale = cpu_group_scale_at(p, pair, k);
            t.x_scale = g->c->x_scale + at;
            t.x_sum = g->c->x_sum + at;
            t.ld_scale = scales;
        }
        g->c->simd.tile[p->form](&t);
    }
}

/* Pair `pair` of the whole weight. */
static void one_pair(const struct cpu_gemm *g, int pair, int first, int end,
                     const struct cpu_thread *t)
{
    const struct cpu_part *part = g->w->parts;
    while (pair >= part->pair0 + part->w.n_pairs)
        part++;
    pair -= part->pair0;
    const struct cpu_panels *p = &part->w;
    base_block(g, p, pair, first, end, t->acc);
    struct cpu_finish f = {.acc = t->acc,
                           .n_rows = end - first,
                           .width = cpu_pair_width(p, pair),
                           .bias = part->bias + pair * CPU_PAIR,
                           .w_scale = p->scale ? p->scale + pair * CPU_PAIR : NULL,
                           .x_scale = p->form == CPU_FORM_I8 ? g->c->x_scale + first : NULL,
                           .x_sum = g->c->x_sum + first};
    g->c->simd.finish(&f);
    cpu_adapters_add(g, (int)(part - g->w->parts), pair, first, end, t->acc, t->up);
    int col = pair * CPU_PAIR, n = part->n_out - col < CPU_PAIR ? part->n_out - col : CPU_PAIR;
    g->store(g, first, end - first, part->row0 + col, n, t->acc);
}

/* Pairs of [0, n_pairs) that hold a column of [lo, hi). */
static void wanted_pairs(const struct cpu_gemm *g, int *first, int *end)
{
    const struct hg_weight *w = g->w;
    *first = w->n_pairs;
    *end = 0;
    for (int i = 0; i < w->n_parts; i++) {
        const struct cpu_part *p = &w->parts[i];
        int lo = g->lo > p->row0 ? g->lo - p->row0 : 0;
        int hi = g->hi < p->row0 + p->n_out ? g->hi - p->row0 : p->n_out;
        if (lo >= hi)
            continue;
        int from = p->pair0 + lo / CPU_PAIR, to = p->pair0 + (hi - 1) / CPU_PAIR + 1;
        *first = from < *first ? from : *first;
        *end = to > *end ? to : *end;
    }
}

static void gemm_member(void *ctx, int member, int n_members)
{
    const struct cpu_gemm *g = ctx;
    int pair0, pair1;
    wanted_pairs(g, &pair0, &pair1);
    if (pair1 - pair0 < MIN_PAIRS_PER_THREAD * n_members && g->n_rows >= n_members * MANY_ROWS) {
        int64_t row0, row1 = cpu_share(g->n_rows, member, n_members, &row0);
        for (int i = pair0; i < pair1; i++)
            one_pair(g, i, (int)row0, (int)row1, &g->c->threads[member]);
        return;
    }
    /* Its own share first, then what is left of the others': a thread that the system holds up
     * delays the step by one pair, not by its share. Who computes a pair does not show in it. */
    for (int i = 0; i < n_members; i++) {
        int owner = (member + i) % n_members;
        int64_t first, end = cpu_share(pair1 - pair0, owner, n_members, &first);
        while ((first + atomic_load_explicit(&g->c->threads[owner].taken, memory_order_relaxed)) <
               end) {
            int64_t at = first + atomic_fetch_add_explicit(&g->c->threads[owner].taken, 1,
                                                           memory_order_relaxed);
            if (at < end)
                one_pair(g, pair0 + (int)at, 0, g->n_rows, &g->c->threads[member]);
        }
    }
}

void cpu_gemm_run(struct cpu_gemm *g)
{
    if (g->n_rows <= 0 || g->lo >= g->hi)
        return;
    cpu_adapters_run(g);
    for (int i = 0; i < g->c->n_threads; i++)
        atomic_store_explicit(&g->c->threads[i].taken, 0, memory_order_relaxed);
    cpu_run(g->c, (int64_t)g->n_rows * (g->hi - g->lo) * g->w->n_in, gemm_member, g);
}
