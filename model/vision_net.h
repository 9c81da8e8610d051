/* model/vision_net.h - inside of the vision tower: its weights and workspace. Only model/vision*.c
 * include this file. */
#ifndef HG_MODEL_VISION_NET_H
#define HG_MODEL_VISION_NET_H

#include "kernels/backend.h"
#include "model/load/model_config.h"

struct hg_vision_layer {
    float *norm1_weight, *norm1_bias, *norm2_weight, *norm2_bias; /* (dev) [D] */
    struct hg_weight *qkv, *out, *fc1, *fc2;
};

struct hg_vision {
    struct hg_backend *b;
    struct hg_vision_config c;
    int max_layer, n_patches;
    enum hg_rounding rounding;
    struct hg_weight *patch;            /* [D, C * p * p] in (c, ky, kx) order */
    float *class_embedding, *positions; /* (dev) [D], [1 + n_patches, D] */
    float *norm_weight, *norm_bias;     /* (dev) pre_layrnorm */
    struct hg_vision_layer *layers;     /* [max_layer] */
    float *pixels;                      /* (dev) fp32 [C, side, side] */
    void *x, *normed, *qkv_rows, *wide; /* (dev) one row per token */
    int32_t *patch_row;                 /* [n_patches] 1, 2, ...: skips CLS */
    size_t weight_bytes, workspace_bytes;
};

/* K of the patch linear, and patches per picture. */
static inline int hg_vision_patch_inputs(const struct hg_vision_config *c)
{
    return c->n_channels * c->patch * c->patch;
}

static inline int hg_vision_patch_count(const struct hg_vision_config *c)
{
    return (c->image_side / c->patch) * (c->image_side / c->patch);
}

#endif
