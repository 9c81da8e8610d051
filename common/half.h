/* common/half.h - IEEE binary16, bfloat16 and E4M3 <-> binary32, round to nearest even, subnormals
 * kept. */
#ifndef HG_COMMON_HALF_H
#define HG_COMMON_HALF_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline uint32_t hg_float_bits(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

static inline float hg_bits_float(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

static inline float hg_bf16_to_f32(uint16_t h)
{
    return hg_bits_float((uint32_t)h << 16);
}

/* NaN stays NaN (quiet bit set). */
static inline uint16_t hg_f32_to_bf16(float f)
{
    uint32_t u = hg_float_bits(f);
    if ((u & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)((u >> 16) | 0x40u);
    return (uint16_t)((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}

float hg_f16_to_f32(uint16_t h);
uint16_t hg_f32_to_f16(float f);

/* n values; by F16C where the processor has it, with the same bits but for the payload of a NaN. */
void hg_f16_to_f32_n(const uint16_t *h, float *f, size_t n);
void hg_f32_to_f16_n(const float *f, uint16_t *h, size_t n);

/* E4M3 of the OCP 8-bit formats: 1 sign, 4 exponent (bias 7), 3 mantissa bits; no infinity, 0x7f
 * and 0xff are NaN, the largest value is 448. Larger ones and infinities saturate; NaN becomes
 * 0x7f. */
float hg_e4m3_to_f32(uint8_t v);

/* Without a branch, so that a compiler can make vectors of it. Below 2^-6 adding 2^14 leaves the
 * multiple of 2^-9 in the last bits. */
static inline uint8_t hg_f32_to_e4m3(float f)
{
    uint32_t u = hg_float_bits(f), sign = u >> 24 & 0x80u;
    u &= 0x7fffffffu;
    uint32_t normal = ((u + 0x7ffffu + (u >> 20 & 1u)) >> 20) - (120u << 3);
    uint32_t small = hg_float_bits(hg_bits_float(u) + 0x1p14f) & 15u;
    uint32_t v = u < 0x3c800000u ? small : normal;
    v = u >= 0x43e00000u ? 0x7eu : v;
    return (uint8_t)(sign | (u > 0x7f800000u ? 0x7fu : v));
}

#endif
