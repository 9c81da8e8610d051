/* model/dry_run.h - the load without packing: a backend that keeps nothing.
 *
 * hg_llm_load, hg_vision_load, hg_projector_load and hg_vqgan_load run on it as they do on any
 * other, so that what is looked at is exactly what a load will ask for: every name, every shape,
 * what is surplus. It takes milliseconds instead of minutes. The loaders (model/host_tensor.c) see
 * from the backend that it is a rehearsal: a tensor that is missing or of another shape is reported
 * and the load goes on; no tensor is converted.
 *
 * Values: every element of the sets in `whole` (plug-ins, projectors, fusion tables) is looked at,
 * of other sets HG_DRY_PAGES pages of each tensor. NaN and Inf are reported. The rest is looked at
 * while it is packed. */
#ifndef HG_MODEL_DRY_RUN_H
#define HG_MODEL_DRY_RUN_H

#include "kernels/backend.h"
#include "model/load/weights.h"

enum { HG_DRY_PAGES = 16, HG_DRY_WHOLE = 2 };

struct hg_dry_run {
    struct hg_backend backend;                            /* first: give it to the loaders */
    void (*wrong)(void *ctx, const struct hg_error *why); /* may be NULL */
    void *ctx;
    const struct hg_weights *whole[HG_DRY_WHOLE];
    bool values;         /* false: names and shapes only */
    int64_t deadline_ns; /* no values are looked at after it (hg_now_ns); 0: none */
    bool late;           /* it was reached */
    int n_wrong;
    struct hg_error first;
};

void hg_dry_run_init(struct hg_dry_run *d);
/* NULL: a backend that computes. */
struct hg_dry_run *hg_dry_run_of(struct hg_backend *b);
/* What was found under a name: status of hg_weights_get and its tensor. BAD_FILE is reported and
 * becomes OK, other failures stay. */
enum hg_status hg_dry_run_saw(struct hg_dry_run *d, struct hg_weights *w, enum hg_status status,
                              const struct hg_tensor *t, struct hg_error *err);

#endif
