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
#include "kernels/quantise.h"

/* Working memory of one matrix. */
struct packer {
    enum hg_dtype type;
    int cols, steps, planes;
    size_t pitch, tile; /* bytes of an entry of rows, of a packed tile */
    float *values;      /* [cols] */
    uint8_t *rows[2];   /* [16][pitch] per plane; F8 and I4: a byte per value */
    float *scale;       /* [tiles * 16] */
    uint16_t *group;    /* [tiles][steps][8][2] of I4, else NULL */
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

/* Row r of a tile as int8 and the scales of its groups. */
static void set_row_i4(struct packer *p, int tile, int r)
{
    int8_t *q = (int8_t *)(void *)(p->rows[0] + (size_t)r * p->pitch);
    uint16_t *scale =
        p->group + ((size_t)tile * (size_t)p->steps * 8 + (size_t)r % 8) * 2 + (size_t)r / 8;
    for (int i = 0; i < p->cols; i += HG_I4_GROUP, scale += 16) {
        int n = p->cols - i < HG_I4_GROUP ? p->cols - i : HG_I4_GROUP;
        *scale = hg_quantise_i4(p->values + i, n, q + i);
    }
}

/* The same rows from a tensor that is quantised already; returns the scale. */
static float take_row(struct packer *p, int tile, int r, const struct row_source *from)
{
    uint8_t *q = p->rows[0] + (size_t)r * p->pitch;
    size_t bytes = hg_code_bytes(p->type, p->cols), groups = (size_t)hg_i4_groups(p->cols);
    const uint8_t *code = (const uint8_t *)from->t->data + from->row * bytes;
    if (p->type != HG_DTYPE_I4) {
        memcpy(q, code, bytes);
        float scale = ((const float *)from->t->scale)[from->row];
        return p->type == HG_DTYPE_F8 ? scale * 256.0f : scale;
    }
    uint16_t *scale =
        p->group + ((size_t)tile * (size_t)p->steps * 8 + (size_t)r % 8) * 2 + (size_t)r / 8;
    for (size_t i = 0; i < groups; i++)
        scale[16 * i] = ((const uint16_t *)from->t->scale)[from->row * groups + i];
    for (int i = 0; i < p->cols; i++)
        q[i] = (uint8_t)hg_i4_code(code, i);
    return 1;
}

/* Row r of 16 of a tile, rounded to the stored type; returns its scale. */
static float set_row(struct packer *p, int tile, int r, const struct row_source *from)
{
    size_t at = (size_t)r * p->pitch, first = from->row * (size_t)p->cols;
    for (int i = 0; i < p->planes; i++)
        memset(p->rows[i] + at, 0, p->pitch);
    if (!from->t)
        return 1;
    uint16_t *to = (uint16_t *)(void *)(p->rows[0] + at);
    if (hg_dtype_is_quantised(from->t->type))
        return take_row(p, tile, r, from);
    if (from->t->type == p->type && p->type != HG_DTYPE_F32) {
        memcpy(to, (const uint16_t *)from->t->data + first, (size_t)p->cols * sizeof *to);
        return 1;
    }
    for (int i = 0; i < p->cols; i++)
        p->values[i] = cuda_decode(from->t, first + (size_t)i);
    switch (p->type) {
    case HG_DTYPE_I8:
        return hg_quantise_i8(p->values, p->cols, (int8_t *)(void *)to);
    case HG_DTYPE_F8:
        return hg_quantise_f8(p->values, p->cols, p->rows[0] + at) * 256.0f;
    case HG_DTYPE_I4:
        set_row_i4(p, tile, r);
        return 1;
    case HG_DTYPE_F32:
        return split_row(p->values, p->cols, to, (uint16_t *)(void *)(p->rows[1] + at));
    default:
        for (int i = 0; i < p->cols; i++)
            to[i] = p->type == HG_DTYPE_F16 ? hg_f32_to_f16(p->values[i])
                                            : hg_f32_to_bf16(p->values[i]);
        return 1;
    }
}

static void put_word(uint8_t *to, uint32_t word)
{
    memcpy(to, &word, sizeof word);
}

static uint32_t f8_half(uint8_t whole, uint8_t split)
{
    return (whole & 0x80u) << 8 | (whole & 0x7fu) << 7 | (split & 0x80u) << 7 | (split & 0x7fu);
}

static void pack_lane_f8(const uint8_t *row, size_t pitch, uint8_t *to)
{
    for (size_t word = 0; word < 4; word++) {
        const uint8_t *v = row + word % 2 * 8 * pitch + word / 2 * 4;
        put_word(to + word * 4, f8_half(v[0], v[2]) | f8_half(v[1], v[3]) << 16);
    }
}

static void pack_lane_i4(const uint8_t *row, size_t pitch, uint8_t *to)
{
    for (size_t word = 0; word < 4; word++) {
        const uint8_t *v = row + word % 2 * 8 * pitch + word / 2 * 8;
        for (size_t i = 0; i < 4; i++)
            to[word * 4 + i] = (uint8_t)((v[i] & 15) | (v[4 + i] & 15) << 4);
    }
}

/* The layout of weight.h. */
static void pack_tile(const struct packer *p, uint8_t *to)
{
    bool f8 = p->type == HG_DTYPE_F8, i4 = p->type == HG_DTYPE_I4;
    size_t loads = p->tile / (size_t)p->steps / 512;
    size_t step_bytes = p->pitch / (size_t)p->steps, lane_bytes = f8 ? 8 : 16;
    for (size_t step = 0; step < (size_t)p->steps; step++)
        for (size_t load = 0; load < loads; load++)
            for (size_t lane = 0; lane < 32; lane++, to += 16) {
                const uint8_t *from = p->rows[i4 ? 0 : load / 2] + lane / 4 * p->pitch +
                                      step * step_bytes + lane_bytes * (lane % 4);
                if (f8) {
                    pack_lane_f8(from, p->pitch, to);
                    continue;
                }
                if (i4) {
                    pack_lane_i4(from + 64 * load, p->pitch, to);
                    continue;
                }
                from += 8 * (load % 2);
                memcpy(to, from, 4);
                memcpy(to + 4, from + 8 * p->pitch, 4);
                memcpy(to + 8, from + 4, 4);
                memcpy(to + 12, from + 8 * p->pitch + 4, 4);
            }
}

static void free_packer(struct packer *p)
{
    free(p->values);
    free(p->rows[0]);
    free(p->rows[1]);
    free(p->scale);
    free(p->group);
}

static bool open_packer(struct packer *p, enum hg_dtype type, int tiles, int cols)
{
    memset(p, 0, sizeof *p);
    p->type = type;
    p->cols = cols;
    p->steps = cuda_steps(type, cols);
    p->planes = type == HG_DTYPE_F32 ? 2 : 1;
    bool wide = type != HG_DTYPE_F8 && type != HG_DTYPE_I4;
    p->pitch = (size_t)p->steps * (size_t)(wide ? STEP_BYTES : cuda_values_per_step(type));
    p->tile = (size_t)p->steps * (size_t)cuda_tile_step_bytes(type);
    size_t at_once = p->tile < CUDA_STAGE_BYTES ? CUDA_STAGE_BYTES / p->tile : 1;
    p->tiles_at_once = at_once < (size_t)tiles ? (int)at_once : tiles;
    p->values = malloc((size_t)cols * sizeof *p->values);
    p->scale = malloc((size_t)tiles * TILE_ROWS * sizeof *p->scale);
    bool ok = p->values && p->scale;
    if (type == HG_DTYPE_I4) {
        p->group = calloc((size_t)tiles * (size_t)p->steps, 16 * sizeof *p->group);
        ok = ok && p->group;
    }
    for (int i = 0; i < p->planes; i++) {
        p->rows[i] = malloc(TILE_ROWS * p->pitch);
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

/* Host values that a matrix keeps beside its tiles. */
static enum hg_status put_beside(struct hg_backend *b, struct hg_weight *w, const void *from,
                                 size_t bytes, void **out, struct hg_error *err)
{
    HG_TRY(cuda_weight_alloc(b, w, bytes, out, err));
    return cuda_put(b, *out, from, bytes, err);
}

enum hg_status cuda_pack(struct hg_backend *b, struct hg_weight *w, struct cuda_matrix *m,
                         enum hg_dtype type, const struct row_source *rows, int tiles, int cols,
                         struct hg_error *err)
{
    enum hg_status status = HG_STATUS_OK;
    struct packer p;
    void *scale = NULL, *group = NULL, *host = NULL;
    if (!open_packer(&p, type, tiles, cols)) {
        free_packer(&p);
        return hg_fail(err, HG_STATUS_NO_MEMORY, "packing %d tiles of %d inputs", tiles, cols);
    }
    m->type = type;
    m->tiles = tiles;
    m->steps = p.steps;
    HG_TRY_OUT(cuda_weight_alloc(b, w, (size_t)tiles * p.tile, &m->data, err));
    for (int t = 0; t < tiles; t += p.tiles_at_once) {
        int n = tiles - t < p.tiles_at_once ? tiles - t : p.tiles_at_once;
        HG_TRY_OUT(cuda_stage_take(cuda_of(b), (size_t)n * p.tile, &host, err));
        for (int i = 0; i < n; i++) {
            size_t first = (size_t)(t + i) * TILE_ROWS;
            for (int r = 0; r < TILE_ROWS; r++)
                p.scale[first + (size_t)r] = set_row(&p, t + i, r, &rows[first + (size_t)r]);
            pack_tile(&p, (uint8_t *)host + (size_t)i * p.tile);
        }
        HG_TRY_OUT(cuda_stage_send(cuda_of(b), (char *)m->data + (size_t)t * p.tile,
                                   (size_t)n * p.tile, err));
    }
    if (type == HG_DTYPE_F32 || type == HG_DTYPE_I8 || type == HG_DTYPE_F8) {
        size_t bytes = (size_t)tiles * TILE_ROWS * sizeof(float);
        status = put_beside(b, w, p.scale, bytes, &scale, err);
        m->scale = scale;
    }
    if (type == HG_DTYPE_I4) {
        size_t bytes = (size_t)tiles * (size_t)p.steps * 16 * sizeof *p.group;
        status = put_beside(b, w, p.group, bytes, &group, err);
        m->group_scale = group;
    }
out:
    free_packer(&p);
    return status;
}
