/* kernels/cuda/kv_append.cu - rotated keys and values become rows of an I8 cache.
 *
 *   scale = max|x| / 127, q = nearest even of x / scale; NaN and q = 0 for a row that is not finite
 *
 * x [T, 2 G, P] fp32 as finish.cuh left it, k and v [layer][block][kv head][16][P] int8, scales the
 * same without P. A launch of its own because a linear spreads the P values of a head over blocks.
 * A warp takes one key or value. Bound by the latency of the launch: a row is read twice, the
 * second time from L1. Defined by kernels/ref/kv.c. */
#include "kernels/cuda/cuda_common.cuh"
#include "kernels/cuda/prepare.cuh"
extern "C" {
#include "kernels/cuda/cuda.h"
}

enum { WARPS = 4 };

struct Append {
    const float *x;
    const int32_t *pos, *seq, *block_table;
    int n_rows, max_blocks, n_kv_heads, dim; /* n_rows: T * 2 G */
    int64_t layer_block0;                    /* layer * n_blocks */
    int8_t *k, *v;
    float *k_scale, *v_scale;
};

/* WIDE: rows are whole pieces of 8 values. */
template <bool WIDE> struct AppendGet {
    const float *x;
    int n;
    __device__ __forceinline__ void eight(int k, float (&v)[8]) const
    {
        if constexpr (WIDE) {
            float4 a = *reinterpret_cast<const float4 *>(x + k);
            float4 b = *reinterpret_cast<const float4 *>(x + k + 4);
            v[0] = a.x, v[1] = a.y, v[2] = a.z, v[3] = a.w;
            v[4] = b.x, v[5] = b.y, v[6] = b.z, v[7] = b.w;
        } else {
            UNROLL_FOR (int i = 0; i < 8; i++)
                v[i] = k + i < n ? x[k + i] : 0.0f;
        }
    }
};

template <bool WIDE> __global__ void __launch_bounds__(32 * WARPS) kv_append(const Append a)
{
    grid_let_next_start();
    grid_wait();
    int row = (int)blockIdx.x * WARPS + (int)threadIdx.x / 32;
    if (row >= a.n_rows)
        return;
    int token = row / (2 * a.n_kv_heads), head = row % (2 * a.n_kv_heads), pos = a.pos[token];
    bool value = head >= a.n_kv_heads;
    int64_t block = a.layer_block0 +
                    a.block_table[(int64_t)a.seq[token] * a.max_blocks + pos / HG_BLOCK_TOKENS];
    int64_t at = (block * a.n_kv_heads + head - (value ? a.n_kv_heads : 0)) * HG_BLOCK_TOKENS +
                 pos % HG_BLOCK_TOKENS;
    const AppendGet<WIDE> get = {a.x + (int64_t)row * a.dim, a.dim};
    int8_t *to = (value ? a.v : a.k) + at * a.dim;
    float peak = row_peak(get, a.dim, WarpTeam());
    float scale = is_finite(peak) ? div_rn(peak, 127.0f) : NAN;
    if (lane_id() == 0)
        (value ? a.v_scale : a.k_scale)[at] = scale;
    for (int k = (int)lane_id() * 8; k < a.dim; k += 32 * 8) {
        float v[8];
        get.eight(k, v);
        if constexpr (WIDE) {
            store_i8((char *)to + k, v, scale);
        } else {
            uint2 q;
            store_i8((char *)&q, v, scale);
            UNROLL_FOR (int i = 0; i < 8; i++)
                if (k + i < a.dim)
                    to[k + i] = (int8_t)((i < 4 ? q.x : q.y) >> i % 4 * 8);
        }
    }
}

extern "C" enum hg_status cuda_kv_append(struct cuda_backend *c, const struct hg_rope_kv *r)
{
    const struct hg_kv *kv = r->kv;
    Append a = {kv->rows,
                c->plan.pos,
                c->plan.seq,
                c->plan.block_table,
                r->plan->n_tokens * 2 * r->n_kv_heads,
                c->plan.max_blocks,
                r->n_kv_heads,
                r->head_dim,
                (int64_t)r->layer * kv->desc.n_blocks,
                (int8_t *)kv->k,
                (int8_t *)kv->v,
                kv->k_scale,
                kv->v_scale};
    unsigned blocks = ((unsigned)a.n_rows + WARPS - 1) / WARPS;
    if (a.dim % 8 == 0)
        LAUNCH_EARLY(c->early, (kv_append<true>), blocks, 32 * WARPS, 0, c->stream, a);
    else
        LAUNCH_EARLY(c->early, (kv_append<false>), blocks, 32 * WARPS, 0, c->stream, a);
    return cuda_status(c, "kv_append");
}
