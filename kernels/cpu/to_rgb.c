/* kernels/cpu/to_rgb.c - clamp to [-1, 1], (v + 1) / 2 * 255 in fp32, truncate; NaN becomes 0. */
#include <math.h>

#include "kernels/cpu/cpu.h"

enum hg_status cpu_to_rgb(struct hg_backend *b, const struct hg_to_rgb_args *a)
{
    (void)b;
    const float *x = (const float *)a->x;
    bool finite = true;
    for (int64_t i = 0; i < (int64_t)a->n_pixels * 3; i++) {
        finite = finite && isfinite(x[i]);
        float v = isnan(x[i]) ? -1 : fminf(fmaxf(x[i], -1), 1);
        a->rgb[i] = (uint8_t)((v + 1) / 2 * 255);
    }
    *a->finite = finite;
    return HG_STATUS_OK;
}
