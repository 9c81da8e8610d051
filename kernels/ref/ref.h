/* kernels/ref/ref.h - inside of the ref backend: the definition of every op.
 *
 * Plain loops, double accumulators, one thread, fp32 activations. Nothing outside kernels/ref and
 * kernels/backend.c includes this file. */
#ifndef HG_KERNELS_REF_REF_H
#define HG_KERNELS_REF_REF_H

#include "kernels/backend.h"
#include "kernels/check.h"
#include "kernels/host_steps.h"
#include "kernels/ref/sample.h"

/* A weight matrix with the rounding of its type: `values` are exact floats of F32, F16, BF16 or
 * E4M3 numbers, `q` the integers of I8 and I4; quantised rows have one scale, or one per group. */
struct ref_matrix {
    int rows, cols;
    enum hg_dtype type;
    float *values; /* [rows, cols] or NULL */
    int8_t *q;     /* [rows, cols] or NULL */
    float *scale;  /* [rows], I4: [rows, hg_i4_groups(cols)], or NULL */
};

enum hg_status ref_matrix_init(struct ref_matrix *m, int rows, int cols, enum hg_dtype type,
                               struct hg_error *err);
/* Rows [row0, row0 + n_rows) from a host tensor of that many rows. */
enum hg_status ref_matrix_set(struct ref_matrix *m, int row0, int n_rows,
                              const struct hg_host_tensor *t, struct hg_error *err);
void ref_matrix_deinit(struct ref_matrix *m);
size_t ref_matrix_bytes(const struct ref_matrix *m);

/* One activation row as each weight type wants it. */
struct ref_row {
    int cap;
    float *f32;         /* as it is: F32, F16, F8 */
    float *bf16;        /* rounded: BF16 */
    int8_t *q;          /* round(x / scale): I8 */
    float scale;        /* max|x| / 127; NaN when x holds a NaN or an infinity */
    int8_t *group_q;    /* the same per group: I4 */
    float *group_scale; /* [hg_i4_groups(cap)] */
};

enum hg_status ref_row_init(struct ref_row *r, int cap, struct hg_error *err);
void ref_row_deinit(struct ref_row *r);
void ref_row_set(struct ref_row *r, const float *x, int n);

double ref_dot(const struct ref_matrix *m, int row, const struct ref_row *x);
float ref_decode(const void *data, enum hg_dtype type, size_t i);

struct ref_adapter {
    int rank, n_experts; /* rank 0: none */
    float scaling;
    struct ref_matrix a, b, route; /* [R, K], [n_out, R], [E, K] */
};

struct ref_part {
    int row0, n_out;
    struct ref_adapter adapters[HG_MAX_PLUGINS];
};

struct hg_weight {
    int n_in, n_out, n_parts;
    struct ref_matrix w; /* [N, K] */
    float *bias;         /* [N], zero where a part has none */
    struct ref_part parts[HG_MAX_PARTS];
};

struct ref_cache {
    void *data;   /* [layer][block][head][HG_BLOCK_TOKENS][P] */
    float *scale; /* the same without P: I8, else NULL */
};

struct hg_kv {
    struct hg_kv_desc desc;
    struct ref_cache k, v;
};

/* Number of a cached key or value: its elements are row * P .. + P - 1. */
int64_t ref_kv_row(const struct hg_kv *kv, int layer, int32_t block, int head, int entry);
double ref_kv_get(const struct hg_kv *kv, const struct ref_cache *c, int64_t row, int i);
/* x[P] with the cache's rounding. */
void ref_kv_set(const struct hg_kv *kv, struct ref_cache *c, int64_t row, const float *x);

struct ref_backend {
    struct hg_backend base;
    struct hg_backend_limits limits;
    struct ref_row x, z; /* a linear's input; gated A x */
    float *normed;       /* [max_in] */
    float *row_out;      /* [max_out] */
    double *sum;         /* [max_out] W x + bias + adapters before the epilogue */
    double *gate;        /* [max_rank] */
    double *score;       /* [max_context] */
    struct hg_sample_scratch sample;
    struct hg_host_steps steps;
};

static inline struct ref_backend *ref_of(struct hg_backend *b)
{
    return (struct ref_backend *)(void *)b;
}

enum hg_status hg_ref_open(struct hg_backend **out, struct hg_error *err);

/* Log a broken contract (ops have no struct hg_error) and return HG_STATUS_INTERNAL. */
#define ref_refuse(...) hg_refuse("ref", __VA_ARGS__)

/* Pieces that several ops are made of. */
void ref_rmsnorm(const float *x, const float *weight, float eps, int n, enum hg_rounding rounding,
                 float *y);
void ref_softmax(double *v, int n); /* NaN in, NaN everywhere out */
/* sum[0..n) = W x + bias for the weight rows [lo, lo + n); leaves x prepared in r->x. */
void ref_base_row(struct ref_backend *r, const struct hg_weight *w, const float *x, int lo, int n,
                  double *sum);
void ref_rope_kv_row(struct ref_backend *r, const struct hg_rope_kv *a, int t,
                     enum hg_rounding rounding, const double *qkv, float *y);

/* ---- rounded.c: the same with the reference's FP16 rounding (hg_rounding) ---- */
float ref_half(double v); /* binary32, then binary16, each to nearest even */
/* Base and adapters of one row. */
void ref_rounded_row(struct ref_backend *r, const struct hg_weight *w, const float *x, int lo,
                     int n, int32_t slot, double *sum);
/* All epilogues but ROPE_KV. */
void ref_rounded_finish(const struct hg_linear_args *a, int row, const double *sum);
void ref_rounded_rotate(const double *x, const float *inv_freq, int32_t pos, int head_dim,
                        float *y);

enum hg_status ref_alloc(struct hg_backend *b, size_t bytes, void **out, struct hg_error *err);
void ref_free(struct hg_backend *b, void *p);
enum hg_status ref_upload(struct hg_backend *b, void *dst, const void *src, size_t bytes);
enum hg_status ref_download(struct hg_backend *b, void *dst, const void *src, size_t bytes);
enum hg_status ref_upload_act(struct hg_backend *b, void *dst, const float *src, size_t n);
enum hg_status ref_download_act(struct hg_backend *b, float *dst, const void *src, size_t n);
enum hg_status ref_sync(struct hg_backend *b);

enum hg_status ref_weight_create(struct hg_backend *b, const struct hg_weight_desc *desc,
                                 struct hg_weight **out, struct hg_error *err);
void ref_weight_free(struct hg_backend *b, struct hg_weight *w);
size_t ref_weight_bytes(const struct hg_weight *w, int slot);
enum hg_status ref_kv_create(struct hg_backend *b, const struct hg_kv_desc *desc,
                             struct hg_kv **out, struct hg_error *err);
void ref_kv_free(struct hg_backend *b, struct hg_kv *kv);
enum hg_status ref_kv_zero(struct hg_backend *b, struct hg_kv *kv, const int32_t *blocks, int n);

enum hg_status ref_embed(struct hg_backend *b, const struct hg_embed_args *a);
enum hg_status ref_linear(struct hg_backend *b, const struct hg_linear_args *a);
enum hg_status ref_layernorm(struct hg_backend *b, const struct hg_layernorm_args *a);
enum hg_status ref_attention(struct hg_backend *b, const struct hg_attention_args *a);
enum hg_status ref_attention_full(struct hg_backend *b, const struct hg_attention_full_args *a);
enum hg_status ref_head(struct hg_backend *b, const struct hg_head_args *a);
enum hg_status ref_sample(struct hg_backend *b, const struct hg_sample_args *a);
enum hg_status ref_im2row(struct hg_backend *b, const struct hg_im2row_args *a);
enum hg_status ref_vision_embed(struct hg_backend *b, const struct hg_vision_embed_args *a);
enum hg_status ref_copy_rows(struct hg_backend *b, const struct hg_copy_rows_args *a);
enum hg_status ref_conv(struct hg_backend *b, const struct hg_conv_args *a);
enum hg_status ref_lookup(struct hg_backend *b, const struct hg_lookup_args *a);
enum hg_status ref_argmax(struct hg_backend *b, const struct hg_argmax_args *a);
enum hg_status ref_to_rgb(struct hg_backend *b, const struct hg_to_rgb_args *a);

#endif
