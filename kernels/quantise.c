#include "kernels/quantise.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "common/half.h"

enum { F16_NAN = 0x7e00, F16_INFINITY = 0x7c00 };

/* Largest |x|; NaN when a value is not finite. */
static float peak_of(const float *x, int n)
{
    float max = 0;
    bool finite = true;
    for (int i = 0; i < n; i++) {
        finite = finite && isfinite(x[i]);
        max = fmaxf(max, fabsf(x[i]));
    }
    return finite ? max : NAN;
}

/* True division: a multiplication by the reciprocal rounds some values the other way. */
static int8_t nearest(float x, float scale, float lo, float hi)
{
    return (int8_t)fminf(fmaxf(rintf(x / scale), lo), hi);
}

float hg_quantise_i8(const float *x, int n, int8_t *q)
{
    float scale = peak_of(x, n) / 127.0f;
    bool usable = scale > 0;
    for (int i = 0; i < n; i++)
        q[i] = usable ? nearest(x[i], scale, -127, 127) : 0;
    return scale;
}

float hg_quantise_f8(const float *x, int n, uint8_t *q)
{
    float scale = peak_of(x, n) / 448.0f;
    bool usable = scale > 0;
    for (int i = 0; i < n; i++)
        q[i] = usable ? hg_f32_to_e4m3(x[i] / scale) : 0;
    return scale;
}

uint16_t hg_quantise_i4(const float *x, int n, int8_t *q)
{
    float extreme = 0;
    bool finite = true;
    memset(q, 0, (size_t)n);
    for (int i = 0; i < n; i++) {
        finite = finite && isfinite(x[i]);
        extreme = fabsf(x[i]) > fabsf(extreme) ? x[i] : extreme;
    }
    uint16_t half = hg_f32_to_f16(extreme / -8.0f);
    float scale = hg_f16_to_f32(half);
    if (!finite || (half & 0x7fff) >= F16_INFINITY)
        return F16_NAN;
    if (scale == 0)
        return 0;
    for (int i = 0; i < n; i++)
        q[i] = nearest(x[i], scale, -8, 7);
    return half;
}
