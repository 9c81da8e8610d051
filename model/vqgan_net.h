/* model/vqgan_net.h - inside of the VQGAN: its layers as a table derived from tensor shapes.
 *
 * A network is a list of nodes run in order; a node is one to three convolutions. The same table
 * drives the limits, the loading, the workspace and the forward pass. Only model/vqgan*.c include
 * this file. */
#ifndef HG_MODEL_VQGAN_NET_H
#define HG_MODEL_VQGAN_NET_H

#include <stdbool.h>

#include "kernels/backend.h"
#include "model/load/weights.h"

enum { HG_VQGAN_MAX_NODES = 128, HG_VQGAN_MAX_LEVELS = 8, HG_VQGAN_MAX_SIDE = 4096 };

enum hg_vqgan_kind {
    HG_VQGAN_CONV,   /* x -> conv(x) */
    HG_VQGAN_HEAD,   /* x -> conv_out(swish(norm_out(x))) */
    HG_VQGAN_RES,    /* x -> shortcut(x) + conv2(swish(norm2(conv1(swish(norm1(x)))))) */
    HG_VQGAN_ATTN,   /* x -> x + proj_out(attention(q, k, v of norm(x))), one head */
    HG_VQGAN_DOWN,   /* zero-pad right and bottom by 1, conv 3x3 stride 2 */
    HG_VQGAN_UP,     /* nearest x2, conv 3x3 */
    HG_VQGAN_NEAREST /* latent -> one score per code; the largest wins */
};

struct hg_vqgan_conv {
    const char *parts[HG_MAX_PARTS];             /* after the node's name: ".q", ".k", ".v" */
    const char *norm;                            /* ".norm1", or NULL */
    int n_parts, kernel, stride, upsample, side; /* side of the input */
    int n_in, n_out;                             /* channels; n_out of one part */
    struct hg_weight *w;                         /* filled by the loader */
    float *norm_weight, *norm_bias;              /* (dev) [n_in] or NULL */
};

struct hg_vqgan_node {
    enum hg_vqgan_kind kind;
    char name[48]; /* state_dict prefix, "decoder.up.3.block.0" */
    int n_convs;
    struct hg_vqgan_conv convs[3];
};

struct hg_vqgan_chain {
    int n_nodes;
    struct hg_vqgan_node nodes[HG_VQGAN_MAX_NODES];
};

struct hg_vqgan_net {
    int n_codes, embed_dim, grid, side, n_levels;
    bool has_encoder;
    bool plain;                             /* VQModel: the codebook alone, no quantize.proj */
    const char *codebook;                   /* its tensor name */
    struct hg_vqgan_chain decoder, encoder; /* codebook rows -> pixels; pixels -> code scores */
};

/* A picture on its way through the decoder. */
struct hg_vqgan_walk {
    bool under_way;
    int node, op; /* that come next; node -1: the codes are to be looked up first */
    int at;       /* act[at] is what the next node reads */
};

struct hg_vqgan {
    struct hg_backend *b;
    struct hg_vqgan_net net;
    int norm_groups;
    float *codebook; /* (dev) [n_codes, embed_dim] */
    void *act[3];    /* (dev) each holds the largest activation */
    float *staging;  /* (host) [side * side * 3] pixels on their way in */
    struct hg_vqgan_walk walk;
    int32_t *codes; /* (host) [grid * grid] of the walk */
    size_t weight_bytes, workspace_bytes;
};

/* Reads names and shapes only. BAD_FILE naming the tensor that is missing or does not fit. */
enum hg_status hg_vqgan_net_derive(const struct hg_weights *w, int grid, struct hg_vqgan_net *net,
                                   struct hg_error *err);
/* Elements of the largest activation, hidden q/k/v included. */
int64_t hg_vqgan_net_activation(const struct hg_vqgan_net *net);
/* Operations of a node, and multiply-adds of one of them, in the order in which they run. */
int hg_vqgan_node_ops(const struct hg_vqgan_node *n);
int64_t hg_vqgan_op_work(const struct hg_vqgan_node *n, int op);
void hg_vqgan_net_limits(const struct hg_vqgan_net *net, struct hg_backend_limits *limits);

#endif
