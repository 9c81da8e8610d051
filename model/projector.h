/* model/projector.h - mlp2x_gelu: Linear, exact GELU, Linear (reference.md 8.5); one per task. */
#ifndef HG_MODEL_PROJECTOR_H
#define HG_MODEL_PROJECTOR_H

#include "kernels/backend.h"
#include "model/load/weights.h"

struct hg_projector;

/* Names "model.mm_projector.{0,2}.{weight,bias}" in w. */
enum hg_status hg_projector_load(struct hg_backend *b, struct hg_weights *w, int in_dim,
                                 int out_dim, int max_rows, enum hg_dtype store,
                                 struct hg_projector **out, struct hg_error *err);
/* NEVER until it is called; `store` was F16 then. */
void hg_projector_set_rounding(struct hg_projector *p, enum hg_rounding rounding);
void hg_projector_free(struct hg_projector *p);
size_t hg_projector_bytes(const struct hg_projector *p);

/* x (dev) [n_rows, in_dim] -> y (dev) [n_rows, out_dim]. */
enum hg_status hg_projector_run(struct hg_projector *p, const void *x, int n_rows, void *y);
int64_t hg_projector_work(const struct hg_projector *p, int n_rows); /* multiply-adds */

#endif
