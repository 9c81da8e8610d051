/* model/vqgan.h - the image codec: index tokens -> pixels, and back (reference.md section 10).
 *
 * The architecture (levels, blocks, channels, where attention sits, grid) is derived from tensor
 * names and shapes; only the GroupNorm group count comes from the model card. fp32 throughout. */
#ifndef HG_MODEL_VQGAN_H
#define HG_MODEL_VQGAN_H

#include <stdbool.h>

#include "common/image_io.h"
#include "kernels/backend.h"
#include "model/load/weights.h"

struct hg_vqgan;

struct hg_vqgan_info {
    int n_codes; /* rows of quantize.embed.weight */
    int grid;    /* tokens per side; the checkpoint does not say it */
    int side;    /* pixels per side = grid << (levels - 1) */
    bool has_encoder;
    size_t weight_bytes, workspace_bytes;
    /* multiply-adds of drawing a picture, and of the largest operation in it: from the shapes */
    int64_t decode_work, largest_op;
};

/* grid: tokens per side (card or vqgan config; 32 for the published model, 8 for the demo). The
 * encoder is loaded when its tensors are present. Adds its needs to *limits before reserve():
 * hg_vqgan_limits reads shapes only. */
enum hg_status hg_vqgan_limits(const struct hg_weights *w, int grid,
                               struct hg_backend_limits *limits, struct hg_error *err);
enum hg_status hg_vqgan_load(struct hg_backend *b, struct hg_weights *w, int grid, int norm_groups,
                             struct hg_vqgan **out, struct hg_error *err);
void hg_vqgan_free(struct hg_vqgan *v);
void hg_vqgan_info(const struct hg_vqgan *v, struct hg_vqgan_info *out);

/* codes (host) [grid * grid] -> RGB image side x side. NUMERIC when a pixel is NaN or infinite. */
enum hg_status hg_vqgan_decode(struct hg_vqgan *v, const int32_t *codes, struct hg_image *out,
                               struct hg_error *err);
/* The same in pieces, whatever else the backend does between them: begin, then go on until *done.
 * At least one operation (a convolution, an attention), then as many as fit into *work, which is
 * lowered by the multiply-adds of what was done; when *done the picture is in *out, on the host.
 * One picture at a time: while one is under way begin, decode and encode are INTERNAL. After a
 * failure, or drop, nothing is under way. */
enum hg_status hg_vqgan_decode_begin(struct hg_vqgan *v, const int32_t *codes,
                                     struct hg_error *err);
enum hg_status hg_vqgan_decode_go_on(struct hg_vqgan *v, int64_t *work, struct hg_image *out,
                                     bool *done, struct hg_error *err);
void hg_vqgan_decode_drop(struct hg_vqgan *v);
/* Image of exactly side x side -> codes: argmax of quantize.proj, no Gumbel noise. */
enum hg_status hg_vqgan_encode(struct hg_vqgan *v, const struct hg_image *im, int32_t *codes,
                               struct hg_error *err);

#endif
