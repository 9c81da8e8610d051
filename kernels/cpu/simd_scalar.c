/* kernels/cpu/simd_scalar.c - the primitives in portable C: 16-lane vectors are arrays of 16. */
#if defined(__GNUC__) && !defined(__clang__)
/* Following 16-element structs for the debugger takes gcc 12 with AddressSanitizer minutes. */
#pragma GCC optimize("no-var-tracking,no-var-tracking-assignments")
#endif
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "common/half.h"

struct v16 {
    float f[16];
};

struct v16i {
    uint32_t u[16];
};

typedef struct v16 v16;
typedef struct v16i v16i;

#define EACH for (int i = 0; i < 16; i++)

static inline v16 v_set1(float f)
{
    v16 r;
    EACH r.f[i] = f;
    return r;
}

static inline v16 v_zero(void)
{
    return v_set1(0);
}

static inline v16 v_load(const float *p)
{
    v16 r;
    memcpy(&r, p, sizeof r);
    return r;
}

static inline void v_store(float *p, v16 a)
{
    memcpy(p, &a, sizeof a);
}

static inline v16 v_load_f16(const void *p)
{
    uint16_t h[16];
    v16 r;
    memcpy(h, p, sizeof h);
    EACH r.f[i] = hg_f16_to_f32(h[i]);
    return r;
}

static inline v16 v_load_bf16(const void *p)
{
    uint16_t h[16];
    v16 r;
    memcpy(h, p, sizeof h);
    EACH r.f[i] = hg_bf16_to_f32(h[i]);
    return r;
}

/* E4M3 as binary16 of 2^-8 of the value: the exponent keeps its place, one bit below the sign. */
static inline v16 v_load_f8(const void *p)
{
    uint8_t b[16];
    v16 r;
    memcpy(b, p, sizeof b);
    EACH r.f[i] = hg_f16_to_f32((uint16_t)((b[i] & 0x80) << 8 | (b[i] & 0x7f) << 7));
    return r;
}

static inline v16 v_load_i8(const void *p)
{
    int8_t q[16];
    v16 r;
    memcpy(q, p, sizeof q);
    EACH r.f[i] = q[i];
    return r;
}

static inline void v_store_f16(uint16_t *p, v16 a)
{
    EACH p[i] = hg_f32_to_f16(a.f[i]);
}

static inline v16 v_add(v16 a, v16 b)
{
    EACH a.f[i] += b.f[i];
    return a;
}

static inline v16 v_sub(v16 a, v16 b)
{
    EACH a.f[i] -= b.f[i];
    return a;
}

static inline v16 v_mul(v16 a, v16 b)
{
    EACH a.f[i] *= b.f[i];
    return a;
}

static inline v16 v_div(v16 a, v16 b)
{
    EACH a.f[i] /= b.f[i];
    return a;
}

/* Two roundings: fmaf without the instruction costs more than the arithmetic around it. */
static inline v16 v_fma(v16 a, v16 b, v16 c)
{
    EACH c.f[i] += a.f[i] * b.f[i];
    return c;
}

static inline v16 v_max(v16 a, v16 b)
{
    EACH a.f[i] = a.f[i] > b.f[i] ? a.f[i] : b.f[i];
    return a;
}

static inline v16 v_min(v16 a, v16 b)
{
    EACH a.f[i] = a.f[i] < b.f[i] ? a.f[i] : b.f[i];
    return a;
}

static inline v16 v_round(v16 a)
{
    EACH a.f[i] = rintf(a.f[i]);
    return a;
}

/* 2^n for whole n in [-126, 127]; anything for NaN. */
static inline v16 v_pow2(v16 n)
{
    EACH n.f[i] = hg_bits_float((uint32_t)((n.f[i] == n.f[i] ? (int32_t)n.f[i] : 0) + 127) << 23);
    return n;
}

/* y where x >= limit or x is NaN, else 0. */
static inline v16 v_zero_below(v16 x, float limit, v16 y)
{
    EACH y.f[i] = x.f[i] < limit ? 0 : y.f[i];
    return y;
}

static inline v16i vi_set1(int32_t n)
{
    v16i r;
    EACH r.u[i] = (uint32_t)n;
    return r;
}

static inline v16i vi_zero(void)
{
    return vi_set1(0);
}

static inline v16i vi_load(const void *p)
{
    v16i r;
    memcpy(&r, p, sizeof r);
    return r;
}

static inline void vi_store(void *p, v16i a)
{
    memcpy(p, &a, sizeof a);
}

static inline v16 vi_bf16_even(v16i a)
{
    v16 r;
    EACH r.f[i] = hg_bits_float(a.u[i] << 16);
    return r;
}

static inline v16 vi_bf16_odd(v16i a)
{
    v16 r;
    EACH r.f[i] = hg_bits_float(a.u[i] & 0xffff0000u);
    return r;
}

static inline v16i vi_add(v16i a, v16i b)
{
    EACH a.u[i] += b.u[i];
    return a;
}

static inline v16i vi_sub(v16i a, v16i b)
{
    EACH a.u[i] -= b.u[i];
    return a;
}

static inline v16 vi_to_float(v16i a)
{
    v16 r;
    EACH r.f[i] = (float)(int32_t)a.u[i];
    return r;
}

/* Whole numbers within int32. */
static inline v16i vi_of_float(v16 a)
{
    v16i r;
    EACH r.u[i] = (uint32_t)(int32_t)a.f[i];
    return r;
}

static inline void vi_store_i8(int8_t *p, v16i a)
{
    EACH p[i] = (int8_t)(int32_t)a.u[i];
}

/* acc += 4 products of unsigned bytes of w with signed bytes of x, modulo 2^32 */
static inline v16i vi_dot4(v16i acc, v16i w, v16i x)
{
    uint8_t wb[64];
    int8_t xb[64];
    memcpy(wb, &w, sizeof wb);
    memcpy(xb, &x, sizeof xb);
    EACH
    {
        int32_t sum = 0;
        for (int j = 0; j < 4; j++)
            sum += wb[4 * i + j] * xb[4 * i + j];
        acc.u[i] += (uint32_t)sum;
    }
    return acc;
}

static inline v16i vi_low4(v16i a)
{
    EACH a.u[i] &= 0x0f0f0f0fu;
    return a;
}

static inline v16i vi_high4(v16i a)
{
    EACH a.u[i] = a.u[i] >> 4 & 0x0f0f0f0fu;
    return a;
}

/* vi_dot4 of both; bytes of w and v at most 15 */
static inline v16i vi_dot8(v16i acc, v16i w, v16i x, v16i v, v16i y)
{
    return vi_dot4(vi_dot4(acc, w, x), v, y);
}

#define MOST_ROWS 1
#define ROWS_I4 1
#define ROWS_1 1
#define ROWS_2 1
#define SIMD_TABLE cpu_simd_scalar
#define SIMD_NAME "scalar"
#include "kernels/cpu/simd_body.h"
