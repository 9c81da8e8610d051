/* kernels/ref/argmax.c - lowest index of the largest value; the first NaN beats everything. */
#include <math.h>

#include "kernels/ref/ref.h"

enum hg_status ref_argmax(struct hg_backend *b, const struct hg_argmax_args *a)
{
    (void)b;
    for (int64_t r = 0; r < a->n_rows; r++) {
        const float *x = (const float *)a->x + r * a->ldx;
        int32_t best = 0;
        for (int32_t i = 1; i < a->dim && !isnan(x[best]); i++)
            if (x[i] > x[best] || isnan(x[i]))
                best = i;
        a->index[r] = best;
    }
    return HG_STATUS_OK;
}
