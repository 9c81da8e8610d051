/* kernels/ref/im2row.c - square patches of planar pixels as rows in (c, ky, kx) order. */
#include "kernels/ref/ref.h"

enum hg_status ref_im2row(struct hg_backend *b, const struct hg_im2row_args *a)
{
    (void)b;
    int side = a->side, patch = a->patch, grid = side / patch;
    float *y = (float *)a->y;
    for (int64_t n = 0; n < a->n_images; n++)
        for (int py = 0; py < grid; py++)
            for (int px = 0; px < grid; px++)
                for (int c = 0; c < a->n_channels; c++) {
                    const float *plane = a->pixels + (n * a->n_channels + c) * side * side;
                    for (int ky = 0; ky < patch; ky++)
                        for (int kx = 0; kx < patch; kx++) {
                            float v = plane[(py * patch + ky) * side + px * patch + kx];
                            *y++ = a->rounding ? ref_half(v) : v;
                        }
                }
    return HG_STATUS_OK;
}
