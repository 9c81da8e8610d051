/* kernels/cuda/weight.h - packed weights: what weight.c makes and the kernels of linear.cu, head.cu
 * and conv.cu read.
 *
 * A matrix is cut into tiles of 16 rows and steps along K: 64 bytes (32 values of 16 bits or 64 of
 * I8), or as below. A lane of a warp finds what it feeds to two mma instructions of a step in 16
 * consecutive bytes each, so a tile is read straight through, 512 bytes per warp and load. Lane 4 g
 * + q, half h, word i, in bytes of a step's row of 64: row g + 8 * (i % 2), bytes 16 q + 8 h + 4 *
 * (i / 2) ..
 * + 4 Both sides of a dot product may be permuted alike: with this choice an activation row keeps
 * its natural order and a lane needs the 16 bytes at 16 q of it. F32 is two fp16 planes per step, w
 * / scale = high + low, one after the other.
 *
 * F8: a step is 32 values, 16 bytes per lane. Word 2 h + r has row g + 8 r and the 4 values from 8
 * q + 4 h on. The first two lie as fp16 with 2^-8 of the value would (bits 15 and 13..7 of a half),
 * the other two in the bits that this leaves (14 and 6..0); unpack_f8 of tile_dot.cuh takes them
 * apart. The row's scale has the 2^8.
 *
 * I4: a step is one group of 128 values, 16 bytes per lane for each plane p of 64. Word 2 h + r has
 * row g + 8 r and the 8 values from 64 p + 16 q + 8 h on: the first four in the low nibbles of its
 * bytes, the others in the high ones, two's complement. Word g of a step's 8 scales has those of
 * rows g (lower half) and g + 8.
 *
 * Rows are laid out by `pair`: when outputs i and i + pair/2 of a group of `pair` meet in the
 * epilogue, a tile holds 8 rows of the first half and the 8 that meet them; else a tile holds 16
 * consecutive rows. Missing rows and columns are zero. */
#ifndef HG_KERNELS_CUDA_WEIGHT_H
#define HG_KERNELS_CUDA_WEIGHT_H

#include "kernels/backend.h"

enum { TILE_ROWS = 16, STEP_BYTES = 64 };

struct cuda_matrix {
    void *data;   /* (dev) [tiles][steps][loads][32] of 16 bytes */
    float *scale; /* (dev) [tiles * 16] per row for F32 (a power of two), I8 and F8, else NULL: 1 */
    uint32_t *group_scale; /* (dev) [tiles][steps][8] pairs of fp16 for I4, else NULL */
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
    float *bias;          /* (dev) [w.tiles * 16] in tile order, zero where a part has none */
    enum hg_dtype plugin; /* of all adapters */
    struct cuda_slot slot[HG_MAX_PLUGINS];
    int rank[HG_MAX_PLUGINS]; /* sum of rank + n_experts over the parts, what limits.max_rank bounds
                               */
    size_t bytes, slot_bytes[HG_MAX_PLUGINS]; /* of all, of a slot in it */
};

static inline int cuda_values_per_step(enum hg_dtype type)
{
    return type == HG_DTYPE_I4 ? HG_I4_GROUP : type == HG_DTYPE_I8 ? STEP_BYTES : STEP_BYTES / 2;
}

/* Bytes of a tile per step. */
static inline int cuda_tile_step_bytes(enum hg_dtype type)
{
    return TILE_ROWS * STEP_BYTES * (type == HG_DTYPE_F32 ? 4 : type == HG_DTYPE_F8 ? 1 : 2) / 2;
}

static inline int cuda_steps(enum hg_dtype type, int n)
{
    return (n + cuda_values_per_step(type) - 1) / cuda_values_per_step(type);
}

/* Bytes that a prepared activation row of a weight type takes per step: fp32 is kept as two fp16
 * planes, a group of I4 is two planes of int8. */
static inline int cuda_row_step_bytes(enum hg_dtype type)
{
    return type == HG_DTYPE_BF16 || type == HG_DTYPE_I8 ? STEP_BYTES : 2 * STEP_BYTES;
}

#endif
