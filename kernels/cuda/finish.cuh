/* kernels/cuda/finish.cuh - the epilogues: two finished sums of one token become outputs.
 *
 * The sums belong to rows r and r + 8 of a tile. With pairing they are the two outputs that meet:
 * gate and up of SwiGLU, the two halves of a rotated head. The angle is an fp32 product, then cos
 * and sin. Definition: finish_row of kernels/ref/linear.c, kernels/ref/rope_kv.c. */
#ifndef HG_KERNELS_CUDA_FINISH_CUH
#define HG_KERNELS_CUDA_FINISH_CUH

#include "kernels/cuda/linear.cuh"

DEV float sigmoid(float v)
{
    return div_rn(1.0f, 1.0f + expf(-v));
}

DEV void store_kv(void *base, int64_t i, int type, float v)
{
    if (type == HG_DTYPE_F32)
        ((float *)base)[i] = v;
    else
        ((uint16_t *)base)[i] = type == HG_DTYPE_F16 ? f32_to_f16(v) : f32_to_bf16(v);
}

/* Sine and cosine of an fp32 angle below 2^30, computed in double and rounded once. Reduction by
 * pi/2 in two parts, series of fdlibm's k_sin.c and k_cos.c. sinf and cosf would keep a table of
 * 2/pi in local memory for large angles. */
DEV void sine_cosine(float angle, float *sine, float *cosine)
{
    double k = rint((double)angle * 0.63661977236758134308);
    double r = fma(-k, 1.57079632679489655800, (double)angle);
    r = fma(-k, 6.12323399573676603587e-17, r);
    double q = r * r, s = 1.58969099521155010221e-10, c = -1.13596475577881948265e-11;
    s = fma(s, q, -2.50507602534068634195e-08);
    s = fma(s, q, 2.75573137070700676789e-06);
    s = fma(s, q, -1.98412698298579493134e-04);
    s = fma(s, q, 8.33333333332248946124e-03);
    s = fma(s, q, -1.66666666666666324348e-01);
    c = fma(c, q, 2.08757232129817482790e-09);
    c = fma(c, q, -2.75573143513906633035e-07);
    c = fma(c, q, 2.48015872894767294178e-05);
    c = fma(c, q, -1.38888888888741095749e-03);
    c = fma(c, q, 4.16666666666666019037e-02);
    double sr = fma(s * q, r, r), cr = fma(c * q, q, fma(-0.5, q, 1.0));
    int quarter = (int)k & 3;
    float sf = (float)(quarter & 1 ? cr : sr), cf = (float)(quarter & 1 ? sr : cr);
    *sine = quarter & 2 ? -sf : sf;
    *cosine = quarter == 1 || quarter == 2 ? -cf : cf;
}

/* Outputs o and o + half of a token, in head o / P of [q: H | k: G | v: G]. */
DEV void finish_rope(const Finish &p, int64_t o, int token, float a, float b)
{
    int dim = p.head_dim, half = dim / 2, head = (int)(o / dim), i = (int)(o % dim);
    int pos = p.pos[token];
    if (head < p.n_heads + p.n_kv_heads) {
        float s, c;
        sine_cosine(p.inv_freq[i] * (float)pos, &s, &c);
        float rotated = fmaf(a, c, -(b * s));
        b = fmaf(b, c, a * s);
        a = rotated;
    }
    if (head < p.n_heads) {
        p.y[token * p.ldy + o] = a;
        p.y[token * p.ldy + o + half] = b;
        return;
    }
    if (p.kv_rows) { /* a row's largest value is not at hand here */
        int64_t at = (int64_t)token * 2 * p.n_kv_heads * dim + o - p.n_heads * dim;
        p.kv_rows[at] = a;
        p.kv_rows[at + half] = b;
        return;
    }
    bool value = head >= p.n_heads + p.n_kv_heads;
    int kv_head = head - p.n_heads - (value ? p.n_kv_heads : 0);
    int64_t block = p.layer_block0 +
                    p.block_table[(int64_t)p.seq[token] * p.max_blocks + pos / HG_BLOCK_TOKENS];
    int64_t at =
        ((block * p.n_kv_heads + kv_head) * HG_BLOCK_TOKENS + pos % HG_BLOCK_TOKENS) * dim + i;
    store_kv(value ? p.v : p.k, at, p.kv_type, a);
    store_kv(value ? p.v : p.k, at + half, p.kv_type, b);
}

DEV void finish_one(const Finish &p, int64_t o, int token, float v)
{
    switch (p.kind) {
    case HG_EPILOGUE_RESIDUAL:
        v = p.residual[token * p.ld_residual + o] + v;
        break;
    case HG_EPILOGUE_QUICK_GELU:
        v = v * sigmoid(1.702f * v);
        break;
    case HG_EPILOGUE_GELU:
        v = 0.5f * v * erfcf(-0.70710678f * v);
        break;
    case FINISH_HEAD: {
        int lo = p.sample[token].lo, hi = p.sample[token].hi;
        if (p.set_of[token] == p.set && o >= lo && o < hi)
            p.y[token * p.ldy + o - lo] = v;
        return;
    }
    }
    p.y[token * p.ldy + o] = v;
}

/* Sums of rows r and r + 8 of a tile, without bias. */
DEV void finish(const Finish &p, int tile, int r, int token, float v0, float v1)
{
    const float *bias = p.bias + (int64_t)tile * TILE_ROWS + r;
    int64_t o0 = (int64_t)tile * TILE_ROWS + r, o1 = o0 + 8;
    bool second = o1 < p.n_out;
    if (p.pair) {
        int half = p.pair / 2, per_group = (half + 7) / 8, at = tile % per_group * 8 + r;
        o0 = at < half ? (int64_t)(tile / per_group) * p.pair + at : p.n_out;
        o1 = o0 + half;
        second = o0 < p.n_out;
    }
    if (o0 >= p.n_out)
        return;
    v0 += bias[0];
    v1 += bias[8];
    if (p.kind == HG_EPILOGUE_SWIGLU) {
        p.y[token * p.ldy + o0] = v0 * sigmoid(v0) * v1;
    } else if (p.kind == HG_EPILOGUE_ROPE_KV) {
        finish_rope(p, o0, token, v0, v1);
    } else {
        finish_one(p, o0, token, v0);
        if (second)
            finish_one(p, o1, token, v1);
    }
}

#endif
