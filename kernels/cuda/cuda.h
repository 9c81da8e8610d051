/* kernels/cuda/cuda.h - inside of the cuda backend, for its C files and for the launchers in its
 * .cu files.
 *
 * Activations are fp32 in device memory. Every op is a function `cuda_<op>` in <op>.cu that checks
 * its arguments, launches and returns cuda_status(); nothing here waits for the device but
 * download, sync and step_end. One stream.
 *
 * Batch invariance by construction: a kernel fixes the order of additions behind an output element
 * by the layer's shape alone. Rows sit on the N side of mma, whose columns never meet; the split of
 * K over warps, of a context over chunks of ATTENTION_CHUNK positions, is a constant. */
#ifndef HG_KERNELS_CUDA_CUDA_H
#define HG_KERNELS_CUDA_CUDA_H

#include <cuda_runtime.h>

#include "kernels/backend.h"

#ifdef __cplusplus
extern "C" {
#endif

#include "kernels/check.h"

/* Device copies of the plan's tables, filled by step_begin; pointers as in struct hg_plan. The
 * sampling parameters keep their `history` as a device pointer. */
struct cuda_plan {
    int n_tokens, n_seqs, n_out, max_blocks;
    const int32_t *token, *pos, *seq, *slot, *table, *block_table, *out_row, *out_table;
    const struct hg_sample_params *sample;
};

enum { CUDA_SAMPLE_BLOCKS = 64 }; /* rows that are sampled at a time; more take turns */

/* Working memory, sized once by reserve. */
struct cuda_scratch {
    void *x; /* prepared rows of a linear or pixels of a convolution: see linear.cu */
    size_t x_bytes;
    float *z; /* A x and route logits, and the same gated: see linear.cu */
    size_t z_bytes;
    int *tickets;  /* [4 + max_rows] zero between kernels */
    int32_t *rows; /* [max_rows] a caller's host table (slots, row numbers, codes) */
    float *stats;  /* [2 * MAX_GROUPS] GroupNorm mean and 1 / deviation */
    void *result;  /* device side of host results: samples, argmax, rgb */
    size_t result_bytes;
    void *sample; /* [CUDA_SAMPLE_BLOCKS] rows of the sampler: see sample.cu */
    size_t sample_bytes;
    float *partial; /* ATTENTION_COUNTERS ints, zero between kernels, then records of attention: see
                       attend.cuh */
    size_t partial_bytes;
};

enum {
    ATTENTION_CHUNK = 256,      /* positions over which a softmax runs on before it is merged */
    ATTENTION_COUNTERS = 16384, /* of blocks that have arrived */
};

/* What a block of attention has to do; slot < 0: alone. Else n_blocks share the rows and write
 * records. */
struct attend_work {
    int32_t first, row0,
        n_rows; /* rows row0 .. of the run of tokens that begins at token `first` */
    int32_t seq, chunk0, n_chunks;
    int32_t slot, counter, n_blocks;
};

/* The blocks of a step's attention: one plan for all layers. */
struct cuda_attention_plan {
    const struct hg_plan *plan; /* NULL: none */
    int n_heads, n_kv_heads, head_dim, window;
    int n_wide, n_narrow;
    struct attend_work *host, *device; /* [capacity], the wide ones first; host side is pinned */
    int capacity;
};

struct cuda_backend {
    struct hg_backend base;
    cudaStream_t stream;
    int device, n_sms;
    char description[160];
    struct hg_backend_limits limits;
    struct cuda_scratch scratch;
    const struct hg_plan *host_plan; /* between step_begin and step_end */
    struct cuda_plan plan;
    void *plan_device, *plan_host; /* one block each: tables back to back; host side is pinned */
    size_t plan_bytes;
    struct cuda_attention_plan attention;
    bool lost; /* a sticky error: everything fails from now on */
};

static inline struct cuda_backend *cuda_of(struct hg_backend *b)
{
    return (struct cuda_backend *)(void *)b;
}

/* May be read or written 16 bytes at a time. */
static inline bool cuda_aligned(const void *p)
{
    return (uintptr_t)p % 16 == 0;
}

/* Threads of a block that gives each of n pieces of work one: a multiple of 32, at most `most`. */
static inline unsigned cuda_threads(int n, int most)
{
    return (unsigned)(n >= most ? most : n <= 32 ? 32 : (n + 31) / 32 * 32);
}

/* Log a broken contract and return HG_STATUS_INTERNAL. */
#define cuda_refuse(...) hg_refuse("cuda", __VA_ARGS__)
/* OK, or log what failed and return NO_MEMORY or DEVICE; an error that sticks marks the backend as
 * lost. */
enum hg_status cuda_check(struct cuda_backend *c, cudaError_t e, const char *what);
/* After a launch: cuda_check of cudaGetLastError. */
enum hg_status cuda_status(struct cuda_backend *c, const char *kernel);

/* A table of n ints of the caller on the device: the plan's own copy when it is one of the plan's
 * tables, else uploaded to scratch.rows (n <= max_rows). NULL stays NULL. */
enum hg_status cuda_table(struct cuda_backend *c, const int32_t *host, int n,
                          const int32_t **device);

struct hg_kv {
    struct hg_kv_desc desc;
    void *k, *v; /* [layer][block][head][HG_BLOCK_TOKENS][P] */
    /* I8, else NULL: the same without P, and scratch [max_rows, 2 * G * P] for rotated k and v on
     * their way to kv_append.cu, by the limits of the last reserve before kv_create */
    float *k_scale, *v_scale, *rows;
    int max_rows;
};

/* ---- device memory and transfers: memory.c ---- */
enum hg_status cuda_alloc(struct hg_backend *b, size_t bytes, void **out, struct hg_error *err);
void cuda_free(struct hg_backend *b, void *p);
enum hg_status cuda_upload(struct hg_backend *b, void *dst, const void *src, size_t bytes);
enum hg_status cuda_download(struct hg_backend *b, void *dst, const void *src, size_t bytes);
enum hg_status cuda_sync(struct hg_backend *b);
enum hg_status cuda_kv_create(struct hg_backend *b, const struct hg_kv_desc *desc,
                              struct hg_kv **out, struct hg_error *err);
void cuda_kv_free(struct hg_backend *b, struct hg_kv *kv);
enum hg_status cuda_kv_zero(struct hg_backend *b, struct hg_kv *kv, const int32_t *blocks, int n);

/* ---- plan.c ---- */
enum hg_status cuda_step_begin(struct hg_backend *b, const struct hg_plan *plan);
enum hg_status cuda_step_end(struct hg_backend *b);

/* ---- attention_plan.c ---- */
/* Fill c->attention for this call unless it already holds that; wide: tiles of 64 rows are
 * possible, not only 16. */
enum hg_status cuda_plan_attention(struct cuda_backend *c, const struct hg_attention_args *a,
                                   bool wide);

/* ---- weights: weight.c packs on the host, linear.cu reads ---- */
enum hg_status cuda_weight_create(struct hg_backend *b, const struct hg_weight_desc *desc,
                                  struct hg_weight **out, struct hg_error *err);
void cuda_weight_free(struct hg_backend *b, struct hg_weight *w);
size_t cuda_weight_bytes(const struct hg_weight *w);

/* ---- ops, one .cu each ---- */
enum hg_status cuda_embed(struct hg_backend *b, const struct hg_embed_args *a);
enum hg_status cuda_linear(struct hg_backend *b, const struct hg_linear_args *a);
/* kv->rows of the plan's tokens, quantised, into an I8 cache: the end of HG_EPILOGUE_ROPE_KV. */
enum hg_status cuda_kv_append(struct cuda_backend *c, const struct hg_rope_kv *a);
enum hg_status cuda_layernorm(struct hg_backend *b, const struct hg_layernorm_args *a);
enum hg_status cuda_attention(struct hg_backend *b, const struct hg_attention_args *a);
enum hg_status cuda_attention_full(struct hg_backend *b, const struct hg_attention_full_args *a);
enum hg_status cuda_head(struct hg_backend *b, const struct hg_head_args *a);
enum hg_status cuda_sample(struct hg_backend *b, const struct hg_sample_args *a);
enum hg_status cuda_im2row(struct hg_backend *b, const struct hg_im2row_args *a);
enum hg_status cuda_vision_embed(struct hg_backend *b, const struct hg_vision_embed_args *a);
enum hg_status cuda_copy_rows(struct hg_backend *b, const struct hg_copy_rows_args *a);
enum hg_status cuda_conv(struct hg_backend *b, const struct hg_conv_args *a);
enum hg_status cuda_lookup(struct hg_backend *b, const struct hg_lookup_args *a);
enum hg_status cuda_argmax(struct hg_backend *b, const struct hg_argmax_args *a);
enum hg_status cuda_to_rgb(struct hg_backend *b, const struct hg_to_rgb_args *a);

/* The entry of the shared object; the name that backend.c looks up. n_threads is not used. */
enum hg_status hg_cuda_open(int n_threads, struct hg_backend **out, struct hg_error *err);

#ifdef __cplusplus
}
#endif

#endif
