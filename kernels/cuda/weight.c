/* kernels/cuda/weight.c - a weight is checked, then its matrices are packed.
 *
 * Each matrix is described by a table of where its rows come from, in tile order, so the base
 * weight, the stacked [A; R] of a slot and a part's B go through the same packer, pack.c. */
#include <stdlib.h>

#include "kernels/check.h"
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/pack.h"

/* ---- the parts of a weight ------------------------------------------------------------------- */

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
            bias[i] = cuda_decode(&part->bias, rows[i].row);
    }
    enum hg_status status = cuda_weight_alloc(b, w, n * sizeof *bias, &device, err);
    w->bias = device;
    if (status == HG_STATUS_OK)
        status = cuda_put(b, device, bias, n * sizeof *bias, err);
    free(bias);
    HG_TRY(status);
    return cuda_pack(b, w, &w->w, d->store, rows, tiles, d->n_in, err);
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
    return cuda_pack(b, w, &to->b, w->plugin, rows + to->tile0 * TILE_ROWS,
                     (int)(last / TILE_ROWS) - to->tile0 + 1, a->rank, err);
}

static enum hg_status make_slot(struct hg_backend *b, struct hg_weight *w,
                                const struct hg_weight_desc *d, int slot, struct row_source *rows,
                                struct hg_error *err)
{
    struct cuda_slot *to = &w->slot[slot];
    enum hg_dtype type = w->plugin;
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
    enum hg_status status = cuda_pack(b, w, &to->shrink, type, stacked, tiles, d->n_in, err);
    free(stacked);
    return status;
}

/* Kernels are compiled for pairs of types: linear_<type>.cu and linear_<type>_i8.cu. */
static enum hg_status check_plugin(const struct hg_weight_desc *d, struct hg_error *err)
{
    enum hg_dtype plugin = hg_plugin_dtype(d->plugin, d->store), usual = hg_dtype_beside(d->store);
    if (plugin == HG_DTYPE_I8 || plugin == usual)
        return HG_STATUS_OK;
    return hg_fail(err, HG_STATUS_UNSUPPORTED,
                   "%s: the cuda backend keeps adapters beside %s weights in %s or i8, not in %s",
                   d->name, hg_dtype_name(d->store), hg_dtype_name(usual), hg_dtype_name(plugin));
}

enum hg_status cuda_weight_create(struct hg_backend *b, const struct hg_weight_desc *desc,
                                  struct hg_weight **out, struct hg_error *err)
{
    enum hg_status status = HG_STATUS_OK;
    int n_out = 0;
    *out = NULL;
    HG_TRY(hg_weight_desc_check(desc, TILE_ROWS, &n_out, err));
    HG_TRY(check_plugin(desc, err));
    int tiles = count_tiles(n_out, desc->pair);
    struct hg_weight *w = calloc(1, sizeof *w);
    struct row_source *rows = calloc((size_t)(tiles > 0 ? tiles : 1) * TILE_ROWS, sizeof *rows);
    if (!w || !rows) {
        free(w);
        free(rows);
        return hg_fail(err, HG_STATUS_NO_MEMORY, "weight %s", desc->name);
    }
    w->n_in = desc->n_in;
    w->n_out = n_out;
    w->n_parts = desc->n_parts;
    w->pair = desc->pair;
    w->plugin = hg_plugin_dtype(desc->plugin, desc->store);
    HG_TRY_OUT(make_base(b, w, desc, tiles, rows, err));
    for (int s = 0; s < HG_MAX_PLUGINS; s++) {
        size_t before = w->bytes;
        HG_TRY_OUT(make_slot(b, w, desc, s, rows, err));
        w->slot_bytes[s] = w->bytes - before;
    }
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
    cuda_free(b, m->group_scale);
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

size_t cuda_weight_bytes(const struct hg_weight *w, int slot)
{
    return slot < 0 ? w->bytes : w->slot_bytes[slot];
}
