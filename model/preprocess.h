/* model/preprocess.h - an RGB picture of any size -> what the vision tower sees
 * (reference.md 8.1-8.3).
 *
 * Bit-exact with Pillow: pad to a square with (122, 116, 104), two-pass fixed-point resampling with
 * uint8 between the passes, then (p/255 - mean) / std in fp32. Pure functions, thread-safe. */
#ifndef HG_MODEL_PREPROCESS_H
#define HG_MODEL_PREPROCESS_H

#include "common/image_io.h"
#include "common/status.h"
#include "model/load/model_config.h"

enum hg_resample { HG_RESAMPLE_BICUBIC, HG_RESAMPLE_LANCZOS };

enum hg_status hg_image_pad_square(const struct hg_image *in, struct hg_image *out,
                                   struct hg_error *err);
/* Any size to any size; equal sizes copy. */
enum hg_status hg_image_resize(const struct hg_image *in, int width, int height,
                               enum hg_resample filter, struct hg_image *out, struct hg_error *err);
/* pixels[3][side][side], caller's memory of 3 * side * side floats. */
enum hg_status hg_preprocess(const struct hg_preprocess_config *c, const struct hg_image *in,
                             float *pixels, struct hg_error *err);
/* What hg_preprocess does to a picture (its sides are at least 1). */
struct hg_image_transform;
void hg_preprocess_transform(const struct hg_preprocess_config *c, const struct hg_image *in,
                             struct hg_image_transform *out);

#endif
