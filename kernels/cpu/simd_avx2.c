/* kernels/cpu/simd_avx2.c - the primitives with AVX2, FMA and F16C: a vector is two ymm. */
#if defined(__x86_64__)
#include <immintrin.h>
#include <stdint.h>

struct v16 {
    __m256 a, b;
};

struct v16i {
    __m256i a, b;
};

typedef struct v16 v16;
typedef struct v16i v16i;

#define INLINE static inline __attribute__((always_inline))

INLINE v16 v_set1(float f)
{
    __m256 v = _mm256_set1_ps(f);
    return (v16){v, v};
}

INLINE v16 v_zero(void)
{
    return v_set1(0);
}

INLINE v16 v_load(const float *p)
{
    return (v16){_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)};
}

INLINE void v_store(float *p, v16 v)
{
    _mm256_storeu_ps(p, v.a);
    _mm256_storeu_ps(p + 8, v.b);
}

INLINE v16 v_load_f16(const void *p)
{
    const __m128i *h = p;
    return (v16){_mm256_cvtph_ps(_mm_loadu_si128(h)), _mm256_cvtph_ps(_mm_loadu_si128(h + 1))};
}

INLINE void v_store_f16(uint16_t *p, v16 v)
{
    __m128i *h = (__m128i *)(void *)p;
    _mm_storeu_si128(h, _mm256_cvtps_ph(v.a, _MM_FROUND_TO_NEAREST_INT));
    _mm_storeu_si128(h + 1, _mm256_cvtps_ph(v.b, _MM_FROUND_TO_NEAREST_INT));
}

INLINE __m256 widen_bf16(__m128i h)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}

INLINE v16 v_load_bf16(const void *p)
{
    const __m128i *h = p;
    return (v16){widen_bf16(_mm_loadu_si128(h)), widen_bf16(_mm_loadu_si128(h + 1))};
}

/* E4M3 as binary16 of 2^-8 of the value: sign extended, the sign lands on bits 15 and 14; bit 14 is
 * cleared. */
INLINE __m256 widen_f8(const void *p)
{
    __m128i wide = _mm_cvtepi8_epi16(_mm_loadl_epi64(p));
    wide = _mm_and_si128(_mm_slli_epi16(wide, 7), _mm_set1_epi16((short)0xbfff));
    return _mm256_cvtph_ps(wide);
}

INLINE v16 v_load_f8(const void *p)
{
    return (v16){widen_f8(p), widen_f8((const char *)p + 8)};
}

INLINE __m256 widen_i8(__m128i q)
{
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(q));
}

INLINE v16 v_load_i8(const void *p)
{
    __m128i q = _mm_loadu_si128(p);
    return (v16){widen_i8(q), widen_i8(_mm_srli_si128(q, 8))};
}

#define TWICE(name, intrinsic)                                                                     \
    INLINE v16 name(v16 x, v16 y)                                                                  \
    {                                                                                              \
        return (v16){intrinsic(x.a, y.a), intrinsic(x.b, y.b)};                                    \
    }
TWICE(v_add, _mm256_add_ps)
TWICE(v_sub, _mm256_sub_ps)
TWICE(v_mul, _mm256_mul_ps)
TWICE(v_div, _mm256_div_ps)
TWICE(v_max, _mm256_max_ps)
TWICE(v_min, _mm256_min_ps)

INLINE v16 v_fma(v16 x, v16 y, v16 z)
{
    return (v16){_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)};
}

INLINE v16 v_round(v16 v)
{
    enum { NEAREST = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC };
    return (v16){_mm256_round_ps(v.a, NEAREST), _mm256_round_ps(v.b, NEAREST)};
}

INLINE __m256 pow2_half(__m256 n)
{
    __m256i e = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
    return _mm256_castsi256_ps(_mm256_slli_epi32(e, 23));
}

INLINE v16 v_pow2(v16 n)
{
    return (v16){pow2_half(n.a), pow2_half(n.b)};
}

INLINE v16 v_zero_below(v16 x, float limit, v16 y)
{
    __m256 l = _mm256_set1_ps(limit);
    return (v16){_mm256_andnot_ps(_mm256_cmp_ps(x.a, l, _CMP_LT_OQ), y.a),
                 _mm256_andnot_ps(_mm256_cmp_ps(x.b, l, _CMP_LT_OQ), y.b)};
}

INLINE v16i vi_set1(int32_t n)
{
    __m256i v = _mm256_set1_epi32(n);
    return (v16i){v, v};
}

INLINE v16i vi_zero(void)
{
    return vi_set1(0);
}

INLINE v16i vi_load(const void *p)
{
    const __m256i *q = p;
    return (v16i){_mm256_loadu_si256(q), _mm256_loadu_si256(q + 1)};
}

INLINE void vi_store(void *p, v16i v)
{
    __m256i *q = p;
    _mm256_storeu_si256(q, v.a);
    _mm256_storeu_si256(q + 1, v.b);
}

INLINE v16 vi_bf16_even(v16i v)
{
    return (v16){_mm256_castsi256_ps(_mm256_slli_epi32(v.a, 16)),
                 _mm256_castsi256_ps(_mm256_slli_epi32(v.b, 16))};
}

INLINE v16 vi_bf16_odd(v16i v)
{
    __m256i mask = _mm256_set1_epi32((int)0xffff0000u);
    return (v16){_mm256_castsi256_ps(_mm256_and_si256(v.a, mask)),
                 _mm256_castsi256_ps(_mm256_and_si256(v.b, mask))};
}

INLINE v16i vi_add(v16i x, v16i y)
{
    return (v16i){_mm256_add_epi32(x.a, y.a), _mm256_add_epi32(x.b, y.b)};
}

INLINE v16i vi_sub(v16i x, v16i y)
{
    return (v16i){_mm256_sub_epi32(x.a, y.a), _mm256_sub_epi32(x.b, y.b)};
}

INLINE v16 vi_to_float(v16i v)
{
    return (v16){_mm256_cvtepi32_ps(v.a), _mm256_cvtepi32_ps(v.b)};
}

INLINE v16i vi_of_float(v16 v)
{
    return (v16i){_mm256_cvtps_epi32(v.a), _mm256_cvtps_epi32(v.b)};
}

INLINE void vi_store_i8(int8_t *p, v16i v)
{
    __m128i a = _mm_packs_epi32(_mm256_castsi256_si128(v.a), _mm256_extracti128_si256(v.a, 1));
    __m128i b = _mm_packs_epi32(_mm256_castsi256_si128(v.b), _mm256_extracti128_si256(v.b, 1));
    _mm_storeu_si128((__m128i *)(void *)p, _mm_packs_epi16(a, b));
}

/* vpmaddubsw would saturate 255 * 127 * 2; 16-bit halves are exact. */
INLINE __m256i dot4_half(__m256i acc, __m256i w, __m256i x)
{
    __m256i w_even = _mm256_and_si256(w, _mm256_set1_epi16(255)), w_odd = _mm256_srli_epi16(w, 8);
    __m256i x_even = _mm256_srai_epi16(_mm256_slli_epi16(x, 8), 8), x_odd = _mm256_srai_epi16(x, 8);
    acc = _mm256_add_epi32(acc, _mm256_madd_epi16(w_even, x_even));
    return _mm256_add_epi32(acc, _mm256_madd_epi16(w_odd, x_odd));
}

INLINE v16i vi_dot4(v16i acc, v16i w, v16i x)
{
    return (v16i){dot4_half(acc.a, w.a, x.a), dot4_half(acc.b, w.b, x.b)};
}

INLINE v16i vi_low4(v16i v)
{
    __m256i mask = _mm256_set1_epi8(15);
    return (v16i){_mm256_and_si256(v.a, mask), _mm256_and_si256(v.b, mask)};
}

INLINE v16i vi_high4(v16i v)
{
    return vi_low4((v16i){_mm256_srli_epi16(v.a, 4), _mm256_srli_epi16(v.b, 4)});
}

/* Bytes of w and v are at most 15: the four products of a pair are within 16 bits. */
INLINE __m256i dot8_half(__m256i acc, __m256i w, __m256i x, __m256i v, __m256i y)
{
    __m256i pairs = _mm256_add_epi16(_mm256_maddubs_epi16(w, x), _mm256_maddubs_epi16(v, y));
    return _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

INLINE v16i vi_dot8(v16i acc, v16i w, v16i x, v16i v, v16i y)
{
    return (v16i){dot8_half(acc.a, w.a, x.a, v.a, y.a), dot8_half(acc.b, w.b, x.b, v.b, y.b)};
}

/* 16 registers: 12 sums, 2..4 columns, 1 broadcast. */
#define MOST_ROWS 6
#define ROWS_1 6
#define ROWS_2 3
#define ROWS_I4 2
#define SIMD_TABLE cpu_simd_avx2
#define SIMD_NAME "avx2"
#include "kernels/cpu/simd_body.h"
#endif
