/* kernels/cuda/prepare.cuh - an fp32 row becomes what a dot product of tile_dot.cuh reads.
 *
 * Per step, natural order of k, zeros past the end of the row:
 * - BF16: 32 values, rounded to nearest even.
 * - F16, F32, F8: 32 fp16 `high`, then 32 fp16 `low`: x / scale = high + low, scale a power of two
 * that brings the largest |x| into [2^14, 2^15): 22 bits of every value within 2^-28 of the
 * largest. A row that is not finite has scale 1 and keeps its NaN and infinities.
 * - I8: 64 values q = round(x / scale), scale = max|x| / 127, NaN for a row that is not finite (and
 * q = 0).
 * - I4: 128 values, a group, quantised as a row of I8. Kept is scale / 16: a nibble reaches the
 * product as 16 q.
 *
 * A row is made by n_threads threads with index i; `Team` says how they reduce. Get::eight(k, v)
 * gives values k..k+7.*/
#ifndef HG_KERNELS_CUDA_PREPARE_CUH
#define HG_KERNELS_CUDA_PREPARE_CUH

#include "kernels/cuda/linear.cuh"

struct WarpTeam {
    __device__ __forceinline__ int index() const
    {
        return lane_id();
    }
    __device__ __forceinline__ int size() const
    {
        return 32;
    }
    __device__ __forceinline__ float max(float v) const
    {
        return warp_max(v);
    }
};

struct BlockTeam {
    float *scratch; /* 32 floats of shared memory */
    __device__ __forceinline__ int index() const
    {
        return threadIdx.x;
    }
    __device__ __forceinline__ int size() const
    {
        return blockDim.x;
    }
    __device__ __forceinline__ float max(float v) const
    {
        return block_max(v, scratch);
    }
};

/* Largest |x|; infinity when a value is not finite. */
template <class Get, class Team> DEV float row_peak(const Get &get, int n, const Team &team)
{
    float peak = 0;
    for (int k = team.index() * 8; k < n; k += team.size() * 8) {
        float v[8];
        get.eight(k, v);
        UNROLL_FOR (int i = 0; i < 8; i++)
            peak = fmaxf(peak, is_finite(v[i]) ? fabsf(v[i]) : INFINITY);
    }
    return team.max(peak);
}

/* The power of two of a split row, and its inverse. */
DEV float split_scale(float peak, float *down)
{
    int e = peak > 0 && is_finite(peak) ? ilogbf(peak) - 14 : 0;
    e = e < -126 ? -126 : e;
    *down = ldexpf(1, -e);
    return ldexpf(1, e);
}

/* 8 values as fp16 high and low planes. */
DEV void pack_split(uint4 &high_plane, uint4 &low_plane, const float (&v)[8], float down)
{
    uint32_t high[4], low[4];
    UNROLL_FOR (int i = 0; i < 4; i++) {
        float a = v[2 * i] * down, b = v[2 * i + 1] * down;
        uint16_t ha = f32_to_f16(a), hb = f32_to_f16(b);
        high[i] = pack2(ha, hb);
        low[i] = pack2(f32_to_f16(a - f16_to_f32(ha)), f32_to_f16(b - f16_to_f32(hb)));
    }
    high_plane = {high[0], high[1], high[2], high[3]};
    low_plane = {low[0], low[1], low[2], low[3]};
}

DEV void pack_bf16_row(uint4 &to, const float (&v)[8])
{
    to = {pack_bf16(v[0], v[1]), pack_bf16(v[2], v[3]), pack_bf16(v[4], v[5]),
          pack_bf16(v[6], v[7])};
}

DEV void store_bf16(char *to, const float (&v)[8])
{
    pack_bf16_row(*(uint4 *)to, v);
}

DEV void store_split(char *to, const float (&v)[8], float down)
{
    pack_split(*(uint4 *)to, *(uint4 *)(to + STEP_BYTES), v, down);
}

DEV void store_i8(char *to, const float (&v)[8], float scale)
{
    bool usable = scale > 0;
    uint32_t w[2] = {0, 0};
    UNROLL_FOR (int i = 0; i < 8; i++) {
        int q = usable ? (int)fminf(fmaxf(rintf(div_rn(v[i], scale)), -127.0f), 127.0f) : 0;
        w[i / 4] |= (uint32_t)(q & 255) << i % 4 * 8;
    }
    *(uint2 *)to = {w[0], w[1]};
}

/* The groups of a row, 16 threads each; scales lie `pitch` apart. Whole warps go round. */
template <class Get, class Team>
DEV void prepare_groups(const Get &get, int n, const Team &team, char *to, float *scale,
                        int64_t pitch)
{
    int padded = (n + HG_I4_GROUP - 1) / HG_I4_GROUP * HG_I4_GROUP;
    for (int k0 = (team.index() - (int)lane_id()) * 8; k0 < padded; k0 += team.size() * 8) {
        int k = k0 + (int)lane_id() * 8;
        float v[8] = {}, peak = 0;
        if (k < n)
            get.eight(k, v);
        UNROLL_FOR (int i = 0; i < 8; i++)
            peak = fmaxf(peak, is_finite(v[i]) ? fabsf(v[i]) : INFINITY);
        UNROLL_FOR (int m = 8; m > 0; m /= 2)
            peak = fmaxf(peak, shfl_xor(peak, m));
        if (k >= padded)
            continue;
        float s = is_finite(peak) ? div_rn(peak, 127.0f) : NAN;
        store_i8(to + k, v, s);
        if (k % HG_I4_GROUP == 0)
            scale[k / HG_I4_GROUP * pitch] = s * 0.0625f;
    }
}

/* to: the row's first byte; scale: where its scale goes (not BF16), those of I4 `pitch` apart. */
template <int type, class Get, class Team>
DEV void prepare_row(const Get &get, int n, const Team &team, char *to, float *scale,
                     int64_t pitch = 0)
{
    if constexpr (type == HG_DTYPE_I4) {
        prepare_groups(get, n, team, to, scale, pitch);
        return;
    }
    enum { step = type == HG_DTYPE_I8 ? STEP_BYTES : STEP_BYTES / 2 };
    int padded = (n + step - 1) / step * step;
    float s = 1, down = 1;
    if constexpr (type != HG_DTYPE_BF16) {
        float peak = row_peak(get, n, team);
        if constexpr (type == HG_DTYPE_I8)
            s = is_finite(peak) ? div_rn(peak, 127.0f) : NAN;
        else
            s = split_scale(peak, &down);
        if (team.index() == 0)
            *scale = s;
    }
    for (int k = team.index() * 8; k < padded; k += team.size() * 8) {
        float v[8];
        get.eight(k, v);
        if constexpr (type == HG_DTYPE_I8)
            store_i8(to + k, v, s);
        else if constexpr (type == HG_DTYPE_BF16)
            store_bf16(to + (int64_t)k * 2, v);
        else
            store_split(to + (int64_t)(k / 32) * (2 * STEP_BYTES) + k % 32 * 2, v, down);
    }
}

/* ---- a row of memory: optional RMSNorm, then the rounding of the weight's type
 * ---------------- */

enum { ROW_THREADS = 256 };

/* Values of one row of memory, normed. */
struct RowGet {
    const float *x, *norm;
    float inverse;
    int n;
    bool aligned; /* x and norm to 16 bytes */
    __device__ __forceinline__ void eight(int k, float (&v)[8]) const
    {
        if (aligned && k + 8 <= n) {
            UNROLL_FOR (int i = 0; i < 8; i += 4) {
                float4 a = *(const float4 *)(x + k + i);
                v[i] = a.x, v[i + 1] = a.y, v[i + 2] = a.z, v[i + 3] = a.w;
            }
        } else {
            UNROLL_FOR (int i = 0; i < 8; i++)
                v[i] = k + i < n ? x[k + i] : 0;
        }
        if (norm)
            UNROLL_FOR (int i = 0; i < 8; i++)
                v[i] = k + i < n ? v[i] * inverse * norm[k + i] : 0;
    }
};

/* plugin: the type of the adapters that rows2 is for, so that only its code is compiled in.
 *
 * Row `row` of p by a block of ROW_THREADS threads, 8 values per thread and round; three passes
 * over a row that stays in L1. Sums depend on its length alone. scratch: 32 floats of shared
 * memory.
 *
 *     y = x / sqrt(mean(x^2) + eps) * norm
 *
 * Definition: kernels/ref/rmsnorm.c, ref_row_set of kernels/ref/matrix.c. */
enum { ANY_PLUGIN = -1 };
template <int type, int plugin = ANY_PLUGIN>
DEV void prepare_source(const RowSource &p, const Prepared &to, int row, float *scratch)
{
    if (p.set_of && p.set_of[row] != p.set)
        return;
    BlockTeam team = {scratch};
    const float *x = p.x + (p.row_of ? p.row_of[row] : row) * p.ldx;
    RowGet get = {x, nullptr, 1, p.dim, (uintptr_t)x % 16 == 0};
    if (p.norm) {
        float sum = 0;
        for (int k = threadIdx.x * 8; k < p.dim; k += ROW_THREADS * 8) {
            float v[8];
            get.eight(k, v);
            UNROLL_FOR (int i = 0; i < 8; i++)
                sum = fmaf(v[i], v[i], sum);
        }
        sum = block_sum(sum, scratch);
        get.inverse = div_rn(1.0f, sqrtf(div_rn(sum, (float)p.dim) + p.eps));
        get.norm = p.norm;
    }
    prepare_row<type>(get, p.dim, team, to.rows + row * to.pitch,
                      to.scale ? to.scale + row : nullptr, to.scale_pitch);
    if ((plugin == HG_DTYPE_BF16 || plugin == ANY_PLUGIN) && to.rows2 && !to.scale2)
        prepare_row<HG_DTYPE_BF16>(get, p.dim, team, to.rows2 + row * to.pitch2, nullptr);
    if ((plugin == HG_DTYPE_I8 || plugin == ANY_PLUGIN) && to.rows2 && to.scale2)
        prepare_row<HG_DTYPE_I8>(get, p.dim, team, to.rows2 + row * to.pitch2, to.scale2 + row);
}

#endif
