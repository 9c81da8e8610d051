/* kernels/cuda/pack.h - from host rows to a packed matrix; only weight.c uses it. */
#ifndef HG_KERNELS_CUDA_PACK_H
#define HG_KERNELS_CUDA_PACK_H

#include "kernels/cuda/weight.h"

/* Where a packed row comes from: row `row` of a host tensor, or t NULL: zeros. */
struct row_source {
    const struct hg_host_tensor *t;
    size_t row;
};

float cuda_decode(const struct hg_host_tensor *t, size_t i);
/* Device memory that w->bytes counts. */
enum hg_status cuda_weight_alloc(struct hg_backend *b, struct hg_weight *w, size_t bytes,
                                 void **out, struct hg_error *err);
/* rows: tiles * 16 sources of `cols` values each. What was allocated stays in m on failure. */
enum hg_status cuda_pack(struct hg_backend *b, struct hg_weight *w, struct cuda_matrix *m,
                         enum hg_dtype type, const struct row_source *rows, int tiles, int cols,
                         struct hg_error *err);

#endif
