/* kernels/cuda/gate.cuh - between the two adapter products: a token's sums A n and R n become its
 * gated z.
 *
 *     z_j = softmax(R n)_{j / (R/E)} * scaling * (A n)_j
 *
 * E is small: the softmax needs no table. Definition: kernels/ref/linear.c. */
#ifndef HG_KERNELS_CUDA_GATE_CUH
#define HG_KERNELS_CUDA_GATE_CUH

#include "kernels/cuda/linear.cuh"
#include "kernels/cuda/prepare.cuh"
#include "kernels/cuda/tile_dot.cuh"

/* How the inputs of adapters of type `plugin` beside weights of type `type` are at hand: prepared
 * for the weight, or in rows of their own (Prepared.rows2). */
template <int type, int plugin> struct Inputs {
    enum { own = type != plugin };
    static MEMBER const char *rows(const Prepared &x)
    {
        return own ? x.rows2 : x.rows;
    }
    static MEMBER int64_t pitch(const Prepared &x)
    {
        return own ? x.pitch2 : x.pitch;
    }
    static MEMBER const float *scale(const Prepared &x)
    {
        return own ? x.scale2 : x.scale;
    }
};

/* Gated values of one token and part. */
struct GateGet {
    const float *z, *logits; /* [rank], [E] */
    int rank, per_expert;
    float max, sum, scaling;

    /* z: the token's sums of the part. */
    MEMBER GateGet(const cuda_expand &e, const float *z_)
        : z(z_), logits(z_ + e.rank), rank(e.rank), per_expert(e.rank / e.n_experts),
          max(-INFINITY), sum(0), scaling(e.scaling)
    {
        for (int j = 0; j < e.n_experts; j++)
            max = fmaxf(max, logits[j]);
        for (int j = 0; j < e.n_experts; j++)
            sum += expf(logits[j] - max);
    }

    __device__ __forceinline__ void eight(int k, float (&v)[8]) const
    {
        UNROLL_FOR (int i = 0; i < 8; i++) {
            int j = k + i;
            v[i] = j < rank ? div_rn(expf(logits[j / per_expert] - max), sum) * scaling * z[j] : 0;
        }
    }
};

/* One token of a slot by a warp. */
template <int type> DEV void gate_token(const Product &p, int token, int slot)
{
    for (int i = 0; i < p.n_parts; i++) {
        const cuda_expand &e = p.slot[slot].part[i];
        if (!e.rank)
            continue;
        prepare_row<type>(GateGet(e, p.z + token * p.z_pitch + e.row0), e.rank, WarpTeam(),
                          p.zp + token * p.zp_pitch + e.z_byte,
                          p.zp_scale + (int64_t)token * HG_MAX_PARTS + i);
    }
}

/* 8 values of a token's BF16 row: those of group `group` of all parts' groups. */
DEV void gate_eight(const Product &p, int token, int slot, int group)
{
    for (int i = 0; i < p.n_parts; i++) {
        const cuda_expand &e = p.slot[slot].part[i];
        int n = e.rank ? e.b.steps * (STEP_BYTES / 16) : 0;
        if (group >= 0 && group < n) {
            float v[8];
            GateGet(e, p.z + token * p.z_pitch + e.row0).eight(group * 8, v);
            store_bf16(p.zp + token * p.zp_pitch + e.z_byte + group * 16, v);
        }
        group -= n;
    }
}

/* Tokens [token0, token0 + n) by n_threads threads, whole warps, with index i. */
template <int type> DEV void gate_tokens(const Product &p, int token0, int n, int i, int n_threads)
{
    int groups = (int)(p.zp_pitch / 16);
    if constexpr (type == HG_DTYPE_BF16) {
        for (int at = i; at < n * groups; at += n_threads) {
            int token = token0 + at / groups, slot = p.slot_of[token];
            if (slot >= 0 && p.slots >> slot & 1)
                gate_eight(p, token, slot, at % groups);
        }
    } else {
        for (int t = i / 32; t < n; t += n_threads / 32) {
            int slot = p.slot_of[token0 + t];
            if (slot >= 0 && p.slots >> slot & 1)
                gate_token<type>(p, token0 + t, slot);
        }
    }
}

#endif
