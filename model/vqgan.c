/* model/vqgan.c - runs the node table: codes -> pixels and pixels -> codes
 * (reference.md 10.3-10.6).
 *
 * Three activation buffers suffice: a residual block reads one, and its two convolutions (or the
 * second and the shortcut) write the others in turn. */
#include "model/vqgan.h"

#include <math.h>
#include <stdlib.h>

#include "model/vqgan_net.h"

static const float norm_eps = 1e-6f;

static enum hg_status conv(struct hg_vqgan *v, const struct hg_vqgan_node *n, int i, const void *x,
                           const void *residual, void *y)
{
    const struct hg_vqgan_conv *c = &n->convs[i];
    struct hg_conv_args a = {.w = c->w,
                             .kernel = c->kernel,
                             .stride = c->stride,
                             .upsample = c->upsample,
                             .height = c->side,
                             .width = c->side,
                             .channels = c->n_in,
                             .norm_groups = c->norm ? v->norm_groups : 0,
                             .norm_weight = c->norm_weight,
                             .norm_bias = c->norm_bias,
                             .norm_eps = norm_eps,
                             .swish = c->norm && n->kind != HG_VQGAN_ATTN,
                             .x = x,
                             .residual = residual,
                             .y = y};
    if (c->kernel == 3) {
        a.pad_lo = n->kind == HG_VQGAN_DOWN ? 0 : 1;
        a.pad_hi = 1;
    }
    return v->b->ops->conv(v->b, &a);
}

static enum hg_status attend(struct hg_vqgan *v, const struct hg_vqgan_conv *qkv, void *x, void *y)
{
    struct hg_attention_full_args a = {.n_batch = 1,
                                       .n_rows = qkv->side * qkv->side,
                                       .n_heads = 1,
                                       .head_dim = qkv->n_out,
                                       .scale = 1 / sqrtf((float)qkv->n_out),
                                       .q = x,
                                       .k = hg_act_at(v->b, x, qkv->n_out),
                                       .v = hg_act_at(v->b, x, 2 * (int64_t)qkv->n_out),
                                       .ld = 3 * (int64_t)qkv->n_out,
                                       .y = y};
    return v->b->ops->attention_full(v->b, &a);
}

/* Reads act[*at]; leaves the number of the buffer that holds the result in *at. */
static enum hg_status run_node(struct hg_vqgan *v, const struct hg_vqgan_node *n, int *at)
{
    int first = (*at + 1) % 3, second = (*at + 2) % 3;
    void *x = v->act[*at], *y = v->act[first], *z = v->act[second];
    if (n->kind == HG_VQGAN_ATTN) {
        HG_TRY(conv(v, n, 0, x, NULL, y));
        HG_TRY(attend(v, &n->convs[0], y, z));
        *at = first;
        return conv(v, n, 1, z, x, y);
    }
    if (n->kind != HG_VQGAN_RES) {
        *at = first;
        return conv(v, n, 0, x, NULL, y);
    }
    HG_TRY(conv(v, n, 0, x, NULL, y));
    if (n->n_convs == 2) {
        *at = second;
        return conv(v, n, 1, y, x, z);
    }
    HG_TRY(conv(v, n, 2, x, NULL, z));
    return conv(v, n, 1, y, z, x);
}

static enum hg_status run_chain(struct hg_vqgan *v, const struct hg_vqgan_chain *chain, void **y)
{
    int at = 0;
    for (int i = 0; i < chain->n_nodes; i++)
        HG_TRY(run_node(v, &chain->nodes[i], &at));
    *y = v->act[at];
    return HG_STATUS_OK;
}

enum hg_status hg_vqgan_limits(const struct hg_weights *w, int grid,
                               struct hg_backend_limits *limits, struct hg_error *err)
{
    struct hg_vqgan_net *net = malloc(sizeof *net);
    if (!net)
        return hg_fail(err, HG_STATUS_NO_MEMORY, "vqgan: out of memory");
    enum hg_status status = hg_vqgan_net_derive(w, grid, net, err);
    if (status == HG_STATUS_OK)
        hg_vqgan_net_limits(net, limits);
    free(net);
    return status;
}

void hg_vqgan_info(const struct hg_vqgan *v, struct hg_vqgan_info *out)
{
    *out = (struct hg_vqgan_info){.n_codes = v->net.n_codes,
                                  .grid = v->net.grid,
                                  .side = v->net.side,
                                  .has_encoder = v->net.has_encoder,
                                  .weight_bytes = v->weight_bytes,
                                  .workspace_bytes = v->workspace_bytes};
}

static enum hg_status decode(struct hg_vqgan *v, const int32_t *codes, uint8_t *rgb, bool *finite)
{
    struct hg_lookup_args lookup = {.n_rows = v->net.grid * v->net.grid,
                                    .dim = v->net.embed_dim,
                                    .index = codes,
                                    .table = v->codebook,
                                    .y = v->act[0]};
    struct hg_to_rgb_args to_rgb = {
        .n_pixels = v->net.side * v->net.side, .rgb = rgb, .finite = finite};
    void *pixels;
    HG_TRY(v->b->ops->lookup(v->b, &lookup));
    HG_TRY(run_chain(v, &v->net.decoder, &pixels));
    to_rgb.x = pixels;
    HG_TRY(v->b->ops->to_rgb(v->b, &to_rgb));
    return v->b->ops->sync(v->b);
}

enum hg_status hg_vqgan_decode(struct hg_vqgan *v, const int32_t *codes, struct hg_image *out,
                               struct hg_error *err)
{
    bool finite = true;
    *out = (struct hg_image){0};
    for (int i = 0; i < v->net.grid * v->net.grid; i++)
        if (codes[i] < 0 || codes[i] >= v->net.n_codes)
            return hg_fail(err, HG_STATUS_BAD_REQUEST, "image code %d: %d, %d codes exist", i,
                           codes[i], v->net.n_codes);
    HG_TRY(hg_image_init(out, v->net.side, v->net.side, err));
    enum hg_status status = decode(v, codes, out->rgb, &finite);
    if (status != HG_STATUS_OK)
        hg_fail(err, status, "vqgan: decode: %s", hg_status_text(status));
    else if (!finite)
        status = hg_fail(err, HG_STATUS_NUMERIC, "vqgan: decode: a pixel is not a finite number");
    if (status != HG_STATUS_OK)
        hg_image_deinit(out);
    return status;
}

static enum hg_status encode(struct hg_vqgan *v, const uint8_t *rgb, int32_t *codes)
{
    size_t n = (size_t)v->net.side * (size_t)v->net.side * 3;
    struct hg_argmax_args argmax = {.n_rows = v->net.grid * v->net.grid,
                                    .dim = v->net.n_codes,
                                    .ldx = v->net.n_codes,
                                    .index = codes};
    void *scores;
    for (size_t i = 0; i < n; i++)
        v->staging[i] = 2 * ((float)rgb[i] / 255) - 1;
    HG_TRY(v->b->ops->upload_act(v->b, v->act[0], v->staging, n));
    HG_TRY(run_chain(v, &v->net.encoder, &scores));
    argmax.x = scores;
    HG_TRY(v->b->ops->argmax(v->b, &argmax));
    return v->b->ops->sync(v->b);
}

enum hg_status hg_vqgan_encode(struct hg_vqgan *v, const struct hg_image *im, int32_t *codes,
                               struct hg_error *err)
{
    if (!v->net.has_encoder)
        return hg_fail(err, HG_STATUS_UNSUPPORTED, "vqgan: the checkpoint has no encoder");
    if (!im->rgb || im->width != v->net.side || im->height != v->net.side)
        return hg_fail(err, HG_STATUS_BAD_IMAGE, "vqgan: encode: %d x %d pixels, %d x %d expected",
                       im->width, im->height, v->net.side, v->net.side);
    enum hg_status status = encode(v, im->rgb, codes);
    if (status != HG_STATUS_OK)
        hg_fail(err, status, "vqgan: encode: %s", hg_status_text(status));
    return status;
}
