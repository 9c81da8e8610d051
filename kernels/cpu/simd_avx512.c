/* kernels/cpu/simd_avx512.c - the primitives with AVX-512 F, BW, DQ and VL: a vector is one zmm.
 *
 * Needs neither VNNI nor BF16; simd_avx512_dot.c replaces three tiles where the processor has them.
 */
#if defined(__x86_64__)
#include <immintrin.h>
#include <stdint.h>

typedef __m512 v16;
typedef __m512i v16i;

#define INLINE static inline __attribute__((always_inline))

INLINE v16 v_zero(void)
{
    return _mm512_setzero_ps();
}

INLINE v16 v_set1(float f)
{
    return _mm512_set1_ps(f);
}

INLINE v16 v_load(const float *p)
{
    return _mm512_loadu_ps(p);
}

INLINE void v_store(float *p, v16 v)
{
    _mm512_storeu_ps(p, v);
}

INLINE v16 v_load_f16(const void *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256(p));
}

INLINE v16 v_load_bf16(const void *p)
{
    __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}

/* E4M3 as binary16 of 2^-8 of the value: sign extended, the sign lands on bits 15 and 14; bit 14 is
 * cleared. */
INLINE v16 v_load_f8(const void *p)
{
    __m256i wide = _mm256_slli_epi16(_mm256_cvtepi8_epi16(_mm_loadu_si128(p)), 7);
    return _mm512_cvtph_ps(_mm256_and_si256(wide, _mm256_set1_epi16((short)0xbfff)));
}

INLINE v16 v_load_i8(const void *p)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(p)));
}

INLINE void v_store_f16(uint16_t *p, v16 v)
{
    _mm256_storeu_si256((__m256i *)(void *)p, _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
}

INLINE v16 v_add(v16 a, v16 b)
{
    return _mm512_add_ps(a, b);
}

INLINE v16 v_sub(v16 a, v16 b)
{
    return _mm512_sub_ps(a, b);
}

INLINE v16 v_mul(v16 a, v16 b)
{
    return _mm512_mul_ps(a, b);
}

INLINE v16 v_div(v16 a, v16 b)
{
    return _mm512_div_ps(a, b);
}

INLINE v16 v_max(v16 a, v16 b)
{
    return _mm512_max_ps(a, b);
}

INLINE v16 v_min(v16 a, v16 b)
{
    return _mm512_min_ps(a, b);
}

/* One instruction by name: given the intrinsic, gcc 12 hoists the broadcasts of a 12 x 32 tile out
 * of the loop body's order and spills the sums. */
INLINE v16 v_fma(v16 a, v16 b, v16 c)
{
    __asm__("vfmadd231ps %2, %1, %0" : "+v"(c) : "v"(a), "v"(b));
    return c;
}

INLINE v16 v_round(v16 v)
{
    return _mm512_roundscale_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

INLINE v16 v_pow2(v16 n)
{
    return _mm512_scalef_ps(_mm512_set1_ps(1.0f), n);
}

INLINE v16 v_zero_below(v16 x, float limit, v16 y)
{
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, _mm512_set1_ps(limit), _CMP_NLT_UQ), y);
}

INLINE v16i vi_zero(void)
{
    return _mm512_setzero_si512();
}

INLINE v16i vi_set1(int32_t n)
{
    return _mm512_set1_epi32(n);
}

INLINE v16i vi_load(const void *p)
{
    return _mm512_loadu_si512(p);
}

INLINE void vi_store(void *p, v16i v)
{
    _mm512_storeu_si512(p, v);
}

INLINE v16 vi_bf16_even(v16i v)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(v, 16));
}

INLINE v16 vi_bf16_odd(v16i v)
{
    return _mm512_castsi512_ps(_mm512_and_si512(v, _mm512_set1_epi32((int)0xffff0000u)));
}

INLINE v16i vi_add(v16i a, v16i b)
{
    return _mm512_add_epi32(a, b);
}

INLINE v16i vi_sub(v16i a, v16i b)
{
    return _mm512_sub_epi32(a, b);
}

INLINE v16 vi_to_float(v16i v)
{
    return _mm512_cvtepi32_ps(v);
}

INLINE v16i vi_of_float(v16 v)
{
    return _mm512_cvtps_epi32(v);
}

INLINE void vi_store_i8(int8_t *p, v16i v)
{
    _mm_storeu_si128((__m128i *)(void *)p, _mm512_cvtepi32_epi8(v));
}

INLINE v16i vi_dot4(v16i acc, v16i w, v16i x)
{
    __m512i w_even = _mm512_and_si512(w, _mm512_set1_epi16(255)), w_odd = _mm512_srli_epi16(w, 8);
    __m512i x_even = _mm512_srai_epi16(_mm512_slli_epi16(x, 8), 8), x_odd = _mm512_srai_epi16(x, 8);
    acc = _mm512_add_epi32(acc, _mm512_madd_epi16(w_even, x_even));
    return _mm512_add_epi32(acc, _mm512_madd_epi16(w_odd, x_odd));
}

INLINE v16i vi_low4(v16i v)
{
    return _mm512_and_si512(v, _mm512_set1_epi8(15));
}

INLINE v16i vi_high4(v16i v)
{
    return vi_low4(_mm512_srli_epi16(v, 4));
}

/* Bytes of w and v are at most 15: the four products of a pair are within 16 bits. */
INLINE v16i vi_dot8(v16i acc, v16i w, v16i x, v16i v, v16i y)
{
    __m512i pairs = _mm512_add_epi16(_mm512_maddubs_epi16(w, x), _mm512_maddubs_epi16(v, y));
    return _mm512_add_epi32(acc, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)));
}

#define MOST_ROWS 12
#define ROWS_I4 8
#define ROWS_1 12
#define ROWS_2 12
#define SIMD_TABLE cpu_simd_avx512
#define SIMD_NAME "avx512"
#include "kernels/cpu/simd_body.h"
#endif
