/* model/vqgan_load.c - packs the tensors of every node and allocates the workspace. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/host_tensor.h"
#include "model/vqgan.h"
#include "model/vqgan_net.h"

enum { NAME_CAP = 96 };

static const char *join(const char *node, const char *module, const char *suffix,
                        char out[NAME_CAP])
{
    snprintf(out, NAME_CAP, "%s%s%s", node, module, suffix);
    return out;
}

/* [o, i, ky, kx] -> [o, (ky, kx, i)], so that a window of NHWC pixels is one row. */
static void repack(const float *from, const int64_t dims[4], float *to)
{
    int64_t taps = dims[2] * dims[3];
    for (int64_t o = 0; o < dims[0]; o++, from += dims[1] * taps)
        for (int64_t tap = 0; tap < taps; tap++)
            for (int64_t i = 0; i < dims[1]; i++)
                *to++ = from[i * taps + tap];
}

static enum hg_status get_kernel(struct hg_loader *l, const char *name,
                                 const struct hg_vqgan_conv *c, struct hg_host_tensor *out,
                                 struct hg_error *err)
{
    const struct hg_tensor *t;
    int64_t dims[4] = {c->n_out, c->n_in, c->kernel, c->kernel};
    HG_TRY(hg_loader_find(l, name, 4, dims, &t, err));
    if (!t)
        return HG_STATUS_OK;
    size_t n = (size_t)hg_tensor_count(t);
    float *packed = hg_arena_alloc(&l->arena, n * sizeof *packed);
    float *as_stored = malloc(n * sizeof *as_stored);
    if (packed && as_stored) {
        hg_tensor_convert(t, HG_DTYPE_F32, as_stored);
        repack(as_stored, dims, packed);
        *out = (struct hg_host_tensor){.data = packed, .type = HG_DTYPE_F32};
    }
    free(as_stored);
    return packed && as_stored
               ? HG_STATUS_OK
               : hg_fail(err, HG_STATUS_NO_MEMORY, "tensor %s: out of memory", name);
}

static enum hg_status pack(struct hg_vqgan *v, struct hg_loader *l,
                           const struct hg_weight_desc *desc, struct hg_vqgan_conv *c,
                           struct hg_error *err)
{
    HG_TRY(v->b->ops->weight_create(v->b, desc, &c->w, err));
    v->weight_bytes += v->b->ops->weight_bytes(c->w, -1);
    hg_loader_reset(l);
    return HG_STATUS_OK;
}

static enum hg_status load_norm(struct hg_vqgan *v, struct hg_loader *l, const char *node,
                                struct hg_vqgan_conv *c, struct hg_error *err)
{
    char name[NAME_CAP];
    if (c->n_in % v->norm_groups != 0)
        return hg_fail(err, HG_STATUS_BAD_FILE, "tensor %s.weight: %d channels in %d groups",
                       join(node, c->norm, "", name), c->n_in, v->norm_groups);
    HG_TRY(
        hg_loader_vector(l, join(node, c->norm, ".weight", name), c->n_in, &c->norm_weight, err));
    HG_TRY(hg_loader_vector(l, join(node, c->norm, ".bias", name), c->n_in, &c->norm_bias, err));
    v->weight_bytes += 2 * (size_t)c->n_in * sizeof(float);
    return HG_STATUS_OK;
}

static enum hg_status load_conv(struct hg_vqgan *v, struct hg_loader *l, const char *node,
                                struct hg_vqgan_conv *c, struct hg_error *err)
{
    char name[NAME_CAP];
    struct hg_weight_desc desc = {.name = name,
                                  .n_in = c->kernel * c->kernel * c->n_in,
                                  .n_parts = c->n_parts,
                                  .store = HG_DTYPE_F32};
    for (int i = 0; i < c->n_parts; i++) {
        struct hg_weight_part *part = &desc.parts[i];
        part->n_out = c->n_out;
        join(node, c->parts[i], ".bias", name);
        HG_TRY(hg_loader_get(l, name, c->n_out, 0, NULL, &part->bias, err));
        join(node, c->parts[i], ".weight", name);
        HG_TRY(get_kernel(l, name, c, &part->w, err));
    }
    HG_TRY(pack(v, l, &desc, c, err));
    return c->norm ? load_norm(v, l, node, c, err) : HG_STATUS_OK;
}

/* A plain VQModel has no quantize.proj: the nearest code e to z is the largest 2 e.z - |e|^2. */
static enum hg_status load_nearest(struct hg_vqgan *v, struct hg_loader *l, struct hg_vqgan_conv *c,
                                   struct hg_error *err)
{
    const struct hg_tensor *t;
    int64_t dims[2] = {c->n_out, c->n_in};
    HG_TRY(hg_loader_find(l, v->net.codebook, 2, dims, &t, err));
    if (!t)
        return HG_STATUS_OK;
    size_t n = (size_t)hg_tensor_count(t), dim = (size_t)c->n_in;
    float *w = hg_arena_alloc(&l->arena, n * sizeof *w);
    float *bias = hg_arena_alloc(&l->arena, (size_t)c->n_out * sizeof *bias);
    if (!w || !bias)
        return hg_fail(err, HG_STATUS_NO_MEMORY, "tensor %s: out of memory", v->net.codebook);
    hg_tensor_convert(t, HG_DTYPE_F32, w);
    for (size_t i = 0; i < (size_t)c->n_out; i++) {
        double norm = 0;
        for (float *p = w + i * dim; p < w + (i + 1) * dim; p++) {
            norm += (double)*p * *p;
            *p *= 2;
        }
        bias[i] = (float)-norm;
    }
    struct hg_weight_desc desc = {
        .name = v->net.codebook, .n_in = c->n_in, .n_parts = 1, .store = HG_DTYPE_F32};
    desc.parts[0] = (struct hg_weight_part){
        .w = {w, HG_DTYPE_F32}, .bias = {bias, HG_DTYPE_F32}, .n_out = c->n_out};
    return pack(v, l, &desc, c, err);
}

static enum hg_status load_chain(struct hg_vqgan *v, struct hg_loader *l,
                                 struct hg_vqgan_chain *chain, struct hg_error *err)
{
    for (int i = 0; i < chain->n_nodes; i++) {
        struct hg_vqgan_node *n = &chain->nodes[i];
        if (n->kind == HG_VQGAN_NEAREST && v->net.plain) {
            HG_TRY(load_nearest(v, l, &n->convs[0], err));
            continue;
        }
        for (int j = 0; j < n->n_convs; j++)
            HG_TRY(load_conv(v, l, n->name, &n->convs[j], err));
    }
    return HG_STATUS_OK;
}

static enum hg_status load_codebook(struct hg_vqgan *v, struct hg_loader *l, struct hg_error *err)
{
    void *table = NULL;
    size_t bytes = 0;
    enum hg_status status = hg_loader_matrix(l, v->net.codebook, v->net.n_codes, v->net.embed_dim,
                                             HG_DTYPE_F32, &table, NULL, &bytes, err);
    v->codebook = table;
    v->weight_bytes += bytes;
    return status;
}

static enum hg_status alloc_workspace(struct hg_vqgan *v, struct hg_error *err)
{
    size_t bytes = (size_t)hg_vqgan_net_activation(&v->net) * hg_dtype_bytes(v->b->ops->act_type);
    size_t staging = (size_t)v->net.side * (size_t)v->net.side * 3 * sizeof(float);
    for (int i = 0; i < 3; i++)
        HG_TRY(v->b->ops->alloc(v->b, bytes, &v->act[i], err));
    v->workspace_bytes = 3 * bytes + staging;
    v->staging = malloc(staging);
    v->codes = calloc((size_t)v->net.grid * (size_t)v->net.grid, sizeof *v->codes);
    return v->staging && v->codes
               ? HG_STATUS_OK
               : hg_fail(err, HG_STATUS_NO_MEMORY, "vqgan: out of memory for %zu bytes", staging);
}

/* The discriminator and LPIPS of training; without an encoder, the two layers only it would use. */
static void ignore_unneeded(const struct hg_vqgan *v, struct hg_weights *w)
{
    hg_weights_ignore_prefix(w, "loss.");
    if (v->net.has_encoder)
        return;
    hg_weights_ignore_prefix(w, "quant_conv.");
    hg_weights_ignore_prefix(w, "quantize.proj.");
}

static enum hg_status load_all(struct hg_vqgan *v, struct hg_weights *w, int grid,
                               struct hg_error *err)
{
    struct hg_loader l = {.backend = v->b, .weights = w};
    HG_TRY(hg_vqgan_net_derive(w, grid, &v->net, err));
    enum hg_status status = load_codebook(v, &l, err);
    if (status == HG_STATUS_OK)
        status = load_chain(v, &l, &v->net.decoder, err);
    if (status == HG_STATUS_OK)
        status = load_chain(v, &l, &v->net.encoder, err);
    hg_loader_reset(&l);
    HG_TRY(status);
    ignore_unneeded(v, w);
    return alloc_workspace(v, err);
}

enum hg_status hg_vqgan_load(struct hg_backend *b, struct hg_weights *w, int grid, int norm_groups,
                             struct hg_vqgan **out, struct hg_error *err)
{
    *out = NULL;
    if (norm_groups < 1)
        return hg_fail(err, HG_STATUS_BAD_FILE, "vqgan: %d norm groups", norm_groups);
    struct hg_vqgan *v = calloc(1, sizeof *v);
    if (!v)
        return hg_fail(err, HG_STATUS_NO_MEMORY, "vqgan: out of memory");
    v->b = b;
    v->norm_groups = norm_groups;
    enum hg_status status = load_all(v, w, grid, err);
    if (status != HG_STATUS_OK)
        hg_vqgan_free(v);
    else
        *out = v;
    return status;
}

static void free_chain(struct hg_backend *b, struct hg_vqgan_chain *chain)
{
    for (int i = 0; i < chain->n_nodes; i++)
        for (int j = 0; j < chain->nodes[i].n_convs; j++) {
            struct hg_vqgan_conv *c = &chain->nodes[i].convs[j];
            b->ops->weight_free(b, c->w);
            b->ops->free(b, c->norm_weight);
            b->ops->free(b, c->norm_bias);
        }
}

void hg_vqgan_free(struct hg_vqgan *v)
{
    if (!v)
        return;
    free_chain(v->b, &v->net.decoder);
    free_chain(v->b, &v->net.encoder);
    for (int i = 0; i < 3; i++)
        v->b->ops->free(v->b, v->act[i]);
    v->b->ops->free(v->b, v->codebook);
    free(v->staging);
    free(v->codes);
    free(v);
}
