/* kernels/cpu/cpu.h - inside of the cpu backend. Nothing outside kernels/cpu and its tests includes
 * this file.
 *
 * An op prepares what its rows need, then the thread pool runs it over a static partition. Scratch
 * is allocated by reserve() and never grows; rows of a linear go through it in chunks. */
#ifndef HG_KERNELS_CPU_CPU_H
#define HG_KERNELS_CPU_CPU_H

#include <stdatomic.h>

#include "common/pool.h"
#include "kernels/backend.h"
#include "kernels/check.h"
#include "kernels/cpu/panels.h"
#include "kernels/cpu/simd.h"
#include "kernels/host_steps.h"
#include "kernels/ref/sample.h"

enum {
    CPU_MAX_CHUNK = 240,     /* rows that go through a weight together: 20 tiles of 12 */
    CPU_MAX_HEAD_DIM = 1024, /* of an attention */
    CPU_KEYS = 64,           /* keys of an attention step, counted from position 0 */
    CPU_MAX_CHANNELS = 4096, /* of a convolution input */
    CPU_MOMENT_RUNS = 64,    /* partial sums of GroupNorm */
    CPU_QUERIES = 48         /* query rows that share the keys of a step */
};

struct cpu_adapter {
    int rank, n_experts; /* rank 0: none */
    float scaling;
    int z_at;               /* where this part's A x and R x lie in a z row */
    struct cpu_panels down; /* [A; R]: [rank + n_experts, n_in] */
    struct cpu_panels up;   /* B: [n_out, rank] */
};

struct cpu_part {
    int row0, n_out;
    int pair0; /* pairs of the parts before */
    struct cpu_panels w;
    float *bias; /* [n_pairs * 32], zero where absent */
    struct cpu_adapter adapters[HG_MAX_PLUGINS];
};

struct hg_weight {
    int n_in, n_out, n_parts, n_pairs;
    enum cpu_form form, adapter_form;
    bool has_adapters[HG_MAX_PLUGINS];
    int z_len[HG_MAX_PLUGINS]; /* floats of a z row */
    struct cpu_part parts[HG_MAX_PARTS];
};

/* Keys: [layer][block][kv head][P][16 tokens]. Values: [layer][block][kv head][Pp / 16][16
 * tokens][16], Pp = P rounded up to 16. Both are panels of 16 columns for the tiles of simd.h. */
struct hg_kv {
    struct hg_kv_desc desc;
    int dim_pad; /* Pp */
    void *k, *v;
    float *k_scale, *v_scale; /* I8: [layer][block][kv head][16 tokens], else NULL */
};

/* Working memory of one thread. */
struct cpu_thread {
    float *acc, *up;      /* [chunk, 32] */
    float *cos, *sin;     /* [CPU_MAX_HEAD_DIM / 2] */
    float *q, *out;       /* [CPU_QUERIES, CPU_MAX_HEAD_DIM] */
    float *score;         /* [CPU_QUERIES, CPU_KEYS] */
    float *keys, *values; /* [CPU_KEYS, CPU_MAX_HEAD_DIM] packed, attention_full */
    struct hg_sample_scratch sample;
    atomic_int_fast64_t taken; /* units of this thread's share that someone has begun */
};

struct cpu_backend {
    struct hg_backend base;
    struct cpu_simd simd;
    struct hg_pool *pool;
    int n_threads;
    char description[64];
    struct hg_backend_limits limits;
    int chunk;                  /* rows of the scratch below */
    int64_t ld_x, ld_z, ld_sum; /* elements */
    size_t scratch_bytes;       /* of all that reserve took */
    int64_t x_cap;              /* floats of x32 */
    float *x32;                 /* [chunk, ld_x] activations as they meet the weight */
    uint16_t *x16;              /* [chunk, ld_x] */
    int8_t *x8;                 /* [chunk, ld_x] */
    float *x_scale;             /* of x8: [chunk], I4: [chunk, groups] */
    int32_t *x_sum;             /* sums of x8, likewise */
    float *xa_scale;            /* [chunk] of int8 activations for adapters beside other types */
    int32_t *xa_sum;
    float *z, *z_act; /* [chunk, ld_z] A x and R x; gated, in the adapter's form */
    float *z_scale;   /* [HG_MAX_PARTS, chunk] of z_act in int8 */
    int32_t *z_sum;
    float *sum;   /* [chunk, ld_sum] outputs of an epilogue that needs whole rows */
    int32_t *row; /* [chunk] */
    float *band;  /* [band_cap] normalised lines of a convolution input */
    int64_t band_cap;
    double *moments;            /* [CPU_MOMENT_RUNS, CPU_MAX_CHANNELS, 2] of GroupNorm */
    float *norm_affine;         /* [2, CPU_MAX_CHANNELS] factor and offset of GroupNorm */
    struct cpu_thread *threads; /* [n_threads] */
    struct hg_host_steps steps;
};

static inline struct cpu_backend *cpu_of(struct hg_backend *b)
{
    return (struct cpu_backend *)(void *)b;
}

/* Activations meet the form as floats. */
static inline bool cpu_meets_float(enum cpu_form form)
{
    return form == CPU_FORM_F32 || form == CPU_FORM_F16 || form == CPU_FORM_F8;
}

static inline int64_t cpu_round_up(int64_t n, int64_t to)
{
    return (n + to - 1) / to * to;
}

/* fn(ctx, member, n_members) on the whole pool, or once as the only member when `work` (rough count
 * of elementary operations) is too small to be worth a wake-up. Results never depend on which. */
void cpu_run(struct cpu_backend *c, int64_t work, hg_pool_fn *fn, void *ctx);

/* Part `member` of n items in n_members contiguous shares: [*first, return value). */
static inline int64_t cpu_share(int64_t n, int member, int n_members, int64_t *first)
{
    *first = n * member / n_members;
    return n * (member + 1) / n_members;
}

/* Log a broken contract (ops have no struct hg_error) and return HG_STATUS_INTERNAL. */
#define cpu_refuse(...) hg_refuse("cpu", __VA_ARGS__)

/* 64-byte aligned zeroed memory, free with free(); NULL and a message in *err when there is none.
 */
enum hg_status cpu_scratch(void *out, int64_t count, size_t size, struct hg_error *err);
/* The same, zeroed by all threads of the backend. */
enum hg_status cpu_array(struct hg_backend *b, void *out, int64_t count, size_t size,
                         struct hg_error *err);

/* ---- rows x weight (gemm.c) --------------------------------------------------------------------
 */

struct cpu_gemm;

/* Takes columns [col, col + n) of chunk rows [first, first + n_rows): block[r - first][32]. May
 * change the block. */
typedef void cpu_store_fn(const struct cpu_gemm *g, int first, int n_rows, int col, int n,
                          float *block);

/* One chunk of prepared rows through columns [lo, hi) of a weight. */
struct cpu_gemm {
    struct cpu_backend *c;
    const struct hg_weight *w;
    int n_rows;
    int lo, hi;
    const int32_t *row; /* [n_rows] the caller's row of each chunk row */
    int slot_at[HG_MAX_PLUGINS +
                1];        /* rows [slot_at[s], slot_at[s + 1]) use slot s; before: none */
    const void *x, *xa;    /* activations in the weight's and in the adapters' form */
    int64_t ldx, ldxa;     /* bytes */
    const float *xa_scale; /* of int8 xa, by chunk row */
    const int32_t *xa_sum;
    cpu_store_fn *store;
    const void *args; /* of the op */
    bool keep_sum;    /* store puts whole rows into c->sum */
};

/* Room for n_in inputs: rows of a chunk that fit the scratch, 0 when not even one does. */
int cpu_chunk_rows(const struct cpu_backend *c, int n_in);
/* Puts chunk row i (n_in floats) into the forms that the weight needs. */
void cpu_prepare_row(const struct cpu_gemm *g, int i, const float *x);
/* Points x, xa at the prepared scratch. */
void cpu_use_prepared(struct cpu_gemm *g);
void cpu_gemm_run(struct cpu_gemm *g);
/* z_act of all rows that have adapters (adapters.c). */
void cpu_adapters_run(struct cpu_gemm *g);
/* block[r][32] += B z for the rows of [first, end) that have an adapter in part `part`; up: scratch
 * of the same size. */
void cpu_adapters_add(const struct cpu_gemm *g, int part, int pair, int first, int end,
                      float *block, float *up);

/* ---- attention steps (attend.c) ----------------------------------------------------------------
 */

struct cpu_attend {
    const struct cpu_simd *simd;
    const struct cpu_thread *t; /* q, score, out */
    int n_rows, dim, dim_pad;   /* at most CPU_QUERIES rows of t->q [n_rows, dim] */
    float scale;
    enum cpu_form form; /* of the keys and values */
    const float *k_scale[CPU_KEYS / CPU_LANES], *v_scale[CPU_KEYS / CPU_LANES]; /* I8_FLAT: of the
                                                             step's panels [16], NULL: absent */
    int lo[CPU_QUERIES], hi[CPU_QUERIES]; /* keys of the current step that each row sees */
    float max[CPU_QUERIES], sum[CPU_QUERIES];
};

void cpu_attend_begin(struct cpu_attend *a);
/* One step of up to CPU_KEYS keys: panels of 16 keys and the matching values; NULL: no such keys.
 * next_k: what the next step will begin with, or NULL when everything is in the caches. */
void cpu_attend_keys(struct cpu_attend *a, const void *const *k, const void *const *v,
                     const void *const *next_k);
/* t->out[r][0..dim_pad) = the attention of row r. */
void cpu_attend_end(struct cpu_attend *a);

/* Element index of a head's first key or value element in the cache. */
int64_t cpu_kv_at(const struct hg_kv *kv, int64_t dim, int layer, int32_t block, int head);
/* Sines and cosines of a token's position into t. */
void cpu_rope_angles(const struct hg_rope_kv *a, int token, const struct cpu_thread *t);
/* Rotates the query heads of kv head `head` into y and appends its k and v; qkv is one row of sums,
 * t holds the angles. */
void cpu_rope_kv_head(const struct cpu_backend *c, const struct cpu_thread *t,
                      const struct hg_rope_kv *a, int token, int head, const float *qkv, float *y);

/* ---- ops ---------------------------------------------------------------------------------------
 */

enum hg_status cpu_alloc(struct hg_backend *b, size_t bytes, void **out, struct hg_error *err);
void cpu_free(struct hg_backend *b, void *p);
enum hg_status cpu_upload(struct hg_backend *b, void *dst, const void *src, size_t bytes);
enum hg_status cpu_download(struct hg_backend *b, void *dst, const void *src, size_t bytes);
enum hg_status cpu_upload_act(struct hg_backend *b, void *dst, const float *src, size_t n);
enum hg_status cpu_download_act(struct hg_backend *b, float *dst, const void *src, size_t n);
enum hg_status cpu_sync(struct hg_backend *b);

enum hg_status cpu_weight_create(struct hg_backend *b, const struct hg_weight_desc *desc,
                                 struct hg_weight **out, struct hg_error *err);
void cpu_weight_free(struct hg_backend *b, struct hg_weight *w);
size_t cpu_weight_bytes(const struct hg_weight *w, int slot);
enum hg_status cpu_kv_create(struct hg_backend *b, const struct hg_kv_desc *desc,
                             struct hg_kv **out, struct hg_error *err);
void cpu_kv_free(struct hg_backend *b, struct hg_kv *kv);
enum hg_status cpu_kv_zero(struct hg_backend *b, struct hg_kv *kv, const int32_t *blocks, int n);

enum hg_status cpu_embed(struct hg_backend *b, const struct hg_embed_args *a);
enum hg_status cpu_linear(struct hg_backend *b, const struct hg_linear_args *a);
enum hg_status cpu_layernorm(struct hg_backend *b, const struct hg_layernorm_args *a);
enum hg_status cpu_attention(struct hg_backend *b, const struct hg_attention_args *a);
enum hg_status cpu_attention_full(struct hg_backend *b, const struct hg_attention_full_args *a);
enum hg_status cpu_head(struct hg_backend *b, const struct hg_head_args *a);
enum hg_status cpu_sample(struct hg_backend *b, const struct hg_sample_args *a);
enum hg_status cpu_im2row(struct hg_backend *b, const struct hg_im2row_args *a);
enum hg_status cpu_vision_embed(struct hg_backend *b, const struct hg_vision_embed_args *a);
enum hg_status cpu_copy_rows(struct hg_backend *b, const struct hg_copy_rows_args *a);
enum hg_status cpu_conv(struct hg_backend *b, const struct hg_conv_args *a);
enum hg_status cpu_lookup(struct hg_backend *b, const struct hg_lookup_args *a);
enum hg_status cpu_argmax(struct hg_backend *b, const struct hg_argmax_args *a);
enum hg_status cpu_to_rgb(struct hg_backend *b, const struct hg_to_rgb_args *a);

#endif
