/* kernels/backend.h - the op table: the only header that model/ includes from kernels/.
 *
 * A backend owns memory, packed weights, the paged KV cache and about twenty operations on them.
 * `ref` is the definition of every op (plain loops, double accumulators); `cpu` and `cuda` are
 * tested against it. Pointers marked (dev) come from ops->alloc and may only be touched by the
 * backend; pointers marked (host) are ordinary memory. Activations are (dev) matrices of
 * `ops->act_type`, row major, one row per token, patch or pixel; `ld*` is the distance between rows
 * in elements.
 *
 * Threading: one engine thread calls everything. Ops are asynchronous until download() or sync();
 * what a step samples is there after step_wait().
 *
 * THE ORDER RULE: every reduction behind an output row has an order fixed by the layer's shape and
 * by what the row is: of a prompt or image (n_prompt), or a generated token. A row's result never
 * depends on how many rows, or which, share the call, nor on the thread count.
 *
 * Numerics of a linear, by stored weight type. Quotients are true fp32 divisions, rounding is to
 * nearest even; accumulation is fp32 or better.
 * - F32, F16: activations stay fp32.
 * - BF16: activations are rounded to bf16.
 * - I8: W = q * scale, scale = max|w| / 127 per output row; activations likewise per row and call;
 * the integer sum is exact.
 * - F8: W = E4M3 * scale, scale = max|w| / 448 per output row, saturating; activations stay fp32.
 * - I4: W = q * scale, q in [-8, 7], a binary16 scale per output row and group of 128 inputs (the
 * last may be shorter): the group's value of largest magnitude / -8, so that value is met exactly
 * and the step is max|w| / 8 where -7..7 would give max|w| / 7. Activations are quantised per row
 * and group as those of I8 per row. y = the sum over groups, ascending, of s_w * s_x * (the exact
 * integer sum).
 *
 * A row of W that is not finite gives NaN under I8, F8 and I4 (kernels/quantise.h). Adapters (A, B,
 * R) are kept in a type of their own (hg_weight_desc.plugin) and follow the same rule: beside I8
 * both x and z are quantised per row. By default that is the weight's stored type, or BF16 beside
 * I8, F8 and I4.
 *
 * Dims: T tokens in the batch, S sequence length, D model dim, H query heads, G kv heads, P head
 * dim, F ffn dim, V vocab, K in features, N out features, R total rank, E experts. */
#ifndef HG_KERNELS_BACKEND_H
#define HG_KERNELS_BACKEND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/status.h"
#include "kernels/dtype.h"

enum {
    HG_MAX_PLUGINS = 4,   /* H-LoRA slots resident side by side; slot -1 means none */
    HG_MAX_PARTS = 3,     /* q, k, v of an unfused checkpoint stacked into one weight */
    HG_MAX_TOP = 20,      /* top_logprobs kept per sampled token */
    HG_MAX_OUT = 1 << 20, /* rows that a step may sample */
    HG_STEPS_AHEAD = 4,   /* steps in flight */
    HG_BLOCK_TOKENS = 16  /* tokens per KV block */
};

struct hg_backend; /* begins with: const struct hg_backend_ops *ops */
struct hg_weight;  /* packed by the backend, read-only afterwards */
struct hg_kv;      /* paged key/value cache of all layers */

/* ---- weights -------------------------------------------------------------------------------- */

/* Quantised ones are base matrices only, of the type that they are stored in; they pack to the same
 * bits as what they were quantised from (hg_quantise_row says how they lie). */
struct hg_host_tensor {
    const void *data;   /* (host) contiguous, row major; NULL = absent */
    enum hg_dtype type; /* F32, F16 or BF16; quantised: codes, hg_code_bytes() per row */
    const void *scale;  /* (host) of a quantised one: hg_scale_bytes() per row; else NULL */
};

/* y += B (gate_{j / (R/E)} * scaling * (A x)_j), gate = softmax over experts of (Rt x), per token
 * (reference.md section 6). scaling = alpha / R * E. */
struct hg_adapter {
    struct hg_host_tensor a;     /* [R, K] */
    struct hg_host_tensor b;     /* [N, R] */
    struct hg_host_tensor route; /* [E, K] */
    int rank, n_experts;         /* R is a multiple of E; rank 0 = this slot has no adapter */
    float scaling;
};

struct hg_weight_part {
    struct hg_host_tensor w;    /* [n_out, K] */
    struct hg_host_tensor bias; /* [n_out] or absent */
    int n_out;
    struct hg_adapter adapters[HG_MAX_PLUGINS];
};

/* Of hg_weight_desc.plugin: a desc of zeros leaves the choice to hg_dtype_beside. */
#define HG_PLUGIN_AUTO 0
#define HG_PLUGIN_TYPE(dtype) (1 + (int)(dtype))
static inline enum hg_dtype hg_plugin_dtype(int plugin, enum hg_dtype store)
{
    return plugin == HG_PLUGIN_AUTO ? hg_dtype_beside(store) : (enum hg_dtype)(plugin - 1);
}

/* Parts are stacked along the outputs: N = sum of n_out; each part keeps its own adapters. */
struct hg_weight_desc {
    const char *name; /* for messages */
    int n_in;
    int n_parts;
    struct hg_weight_part parts[HG_MAX_PARTS];
    enum hg_dtype store; /* how W is kept */
    int plugin; /* how A, B and R are kept: HG_PLUGIN_AUTO, or HG_PLUGIN_TYPE() of F32, F16,
                   BF16 or I8; UNSUPPORTED where a backend has no such pair of types */
    int pair;   /* outputs i and i + pair/2 of every group of `pair` meet in the epilogue, so a
                   backend may lay them side by side: P for ROPE_KV, N for SWIGLU, else 0 */
};

/* ---- the plan of one step: integers made on the host, only read by kernels --------------------
 */

struct hg_sample_params {
    int32_t lo, hi;           /* allowed ids [lo, hi) */
    float temperature;        /* 0 = greedy, lowest id wins ties */
    int32_t top_k;            /* 0 = off */
    float top_p;              /* 1 = off */
    float repetition_penalty; /* 1 = off; applies to the distinct ids of `history` only */
    const int32_t *history;   /* (host) ids generated so far */
    int32_t n_history;
    uint64_t seed, position; /* the draw is hg_uniform(seed, position, 0) */
    int32_t n_top;           /* top_logprobs wanted, 0..HG_MAX_TOP */
};

/* Token t of a plan is an id >= 0, or -1 - r: row r of the feature buffer, or the id sampled for
 * out row j of the step that was begun before this one. That one need not have ended: the id never
 * leaves the device. Feature rows end where these begin. */
#define HG_TOKEN_SAMPLED(j) (INT32_MIN + (int32_t)(j))
#define HG_TOKEN_IS_SAMPLED(token) ((token) < INT32_MIN + (int32_t)HG_MAX_OUT)
#define HG_TOKEN_OUT_ROW(token) ((token)-INT32_MIN)
enum { HG_MAX_FEATURE_ROWS = INT32_MAX - HG_MAX_OUT };

struct hg_plan {
    int n_tokens; /* T */
    int n_prompt; /* the last n_prompt tokens are of prompts, those before were generated */
    int n_seqs;
    int n_out;                  /* rows that get logits and a sample */
    int max_blocks;             /* columns of block_table */
    const int32_t *token;       /* (host) [T] id, feature row or HG_TOKEN_SAMPLED(j) */
    const int32_t *pos;         /* (host) [T] position in its sequence */
    const int32_t *seq;         /* (host) [T] index into block_table rows */
    const int32_t *slot;        /* (host) [T] H-LoRA plug-in, -1 none */
    const int32_t *table;       /* (host) [T] embedding table set */
    const int32_t *block_table; /* (host) [n_seqs, max_blocks] KV block ids; token p of a sequence
                                   is entry p % HG_BLOCK_TOKENS of block p / HG_BLOCK_TOKENS */
    const int32_t *out_row;     /* (host) [n_out] token row */
    const int32_t *out_table;   /* (host) [n_out] head set */
    const struct hg_sample_params *sample; /* (host) [n_out] */
    struct hg_sample_result *result;       /* (host) [n_out] of the sample op */
};
/* Tokens of one sequence are contiguous in the plan and ascending in position. */

struct hg_sample_result {
    int32_t token;
    float logprob; /* natural log, softmax over [lo, hi) after penalty, at temperature 1 */
    bool finite;   /* false: some logit of the row was NaN or infinite; token is then lo */
    int32_t n_top;
    int32_t top_id[HG_MAX_TOP];
    float top_logprob[HG_MAX_TOP]; /* descending, ties by lowest id */
};

/* ---- arguments, one struct per op -------------------------------------------------------------
 */

/* Where the reference's FP16 run rounds to binary16 (reference.md 4, 5, 6, 8). NEVER: as the
 * numerics rule above says, the only one that every backend has. Others need ops->rounds_fp16 and
 * weights, tables and a cache of F16: h() is rounding to nearest even, sums inside a product and
 * softmax are fp32 or better, and an op rounds where PyTorch's kernels begin and end:
 * - RMSNorm h(w h(x / rms)); LayerNorm once, at its end; biases, norm weights, positions are h().
 * - linear h(Wx + b); its adapter z_j = h(h(gate) h(h(Ax) scaling)), h(y + h(Bz)), gate = softmax
 * of h(Rx); residual h(x + y); SwiGLU h(up h(silu(gate))); quick-GELU h(u h(sigmoid(h(1.702 u))));
 *   GELU once; rotation h(h(x c) + h(x' s)) with c = h(cos), s = h(sin).
 * - attention, FP16 (eager): S = h(qk), h(S scale), P = h(softmax), h(PV). FP16_SDPA: only h(PV).
 * - attention_full, FP16: S = h(h(q scale) k), P = h(softmax), h(PV). FP16_SDPA: only h(PV).
 * - logits stay on the grid of binary16, pixels are h(). */
enum hg_rounding { HG_ROUND_NEVER, HG_ROUND_FP16, HG_ROUND_FP16_SDPA };

struct hg_embed_args { /* y[t] = table[plan.table[t]][id] or features[-1 - token] */
    const struct hg_plan *plan;
    const void *tables[HG_MAX_PLUGINS]; /* (dev) [V, D] */
    enum hg_dtype table_type;
    const void *features; /* (dev) activations [n, D], may be NULL */
    int dim;
    void *y; /* (dev) [T, D] */
};

/* Rotary embedding and KV append for the QKV output [q: H*P | k: G*P | v: G*P]. Half-split pairs
 * (i, i + P/2); angle = inv_freq[i] * pos in fp32 (reference.md 5.4). The rotated k and the v of a
 * kv head, fp32, are rounded to the cache's type; I8 takes each of them as one row x[P]:
 * scale = max|x| / 127, q = nearest even of x / scale (fp32 divisions). A row of zeros has scale 0,
 * a row that holds a NaN or an infinity has scale NaN and q = 0. */
struct hg_rope_kv {
    const struct hg_plan *plan;
    const float *inv_freq; /* (dev) [P/2] fp32 */
    struct hg_kv *kv;
    int layer;
    int n_heads, n_kv_heads, head_dim;
};

enum hg_epilogue {
    HG_EPILOGUE_NONE,       /* y = Wx (+ bias) + adapters */
    HG_EPILOGUE_RESIDUAL,   /* y = residual + that; residual may be y */
    HG_EPILOGUE_SWIGLU,     /* N = 2F: y[F] = silu(first half) * second half */
    HG_EPILOGUE_QUICK_GELU, /* v * sigmoid(1.702 v) */
    HG_EPILOGUE_GELU,       /* exact, erf */
    HG_EPILOGUE_ROPE_KV     /* y[H*P] = rotated q; rotated k and v go to the cache: hg_rope_kv */
};

struct hg_linear_args {
    const struct hg_weight *w;
    int n_rows;
    int n_prompt;  /* the last n_prompt rows are of prompts or images: a backend may multiply these
                      in another way, as long as it does so for every such row */
    const void *x; /* (dev) [n_rows, K] */
    int64_t ldx;
    const float *norm; /* (dev) [K] RMSNorm weight applied to x first, or NULL */
    float norm_eps;
    const int32_t *slot; /* (host) [n_rows] plug-in per row, or NULL: none */
    enum hg_epilogue epilogue;
    enum hg_rounding rounding;
    const void *residual; /* (dev) [n_rows, N], HG_EPILOGUE_RESIDUAL */
    int64_t ld_residual;
    const struct hg_rope_kv *rope; /* HG_EPILOGUE_ROPE_KV */
    void *y;                       /* (dev) */
    int64_t ldy;
};

struct hg_layernorm_args { /* y = (x - mean) / sqrt(var + eps) * weight + bias, biased variance */
    int n_rows, dim;
    const void *x;              /* (dev) [n_rows, dim] */
    const float *weight, *bias; /* (dev) [dim] */
    float eps;
    enum hg_rounding rounding;
    void *y; /* (dev), may be x */
};

/* Causal, ragged, paged: token t of sequence s at position p sees keys max(0, p - window + 1)..p of
 * its own sequence (window 0 = all). Its own key is already in the cache. Query head h reads kv
 * head h / (H / G). softmax in fp32, masked keys are skipped, never multiplied by zero. An I8 cache
 * stands for q * scale, not rounded again; a visible key or value of scale NaN makes the row NaN.
 */
struct hg_attention_args {
    const struct hg_plan *plan;
    const struct hg_kv *kv;
    int layer;
    int n_heads, n_kv_heads, head_dim;
    int window;
    float scale;
    enum hg_rounding rounding;
    const void *q; /* (dev) [T, H*P] */
    void *y;       /* (dev) [T, H*P] */
};

/* Dense, non-causal attention inside each of n_batch groups of S rows (CLIP; VQGAN with H = 1). */
struct hg_attention_full_args {
    int n_batch, n_rows; /* S */
    int n_heads, head_dim;
    float scale;
    enum hg_rounding rounding;
    const void *q, *k, *v; /* (dev) [n_batch * S, ld] */
    int64_t ld;
    void *y; /* (dev) [n_batch * S, H*P] */
};

/* Logits of the plan's out rows: RMSNorm and head of set out_table[i], only ids [lo_i, hi_i).
 * logits[i][v - lo_i]; ld >= max(hi - lo). */
struct hg_head_args {
    const struct hg_plan *plan;
    const void *x;                      /* (dev) [T, D] */
    const float *norms[HG_MAX_PLUGINS]; /* (dev) [D], per head set */
    float norm_eps;
    enum hg_rounding rounding;
    const struct hg_weight *heads[HG_MAX_PLUGINS];
    float *logits; /* (dev) [n_out, ld] fp32 */
    int64_t ld;
};

struct hg_sample_args { /* order: penalty, temperature, top-k, top-p, softmax, draw */
    const struct hg_plan *plan;
    const float *logits; /* (dev) [n_out, ld] */
    int64_t ld;
}; /* results go to plan.result */

struct hg_im2row_args { /* patches of planar pixels, rows in (c, ky, kx) order, patches row major */
    int n_images, n_channels, side, patch;
    enum hg_rounding rounding;
    const float *pixels; /* (dev) fp32 [n_images, C, side, side] */
    void *y;             /* (dev) [n_images * (side/patch)^2, C * patch * patch] */
};

struct hg_vision_embed_args { /* y[i][0] = cls + pos[0]; y[i][1 + p] = patches[i][p] + pos[1 + p] */
    int n_images, n_patches, dim;
    enum hg_rounding rounding;
    const void *patches;    /* (dev) [n_images * n_patches, dim] */
    const float *cls, *pos; /* (dev) [dim], [1 + n_patches, dim] */
    void *y;                /* (dev) [n_images * (1 + n_patches), dim] */
};

struct hg_copy_rows_args { /* y[i] = x[row[i]] */
    int n_rows, dim;
    const int32_t *row; /* (host) [n_rows] */
    const void *x;      /* (dev) */
    int64_t ldx;
    void *y; /* (dev) */
    int64_t ldy;
};

/* Convolution on rows [height * width, C] (NHWC), kernel 1 or 3, one image. Optional prologue:
 * GroupNorm (biased variance) then optional swish. Input may first be upsampled (nearest, x2).
 * Zero padding pad_lo on top/left, pad_hi on bottom/right. The weight is an hg_weight whose K is
 * kernel*kernel*C in (ky, kx, c) order. Output [out_h * out_w, N] (+ residual). */
struct hg_conv_args {
    const struct hg_weight *w;
    int kernel, stride, pad_lo, pad_hi, upsample; /* upsample 1 or 2 */
    int height, width, channels;                  /* of x, before upsampling */
    int norm_groups;                              /* 0 = no GroupNorm */
    const float *norm_weight, *norm_bias;         /* (dev) [channels] */
    float norm_eps;
    bool swish;
    const void *x;        /* (dev) */
    const void *residual; /* (dev) [out_h * out_w, N] or NULL */
    void *y;              /* (dev), not x */
};

struct hg_lookup_args { /* y[i] = table[index[i]]: VQ codebook */
    int n_rows, dim;
    const int32_t *index; /* (host) */
    const float *table;   /* (dev) fp32 [n, dim] */
    void *y;              /* (dev) */
};

struct hg_argmax_args { /* index[i] = lowest argmax of x[i]; NaN counts as largest */
    int n_rows, dim;
    const void *x; /* (dev) */
    int64_t ldx;
    int32_t *index; /* (host), valid after sync() */
};

struct hg_to_rgb_args { /* clamp to [-1, 1], (v + 1) / 2 * 255, truncate (reference.md 10.3) */
    int n_pixels;
    const void *x; /* (dev) [n_pixels, 3] */
    uint8_t *rgb;  /* (host), valid after sync() */
    bool *finite;  /* (host) false if any value was NaN or infinite */
};

/* ---- the table --------------------------------------------------------------------------------
 */

struct hg_kv_desc {
    int n_layers, n_blocks, n_kv_heads, head_dim;
    enum hg_dtype type; /* F32, F16, BF16, or I8 with an fp32 scale per token, kv head and k | v:
                           an fp16 scale would save 2 bytes of P + 4 and lose rows below 2^-24 */
};

/* Bytes of keys, values and scales, without what a backend pads. */
static inline size_t hg_kv_desc_bytes(const struct hg_kv_desc *d)
{
    size_t rows =
        (size_t)d->n_layers * (size_t)d->n_blocks * HG_BLOCK_TOKENS * 2 * (size_t)d->n_kv_heads;
    return rows * ((size_t)d->head_dim * hg_dtype_bytes(d->type) +
                   (d->type == HG_DTYPE_I8 ? sizeof(float) : 0));
}

/* Upper bounds that size every scratch buffer once, at load. */
struct hg_backend_limits {
    int max_rows;     /* rows of a linear (tokens, patches) */
    int max_in;       /* K of any linear */
    int max_out;      /* N of any linear, also vocab rows of a head */
    int max_rank;     /* sum of R + E over the parts of a weight */
    int max_context;  /* positions of one sequence */
    int64_t max_conv; /* height * width * kernel^2 * C of a convolution input, after upsampling */
};

/* Device memory in bytes; all zero on the host but scratch. limit: of the backend's pool, 0 = it
 * has none; largest: what one alloc could get; free_at_open: of the card, from which the pool took
 * its share. scratch: what reserve took, where `used` does not count it. */
struct hg_backend_memory {
    size_t card, free_at_open, limit, used, largest, scratch;
};

struct hg_backend_ops {
    const char *name;       /* "ref", "cpu", "cuda" */
    enum hg_dtype act_type; /* of activations */
    bool rounds_fp16;       /* knows every hg_rounding */

    void (*close)(struct hg_backend *b);
    const char *(*describe)(struct hg_backend *b); /* "cpu avx512-bf16 2 threads" */
    enum hg_status (*reserve)(struct hg_backend *b, const struct hg_backend_limits *limits,
                              struct hg_error *err);

    void (*memory)(struct hg_backend *b, struct hg_backend_memory *out);

    /* memory: alloc zeroes and aligns to 64 bytes; transfers are ordered with the ops */
    enum hg_status (*alloc)(struct hg_backend *b, size_t bytes, void **out, struct hg_error *err);
    void (*free)(struct hg_backend *b, void *p);
    enum hg_status (*upload)(struct hg_backend *b, void *dst, const void *src, size_t bytes);
    enum hg_status (*download)(struct hg_backend *b, void *dst, const void *src, size_t bytes);
    enum hg_status (*upload_act)(struct hg_backend *b, void *dst, const float *src, size_t n);
    enum hg_status (*download_act)(struct hg_backend *b, float *dst, const void *src, size_t n);
    enum hg_status (*sync)(struct hg_backend *b);

    enum hg_status (*weight_create)(struct hg_backend *b, const struct hg_weight_desc *desc,
                                    struct hg_weight **out, struct hg_error *err);
    void (*weight_free)(struct hg_backend *b, struct hg_weight *w);
    /* slot -1: all of the weight; 0..: the adapters of that slot in it */
    size_t (*weight_bytes)(const struct hg_weight *w, int slot);

    enum hg_status (*kv_create)(struct hg_backend *b, const struct hg_kv_desc *desc,
                                struct hg_kv **out, struct hg_error *err);
    void (*kv_free)(struct hg_backend *b, struct hg_kv *kv);
    enum hg_status (*kv_zero)(struct hg_backend *b, struct hg_kv *kv, const int32_t *blocks, int n);

    /* A step is bracketed, so that a backend may copy the plan, capture and replay.
     *
     * step_begin copies the plan. With `replayed` (may be NULL) the caller promises that it issues
     * the same ops with the same arguments in every such step whose plan has the same n_tokens,
     * n_seqs, n_out and tables present; the backend may then have launched the whole step already
     * and says so: the caller issues no op and goes to step_end. At most HG_STEPS_AHEAD steps are
     * in flight; one more waits for the oldest, as step_wait would.
     *
     * step_end hands out the step's number, from 1 on, or 0: nothing has run, begin the same step
     * once more (a capture that failed; it is not tried again). `step` NULL gives the step up
     * after an op failed, or says that nobody will wait; no step can take ids from it. After
     * step_begin succeeded it must be called before anything that is no op of the step.
     *
     * step_wait waits for that step alone; its plan.result is then written. The plan's tables may
     * change after step_end; the results' memory has to stay until step_wait, or until
     * HG_STEPS_AHEAD more steps have begun. Waiting twice is fine. INTERNAL for a number that was
     * not handed out. */
    enum hg_status (*step_begin)(struct hg_backend *b, const struct hg_plan *plan, bool *replayed);
    enum hg_status (*step_end)(struct hg_backend *b, int64_t *step);
    enum hg_status (*step_wait)(struct hg_backend *b, int64_t step);

    enum hg_status (*embed)(struct hg_backend *b, const struct hg_embed_args *a);
    enum hg_status (*linear)(struct hg_backend *b, const struct hg_linear_args *a);
    enum hg_status (*layernorm)(struct hg_backend *b, const struct hg_layernorm_args *a);
    enum hg_status (*attention)(struct hg_backend *b, const struct hg_attention_args *a);
    enum hg_status (*attention_full)(struct hg_backend *b, const struct hg_attention_full_args *a);
    enum hg_status (*head)(struct hg_backend *b, const struct hg_head_args *a);
    enum hg_status (*sample)(struct hg_backend *b, const struct hg_sample_args *a);
    enum hg_status (*im2row)(struct hg_backend *b, const struct hg_im2row_args *a);
    enum hg_status (*vision_embed)(struct hg_backend *b, const struct hg_vision_embed_args *a);
    enum hg_status (*copy_rows)(struct hg_backend *b, const struct hg_copy_rows_args *a);
    enum hg_status (*conv)(struct hg_backend *b, const struct hg_conv_args *a);
    enum hg_status (*lookup)(struct hg_backend *b, const struct hg_lookup_args *a);
    enum hg_status (*argmax)(struct hg_backend *b, const struct hg_argmax_args *a);
    enum hg_status (*to_rgb)(struct hg_backend *b, const struct hg_to_rgb_args *a);

    /* Bytes per second that plain reading of the device's memory reaches, measured now (tenths of a
     * second); 0: cannot be measured. NULL: the memory is the host's. */
    double (*read_rate)(struct hg_backend *b);
};

struct hg_backend {
    const struct hg_backend_ops *ops;
};

struct hg_backend_options {
    int n_threads; /* of cpu; 0 = all */
    /* cuda: the share (0, 1] of the card's free memory that is taken at once, as the pool that
     * every alloc is served from; 0: no pool, each alloc asks the driver (tests, programs that
     * share a card). HG_CUDA_POOL=0 in the environment means 0, so that compute-sanitizer sees each
     * piece. */
    double memory_utilization;
};

/* name: "auto" (cuda where its library and a device are found, else cpu), "cuda", "cpu", "ref", or
 * "cpu-scalar" / "cpu-avx2" / "cpu-avx512" to force a path (UNSUPPORTED when the machine lacks it).
 * The cuda backend is a shared object, libhealthgpt_cuda.so, beside the program, in ../lib or where
 * the loader looks; "simt" is the same kernels on the CPU, for tests. o NULL: all zero. */
enum hg_status hg_backend_open(const char *name, const struct hg_backend_options *o,
                               struct hg_backend **out, struct hg_error *err);
void hg_backend_close(struct hg_backend *b); /* NULL is fine */

static inline void *hg_act_at(const struct hg_backend *b, const void *base, int64_t n_elements)
{
    return (char *)(uintptr_t)base + n_elements * (int64_t)hg_dtype_bytes(b->ops->act_type);
}

#endif
