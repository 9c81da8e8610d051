/* model/vision.h - CLIP vision tower up to a chosen hidden layer (reference.md 8.4).
 *
 * hidden[0] = pre_layrnorm output, hidden[n] = output of layer n. `layer` may be negative: -2 of 25
 * states is hidden[23]. Only the layers that some task needs are loaded and run. CLS is dropped:
 * output rows are the n_patches patch states, [n_patches, dim] activations (dev). */
#ifndef HG_MODEL_VISION_H
#define HG_MODEL_VISION_H

#include "kernels/backend.h"
#include "model/load/model_config.h"
#include "model/load/weights.h"

struct hg_vision;

/* max_layer: highest hidden state that will ever be asked for, as a non-negative index. `store` is
 * the type of the linear weights. Messages name the tensor. */
enum hg_status hg_vision_load(struct hg_backend *b, const struct hg_vision_config *c,
                              struct hg_weights *w, int max_layer, enum hg_dtype store,
                              struct hg_vision **out, struct hg_error *err);
void hg_vision_free(struct hg_vision *v);
size_t hg_vision_bytes(const struct hg_vision *v);     /* weights */
size_t hg_vision_workspace(const struct hg_vision *v); /* scratch, allocated at load */

/* NEVER until it is called; `store` was F16 then. */
void hg_vision_set_rounding(struct hg_vision *v, enum hg_rounding rounding);

/* -2 -> n_layers - 1, ...; -1 as result: out of range. */
int hg_vision_layer_index(const struct hg_vision_config *c, int layer);
/* What reserve() must allow for. */
void hg_vision_limits(const struct hg_vision_config *c, struct hg_backend_limits *limits);

/* pixels (host) [3, side, side] of one image -> y (dev) [n_patches, dim]. */
enum hg_status hg_vision_encode(struct hg_vision *v, const float *pixels, int layer, void *y,
                                struct hg_error *err);

/* The same in units: 0, 1, ... n_units - 1, in this order (half a layer each; the last one writes
 * y). Whatever else the backend does may stand between two of them; the workspace is the tower's,
 * so one picture at a time. work: multiply-adds of a unit, from the shapes alone. */
int hg_vision_n_units(const struct hg_vision *v, int layer);
int64_t hg_vision_unit_work(const struct hg_vision *v, int layer, int unit);
enum hg_status hg_vision_run_unit(struct hg_vision *v, const float *pixels, int layer, int unit,
                                  void *y, struct hg_error *err);

#endif
