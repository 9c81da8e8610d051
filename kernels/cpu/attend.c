/* kernels/cpu/attend.c - softmax attention of a few query rows, 64 keys at a time.
 *
 * Running maximum m and sum l per row: o = o * exp(m - m') + P V, P = exp(S - m'). Steps are cut at
 * multiples of 64 positions from 0, keys inside a step are added in order, so a row's result
 * depends on nothing but its own keys. A key that a row does not see is left out of the sum P V. */
#include <math.h>
#include <string.h>

#include "kernels/cpu/cpu.h"

enum { PANEL_KEYS = CPU_LANES, N_PANELS = CPU_KEYS / PANEL_KEYS };
_Static_assert((int)N_PANELS <= (int)CPU_STRIP, "a strip takes the keys of a step");

void cpu_attend_begin(struct cpu_attend *a)
{
    memset(a->t->out, 0, (size_t)a->n_rows * (size_t)a->dim_pad * sizeof(float));
    for (int r = 0; r < a->n_rows; r++) {
        a->max[r] = -INFINITY;
        a->sum[r] = 0;
    }
}

/* Panels come from anywhere in the cache: on its own the processor would begin anew in every one
 * of these few KiB, so each is fetched while the one before is computed. */
static void fetch(const void *const *panels, int64_t bytes)
{
    for (int p = 0; p < N_PANELS && panels[p]; p++)
        for (int64_t i = 0; i < bytes; i += 64)
            __builtin_prefetch((const char *)panels[p] + i);
}

/* Few rows: a row at a time through all panels. Fetches the values. */
static void score_rows(const struct cpu_attend *a, const void *const *k, const void *const *v)
{
    struct cpu_strip s = {.w_step = cpu_group_bytes(a->form), .n_k = a->dim, .first = true};
    while (s.n_panels < N_PANELS && k[s.n_panels]) {
        s.w[s.n_panels] = k[s.n_panels];
        s.ahead[s.n_panels] = v[s.n_panels];
        s.n_panels++;
    }
    for (int r = 0; r < a->n_rows; r++) {
        s.x = a->t->q + r * a->dim;
        s.acc = a->t->score + r * CPU_KEYS;
        a->simd->strip[a->form](&s);
    }
}

/* Panel `panel`, and the one after it when there is one; the number of panels. */
static int score_panels(const struct cpu_attend *a, const void *const *k, int panel)
{
    int width = panel + 1 < N_PANELS && k[panel + 1] ? 2 : 1;
    struct cpu_tile t = {.w = k[panel],
                         .w_step = cpu_group_bytes(a->form),
                         .x = a->t->q,
                         .ldx = a->dim * (int64_t)sizeof(float),
                         .acc = a->t->score + panel * PANEL_KEYS,
                         .ld_acc = CPU_KEYS,
                         .n_k = a->dim,
                         .n_rows = a->n_rows,
                         .width = width,
                         .second =
                             width == 2 ? (const char *)k[panel + 1] - (const char *)k[panel] : 0,
                         .first = true};
    a->simd->tile[a->form](&t);
    return width;
}

/* s[j] *= scale of key j: int8 keys carry it in their scores, int8 values in their weights. Keys
 * that a row does not see may become NaN: their weights are not used. */
static void scale_keys(float *s, const float *const *scale)
{
    for (int p = 0; p < N_PANELS && scale[p]; p++)
        for (int j = 0; j < PANEL_KEYS; j++)
            s[p * PANEL_KEYS + j] *= scale[p][j];
}

/* Scores of row r become probabilities; the running maximum and sum move on. */
static void softmax_row(struct cpu_attend *a, int r)
{
    float *s = a->t->score + r * CPU_KEYS;
    if (a->lo[r] >= a->hi[r])
        return;
    a->simd->scale(s, a->scale, CPU_KEYS);
    scale_keys(s, a->k_scale);
    for (int j = 0; j < a->lo[r]; j++)
        s[j] = -INFINITY;
    for (int j = a->hi[r]; j < CPU_KEYS; j++)
        s[j] = -INFINITY;
    float max = a->simd->max(s, CPU_KEYS);
    max = max > a->max[r] ? max : a->max[r];
    if (max == -INFINITY) {
        a->hi[r] = a->lo[r]; /* nothing to add, unless a NaN hides among the scores */
        for (int j = 0; j < CPU_KEYS; j++)
            if (isnan(s[j]))
                a->sum[r] = NAN;
        return;
    }
    if (max > a->max[r] && a->sum[r] != 0) {
        float factor = expf(a->max[r] - max);
        a->simd->scale(a->t->out + r * a->dim_pad, factor, a->dim_pad);
        a->sum[r] *= factor;
    }
    a->max[r] = max;
    a->sum[r] += a->simd->exp_sum(s, CPU_KEYS, max);
    scale_keys(s, a->v_scale);
}

/* Fetches as much of `next`. */
static void add_values_row(const struct cpu_attend *a, const void *v, const void *next, int panel,
                           int key0, int key1, int row)
{
    struct cpu_strip s = {.w_step = cpu_group_bytes(a->form),
                          .x = a->t->score + row * CPU_KEYS + panel * PANEL_KEYS + key0,
                          .n_k = key1 - key0};
    for (int c = 0; c < a->dim_pad; c += s.n_panels * CPU_LANES) {
        s.acc = a->t->out + row * a->dim_pad + c;
        s.n_panels = 0;
        for (int at = c; at < a->dim_pad && s.n_panels < CPU_STRIP; at += CPU_LANES) {
            s.w[s.n_panels] = (const char *)v + (at + key0) * s.w_step;
            s.ahead[s.n_panels++] = (const char *)next + (at + key0) * s.w_step;
        }
        a->simd->strip[a->form](&s);
    }
}

/* out[r] += p[r][key0..key1) V for rows [row0, row1) of one panel of 16 keys */
static void add_values(const struct cpu_attend *a, const void *v, const void *next, int panel,
                       int key0, int key1, int row0, int row1)
{
    int64_t step = cpu_group_bytes(a->form);
    if (row1 - row0 < CPU_STRIP_ROWS) {
        for (int r = row0; r < row1; r++)
            add_values_row(a, v, next, panel, key0, key1, r);
        return;
    }
    for (int c = 0, width; c < a->dim_pad; c += width * CPU_LANES) {
        width = a->dim_pad - c > CPU_LANES ? 2 : 1;
        struct cpu_tile t = {.w = (const char *)v + (c + key0) * step,
                             .w_step = step,
                             .x = a->t->score + row0 * CPU_KEYS + panel * PANEL_KEYS + key0,
                             .ldx = CPU_KEYS * sizeof(float),
                             .acc = a->t->out + row0 * a->dim_pad + c,
                             .ld_acc = a->dim_pad,
                             .n_k = key1 - key0,
                             .n_rows = row1 - row0,
                             .width = width,
                             .second = PANEL_KEYS * step};
        a->simd->tile[a->form](&t);
    }
}

/* Keys of the panel that row r sees: [*lo, return value) in 0..16. */
static int seen(const struct cpu_attend *a, int r, int panel, int *lo)
{
    int first = panel * PANEL_KEYS, end = first + PANEL_KEYS;
    int from = a->lo[r] > first ? a->lo[r] : first, to = a->hi[r] < end ? a->hi[r] : end;
    *lo = from - first;
    return to - first;
}

/* Rows that see the same keys of the panel go together. */
static void value_panel(const struct cpu_attend *a, const void *v, const void *next, int panel)
{
    for (int r = 0; r < a->n_rows;) {
        int lo, hi = seen(a, r, panel, &lo), end = r + 1, next_lo;
        while (end < a->n_rows && seen(a, end, panel, &next_lo) == hi && next_lo == lo)
            end++;
        if (lo < hi)
            add_values(a, v, next, panel, lo, hi, r, end);
        r = end;
    }
}

void cpu_attend_keys(struct cpu_attend *a, const void *const *k, const void *const *v,
                     const void *const *next_k)
{
    int64_t bytes = (int64_t)a->dim * cpu_group_bytes(a->form);
    if (a->n_rows < CPU_STRIP_ROWS) {
        score_rows(a, k, v);
    } else if (next_k) {
        fetch(v, bytes);
        fetch(next_k, bytes);
    }
    for (int p = 0; p < N_PANELS && k[p] && a->n_rows >= CPU_STRIP_ROWS;)
        p += score_panels(a, k, p);
    for (int r = 0; r < a->n_rows; r++)
        softmax_row(a, r);
    for (int p = 0; p < N_PANELS; p++)
        if (k[p])
            value_panel(a, v[p], next_k && next_k[p] ? next_k[p] : v[p], p);
}

void cpu_attend_end(struct cpu_attend *a)
{
    for (int r = 0; r < a->n_rows; r++)
        a->simd->scale(a->t->out + r * a->dim_pad, 1 / a->sum[r], a->dim_pad);
}
