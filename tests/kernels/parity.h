/* tests/kernels/parity.h - what the kernel tests share: the backends to test, seeded inputs,
 * oracles.
 *
 * Every test of an op runs on `ref` and on each cpu path of this machine with 1 and 2 threads, so a
 * case says once what the op means and all implementations answer to it. Names begin with kt_
 * ("kernel test"). Everything fails through cmocka. */
#ifndef HG_TESTS_KERNELS_PARITY_H
#define HG_TESTS_KERNELS_PARITY_H

#include "kernels/backend.h"
#include "tests/test.h"

/* Every type that a weight can be stored in, in the order of the enum. */
enum { KT_STORES = HG_DTYPE_COUNT };
extern const enum hg_dtype kt_stores[KT_STORES];

struct kt_target {
    char name[32]; /* "cpu-avx2 x2" */
    struct hg_backend *b;
};

struct kt_targets {
    struct kt_target at[8]; /* at[0] is ref */
    int n;
};

/* cmocka group fixture: *state becomes a struct kt_targets *. A path that this machine or build
 * lacks is left out; test_backend.c counts it as a skip. With $HG_TEST_BACKEND only ref and that
 * one are opened, and it must be there; kt_teardown then prints a digest of all it computed, which
 * no order of threads may change (tests/full.py). */
int kt_setup(void **state);
int kt_teardown(void **state);
bool kt_is_cuda(const struct kt_target *t); /* the cuda kernels, on a device or emulated */

/* Limits that kt_setup reserves; a case must stay inside. */
extern const struct hg_backend_limits kt_limits;

/* Whether case i of a table of shapes runs: each with $HG_TEST_FULL, else one of `every`. */
bool kt_sweep(size_t i, size_t every);

/* ---- inputs (heap, free with free()) ---- */
uint64_t kt_next(uint64_t *state);                      /* splitmix64 */
float kt_uniform(uint64_t *state);                      /* [-1, 1) */
int kt_below(uint64_t *state, int n);                   /* [0, n) */
float *kt_random(size_t n, uint64_t seed, float scale); /* sum of 4 uniforms: bell shaped */
void *kt_encode(const float *x, size_t n, enum hg_dtype type);

/* ---- device memory; fails the test instead of returning an error ---- */
void *kt_alloc_act(struct hg_backend *b, size_t n);
void *kt_upload_act(struct hg_backend *b, const float *x, size_t n);
void *kt_upload(struct hg_backend *b, const void *x, size_t bytes);
void kt_download_act(struct hg_backend *b, float *y, const void *dev, size_t n);
/* Results that came another way join the digest of kt_teardown. */
void kt_note(const struct hg_backend *b, const float *y, size_t n);

/* ---- oracles, written apart from kernels/ref ---- */
/* The nearest value of a type, ties to even, subnormals kept. F32, F16, BF16; F8 saturates. */
double kt_round(enum hg_dtype type, double v);
/* Symmetric int8: q[i] = nearest even of x[i] / scale, scale = max|x| / 127, both in fp32. */
float kt_quantise(const float *x, int n, int *q);
/* One group of int4: q[i] = nearest even of w[i] / scale in [-8, 7]; scale = the first value of
 * largest magnitude / -8 as a binary16. */
float kt_quantise_i4(const float *w, int n, int *q);
/* What a row of weights stands for once it is stored. */
void kt_stored(enum hg_dtype type, const float *row, int n, float *stored);
/* dot of a weight row with an activation row, both fp32, under the rule of a stored type. */
double kt_dot(enum hg_dtype store, const float *w, const float *x, int n);

/* ---- comparison ---- */
/* Prints the largest absolute error and its share of the largest |want|, fails above `bound` (of
 * that share). NaN equals NaN only. `label` holds the parameters of the case. */
void kt_compare(const char *label, const char *target, const float *got, const float *want,
                size_t n, double bound);
/* Bit-identical, NaN included. */
void kt_identical(const char *label, const char *target, const float *got, const float *want,
                  size_t n);

#endif
