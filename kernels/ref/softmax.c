/* kernels/ref/softmax.c - exp(v - max) / sum, in place. */
#include <math.h>

#include "kernels/ref/ref.h"

void ref_softmax(double *v, int n)
{
    double max = -INFINITY, sum = 0;
    for (int i = 0; i < n; i++)
        if (v[i] > max)
            max = v[i];
    for (int i = 0; i < n; i++) {
        v[i] = exp(v[i] - max);
        sum += v[i];
    }
    for (int i = 0; i < n; i++)
        v[i] /= sum;
}
