/* tests/kernels/head_case.h - a random set of heads and out rows with their own id ranges. */
#ifndef HG_TESTS_KERNELS_HEAD_CASE_H
#define HG_TESTS_KERNELS_HEAD_CASE_H

#include "tests/kernels/parity.h"

struct kt_head {
    int n_tokens, dim, n_vocab[2], n_out;
    enum hg_dtype store;
    float *x, *norm[2], *head[2];             /* [T, D], [D], [V, D] in fp32 */
    int32_t row[64], set[64], lo[64], hi[64]; /* head sets 0 and 2 */
    int64_t ld;
};

void kt_head_init(struct kt_head *h, int n_tokens, int dim, int n_out, enum hg_dtype store,
                  uint64_t seed);
void kt_head_deinit(struct kt_head *h);
/* logits[n, ld] of the out rows picked (NULL: the first n); gaps are 0. */
void kt_head_run(const struct kt_head *h, struct hg_backend *b, const int *pick, int n, float *y);
void kt_head_formula(const struct kt_head *h, float *y);

#endif
