/* kernels/cuda/weight.c - weights are checked and packed on the host, tile by tile, then uploaded.
 *
 * Each packed matrix is described by a table of where its rows come from, in tile order, so the base weight, the
 * stacked [A; R] of a slot and a part's B go through the same packer. See weight.h for the layout. */
#include "kernels/cuda/weight.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/half.h"
#include "kernels/cuda/cuda.h"

enum { UPLOAD_BYTES = 16 << 20 };

/* ---- checks -------------------------------------------------------------------------------------
 */

static enum hg_status check_adapter(const char *name, int part, int slot,
                                    const struct hg_adapter *a, struct hg_error *err)
{
    if (a->rank == 0)
        return HG_STATUS_OK;
    if (a->rank < 0 || a->n_experts <= 0 || a->rank % a->n_experts != 0)
        return hg_fail(err, HG_STATUS_BAD_FILE,
                       "%s: part %d slot %d: rank %d is not a positive multiple of %d experts",
                       name, part, slot, a->rank, a->n_experts);
    if (!a->a.data || !a->b.data || !a->route.data)
        return hg_fail(err, HG_STATUS_BAD_FILE, "%s: part %d slot %d: adapter tensor is absent",
                       name, part, slot);
    if (a->a.type == HG_DTYPE_I8 || a->b.type == HG_DTYPE_I8 || a->route.type == HG_DTYPE_I8)
        return hg_fail(err, HG_STATUS_UNSUPPORTED, "%s: part %d slot %d: i8 adapter tensor", name,
                       part, slot);
    return HG_STATUS_OK;
}

static enum hg_status check_part(const struct hg_weight_desc *d, int i, struct hg_error *err)
{
    const struct hg_weight_part *p = &d->parts[i];
    if (p->n_out <= 0 || !p->w.data)
        return hg_fail(err, HG_STATUS_BAD_FILE, "%s: part %d has %d outputs%s", d->name, i,
                       p->n_out, p->w.data ? "" : " and no weight");
    if (p->w.type == HG_DTYPE_I8 || (p->bias.data && p->bias.type == HG_DTYPE_I8))
        return hg_fail(err, HG_STATUS_UNSUPPORTED, "%s: part %d: i8 host tensor", d->name, i);
    for (int s = 0; s < HG_MAX_PLUGINS; s++)
        HG_TRY(check_adapter(d->name, i, s, &p->adapters[s], err));
    return HG_STATUS_OK;
}

/* Counts the outputs while checking. */
static enum hg_status check_desc(const struct hg_weight_desc *d, int *n_out, struct hg_error *err)
{
    if (d->n_in <= 0 || d->n_parts < 1 || d->n_parts > HG_MAX_PARTS ||
        (unsigned)d->store >= HG_DTYPE_COUNT)
        return hg_fail(err, HG_STATUS_BAD_FILE, "%s: %d inputs, %d parts, store type %d", d->name,
                       d->n_in, d->n_parts, (int)d->store);
    int64_t n = 0;
    for (int i = 0; i < d->n_parts; i++) {
        HG_TRY(check_part(d, i, err));
        n += d->parts[i].n_out;
    }
    if (n > INT_MAX - TILE_ROWS)
        return hg_fail(err, HG_STATUS_TOO_LARGE, "%s: %lld outputs", d->name, (long long)n);
    if (d->pair < 0 || d->pair % 2 || (d->pair && n % d->pair))
        return hg_fail(err, HG_STATUS_BAD_FILE, "%s: %lld outputs in pairs of %d", d->name,
                       (long long)n, d->pair);
    *n_out = (int)n;
    return HG_STATUS_OK;
}

/* ---- packing ------------------------------------------------------------------------------------
 */

/* Where a packed row comes from: row `row` of a host tensor, or t NULL: zeros. */
struct row_source {
    const struct hg_host_tensor *t;
    size_t row;
};

/* Working memory of one matrix. */
struct packer {
    enum hg_dtype type;
    int cols, steps, planes;
    float *values;    /* [cols] */
    uint8_t *rows[2]; /* [16][steps * 64] per plane */
    uint8_t *tiles;   /* as many packed tiles as are uploaded at once */
    float *scale;     /* [tiles * 16] */
    int tiles_at_once;
};

static float decode(const struct hg_host_tensor *t, size_t i)
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

/* w / scale = high + low, both fp16; scale is the power of two that brings the largest |w| into [2^14, 2^15). */
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
        p->values[i] = decode(from->t, first + (size_t)i);
    if (p->type == HG_DTYPE_I8)
        return quantise_row(p->values, p->cols, (int8_t *)(void *)to);
    if (p->type == HG_DTYPE_F32)
        return split_row(p->values, p->cols, to, (uint16_t *)(void *)(p->rows[1] + at));
    for (int i = 0; i < p->cols; i++)
        to[i] = p->type == HG_DTYPE_F16 ? hg_f32_to_f16(p->values[i])
                                        : hg_f32_to_bf16(p->values[i]);
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
    free(p->tiles);
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
    size_t at_once = UPLOAD_BYTES / tile + 1;
    p->tiles_at_once = at_once < (size_t)tiles ? (int)at_once : tiles;
    p->values = malloc((size_t)cols * sizeof *p->values);
    p->tiles = malloc((size_t)p->tiles_at_once * tile);
    p->scale = malloc((size_t)tiles * TILE_ROWS * sizeof *p->scale);
    bool ok = p->values && p->tiles && p->scale;
    for (int i = 0; i < p->planes; i++) {
        p->rows[i] = malloc((size_t)p->steps * TILE_STEP_BYTES);
        ok = ok && p->rows[i];
    }
    return ok;
}

static enum hg_status device_alloc(struct hg_backend *b, struct hg_weight *w, size_t bytes,
                                   void **out, struct hg_error *err)
{
    HG_TRY(cuda_alloc(b, bytes, out, err));
    w->bytes += bytes;
    return HG_STATUS_OK;
}

/* Upload and wait: the host memory is reused at once. */
static enum hg_status put(struct hg_backend *b, void *dst, const void *src, size_t bytes,
                          struct hg_error *err)
{
    enum hg_status status = cuda_upload(b, dst, src, bytes);
    if (status == HG_STATUS_OK)
        status = cuda_sync(b);
    return status == HG_STATUS_OK ? status : hg_fail(err, status, "weight upload");
}

/* rows: tiles * 16 sources of `cols` values each. */
static enum hg_status make_matrix(struct hg_backend *b, struct hg_weight *w, struct cuda_matrix *m,
                                  enum hg_dtype type, const struct row_source *rows, int tiles,
                                  int cols, struct hg_error *err)
{
    enum hg_status status = HG_STATUS_OK;
    struct packer p;
    void *scale = NULL;
    if (!open_packer(&p, type, tiles, cols)) {
        free_packer(&p);
        return hg_fail(err, HG_STATUS_NO_MEMORY, "packing %d tiles of %d inputs", tiles, cols);
    }
    size_t tile = (size_t)p.steps * (size_t)p.planes * TILE_STEP_BYTES;
    m->type = type;
    m->tiles = tiles;
    m->steps = p.steps;
    HG_TRY_OUT(device_alloc(b, w, (size_t)tiles * tile, &m->data, err));
    for (int t = 0; t < tiles; t += p.tiles_at_once) {
        int n = tiles - t < p.tiles_at_once ? tiles - t : p.tiles_at_once;
        for (int i = 0; i < n; i++) {
            size_t first = (size_t)(t + i) * TILE_ROWS;
            for (int r = 0; r < TILE_ROWS; r++)
                p.scale[first + (size_t)r] = set_row(&p, r, &rows[first + (size_t)r]);
            pack_tile(&p, p.tiles + (size_t)i * tile);
        }
        HG_TRY_OUT(put(b, (char *)m->data + (size_t)t * tile, p.tiles, (size_t)n * tile, err));
    }
    if (type == HG_DTYPE_F32 || type == HG_DTYPE_I8) {
        size_t bytes = (size_t)tiles * TILE_ROWS * sizeof(float);
        HG_TRY_OUT(device_alloc(b, w, bytes, &scale, err));
        m->scale = scale;
        HG_TRY_OUT(put(b, scale, p.scale, bytes, err));
    }
out:
    free_packer(&p);
    return status;
}

/* ---- the parts of a weight ----------------------------------------------------------------------
 */

/* The output that row i of the tile order holds, or -1. */
static int64_t output_of_row(const struct hg_weight *w, int64_t i)
{
    if (!w->pair)
        return i < w->n_out ? i : -1;
    int64_t half = w->pair / 2, per_group = (half + 7) / 8, tile = i / TILE_ROWS;
    int64_t at = tile % per_group * 8 + i % 8;
    return at < half ? tile / per_group * w->pair + i % TILE_ROWS / 8 * half + at : -1;
}

static int count_tiles(int n_out, int pair)
{
    return pair ? n_out / pair * ((pair / 2 + 7) / 8) : (n_out + TILE_ROWS - 1) / TILE_ROWS;
}

/* Part and row inside it of an output. */
static int part_of(const struct hg_weight_desc *d, int64_t output, size_t *row)
{
    int p = 0;
    while (output >= d->parts[p].n_out)
        output -= d->parts[p++].n_out;
    *row = (size_t)output;
    return p;
}

/* W and the bias in tile order. rows: scratch of w.tiles * 16. */
static enum hg_status make_base(struct hg_backend *b, struct hg_weight *w,
                                const struct hg_weight_desc *d, int tiles, struct row_source *rows,
                                struct hg_error *err)
{
    size_t n = (size_t)tiles * TILE_ROWS;
    void *device = NULL;
    float *bias = calloc(n, sizeof *bias);
    if (!bias)
        return hg_fail(err, HG_STATUS_NO_MEMORY, "weight %s", d->name);
    for (size_t i = 0; i < n; i++) {
        int64_t output = output_of_row(w, (int64_t)i);
        rows[i] = (struct row_source){NULL, 0};
        if (output < 0)
            continue;
        const struct hg_weight_part *part = &d->parts[part_of(d, output, &rows[i].row)];
        rows[i].t = &part->w;
        if (part->bias.data)
            bias[i] = decode(&part->bias, rows[i].row);
    }
    enum hg_status status = device_alloc(b, w, n * sizeof *bias, &device, err);
    w->bias = device;
    if (status == HG_STATUS_OK)
        status = put(b, device, bias, n * sizeof *bias, err);
    free(bias);
    HG_TRY(status);
    return make_matrix(b, w, &w->w, d->store, rows, tiles, d->n_in, err);
}

/* B of one part and slot over the tiles that hold rows of the part. */
static enum hg_status make_expand(struct hg_backend *b, struct hg_weight *w,
                                  const struct hg_weight_desc *d, int slot, int part,
                                  struct row_source *rows, struct hg_error *err)
{
    const struct hg_adapter *a = &d->parts[part].adapters[slot];
    struct cuda_expand *to = &w->slot[slot].part[part];
    int64_t first = -1, last = 0;
    for (int64_t i = 0; i < (int64_t)w->w.tiles * TILE_ROWS; i++) {
        int64_t output = output_of_row(w, i);
        rows[i] = (struct row_source){NULL, 0};
        if (output < 0 || part_of(d, output, &rows[i].row) != part)
            continue;
        rows[i].t = &a->b;
        first = first < 0 ? i : first;
        last = i;
    }
    to->tile0 = (int)(first / TILE_ROWS);
    return make_matrix(b, w, &to->b, cuda_adapter_type(d->store), rows + to->tile0 * TILE_ROWS,
                       (int)(last / TILE_ROWS) - to->tile0 + 1, a->rank, err);
}

static enum hg_status make_slot(struct hg_backend *b, struct hg_weight *w,
                                const struct hg_weight_desc *d, int slot, struct row_source *rows,
                                struct hg_error *err)
{
    struct cuda_slot *to = &w->slot[slot];
    enum hg_dtype type = cuda_adapter_type(d->store);
    for (int p = 0; p < d->n_parts; p++) {
        const struct hg_adapter *a = &d->parts[p].adapters[slot];
        struct cuda_expand *e = &to->part[p];
        w->rank[slot] += a->rank + a->n_experts;
        if (!a->rank)
            continue;
        *e = (struct cuda_expand){.rank = a->rank,
                                  .n_experts = a->n_experts,
                                  .scaling = a->scaling,
                                  .row0 = to->rows,
                                  .z_byte = to->z_bytes};
        to->rows += a->rank + a->n_experts;
        to->z_bytes += cuda_steps(type, a->rank) * cuda_row_step_bytes(type);
        HG_TRY(make_expand(b, w, d, slot, p, rows, err));
    }
    if (!to->rows)
        return HG_STATUS_OK;
    int tiles = count_tiles(to->rows, 0);
    struct row_source *stacked = calloc((size_t)tiles * TILE_ROWS, sizeof *stacked);
    if (!stacked)
        return hg_fail(err, HG_STATUS_NO_MEMORY, "adapter of %s", d->name);
    for (int p = 0, at = 0; p < d->n_parts; p++) {
        const struct hg_adapter *a = &d->parts[p].adapters[slot];
        for (int i = 0; a->rank && i < a->rank; i++)
            stacked[at++] = (struct row_source){&a->a, (size_t)i};
        for (int i = 0; a->rank && i < a->n_experts; i++)
            stacked[at++] = (struct row_source){&a->route, (size_t)i};
    }
    enum hg_status status = make_matrix(b, w, &to->shrink, type, stacked, tiles, d->n_in, err);
    free(stacked);
    return status;
}

enum hg_status cuda_weight_create(struct hg_backend *b, const struct hg_weight_desc *desc,
                                  struct hg_weight **out, struct hg_error *err)
{
    enum hg_status status = HG_STATUS_OK;
    int n_out = 0;
    *out = NULL;
    HG_TRY(check_desc(desc, &n_out, err));
    int tiles = count_tiles(n_out, desc->pair);
    struct hg_weight *w = calloc(1, sizeof *w);
    struct row_source *rows = calloc((size_t)tiles * TILE_ROWS, sizeof *rows);
    if (!w || !rows) {
        free(w);
        free(rows);
        return hg_fail(err, HG_STATUS_NO_MEMORY, "weight %s", desc->name);
    }
    w->n_in = desc->n_in;
    w->n_out = n_out;
    w->n_parts = desc->n_parts;
    w->pair = desc->pair;
    HG_TRY_OUT(make_base(b, w, desc, tiles, rows, err));
    for (int s = 0; s < HG_MAX_PLUGINS; s++)
        HG_TRY_OUT(make_slot(b, w, desc, s, rows, err));
    *out = w;
    w = NULL;
out:
    free(rows);
    cuda_weight_free(b, w);
    return status;
}

static void free_matrix(struct hg_backend *b, const struct cuda_matrix *m)
{
    cuda_free(b, m->data);
    cuda_free(b, m->scale);
}

void cuda_weight_free(struct hg_backend *b, struct hg_weight *w)
{
    if (!w)
        return;
    for (int s = 0; s < HG_MAX_PLUGINS; s++) {
        free_matrix(b, &w->slot[s].shrink);
        for (int p = 0; p < HG_MAX_PARTS; p++)
            free_matrix(b, &w->slot[s].part[p].b);
    }
    free_matrix(b, &w->w);
    cuda_free(b, w->bias);
    free(w);
}

size_t cuda_weight_bytes(const struct hg_weight *w)
{
    return w->bytes;
}
