/* kernels/cpu/linear.c - optional RMSNorm, base weight, H-LoRA adapters, epilogue.
 *
 * Rows go through in chunks. Inside a chunk they are sorted by slot (stable), so that the rows of
 * one adapter lie together; `row` leads back to the caller's order. Element-wise epilogues act on a
 * finished block of columns; SwiGLU and RoPE need two distant columns and run on whole rows after.
 */
#include <string.h>

#include "kernels/cpu/cpu.h"

/* ---- epilogues ----------------------------------------------------------------------------------
 */

static void store_linear(const struct cpu_gemm *g, int first, int n_rows, int col, int n,
                         float *block)
{
    const struct hg_linear_args *a = g->args;
    if (a->epilogue == HG_EPILOGUE_QUICK_GELU)
        g->c->simd.quick_gelu(block, n_rows * CPU_PAIR);
    if (a->epilogue == HG_EPILOGUE_GELU)
        g->c->simd.gelu(block, n_rows * CPU_PAIR);
    for (int r = 0; r < n_rows; r++) {
        const float *v = block + r * CPU_PAIR;
        int64_t row = g->row[first + r];
        float *y = (float *)a->y + row * a->ldy + col;
        const float *residual = (const float *)a->residual + row * a->ld_residual + col;
        if (g->keep_sum)
            memcpy(g->c->sum + (first + r) * g->c->ld_sum + col, v, (size_t)n * sizeof *v);
        else if (a->epilogue == HG_EPILOGUE_RESIDUAL)
            for (int i = 0; i < n; i++)
                y[i] = residual[i] + v[i];
        else
            memcpy(y, v, (size_t)n * sizeof *v);
    }
}

enum { SWIGLU_COLUMNS = 512 };

static void swiglu_member(void *ctx, int member, int n_members)
{
    const struct cpu_gemm *g = ctx;
    const struct hg_linear_args *a = g->args;
    int half = g->w->n_out / 2, per_row = (half + SWIGLU_COLUMNS - 1) / SWIGLU_COLUMNS;
    int64_t first, end = cpu_share((int64_t)g->n_rows * per_row, member, n_members, &first);
    for (int64_t u = first; u < end; u++) {
        int64_t r = u / per_row;
        int col = (int)(u % per_row) * SWIGLU_COLUMNS;
        const float *sum = g->c->sum + r * g->c->ld_sum + col;
        float *y = (float *)a->y + g->row[r] * a->ldy + col;
        int n = half - col < SWIGLU_COLUMNS ? half - col : SWIGLU_COLUMNS;
        g->c->simd.swiglu(sum, sum + half, n, y);
    }
}

static void rope_member(void *ctx, int member, int n_members)
{
    const struct cpu_gemm *g = ctx;
    const struct hg_linear_args *a = g->args;
    const struct cpu_thread *t = &g->c->threads[member];
    int n_heads = a->rope->n_kv_heads;
    int64_t first, end = cpu_share((int64_t)g->n_rows * n_heads, member, n_members, &first);
    for (int64_t u = first; u < end; u++) {
        int64_t r = u / n_heads, row = g->row[r];
        int head = (int)(u % n_heads);
        if (u == first || head == 0)
            cpu_rope_angles(a->rope, (int)row, t);
        cpu_rope_kv_head(g->c, t, a->rope, (int)row, head, g->c->sum + r * g->c->ld_sum,
                         (float *)a->y + row * a->ldy);
    }
}

/* ---- rows
 * ---------------------------------------------------------------------------------------- */

/* Stable order by slot; true when that is the caller's order. */
static bool sort_rows(struct cpu_gemm *g, const int32_t *slot, int row0, int n)
{
    int at = 0;
    bool same = true;
    for (int s = -1; s < HG_MAX_PLUGINS; s++) {
        if (s >= 0)
            g->slot_at[s] = at;
        for (int i = 0; i < n; i++) {
            int32_t of = slot ? slot[row0 + i] : -1;
            if (of != s)
                continue;
            same = same && at == i;
            g->c->row[at++] = row0 + i;
        }
    }
    g->slot_at[HG_MAX_PLUGINS] = at;
    g->row = g->c->row;
    return same;
}

static void prepare_member(void *ctx, int member, int n_members)
{
    const struct cpu_gemm *g = ctx;
    const struct hg_linear_args *a = g->args;
    int64_t first, end = cpu_share(g->n_rows, member, n_members, &first);
    for (int64_t i = first; i < end; i++) {
        const float *x = (const float *)a->x + g->row[i] * a->ldx;
        float *normed = g->c->x32 + i * cpu_round_up(g->w->n_in, 64);
        if (a->norm) {
            g->c->simd.rmsnorm(x, a->norm, a->norm_eps, g->w->n_in, normed);
            x = normed;
        }
        cpu_prepare_row(g, (int)i, x);
    }
}

static void run_chunk(struct cpu_gemm *g, const struct hg_linear_args *a, int row0, int n)
{
    bool same = sort_rows(g, a->slot, row0, n);
    g->n_rows = n;
    bool as_it_is = g->w->adapter_form == g->w->form || g->slot_at[0] == n;
    if (same && !a->norm && as_it_is && cpu_meets_float(g->w->form)) {
        g->x = g->xa = (const float *)a->x + row0 * a->ldx;
        g->ldx = g->ldxa = a->ldx * (int64_t)sizeof(float);
    } else {
        cpu_run(g->c, (int64_t)n * g->w->n_in * 4, prepare_member, g);
        cpu_use_prepared(g);
    }
    cpu_gemm_run(g);
    if (a->epilogue == HG_EPILOGUE_SWIGLU)
        cpu_run(g->c, (int64_t)n * g->w->n_out * 4, swiglu_member, g);
    if (a->epilogue == HG_EPILOGUE_ROPE_KV)
        cpu_run(g->c, (int64_t)n * g->w->n_out * 4, rope_member, g);
}

static enum hg_status check_rope(const struct hg_linear_args *a)
{
    const struct hg_rope_kv *k = a->rope;
    if (a->n_rows != k->plan->n_tokens || k->head_dim > CPU_MAX_HEAD_DIM || k->head_dim % 2 ||
        a->w->n_out != (k->n_heads + 2 * k->n_kv_heads) * k->head_dim)
        return cpu_refuse("linear: %d rows of %d outputs for %d tokens, %d + 2 * %d heads of %d",
                          a->n_rows, a->w->n_out, k->plan->n_tokens, k->n_heads, k->n_kv_heads,
                          k->head_dim);
    return HG_STATUS_OK;
}

static enum hg_status check(const struct cpu_backend *c, const struct hg_linear_args *a)
{
    const struct hg_weight *w = a->w;
    const struct hg_backend_limits *l = &c->limits;
    if (a->n_rows > l->max_rows || w->n_in > l->max_in || w->n_out > l->max_out)
        return cpu_refuse("linear: %d rows of [%d, %d] exceed the reserved %d rows of [%d, %d]",
                          a->n_rows, w->n_out, w->n_in, l->max_rows, l->max_out, l->max_in);
    for (int i = 0; a->slot && i < a->n_rows; i++)
        if (a->slot[i] < -1 || a->slot[i] >= HG_MAX_PLUGINS ||
            (a->slot[i] >= 0 && w->z_len[a->slot[i]] > c->ld_z))
            return cpu_refuse("linear: row %d: slot %d, reserved rank %d", i, a->slot[i],
                              l->max_rank);
    if (a->epilogue == HG_EPILOGUE_SWIGLU && w->n_out % 2)
        return cpu_refuse("linear: SwiGLU of %d outputs", w->n_out);
    return a->epilogue == HG_EPILOGUE_ROPE_KV ? check_rope(a) : HG_STATUS_OK;
}

/* Chunks of about equal size: a short last one would read the weight for few rows. */
static int even_chunk(int n_rows, int most)
{
    enum { TILE = 12 };
    int n_chunks = (n_rows + most - 1) / most;
    int even = n_chunks > 1 ? (int)cpu_round_up((n_rows + n_chunks - 1) / n_chunks, TILE) : most;
    return even < most ? even : most;
}

enum hg_status cpu_linear(struct hg_backend *b, const struct hg_linear_args *a)
{
    struct cpu_backend *c = cpu_of(b);
    HG_TRY(check(c, a));
    struct cpu_gemm g = {.c = c,
                         .w = a->w,
                         .lo = 0,
                         .hi = a->w->n_out,
                         .store = store_linear,
                         .args = a,
                         .keep_sum = a->epilogue == HG_EPILOGUE_SWIGLU ||
                                     a->epilogue == HG_EPILOGUE_ROPE_KV};
    int chunk = even_chunk(a->n_rows, cpu_chunk_rows(c, a->w->n_in));
    for (int row0 = 0; row0 < a->n_rows; row0 += chunk)
        run_chunk(&g, a, row0, a->n_rows - row0 < chunk ? a->n_rows - row0 : chunk);
    return HG_STATUS_OK;
}
