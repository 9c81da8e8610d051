/* kernels/ref/weight.c - a linear's weight: parts stacked along the outputs, adapters per part. */
#include <stdlib.h>

#include "kernels/check.h"
#include "kernels/ref/ref.h"

static enum hg_status set_adapter(struct ref_adapter *to, const struct hg_adapter *from, int n_in,
                                  int n_out, enum hg_dtype type, struct hg_error *err)
{
    if (from->rank == 0)
        return HG_STATUS_OK;
    to->rank = from->rank;
    to->n_experts = from->n_experts;
    to->scaling = from->scaling;
    HG_TRY(ref_matrix_init(&to->a, from->rank, n_in, type, err));
    HG_TRY(ref_matrix_init(&to->b, n_out, from->rank, type, err));
    HG_TRY(ref_matrix_init(&to->route, from->n_experts, n_in, type, err));
    HG_TRY(ref_matrix_set(&to->a, 0, from->rank, &from->a, err));
    HG_TRY(ref_matrix_set(&to->b, 0, n_out, &from->b, err));
    return ref_matrix_set(&to->route, 0, from->n_experts, &from->route, err);
}

static enum hg_status set_part(struct hg_weight *w, int i, int row0, const struct hg_weight_desc *d,
                               struct hg_error *err)
{
    const struct hg_weight_part *from = &d->parts[i];
    struct ref_part *to = &w->parts[i];
    enum hg_dtype plugin = hg_plugin_dtype(d->plugin, d->store);
    to->row0 = row0;
    to->n_out = from->n_out;
    HG_TRY(ref_matrix_set(&w->w, row0, from->n_out, &from->w, err));
    for (int j = 0; from->bias.data && j < from->n_out; j++)
        w->bias[row0 + j] = ref_decode(from->bias.data, from->bias.type, (size_t)j);
    for (int s = 0; s < HG_MAX_PLUGINS; s++)
        HG_TRY(
            set_adapter(&to->adapters[s], &from->adapters[s], d->n_in, from->n_out, plugin, err));
    return HG_STATUS_OK;
}

enum hg_status ref_weight_create(struct hg_backend *b, const struct hg_weight_desc *desc,
                                 struct hg_weight **out, struct hg_error *err)
{
    enum hg_status status = HG_STATUS_OK;
    int n_out = 0, row0 = 0;
    *out = NULL;
    HG_TRY(hg_weight_desc_check(desc, 0, &n_out, err));
    struct hg_weight *w = calloc(1, sizeof *w);
    float *bias = calloc((size_t)(n_out > 0 ? n_out : 1), sizeof *bias);
    if (!w || !bias) {
        free(w);
        free(bias);
        return hg_fail(err, HG_STATUS_NO_MEMORY, "weight %s", desc->name);
    }
    w->bias = bias;
    w->n_in = desc->n_in;
    w->n_out = n_out;
    w->n_parts = desc->n_parts;
    HG_TRY_OUT(ref_matrix_init(&w->w, n_out, desc->n_in, desc->store, err));
    for (int i = 0; i < desc->n_parts; i++) {
        HG_TRY_OUT(set_part(w, i, row0, desc, err));
        row0 += desc->parts[i].n_out;
    }
    *out = w;
    w = NULL;
out:
    ref_weight_free(b, w);
    return status;
}

void ref_weight_free(struct hg_backend *b, struct hg_weight *w)
{
    (void)b;
    if (!w)
        return;
    for (int i = 0; i < HG_MAX_PARTS; i++)
        for (int s = 0; s < HG_MAX_PLUGINS; s++) {
            ref_matrix_deinit(&w->parts[i].adapters[s].a);
            ref_matrix_deinit(&w->parts[i].adapters[s].b);
            ref_matrix_deinit(&w->parts[i].adapters[s].route);
        }
    ref_matrix_deinit(&w->w);
    free(w->bias);
    free(w);
}

size_t ref_weight_bytes(const struct hg_weight *w, int slot)
{
    size_t n = slot < 0 ? ref_matrix_bytes(&w->w) + (size_t)w->n_out * sizeof *w->bias : 0;
    for (int i = 0; i < w->n_parts; i++)
        for (int s = 0; s < HG_MAX_PLUGINS; s++) {
            const struct ref_adapter *a = &w->parts[i].adapters[s];
            if (a->rank && (slot < 0 || slot == s))
                n +=
                    ref_matrix_bytes(&a->a) + ref_matrix_bytes(&a->b) + ref_matrix_bytes(&a->route);
        }
    return n;
}
