/* kernels/ref/layernorm.c - y = (x - mean) / sqrt(var + eps) * weight + bias, biased variance. */
#include <math.h>

#include "kernels/ref/ref.h"

static void layernorm_row(const struct hg_layernorm_args *a, const float *x, float *y)
{
    double mean = 0, var = 0;
    for (int i = 0; i < a->dim; i++)
        mean += x[i];
    mean /= a->dim;
    for (int i = 0; i < a->dim; i++)
        var += (x[i] - mean) * (x[i] - mean);
    double inverse = 1 / sqrt(var / a->dim + a->eps);
    for (int i = 0; i < a->dim; i++) {
        double n = (x[i] - mean) * inverse;
        y[i] = a->rounding ? ref_half(n * ref_half(a->weight[i]) + ref_half(a->bias[i]))
                           : (float)(n * a->weight[i] + a->bias[i]);
    }
}

enum hg_status ref_layernorm(struct hg_backend *b, const struct hg_layernorm_args *a)
{
    (void)b;
    for (int64_t r = 0; r < a->n_rows; r++)
        layernorm_row(a, (const float *)a->x + r * a->dim, (float *)a->y + r * a->dim);
    return HG_STATUS_OK;
}
