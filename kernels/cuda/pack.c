/* kernels/cuda/pack.c - a matrix of host rows becomes tiles on the device: see weight.h for the
 * layout.
 *
 * Sixteen rows at a time are rounded to the stored type, then cut into fragments, straight into a
 * pinned buffer of stage.c: while one buffer is copied the next is packed. */
#include "kernels/cuda/pack.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/half.h"
#include "kernels/cuda/cuda.h"

/* Working memory of one matrix. */
struct packer {
    enum hg_dtype type;
    int cols, steps, planes;
    float *values;    /* [cols] */
    uint8_t *rows[2]; /* [16][steps * 64] per plane */
    float *scale;     /* [tiles * 16] */
    int tiles_at_once;
};

float cuda_decode(const struct hg_host_tensor *t, size_t i)
{
    switch (t->type) {
    case HG_DTYPE_F16:
        return hg_f16_to_f32(((const uint16_t *)t->data)[i]);
    case HG_DTYPE_BF16:
        return hg_bf16_to_f32(((const uint16_t *)t->data)[i]);
    default:
        return ((const float *)t->data)[i];
    }
}

/* w / scale = high + low, both fp16; scale is the power of two that brings the largest |w| into
 * [2^14, 2^15). */
static float split_row(const float *x, int n, uint16_t *high, uint16_t *low)
{
    float max = 0;
    for (int i = 0; i < n; i++)
        max = isfinite(x[i]) ? fmaxf(max, fabsf(x[i])) : max;
    int e = max > 0 ? ilogbf(max) - 14 : 0;
    e = e < -126 ? -126 : e;
    float down = ldexpf(1, -e);
    for (int i = 0; i < n; i++) {
        high[i] = hg_f32_to_f16(x[i] * down);
        low[i] = hg_f32_to_f16(x[i] * down - hg_f16_to_f32(high[i]));
    }
    return ldexpf(1, e);
}

/* As ref_quantise of kernels/ref/matrix.c. */
static float quantise_row(const float *x, int n, int8_t *q)
{
    float max = 0;
    bool finite = true;
    for (int i = 0; i < n; i++) {
        finite = finite && isfinite(x[i]);
        max = fmaxf(max, fabsf(x[i]));
    }
    float scale = max / 127.0f;
    bool usable = finite && scale > 0;
    for (int i = 0; i < n; i++)
        q[i] = usable ? (int8_t)fminf(fmaxf(rintf(x[i] / scale), -127), 127) : 0;
    return finite ? scale : NAN;
}

/* Row r of 16 of a tile, rounded to the stored type; returns its scale. */
static float set_row(struct packer *p, int r, const struct row_source *from)
{
    size_t pitch = (size_t)p->steps * STEP_BYTES, at = (size_t)r * pitch;
    size_t first = from->row * (size_t)p->cols;
    for (int i = 0; i < p->planes; i++)
        memset(p->rows[i] + at, 0, pitch);
    if (!from->t)
        return 1;
    uint16_t *to = (uint16_t *)(void *)(p->rows[0] + at);
    if (from->t->type == p->type && p->type != HG_DTYPE_F32) {
        memcpy(to, (const uint16_t *)from->t->data + first, (size_t)p->cols * sizeof *to);
        return 1;
    }
    for (int i = 0; i < p->cols; i++)
        p->values[i] = cuda_decode(from->t, first + (size_t)i);
    if (p->type == HG_DTYPE_I8)
        return quantise_row(p->values, p->cols, (int8_t *)(void *)to);
    if (p->type == HG_DTYPE_F32)
        return split_row(p->values, p->cols, to, (uint16_t *)(void *)(p->rows[1] + at));
    for (int i = 0; i < p->cols; i++)
        to[i] =
            p->type == HG_DTYPE_F16 ? hg_f32_to_f16(p->values[i]) : hg_f32_to_bf16(p->values[i]);
    return 1;
}

/* The layout of weight.h. */
static void pack_tile(const struct packer *p, uint8_t *to)
{
    size_t pitch = (size_t)p->steps * STEP_BYTES;
    for (size_t step = 0; step < (size_t)p->steps; step++)
        for (int plane = 0; plane < p->planes; plane++)
            for (size_t h = 0; h < 2; h++)
                for (size_t lane = 0; lane < 32; lane++, to += 16) {
                    const uint8_t *from = p->rows[plane] + lane / 4 * pitch + step * STEP_BYTES +
                                          16 * (lane % 4) + 8 * h;
                    memcpy(to, from, 4);
                    memcpy(to + 4, from + 8 * pitch, 4);
                    memcpy(to + 8, from + 4, 4);
                    memcpy(to + 12, from + 8 * pitch + 4, 4);
                }
}

static void free_packer(struct packer *p)
{
    free(p->values);
    free(p->rows[0]);
    free(p->rows[1]);
    free(p->scale);
}

static bool open_packer(struct packer *p, enum hg_dtype type, int tiles, int cols)
{
    memset(p, 0, sizeof *p);
    p->type = type;
    p->cols = cols;
    p->steps = cuda_steps(type, cols);
    p->planes = type == HG_DTYPE_F32 ? 2 : 1;
    size_t tile = (size_t)p->steps * (size_t)p->planes * TILE_STEP_BYTES;
    size_t at_once = tile < CUDA_STAGE_BYTES ? CUDA_STAGE_BYTES / tile : 1;
    p->tiles_at_once = at_once < (size_t)tiles ? (int)at_once : tiles;
    p->values = malloc((size_t)cols * sizeof *p->values);
    p->scale = malloc((size_t)tiles * TILE_ROWS * sizeof *p->scale);
    bool ok = p->values && p->scale;
    for (int i = 0; i < p->planes; i++) {
        p->rows[i] = malloc((size_t)p->steps * TILE_STEP_BYTES);
        ok = ok && p->rows[i];
    }
    return ok;
}

enum hg_status cuda_weight_alloc(struct hg_backend *b, struct hg_weight *w, size_t bytes,
                                 void **out, struct hg_error *err)
{
    HG_TRY(cuda_alloc(b, bytes, out, err));
    w->bytes += bytes;
    return HG_STATUS_OK;
}

enum hg_status cuda_pack(struct hg_backend *b, struct hg_weight *w, struct cuda_matrix *m,
                         enum hg_dtype type, const struct row_source *rows, int tiles, int cols,
                         struct hg_error *err)
{
    enum hg_status status = HG_STATUS_OK;
    struct packer p;
    void *scale = NULL, *host = NULL;
    if (!open_packer(&p, type, tiles, cols)) {
        free_packer(&p);
        return hg_fail(err, HG_STATUS_NO_MEMORY, "packing %d tiles of %d inputs", tiles, cols);
    }
    size_t tile = (size_t)p.steps * (size_t)p.planes * TILE_STEP_BYTES;
    m->type = type;
    m->tiles = tiles;
    m->steps = p.steps;
    HG_TRY_OUT(cuda_weight_alloc(b, w, (size_t)tiles * tile, &m->data, err));
    for (int t = 0; t < tiles; t += p.tiles_at_once) {
        int n = tiles - t < p.tiles_at_once ? tiles - t : p.tiles_at_once;
        HG_TRY_OUT(cuda_stage_take(cuda_of(b), (size_t)n * tile, &host, err));
        for (int i = 0; i < n; i++) {
            size_t first = (size_t)(t + i) * TILE_ROWS;
            for (int r = 0; r < TILE_ROWS; r++)
                p.scale[first + (size_t)r] = set_row(&p, r, &rows[first + (size_t)r]);
            pack_tile(&p, (uint8_t *)host + (size_t)i * tile);
        }
        HG_TRY_OUT(
            cuda_stage_send(cuda_of(b), (char *)m->data + (size_t)t * tile, (size_t)n * tile, err));
    }
    if (type == HG_DTYPE_F32 || type == HG_DTYPE_I8) {
        size_t bytes = (size_t)tiles * TILE_ROWS * sizeof(float);
        HG_TRY_OUT(cuda_weight_alloc(b, w, bytes, &scale, err));
        m->scale = scale;
        HG_TRY_OUT(cuda_put(b, scale, p.scale, bytes, err));
    }
out:
    free_packer(&p);
    return status;
}
