/* kernels/cuda/linear.cuh - what linear.cu, head.cu and conv.cu share beside the dot product:
 * prepared rows and the launch of weight times rows. */
#ifndef HG_KERNELS_CUDA_LINEAR_CUH
#define HG_KERNELS_CUDA_LINEAR_CUH

#include "kernels/cuda/cuda_common.cuh"
extern "C" {
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/weight.h"
}

enum {
    FINISH_HEAD = 100
}; /* beside enum hg_epilogue: logits of [lo, hi) of the rows of one head set */

/* What happens to the finished sums of a token. */
struct Finish {
    int kind, n_out, pair;
    const float *bias; /* in tile order */
    const float *residual;
    int64_t ld_residual;
    float *y;
    int64_t ldy;
    /* HG_EPILOGUE_ROPE_KV */
    const int32_t *pos, *seq, *block_table;
    const float *inv_freq;
    void *k, *v;
    float *kv_rows; /* [T, 2*G*P] instead of k and v: an I8 cache, see kv_append.cu */
    int kv_type, max_blocks, n_heads, n_kv_heads, head_dim;
    int64_t layer_block0; /* layer * n_blocks */
    /* FINISH_HEAD */
    const struct hg_sample_params *sample;
    const int32_t *set_of;
    int set;
};

/* Rows in the layout that dot products read: see prepare.cuh. */
struct Prepared {
    char *rows;
    int64_t pitch;
    float *scale;        /* per row; NULL for BF16; I4: [steps][scale_pitch] */
    int64_t scale_pitch; /* I4: padded rows */
    char *rows2;         /* the same for adapters that want it in another form, else NULL: */
    int64_t pitch2;      /* I8 with a scale per row, or BF16 */
    float *scale2;       /* NULL for BF16 */
};

/* fp32 rows to prepare: x[row_of ? row_of[i] : i], RMSNorm first when norm is given; with set_of,
 * only rows of `set`. */
struct RowSource {
    const float *x;
    int64_t ldx;
    int n, dim;
    const float *norm;
    float eps;
    const int32_t *row_of, *set_of;
    int set;
};

/* Weight times rows, with the adapters of `slots`: see linear_kernel.cuh. */
struct Product {
    struct cuda_matrix w;
    struct RowSource from; /* to prepare as x first; x NULL: x is prepared */
    struct Prepared x;
    const float
        *base; /* W x where it is at hand: [n_tokens, ld_base] from row 0 of first_tile on */
    int64_t ld_base;
    struct Finish finish;
    int n_tokens, token_tiles;
    int first_tile, n_tiles; /* tiles of w to compute */
    /* adapters */
    int slots, n_parts;     /* bit s: slot s is present and has an adapter */
    enum hg_dtype plugin;   /* of the adapters */
    const int32_t *slot_of; /* [n_tokens], -1 none */
    struct cuda_slot slot[HG_MAX_PLUGINS];
    float *z; /* [n_tokens, z_pitch] A x and route logits of the token's own slot */
    int64_t z_pitch;
    char *zp; /* [n_tokens, zp_pitch] bytes, of many rows: gated z, prepared, part after part */
    int64_t zp_pitch;
    float *zp_scale; /* [n_tokens, HG_MAX_PARTS] */
    bool z_ready;    /* zp is at hand */
    int *tickets;    /* zero between launches */
    int n_prepare;   /* rows that blocks of this launch prepare for all */
    int own_bytes;   /* or what they take when every block prepares its own, else 0 */
    int n_shrink;    /* blocks per token tile */
    int n_first;     /* blocks before the output blocks */
    int n_blocks;    /* output blocks per token tile */
};

/* Rows are padded to whole token tiles of 8, 16, 32 or 64 n. */
int cuda_padded_rows(int n);
/* Place prepared rows of a weight in scratch.x; false: they do not fit what reserve made. */
bool cuda_place_rows(struct cuda_backend *c, const struct hg_weight *w, bool adapters, int n,
                     struct Prepared *out);
enum hg_status cuda_prepare(struct cuda_backend *c, const struct RowSource *from,
                            enum hg_dtype type, const struct Prepared *to);
/* Fills in how the work is cut and launches. By the types of weight and adapters: one file
 * each, for the compiler's sake. */
enum hg_status cuda_product(struct cuda_backend *c, struct Product *p);
enum hg_status cuda_product_f32(struct cuda_backend *c, struct Product *p);
enum hg_status cuda_product_f16(struct cuda_backend *c, struct Product *p);
enum hg_status cuda_product_bf16(struct cuda_backend *c, struct Product *p);
enum hg_status cuda_product_i8(struct cuda_backend *c, struct Product *p);
enum hg_status cuda_product_f8(struct cuda_backend *c, struct Product *p);
enum hg_status cuda_product_i4(struct cuda_backend *c, struct Product *p);
/* The same with adapters of I8. */
enum hg_status cuda_product_f32_i8(struct cuda_backend *c, struct Product *p);
enum hg_status cuda_product_f16_i8(struct cuda_backend *c, struct Product *p);
enum hg_status cuda_product_bf16_i8(struct cuda_backend *c, struct Product *p);
enum hg_status cuda_product_i8_i8(struct cuda_backend *c, struct Product *p);
enum hg_status cuda_product_f8_i8(struct cuda_backend *c, struct Product *p);
enum hg_status cuda_product_i4_i8(struct cuda_backend *c, struct Product *p);

#endif
