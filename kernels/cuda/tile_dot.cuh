/* kernels/cuda/tile_dot.cuh - packed weight tiles times prepared rows: the core of linear.cu,
 * head.cu and conv.cu.
 *
 * Weights are the A side of mma (16 outputs), tokens the B side (8 per mma): columns never meet. A
 * lane reads its weight fragments from memory in the order of weight.h and its activations as 16
 * consecutive bytes of a row.
 *
 *     BF16  one mma per half step        F16  w * high + w * low, x / scale = high + low in fp16
 *     I8    one, exact in int32          F32  w_high * high + w_high * low + w_low * high
 *     F8    as F16, unpacked to fp16     I4   four, exact in int32, then times s_w s_x: one group
 *
 * The order of a sum: K is cut into SLICES runs of steps by its length alone; each run is one chain
 * of mma from zero; y = scale * run 0 + scale * run 1 + ... Two block shapes share that order,
 * hence the bits: Stream gives each of 8 warps one run of one tile (few tokens: all warps stream
 * weights), Grid gives each warp whole tiles and 64 tokens, which the 8 warps read at the same time
 * through L1 (many tokens). */
#ifndef HG_KERNELS_CUDA_TILE_DOT_CUH
#define HG_KERNELS_CUDA_TILE_DOT_CUH

#include "kernels/cuda/cuda_common.cuh"
extern "C" {
#include "kernels/cuda/weight.h"
}

#define MEMBER __device__ __forceinline__

enum {
    BLOCK_THREADS = 256,
    SLICES = BLOCK_THREADS / 32,
    PITCH = 20 /* of a token's 16 sums: no bank conflicts */
};

/* sum: what runs over steps. weight, row: 16-byte loads per lane and step; ring: steps of weights
 * in flight per lane. */
template <int type> struct Dot;
template <> struct Dot<HG_DTYPE_BF16> {
    typedef float sum;
    enum { weight = 2, row = 1, ring = 4 };
};
template <> struct Dot<HG_DTYPE_F16> {
    typedef float sum;
    enum { weight = 2, row = 2, ring = 4 };
};
template <> struct Dot<HG_DTYPE_F32> {
    typedef float sum;
    enum { weight = 4, row = 2, ring = 2 };
};
template <> struct Dot<HG_DTYPE_I8> {
    typedef int32_t sum;
    enum { weight = 2, row = 1, ring = 4 };
};

template <> struct Dot<HG_DTYPE_F8> {
    typedef float sum;
    enum { weight = 1, row = 2, ring = 8 };
};
template <> struct Dot<HG_DTYPE_I4> {
    typedef float sum;
    enum { weight = 2, row = 2, ring = 4 };
};

/* 4 values of F8 as fp16 pairs, 2^-8 of each; the layout is that of weight.h. */
DEV void unpack_f8(uint32_t v, uint32_t *first, uint32_t *second)
{
    *first = v & 0xbf80bf80u;
    *second = (v << 1 & 0x80008000u) | (v << 7 & 0x3f803f80u);
}

/* 8 values of I4 as int8, 16 times each: a nibble in the upper half of its byte is sign extended.
 */
DEV void unpack_i4(uint32_t v, uint32_t *first, uint32_t *second)
{
    *first = v << 4 & 0xf0f0f0f0u;
    *second = v & 0xf0f0f0f0u;
}

/* A group of one tile and 8 tokens. s_w: fp16 scales of rows g and g + 8; s_x: of this lane's two
 * tokens, 1/16 of them. */
DEV void dot_group(float (&c)[4], const uint4 (&w)[2], const uint4 (&x)[2], uint32_t s_w,
                   float2 s_x)
{
    int32_t sum[4] = {};
    UNROLL_FOR (int p = 0; p < 2; p++)
        UNROLL_FOR (int h = 0; h < 2; h++) {
            uint32_t a[4];
            const uint32_t b[2] = {h ? x[p].z : x[p].x, h ? x[p].w : x[p].y};
            unpack_i4(h ? w[p].z : w[p].x, &a[0], &a[2]);
            unpack_i4(h ? w[p].w : w[p].y, &a[1], &a[3]);
            mma_s8(sum, a, b);
        }
    float low = f16_to_f32((uint16_t)s_w), high = f16_to_f32((uint16_t)(s_w >> 16));
    c[0] = fmaf((float)sum[0], low * s_x.x, c[0]);
    c[1] = fmaf((float)sum[1], low * s_x.y, c[1]);
    c[2] = fmaf((float)sum[2], high * s_x.x, c[2]);
    c[3] = fmaf((float)sum[3], high * s_x.y, c[3]);
}

/* One step of one tile and 8 tokens. */
template <int type>
DEV void dot_step(typename Dot<type>::sum (&c)[4], const uint4 (&w)[Dot<type>::weight],
                  const uint4 (&x)[Dot<type>::row])
{
    UNROLL_FOR (int h = 0; h < 2; h++) {
        uint32_t a[4];
        if constexpr (type == HG_DTYPE_F8) {
            unpack_f8(h ? w[0].z : w[0].x, &a[0], &a[2]);
            unpack_f8(h ? w[0].w : w[0].y, &a[1], &a[3]);
        } else {
            a[0] = w[h].x, a[1] = w[h].y, a[2] = w[h].z, a[3] = w[h].w;
        }
        const uint32_t b[2] = {h ? x[0].z : x[0].x, h ? x[0].w : x[0].y};
        if constexpr (type == HG_DTYPE_I8)
            mma_s8(c, a, b);
        else if constexpr (type == HG_DTYPE_BF16)
            mma_bf16(c, a, b);
        else {
            const uint32_t low[2] = {h ? x[1].z : x[1].x, h ? x[1].w : x[1].y};
            mma_f16(c, a, b);
            mma_f16(c, a, low);
            if constexpr (type == HG_DTYPE_F32) {
                const uint32_t a_low[4] = {w[2 + h].x, w[2 + h].y, w[2 + h].z, w[2 + h].w};
                mma_f16(c, a_low, b);
            }
        }
    }
}

/* Prepared rows of consecutive tokens; group t of 8 starts 8 t rows on. Rows past the last token
 * may hold anything: their columns are never used. Of the first group they are not even read, but
 * row n - 1 again, so that few tokens take little of the caches. I4: scales of a step are those of
 * `scale_pitch` tokens. */
template <int type> struct Rows {
    const char *at; /* this lane's row of group 0 and its 16 bytes */
    int64_t pitch;
    const float *scale; /* of this lane's two tokens of group 0 */
    int64_t scale_pitch;
    MEMBER Rows(const void *rows, int64_t row_bytes, int token, int n,
                const float *scales = nullptr, int64_t scales_per_step = 0)
        : at((const char *)rows +
             (token + (int)lane_id() / 4 < n ? token + (int)lane_id() / 4 : n - 1) * row_bytes +
             lane_id() % 4 * 16),
          pitch(8 * row_bytes), scale(scales + token + lane_id() % 4 * 2),
          scale_pitch(scales_per_step)
    {
    }
    MEMBER float2 scales(int step, int t) const
    {
        return *(const float2 *)(scale + step * scale_pitch + t * 8);
    }
    MEMBER void seek(int)
    {
    }
    MEMBER uint4 load(int step, int t, int plane) const
    {
        uint32_t in_row = (uint32_t)step * (STEP_BYTES * Dot<type>::row) + plane * STEP_BYTES;
        return *(const uint4 *)(at + t * pitch + in_row);
    }
};

/* This lane's part of MT tiles of a matrix. */
template <int MT> struct Weights {
    const char *at[MT];
    const uint32_t *scale[MT]; /* I4 */
    MEMBER void set(const cuda_matrix &m, int i, int tile, int loads)
    {
        int64_t step0 = (int64_t)tile * m.steps;
        at[i] = (const char *)m.data + step0 * (loads * 512) + lane_id() * 16;
        scale[i] = m.group_scale + step0 * 8 + lane_id() / 4;
    }
};

/* One step of a tile times 8 NT tokens, where there are too few for a ring. */
template <int type, int NT>
DEV void add_step(typename Dot<type>::sum (&sum)[NT][4], const Weights<1> &weight,
                  const Rows<type> &rows, int step)
{
    enum { W = Dot<type>::weight, X = Dot<type>::row };
    uint4 w[W], x[X];
    UNROLL_FOR (int i = 0; i < W; i++)
        w[i] = load_stream(weight.at[0] + (int64_t)step * (W * 512) + i * 512);
    UNROLL_FOR (int t = 0; t < NT; t++) {
        UNROLL_FOR (int i = 0; i < X; i++)
            x[i] = rows.load(step, t, i);
        dot_step<type>(sum[t], w, x);
    }
}

/* Steps [begin, end) of MT tiles times 8 NT tokens, weights `ring` steps ahead. source.seek()
 * comes before the rows of a step; fold() after every `slice` steps and at the end. Warp-uniform
 * arguments. */
template <int type, int MT, int NT, class Source, class Fold>
DEV void accumulate(typename Dot<type>::sum (&sum)[MT][NT][4], const Weights<MT> &weight,
                    Source &source, int begin, int end, int slice, Fold fold)
{
    enum {
        W = Dot<type>::weight,
        X = Dot<type>::row,
        D = MT * NT * X <= 4 ? Dot<type>::ring
            : W == 1         ? 4
                             : 2,
        ahead = NT * X <= 2 &&
                type < HG_DTYPE_F8, /* rows travel with the weights while registers last */
        G = ahead || NT < 4 ? NT : 4
    };
    uint4 w[D][MT][W], x[ahead ? D : 1][G][X];
    uint32_t s_w[D][MT]; /* scales of I4 */
    float2 s_x[ahead ? D : 1][G];
    auto load_weights = [&](int d, int step) {
        UNROLL_FOR (int m = 0; m < MT; m++) {
            UNROLL_FOR (int i = 0; i < W; i++)
                w[d][m][i] = load_stream(weight.at[m] + (int64_t)step * (W * 512) + i * 512);
            if constexpr (type == HG_DTYPE_I4)
                s_w[d][m] = weight.scale[m][(int64_t)step * 8];
        }
    };
    auto load_rows = [&](int d, int step, int t0) {
        source.seek(step);
        UNROLL_FOR (int t = 0; t < G; t++) {
            UNROLL_FOR (int i = 0; i < X; i++)
                x[d][t][i] = source.load(step, t0 + t, i);
            if constexpr (type == HG_DTYPE_I4)
                s_x[d][t] = source.scales(step, t0 + t);
        }
    };
    UNROLL_FOR (int d = 0; d < D; d++)
        if (begin + d < end)
            load_weights(d, begin + d);
    UNROLL_FOR (int d = 0; d < D; d++)
        if (ahead && begin + d < end)
            load_rows(d % (ahead ? D : 1), begin + d, 0);
    int fold_at = begin + slice;
    for (int s = begin; s < end; s += D)
        UNROLL_FOR (int d = 0; d < D; d++) {
            int step = s + d;
            if (step >= end)
                continue;
            UNROLL_FOR (int t0 = 0; t0 < NT; t0 += G) {
                if (!ahead)
                    load_rows(0, step, t0);
                UNROLL_FOR (int t = 0; t < G; t++)
                    UNROLL_FOR (int m = 0; m < MT; m++) {
                        if constexpr (type == HG_DTYPE_I4)
                            dot_group(sum[m][t0 + t], w[d][m], x[ahead ? d : 0][t], s_w[d][m],
                                      s_x[ahead ? d : 0][t]);
                        else
                            dot_step<type>(sum[m][t0 + t], w[d][m], x[ahead ? d : 0][t]);
                    }
            }
            if (step + D < end) {
                load_weights(d, step + D);
                if (ahead)
                    load_rows(d % (ahead ? D : 1), step + D, 0);
            }
            if (step + 1 == fold_at || step + 1 == end) {
                fold();
                fold_at += slice;
            }
        }
}

/* What a product is multiplied with and for which tokens: the row's scale times the token's; tokens
 * of another slot take nothing, not even a NaN. */
struct Columns {
    const float *token_scale; /* NULL: 1 */
    int64_t stride;           /* between tokens, 0: one scale for all */
    const int32_t *slot_of;   /* NULL: every token takes */
    int slot, n_tokens;
};

DEV bool takes(const Columns &c, int token)
{
    return token < c.n_tokens && (!c.slot_of || c.slot_of[token] == c.slot);
}

DEV float product_scale(const cuda_matrix &m, const Columns &c, int64_t row, int token)
{
    float s = c.token_scale ? c.token_scale[token * c.stride] : 1.0f;
    return m.scale ? s * m.scale[row] : s;
}

/* sm_120 takes some registers more for the same code and would spill: there a warp of Grid sums its
 * tiles one after the other, and wide Streams have a multiprocessor to themselves. The additions
 * behind an output are the same. */
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1200
enum { TILES_AT_ONCE = 1, MOST_SHARED = 63 };
#else
enum { TILES_AT_ONCE = 2, MOST_SHARED = 64 };
#endif

/* Blocks that must fit a multiprocessor: weights in flight hide the latency of memory, as far as
 * registers last. */
template <int type, class Team> struct Blocks {
    enum {
        least = Team::tiles > 1 && Team::tokens <= 16 ? Dot<type>::row == 1 ? 3 : 2
                : Team::tiles > 1 || Dot<type>::row *Team::tokens > MOST_SHARED ? 1
                : Dot<type>::row *Team::tokens > (type >= HG_DTYPE_F8 ? 16 : 8) ? 2
                                                                                : 3
    };
};

/* The sums of 8 warps over their slices of K, of one tile and 8 NT tokens, [slice][token][PITCH] of
 * shared memory, and the thread's share of the finished values: pair i is outputs r and r + 8 of
 * one token, r = e % 8, token = e / 8 with e = threadIdx.x + i * BLOCK_THREADS. A barrier belongs
 * between put and take. */
template <int NT> struct Sliced {
    enum {
        tokens = 8 * NT,
        floats = SLICES * tokens * PITCH,
        pairs = (tokens * 8 + BLOCK_THREADS - 1) / BLOCK_THREADS
    };

    template <class sum_t> static MEMBER void put(float *shared, const sum_t (&sum)[NT][4])
    {
        sum_t *partial = (sum_t *)shared;
        int warp = threadIdx.x / 32, lane = lane_id();
        UNROLL_FOR (int t = 0; t < NT; t++)
            UNROLL_FOR (int i = 0; i < 4; i++)
                partial[(warp * tokens + t * 8 + lane % 4 * 2 + i % 2) * PITCH + lane / 4 +
                        i / 2 * 8] = sum[t][i];
    }

    /* v += the sums of tile `at` of m. */
    template <int type>
    static MEMBER void take(float (&v)[pairs][2], const float *shared, const cuda_matrix &m, int at,
                            int token0, const Columns &columns)
    {
        typedef typename Dot<type>::sum sum_t;
        int slice = (m.steps + SLICES - 1) / SLICES, n_slices = (m.steps + slice - 1) / slice;
        UNROLL_FOR (int i = 0; i < pairs; i++) {
            int e = threadIdx.x + i * BLOCK_THREADS, token = token0 + e / 8;
            if (e >= tokens * 8 || !takes(columns, token))
                continue;
            UNROLL_FOR (int h = 0; h < 2; h++) {
                const sum_t *p = (const sum_t *)shared + e / 8 * PITCH + e % 8 + h * 8;
                float scale =
                    product_scale(m, columns, (int64_t)at * TILE_ROWS + e % 8 + h * 8, token);
                if constexpr (type == HG_DTYPE_I8) {
                    int32_t whole = 0;
                    for (int s = 0; s < n_slices; s++)
                        whole += p[s * tokens * PITCH];
                    v[i][h] = fmaf((float)whole, scale, v[i][h]);
                } else {
                    for (int s = 0; s < n_slices; s++)
                        v[i][h] = fmaf(p[s * tokens * PITCH], scale, v[i][h]);
                }
            }
        }
    }

    /* f(r, token, value of row r, of row r + 8) */
    template <class F> static MEMBER void each_pair(const float (&v)[pairs][2], int token0, F f)
    {
        UNROLL_FOR (int i = 0; i < pairs; i++) {
            int e = threadIdx.x + i * BLOCK_THREADS;
            if (e < tokens * 8)
                f(e % 8, token0 + e / 8, v[i][0], v[i][1]);
        }
    }
};

/* One tile of 16 outputs and 8 NT tokens per block; 8 warps share K. */
template <int NT> struct Stream {
    typedef Sliced<NT> Sums;
    enum { tokens = 8 * NT, tiles = 1, shared_floats = Sums::floats };
    float *shared;
    int tile, token0;
    float v[Sums::pairs][2];

    MEMBER Stream(float *memory, int first_tile, int first_token)
        : shared(memory), tile(first_tile), token0(first_token)
    {
        UNROLL_FOR (int i = 0; i < Sums::pairs; i++)
            v[i][0] = v[i][1] = 0;
    }

    /* v += m x; tile 0 of m is tile `tile0` of the block's numbering. Block-uniform; ends in step.
     */
    template <int type, class Source>
    MEMBER void product(const cuda_matrix &m, int tile0, Source source, const Columns &columns)
    {
        typename Dot<type>::sum sum[1][NT][4] = {};
        int at = tile - tile0, warp = threadIdx.x / 32;
        int slice = (m.steps + SLICES - 1) / SLICES, begin = warp * slice;
        int end = begin + slice < m.steps ? begin + slice : m.steps;
        if (at < 0 || at >= m.tiles)
            return;
        Weights<1> weight;
        weight.set(m, 0, at, Dot<type>::weight);
        if (begin < end)
            accumulate<type, 1, NT>(sum, weight, source, begin, end, slice, [] {});
        __syncthreads(); /* the sums of the product before have been read */
        Sums::put(shared, sum[0]);
        __syncthreads();
        Sums::template take<type>(v, shared, m, at, token0, columns);
    }

    /* f(tile, r, token, value of row r, of row r + 8) */
    template <class F> MEMBER void each_pair(F f)
    {
        Sums::each_pair(v, token0,
                        [&](int r, int token, float v0, float v1) { f(tile, r, token, v0, v1); });
    }
};

/* 8 MT tiles and 8 NT tokens per block; each warp has MT tiles and all of K. */
template <int MT, int NT> struct Grid {
    enum { tokens = 8 * NT, tiles = 8 * MT, shared_floats = SLICES * tokens * PITCH };
    float *shared;    /* [warp][token][PITCH] */
    int tile, token0; /* tile: the warp's first */
    float v[MT][NT][4];

    MEMBER Grid(float *memory, int first_tile, int first_token)
        : shared(memory + threadIdx.x / 32 * (tokens * PITCH)),
          tile(first_tile + threadIdx.x / 32 * MT), token0(first_token)
    {
        UNROLL_FOR (int m = 0; m < MT; m++)
            UNROLL_FOR (int t = 0; t < NT; t++)
                UNROLL_FOR (int i = 0; i < 4; i++)
                    v[m][t][i] = 0;
    }

    /* most: tiles at once, fewer where registers are short; the additions behind an output are the
     * same. */
    template <int type, int most = TILES_AT_ONCE, class Source>
    MEMBER void product(const cuda_matrix &m, int tile0, Source source, const Columns &columns)
    {
        enum { A = MT < most ? MT : most };
        UNROLL_FOR (int i = 0; i < MT; i += A)
            part<type, A>(m, tile - tile0 + i, v + i, source, columns);
    }

    /* to += m x for A tiles from `first`. */
    template <int type, int A, class Source>
    MEMBER void part(const cuda_matrix &m, int first, float (*to)[NT][4], Source source,
                     const Columns &columns)
    {
        typename Dot<type>::sum sum[A][NT][4] = {};
        Weights<A> weight;
        int slice = type == HG_DTYPE_I8 ? m.steps : (m.steps + SLICES - 1) / SLICES;
        if (first + A <= 0 || first >= m.tiles)
            return;
        UNROLL_FOR (int i = 0; i < A;
                    i++) { /* a tile outside repeats one inside and is not added */
            int at = first + i < 0 ? 0 : first + i < m.tiles ? first + i : m.tiles - 1;
            weight.set(m, i, at, Dot<type>::weight);
        }
        accumulate<type, A, NT>(sum, weight, source, 0, m.steps, slice,
                                [&] { fold<A>(m, first, to, sum, columns); });
    }

    /* to += sum * scales, sum = 0, for A tiles from `first`. */
    template <int A, class sum_t>
    MEMBER void fold(const cuda_matrix &m, int first, float (*to)[NT][4], sum_t (&sum)[A][NT][4],
                     const Columns &columns)
    {
        int lane = lane_id();
        UNROLL_FOR (int t = 0; t < NT; t++)
            UNROLL_FOR (int i = 0; i < 2; i++) {
                int token = token0 + t * 8 + lane % 4 * 2 + i;
                bool wanted = takes(columns, token);
                UNROLL_FOR (int j = 0; j < A; j++)
                    UNROLL_FOR (int h = 0; h < 2; h++) {
                        if (wanted && first + j >= 0 && first + j < m.tiles) {
                            int64_t row = (int64_t)(first + j) * TILE_ROWS + lane / 4 + h * 8;
                            to[j][t][2 * h + i] =
                                fmaf((float)sum[j][t][2 * h + i],
                                     product_scale(m, columns, row, token), to[j][t][2 * h + i]);
                        }
                        sum[j][t][2 * h + i] = 0;
                    }
            }
    }

    /* v = sums made elsewhere: y [tokens, ld], rows of tile `tile0` first, tiles before `end`. */
    MEMBER void load(const cuda_matrix &m, const float *y, int64_t ld, int tile0, int end,
                     const Columns &columns)
    {
        int lane = lane_id();
        UNROLL_FOR (int j = 0; j < MT; j++)
            UNROLL_FOR (int t = 0; t < NT; t++)
                UNROLL_FOR (int i = 0; i < 4; i++) {
                    int token = token0 + t * 8 + lane % 4 * 2 + i % 2;
                    int r = lane / 4 + i / 2 * 8;
                    if (token < columns.n_tokens && tile + j < end)
                        v[j][t][i] =
                            y[token * ld + (tile + j - tile0) * TILE_ROWS + r] *
                            product_scale(m, columns, (int64_t)(tile + j) * TILE_ROWS + r, token);
                }
    }

    template <class F> MEMBER void each_pair(F f)
    {
        int lane = lane_id();
        UNROLL_FOR (int j = 0; j < MT; j++) {
            __syncwarp();
            UNROLL_FOR (int t = 0; t < NT; t++)
                UNROLL_FOR (int i = 0; i < 4; i++)
                    shared[(t * 8 + lane % 4 * 2 + i % 2) * PITCH + lane / 4 + i / 2 * 8] =
                        v[j][t][i];
            __syncwarp();
            for (int e = lane; e < tokens * 8; e += 32)
                f(tile + j, e % 8, token0 + e / 8, shared[e / 8 * PITCH + e % 8],
                  shared[e / 8 * PITCH + e % 8 + 8]);
        }
    }
};

#endif
