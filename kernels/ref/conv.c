/* kernels/ref/conv.c - GroupNorm, swish, nearest upsampling, zero padding, convolution; NHWC.
 *
 * Each output pixel gathers its (ky, kx, c) window into a row and is then a linear, so the numerics
 * rule of a linear holds: the I8 scale is that of the gathered row. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/ref/ref.h"

static void norm_group(const struct hg_conv_args *a, int group, float *y)
{
    const float *x = (const float *)a->x;
    int per_group = a->channels / a->norm_groups, c0 = group * per_group;
    int64_t pixels = (int64_t)a->height * a->width;
    double mean = 0, var = 0, n = (double)pixels * per_group;
    for (int64_t p = 0; p < pixels; p++)
        for (int c = c0; c < c0 + per_group; c++)
            mean += x[p * a->channels + c];
    mean /= n;
    for (int64_t p = 0; p < pixels; p++)
        for (int c = c0; c < c0 + per_group; c++) {
            double d = x[p * a->channels + c] - mean;
            var += d * d;
        }
    double inverse = 1 / sqrt(var / n + a->norm_eps);
    for (int64_t p = 0; p < pixels; p++)
        for (int c = c0; c < c0 + per_group; c++) {
            double v = (x[p * a->channels + c] - mean) * inverse * a->norm_weight[c];
            y[p * a->channels + c] = (float)(v + a->norm_bias[c]);
        }
}

static void prologue(const struct hg_conv_args *a, float *y)
{
    int64_t n = (int64_t)a->height * a->width * a->channels;
    memcpy(y, a->x, (size_t)n * sizeof *y);
    for (int g = 0; g < a->norm_groups; g++)
        norm_group(a, g, y);
    for (int64_t i = 0; a->swish && i < n; i++)
        y[i] = (float)(y[i] / (1 + exp(-(double)y[i])));
}

/* The window of output pixel (oy, ox) in the padded, upsampled input. */
static void gather(const struct hg_conv_args *a, const float *x, int oy, int ox, float *row)
{
    size_t channels = (size_t)a->channels;
    for (int ky = 0; ky < a->kernel; ky++)
        for (int kx = 0; kx < a->kernel; kx++, row += channels) {
            int y = oy * a->stride + ky - a->pad_lo, c = ox * a->stride + kx - a->pad_lo;
            bool inside =
                y >= 0 && c >= 0 && y < a->height * a->upsample && c < a->width * a->upsample;
            size_t pixel =
                inside ? (size_t)(y / a->upsample) * (size_t)a->width + (size_t)(c / a->upsample)
                       : 0;
            if (inside)
                memcpy(row, x + pixel * channels, channels * sizeof *row);
            else
                memset(row, 0, channels * sizeof *row);
        }
}

static enum hg_status check(const struct ref_backend *r, const struct hg_conv_args *a)
{
    int64_t k = (int64_t)a->kernel * a->kernel * a->channels;
    int64_t size = k * a->height * a->width * a->upsample * a->upsample;
    if ((a->kernel != 1 && a->kernel != 3) || (a->upsample != 1 && a->upsample != 2) ||
        a->stride < 1 || a->w->n_in != k)
        return ref_refuse("conv: kernel %d, stride %d, upsample %d, %d channels, weight K %d",
                          a->kernel, a->stride, a->upsample, a->channels, a->w->n_in);
    if (a->norm_groups < 0 || (a->norm_groups && a->channels % a->norm_groups))
        return ref_refuse("conv: %d channels in %d groups", a->channels, a->norm_groups);
    if (size > r->limits.max_conv)
        return ref_refuse("conv: %lld inputs, reserved %lld", (long long)size,
                          (long long)r->limits.max_conv);
    return HG_STATUS_OK;
}

static void convolve(const struct hg_conv_args *a, const float *x, float *row, struct ref_row *act)
{
    int n = a->w->n_out, pad = a->pad_lo + a->pad_hi - a->kernel;
    int out_h = (a->height * a->upsample + pad) / a->stride + 1;
    int out_w = (a->width * a->upsample + pad) / a->stride + 1;
    const float *residual = (const float *)a->residual;
    float *y = (float *)a->y;
    int64_t at = 0;
    for (int oy = 0; oy < out_h; oy++)
        for (int ox = 0; ox < out_w; ox++) {
            gather(a, x, oy, ox, row);
            ref_row_set(act, row, a->w->n_in);
            for (int i = 0; i < n; i++, at++) {
                double sum = ref_dot(&a->w->w, i, act) + a->w->bias[i];
                y[at] = (float)(residual ? residual[at] + sum : sum);
            }
        }
}

enum hg_status ref_conv(struct hg_backend *b, const struct hg_conv_args *a)
{
    enum hg_status status = check(ref_of(b), a);
    if (status != HG_STATUS_OK)
        return status;
    size_t n = (size_t)a->height * (size_t)a->width * (size_t)a->channels;
    struct ref_row act;
    float *x = malloc(n * sizeof *x);
    float *row = malloc((size_t)a->w->n_in * sizeof *row);
    status = ref_row_init(&act, a->w->n_in, NULL);
    if (status == HG_STATUS_OK && x && row) {
        prologue(a, x);
        convolve(a, x, row, &act);
    } else {
        status = HG_STATUS_NO_MEMORY;
    }
    ref_row_deinit(&act);
    free(row);
    free(x);
    return status;
}
