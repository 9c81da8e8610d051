/* kernels/ref/rmsnorm.c - y = x / sqrt(mean(x^2) + eps) * weight. */
#include <math.h>

#include "kernels/ref/ref.h"

void ref_rmsnorm(const float *x, const float *weight, float eps, int n, float *y)
{
    double sum = 0;
    for (int i = 0; i < n; i++)
        sum += (double)x[i] * x[i];
    double inverse = 1 / sqrt(sum / n + eps);
    for (int i = 0; i < n; i++)
        y[i] = (float)(x[i] * inverse * weight[i]);
}
