/* kernels/cpu/simd_body.h - the primitives of simd.h, written once over 16-lane vectors.
 *
 * Included by exactly one .c file per instruction set, after that file has defined
 *   v16, v16i                        16 floats, 16 int32
 *   v_zero v_set1 v_load v_store v_load_f16 v_load_bf16 v_load_i8 v_store_f16
 *   v_add v_sub v_mul v_div v_fma v_max v_min v_abs v_round v_pow2 v_zero_below
 *   vi_zero vi_load vi_store vi_store_i8 vi_set1 vi_add vi_sub vi_dot4 vi_bf16_even vi_bf16_odd
 *   vi_to_float vi_of_float
 *   MOST_ROWS                        rows of the largest tile: 1, 6 or 12
 *   ROWS_1, ROWS_2                   the same by width
 *   SIMD_TABLE, SIMD_NAME            what to define
 * v_max(a, b) and v_min(a, b) return b when either is NaN. */
#include <math.h>
#include <string.h>

#include "common/half.h"
#include "kernels/cpu/simd.h"

#if MOST_ROWS == 12
#define EACH_ROW CPU_EACH_ROW_12
#elif MOST_ROWS == 6
#define EACH_ROW CPU_EACH_ROW_6
#else
#define EACH_ROW CPU_EACH_ROW_1
#endif

#define ALWAYS_INLINE static inline __attribute__((always_inline))

/* ---- tiles ----------------------------------------------------------------------------------- */

ALWAYS_INLINE v16 load_column(const char *w, const int form)
{
    if (form == CPU_FORM_F16)
        return v_load_f16(w);
    if (form == CPU_FORM_BF16_FLAT)
        return v_load_bf16(w);
    if (form == CPU_FORM_I8_FLAT)
        return v_load_i8(w);
    return v_load((const float *)(const void *)w);
}

#define TILE_BEGIN(r)                                                                              \
    V low_##r = ZERO(), high_##r = ZERO();                                                         \
    if ((r) < rows && !t->first) {                                                                 \
        low_##r = LOAD(acc + (r)*t->ld_acc);                                                       \
        if (width == 2)                                                                            \
            high_##r = LOAD(acc + (r)*t->ld_acc + CPU_LANES);                                      \
    }
#define TILE_END(r)                                                                                \
    if ((r) < rows) {                                                                              \
        STORE(acc + (r)*t->ld_acc, low_##r);                                                       \
        if (width == 2)                                                                            \
            STORE(acc + (r)*t->ld_acc + CPU_LANES, high_##r);                                      \
    }

#define V v16
#define ZERO v_zero
#define LOAD v_load
#define STORE v_store
#define STEP(r)                                                                                    \
    if ((r) < rows) {                                                                              \
        v16 s = v_set1(*(const float *)(const void *)(x + (r)*t->ldx));                            \
        low_##r = v_fma(s, low, low_##r);                                                          \
        if (width == 2)                                                                            \
            high_##r = v_fma(s, high, high_##r);                                                   \
    }

/* NOLINTNEXTLINE(readability-function-size): EACH_ROW counts as its expansion */
ALWAYS_INLINE void tile_float_rows(const struct cpu_tile *t, int row0, const int rows,
                                   const int width, const int form)
{
    const char *w = t->w, *x = (const char *)t->x + row0 * t->ldx;
    float *acc = t->acc + row0 * t->ld_acc;
    EACH_ROW(TILE_BEGIN)
    for (int64_t k = 0; k < t->n_k; k++, w += t->w_step, x += sizeof(float)) {
        v16 low = load_column(w, form);
        v16 high = width == 2 ? load_column(w + (form == CPU_FORM_F32 ? 64 : 32), form) : low;
        EACH_ROW(STEP)
    }
    EACH_ROW(TILE_END)
}
#undef STEP

/* bf16 pairs without vdpbf16ps: two fp32 steps per k group, even then odd. */
#define STEP(r)                                                                                    \
    if ((r) < rows) {                                                                              \
        uint32_t bits;                                                                             \
        memcpy(&bits, x + (r)*t->ldx, sizeof bits);                                                \
        v16 s_even = v_set1(hg_bits_float(bits << 16));                                            \
        v16 s_odd = v_set1(hg_bits_float(bits & 0xffff0000u));                                     \
        low_##r = v_fma(s_odd, odd, v_fma(s_even, even, low_##r));                                 \
        if (width == 2)                                                                            \
            high_##r = v_fma(s_odd, high_odd, v_fma(s_even, high_even, high_##r));                 \
    }

/* NOLINTNEXTLINE(readability-function-size): EACH_ROW counts as its expansion */
ALWAYS_INLINE void tile_pair_rows(const struct cpu_tile *t, int row0, const int rows,
                                  const int width)
{
    const char *w = t->w, *x = (const char *)t->x + row0 * t->ldx;
    float *acc = t->acc + row0 * t->ld_acc;
    EACH_ROW(TILE_BEGIN)
    for (int64_t k = 0; k < t->n_k; k++, w += t->w_step, x += 4) {
        v16i low = vi_load(w), high = width == 2 ? vi_load(w + 64) : low;
        v16 even = vi_bf16_even(low), odd = vi_bf16_odd(low);
        v16 high_even = vi_bf16_even(high), high_odd = vi_bf16_odd(high);
        EACH_ROW(STEP)
    }
    EACH_ROW(TILE_END)
}
#undef STEP
#undef V
#undef ZERO
#undef LOAD
#undef STORE

#define V v16i
#define ZERO vi_zero
#define LOAD vi_load
#define STORE vi_store
#define STEP(r)                                                                                    \
    if ((r) < rows) {                                                                              \
        int32_t bits;                                                                              \
        memcpy(&bits, x + (r)*t->ldx, sizeof bits);                                                \
        v16i s = vi_set1(bits);                                                                    \
        low_##r = vi_dot4(low_##r, low, s);                                                        \
        if (width == 2)                                                                            \
            high_##r = vi_dot4(high_##r, high, s);                                                 \
    }

/* NOLINTNEXTLINE(readability-function-size): EACH_ROW counts as its expansion */
ALWAYS_INLINE void tile_int_rows(const struct cpu_tile *t, int row0, const int rows,
                                 const int width)
{
    const char *w = t->w, *x = (const char *)t->x + row0 * t->ldx;
    float *acc = t->acc + row0 * t->ld_acc;
    EACH_ROW(TILE_BEGIN)
    for (int64_t k = 0; k < t->n_k; k++, w += t->w_step, x += 4) {
        v16i low = vi_load(w), high = width == 2 ? vi_load(w + 64) : low;
        EACH_ROW(STEP)
    }
    EACH_ROW(TILE_END)
}
#undef STEP

ALWAYS_INLINE void tile_rows(const struct cpu_tile *t, int row0, const int rows, const int width,
                             const int form)
{
    if (form == CPU_FORM_BF16)
        tile_pair_rows(t, row0, rows, width);
    else if (form == CPU_FORM_I8)
        tile_int_rows(t, row0, rows, width);
    else
        tile_float_rows(t, row0, rows, width, form);
}

/* Cuts the rows into tiles of a size known at compile time: 12, 8, 7, ... 1, at most `most`. */
#define TILE_CASE(R)                                                                               \
    case R:                                                                                        \
        if ((R) <= most)                                                                           \
            tile_rows(t, row, R, width, form);                                                     \
        break;

ALWAYS_INLINE void tile_all(const struct cpu_tile *t, const int width, const int most,
                            const int form)
{
    for (int row = 0, n = 0; row < t->n_rows; row += n) {
        n = t->n_rows - row < most ? t->n_rows - row : most;
        if (n > 8 && n < 12)
            n = 8;
        switch (n) {
            TILE_CASE(1)
#if MOST_ROWS > 1
            TILE_CASE(2)
            TILE_CASE(3)
            TILE_CASE(4)
            TILE_CASE(5)
            TILE_CASE(6)
#endif
#if MOST_ROWS > 6
            TILE_CASE(7)
            TILE_CASE(8)
            TILE_CASE(12)
#endif
        }
    }
}

#define TILE_FORM(name, form)                                                                      \
    static void name(const struct cpu_tile *t)                                                     \
    {                                                                                              \
        if (t->width == 2)                                                                         \
            tile_all(t, 2, ROWS_2, form);                                                          \
        else                                                                                       \
            tile_all(t, 1, ROWS_1, form);                                                          \
    }

TILE_FORM(tile_f32, CPU_FORM_F32)
TILE_FORM(tile_f16, CPU_FORM_F16)
TILE_FORM(tile_bf16, CPU_FORM_BF16)
TILE_FORM(tile_i8, CPU_FORM_I8)
TILE_FORM(tile_bf16_flat, CPU_FORM_BF16_FLAT)
TILE_FORM(tile_i8_flat, CPU_FORM_I8_FLAT)

ALWAYS_INLINE void strip(const struct cpu_strip *s, const int form)
{
    int64_t step = s->w_step;
    int p = 0;
    for (; p + CPU_STRIP <= s->n_panels; p += CPU_STRIP) {
        const char *w0 = s->w[p], *w1 = s->w[p + 1], *w2 = s->w[p + 2], *w3 = s->w[p + 3];
        const char *f0 = s->ahead[p], *f1 = s->ahead[p + 1];
        const char *f2 = s->ahead[p + 2], *f3 = s->ahead[p + 3];
        float *acc = s->acc + p * CPU_LANES;
        v16 a0 = v_zero(), a1 = a0, a2 = a0, a3 = a0;
        if (!s->first) {
            a0 = v_load(acc);
            a1 = v_load(acc + CPU_LANES);
            a2 = v_load(acc + 2 * CPU_LANES);
            a3 = v_load(acc + 3 * CPU_LANES);
        }
        for (int64_t k = 0; k < s->n_k; k++) {
            v16 x = v_set1(s->x[k]);
            __builtin_prefetch(f0 + k * step);
            __builtin_prefetch(f1 + k * step);
            __builtin_prefetch(f2 + k * step);
            __builtin_prefetch(f3 + k * step);
            a0 = v_fma(x, load_column(w0 + k * step, form), a0);
            a1 = v_fma(x, load_column(w1 + k * step, form), a1);
            a2 = v_fma(x, load_column(w2 + k * step, form), a2);
            a3 = v_fma(x, load_column(w3 + k * step, form), a3);
        }
        v_store(acc, a0);
        v_store(acc + CPU_LANES, a1);
        v_store(acc + 2 * CPU_LANES, a2);
        v_store(acc + 3 * CPU_LANES, a3);
    }
    for (; p < s->n_panels; p++) {
        const char *w = s->w[p], *f = s->ahead[p];
        float *acc = s->acc + p * CPU_LANES;
        v16 a = s->first ? v_zero() : v_load(acc);
        for (int64_t k = 0; k < s->n_k; k++) {
            __builtin_prefetch(f + k * step);
            a = v_fma(v_set1(s->x[k]), load_column(w + k * step, form), a);
        }
        v_store(acc, a);
    }
}

static void strip_f32(const struct cpu_strip *s)
{
    strip(s, CPU_FORM_F32);
}

static void strip_f16(const struct cpu_strip *s)
{
    strip(s, CPU_FORM_F16);
}

static void strip_bf16_flat(const struct cpu_strip *s)
{
    strip(s, CPU_FORM_BF16_FLAT);
}

static void strip_i8_flat(const struct cpu_strip *s)
{
    strip(s, CPU_FORM_I8_FLAT);
}

/* ---- norms: 8 double sums by index mod 8, added in lane order -----------------------------------
 */

static double sum_lanes(const double *lane)
{
    return ((lane[0] + lane[1]) + (lane[2] + lane[3])) +
           ((lane[4] + lane[5]) + (lane[6] + lane[7]));
}

static double sum_squares(const float *x, double centre, int n)
{
    double lane[8] = {0};
    int i = 0;
    for (; i + 8 <= n; i += 8)
        for (int l = 0; l < 8; l++) {
            double d = (double)x[i + l] - centre;
            lane[l] += d * d;
        }
    for (int l = 0; i < n; i++, l++) {
        double d = (double)x[i] - centre;
        lane[l] += d * d;
    }
    return sum_lanes(lane);
}

static double sum_values(const float *x, int n)
{
    double lane[8] = {0};
    int i = 0;
    for (; i + 8 <= n; i += 8)
        for (int l = 0; l < 8; l++)
            lane[l] += (double)x[i + l];
    for (int l = 0; i < n; i++, l++)
        lane[l] += (double)x[i];
    return sum_lanes(lane);
}

static void simd_rmsnorm(const float *x, const float *weight, float eps, int n, float *y)
{
    double inverse = 1 / sqrt(sum_squares(x, 0, n) / n + (double)eps);
    for (int i = 0; i < n; i++)
        y[i] = (float)((double)x[i] * inverse * (double)weight[i]);
}

static void simd_layernorm(const float *x, const float *weight, const float *bias, float eps, int n,
                           float *y)
{
    double mean = sum_values(x, n) / n;
    double inverse = 1 / sqrt(sum_squares(x, mean, n) / n + (double)eps);
    for (int i = 0; i < n; i++)
        y[i] = (float)(((double)x[i] - mean) * inverse * (double)weight[i] + (double)bias[i]);
}

/* ---- conversions -------------------------------------------------------------------------------
 */

static void simd_to_bf16(const float *x, int n, uint16_t *y)
{
    for (int i = 0; i < n; i++)
        y[i] = hg_f32_to_bf16(x[i]);
}

static void simd_to_f16(const float *x, int n, uint16_t *y)
{
    int i = 0;
    for (; i + CPU_LANES <= n; i += CPU_LANES)
        v_store_f16(y + i, v_load(x + i));
    for (; i < n; i++)
        y[i] = hg_f32_to_f16(x[i]);
}

/* The largest magnitude as bits: ordered like the values, and infinities and NaN come last. */
static uint32_t max_magnitude(const float *x, int n)
{
    uint32_t lane[16] = {0}, max = 0;
    int i = 0;
    for (; i + 16 <= n; i += 16)
        for (int l = 0; l < 16; l++) {
            uint32_t bits = hg_float_bits(x[i + l]) & 0x7fffffffu;
            lane[l] = bits > lane[l] ? bits : lane[l];
        }
    for (int l = 0; l < 16; l++)
        max = lane[l] > max ? lane[l] : max;
    for (; i < n; i++) {
        uint32_t bits = hg_float_bits(x[i]) & 0x7fffffffu;
        max = bits > max ? bits : max;
    }
    return max;
}

ALWAYS_INLINE v16 quotient(v16 x, float scale)
{
    v16 q = v_round(v_div(x, v_set1(scale)));
    return v_min(v_set1(127), v_max(v_set1(-127), q));
}

static float simd_quantise(const float *x, int n, int8_t *q, int32_t *sum)
{
    uint32_t max = max_magnitude(x, n);
    float scale = hg_bits_float(max) / 127.0f;
    *sum = 0;
    if (max >= 0x7f800000u || !(scale > 0)) {
        memset(q, 0, (size_t)n);
        return max >= 0x7f800000u ? NAN : 0;
    }
    int32_t lane[CPU_LANES];
    v16i total = vi_zero();
    int i = 0;
    for (; i + CPU_LANES <= n; i += CPU_LANES) {
        v16i v = vi_of_float(quotient(v_load(x + i), scale));
        vi_store_i8(q + i, v);
        total = vi_add(total, v);
    }
    if (i < n) {
        float tail[CPU_LANES] = {0};
        int8_t q_tail[CPU_LANES];
        memcpy(tail, x + i, (size_t)(n - i) * sizeof *tail);
        v16i v = vi_of_float(quotient(v_load(tail), scale));
        vi_store_i8(q_tail, v);
        memcpy(q + i, q_tail, (size_t)(n - i));
        total = vi_add(total, v);
    }
    vi_store(lane, total);
    for (int l = 0; l < CPU_LANES; l++)
        *sum += lane[l];
    return scale;
}

static void simd_finish(const struct cpu_finish *f)
{
    for (int r = 0; r < f->n_rows; r++)
        for (int c = 0; c < f->width; c++) {
            float *acc = f->acc + r * 2 * CPU_LANES + c * CPU_LANES;
            v16 v;
            if (f->w_scale) {
                v16i offset = vi_set1((int32_t)(128u * (uint32_t)f->x_sum[r]));
                v = vi_to_float(vi_sub(vi_load(acc), offset));
                v = v_mul(v_mul(v, v_set1(f->x_scale[r])), v_load(f->w_scale + c * CPU_LANES));
            } else {
                v = v_load(acc);
            }
            v_store(acc, v_add(v, v_load(f->bias + c * CPU_LANES)));
        }
}

/* ---- exp, erf and what is made of them ---------------------------------------------------------
 */

/* exp(x) within 1.5 ulp on [-87.3, 88]; 0 below, exp(88) above; NaN stays NaN. x = n ln 2 + r,
 * |r| <= ln 2 / 2, Taylor series of degree 7 (its rest is below 2^-26). */
ALWAYS_INLINE v16 v_exp(v16 x)
{
    v16 c = v_min(v_set1(88.0f), v_max(v_set1(-87.3f), x));
    v16 n = v_round(v_mul(c, v_set1(1.44269504f)));
    v16 r = v_fma(n, v_set1(-0.693359375f), c); /* exact: 9 bits of ln 2 */
    r = v_fma(n, v_set1(2.12194440e-4f), r);
    v16 p = v_set1(1.0f / 5040);
    p = v_fma(p, r, v_set1(1.0f / 720));
    p = v_fma(p, r, v_set1(1.0f / 120));
    p = v_fma(p, r, v_set1(1.0f / 24));
    p = v_fma(p, r, v_set1(1.0f / 6));
    p = v_fma(p, r, v_set1(0.5f));
    p = v_fma(v_mul(p, r), r, r);
    p = v_add(p, v_set1(1.0f));
    return v_zero_below(x, -87.3f, v_mul(p, v_pow2(n)));
}

/* Runs `expression` on vectors v = y[i..i+16), the tail through a buffer. */
#define FOR_EACH_VECTOR(y, n, expression)                                                          \
    do {                                                                                           \
        int i = 0;                                                                                 \
        for (; i + CPU_LANES <= (n); i += CPU_LANES) {                                             \
            v16 v = v_load((y) + i);                                                               \
            v_store((y) + i, (expression));                                                        \
        }                                                                                          \
        if (i < (n)) {                                                                             \
            float tail[CPU_LANES] = {0};                                                           \
            memcpy(tail, (y) + i, (size_t)((n)-i) * sizeof *tail);                                 \
            v16 v = v_load(tail);                                                                  \
            v_store(tail, (expression));                                                           \
            memcpy((y) + i, tail, (size_t)((n)-i) * sizeof *tail);                                 \
        }                                                                                          \
    } while (0)

ALWAYS_INLINE v16 v_sigmoid_of(v16 x) /* 1 / (1 + exp(-x)) */
{
    v16 one = v_set1(1.0f);
    return v_div(one, v_add(one, v_exp(v_sub(v_zero(), x))));
}

static void simd_quick_gelu(float *y, int n)
{
    FOR_EACH_VECTOR(y, n, v_mul(v, v_sigmoid_of(v_mul(v, v_set1(1.702f)))));
}

static void simd_swish(float *y, int n)
{
    FOR_EACH_VECTOR(y, n, v_mul(v, v_sigmoid_of(v)));
}

static void simd_gelu(float *y, int n)
{
    for (int i = 0; i < n; i++)
        y[i] = 0.5f * y[i] * (1 + erff(y[i] * 0.70710678f));
}

static void simd_swiglu(const float *gate, const float *up, int n, float *y)
{
    int i = 0;
    for (; i + CPU_LANES <= n; i += CPU_LANES) {
        v16 v = v_load(gate + i);
        v_store(y + i, v_mul(v_mul(v, v_sigmoid_of(v)), v_load(up + i)));
    }
    if (i < n) {
        float g[CPU_LANES] = {0}, u[CPU_LANES] = {0};
        memcpy(g, gate + i, (size_t)(n - i) * sizeof *g);
        memcpy(u, up + i, (size_t)(n - i) * sizeof *u);
        v16 v = v_load(g);
        v_store(g, v_mul(v_mul(v, v_sigmoid_of(v)), v_load(u)));
        memcpy(y + i, g, (size_t)(n - i) * sizeof *g);
    }
}

static void simd_add(float *y, const float *x, int n)
{
    for (int i = 0; i < n; i++)
        y[i] += x[i];
}

static void simd_scale(float *y, float factor, int n)
{
    for (int i = 0; i < n; i++)
        y[i] *= factor;
}

static void simd_affine(float *y, const float *factor, const float *offset, int n)
{
    for (int i = 0; i < n; i++)
        y[i] = y[i] * factor[i] + offset[i];
}

/* NaN may or may not win here; exp_sum then finds it. */
static float simd_max(const float *s, int n)
{
    v16 m = v_set1(-INFINITY);
    float lane[CPU_LANES], max = -INFINITY;
    for (int i = 0; i < n; i += CPU_LANES)
        m = v_max(m, v_load(s + i));
    v_store(lane, m);
    for (int i = 0; i < CPU_LANES; i++)
        max = lane[i] > max ? lane[i] : max;
    return max;
}

static float simd_exp_sum(float *s, int n, float max)
{
    v16 m = v_set1(max), total = v_zero();
    float lane[CPU_LANES], sum = 0;
    for (int i = 0; i < n; i += CPU_LANES) {
        v16 e = v_exp(v_sub(v_load(s + i), m));
        total = v_add(total, e);
        v_store(s + i, e);
    }
    v_store(lane, total);
    for (int i = 0; i < CPU_LANES; i++)
        sum += lane[i];
    return sum;
}

const struct cpu_simd SIMD_TABLE = {
    .name = SIMD_NAME,
    .tile = {tile_f32, tile_f16, tile_bf16, tile_i8, tile_bf16_flat, tile_i8_flat},
    .strip = {[CPU_FORM_F32] = strip_f32,
              [CPU_FORM_F16] = strip_f16,
              [CPU_FORM_BF16_FLAT] = strip_bf16_flat,
              [CPU_FORM_I8_FLAT] = strip_i8_flat},
    .rmsnorm = simd_rmsnorm,
    .layernorm = simd_layernorm,
    .to_bf16 = simd_to_bf16,
    .to_f16 = simd_to_f16,
    .quantise = simd_quantise,
    .finish = simd_finish,
    .add = simd_add,
    .scale = simd_scale,
    .quick_gelu = simd_quick_gelu,
    .gelu = simd_gelu,
    .swish = simd_swish,
    .swiglu = simd_swiglu,
    .affine = simd_affine,
    .max = simd_max,
    .exp_sum = simd_exp_sum,
};
