/* model/vqgan_net.c - tensor names and shapes -> the node table (reference.md 10.4-10.6).
 *
 * Keys are those of taming-transformers: level 0 is the highest resolution; the decoder runs its
 * levels downwards, the encoder upwards. Channels must chain from node to node. */
#include "model/vqgan_net.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { NAME_CAP = 96, MAX_CHANNELS = 1 << 16, MAX_CODES = 1 << 20 };

struct builder {
    const struct hg_weights *w;
    struct hg_vqgan_chain *chain;
    int width, side; /* channels and side at the end of the chain */
    struct hg_error *err;
};

/* Shape of a convolution weight [o, i, kernel, kernel] that takes the chain's width. */
static enum hg_status conv_shape(const struct builder *b, const char *node, const char *suffix,
                                 int kernel, int *n_out)
{
    char name[NAME_CAP], shape[96];
    snprintf(name, sizeof name, "%s%s.weight", node, suffix);
    const struct hg_tensor *t = hg_weights_find(b->w, name);
    if (!t)
        return hg_fail(b->err, HG_STATUS_BAD_FILE, "tensor %s: missing", name);
    if (t->n_dims != 4 || t->dims[0] < 1 || t->dims[0] > MAX_CHANNELS || t->dims[1] != b->width ||
        t->dims[2] != kernel || t->dims[3] != kernel)
        return hg_fail(b->err, HG_STATUS_BAD_FILE, "tensor %s: expected [n, %d, %d, %d], got %s",
                       name, b->width, kernel, kernel,
                       hg_tensor_shape_text(t->dims, t->n_dims, shape, sizeof shape));
    *n_out = (int)t->dims[0];
    return HG_STATUS_OK;
}

__attribute__((format(printf, 2, 3))) static bool has(const struct hg_weights *w,
                                                      const char *format, ...)
{
    char name[NAME_CAP];
    va_list ap;
    va_start(ap, format);
    vsnprintf(name, sizeof name, format, ap);
    va_end(ap);
    return hg_weights_find(w, name) != NULL;
}

/* NULL when the table is full. */
static struct hg_vqgan_node *new_node(struct builder *b, enum hg_vqgan_kind kind, const char *name)
{
    if (b->chain->n_nodes == HG_VQGAN_MAX_NODES) {
        hg_fail(b->err, HG_STATUS_BAD_FILE, "vqgan: %s: more than %d layers", name,
                HG_VQGAN_MAX_NODES);
        return NULL;
    }
    struct hg_vqgan_node *n = &b->chain->nodes[b->chain->n_nodes++];
    *n = (struct hg_vqgan_node){.kind = kind};
    snprintf(n->name, sizeof n->name, "%s", name);
    return n;
}

static struct hg_vqgan_conv *add_conv(const struct builder *b, struct hg_vqgan_node *n,
                                      const char *suffix, const char *norm, int kernel, int n_in,
                                      int n_out)
{
    struct hg_vqgan_conv *c = &n->convs[n->n_convs++];
    *c = (struct hg_vqgan_conv){.parts = {suffix},
                                .norm = norm,
                                .n_parts = 1,
                                .kernel = kernel,
                                .stride = 1,
                                .upsample = 1,
                                .side = b->side,
                                .n_in = n_in,
                                .n_out = n_out};
    return c;
}

/* A node of one convolution: CONV, HEAD, DOWN, UP. */
static enum hg_status single(struct builder *b, enum hg_vqgan_kind kind, const char *name,
                             const char *suffix, const char *norm, int kernel)
{
    int n_out = 0;
    HG_TRY(conv_shape(b, name, suffix, kernel, &n_out));
    struct hg_vqgan_node *n = new_node(b, kind, name);
    if (!n)
        return HG_STATUS_BAD_FILE;
    struct hg_vqgan_conv *c = add_conv(b, n, suffix, norm, kernel, b->width, n_out);
    b->width = n_out;
    if (kind == HG_VQGAN_DOWN) {
        c->stride = 2;
        b->side /= 2;
    } else if (kind == HG_VQGAN_UP) {
        c->upsample = 2;
        b->side *= 2;
    }
    return HG_STATUS_OK;
}

static enum hg_status res(struct builder *b, const char *name)
{
    int n_out = 0;
    HG_TRY(conv_shape(b, name, ".conv1", 3, &n_out));
    struct hg_vqgan_node *n = new_node(b, HG_VQGAN_RES, name);
    if (!n)
        return HG_STATUS_BAD_FILE;
    add_conv(b, n, ".conv1", ".norm1", 3, b->width, n_out);
    add_conv(b, n, ".conv2", ".norm2", 3, n_out, n_out);
    if (n_out != b->width)
        add_conv(b, n, ".nin_shortcut", NULL, 1, b->width, n_out);
    b->width = n_out;
    return HG_STATUS_OK;
}

static enum hg_status attn(struct builder *b, const char *name)
{
    struct hg_vqgan_node *n = new_node(b, HG_VQGAN_ATTN, name);
    if (!n)
        return HG_STATUS_BAD_FILE;
    struct hg_vqgan_conv *qkv = add_conv(b, n, ".q", ".norm", 1, b->width, b->width);
    qkv->parts[1] = ".k";
    qkv->parts[2] = ".v";
    qkv->n_parts = 3;
    add_conv(b, n, ".proj_out", NULL, 1, b->width, b->width);
    return HG_STATUS_OK;
}

static enum hg_status mid(struct builder *b, const char *half)
{
    char name[NAME_CAP];
    snprintf(name, sizeof name, "%s.mid.block_1", half);
    HG_TRY(res(b, name));
    snprintf(name, sizeof name, "%s.mid.attn_1", half);
    HG_TRY(attn(b, name));
    snprintf(name, sizeof name, "%s.mid.block_2", half);
    return res(b, name);
}

/* The residual blocks of "decoder.up", 3, with attention after each where the level has any. */
static enum hg_status level_blocks(struct builder *b, const char *half, int level)
{
    char name[NAME_CAP];
    bool attends = has(b->w, "%s.%d.attn.0.q.weight", half, level);
    for (int i = 0; has(b->w, "%s.%d.block.%d.conv1.weight", half, level, i); i++) {
        snprintf(name, sizeof name, "%s.%d.block.%d", half, level, i);
        HG_TRY(res(b, name));
        snprintf(name, sizeof name, "%s.%d.attn.%d", half, level, i);
        if (attends)
            HG_TRY(attn(b, name));
    }
    return HG_STATUS_OK;
}

static int count_levels(const struct hg_weights *w, const char *half)
{
    int n = 0;
    while (n <= HG_VQGAN_MAX_LEVELS && has(w, "%s.%d.block.0.conv1.weight", half, n))
        n++;
    return n;
}

static enum hg_status derive_decoder(const struct hg_weights *w, struct hg_vqgan_net *net,
                                     struct hg_error *err)
{
    struct builder b = {w, &net->decoder, net->embed_dim, net->grid, err};
    char name[NAME_CAP];
    HG_TRY(single(&b, HG_VQGAN_CONV, "post_quant_conv", "", NULL, 1));
    HG_TRY(single(&b, HG_VQGAN_CONV, "decoder.conv_in", "", NULL, 3));
    HG_TRY(mid(&b, "decoder"));
    for (int level = net->n_levels - 1; level >= 0; level--) {
        HG_TRY(level_blocks(&b, "decoder.up", level));
        snprintf(name, sizeof name, "decoder.up.%d.upsample", level);
        if (level > 0)
            HG_TRY(single(&b, HG_VQGAN_UP, name, ".conv", NULL, 3));
    }
    HG_TRY(single(&b, HG_VQGAN_HEAD, "decoder", ".conv_out", ".norm_out", 3));
    if (b.width != 3)
        return hg_fail(err, HG_STATUS_BAD_FILE, "tensor decoder.conv_out.weight: %d colours",
                       b.width);
    return HG_STATUS_OK;
}

static enum hg_status add_nearest(struct builder *b, const struct hg_vqgan_net *net)
{
    struct hg_vqgan_node *n = new_node(b, HG_VQGAN_NEAREST, "quantize");
    if (!n)
        return HG_STATUS_BAD_FILE;
    add_conv(b, n, ".proj", NULL, 1, net->embed_dim, net->n_codes);
    return HG_STATUS_OK;
}

static enum hg_status derive_encoder(const struct hg_weights *w, struct hg_vqgan_net *net,
                                     struct hg_error *err)
{
    struct builder b = {w, &net->encoder, 3, net->side, err};
    char name[NAME_CAP];
    int n_levels = count_levels(w, "encoder.down");
    if (n_levels != net->n_levels)
        return hg_fail(err, HG_STATUS_BAD_FILE, "vqgan: encoder.down has %d levels, decoder.up %d",
                       n_levels, net->n_levels);
    HG_TRY(single(&b, HG_VQGAN_CONV, "encoder.conv_in", "", NULL, 3));
    for (int level = 0; level < n_levels; level++) {
        HG_TRY(level_blocks(&b, "encoder.down", level));
        snprintf(name, sizeof name, "encoder.down.%d.downsample", level);
        if (level < n_levels - 1)
            HG_TRY(single(&b, HG_VQGAN_DOWN, name, ".conv", NULL, 3));
    }
    HG_TRY(mid(&b, "encoder"));
    HG_TRY(single(&b, HG_VQGAN_HEAD, "encoder", ".conv_out", ".norm_out", 3));
    HG_TRY(single(&b, HG_VQGAN_CONV, "quant_conv", "", NULL, 1));
    if (b.width != net->embed_dim)
        return hg_fail(err, HG_STATUS_BAD_FILE, "tensor quant_conv.weight: %d channels, %s has %d",
                       b.width, net->codebook, net->embed_dim);
    return add_nearest(&b, net);
}

static enum hg_status derive_codebook(const struct hg_weights *w, struct hg_vqgan_net *net,
                                      struct hg_error *err)
{
    char shape[96];
    net->codebook = "quantize.embed.weight";
    const struct hg_tensor *t = hg_weights_find(w, net->codebook);
    if (!t && (t = hg_weights_find(w, "quantize.embedding.weight"))) {
        net->codebook = "quantize.embedding.weight";
        net->plain = true;
    }
    if (!t)
        return hg_fail(err, HG_STATUS_BAD_FILE, "tensor %s: missing", net->codebook);
    if (t->n_dims != 2 || t->dims[0] < 1 || t->dims[0] > MAX_CODES || t->dims[1] < 1 ||
        t->dims[1] > MAX_CHANNELS)
        return hg_fail(err, HG_STATUS_BAD_FILE, "tensor %s: expected [codes, channels], got %s",
                       net->codebook,
                       hg_tensor_shape_text(t->dims, t->n_dims, shape, sizeof shape));
    net->n_codes = (int)t->dims[0];
    net->embed_dim = (int)t->dims[1];
    return HG_STATUS_OK;
}

enum hg_status hg_vqgan_net_derive(const struct hg_weights *w, int grid, struct hg_vqgan_net *net,
                                   struct hg_error *err)
{
    memset(net, 0, sizeof *net);
    HG_TRY(derive_codebook(w, net, err));
    net->n_levels = count_levels(w, "decoder.up");
    if (net->n_levels < 1 || net->n_levels > HG_VQGAN_MAX_LEVELS)
        return hg_fail(err, HG_STATUS_BAD_FILE, "vqgan: decoder.up has %d levels, 1 to %d expected",
                       net->n_levels, HG_VQGAN_MAX_LEVELS);
    if (grid < 1 || grid > HG_VQGAN_MAX_SIDE >> (net->n_levels - 1))
        return hg_fail(err, HG_STATUS_BAD_FILE, "vqgan: grid %d: at most %d with %d levels", grid,
                       HG_VQGAN_MAX_SIDE >> (net->n_levels - 1), net->n_levels);
    net->grid = grid;
    net->side = grid << (net->n_levels - 1);
    net->has_encoder = hg_weights_find(w, "encoder.conv_in.weight") != NULL;
    HG_TRY(derive_decoder(w, net, err));
    return net->has_encoder ? derive_encoder(w, net, err) : HG_STATUS_OK;
}

/* ---- what the table needs --------------------------------------------------------------- */

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static int64_t chain_activation(const struct hg_vqgan_chain *chain)
{
    int64_t most = 0;
    for (int i = 0; i < chain->n_nodes; i++)
        for (int j = 0; j < chain->nodes[i].n_convs; j++) {
            const struct hg_vqgan_conv *c = &chain->nodes[i].convs[j];
            int64_t out = (int64_t)c->side * c->upsample / c->stride;
            most = larger(most, (int64_t)c->side * c->side * c->n_in);
            most = larger(most, out * out * c->n_out * c->n_parts);
        }
    return most;
}

int64_t hg_vqgan_net_activation(const struct hg_vqgan_net *net)
{
    return larger(chain_activation(&net->decoder), chain_activation(&net->encoder));
}

int hg_vqgan_node_ops(const struct hg_vqgan_node *n)
{
    return n->n_convs + (n->kind == HG_VQGAN_ATTN);
}

int64_t hg_vqgan_op_work(const struct hg_vqgan_node *n, int op)
{
    /* ATTN: q, k, v; the attention; proj_out. RES with a shortcut: conv1, shortcut, conv2. */
    static const int with_shortcut[] = {0, 2, 1};
    const struct hg_vqgan_conv *first = &n->convs[0];
    int64_t pixels = (int64_t)first->side * first->side;
    if (n->kind == HG_VQGAN_ATTN && op == 1)
        return 2 * pixels * pixels * first->n_out;
    int i = n->kind == HG_VQGAN_ATTN ? op / 2 : n->n_convs == 3 ? with_shortcut[op] : op;
    const struct hg_vqgan_conv *c = &n->convs[i];
    int64_t out = (int64_t)c->side * c->upsample / c->stride;
    return out * out * c->kernel * c->kernel * c->n_in * c->n_out * c->n_parts;
}

static void chain_limits(const struct hg_vqgan_chain *chain, struct hg_backend_limits *l)
{
    for (int i = 0; i < chain->n_nodes; i++)
        for (int j = 0; j < chain->nodes[i].n_convs; j++) {
            const struct hg_vqgan_conv *c = &chain->nodes[i].convs[j];
            int64_t in = (int64_t)c->kernel * c->kernel * c->n_in;
            int64_t side = (int64_t)c->side * c->upsample;
            l->max_in = (int)larger(l->max_in, in);
            l->max_out = (int)larger(l->max_out, (int64_t)c->n_out * c->n_parts);
            l->max_conv = larger(l->max_conv, in * side * side);
            if (chain->nodes[i].kind == HG_VQGAN_ATTN)
                l->max_context = (int)larger(l->max_context, side * side);
        }
}

void hg_vqgan_net_limits(const struct hg_vqgan_net *net, struct hg_backend_limits *limits)
{
    chain_limits(&net->decoder, limits);
    chain_limits(&net->encoder, limits);
}
