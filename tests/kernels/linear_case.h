/* tests/kernels/linear_case.h - a random linear with H-LoRA adapters: run it anywhere, or by
 * formula. */
#ifndef HG_TESTS_KERNELS_LINEAR_CASE_H
#define HG_TESTS_KERNELS_LINEAR_CASE_H

#include "tests/kernels/parity.h"

struct kt_linear_case {
    int n_rows, n_in;
    int n_prompt; /* the last of the rows that are of prompts */
    int n_parts, n_out[HG_MAX_PARTS];
    int rank[HG_MAX_PARTS][HG_MAX_PLUGINS]; /* 0: this slot has none */
    int n_experts;
    enum hg_dtype host, store;
    int plugin; /* of hg_weight_desc; 0: BF16 beside quantised weights, else as the weight */
    bool bias, norm;
    enum hg_epilogue epilogue; /* not ROPE_KV */
    int pad;                   /* unused elements between rows of x, y and the residual */
};

struct kt_linear {
    struct kt_linear_case c;
    char label[160]; /* the parameters, for messages */
    int n_out, y_dim;
    struct hg_weight_desc desc;
    float *x;        /* [n_rows, n_in] */
    float *norm;     /* [n_in] */
    float *residual; /* [n_rows, n_out] */
    int32_t *slot;   /* [n_rows], cycles through -1..HG_MAX_PLUGINS-1 */
    void *owned[64];
    int n_owned;
};

void kt_linear_init(struct kt_linear *l, const struct kt_linear_case *c, uint64_t seed);
void kt_linear_deinit(struct kt_linear *l);

/* y[n, y_dim]: the rows picked by `rows` (NULL: the first n) in one call. */
void kt_linear_run(const struct kt_linear *l, struct hg_backend *b, const int *rows, int n,
                   float *y);
/* The same from the formulas of reference.md 5.2 and 6, in double precision. */
void kt_linear_formula(const struct kt_linear *l, float *y);

/* Share of the peak that two correct implementations may differ by; the reasons stand in the .c. */
double kt_linear_bound(const struct kt_linear_case *c);

/* Formula against ref, ref against every other target. */
void kt_linear_check(const struct kt_targets *ts, const struct kt_linear_case *c, uint64_t seed);
/* Without the formula, which takes most of the time. */
void kt_linear_check_ref(const struct kt_targets *ts, const struct kt_linear_case *c,
                         uint64_t seed);

#endif
