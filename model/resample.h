/* model/resample.h - Pillow's 8-bit resampling (reference.md 8.2), to the bit.
 *
 * Per axis a table of fixed-point taps; two passes, horizontal first, uint8 in between. Pillow 13
 * runs the vertical pass first where the height shrinks much more than the width; earlier
 * versions, and so the reference, never do. The source is a picture lying on a canvas of the
 * padding colour, so that a padded square never has to exist in memory. Pure functions, thread-
 * safe. */
#ifndef HG_MODEL_RESAMPLE_H
#define HG_MODEL_RESAMPLE_H

#include <stdint.h>

#include "common/image_io.h"
#include "common/status.h"
#include "model/preprocess.h"

enum { HG_TAP_BITS = 22 }; /* a tap of 1.0 is 1 << 22 */

struct hg_taps {
    int n_out, stride;  /* outputs; taps reserved per output */
    int *first, *count; /* [n_out] first input and number of inputs of each output */
    int32_t *tap;       /* [n_out, stride] */
};

/* n_in, n_out >= 1. On failure *t is zeroed. */
enum hg_status hg_taps_init(struct hg_taps *t, int n_in, int n_out, enum hg_resample filter,
                            struct hg_error *err);
void hg_taps_deinit(struct hg_taps *t); /* zeroed struct is fine */

struct hg_canvas {
    const struct hg_image *im;
    int width, height; /* of the canvas */
    int x, y;          /* where the top left pixel of the picture lies; the picture fits */
    uint8_t pad[3];    /* colour of the rest */
};

enum hg_status hg_canvas_resize(const struct hg_canvas *c, int width, int height,
                                enum hg_resample filter, struct hg_image *out,
                                struct hg_error *err);

#endif
