#include "kernels/quantise.h"

#include <math.h>
#include <string.h>

#include "common/half.h"

enum { F16_NAN = 0x7e00, F16_INFINITY = 0x7c00, INFINITE = 0x7f800000 /* and NaN above */ };

/* Bits of the largest |x|: ordered like the values, infinities and NaN come last. As int32, which
 * vectors compare. */
static int32_t peak_bits(const float *x, int n)
{
    int32_t max = 0;
    for (int i = 0; i < n; i++) {
        int32_t bits = (int32_t)(hg_float_bits(x[i]) & 0x7fffffffu);
        max = bits > max ? bits : max;
    }
    return max;
}

/* The largest |x|, NaN when a value is not finite, over `levels`. */
static float scale_of(const float *x, int n, float levels)
{
    int32_t peak = peak_bits(x, n);
    return peak >= INFINITE ? NAN : hg_bits_float((uint32_t)peak) / levels;
}

/* x / scale within [lo, hi] (whole numbers), to the nearest even; the sum is whole. A true
 * division: a multiplication by the reciprocal rounds some values the other way. */
static inline float nearest(float x, float scale, float lo, float hi)
{
    float q = x / scale;
    q = q < lo ? lo : q;
    q = q > hi ? hi : q;
    return (q + 0x1.8p23f) - 0x1.8p23f;
}

float hg_quantise_i8(const float *x, int n, int8_t *q)
{
    float scale = scale_of(x, n, 127);
    if (!(scale > 0)) {
        memset(q, 0, (size_t)n);
        return scale;
    }
    for (int i = 0; i < n; i++)
        q[i] = (int8_t)(int)nearest(x[i], scale, -127, 127);
    return scale;
}

float hg_quantise_f8(const float *x, int n, uint8_t *q)
{
    float scale = scale_of(x, n, 448);
    if (!(scale > 0)) {
        memset(q, 0, (size_t)n);
        return scale;
    }
    for (int i = 0; i < n; i++)
        q[i] = hg_f32_to_e4m3(x[i] / scale);
    return scale;
}

uint16_t hg_quantise_i4(const float *x, int n, int8_t *q)
{
    uint32_t peak = (uint32_t)peak_bits(x, n);
    int first = 0;
    while (first < n - 1 && (hg_float_bits(x[first]) & 0x7fffffffu) != peak)
        first++;
    uint16_t half = hg_f32_to_f16(x[first] / -8.0f);
    float scale = hg_f16_to_f32(half);
    for (int i = 0; i < n; i++)
        q[i] = 0;
    if (peak >= INFINITE || (half & 0x7fffu) >= F16_INFINITY)
        return F16_NAN;
    if (scale == 0)
        return 0;
    for (int i = 0; i < n; i++)
        q[i] = (int8_t)(int)nearest(x[i], scale, -8, 7);
    return half;
}

static void quantise_row_i4(const float *x, int n, uint8_t *q, uint16_t *scale)
{
    int8_t code[HG_I4_GROUP];
    for (int i = 0; i < n; i += HG_I4_GROUP) {
        int len = n - i < HG_I4_GROUP ? n - i : HG_I4_GROUP;
        *scale++ = hg_quantise_i4(x + i, len, code);
        memset(code + len, 0, (size_t)(HG_I4_GROUP - len));
        for (int j = 0; j < len; j += 8, q += 4)
            for (int k = 0; k < 4; k++)
                q[k] = (uint8_t)((code[j + k] + 8) | (code[j + 4 + k] + 8) << 4);
    }
}

void hg_quantise_row(enum hg_dtype type, const float *x, int n, void *q, void *scale)
{
    if (type == HG_DTYPE_I4)
        quantise_row_i4(x, n, q, scale);
    else
        *(float *)scale = type == HG_DTYPE_I8 ? hg_quantise_i8(x, n, q) : hg_quantise_f8(x, n, q);
}
