/* kernels/cpu/argmax.c - lowest index of the largest value; the first NaN beats everything. */
#include <math.h>

#include "kernels/cpu/cpu.h"

static void argmax_member(void *ctx, int member, int n_members)
{
    const struct hg_argmax_args *a = ctx;
    int64_t first, end = cpu_share(a->n_rows, member, n_members, &first);
    for (int64_t r = first; r < end; r++) {
        const float *x = (const float *)a->x + r * a->ldx;
        int32_t best = 0;
        for (int32_t i = 1; i < a->dim && !isnan(x[best]); i++)
            if (x[i] > x[best] || isnan(x[i]))
                best = i;
        a->index[r] = best;
    }
}

enum hg_status cpu_argmax(struct hg_backend *b, const struct hg_argmax_args *a)
{
    struct hg_argmax_args args = *a;
    cpu_run(cpu_of(b), (int64_t)a->n_rows * a->dim, argmax_member, &args);
    return HG_STATUS_OK;
}
