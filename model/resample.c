/* model/resample.c - taps and the two passes. The order of the double operations is Pillow's: the
 * scale is divided once, its reciprocal multiplies, so that every tap rounds alike. */
#include "model/resample.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static double bicubic(double x)
{
    const double a = -0.5;
    x = fabs(x);
    if (x < 1)
        return ((a + 2) * x - (a + 3)) * x * x + 1;
    if (x < 2)
        return (((x - 5) * x + 8) * x - 4) * a;
    return 0;
}

static double sinc(double x)
{
    if (x == 0)
        return 1;
    x *= 3.14159265358979323846;
    return sin(x) / x;
}

static double lanczos3(double x)
{
    return x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0;
}

/* Taps of one output, normalised to sum 1 and rounded half away from zero. */
static void fill(const struct hg_taps *t, int out, double center, double inverse_scale,
                 enum hg_resample filter, double *weight)
{
    double sum = 0;
    for (int i = 0; i < t->count[out]; i++) {
        double x = (i + t->first[out] - center + 0.5) * inverse_scale;
        weight[i] = filter == HG_RESAMPLE_LANCZOS ? lanczos3(x) : bicubic(x);
        sum += weight[i];
    }
    int32_t *tap = t->tap + (size_t)out * (size_t)t->stride;
    for (int i = 0; i < t->count[out]; i++) {
        double w = sum != 0 ? weight[i] / sum : weight[i];
        tap[i] = (int32_t)(w * (1 << HG_TAP_BITS) + (w < 0 ? -0.5 : 0.5));
    }
}

enum hg_status hg_taps_init(struct hg_taps *t, int n_in, int n_out, enum hg_resample filter,
                            struct hg_error *err)
{
    double scale = (double)n_in / n_out, wide = scale < 1 ? 1 : scale;
    double support = (filter == HG_RESAMPLE_LANCZOS ? 3 : 2) * wide;
    size_t n = (size_t)n_out, stride = (size_t)ceil(support) * 2 + 1;
    double *weight = malloc(stride * sizeof *weight);
    *t = (struct hg_taps){.n_out = n_out, .stride = (int)stride};
    t->first = calloc(n, sizeof *t->first);
    t->count = calloc(n, sizeof *t->count);
    t->tap = calloc(n, stride * sizeof *t->tap);
    if (!weight || !t->first || !t->count || !t->tap) {
        free(weight);
        hg_taps_deinit(t);
        return hg_fail(err, HG_STATUS_NO_MEMORY, "resize: out of memory for %d to %d taps", n_in,
                       n_out);
    }
    for (int out = 0; out < n_out; out++) {
        double center = (out + 0.5) * scale;
        int lo = (int)(center - support + 0.5), hi = (int)(center + support + 0.5);
        t->first[out] = lo < 0 ? 0 : lo;
        t->count[out] = (hi > n_in ? n_in : hi) - t->first[out];
        fill(t, out, center, 1 / wide, filter, weight);
    }
    free(weight);
    return HG_STATUS_OK;
}

void hg_taps_deinit(struct hg_taps *t)
{
    free(t->first);
    free(t->count);
    free(t->tap);
    *t = (struct hg_taps){0};
}

/* The magnitudes of an output's taps sum to less than 2, so 255 times that fits 32 bits. */
static uint8_t clip8(int32_t sum)
{
    int32_t v = sum >> HG_TAP_BITS;
    return (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
}

/* One output pixel from `count` input pixels that lie `step` bytes apart. */
static void weigh(const uint8_t *in, size_t step, const int32_t *tap, int count, uint8_t *out)
{
    int32_t r = 1 << (HG_TAP_BITS - 1), g = r, b = r;
    for (int i = 0; i < count; i++, in += step) {
        r += in[0] * tap[i];
        g += in[1] * tap[i];
        b += in[2] * tap[i];
    }
    out[0] = clip8(r);
    out[1] = clip8(g);
    out[2] = clip8(b);
}

static void fill_pixels(uint8_t *row, int n, const uint8_t colour[3])
{
    for (int i = 0; i < n; i++)
        memcpy(row + (size_t)i * 3, colour, 3);
}

/* rows[canvas height][t->n_out]. A row of one colour stays that colour: rounded taps sum to 1
 * within stride / 2 units of 2^-22. `line` holds one canvas row, already padded. */
static void pass_across(const struct hg_canvas *c, const struct hg_taps *t, uint8_t *line,
                        uint8_t *rows)
{
    size_t row_bytes = (size_t)t->n_out * 3, in_bytes = (size_t)c->im->width * 3;
    for (int y = 0; y < c->height; y++, rows += row_bytes) {
        if (y < c->y || y >= c->y + c->im->height) {
            fill_pixels(rows, t->n_out, c->pad);
            continue;
        }
        memcpy(line + (size_t)c->x * 3, c->im->rgb + (size_t)(y - c->y) * in_bytes, in_bytes);
        for (int x = 0; x < t->n_out; x++)
            weigh(line + (size_t)t->first[x] * 3, 3, t->tap + (size_t)x * (size_t)t->stride,
                  t->count[x], rows + (size_t)x * 3);
    }
}

static void pass_down(const uint8_t *rows, int width, const struct hg_taps *t, uint8_t *out)
{
    size_t row_bytes = (size_t)width * 3;
    for (int y = 0; y < t->n_out; y++, out += row_bytes)
        for (size_t x = 0; x < row_bytes; x += 3)
            weigh(rows + (size_t)t->first[y] * row_bytes + x, row_bytes,
                  t->tap + (size_t)y * (size_t)t->stride, t->count[y], out + x);
}

enum hg_status hg_canvas_resize(const struct hg_canvas *c, int width, int height,
                                enum hg_resample filter, struct hg_image *out, struct hg_error *err)
{
    enum hg_status status;
    struct hg_taps across = {0}, down = {0};
    uint8_t *line = NULL, *rows = NULL;
    HG_TRY(hg_image_init(out, width, height, err));
    HG_TRY_OUT(hg_taps_init(&across, c->width, width, filter, err));
    HG_TRY_OUT(hg_taps_init(&down, c->height, height, filter, err));
    line = malloc((size_t)c->width * 3);
    rows = malloc((size_t)c->height * (size_t)width * 3);
    if (!line || !rows) {
        status = hg_fail(err, HG_STATUS_NO_MEMORY, "resize: out of memory for %d rows of %d",
                         c->height, width);
        goto out;
    }
    fill_pixels(line, c->width, c->pad);
    pass_across(c, &across, line, rows);
    pass_down(rows, width, &down, out->rgb);
out:
    free(rows);
    free(line);
    hg_taps_deinit(&down);
    hg_taps_deinit(&across);
    if (status != HG_STATUS_OK)
        hg_image_deinit(out);
    return status;
}
