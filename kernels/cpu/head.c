/* kernels/cpu/head.c - final RMSNorm and the allowed rows [lo, hi) of a head, per out row.
 *
 * Out rows of the same head set and range go through the panels together; only the panels that hold
 * [lo, hi) are read. */
#include <string.h>

#include "kernels/cpu/cpu.h"

static enum hg_status check(const struct cpu_backend *c, const struct hg_head_args *a, int i)
{
    int32_t set = a->plan->out_table[i], row = a->plan->out_row[i];
    const struct hg_sample_params *p = &a->plan->sample[i];
    if (set < 0 || set >= HG_MAX_PLUGINS || !a->heads[set])
        return cpu_refuse("head: row %d wants head set %d", i, set);
    if (row < 0 || row >= a->plan->n_tokens)
        return cpu_refuse("head: token row %d of %d", row, a->plan->n_tokens);
    const struct hg_weight *w = a->heads[set];
    if (p->lo < 0 || p->hi < p->lo || p->hi > w->n_out || p->hi - p->lo > a->ld)
        return cpu_refuse("head: ids %d..%d of %d, ld %lld", p->lo, p->hi, w->n_out,
                          (long long)a->ld);
    if (w->n_in > c->limits.max_in || w->n_out > c->limits.max_out)
        return cpu_refuse("head: [%d, %d] exceeds the reserved [%d, %d]", w->n_out, w->n_in,
                          c->limits.max_out, c->limits.max_in);
    return HG_STATUS_OK;
}

static void store_logits(const struct cpu_gemm *g, int first, int n_rows, int col, int n,
                         float *block)
{
    const struct hg_head_args *a = g->args;
    int from = col > g->lo ? col : g->lo, to = col + n < g->hi ? col + n : g->hi;
    for (int r = 0; r < n_rows && from < to; r++)
        memcpy(a->logits + g->row[first + r] * a->ld + (from - g->lo),
               block + r * CPU_PAIR + (from - col), (size_t)(to - from) * sizeof *block);
}

static void prepare_member(void *ctx, int member, int n_members)
{
    const struct cpu_gemm *g = ctx;
    const struct hg_head_args *a = g->args;
    int64_t first, end = cpu_share(g->n_rows, member, n_members, &first);
    for (int64_t i = first; i < end; i++) {
        int32_t out = g->row[i];
        const float *x = (const float *)a->x + (int64_t)a->plan->out_row[out] * g->w->n_in;
        float *normed = g->c->x32 + i * cpu_round_up(g->w->n_in, 64);
        g->c->simd.rmsnorm(x, a->norms[a->plan->out_table[out]], a->norm_eps, g->w->n_in, normed);
        cpu_prepare_row(g, (int)i, normed);
    }
}

static bool same_group(const struct hg_plan *p, int i, int j)
{
    return p->out_table[i] == p->out_table[j] && p->sample[i].lo == p->sample[j].lo &&
           p->sample[i].hi == p->sample[j].hi;
}

static void run_rows(struct cpu_gemm *g, int n)
{
    g->n_rows = n;
    for (int s = 0; s <= HG_MAX_PLUGINS; s++)
        g->slot_at[s] = n;
    cpu_run(g->c, (int64_t)n * g->w->n_in * 4, prepare_member, g);
    cpu_use_prepared(g);
    cpu_gemm_run(g);
}

/* All rows of the group whose first row is i. */
static void run_group(struct cpu_backend *c, const struct hg_head_args *a, int i)
{
    const struct hg_plan *p = a->plan;
    struct cpu_gemm g = {.c = c,
                         .w = a->heads[p->out_table[i]],
                         .lo = p->sample[i].lo,
                         .hi = p->sample[i].hi,
                         .row = c->row,
                         .store = store_logits,
                         .args = a};
    int chunk = cpu_chunk_rows(c, g.w->n_in), n = 0;
    for (int j = i; j < p->n_out; j++) {
        if (!same_group(p, i, j))
            continue;
        c->row[n++] = j;
        if (n == chunk) {
            run_rows(&g, n);
            n = 0;
        }
    }
    if (n)
        run_rows(&g, n);
}

enum hg_status cpu_head(struct hg_backend *b, const struct hg_head_args *a)
{
    for (int i = 0; i < a->plan->n_out; i++)
        HG_TRY(check(cpu_of(b), a, i));
    for (int i = 0; i < a->plan->n_out; i++) {
        bool seen = false;
        for (int j = 0; j < i && !seen; j++)
            seen = same_group(a->plan, i, j);
        if (!seen)
            run_group(cpu_of(b), a, i);
    }
    return HG_STATUS_OK;
}
