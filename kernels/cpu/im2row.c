/* kernels/cpu/im2row.c - square patches of planar pixels as rows in (c, ky, kx) order. */
#include <string.h>

#include "kernels/cpu/cpu.h"

enum hg_status cpu_im2row(struct hg_backend *b, const struct hg_im2row_args *a)
{
    (void)b;
    int64_t side = a->side, patch = a->patch, grid = side / patch;
    float *y = (float *)a->y;
    for (int64_t n = 0; n < a->n_images; n++)
        for (int64_t p = 0; p < grid * grid; p++)
            for (int64_t c = 0; c < a->n_channels; c++) {
                const float *corner = a->pixels + (n * a->n_channels + c) * side * side +
                                      p / grid * patch * side + p % grid * patch;
                for (int64_t ky = 0; ky < patch; ky++, y += patch)
                    memcpy(y, corner + ky * side, (size_t)patch * sizeof *y);
            }
    return HG_STATUS_OK;
}
