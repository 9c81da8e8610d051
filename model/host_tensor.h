/* model/host_tensor.h - fetch tensors of a weight set in the form that a backend packs.
 *
 * Tensors that are contiguous, aligned and F32/F16/BF16 are used where they lie in the mapped file;
 * others are converted into memory owned by the loader. Use one loader per weight object and reset
 * it after weight_create, so that at most one layer's copies exist and no file is resident beside
 * what was packed from it. On the backend of a rehearsal (dry_run.h) results are empty and nothing
 * is read. */
#ifndef HG_MODEL_HOST_TENSOR_H
#define HG_MODEL_HOST_TENSOR_H

#include "common/arena.h"
#include "kernels/backend.h"
#include "model/load/quant_cache.h"
#include "model/load/weights.h"

enum { HG_LOADER_FETCHED = 32 };

struct hg_loader {
    struct hg_backend *backend;
    struct hg_weights *weights;
    struct hg_quant_cache *cache;                       /* of hg_loader_linear; NULL: none */
    struct hg_arena arena;                              /* converted copies */
    const struct hg_tensor *fetched[HG_LOADER_FETCHED]; /* since the last reset */
    int n_fetched;
};

/* What was fetched has been packed: hg_weights_done for each. */
void hg_loader_reset(struct hg_loader *l);
/* A tensor that came from hg_weights_get itself belongs to the fetched ones too. */
void hg_loader_note(struct hg_loader *l, const struct hg_tensor *t);

/* hg_weights_get and hg_loader_note in one, for tensors of any rank; checks the values where the
 * set wants that. *out NULL, without an error: a rehearsal (dry_run.h), there is nothing to do. */
enum hg_status hg_loader_find(struct hg_loader *l, const char *name, int n_dims,
                              const int64_t *dims, const struct hg_tensor **out,
                              struct hg_error *err);

/* Rows x cols matrix (or a vector when cols == 0), any count when rows < 0: the number found is
 * stored in *n_rows when that is not NULL. */
enum hg_status hg_loader_get(struct hg_loader *l, const char *name, int64_t rows, int64_t cols,
                             int64_t *n_rows, struct hg_host_tensor *out, struct hg_error *err);

/* The same of a matrix that is stored in the type of the cache: quantised where that helps. */
enum hg_status hg_loader_linear(struct hg_loader *l, const char *name, int64_t rows, int64_t cols,
                                int64_t *n_rows, struct hg_host_tensor *out, struct hg_error *err);

/* A vector of n fp32 values on the device (norm weights). */
enum hg_status hg_loader_vector(struct hg_loader *l, const char *name, int64_t n, float **out,
                                struct hg_error *err);

/* A whole matrix on the device in the given type (embedding tables). */
enum hg_status hg_loader_matrix(struct hg_loader *l, const char *name, int64_t rows, int64_t cols,
                                enum hg_dtype type, void **out, int64_t *n_rows, size_t *bytes,
                                struct hg_error *err);

#endif
