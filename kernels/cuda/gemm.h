/* kernels/cuda/gemm.h - products of many rows by cuBLASLt: prompts, image patches.
 *
 * Decode streams weights in an order of fragments that cuBLAS cannot read, so a slab of them is
 * unpacked to rows first (one read and one write of it, against reads of hundreds of rows). The
 * result is fp32 [rows, slab], from which linear_kernel.cuh goes on with adapters and epilogue.
 *
 * THE ORDER RULE: an algorithm is chosen once per shape of slab, without split K, and taken only
 * when it gives a row the same bits in a product of 64 rows and of CUDA_GEMM_ROWS, at any place:
 * that is tried on the device (gemm.c). Without such an algorithm, or without the library, the rows
 * go through our own kernels. */
#ifndef HG_KERNELS_CUDA_GEMM_H
#define HG_KERNELS_CUDA_GEMM_H

#include "kernels/cuda/cuda.h"
#include "kernels/cuda/weight.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { CUDA_GEMM_ROWS = 1024 /* of x at a time */ };

struct cuda_gemm; /* library handle, chosen algorithms */

/* NULL, with a line in the log, when the library is missing or broken. */
struct cuda_gemm *cuda_gemm_open(void);
void cuda_gemm_close(struct cuda_gemm *g);
/* Scratch for weights of [max_out, max_in] and up to max_rows rows. */
enum hg_status cuda_gemm_reserve(struct cuda_backend *c, const struct hg_backend_limits *limits,
                                 struct hg_error *err);
/* Tiles of w that a product takes at a time; 0: not by cuBLASLt. May try algorithms, and then
 * writes scratch.x: before rows are prepared. */
int cuda_gemm_tiles(struct cuda_backend *c, const struct hg_weight *w);
/* Rows [0, n_rows) of prepared x times tiles [tile, tile + n_tiles) of w, as cuda_gemm_tiles says,
 * fewer at the end. *y (dev): fp32 [n_rows, *ld], rows of tile `tile` first, without scales; until
 * the next call. */
enum hg_status cuda_gemm_run(struct cuda_backend *c, const struct hg_weight *w, int tile,
                             int n_tiles, const void *x, int64_t pitch, int n_rows, const float **y,
                             int64_t *ld);

/* ---- kernels: unpack.cu ---- */
/* Tiles of a BF16 or F16 matrix as rows of steps * 64 bytes; copies 2: each step twice, for rows of
 * two planes. */
enum hg_status cuda_unpack(struct cuda_backend *c, const struct cuda_matrix *m, int tile,
                           int n_tiles, int copies, void *to);
/* n 16-bit values for a trial product. */
enum hg_status cuda_fill_trial(struct cuda_backend *c, uint16_t *to, int64_t n, bool bf16);
/* *differs (dev) |= a and b differ in any of n words. */
enum hg_status cuda_compare(struct cuda_backend *c, const float *a, const float *b, int64_t n,
                            int *differs);

#ifdef __cplusplus
}
#endif

#endif
