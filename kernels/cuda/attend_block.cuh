/* kernels/cuda/attend_block.cuh - the stations of a block of attend.cuh: its rows, the ring of
 * slices, the softmax of a tile, the end of a chunk. */
#ifndef HG_KERNELS_CUDA_ATTEND_BLOCK_CUH
#define HG_KERNELS_CUDA_ATTEND_BLOCK_CUH

#include "kernels/cuda/attention_i8.cuh"
#include "kernels/cuda/cuda.h"

struct attend_args {
    const float *q; /* [tokens, ldq] */
    float *y;       /* [tokens, H * P] */
    int64_t ldq;
    int n_heads, group, dim;
    float scale, sign;           /* |scale| * log2 e, and its sign, which q takes */
    bool wide_q, wide_kv, pairs; /* 16-byte rows of q, of k and v; 8-byte ones of y */
    float *records;
    int *arrived; /* zero between launches */
};

template <typename S> struct attend_memory {
    uint16_t *ring, *q;
    uint4 *weights; /* [parts][4 steps][32 lanes] */
    float *factor;  /* [rows] score to power of two */
    int *lo, *hi;   /* [rows] keys that a row sees */
    float *peak;    /* [4 warps][16 rows] */
    int *last;
};

/* What a tile of keys is for the rows of a warp. Found anew for each tile: registers are dear. */
struct tile_view {
    bool busy;   /* some row sees some key */
    bool masked; /* some row misses some key */
    bool mixed;  /* of the keys that were loaded, some row misses some */
};

template <typename S> struct attend_state {
    float o[S::n_out][4], sum[4], max[2];
    /* I8: sums of this thread's weights by steps of 16 keys; sum follows at the end of a chunk */
    float part[S::i8 ? S::n_score / 2 : 1][2];
};

template <typename S> DEV attend_memory<S> carve(unsigned char *p)
{
    attend_memory<S> m;
    m.ring = reinterpret_cast<uint16_t *>(p);
    m.q = reinterpret_cast<uint16_t *>(p + S::q_at);
    m.weights = reinterpret_cast<uint4 *>(p + S::p_at);
    m.factor = reinterpret_cast<float *>(p + S::rows_at);
    m.lo = reinterpret_cast<int *>(m.factor + S::rows);
    m.hi = m.lo + S::rows;
    m.peak = reinterpret_cast<float *>(p + S::peak_at);
    m.last = reinterpret_cast<int *>(m.peak + ATTEND_WARPS * 16);
    return m;
}

DEV int larger(int a, int b)
{
    return a > b ? a : b;
}

DEV int smaller(int a, int b)
{
    return a < b ? a : b;
}

DEV int64_t token_of(const attend_work &w, const attend_args &a, int row)
{
    return w.first + (w.row0 + row) / a.group;
}

/* Element of y (and of a dense q) at which a row begins. */
DEV int64_t row_start(const attend_work &w, const attend_args &a, int row)
{
    int head = (int)blockIdx.y * a.group + (w.row0 + row) % a.group;
    return (token_of(w, a, row) * a.n_heads + head) * a.dim;
}

/* A power of two near the largest of 8 lanes' values, its inverse in *factor; f16 parts then cannot
 * overflow. */
DEV float row_unit(float max, float *inverse)
{
    UNROLL_FOR (unsigned m = 4; m > 0; m /= 2)
        max = fmaxf(max, shfl_xor(max, m));
    int e = f32_to_bf16(max) >> 7 & 255;
    if (e < 1 || e > 253)
        e = 127;
    *inverse = bf16_to_f32((uint16_t)((254 - e) << 7));
    return bf16_to_f32((uint16_t)(e << 7));
}

/* Query rows into shared memory as parts, 8 lanes a row; rows that do not exist become zeros. */
template <typename S, typename Source>
DEV void load_rows(const attend_memory<S> &m, const Source &source, const attend_work &w,
                   const attend_args &a)
{
    int lane = (int)threadIdx.x % 8;
    for (int r0 = 0; r0 < S::rows; r0 += ATTEND_THREADS / 8) {
        int r = r0 + (int)threadIdx.x / 8, real = r < w.n_rows ? r : w.n_rows - 1;
        int64_t token = token_of(w, a, real);
        int head = (int)blockIdx.y * a.group + (w.row0 + real) % a.group;
        const float *q = a.q + token * a.ldq + (int64_t)head * a.dim;
        float x[S::dim / 32][4], max = 0, unit = 1, inverse = 1;
        UNROLL_FOR (int i = 0; i < S::dim / 32; i++) {
            load4(x[i], q, i * 32 + lane * 4, r < w.n_rows ? a.dim : 0, a.wide_q);
            UNROLL_FOR (int j = 0; j < 4; j++)
                max = fmaxf(max, fabsf(x[i][j]));
        }
        if constexpr (S::f16)
            unit = row_unit(max, &inverse);
        UNROLL_FOR (int i = 0; i < S::dim / 32; i++) {
            UNROLL_FOR (int j = 0; j < 4; j++)
                x[i][j] *= inverse * a.sign;
            if constexpr (S::i8)
                put_query<S>(m.q + r * S::q_pitch, i * 32 + lane * 4, x[i]);
            else
                store4<S::f16, S::parts>(m.q + r * S::q_pitch + i * 32 + lane * 4, S::q_part, x[i]);
        }
        if (lane == 0) {
            m.factor[r] = a.scale * unit;
            m.lo[r] = first_key(source, token);
            m.hi[r] = last_key(source, token) + 1;
        }
    }
}

/* The first of a warp's 16 rows, and that of a thread's accumulators: g, and g + 8 for h = 1. */
template <typename S> DEV int warp_row()
{
    return S::wide ? (int)threadIdx.x / 32 * 16 : 0;
}

template <typename S> DEV int thread_row(int h)
{
    return warp_row<S>() + (int)lane_id() / 4 + 8 * h;
}

/* Rows ascend in position, so the first and the last say it all. lo, hi: keys that the block may
 * touch. */
template <typename S>
DEV tile_view view_tile(const attend_memory<S> &m, int n_rows, int key0, int lo, int hi)
{
    int first = warp_row<S>(), last = first + 15, end = key0 + TILE_KEYS;
    int all_lo = m.lo[last], all_hi = m.hi[first];
    tile_view v = {first < n_rows && key0 < m.hi[last] && end > m.lo[first],
                   key0 < all_lo || end > all_hi,
                   larger(key0, lo) < all_lo || smaller(end, hi) > all_hi};
    return v;
}

/* ---- the ring of slices
 * -------------------------------------------------------------------------------------- */

template <typename S, typename Keys> struct attend_ring {
    uint16_t *memory;
    Keys keys;
    key_range range;
    int first_tile, n_steps, step;
};

template <typename S, typename Keys> DEV void ring_load(const attend_ring<S, Keys> &r, int step)
{
    int tile = r.first_tile + step / (2 * S::n_slices), part = step % (2 * S::n_slices);
    uint16_t *to = r.memory + step % S::stages * S::stage;
    if constexpr (S::i8)
        if (part == S::n_slices - 1) /* the last slice of K: both scales are wanted next */
            load_scales<S>(to, r.keys, tile * TILE_KEYS, r.range);
    load_slice<S>(to, r.keys, part < S::n_slices ? r.keys.k : r.keys.v, tile * TILE_KEYS,
                  part % S::n_slices * S::slice, r.range);
}

template <typename S, typename Keys> DEV void ring_start(const attend_ring<S, Keys> &r)
{
    for (int i = 0; i < S::stages - 1; i++) {
        if (i < r.n_steps)
            ring_load(r, i);
        cp_async_commit();
    }
}

/* The next slice; a barrier, after which the one before it may be overwritten. */
template <typename S, typename Keys> DEV const uint16_t *ring_next(attend_ring<S, Keys> &r)
{
    if constexpr (S::stages > 1) {
        cp_async_wait<S::stages - 2>();
        __syncthreads();
        if (r.step + S::stages - 1 < r.n_steps)
            ring_load(r, r.step + S::stages - 1);
        cp_async_commit();
    } else {
        __syncthreads();
        ring_load(r, r.step);
        __syncthreads();
    }
    return r.memory + r.step++ % S::stages * S::stage;
}

/* ---- softmax of a tile
 * --------------------------------------------------------------------------------------- */

/* Scores of this warp become weights; max, sum and o move to the new maximum. masked: some row
 * misses some key. stage: the buffer of K's last slice. */
template <typename S>
DEV void weigh(attend_state<S> &t, float (&s)[S::n_score][4], const attend_memory<S> &m,
               const uint16_t *stage, int key0, bool masked)
{
    if constexpr (S::i8)
        UNROLL_FOR (int n = 0; n < S::n_score; n++) {
            float2 scale = scales_of<S>(stage, false, n);
            UNROLL_FOR (int i = 0; i < 4; i++)
                s[n][i] *= i % 2 ? scale.y : scale.x;
        }
    int warp = (int)threadIdx.x / 32, q = (int)lane_id() % 4, g = (int)lane_id() / 4;
    int key = key0 + (S::wide ? 0 : warp * 16) + 2 * q;
    float max[2] = {-INFINITY, -INFINITY};
    UNROLL_FOR (int n = 0; n < S::n_score; n++)
        UNROLL_FOR (int i = 0; i < 4; i++) {
            int k = key + n * 8 + i % 2, h = i / 2;
            if (!masked || (k >= m.lo[thread_row<S>(h)] && k < m.hi[thread_row<S>(h)]))
                max[h] = fmaxf(max[h], s[n][i]);
        }
    UNROLL_FOR (int h = 0; h < 2; h++) {
        max[h] = fmaxf(max[h], shfl_xor(max[h], 1));
        max[h] = fmaxf(max[h], shfl_xor(max[h], 2));
        if constexpr (!S::wide)
            if (q == 0)
                m.peak[warp * 16 + g + 8 * h] = max[h];
    }
    if constexpr (!S::wide) {
        __syncthreads();
        UNROLL_FOR (int h = 0; h < 2; h++)
            UNROLL_FOR (int w = 0; w < ATTEND_WARPS; w++)
                max[h] = fmaxf(max[h], m.peak[w * 16 + g + 8 * h]);
    }
    float factor[2];
    UNROLL_FOR (int h = 0; h < 2; h++) {
        factor[h] = m.factor[thread_row<S>(h)];
        max[h] = fmaxf(max[h], t.max[h]);
        float change = softmax_rescale(t.max[h], max[h], factor[h]);
        t.max[h] = max[h];
        t.sum[2 * h] *= change;
        t.sum[2 * h + 1] *= change;
        UNROLL_FOR (int i = 0; S::i8 && i < S::n_score / 2; i++)
            t.part[i][h] *= change;
        UNROLL_FOR (int n = 0; n < S::n_out; n++) {
            t.o[n][2 * h] *= change;
            t.o[n][2 * h + 1] *= change;
        }
    }
    UNROLL_FOR (int n = 0; n < S::n_score; n++) {
        float2 scale = {1, 1};
        if constexpr (S::i8)
            scale = scales_of<S>(stage, true, n);
        UNROLL_FOR (int i = 0; i < 4; i++) {
            int k = key + n * 8 + i % 2, h = i / 2;
            float p = softmax_exp(s[n][i], max[h], factor[h]);
            bool hidden = masked && (k < m.lo[thread_row<S>(h)] || k >= m.hi[thread_row<S>(h)]);
            if constexpr (S::i8) {
                t.part[n / 2][h] += hidden ? 0.0f : p;
                p *= i % 2 ? scale.y : scale.x;
            }
            s[n][i] = hidden ? 0.0f : p;
        }
    }
    if constexpr (!S::wide) { /* every warp needs all weights; the next ring_next is the barrier */
        uint32_t a[S::parts][4];
        cut_weights<S>(a, s[0], s[1]);
        UNROLL_FOR (int i = 0; i < S::parts; i++) {
            uint4 v = {a[i][0], a[i][1], a[i][2], a[i][3]};
            m.weights[(i * 4 + warp) * 32 + (int)lane_id()] = v;
        }
    }
}

/* o += weights * one V slice. mixed: a loaded key is hidden from some row of the warp. */
template <typename S>
DEV void take_values(float (*o)[4], const float (&p)[S::n_score][4], const attend_memory<S> &m,
                     const uint16_t *v, int key0, bool mixed)
{
    if constexpr (S::i8)
        return add_values_i8<S>(o, p, m.weights, v);
    v += S::wide ? 0 : (int)threadIdx.x / 32 * S::slice_out * 8;
    if (mixed && values_are_broken<S>(v))
        add_values<S, true>(o, p, m.weights, v, key0, m.lo + warp_row<S>(), m.hi + warp_row<S>());
    else
        add_values<S, false>(o, p, m.weights, v, key0, m.lo, m.hi);
}

/* ---- the end of a chunk
 * -------------------------------------------------------------------------------------- */

/* I8: sum = the parts of all lanes and steps, in that order in wide and narrow tiles alike. Every
 * warp must come here. */
template <typename S> DEV void join_sums(attend_state<S> &t, const attend_memory<S> &m)
{
    float total[2] = {0, 0};
    UNROLL_FOR (int i = 0; i < S::n_score / 2; i++)
        UNROLL_FOR (int h = 0; h < 2; h++) {
            float v = t.part[i][h];
            v += shfl_xor(v, 1);
            v += shfl_xor(v, 2);
            total[h] += v;
            if constexpr (!S::wide)
                if (lane_id() % 4 == 0)
                    m.peak[(int)threadIdx.x / 32 * 16 + thread_row<S>(h)] = v;
        }
    if constexpr (!S::wide) {
        __syncthreads();
        UNROLL_FOR (int h = 0; h < 2; h++) {
            total[h] = 0;
            UNROLL_FOR (int w = 0; w < ATTEND_WARPS; w++)
                total[h] += m.peak[w * 16 + thread_row<S>(h)];
        }
    }
    t.sum[0] = total[0];
    t.sum[2] = total[1];
}

/* Column of the first of a thread's two values in accumulator n; the other one lies gap after it.
 */
template <typename S> DEV int out_column(int n)
{
    if constexpr (S::i8) {
        int tile = byte_tile<S>(n % S::slice_out);
        return n / S::slice_out * S::slice + tile / 2 * 16 + tile % 2 + (int)lane_id() % 4 * 4;
    }
    int in_slice = S::wide ? 0 : (int)threadIdx.x / 32 * S::slice_out * 8;
    return n / S::slice_out * S::slice + in_slice + n % S::slice_out * 8 + (int)lane_id() % 4 * 2;
}

template <int GAP> DEV float2 get2(const float *row, int column, int dim, bool pairs)
{
    float2 v = {0, 0};
    if (GAP == 1 && pairs && column < dim)
        return *reinterpret_cast<const float2 *>(row + column);
    if (column < dim)
        v.x = row[column];
    if (column + GAP < dim)
        v.y = row[column + GAP];
    return v;
}

template <int GAP> DEV void put2(float *row, int column, int dim, bool pairs, float2 v)
{
    if (GAP == 1 && pairs) {
        if (column < dim)
            *reinterpret_cast<float2 *>(row + column) = v;
        return;
    }
    if (column < dim)
        row[column] = v.x;
    if (column + GAP < dim)
        row[column + GAP] = v.y;
}

DEV int record_pitch(int dim)
{
    return 4 + (dim + 3) / 4 * 4;
}

/* The record of a row of the tile in its chunk number `chunk`, counted from the first chunk that
 * the tile sees. */
DEV float *record_of(const attend_work &w, const attend_args &a, int chunk, int row)
{
    int64_t tile = (int64_t)chunk * gridDim.y + blockIdx.y;
    return a.records + (w.slot + tile * w.n_rows + row) * record_pitch(a.dim);
}

template <typename S>
DEV void write_records(const attend_state<S> &t, const attend_work &w, const attend_args &a,
                       int chunk)
{
    UNROLL_FOR (int h = 0; h < 2; h++) {
        int row = thread_row<S>(h);
        if (row >= w.n_rows)
            continue;
        float *to = record_of(w, a, chunk, row);
        float2 head = {t.max[h], t.sum[2 * h]};
        if (S::wide || threadIdx.x < 32)
            put2<1>(to, 0, 2, true, head); /* the same from 4 lanes */
        UNROLL_FOR (int n = 0; n < S::n_out; n++) {
            float2 v = {t.o[n][2 * h], t.o[n][2 * h + 1]};
            put2<S::gap>(to + 4, out_column<S>(n), a.dim, true, v);
        }
    }
}

/* Merge a chunk into the total, whose outputs lie in y; after the last one they are divided by the
 * sum. */
template <typename S>
DEV void merge_chunk(softmax_state (&total)[2], const attend_state<S> &t, const attend_memory<S> &m,
                     const attend_work &w, const attend_args &a, bool first, bool last)
{
    UNROLL_FOR (int h = 0; h < 2; h++) {
        softmax_state chunk = {t.max[h], t.sum[2 * h]};
        int row = thread_row<S>(h);
        softmax_mix mix = softmax_merge(total[h], chunk, m.factor[row]);
        float norm = last ? 1.0f / total[h].sum : 1.0f;
        if (row >= w.n_rows)
            continue;
        float *to = a.y + row_start(w, a, row);
        UNROLL_FOR (int n = 0; n < S::n_out; n++) {
            int column = out_column<S>(n);
            float2 v = {t.o[n][2 * h], t.o[n][2 * h + 1]};
            if (!first) {
                float2 old = get2<S::gap>(to, column, a.dim, a.pairs);
                v.x = softmax_output(mix, old.x, v.x);
                v.y = softmax_output(mix, old.y, v.y);
            }
            v.x *= norm;
            v.y *= norm;
            put2<S::gap>(to, column, a.dim, a.pairs, v);
        }
    }
}

/* The last block of a tile merges the records of all chunks. */
template <typename S>
DEV void merge_records(const attend_memory<S> &m, const attend_work &w, const attend_args &a,
                       int n_chunks)
{
    __syncthreads();
    if (threadIdx.x == 0)
        *m.last = release_add(a.arrived + w.counter + blockIdx.y, 1) == w.n_blocks - 1;
    __syncthreads();
    if (*m.last) {
        for (int i = (int)threadIdx.x; i < w.n_rows * a.dim; i += ATTEND_THREADS) {
            int row = i / a.dim, column = i % a.dim;
            softmax_state total = softmax_empty();
            float y = 0;
            for (int c = 0; c < n_chunks; c++) {
                const float *from = record_of(w, a, c, row);
                softmax_state chunk = {from[0], from[1]};
                softmax_mix mix = softmax_merge(total, chunk, m.factor[row]);
                y = softmax_output(mix, y, from[4 + column]);
            }
            a.y[row_start(w, a, row) + column] = y * (1.0f / total.sum);
        }
        if (threadIdx.x == 0)
            a.arrived[w.counter + blockIdx.y] = 0;
    }
}

#endif
