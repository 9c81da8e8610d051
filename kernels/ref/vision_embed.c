/* kernels/ref/vision_embed.c - class row, patch rows, learned positions. */
#include "kernels/ref/ref.h"

enum hg_status ref_vision_embed(struct hg_backend *b, const struct hg_vision_embed_args *a)
{
    (void)b;
    const float *patches = (const float *)a->patches;
    int64_t dim = a->dim, rows = 1 + (int64_t)a->n_patches;
    for (int64_t n = 0; n < a->n_images; n++)
        for (int64_t r = 0; r < rows; r++)
            for (int64_t i = 0; i < dim; i++) {
                float v = r == 0 ? a->cls[i] : patches[(n * a->n_patches + r - 1) * dim + i];
                float pos = a->pos[r * dim + i];
                ((float *)a->y)[(n * rows + r) * dim + i] =
                    a->rounding ? ref_half((double)ref_half(v) + ref_half(pos)) : v + pos;
            }
    return HG_STATUS_OK;
}
