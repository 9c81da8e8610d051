/* kernels/cuda/cuda.h - inside of the cuda backend, for its C files and for the launchers in its
 * .cu files.
 *
 * Activations are fp32 in device memory. Every op is a function `cuda_<op>` in <op>.cu that checks
 * its arguments, launches and returns cuda_status(); nothing here waits for the device but
 * download, sync, step_wait, and step_begin when HG_STEPS_AHEAD steps are in flight. One stream:
 * its order is what makes a step's device side (plan, samples, scratch) free for the next step;
 * only what the host writes or reads while steps are in flight comes in rings (steps.c).
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

#include "common/region.h"
#include "kernels/check.h"

/* Device copies of the plan's tables, filled by step_begin; pointers as in struct hg_plan. The
 * sampling parameters keep their `history` as a device pointer. */
struct cuda_plan {
    int n_tokens, n_seqs, n_out, max_blocks;
    const int32_t *token, *pos, *seq, *slot, *table, *block_table, *out_row, *out_table;
    const struct hg_sample_params *sample;
};

enum { CUDA_SAMPLE_BLOCKS = 64 }; /* rows that are sampled at a time; more take turns */

/* Of gemm.c: what products of many rows take; all NULL without cuBLASLt. */
struct cuda_gemm_scratch {
    void *weight; /* a slab of unpacked weights */
    size_t weight_bytes;
    float *result; /* its product with rows */
    size_t result_bytes;
    float *trial; /* of 64 rows, to compare */
    int *differs;
    void *workspace;
};

/* Working memory, sized once by reserve. */
struct cuda_scratch {
    void *x; /* prepared rows of a linear or pixels of a convolution: see linear.cu */
    size_t x_bytes;
    float *z; /* A x and route logits, and the same gated: see linear.cu */
    size_t z_bytes;
    int *tickets; /* [2][n_tickets] zero between kernels; launches take turns: linear_kernel.cuh */
    int n_tickets;
    int32_t *rows; /* [max_rows] a caller's host table (slots, row numbers, codes) */
    float *stats;  /* [2 * MAX_GROUPS] GroupNorm mean and 1 / deviation */
    void *result;  /* device side of host results: samples, argmax, rgb */
    size_t result_bytes;
    void *sample; /* [CUDA_SAMPLE_BLOCKS] rows of the sampler: see sample.cu */
    size_t sample_bytes;
    float *partial; /* ATTENTION_COUNTERS ints, zero between kernels, then records of attention: see
                       attend.cuh */
    size_t partial_bytes;
    struct cuda_gemm_scratch gemm;
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

/* What the work list of a plan's attention depends on beside the plan. */
struct cuda_attention_shape {
    int n_heads, n_kv_heads, head_dim, window;
    int wide; /* tiles of 64 rows are possible, not only 16 */
};

/* The blocks of a step's attention: one list for all layers, behind the plan's tables. */
struct cuda_attention_plan {
    const struct hg_plan *plan;        /* NULL: no list */
    struct cuda_attention_shape shape; /* of the newest list; n_heads 0: never made */
    int n_wide, n_narrow;              /* the wide ones first */
    bool late;                         /* made after step_begin, copied on its own */
    const struct attend_work *device;
    int capacity; /* entries of the longest list */
};

/* ---- steps in flight: steps.c -------------------------------------------------------------------
 */

enum {
    CUDA_SMALL_ROWS = 64,   /* tokens of a step that has a pinned plan buffer of its own */
    CUDA_SMALL_WORK = 2048, /* entries of its attention list */
    CUDA_MAX_OUT = 4096     /* rows that a step samples */
};

struct cuda_step {
    int64_t number;                  /* 0: not used yet */
    bool pending;                    /* `done` was recorded and not waited for */
    void *plan;                      /* pinned [small_bytes] */
    struct hg_sample_result *result; /* pinned [max_out] */
    struct hg_sample_result *to;     /* (host) plan.result: gets n of them */
    int n;
    cudaEvent_t done;
};

struct cuda_steps {
    struct cuda_step ring[HG_STEPS_AHEAD]; /* step n is at n % HG_STEPS_AHEAD */
    int64_t n;                             /* begun */
    bool open;                             /* between step_begin and step_end */
    size_t small_bytes;
    void *large;        /* pinned [plan_bytes]: plans that are not small take turns */
    int64_t large_step; /* the last of them */
    int max_out;
    struct hg_sample_result *sampled; /* (dev) [max_out] of the newest step */
    int n_sampled, n_before;          /* rows sampled by this step and by the one before */
};

/* ---- graphs of steps: graph.c -------------------------------------------------------------------
 */

enum { CUDA_GRAPHS = 64 };

/* All that the launches of a step depend on: see graph.c. Compared as bytes: zero it first. */
struct cuda_graph_key {
    struct cuda_plan plan; /* counts, and the tables' addresses */
    const struct attend_work *work;
    struct cuda_attention_shape attention;
    int32_t n_wide, n_narrow;
    int32_t slots, tables, features; /* bit s: a token has slot s, table set s; any feature row */
    int32_t lo[HG_MAX_PLUGINS], hi[HG_MAX_PLUGINS]; /* ids asked of a head set; hi 0: none */
    int32_t longest;                                /* hi - lo of a row */
};

struct cuda_graph {
    struct cuda_graph_key key;
    cudaGraphExec_t exec; /* NULL: came once and ran op by op */
    int n_sampled;
    uint64_t used; /* 0: free */
};

struct cuda_graphs {
    struct cuda_graph at[CUDA_GRAPHS];
    uint64_t clock;
    bool off;
    struct cuda_graph *capturing; /* NULL: no capture is on */
    const char *spoiled;          /* what could not be captured, NULL: nothing */
};

/* Device memory: one allocation that alloc hands out in pieces; base NULL: none, see backend.h. */
struct cuda_pool {
    char *base;
    struct hg_region region;
    size_t card_bytes, card_free; /* when the backend was opened */
};

/* Two pinned buffers through which weights go to the device: see stage.c. */
enum { CUDA_STAGE_BYTES = 4 << 20 };
struct cuda_stage {
    void *host[2];
    cudaEvent_t done[2]; /* behind the last copy out of each */
    bool busy[2];
    int turn; /* the buffer taken last */
    size_t bytes;
};

struct cuda_backend {
    struct hg_backend base;
    cudaStream_t stream;
    struct cuda_pool pool;
    struct cuda_stage stage;
    int device, n_sms, shared_per_sm;
    bool early;      /* launches may overlap: sm_90 and later, unless HG_CUDA_EARLY=0 */
    int ticket_half; /* that the newest launch takes tickets from */
    char description[160];
    struct hg_backend_limits limits;
    struct cuda_scratch scratch;
    const struct hg_plan *host_plan; /* between step_begin and step_end */
    struct cuda_plan plan;
    void *plan_device;         /* [plan_bytes] tables and attention list, back to back */
    void *plan_host;           /* the pinned side of the step that is open */
    size_t plan_bytes;         /* of the largest plan */
    size_t plan_room, plan_at; /* bytes of plan_host, and those in use */
    struct cuda_attention_plan attention;
    struct cuda_steps steps;
    struct cuda_graphs graphs;
    struct cuda_gemm *gemm; /* cuBLASLt, or NULL: see gemm.h */
    bool lost;              /* a sticky error: everything fails from now on */
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
 * lost. What only spoils a capture is OK: step_end has the step issued again. */
enum hg_status cuda_check(struct cuda_backend *c, cudaError_t e, const char *what);
/* Before a launch with more shared memory than any kernel may have unasked. */
enum hg_status cuda_allow_shared(struct cuda_backend *c, const void *kernel, size_t bytes);
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

/* ---- device memory: pool.c ---- */
/* Take `utilization` of the free memory; 0 or HG_CUDA_POOL=0: nothing. NO_MEMORY has the numbers.
 */
enum hg_status cuda_pool_open(struct cuda_backend *c, double utilization, struct hg_error *err);
void cuda_pool_close(struct cuda_backend *c);
enum hg_status cuda_alloc(struct hg_backend *b, size_t bytes, void **out, struct hg_error *err);
void cuda_free(struct hg_backend *b, void *p);
void cuda_memory(struct hg_backend *b, struct hg_backend_memory *out);

/* ---- uploads at load: stage.c ---- */
/* A pinned buffer of at least `bytes` that no copy reads any more; valid until the next take. */
enum hg_status cuda_stage_take(struct cuda_backend *c, size_t bytes, void **host,
                               struct hg_error *err);
/* Copy `bytes` out of the buffer taken last; does not wait. */
enum hg_status cuda_stage_send(struct cuda_backend *c, void *dst, size_t bytes,
                               struct hg_error *err);
void cuda_stage_close(struct cuda_backend *c);
/* Any host memory through the buffers: it may be reused at once. */
enum hg_status cuda_put(struct hg_backend *b, void *dst, const void *src, size_t bytes,
                        struct hg_error *err);

/* ---- transfers and the cache: memory.c ---- */
enum hg_status cuda_upload(struct hg_backend *b, void *dst, const void *src, size_t bytes);
enum hg_status cuda_download(struct hg_backend *b, void *dst, const void *src, size_t bytes);
enum hg_status cuda_sync(struct hg_backend *b);
enum hg_status cuda_kv_create(struct hg_backend *b, const struct hg_kv_desc *desc,
                              struct hg_kv **out, struct hg_error *err);
void cuda_kv_free(struct hg_backend *b, struct hg_kv *kv);
enum hg_status cuda_kv_zero(struct hg_backend *b, struct hg_kv *kv, const int32_t *blocks, int n);

/* ---- steps.c ---- */
enum hg_status cuda_steps_reserve(struct cuda_backend *c, struct hg_error *err);
void cuda_steps_release(struct cuda_backend *c);
enum hg_status cuda_step_begin(struct hg_backend *b, const struct hg_plan *plan, bool *replayed);
enum hg_status cuda_step_end(struct hg_backend *b, int64_t *step);
enum hg_status cuda_step_wait(struct hg_backend *b, int64_t step);

/* ---- plan.c ---- */
/* Bytes of the tables of n_tokens with one sequence each, n_histories of them full. */
size_t cuda_plan_bytes(const struct cuda_backend *c, int64_t n_tokens, int64_t n_histories);
/* Lay the plan into `room` bytes at `host` and fill c->plan; `list`: with the attention list of the
 * newest shape, its counts rounded up. False: it does not fit. */
bool cuda_plan_pack(struct cuda_backend *c, const struct hg_plan *plan, void *host, size_t room,
                    bool list);

/* ---- attention_plan.c ---- */
/* Fill c->attention for this call unless it already holds that. */
enum hg_status cuda_plan_attention(struct cuda_backend *c, const struct hg_attention_args *a,
                                   bool wide);
/* The list of the newest shape behind what is packed, with idle entries so that its counts seldom
 * change. False: no shape is known yet, or no room. */
bool cuda_pack_attention(struct cuda_backend *c, const struct hg_plan *plan);

/* ---- graph.c ---- */
/* The plan is packed and copied. *replayed: it was launched; else a capture may have begun. */
enum hg_status cuda_graphs_begin(struct cuda_backend *c, const struct hg_plan *plan,
                                 bool *replayed);
/* Ends a capture and launches it; not `keep`: drops it. *again: it failed, nothing has run. */
enum hg_status cuda_graphs_end(struct cuda_backend *c, bool keep, bool *again);
/* May this plan have a graph? */
bool cuda_graphs_want(const struct cuda_backend *c, const struct hg_plan *plan);
/* Addresses that graphs hold may go. Waits for the stream when there is one. */
void cuda_graphs_drop(struct cuda_backend *c);
/* True while a capture is on, which `what` then spoils. */
bool cuda_graphs_spoil(struct cuda_backend *c, const char *what);

/* ---- weights: weight.c packs on the host, linear.cu reads ---- */
enum hg_status cuda_weight_create(struct hg_backend *b, const struct hg_weight_desc *desc,
                                  struct hg_weight **out, struct hg_error *err);
void cuda_weight_free(struct hg_backend *b, struct hg_weight *w);
size_t cuda_weight_bytes(const struct hg_weight *w, int slot);

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
double cuda_read_rate(struct hg_backend *b);

/* Does the library hold code for this device? cudaErrorNoKernelImageForDevice and its like: no. In
 * copy_rows.cu, because only a .cu file can name a kernel. */
cudaError_t cuda_find_image(void);

/* The entry of the shared object; the name that backend.c looks up. n_threads is not used. */
enum hg_status hg_cuda_open(const struct hg_backend_options *o, struct hg_backend **out,
                            struct hg_error *err);

#ifdef __cplusplus
}
#endif

#endif
