/* kernels/cuda/attention_tile.cuh - what a warp does with a tile of 64 keys, shared by both
 * attention kernels.
 *
 * Scores S[16, 64] = Q K^T and outputs O[16, P] += exp(S) V go through mma m16n8k16 with query rows
 * on its 16 rows, fp32 accumulation. Operands that are not 16 bits wide are cut into a sum of
 * 16-bit parts, largest first: q and p into 2 parts for f16 caches (22 bits) and 3 for bf16 ones
 * (24 bits); fp32 keys and values into 3 bf16 planes, of whose 9 products the 6 largest are taken.
 * A 16-bit cache is used as it is. Part i meets plane j when i + j < parts. I8: attention_i8.cuh.
 *
 * Heads wider than a slice are cut along P: K slices first, then V slices, one after the other
 * through the same ring of buffers. Row pitches of slice + 8 values put the 8 rows of an ldmatrix
 * on different banks. */
#ifndef HG_KERNELS_CUDA_ATTENTION_TILE_CUH
#define HG_KERNELS_CUDA_ATTENTION_TILE_CUH

#include "kernels/cuda/softmax.cuh"
#include "kernels/dtype.h"

enum { TILE_KEYS = 64, ATTEND_WARPS = 4, ATTEND_THREADS = 32 * ATTEND_WARPS };

/* DIM: head dim, padded. WIDE: 4 warps of 16 query rows each see every key; else 4 warps share 16
 * rows, for S by keys and for O by columns. The additions behind a row are the same in both. */
template <enum hg_dtype TYPE, int DIM, bool WIDE> struct attend_shape {
    static constexpr enum hg_dtype type = TYPE;
    static constexpr bool wide = WIDE, f32 = TYPE == HG_DTYPE_F32, f16 = TYPE == HG_DTYPE_F16,
                          i8 = TYPE == HG_DTYPE_I8;
    static constexpr int dim = DIM, parts = f16 || i8 ? 2 : 3, planes = f32 ? 3 : 1;
    static constexpr int slice = DIM > 128 || (f32 && DIM > 96) ? 64 : DIM, n_slices = DIM / slice;
    static constexpr int rows = WIDE ? 16 * ATTEND_WARPS : 16;
    static constexpr int n_score =
        (WIDE ? TILE_KEYS : TILE_KEYS / ATTEND_WARPS) / 8; /* 8 columns of S, per warp */
    static constexpr int slice_out =
        (WIDE ? slice : slice / ATTEND_WARPS) / 8; /* 8 columns of O, per warp */
    static constexpr int n_out = slice_out * n_slices;
    static constexpr int gap = i8 ? 2 : 1; /* between a thread's two columns of O */
    /* in 16-bit words: of a row; of a slice; of a buffer, with a tile's scales behind I8 */
    static constexpr int pitch = (i8 ? slice / 2 : slice) + 8, q_pitch = DIM + 8;
    static constexpr int plane = TILE_KEYS * pitch, q_part = rows * q_pitch;
    static constexpr int stage = planes * plane + (i8 ? 4 * TILE_KEYS : 0);
    static constexpr int stages = f32 ? 1 : WIDE ? 2 : 4;
    static constexpr int least = i8 && !WIDE && DIM <= 128 ? 4 : 2; /* blocks per multiprocessor */
    /* bytes of shared memory: the ring, q, p fragments, per row: factor, first and last key;
     * maxima; a flag */
    static constexpr int q_at = stages * stage * 2, p_at = q_at + parts * q_part * 2;
    static constexpr int rows_at = p_at + (WIDE ? 0 : parts * 4 * 32 * 16);
    static constexpr int peak_at = rows_at + rows * 12,
                         bytes = peak_at + ATTEND_WARPS * 16 * 4 + 16;
    static_assert(DIM % 32 == 0 && DIM % slice == 0, "whole steps of ldmatrix");
};

/* ---- parts
 * ---------------------------------------------------------------------------------------------------
 */

template <bool F16> DEV uint32_t pack_part(float low, float high)
{
    if constexpr (F16)
        return pack_f16(low, high);
    else
        return pack_bf16(low, high);
}

template <bool F16> DEV float part_value(uint16_t v)
{
    if constexpr (F16)
        return f16_to_f32(v);
    else
        return bf16_to_f32(v);
}

/* low and high as sums of N parts; word i holds part i of both. */
template <bool F16, int N> DEV void cut(float low, float high, uint32_t (&part)[N])
{
    UNROLL_FOR (int i = 0; i < N; i++) {
        part[i] = pack_part<F16>(low, high);
        low -= part_value<F16>((uint16_t)part[i]);
        high -= part_value<F16>((uint16_t)(part[i] >> 16));
    }
}

template <bool F16> DEV void mma_part(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2])
{
    if constexpr (F16)
        mma_f16(c, a, b);
    else
        mma_bf16(c, a, b);
}

/* Does a word of two values hold an infinity or a NaN? */
template <bool F16> DEV bool word_is_broken(uint32_t w)
{
    return F16 ? ((w & 0x7c007c00u) + 0x04000400u) & 0x80008000u
               : ((w & 0x7f807f80u) + 0x00800080u) & 0x80008000u;
}

/* ---- loads
 * ---------------------------------------------------------------------------------------------------
 */

/* Values column .. column + 3 of a row of dim values, zeros past its end; wide: dim % 4 == 0 and
 * 16-byte aligned. */
DEV void load4(float (&x)[4], const float *row, int column, int dim, bool wide)
{
    if (wide) {
        float4 v = {0, 0, 0, 0};
        if (column < dim)
            v = *reinterpret_cast<const float4 *>(row + column);
        x[0] = v.x, x[1] = v.y, x[2] = v.z, x[3] = v.w;
        return;
    }
    UNROLL_FOR (int i = 0; i < 4; i++)
        x[i] = column + i < dim ? row[column + i] : 0.0f;
}

/* Cut 4 values into N parts that lie `stride` values apart. */
template <bool F16, int N> DEV void store4(uint16_t *to, int stride, const float (&x)[4])
{
    uint32_t low[N], high[N];
    cut<F16>(x[0], x[1], low);
    cut<F16>(x[2], x[3], high);
    UNROLL_FOR (int i = 0; i < N; i++) {
        uint2 w = {low[i], high[i]};
        *reinterpret_cast<uint2 *>(to + i * stride) = w;
    }
}

/* Which keys of a cache a block may touch, and how. */
struct key_range {
    int lo, hi; /* [lo, hi): some row sees them; all others become zeros and are not read */
    int dim;
    bool wide; /* rows are whole 16-byte pieces */
};

/* Keys key0 .. + 63, columns column0 .. + slice, of k or v: 16-bit caches, asynchronous where rows
 * allow it. */
template <typename S, typename Keys>
DEV void load_slice(uint16_t *to, const Keys &keys, const uint16_t *from, int key0, int column0,
                    const key_range &r)
{
    constexpr int pieces = S::slice / 8;
    if (r.wide) {
        UNROLL_FOR (int i = 0; i < TILE_KEYS * pieces / ATTEND_THREADS; i++) {
            int at = (int)threadIdx.x + i * ATTEND_THREADS, entry = at / pieces,
                column = at % pieces * 8;
            int key = key0 + entry;
            bool inside = key >= r.lo && key < r.hi && column0 + column < r.dim;
            const uint16_t *p = inside ? from + key_row(keys, key) + column0 + column : from;
            cp_async16(to + entry * S::pitch + column, p, inside);
        }
        return;
    }
    for (int i = (int)threadIdx.x; i < TILE_KEYS * S::slice; i += ATTEND_THREADS) {
        int entry = i / S::slice, column = i % S::slice, key = key0 + entry;
        bool inside = key >= r.lo && key < r.hi && column0 + column < r.dim;
        to[entry * S::pitch + column] =
            inside ? from[key_row(keys, key) + column0 + column] : (uint16_t)0;
    }
}

/* The same for fp32 keys and values: they are cut into planes on the way. */
template <typename S, typename Keys>
DEV void load_slice(uint16_t *to, const Keys &keys, const float *from, int key0, int column0,
                    const key_range &r)
{
    constexpr int pieces = S::slice / 4;
    UNROLL_FOR (int i = 0; i < TILE_KEYS * pieces / ATTEND_THREADS; i++) {
        int at = (int)threadIdx.x + i * ATTEND_THREADS, entry = at / pieces,
            column = at % pieces * 4;
        int key = key0 + entry;
        bool inside = key >= r.lo && key < r.hi;
        float x[4];
        load4(x, inside ? from + key_row(keys, key) : from, column0 + column, inside ? r.dim : 0,
              r.wide);
        store4<false, S::planes>(to + entry * S::pitch + column, S::plane, x);
    }
}

/* ---- scores
 * --------------------------------------------------------------------------------------------------
 */

/* s += q k over the columns of one slice: 16 rows from q (first row and column of the warp), keys
 * from k. */
template <typename S>
DEV void add_scores(float (&s)[S::n_score][4], const uint16_t *q, const uint16_t *k)
{
    unsigned lane = lane_id();
    q += lane % 16 * S::q_pitch + lane / 16 * 8;
    k += (lane / 16 * 8 + lane % 8) * S::pitch + lane / 8 % 2 * 8;
    UNROLL_FOR (int step = 0; step < S::slice / 16; step++) {
        uint32_t a[S::parts][4];
        UNROLL_FOR (int i = 0; i < S::parts; i++)
            ldmatrix_x4(a[i], q + i * S::q_part + step * 16);
        UNROLL_FOR (int n = 0; n < S::n_score; n += 2)
            UNROLL_FOR (int j = 0; j < S::planes; j++) {
                uint32_t r[4];
                ldmatrix_x4(r, k + j * S::plane + n * 8 * S::pitch + step * 16);
                const uint32_t b0[2] = {r[0], r[1]}, b1[2] = {r[2], r[3]};
                UNROLL_FOR (int i = 0; i + j < S::parts; i++) {
                    mma_part<S::f16>(s[n], a[i], b0);
                    mma_part<S::f16>(s[n + 1], a[i], b1);
                }
            }
    }
}

/* ---- outputs
 * -------------------------------------------------------------------------------------------------
 */

/* exp(S) of 16 keys, which lie in two accumulators, as the A operand of the next product. */
template <typename S>
DEV void cut_weights(uint32_t (&a)[S::parts][4], const float (&p0)[4], const float (&p1)[4])
{
    uint32_t w[4][S::parts];
    cut<S::f16>(p0[0], p0[1], w[0]);
    cut<S::f16>(p0[2], p0[3], w[1]);
    cut<S::f16>(p1[0], p1[1], w[2]);
    cut<S::f16>(p1[2], p1[3], w[3]);
    UNROLL_FOR (int i = 0; i < S::parts; i++)
        UNROLL_FOR (int r = 0; r < 4; r++)
            a[i][r] = w[r][i];
}

/* Weights of keys 16 step .. + 15 for all rows of the warp: its own scores, or what the warps have
 * put down. */
template <typename S>
DEV void get_weights(uint32_t (&a)[S::parts][4], int step, const float (&p)[S::n_score][4],
                     const uint4 *shared)
{
    if constexpr (S::wide) {
        cut_weights<S>(a, p[2 * step], p[2 * step + 1]);
    } else {
        UNROLL_FOR (int i = 0; i < S::parts; i++) {
            uint4 v = shared[(i * 4 + step) * 32 + lane_id()];
            a[i][0] = v.x, a[i][1] = v.y, a[i][2] = v.z, a[i][3] = v.w;
        }
    }
}

/* sum += weights of the tile; a product with ones, so that a weight and its share of the output are
 * cut alike. */
template <typename S>
DEV void add_sums(float (&sum)[4], const float (&p)[S::n_score][4], const uint4 *shared)
{
    const uint32_t one = S::f16 ? 0x3c003c00u : 0x3f803f80u, ones[2] = {one, one};
    UNROLL_FOR (int step = 0; step < TILE_KEYS / 16; step++) {
        uint32_t a[S::parts][4];
        get_weights<S>(a, step, p, shared);
        UNROLL_FOR (int i = 0; i < S::parts; i++)
            mma_part<S::f16>(sum, a[i], ones);
    }
}

/* Is there an infinity or a NaN among the warp's columns of a V slice? */
template <typename S> DEV bool values_are_broken(const uint16_t *v)
{
    bool broken = false;
    v += lane_id() % 16 * S::pitch + lane_id() / 16 * 8;
    UNROLL_FOR (int step = 0; step < TILE_KEYS / 16; step++)
        UNROLL_FOR (int n = 0; n < S::slice_out; n += 2) {
            uint32_t r[4];
            ldmatrix_x4_transposed(r, v + step * 16 * S::pitch + n * 8);
            UNROLL_FOR (int i = 0; i < (n + 1 < S::slice_out ? 4 : 2); i++)
                broken |= word_is_broken<S::f16>(r[i]);
        }
    return warp_ballot(broken) != 0;
}

/* The words of a B operand without the keys outside [lo, hi); key: that of the low half of b[0]. */
DEV void hide_keys(uint32_t (&b)[2], int key, int lo, int hi)
{
    UNROLL_FOR (int i = 0; i < 2; i++) {
        int low = key + 8 * i;
        uint32_t mask = (low >= lo && low < hi ? 0xffffu : 0u) |
                        (low + 1 >= lo && low + 1 < hi ? 0xffff0000u : 0u);
        b[i] &= mask;
    }
}

/* o += weights * v over one V slice, o the slice's accumulators. GUARDED: v holds a NaN that some
 * row must not meet, as 0 * NaN is not 0; so the rows of the warp, which see keys lo[r] .. hi[r] -
 * 1, go one by one, each without the values of the keys it does not see. The additions are the
 * same. */
template <typename S, bool GUARDED>
DEV void add_values(float (*o)[4], const float (&p)[S::n_score][4], const uint4 *shared,
                    const uint16_t *v, int key0, const int *lo, const int *hi)
{
    int lane = (int)lane_id();
    v += lane % 16 * S::pitch +
         lane / 16 * 8; /* an odd last n also loads 8 columns past it, at most the padding */
    UNROLL_FOR (int step = 0; step < TILE_KEYS / 16; step++) {
        uint32_t a[S::parts][4];
        get_weights<S>(a, step, p, shared);
        ROLLED_FOR (int row = 0; row < (GUARDED ? 16 : 1); row++) {
            uint32_t r[S::planes][4] = {}; /* columns of accumulators n and n + 1 */
            UNROLL_FOR (int n = 0; n < S::slice_out; n++) {
                float c[4] = {o[n][0], o[n][1], o[n][2], o[n][3]};
                if constexpr (GUARDED)
                    __syncwarp(); /* keeps the compiler from loading ahead: a rare path must not
                                     cost registers */
                UNROLL_FOR (int j = 0; j < S::planes; j++) {
                    const uint16_t *from = v + j * S::plane + step * 16 * S::pitch + n / 2 * 16;
                    if (GUARDED || n % 2 == 0)
                        ldmatrix_x4_transposed(r[j], from);
                    uint32_t b[2] = {r[j][n % 2 * 2], r[j][n % 2 * 2 + 1]};
                    if constexpr (GUARDED)
                        hide_keys(b, key0 + step * 16 + lane % 4 * 2, lo[row], hi[row]);
                    UNROLL_FOR (int i = 0; i + j < S::parts; i++)
                        mma_part<S::f16>(c, a[i], b);
                }
                UNROLL_FOR (int i = 0; i < 4; i++)
                    o[n][i] = !GUARDED || lane / 4 + i / 2 * 8 == row ? c[i] : o[n][i];
            }
        }
    }
}

#endif
