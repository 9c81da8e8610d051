/* kernels/ref/rmsnorm.c - y = x / sqrt(mean(x^2) + eps) * weight; rounded: the quotient
 * first, then its product with the weight (reference.md 5.2). */
#include <math.h>

#include "kernels/ref/ref.h"

void ref_rmsnorm(const float *x, const float *weight, float eps, int n, enum hg_rounding rounding,
                 float *y)
{
    double sum = 0;
    for (int i = 0; i < n; i++)
        sum += (double)x[i] * x[i];
    double inverse = 1 / sqrt(sum / n + eps);
    for (int i = 0; i < n; i++)
        y[i] = rounding ? ref_half((double)ref_half(x[i] * inverse) * ref_half(weight[i]))
                        : (float)(x[i] * inverse * weight[i]);
}
