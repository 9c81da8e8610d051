/* kernels/cpu/simd_body.h - the primitives of simd.h, written once over 16-lane vectors.
 *
 * Included by exactly one .c file per instruction set, after that file has defined
 *   v16, v16i                        16 floats, 16 int32
 *   v_zero v_set1 v_load v_store v_load_f16 v_load_bf16 v_load_f8 v_load_i8 v_store_f16
 *   v_add v_sub v_mul v_div v_fma v_max v_min v_abs v_round v_pow2 v_zero_below
 *   vi_zero vi_load vi_store vi_store_i8 vi_set1 vi_add vi_sub vi_dot4 vi_bf16_even vi_bf16_odd
 *   vi_to_float vi_of_float vi_low4 vi_high4 vi_dot8
 *   MOST_ROWS                        rows of the largest tile: 1, 6 or 12
 *   ROWS_1, ROWS_2                   the same by width
 *   ROWS_I4                          of an I4 tile
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

#include "kernels/cpu/simd_tiles.h"

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
            if (f->x_scale) {
                v16i offset = vi_set1((int32_t)(128u * (uint32_t)f->x_sum[r]));
                v = vi_to_float(vi_sub(vi_load(acc), offset));
                v = v_mul(v_mul(v, v_set1(f->x_scale[r])), v_load(f->w_scale + c * CPU_LANES));
            } else {
                v = v_load(acc);
                if (f->w_scale)
                    v = v_mul(v, v_load(f->w_scale + c * CPU_LANES));
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
    .tile = {tile_f32, tile_f16, tile_bf16, tile_i8, tile_f8, tile_i4, tile_bf16_flat,
             tile_i8_flat},
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
