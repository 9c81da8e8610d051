/* model/vision_load.c - packs the tensors of the vision tower and allocates its workspace.
 *
 * position_ids are 0..n by construction, post_layernorm is not applied, and the text tower of a
 * whole CLIP checkpoint is ignored (reference.md 2.2). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/host_tensor.h"
#include "model/vision.h"
#include "model/vision_net.h"

/* CLIP, two kinds of LLaVA checkpoint, and what transformers 5 calls its parameters. */
static const char *const prefixes[] = {"vision_model.", "vision_tower.vision_tower.vision_model.",
                                       "model.vision_tower.vision_tower.vision_model.", ""};

enum { NAME_CAP = 160, MAX_DIM = 1 << 16, MAX_LAYERS = 1024 };

static enum hg_status check_config(const struct hg_vision_config *c, int max_layer,
                                   struct hg_error *err)
{
    if (c->dim < 1 || c->dim > MAX_DIM || c->ffn_dim < 1 || c->ffn_dim > MAX_DIM ||
        c->n_heads < 1 || c->dim % c->n_heads != 0)
        return hg_fail(err, HG_STATUS_BAD_FILE, "vision: dim %d, ffn_dim %d, %d heads", c->dim,
                       c->ffn_dim, c->n_heads);
    if (c->patch < 1 || c->patch > 256 || c->image_side < c->patch || c->image_side > 4096 ||
        c->image_side % c->patch != 0 || c->n_channels != 3)
        return hg_fail(err, HG_STATUS_BAD_FILE, "vision: side %d, patch %d, %d channels",
                       c->image_side, c->patch, c->n_channels);
    if (c->n_layers < 1 || c->n_layers > MAX_LAYERS || max_layer < 0 || max_layer > c->n_layers)
        return hg_fail(err, HG_STATUS_BAD_FILE, "vision: hidden state %d of %d layers", max_layer,
                       c->n_layers);
    return HG_STATUS_OK;
}

struct vision_loader {
    struct hg_loader l;
    struct hg_vision *v;
    const char *prefix;
    enum hg_dtype store;
    struct hg_error *err;
};

static const char *full_name(const struct vision_loader *l, int layer, const char *module,
                             const char *suffix, char out[NAME_CAP])
{
    if (layer < 0)
        snprintf(out, NAME_CAP, "%s%s%s", l->prefix, module, suffix);
    else
        snprintf(out, NAME_CAP, "%sencoder.layers.%d.%s%s", l->prefix, layer, module, suffix);
    return out;
}

static enum hg_status load_vector(struct vision_loader *l, int layer, const char *module,
                                  const char *suffix, float **out)
{
    char name[NAME_CAP];
    l->v->weight_bytes += (size_t)l->v->c.dim * sizeof(float);
    return hg_loader_vector(&l->l, full_name(l, layer, module, suffix, name), l->v->c.dim, out,
                            l->err);
}

static enum hg_status load_norm(struct vision_loader *l, int layer, const char *module,
                                float **weight, float **bias)
{
    HG_TRY(load_vector(l, layer, module, ".weight", weight));
    return load_vector(l, layer, module, ".bias", bias);
}

static enum hg_status pack(struct vision_loader *l, const struct hg_weight_desc *desc,
                           struct hg_weight **out)
{
    const struct hg_backend_ops *ops = l->v->b->ops;
    HG_TRY(ops->weight_create(l->v->b, desc, out, l->err));
    l->v->weight_bytes += ops->weight_bytes(*out, -1);
    hg_loader_reset(&l->l);
    return HG_STATUS_OK;
}

/* Linear layers of the same shape stacked along the outputs. */
static enum hg_status load_linear(struct vision_loader *l, int layer, const char *const *modules,
                                  int n_modules, int n_in, int n_out, struct hg_weight **out)
{
    char name[NAME_CAP];
    struct hg_weight_desc desc = {.n_in = n_in, .n_parts = n_modules, .store = l->store};
    for (int i = 0; i < n_modules; i++) {
        struct hg_weight_part *part = &desc.parts[i];
        part->n_out = n_out;
        full_name(l, layer, modules[i], ".bias", name);
        HG_TRY(hg_loader_get(&l->l, name, n_out, 0, NULL, &part->bias, l->err));
        full_name(l, layer, modules[i], ".weight", name);
        HG_TRY(hg_loader_get(&l->l, name, n_out, n_in, NULL, &part->w, l->err));
    }
    desc.name = name;
    return pack(l, &desc, out);
}

static enum hg_status load_layer(struct vision_loader *l, int i)
{
    static const char *const qkv[] = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"};
    static const char *const out[] = {"self_attn.out_proj"};
    static const char *const fc1[] = {"mlp.fc1"}, *const fc2[] = {"mlp.fc2"};
    const struct hg_vision_config *c = &l->v->c;
    struct hg_vision_layer *layer = &l->v->layers[i];
    HG_TRY(load_norm(l, i, "layer_norm1", &layer->norm1_weight, &layer->norm1_bias));
    HG_TRY(load_linear(l, i, qkv, 3, c->dim, c->dim, &layer->qkv));
    HG_TRY(load_linear(l, i, out, 1, c->dim, c->dim, &layer->out));
    HG_TRY(load_norm(l, i, "layer_norm2", &layer->norm2_weight, &layer->norm2_bias));
    HG_TRY(load_linear(l, i, fc1, 1, c->dim, c->ffn_dim, &layer->fc1));
    return load_linear(l, i, fc2, 1, c->ffn_dim, c->dim, &layer->fc2);
}

/* The 14x14 convolution without bias: its [D, C, p, p] rows are the (c, ky, kx) rows of im2row. */
static enum hg_status load_patch(struct vision_loader *l)
{
    const struct hg_vision_config *c = &l->v->c;
    char name[NAME_CAP];
    int64_t dims[4] = {c->dim, c->n_channels, c->patch, c->patch};
    const struct hg_tensor *t;
    full_name(l, -1, "embeddings.patch_embedding", ".weight", name);
    HG_TRY(hg_loader_find(&l->l, name, 4, dims, &t, l->err));
    if (!t)
        return HG_STATUS_OK;
    float *copy = hg_arena_alloc(&l->l.arena, (size_t)hg_tensor_count(t) * sizeof *copy);
    if (!copy)
        return hg_fail(l->err, HG_STATUS_NO_MEMORY, "tensor %s: out of memory", name);
    hg_tensor_convert(t, HG_DTYPE_F32, copy);
    struct hg_weight_desc desc = {
        .name = name, .n_in = hg_vision_patch_inputs(c), .n_parts = 1, .store = l->store};
    desc.parts[0].n_out = c->dim;
    desc.parts[0].w = (struct hg_host_tensor){.data = copy, .type = HG_DTYPE_F32};
    return pack(l, &desc, &l->v->patch);
}

static enum hg_status load_embeddings(struct vision_loader *l)
{
    struct hg_vision *v = l->v;
    char name[NAME_CAP];
    void *positions = NULL;
    size_t bytes = 0;
    HG_TRY(load_vector(l, -1, "embeddings.class_embedding", "", &v->class_embedding));
    HG_TRY(load_patch(l));
    full_name(l, -1, "embeddings.position_embedding", ".weight", name);
    enum hg_status status = hg_loader_matrix(&l->l, name, 1 + v->n_patches, v->c.dim, HG_DTYPE_F32,
                                             &positions, NULL, &bytes, l->err);
    v->positions = positions;
    v->weight_bytes += bytes;
    return status;
}

static void ignore_unneeded(struct vision_loader *l)
{
    static const char *const towers[] = {"text_model.", "visual_projection.", "text_projection.",
                                         "logit_scale"};
    char name[NAME_CAP];
    struct hg_weights *w = l->l.weights;
    if (strstr(l->prefix, "vision_tower.")) /* inside a whole LLaVA checkpoint */
        hg_weights_ignore_outside(w, l->prefix);
    for (size_t i = 0; i < sizeof towers / sizeof *towers; i++)
        hg_weights_ignore_prefix(w, towers[i]);
    hg_weights_ignore_prefix(w, full_name(l, -1, "embeddings.position_ids", "", name));
    hg_weights_ignore_prefix(w, full_name(l, -1, "post_layernorm.", "", name));
    for (int i = l->v->max_layer; i < l->v->c.n_layers; i++)
        hg_weights_ignore_prefix(w, full_name(l, i, "", "", name));
}

static const char *find_prefix(const struct hg_weights *w)
{
    char name[NAME_CAP];
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++) {
        snprintf(name, sizeof name, "%sembeddings.class_embedding", prefixes[i]);
        if (hg_weights_find(w, name))
            return prefixes[i];
    }
    return prefixes[0]; /* the missing tensor is then reported under its usual name */
}

static enum hg_status alloc_act(struct hg_vision *v, int64_t n, void **out, struct hg_error *err)
{
    size_t bytes = (size_t)n * hg_dtype_bytes(v->b->ops->act_type);
    v->workspace_bytes += bytes;
    return v->b->ops->alloc(v->b, bytes, out, err);
}

static enum hg_status alloc_workspace(struct hg_vision *v, struct hg_error *err)
{
    const struct hg_vision_config *c = &v->c;
    int64_t rows = 1 + v->n_patches, wide = rows * c->ffn_dim;
    int64_t patches = (int64_t)v->n_patches * hg_vision_patch_inputs(c);
    size_t pixel_bytes = (size_t)patches * sizeof(float);
    void *pixels = NULL;
    HG_TRY(alloc_act(v, rows * c->dim, &v->x, err));
    HG_TRY(alloc_act(v, rows * c->dim, &v->normed, err));
    HG_TRY(alloc_act(v, rows * c->dim * 3, &v->qkv_rows, err));
    HG_TRY(alloc_act(v, wide > patches ? wide : patches, &v->wide, err));
    HG_TRY(v->b->ops->alloc(v->b, pixel_bytes, &pixels, err));
    v->pixels = pixels;
    v->workspace_bytes += pixel_bytes;
    v->patch_row = malloc((size_t)v->n_patches * sizeof *v->patch_row);
    if (!v->patch_row)
        return hg_fail(err, HG_STATUS_NO_MEMORY, "vision: out of memory");
    for (int i = 0; i < v->n_patches; i++)
        v->patch_row[i] = 1 + i;
    return HG_STATUS_OK;
}

static enum hg_status load_all(struct vision_loader *l)
{
    struct hg_vision *v = l->v;
    v->layers = calloc(v->max_layer > 0 ? (size_t)v->max_layer : 1, sizeof *v->layers);
    if (!v->layers)
        return hg_fail(l->err, HG_STATUS_NO_MEMORY, "vision: out of memory");
    HG_TRY(load_embeddings(l));
    HG_TRY(load_norm(l, -1, "pre_layrnorm", &v->norm_weight, &v->norm_bias));
    for (int i = 0; i < v->max_layer; i++)
        HG_TRY(load_layer(l, i));
    ignore_unneeded(l);
    return alloc_workspace(v, l->err);
}

enum hg_status hg_vision_load(struct hg_backend *b, const struct hg_vision_config *c,
                              struct hg_weights *w, int max_layer, enum hg_dtype store,
                              struct hg_vision **out, struct hg_error *err)
{
    *out = NULL;
    HG_TRY(check_config(c, max_layer, err));
    struct hg_vision *v = calloc(1, sizeof *v);
    if (!v)
        return hg_fail(err, HG_STATUS_NO_MEMORY, "vision: out of memory");
    *v = (struct hg_vision){
        .b = b, .c = *c, .max_layer = max_layer, .n_patches = hg_vision_patch_count(c)};
    struct vision_loader l = {{.backend = b, .weights = w}, v, find_prefix(w), store, err};
    enum hg_status status = load_all(&l);
    hg_loader_reset(&l.l);
    if (status != HG_STATUS_OK)
        hg_vision_free(v);
    else
        *out = v;
    return status;
}

static void free_layer(struct hg_backend *b, struct hg_vision_layer *layer)
{
    b->ops->free(b, layer->norm1_weight);
    b->ops->free(b, layer->norm1_bias);
    b->ops->free(b, layer->norm2_weight);
    b->ops->free(b, layer->norm2_bias);
    b->ops->weight_free(b, layer->qkv);
    b->ops->weight_free(b, layer->out);
    b->ops->weight_free(b, layer->fc1);
    b->ops->weight_free(b, layer->fc2);
}

void hg_vision_free(struct hg_vision *v)
{
    if (!v)
        return;
    struct hg_backend *b = v->b;
    void *memory[] = {v->class_embedding, v->positions, v->norm_weight,
                      v->norm_bias,       v->pixels,    v->x,
                      v->normed,          v->qkv_rows,  v->wide};
    for (size_t i = 0; i < sizeof memory / sizeof *memory; i++)
        b->ops->free(b, memory[i]);
    b->ops->weight_free(b, v->patch);
    for (int i = 0; v->layers && i < v->max_layer; i++)
        free_layer(b, &v->layers[i]);
    free(v->layers);
    free(v->patch_row);
    free(v);
}
