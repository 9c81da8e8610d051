/* model/vision.c - CLIP vision tower (reference.md 8.4).
 *
 * e = [class; patches] + positions; x = LN(e); per layer x += out(attention(qkv(LN1 x))),
 * x += fc2(quick_gelu(fc1(LN2 x))). */
#include "model/vision.h"

#include <math.h>

#include "model/vision_net.h"

int hg_vision_layer_index(const struct hg_vision_config *c, int layer)
{
    int n = layer < 0 ? c->n_layers + 1 + layer : layer;
    return n >= 0 && n <= c->n_layers ? n : -1;
}

static void raise_to(int *limit, int value)
{
    if (*limit < value)
        *limit = value;
}

void hg_vision_limits(const struct hg_vision_config *c, struct hg_backend_limits *limits)
{
    raise_to(&limits->max_rows, 1 + hg_vision_patch_count(c));
    raise_to(&limits->max_context, 1 + hg_vision_patch_count(c));
    raise_to(&limits->max_in, c->dim > c->ffn_dim ? c->dim : c->ffn_dim);
    raise_to(&limits->max_in, hg_vision_patch_inputs(c));
    raise_to(&limits->max_out, 3 * c->dim > c->ffn_dim ? 3 * c->dim : c->ffn_dim);
}

size_t hg_vision_bytes(const struct hg_vision *v)
{
    return v->weight_bytes;
}

size_t hg_vision_workspace(const struct hg_vision *v)
{
    return v->workspace_bytes;
}

void hg_vision_set_rounding(struct hg_vision *v, enum hg_rounding rounding)
{
    v->rounding = rounding;
}

static enum hg_status linear(struct hg_vision *v, const struct hg_weight *w, int n_rows,
                             const void *x, int n_in, enum hg_epilogue epilogue, void *y, int n_out)
{
    struct hg_linear_args a = {.w = w,
                               .n_rows = n_rows,
                               .n_prompt = n_rows,
                               .x = x,
                               .ldx = n_in,
                               .epilogue = epilogue,
                               .rounding = v->rounding,
                               .residual = epilogue == HG_EPILOGUE_RESIDUAL ? y : NULL,
                               .ld_residual = n_out,
                               .y = y,
                               .ldy = n_out};
    return v->b->ops->linear(v->b, &a);
}

static enum hg_status normalise(struct hg_vision *v, const void *x, const float *weight,
                                const float *bias, void *y)
{
    struct hg_layernorm_args a = {.n_rows = 1 + v->n_patches,
                                  .dim = v->c.dim,
                                  .x = x,
                                  .weight = weight,
                                  .bias = bias,
                                  .eps = v->c.norm_eps,
                                  .rounding = v->rounding,
                                  .y = y};
    return v->b->ops->layernorm(v->b, &a);
}

/* pixels -> x = hidden state 0 */
static enum hg_status embed(struct hg_vision *v, const float *pixels)
{
    const struct hg_vision_config *c = &v->c;
    struct hg_backend *b = v->b;
    size_t bytes =
        sizeof *pixels * (size_t)c->n_channels * (size_t)c->image_side * (size_t)c->image_side;
    struct hg_im2row_args rows = {.n_images = 1,
                                  .n_channels = c->n_channels,
                                  .side = c->image_side,
                                  .patch = c->patch,
                                  .rounding = v->rounding,
                                  .pixels = v->pixels,
                                  .y = v->wide};
    struct hg_vision_embed_args e = {.n_images = 1,
                                     .n_patches = v->n_patches,
                                     .dim = c->dim,
                                     .rounding = v->rounding,
                                     .patches = v->normed,
                                     .cls = v->class_embedding,
                                     .pos = v->positions,
                                     .y = v->x};
    HG_TRY(b->ops->upload(b, v->pixels, pixels, bytes));
    HG_TRY(b->ops->im2row(b, &rows));
    HG_TRY(linear(v, v->patch, v->n_patches, v->wide, hg_vision_patch_inputs(c), HG_EPILOGUE_NONE,
                  v->normed, c->dim));
    HG_TRY(b->ops->vision_embed(b, &e));
    return normalise(v, v->x, v->norm_weight, v->norm_bias, v->x);
}

/* x += out(attention(qkv(LN1 x))) */
static enum hg_status attend(struct hg_vision *v, const struct hg_vision_layer *layer)
{
    const struct hg_vision_config *c = &v->c;
    struct hg_backend *b = v->b;
    int rows = 1 + v->n_patches, head_dim = c->dim / c->n_heads;
    struct hg_attention_full_args a = {.n_batch = 1,
                                       .n_rows = rows,
                                       .n_heads = c->n_heads,
                                       .head_dim = head_dim,
                                       .scale = 1 / sqrtf((float)head_dim),
                                       .rounding = v->rounding,
                                       .q = v->qkv_rows,
                                       .k = hg_act_at(b, v->qkv_rows, c->dim),
                                       .v = hg_act_at(b, v->qkv_rows, 2 * (int64_t)c->dim),
                                       .ld = 3 * (int64_t)c->dim,
                                       .y = v->normed};
    HG_TRY(normalise(v, v->x, layer->norm1_weight, layer->norm1_bias, v->normed));
    HG_TRY(
        linear(v, layer->qkv, rows, v->normed, c->dim, HG_EPILOGUE_NONE, v->qkv_rows, 3 * c->dim));
    HG_TRY(b->ops->attention_full(b, &a));
    return linear(v, layer->out, rows, v->normed, c->dim, HG_EPILOGUE_RESIDUAL, v->x, c->dim);
}

/* x += fc2(quick_gelu(fc1(LN2 x))) */
static enum hg_status feed_forward(struct hg_vision *v, const struct hg_vision_layer *layer)
{
    const struct hg_vision_config *c = &v->c;
    int rows = 1 + v->n_patches;
    HG_TRY(normalise(v, v->x, layer->norm2_weight, layer->norm2_bias, v->normed));
    HG_TRY(linear(v, layer->fc1, rows, v->normed, c->dim, HG_EPILOGUE_QUICK_GELU, v->wide,
                  c->ffn_dim));
    return linear(v, layer->fc2, rows, v->wide, c->ffn_dim, HG_EPILOGUE_RESIDUAL, v->x, c->dim);
}

static enum hg_status drop_class(struct hg_vision *v, void *y)
{
    struct hg_copy_rows_args a = {.n_rows = v->n_patches,
                                  .dim = v->c.dim,
                                  .row = v->patch_row,
                                  .x = v->x,
                                  .ldx = v->c.dim,
                                  .y = y,
                                  .ldy = v->c.dim};
    return v->b->ops->copy_rows(v->b, &a);
}

/* ---- units -------------------------------------------------------------------------------------
 */

int hg_vision_n_units(const struct hg_vision *v, int layer)
{
    return 2 + 2 * hg_vision_layer_index(&v->c, layer);
}

int64_t hg_vision_unit_work(const struct hg_vision *v, int layer, int unit)
{
    const struct hg_vision_config *c = &v->c;
    int64_t d = c->dim, rows = 1 + v->n_patches;
    if (unit == 0)
        return v->n_patches * d * hg_vision_patch_inputs(c);
    if (unit >= hg_vision_n_units(v, layer) - 1)
        return 0;
    return unit % 2 ? rows * d * (4 * d + 2 * rows) : rows * d * 2 * c->ffn_dim;
}

enum hg_status hg_vision_run_unit(struct hg_vision *v, const float *pixels, int layer, int unit,
                                  void *y, struct hg_error *err)
{
    int n_layers = hg_vision_layer_index(&v->c, layer);
    enum hg_status status;
    if (n_layers < 0 || n_layers > v->max_layer)
        return hg_fail(err, HG_STATUS_INTERNAL, "vision: hidden state %d, loaded up to %d", layer,
                       v->max_layer);
    if (unit == 0)
        status = embed(v, pixels);
    else if (unit == 1 + 2 * n_layers)
        status = drop_class(v, y);
    else
        status = unit % 2 ? attend(v, &v->layers[(unit - 1) / 2])
                          : feed_forward(v, &v->layers[(unit - 1) / 2]);
    return status == HG_STATUS_OK ? status
                                  : hg_fail(err, status, "vision: %s", hg_status_text(status));
}

enum hg_status hg_vision_encode(struct hg_vision *v, const float *pixels, int layer, void *y,
                                struct hg_error *err)
{
    int unit = 0;
    do
        HG_TRY(hg_vision_run_unit(v, pixels, layer, unit, y, err));
    while (++unit < hg_vision_n_units(v, layer));
    return HG_STATUS_OK;
}
