/* tests/simt/cases.h - small kernels, right ones and wrong ones, for test_simt.c; they are in
 * cases.cu.
 *
 * Buffers are ordinary memory. A kernel with a planted bug is named after the bug. */
#ifndef HG_TESTS_SIMT_CASES_H
#define HG_TESTS_SIMT_CASES_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { CASE_THREADS = 256 };

struct simt_stream;

/* y[t] = x[(t + 255) % 256] through shared memory, without and with the barrier between. */
void case_missing_barrier(const float *x, float *y);
void case_barrier(const float *x, float *y);
/* y[t] = x[t] by cp.async in two groups of 128; wait: before both groups are read, only for the
 * first, never. */
void case_cp_async_waited(const float *x, float *y);
void case_cp_async_first_group_waited(const float *x, float *y);
void case_cp_async_read_before_wait(const float *x, float *y);
void case_cp_async_zero_fill(const float *x, float *y); /* odd groups of 4 are outside */
void case_shuffles(const float *x, float *y);   /* y[t] = x[t ^ 5] + x[lane 3 of the warp] */
void case_reductions(const float *x, float *y); /* y = sum and largest of 256 */
void case_ballot(const float *x, uint32_t *y);  /* y[warp]: bit of each lane with x < 0 */
void case_block_order(
    int32_t *y); /* [64]: a ticket per block, and block i takes the sum of those before it */

/* One warp; registers as [lane][register]. */
void case_mma_bf16(const uint32_t *a, const uint32_t *b, float *c);
void case_mma_f16(const uint32_t *a, const uint32_t *b, float *c);
void case_mma_s8(const uint32_t *a, const uint32_t *b, int32_t *c);
/* y[t][i] = the words that bf16_of_s8 makes of x[t]: bytes 0 1, 2 3, 0 2, 1 3. */
void case_bf16_of_s8(const uint32_t *x, uint32_t *y);
/* matrix [16][16] of 16 bits; matrices 0..3: upper left, lower left, upper right, lower right. */
void case_ldmatrix(const uint16_t *matrix, uint32_t *registers, int transposed);

/* x[t] += 1 of CASE_THREADS, on a stream. */
void case_increment(struct simt_stream *stream, int32_t *x);

/* These end the process. */
void case_barrier_after_return(void);
void case_barriers_at_two_places(void);
void case_collective_of_half_a_warp(void);
void case_two_collectives_in_one_warp(void);
void case_cp_async_in_flight_at_the_end(void);
void case_cp_async_misaligned(void);
void case_ldmatrix_misaligned(void);
void case_load_stream_misaligned(void);
void case_shared_memory_out_of_bounds(void);
void case_spin_on_a_later_block(void);
void case_too_much_shared_memory(void);
void case_33_threads(void);
void case_2048_threads(void);

#ifdef __cplusplus
}
#endif

#endif
