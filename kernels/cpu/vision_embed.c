/* kernels/cpu/vision_embed.c - class row, patch rows, learned positions. */
#include "kernels/cpu/cpu.h"

enum hg_status cpu_vision_embed(struct hg_backend *b, const struct hg_vision_embed_args *a)
{
    (void)b;
    int64_t dim = a->dim, rows = 1 + (int64_t)a->n_patches;
    for (int64_t n = 0; n < a->n_images; n++)
        for (int64_t r = 0; r < rows; r++) {
            const float *x =
                r == 0 ? a->cls : (const float *)a->patches + (n * a->n_patches + r - 1) * dim;
            const float *pos = a->pos + r * dim;
            float *y = (float *)a->y + (n * rows + r) * dim;
            for (int64_t i = 0; i < dim; i++)
                y[i] = x[i] + pos[i];
        }
    return HG_STATUS_OK;
}
