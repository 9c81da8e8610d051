/* kernels/cuda/weight.h - packed weights: what weight.c makes and the kernels of linear.cu, head.cu
 * and conv.cu read.
 *
 * A matrix is cut into tiles of 16 rows and steps of 64 bytes along K (32 values of 16 bits or 64
 * of 8). A lane of a warp finds what it feeds to two mma instructions of a step in 16 consecutive
 * bytes each, so a tile is read straight through, 512 bytes per warp and load. Lane 4 g + q, half
 * h, word i, in bytes of a step's row of 64: row g + 8 * (i % 2), bytes 16 q + 8 h + 4 * (i / 2) ..
 * + 4 Both sides of a dot product may be permuted alike: with this choice an activation row keeps
 * its natural order and a lane needs the 16 bytes at 16 q of it. F32 is two fp16 planes per step, w
 * / scale = high + low, one after the other.
 *
 * Rows are laid out by `pair`: when outputs i and i + pair/2 of a group of `pair` meet in the
 * epilogue, a tile holds 8 rows of the first half and the 8 that meet them; else a tile holds 16
 * consecutive rows. Missing rows and columns are zero. */
#ifndef HG_KERNELS_CUDA_WEIGHT_H
#define HG_KERNELS_CUDA_WEIGHT_H

#include "kernels/backend.h"

enum { TILE_ROWS = 16, STEP_BYTES = 64, TILE_STEP_BYTES = TILE_ROWS * STEP_BYTES };

struct cuda_matrix {
    void *data;   /* (dev) [tiles][steps][planes][2][32] of 16 bytes */
    float *scale; /* (dev) [tiles * 16] per row for F32 (a power of two) and I8, else NULL: 1 */
    enum hg_dtype type;
    int tiles, steps;
};

/* One part's B of a slot. Its tiles are tiles [tile0, tile0 + b.tiles) of the weight; rows of other
 * parts are zero. */
struct cuda_expand {
    int rank, n_experts; /* rank 0: the part has no adapter in this slot */
    float scaling;
    int row0;   /* its A and then its route in the rows of `shrink` */
    int z_byte; /* its z in a token's row of prepared z */
    int tile0;
    struct cuda_matrix b; /* K = rank */
};

struct cuda_slot {
    int rows;                  /* of shrink, 0: no adapter at all */
    int z_bytes;               /* of a token's prepared z */
    struct cuda_matrix shrink; /* [A; R] of all parts stacked */
    struct cuda_expand part[HG_MAX_PARTS];
};

struct hg_weight {
    int n_in, n_out, n_parts, pair;
    struct cuda_matrix w;
    float *bias; /* (dev) [w.tiles * 16] in tile order, zero where a part has none */
    struct cuda_slot slot[HG_MAX_PLUGINS];
    int rank[HG_MAX_PLUGINS]; /* sum of rank + n_experts over the parts, what limits.max_rank bounds
                               */
    size_t bytes, slot_bytes[HG_MAX_PLUGINS]; /* of all, of a slot in it */
};

static inline int cuda_values_per_step(enum hg_dtype type)
{
    return type == HG_DTYPE_I8 ? STEP_BYTES : STEP_BYTES / 2;
}

static inline int cuda_steps(enum hg_dtype type, int n)
{
    return (n + cuda_values_per_step(type) - 1) / cuda_values_per_step(type);
}

/* Bytes that a prepared activation row of a weight type takes per step: fp32 is kept as two fp16
 * planes. */
static inline int cuda_row_step_bytes(enum hg_dtype type)
{
    return type == HG_DTYPE_F32 || type == HG_DTYPE_F16 ? 2 * STEP_BYTES : STEP_BYTES;
}

static inline enum hg_dtype cuda_adapter_type(enum hg_dtype type)
{
    return type == HG_DTYPE_I8 ? HG_DTYPE_BF16 : type;
}

#endif
