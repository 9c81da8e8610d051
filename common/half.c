/* common/half.c - binary16 and E4M3 <-> binary32 in integer arithmetic: the same bits on every
 * machine. */
#include "common/half.h"

#ifdef __x86_64__
#include <immintrin.h>
#endif

/* Layout: 1 sign, 5 exponent (bias 15), 10 mantissa bits against 1, 8 (bias 127), 23. */

float hg_f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16;
    uint32_t exponent = (h >> 10) & 0x1fu;
    uint32_t mantissa = h & 0x3ffu;
    if (exponent == 0) {
        /* Zero or subnormal: mantissa * 2^-24, exact in binary32. */
        float magnitude = (float)mantissa * 0x1p-24f;
        return hg_bits_float(sign | hg_float_bits(magnitude));
    }
    if (exponent == 31)
        return hg_bits_float(sign | 0x7f800000u | mantissa << 13);
    return hg_bits_float(sign | (exponent + 112u) << 23 | mantissa << 13);
}

/* Shift right by n (1..31), rounding the dropped bits to nearest, ties to even. */
static uint32_t shift_round(uint32_t v, uint32_t n)
{
    uint32_t half = 1u << (n - 1);
    uint32_t rest = v & ((half << 1) - 1u);
    uint32_t q = v >> n;
    return q + (rest > half || (rest == half && (q & 1u)));
}

uint16_t hg_f32_to_f16(float f)
{
    uint32_t u = hg_float_bits(f);
    uint32_t sign = (u >> 16) & 0x8000u;
    u &= 0x7fffffffu;
    if (u > 0x7f800000u) /* NaN: keep the payload's top bits, set the quiet bit */
        return (uint16_t)(sign | 0x7e00u | (u >> 13 & 0x3ffu));
    if (u >= 0x47800000u) /* 2^16 and above, infinity */
        return (uint16_t)(sign | 0x7c00u);
    if (u >= 0x38800000u) /* 2^-14 and above; a carry may run up to infinity, as it should */
        return (uint16_t)(sign | shift_round(u - (112u << 23), 13));
    if (u < 0x33000000u) /* below 2^-25, half of the smallest subnormal */
        return (uint16_t)sign;
    uint32_t mantissa = (u & 0x7fffffu) | 0x800000u;
    return (uint16_t)(sign | shift_round(mantissa, 126u - (u >> 23)));
}

/* As a binary16 with 2^-8 of the value: the exponent lies 8 lower, subnormals become normal or
 * binary16 subnormals by themselves. */
float hg_e4m3_to_f32(uint8_t v)
{
    if ((v & 0x7fu) == 0x7fu)
        return hg_bits_float((uint32_t)(v & 0x80u) << 24 | 0x7fc00000u);
    return hg_f16_to_f32((uint16_t)((v & 0x80u) << 8 | (v & 0x7fu) << 7)) * 256.0f;
}

/* The first n / 8 * 8 values; returns how many. */
#ifdef __x86_64__
__attribute__((target("avx,f16c"))) static size_t widen_f16c(const uint16_t *h, float *f, size_t n)
{
    size_t i = 0;
    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(f + i, _mm256_cvtph_ps(_mm_loadu_si128((const void *)(h + i))));
    return i;
}

__attribute__((target("avx,f16c"))) static size_t narrow_f16c(const float *f, uint16_t *h, size_t n)
{
    size_t i = 0;
    for (; i + 8 <= n; i += 8)
        _mm_storeu_si128((void *)(h + i), _mm256_cvtps_ph(_mm256_loadu_ps(f + i), 0));
    return i;
}
#endif

void hg_f16_to_f32_n(const uint16_t *h, float *f, size_t n)
{
    size_t i = 0;
#ifdef __x86_64__
    if (__builtin_cpu_supports("avx2")) /* every CPU with AVX2 has F16C */
        i = widen_f16c(h, f, n);
#endif
    for (; i < n; i++)
        f[i] = hg_f16_to_f32(h[i]);
}

void hg_f32_to_f16_n(const float *f, uint16_t *h, size_t n)
{
    size_t i = 0;
#ifdef __x86_64__
    if (__builtin_cpu_supports("avx2"))
        i = narrow_f16c(f, h, n);
#endif
    for (; i < n; i++)
        h[i] = hg_f32_to_f16(f[i]);
}
