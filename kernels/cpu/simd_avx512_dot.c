/* kernels/cpu/simd_avx512_dot.c - the two tiles that have their own instruction: vdpbf16ps for bf16
 * pairs, vpdpbusd for int8 quads.
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

enum { DOT_BF16, DOT_I8, AHEAD = 2048 /* bytes */ };

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
        low_##r = _mm512_loadu_si512(acc + (r)*t->ld_acc);                                         \
        if (width == 2)                                                                            \
            high_##r = _mm512_loadu_si512(acc + (r)*t->ld_acc + CPU_LANES);                        \
    }
#define STEP(r)                                                                                    \
    if ((r) < rows) {                                                                              \
        int32_t bits;                                                                              \
        memcpy(&bits, x + (r)*t->ldx, sizeof bits);                                                \
        __m512i s = _mm512_set1_epi32(bits);                                                       \
        low_##r = dot(low_##r, low, s, kind);                                                      \
        if (width == 2)                                                                            \
            high_##r = dot(high_##r, high, s, kind);                                               \
    }
#define END(r)                                                                                     \
    if ((r) < rows) {                                                                              \
        _mm512_storeu_si512(acc + (r)*t->ld_acc, low_##r);                                         \
        if (width == 2)                                                                            \
            _mm512_storeu_si512(acc + (r)*t->ld_acc + CPU_LANES, high_##r);                        \
    }

/* NOLINTNEXTLINE(readability-function-size): CPU_EACH_ROW_12 counts as its expansion */
ALWAYS_INLINE void tile_rows(const struct cpu_tile *t, int row0, const int rows, const int width,
                             const int kind)
{
    const char *w = t->w, *x = (const char *)t->x + row0 * t->ldx;
    float *acc = t->acc + row0 * t->ld_acc;
    CPU_EACH_ROW_12(BEGIN)
    for (int64_t k = 0; k < t->n_k; k++, w += t->w_step, x += 4) {
        __m512i low = _mm512_loadu_si512(w);
        __m512i high = width == 2 ? _mm512_loadu_si512(w + 64) : low;
        if (rows > 1 && rows < 12) { /* one row outruns the memory anyway, 12 are bound by sums */
            _mm_prefetch(w + AHEAD, _MM_HINT_T0);
            if (width == 2)
                _mm_prefetch(w + AHEAD + 64, _MM_HINT_T0);
        }
        CPU_EACH_ROW_12(STEP)
    }
    CPU_EACH_ROW_12(END)
}

#define TILE_CASE(R)                                                                               \
    case R:                                                                                        \
        tile_rows(t, row, R, width, kind);                                                         \
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
#endif
