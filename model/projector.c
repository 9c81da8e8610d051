/* model/projector.c - two linears with an exact GELU between them (reference.md 8.5). */
#include "model/projector.h"

#include <stdio.h>
#include <stdlib.h>

#include "model/host_tensor.h"

struct hg_projector {
    struct hg_backend *b;
    int in_dim, out_dim, max_rows;
    struct hg_weight *first, *second;
    enum hg_rounding rounding;
    void *hidden; /* (dev) [max_rows, out_dim] */
};

static enum hg_status load_linear(struct hg_loader *l, int index, int n_in, int n_out,
                                  enum hg_dtype store, struct hg_weight **out, struct hg_error *err)
{
    char weight[64], bias[64];
    snprintf(weight, sizeof weight, "model.mm_projector.%d.weight", index);
    snprintf(bias, sizeof bias, "model.mm_projector.%d.bias", index);
    struct hg_weight_desc desc = {.name = weight, .n_in = n_in, .n_parts = 1, .store = store};
    struct hg_weight_part *part = &desc.parts[0];
    part->n_out = n_out;
    HG_TRY(hg_loader_get(l, weight, n_out, n_in, NULL, &part->w, err));
    HG_TRY(hg_loader_get(l, bias, n_out, 0, NULL, &part->bias, err));
    enum hg_status status = l->backend->ops->weight_create(l->backend, &desc, out, err);
    hg_loader_reset(l);
    return status;
}

static enum hg_status load_all(struct hg_projector *p, struct hg_loader *l, enum hg_dtype store,
                               struct hg_error *err)
{
    struct hg_backend *b = p->b;
    size_t n = (size_t)p->max_rows * (size_t)p->out_dim;
    HG_TRY(load_linear(l, 0, p->in_dim, p->out_dim, store, &p->first, err));
    HG_TRY(load_linear(l, 2, p->out_dim, p->out_dim, store, &p->second, err));
    return b->ops->alloc(b, n * hg_dtype_bytes(b->ops->act_type), &p->hidden, err);
}

enum hg_status hg_projector_load(struct hg_backend *b, struct hg_weights *w, int in_dim,
                                 int out_dim, int max_rows, enum hg_dtype store,
                                 struct hg_projector **out, struct hg_error *err)
{
    *out = NULL;
    if (in_dim < 1 || out_dim < 1 || max_rows < 1)
        return hg_fail(err, HG_STATUS_INTERNAL, "projector: %d to %d, %d rows", in_dim, out_dim,
                       max_rows);
    struct hg_projector *p = calloc(1, sizeof *p);
    if (!p)
        return hg_fail(err, HG_STATUS_NO_MEMORY, "projector: out of memory");
    *p = (struct hg_projector){.b = b, .in_dim = in_dim, .out_dim = out_dim, .max_rows = max_rows};
    struct hg_loader l = {.backend = b, .weights = w};
    enum hg_status status = load_all(p, &l, store, err);
    hg_loader_reset(&l);
    if (status != HG_STATUS_OK)
        hg_projector_free(p);
    else
        *out = p;
    return status;
}

void hg_projector_free(struct hg_projector *p)
{
    if (!p)
        return;
    p->b->ops->free(p->b, p->hidden);
    p->b->ops->weight_free(p->b, p->second);
    p->b->ops->weight_free(p->b, p->first);
    free(p);
}

void hg_projector_set_rounding(struct hg_projector *p, enum hg_rounding rounding)
{
    p->rounding = rounding;
}

size_t hg_projector_bytes(const struct hg_projector *p)
{
    return p->b->ops->weight_bytes(p->first, -1) + p->b->ops->weight_bytes(p->second, -1);
}

int64_t hg_projector_work(const struct hg_projector *p, int n_rows)
{
    return (int64_t)n_rows * p->out_dim * (p->in_dim + p->out_dim);
}

enum hg_status hg_projector_run(struct hg_projector *p, const void *x, int n_rows, void *y)
{
    if (n_rows < 0 || n_rows > p->max_rows)
        return HG_STATUS_INTERNAL;
    struct hg_linear_args first = {.w = p->first,
                                   .n_rows = n_rows,
                                   .n_prompt = n_rows,
                                   .x = x,
                                   .ldx = p->in_dim,
                                   .epilogue = HG_EPILOGUE_GELU,
                                   .rounding = p->rounding,
                                   .y = p->hidden,
                                   .ldy = p->out_dim};
    struct hg_linear_args second = {.w = p->second,
                                    .n_rows = n_rows,
                                    .n_prompt = n_rows,
                                    .x = p->hidden,
                                    .ldx = p->out_dim,
                                    .epilogue = HG_EPILOGUE_NONE,
                                    .rounding = p->rounding,
                                    .y = y,
                                    .ldy = p->out_dim};
    HG_TRY(p->b->ops->linear(p->b, &first));
    return p->b->ops->linear(p->b, &second);
}
