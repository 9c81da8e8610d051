/* tests/model/tiny_file.h - a safetensors file made from names and shapes, opened as a weight set.
 *
 * Values are those of tools/oracle/standard_weights.py: the hash of tiny_fill() over the tensor's
 * name (without the prefix), scaled to unit gain. Everything fails through cmocka. */
#ifndef HG_TESTS_MODEL_TINY_FILE_H
#define HG_TESTS_MODEL_TINY_FILE_H

#include <stdbool.h>

#include "kernels/backend.h"
#include "model/load/weights.h"

enum { TINY_MAX_TENSORS = 1200 };

struct tiny_tensor {
    char name[96];
    int n_dims;
    int64_t dims[4];
    float *data; /* NULL in a hollow file */
};

struct tiny_file {
    const char *prefix; /* put before every name in the file; NULL: nothing */
    bool hollow;        /* shapes only: the data is a hole of zeros */
    int n;
    struct tiny_tensor t[TINY_MAX_TENSORS];
};

void tiny_file_add(struct tiny_file *f, const char *name, int n_dims, const int64_t *dims);
void tiny_file_add_vector(struct tiny_file *f, const char *module, const char *suffix, int64_t n);
/* module.weight [n_out, n_in] and module.bias */
void tiny_file_add_linear(struct tiny_file *f, const char *module, int64_t n_out, int64_t n_in);
/* module.weight [n_out, n_in, kernel, kernel] and module.bias */
void tiny_file_add_conv(struct tiny_file *f, const char *module, int64_t n_out, int64_t n_in,
                        int64_t kernel);
void tiny_file_add_norm(struct tiny_file *f, const char *module, int64_t n); /* weight and bias */

struct tiny_tensor *tiny_file_find(struct tiny_file *f, const char *name);
void tiny_file_drop(struct tiny_file *f, const char *name);
void tiny_file_deinit(struct tiny_file *f);

/* Write, open, remove the file. Free with hg_weights_free(). */
struct hg_weights *tiny_file_open(const struct tiny_file *f);

/* Open a backend for a test: "ref", "cpu". NULL, with a counted line, when it is not there. */
struct hg_backend *tiny_backend(const char *name, const struct hg_backend_limits *limits);
extern const char *const tiny_backends[2];

/* Tensor `name` of a golden file as floats; free(). Fails unless it holds n elements. */
float *tiny_golden_tensor(const char *file, const char *name, size_t n);

/* Largest |got - want|; fails above bound, NaN included. Prints it under the label. */
void tiny_compare(const char *label, const char *backend, const float *got, const float *want,
                  size_t n, double bound);

#endif
