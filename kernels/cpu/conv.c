/* kernels/cpu/conv.c - GroupNorm, swish, nearest upsampling, zero padding, convolution; NHWC.
 *
 * Output pixels are gathered as (ky, kx, c) rows, a chunk at a time, and go through the weight's
 * panels like the rows of any linear. Normalised input lines are kept in a ring of lines, so each
 * is computed once. GroupNorm sums are taken over up to 64 runs of pixels, cut by the image size
 * alone, in double, and added in pixel order. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/cpu.h"

struct conv {
    struct cpu_backend *c;
    const struct hg_conv_args *a;
    int out_h, out_w;
    int n_lines;            /* lines of the ring; 0: the input is read as it is */
    int next_line;          /* first line not yet normalised */
    int line0, line1;       /* lines to normalise now */
    float *factor, *offset; /* [channels] of GroupNorm: y = x * factor + offset */
    struct cpu_gemm g;
};

/* ---- GroupNorm statistics
 * ------------------------------------------------------------------------ */

static int64_t run_pixels(const struct hg_conv_args *a)
{
    int64_t pixels = (int64_t)a->height * a->width;
    return (pixels + CPU_MOMENT_RUNS - 1) / CPU_MOMENT_RUNS;
}

/* moments[run][group][2]: sum and sum of squares of a run of pixels */
static void moments_member(void *ctx, int member, int n_members)
{
    const struct conv *v = ctx;
    const struct hg_conv_args *a = v->a;
    int per_group = a->channels / a->norm_groups;
    int64_t pixels = (int64_t)a->height * a->width, step = run_pixels(a);
    int64_t first, end = cpu_share(CPU_MOMENT_RUNS, member, n_members, &first);
    for (int64_t t = first; t < end; t++)
        for (int g = 0; g < a->norm_groups; g++) {
            int64_t p1 = (t + 1) * step < pixels ? (t + 1) * step : pixels;
            double sum = 0, squares = 0;
            for (int64_t p = t * step; p < p1; p++) {
                const float *x = (const float *)a->x + p * a->channels + g * per_group;
                for (int i = 0; i < per_group; i++) {
                    sum += (double)x[i];
                    squares += (double)x[i] * (double)x[i];
                }
            }
            v->c->moments[(t * a->norm_groups + g) * 2] = sum;
            v->c->moments[(t * a->norm_groups + g) * 2 + 1] = squares;
        }
}

static void group_norm(struct conv *v)
{
    const struct hg_conv_args *a = v->a;
    int per_group = a->channels / a->norm_groups;
    int64_t pixels = (int64_t)a->height * a->width;
    double n = (double)pixels * per_group;
    cpu_run(v->c, pixels * a->channels, moments_member, v);
    for (int g = 0; g < a->norm_groups; g++) {
        double sum = 0, squares = 0;
        for (int64_t t = 0; t < CPU_MOMENT_RUNS; t++) {
            sum += v->c->moments[(t * a->norm_groups + g) * 2];
            squares += v->c->moments[(t * a->norm_groups + g) * 2 + 1];
        }
        double mean = sum / n, var = squares / n - mean * mean;
        double inverse = 1 / sqrt((var < 0 ? 0 : var) + (double)a->norm_eps);
        for (int i = g * per_group; i < (g + 1) * per_group; i++) {
            double factor = inverse * (double)a->norm_weight[i];
            v->factor[i] = (float)factor;
            v->offset[i] = (float)((double)a->norm_bias[i] - mean * factor);
        }
    }
}

/* ---- lines and windows
 * --------------------------------------------------------------------------- */

static void lines_member(void *ctx, int member, int n_members)
{
    const struct conv *v = ctx;
    const struct hg_conv_args *a = v->a;
    int64_t n = (int64_t)(v->line1 - v->line0) * a->width;
    int64_t first, end = cpu_share(n, member, n_members, &first);
    for (int64_t i = first; i < end; i++) {
        int64_t line = v->line0 + i / a->width, pixel = i % a->width;
        const float *x = (const float *)a->x + (line * a->width + pixel) * a->channels;
        float *y = v->c->band + ((line % v->n_lines) * a->width + pixel) * a->channels;
        memcpy(y, x, (size_t)a->channels * sizeof *y);
        if (a->norm_groups)
            v->c->simd.affine(y, v->factor, v->offset, a->channels);
        if (a->swish)
            v->c->simd.swish(y, a->channels);
    }
}

/* Input lines [*first, return value) that output pixels [p0, p1) look at. */
static int lines_of(const struct conv *v, int64_t p0, int64_t p1, int *first)
{
    const struct hg_conv_args *a = v->a;
    int64_t top = p0 / v->out_w * a->stride - a->pad_lo;
    int64_t bottom = (p1 - 1) / v->out_w * a->stride - a->pad_lo + a->kernel;
    int64_t end = (bottom + a->upsample - 1) / a->upsample;
    *first = top < 0 ? 0 : (int)(top / a->upsample);
    return end > a->height ? a->height : end < 0 ? 0 : (int)end;
}

static const float *input_pixel(const struct conv *v, int y, int x)
{
    const struct hg_conv_args *a = v->a;
    if (y < 0 || x < 0 || y >= a->height * a->upsample || x >= a->width * a->upsample)
        return NULL;
    int64_t line = y / a->upsample, column = x / a->upsample;
    if (v->n_lines)
        return v->c->band + ((line % v->n_lines) * a->width + column) * a->channels;
    return (const float *)a->x + (line * a->width + column) * a->channels;
}

static void gather_member(void *ctx, int member, int n_members)
{
    const struct conv *v = ctx;
    const struct hg_conv_args *a = v->a;
    size_t channels = (size_t)a->channels;
    int64_t first, end = cpu_share(v->g.n_rows, member, n_members, &first);
    for (int64_t i = first; i < end; i++) {
        int oy = v->g.row[i] / v->out_w, ox = v->g.row[i] % v->out_w;
        float *row = v->c->x32 + i * cpu_round_up(v->g.w->n_in, 64), *to = row;
        for (int ky = 0; ky < a->kernel; ky++)
            for (int kx = 0; kx < a->kernel; kx++, to += channels) {
                const float *from = input_pixel(v, oy * a->stride + ky - a->pad_lo,
                                                ox * a->stride + kx - a->pad_lo);
                if (from)
                    memcpy(to, from, channels * sizeof *to);
                else
                    memset(to, 0, channels * sizeof *to);
            }
        cpu_prepare_row(&v->g, (int)i, row);
    }
}

static void store_conv(const struct cpu_gemm *g, int first, int n_rows, int col, int n,
                       float *block)
{
    const struct hg_conv_args *a = g->args;
    const float *residual = a->residual;
    for (int r = 0; r < n_rows; r++) {
        int64_t at = (int64_t)g->row[first + r] * g->w->n_out + col;
        for (int i = 0; i < n; i++) {
            float v = block[r * CPU_PAIR + i];
            ((float *)a->y)[at + i] = residual ? residual[at + i] + v : v;
        }
    }
}

/* ---- the op
 * --------------------------------------------------------------------------------------- */

/* Pixels from p0 on that fit the chunk and, when lines are normalised, the ring. */
static int64_t chunk_end(const struct conv *v, int64_t p0, int chunk)
{
    int64_t n = (int64_t)v->out_h * v->out_w, p1 = p0 + chunk < n ? p0 + chunk : n;
    int first;
    while (v->n_lines && p1 > p0 + 1 && lines_of(v, p0, p1, &first) - first > v->n_lines)
        p1 = p0 + (p1 - p0) / 2;
    return p1;
}

static void run_chunk(struct conv *v, int64_t p0, int64_t p1)
{
    int first, end = lines_of(v, p0, p1, &first);
    if (v->n_lines) {
        v->line0 = v->next_line > first ? v->next_line : first;
        v->line1 = end;
        if (v->line0 < v->line1) {
            cpu_run(v->c, (int64_t)(v->line1 - v->line0) * v->a->width * v->a->channels * 8,
                    lines_member, v);
            v->next_line = v->line1;
        }
    }
    v->g.n_rows = (int)(p1 - p0);
    for (int s = 0; s <= HG_MAX_PLUGINS; s++)
        v->g.slot_at[s] = v->g.n_rows;
    for (int64_t p = p0; p < p1; p++)
        v->c->row[p - p0] = (int32_t)p;
    cpu_run(v->c, (p1 - p0) * v->g.w->n_in * 2, gather_member, v);
    cpu_use_prepared(&v->g);
    cpu_gemm_run(&v->g);
}

static enum hg_status check(const struct conv *v)
{
    const struct hg_conv_args *a = v->a;
    const struct cpu_backend *c = v->c;
    int64_t k = (int64_t)a->kernel * a->kernel * a->channels;
    int64_t size = k * a->height * a->width * a->upsample * a->upsample;
    if ((a->kernel != 1 && a->kernel != 3) || (a->upsample != 1 && a->upsample != 2) ||
        a->stride < 1 || a->w->n_in != k)
        return cpu_refuse("conv: kernel %d, stride %d, upsample %d, %d channels, weight K %d",
                          a->kernel, a->stride, a->upsample, a->channels, a->w->n_in);
    if (a->norm_groups < 0 || a->channels > CPU_MAX_CHANNELS ||
        (a->norm_groups && a->channels % a->norm_groups))
        return cpu_refuse("conv: %d channels in %d groups", a->channels, a->norm_groups);
    if (size > c->limits.max_conv || v->out_h < 1 || v->out_w < 1 ||
        (int64_t)v->out_h * v->out_w > INT32_MAX || cpu_chunk_rows(c, a->w->n_in) < 1)
        return cpu_refuse("conv: %lld inputs, reserved %lld; %d x %d outputs", (long long)size,
                          (long long)c->limits.max_conv, v->out_h, v->out_w);
    if ((a->norm_groups || a->swish) && v->n_lines < a->kernel)
        return cpu_refuse("conv: lines of %d * %d exceed the line buffer", a->width, a->channels);
    return HG_STATUS_OK;
}

enum hg_status cpu_conv(struct hg_backend *b, const struct hg_conv_args *a)
{
    int pad = a->pad_lo + a->pad_hi - a->kernel;
    struct conv v = {.c = cpu_of(b), .a = a};
    struct cpu_backend *c = v.c;
    if (a->stride < 1 || a->width < 1 || a->channels < 1)
        return cpu_refuse("conv: stride %d, width %d, %d channels", a->stride, a->width,
                          a->channels);
    v.out_h = (a->height * a->upsample + pad) / a->stride + 1;
    v.out_w = (a->width * a->upsample + pad) / a->stride + 1;
    if (a->norm_groups || a->swish) {
        int64_t lines = c->band_cap / ((int64_t)a->width * a->channels);
        /* a small image fits as a whole; kernel - 1 lines overlap the next chunk */
        v.n_lines = lines > a->height + a->kernel ? a->height + a->kernel : (int)lines;
    }
    HG_TRY(check(&v));
    v.factor = c->norm_affine;
    v.offset = c->norm_affine + CPU_MAX_CHANNELS;
    if (a->norm_groups)
        group_norm(&v);
    v.g = (struct cpu_gemm){.c = c,
                            .w = a->w,
                            .lo = 0,
                            .hi = a->w->n_out,
                            .row = c->row,
                            .store = store_conv,
                            .args = a};
    int chunk = cpu_chunk_rows(c, a->w->n_in);
    int64_t n = (int64_t)v.out_h * v.out_w;
    for (int64_t p0 = 0, p1; p0 < n; p0 = p1) {
        p1 = chunk_end(&v, p0, chunk);
        run_chunk(&v, p0, p1);
    }
    return HG_STATUS_OK;
}
