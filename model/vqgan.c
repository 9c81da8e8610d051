/* model/vqgan.c - runs the node table: codes -> pixels and pixels -> codes
 * (reference.md 10.3-10.6).
 *
 * Three activation buffers suffice: a residual block reads one, and its two convolutions (or the
 * second and the shortcut) write the others in turn. */
#include "model/vqgan.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

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

/* Operation `op` of a node that reads act[at]; hg_vqgan_op_work has the same order. */
static enum hg_status run_op(struct hg_vqgan *v, const struct hg_vqgan_node *n, int op, int at)
{
    void *x = v->act[at], *y = v->act[(at + 1) % 3], *z = v->act[(at + 2) % 3];
    if (n->kind == HG_VQGAN_ATTN) {
        if (op == 1)
            return attend(v, &n->convs[0], y, z);
        return op == 0 ? conv(v, n, 0, x, NULL, y) : conv(v, n, 1, z, x, y);
    }
    if (op == 0)
        return conv(v, n, 0, x, NULL, y);
    if (n->n_convs == 2)
        return conv(v, n, 1, y, x, z);
    return op == 1 ? conv(v, n, 2, x, NULL, z) : conv(v, n, 1, y, z, x);
}

/* The buffer that holds the result of a node that read act[at]. */
static int result_of(const struct hg_vqgan_node *n, int at)
{
    if (n->kind != HG_VQGAN_RES)
        return (at + 1) % 3;
    return n->n_convs == 2 ? (at + 2) % 3 : at;
}

/* Go on while *work, which is lowered by what is done, allows it, at least by one operation; true
 * in *end: the whole chain has run. */
static enum hg_status walk_on(struct hg_vqgan *v, const struct hg_vqgan_chain *chain, int64_t *work,
                              bool *end)
{
    struct hg_vqgan_walk *w = &v->walk;
    bool first = true;
    while (w->node < chain->n_nodes) {
        const struct hg_vqgan_node *n = &chain->nodes[w->node];
        int64_t cost = hg_vqgan_op_work(n, w->op);
        if (!first && cost > *work)
            break;
        HG_TRY(run_op(v, n, w->op, w->at));
        *work -= cost;
        first = false;
        if (++w->op < hg_vqgan_node_ops(n))
            continue;
        w->at = result_of(n, w->at);
        w->op = 0;
        w->node++;
    }
    *end = w->node == chain->n_nodes;
    return HG_STATUS_OK;
}

static enum hg_status refuse_second(const struct hg_vqgan *v, struct hg_error *err)
{
    return v->walk.under_way
               ? hg_fail(err, HG_STATUS_INTERNAL, "vqgan: another picture is under way")
               : HG_STATUS_OK;
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
    for (int i = 0; i < v->net.decoder.n_nodes; i++)
        for (int op = 0; op < hg_vqgan_node_ops(&v->net.decoder.nodes[i]); op++) {
            int64_t work = hg_vqgan_op_work(&v->net.decoder.nodes[i], op);
            out->decode_work += work;
            out->largest_op = work > out->largest_op ? work : out->largest_op;
        }
}

enum hg_status hg_vqgan_decode_begin(struct hg_vqgan *v, const int32_t *codes, struct hg_error *err)
{
    int n = v->net.grid * v->net.grid;
    HG_TRY(refuse_second(v, err));
    for (int i = 0; i < n; i++)
        if (codes[i] < 0 || codes[i] >= v->net.n_codes)
            return hg_fail(err, HG_STATUS_BAD_REQUEST, "image code %d: %d, %d codes exist", i,
                           codes[i], v->net.n_codes);
    memcpy(v->codes, codes, (size_t)n * sizeof *codes);
    v->walk = (struct hg_vqgan_walk){.under_way = true, .node = -1};
    return HG_STATUS_OK;
}

void hg_vqgan_decode_drop(struct hg_vqgan *v)
{
    v->walk.under_way = false;
}

static enum hg_status look_up(struct hg_vqgan *v)
{
    struct hg_lookup_args lookup = {.n_rows = v->net.grid * v->net.grid,
                                    .dim = v->net.embed_dim,
                                    .index = v->codes,
                                    .table = v->codebook,
                                    .y = v->act[0]};
    v->walk.node = 0;
    return v->b->ops->lookup(v->b, &lookup);
}

/* What the chain left behind -> a picture on the host. */
static enum hg_status take_pixels(struct hg_vqgan *v, struct hg_image *out, struct hg_error *err)
{
    bool finite = true;
    HG_TRY(hg_image_init(out, v->net.side, v->net.side, err));
    struct hg_to_rgb_args to_rgb = {.n_pixels = v->net.side * v->net.side,
                                    .x = v->act[v->walk.at],
                                    .rgb = out->rgb,
                                    .finite = &finite};
    enum hg_status status = v->b->ops->to_rgb(v->b, &to_rgb);
    if (status == HG_STATUS_OK)
        status = v->b->ops->sync(v->b);
    if (status != HG_STATUS_OK)
        hg_fail(err, status, "vqgan: decode: %s", hg_status_text(status));
    else if (!finite)
        status = hg_fail(err, HG_STATUS_NUMERIC, "vqgan: decode: a pixel is not a finite number");
    if (status != HG_STATUS_OK)
        hg_image_deinit(out);
    return status;
}

enum hg_status hg_vqgan_decode_go_on(struct hg_vqgan *v, int64_t *work, struct hg_image *out,
                                     bool *done, struct hg_error *err)
{
    enum hg_status status = HG_STATUS_OK;
    *done = false;
    *out = (struct hg_image){0};
    if (!v->walk.under_way)
        return hg_fail(err, HG_STATUS_INTERNAL, "vqgan: no picture is under way");
    if (v->walk.node < 0)
        status = look_up(v);
    if (status == HG_STATUS_OK)
        status = walk_on(v, &v->net.decoder, work, done);
    if (status != HG_STATUS_OK)
        hg_fail(err, status, "vqgan: decode: %s", hg_status_text(status));
    else if (*done)
        status = take_pixels(v, out, err);
    v->walk.under_way = status == HG_STATUS_OK && !*done;
    return status;
}

enum hg_status hg_vqgan_decode(struct hg_vqgan *v, const int32_t *codes, struct hg_image *out,
                               struct hg_error *err)
{
    int64_t work = INT64_MAX;
    bool done;
    HG_TRY(hg_vqgan_decode_begin(v, codes, err));
    return hg_vqgan_decode_go_on(v, &work, out, &done, err);
}

static enum hg_status encode(struct hg_vqgan *v, const uint8_t *rgb, int32_t *codes)
{
    size_t n = (size_t)v->net.side * (size_t)v->net.side * 3;
    struct hg_argmax_args argmax = {.n_rows = v->net.grid * v->net.grid,
                                    .dim = v->net.n_codes,
                                    .ldx = v->net.n_codes,
                                    .index = codes};
    int64_t work = INT64_MAX;
    bool end;
    v->walk = (struct hg_vqgan_walk){.under_way = false};
    for (size_t i = 0; i < n; i++)
        v->staging[i] = 2 * ((float)rgb[i] / 255) - 1;
    HG_TRY(v->b->ops->upload_act(v->b, v->act[0], v->staging, n));
    HG_TRY(walk_on(v, &v->net.encoder, &work, &end));
    argmax.x = v->act[v->walk.at];
    HG_TRY(v->b->ops->argmax(v->b, &argmax));
    return v->b->ops->sync(v->b);
}

enum hg_status hg_vqgan_encode(struct hg_vqgan *v, const struct hg_image *im, int32_t *codes,
                               struct hg_error *err)
{
    if (!v->net.has_encoder)
        return hg_fail(err, HG_STATUS_UNSUPPORTED, "vqgan: the checkpoint has no encoder");
    HG_TRY(refuse_second(v, err));
    if (!im->rgb || im->width != v->net.side || im->height != v->net.side)
        return hg_fail(err, HG_STATUS_BAD_IMAGE, "vqgan: encode: %d x %d pixels, %d x %d expected",
                       im->width, im->height, v->net.side, v->net.side);
    enum hg_status status = encode(v, im->rgb, codes);
    if (status != HG_STATUS_OK)
        hg_fail(err, status, "vqgan: encode: %s", hg_status_text(status));
    return status;
}
