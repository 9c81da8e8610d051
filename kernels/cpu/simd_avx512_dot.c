/* kernels/cpu/simd_avx512_dot.c - the tiles that have their own instruction: vdpbf16ps for bf16
 * pairs, vpdpbusd for int8 quads and for the nibbles of int4.
 *
 * vdpbf16ps takes denormal inputs as zero, flushes denormal sums and adds its two products with one
 * rounding each, so bf16 results differ from the other paths in the last bits of the fp32 sum.
 *
 * The instructions are written as one-line asm: from intrinsics gcc 12 makes a 12 x 32 tile that
 * spills its sums (2.8 times slower); clang compiles both forms alike. */
#if defined(__x86_64__)
#include <immintrin.h>
#include <string.h>

#include "kernels/cpu/simd.h"

#define ALWAYS_INLINE static inline __attribute__((always_inline))

enum { DOT_BF16, DOT_I8, DOT_I4, AHEAD = 2048 /* bytes */ };

ALWAYS_INLINE __m512i dot(__m512i acc, __m512i w, __m512i x, const int kind)
{
#if defined(__clang__)
    if (kind == DOT_BF16)
        return (__m512i)_mm512_dpbf16_ps((__m512)acc, (__m512bh)w, (__m512bh)x);
    return _mm512_dpbusd_epi32(acc, w, x);
#else
    if (kind == DOT_BF16)
        __asm__("vdpbf16ps %2, %1, %0" : "+v"(acc) : "v"(w), "v"(x));
    else
        __asm__("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(w), "v"(x));
    return acc;
#endif
}

#define BEGIN(r)                                                                                   \
    __m512i low_##r = _mm512_setzero_si512(), high_##r = low_##r;                                  \
    if ((r) < rows && !t->first) {                                                                 \
        low_##r = _mm512_loadu_si512(acc + (r)*ld_acc);                                            \
        if (width == 2)                                                                            \
            high_##r = _mm512_loadu_si512(acc + (r)*ld_acc + CPU_LANES);                           \
    }
#define STEP(r)                                                                                    \
    if ((r) < rows) {                                                                              \
        int32_t bits;                                                                              \
        memcpy(&bits, CPU_ROW_AT(r), sizeof bits);                                                 \
        __m512i s = _mm512_set1_epi32(bits);                                                       \
        low_##r = dot(low_##r, low, s, kind);                                                      \
        if (width == 2)                                                                            \
            high_##r = dot(high_##r, high, s, kind);                                               \
    }
#define END(r)                                                                                     \
    if ((r) < rows) {                                                                              \
        _mm512_storeu_si512(acc + (r)*ld_acc, low_##r);                                            \
        if (width == 2)                                                                            \
            _mm512_storeu_si512(acc + (r)*ld_acc + CPU_LANES, high_##r);                           \
    }

/* NOLINTNEXTLINE(readability-function-size): CPU_EACH_ROW_12 counts as its expansion */
ALWAYS_INLINE void tile_rows(const struct cpu_tile *t, int row0, const int rows, const int width,
                             const int kind)
{
    const char *w = t->w;
    const int64_t ld_acc =
        t->ld_acc; /* stores to acc might change *t, for all the compiler knows */
    float *acc = t->acc + row0 * ld_acc;
    CPU_ROWS_BEGIN((const char *)t->x + row0 * t->ldx, rows, t->ldx);
    CPU_EACH_ROW_12(BEGIN)
    for (int64_t k = 0; k < t->n_k; k++, w += t->w_step, CPU_ROWS_NEXT(4)) {
        __m512i low = _mm512_loadu_si512(w);
        __m512i high = width == 2 ? _mm512_loadu_si512(w + 64) : low;
        if (rows > 1) { /* one row outruns the memory anyway */
            _mm_prefetch(w + AHEAD, _MM_HINT_T0);
            if (width == 2)
                _mm_prefetch(w + AHEAD + 64, _MM_HINT_T0);
        }
        CPU_EACH_ROW_12(STEP)
    }
    CPU_EACH_ROW_12(END)
}

#undef BEGIN
#undef STEP
#undef END

#define BEGIN(r)                                                                                   \
    __m512i low_##r = _mm512_setzero_si512(), high_##r = low_##r;                                  \
    if ((r) < rows)                                                                                \
        low_##r = high_##r = _mm512_set1_epi32(-8 * x_sum[(r)*ld_scale + g]);
#define STEP(r)                                                                                    \
    if ((r) < rows) {                                                                              \
        int32_t bits[2];                                                                           \
        memcpy(bits, CPU_ROW_AT(r), sizeof bits);                                                  \
        __m512i first = _mm512_set1_epi32(bits[0]), second = _mm512_set1_epi32(bits[1]);           \
        low_##r = dot(dot(low_##r, low0, first, DOT_I4), low1, second, DOT_I4);                    \
        if (width == 2)                                                                            \
            high_##r = dot(dot(high_##r, high0, first, DOT_I4), high1, second, DOT_I4);            \
    }
#define END(r)                                                                                     \
    if ((r) < rows) {                                                                              \
        float *to = acc + (r)*ld_acc;                                                              \
        add_group(to, low_##r, s_low, x_scale[(r)*ld_scale + g], fresh);                           \
        if (width == 2)                                                                            \
            add_group(to + CPU_LANES, high_##r, s_high, x_scale[(r)*ld_scale + g], fresh);         \
    }

/* to (+)= sum * w_scale * x_scale */
ALWAYS_INLINE void add_group(float *to, __m512i sum, __m512 w_scale, float x_scale, bool fresh)
{
    __m512 was = fresh ? _mm512_setzero_ps() : _mm512_loadu_ps(to);
    __m512 scale = _mm512_mul_ps(_mm512_set1_ps(x_scale), w_scale);
    _mm512_storeu_ps(to, _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), scale, was));
}

ALWAYS_INLINE __m512 load_scales(const uint16_t *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)p));
}

/* As tile_group_rows of simd_tiles.h. NOLINTNEXTLINE(readability-function-size): as above */
ALWAYS_INLINE void group_rows(const struct cpu_tile *t, int row0, const int rows, const int width)
{
    const char *w = t->w;
    const int64_t ld_scale = t->ld_scale, w_step = t->w_step;
    const float *x_scale = t->x_scale + row0 * ld_scale;
    const int32_t *x_sum = t->x_sum + row0 * ld_scale;
    const int64_t ld_acc =
        t->ld_acc; /* stores to acc might change *t, for all the compiler knows */
    float *acc = t->acc + row0 * ld_acc;
    CPU_ROWS_BEGIN((const char *)t->x + row0 * t->ldx, rows, t->ldx);
    const __m512i mask = _mm512_set1_epi8(15);
    for (int64_t k = 0, g = 0; k < t->n_k; g++) {
        int64_t end = k + CPU_I4_STEPS < t->n_k ? k + CPU_I4_STEPS : t->n_k;
        const uint16_t *w_scale = t->w_scale + g * width * CPU_LANES;
        bool fresh = t->first && g == 0;
        CPU_EACH_ROW_12(BEGIN)
        for (; k < end; k++, w += w_step, CPU_ROWS_NEXT(8)) {
            __m512i low = _mm512_loadu_si512(w);
            __m512i high = width == 2 ? _mm512_loadu_si512(w + 64) : low;
            __m512i low0 = _mm512_and_si512(low, mask), high0 = _mm512_and_si512(high, mask);
            __m512i low1 = _mm512_and_si512(_mm512_srli_epi16(low, 4), mask);
            __m512i high1 = _mm512_and_si512(_mm512_srli_epi16(high, 4), mask);
            _mm_prefetch(w + AHEAD, _MM_HINT_T0);
            if (width == 2)
                _mm_prefetch(w + AHEAD + 64, _MM_HINT_T0);
            CPU_EACH_ROW_12(STEP)
        }
        __m512 s_low = load_scales(w_scale), s_high = s_low;
        if (width == 2)
            s_high = load_scales(w_scale + CPU_LANES);
        CPU_EACH_ROW_12(END)
    }
}

#define TILE_CASE(R)                                                                               \
    case R:                                                                                        \
        if (kind == DOT_I4)                                                                        \
            group_rows(t, row, R, width);                                                          \
        else                                                                                       \
            tile_rows(t, row, R, width, kind);                                                     \
        break;

ALWAYS_INLINE void tile_all(const struct cpu_tile *t, const int width, const int kind)
{
    for (int row = 0, n = 0; row < t->n_rows; row += n) {
        n = t->n_rows - row;
        n = n >= 12 ? 12 : n > 8 ? 8 : n;
        switch (n) {
            TILE_CASE(1)
            TILE_CASE(2)
            TILE_CASE(3)
            TILE_CASE(4)
            TILE_CASE(5)
            TILE_CASE(6)
            TILE_CASE(7)
            TILE_CASE(8)
            TILE_CASE(12)
        }
    }
}

void cpu_tile_avx512_bf16(const struct cpu_tile *t)
{
    if (t->width == 2)
        tile_all(t, 2, DOT_BF16);
    else
        tile_all(t, 1, DOT_BF16);
}

void cpu_tile_avx512_vnni(const struct cpu_tile *t)
{
    if (t->width == 2)
        tile_all(t, 2, DOT_I8);
    else
        tile_all(t, 1, DOT_I8);
}

void cpu_tile_avx512_vnni_i4(const struct cpu_tile *t)
{
    if (t->width == 2)
        tile_all(t, 2, DOT_I4);
    else
        tile_all(t, 1, DOT_I4);
}
#endif
