/* kernels/cuda/attention_i8.cuh - a tile of 64 keys of an I8 cache: attention_tile.cuh for bytes.
 *
 * k = ks[key] K and v = vs[key] V with int8 K, V and one fp32 scale per key. mma takes K and V as
 * they are, widened to bf16 in registers (exact, 4 instructions for two values), so a score is
 * ks (q K) and an output is the sum of (p vs) V: one product per score and per weight instead of
 * one per cached value. q and p vs are cut into two bf16 parts: 17 bits, where a key has 8.
 *
 * Bytes keep their places in shared memory, operands move instead. A word of a K row holds 4
 * neighbours, which become k = 2 q, 2 q + 1 and + 8 of mma; put_query lays q down in that order. A
 * transposed load of V brings columns in pairs: the even ones of 16 bytes make one accumulator, the
 * odd ones the next ("byte tiles").
 *
 * int8 holds no NaN: a broken row has a NaN scale, which a row meets only where it sees the key. */
#ifndef HG_KERNELS_CUDA_ATTENTION_I8_CUH
#define HG_KERNELS_CUDA_ATTENTION_I8_CUH

#include "kernels/cuda/attention_tile.cuh"

/* ---- loads
 * ---------------------------------------------------------------------------------------------------
 */

/* Keys key0 .. + 63, columns column0 .. + slice, of k or v, asynchronous where rows allow it. */
template <typename S, typename Keys>
DEV void load_slice(uint16_t *to, const Keys &keys, const int8_t *from, int key0, int column0,
                    const key_range &r)
{
    constexpr int pieces = S::slice / 16;
    int8_t *bytes = reinterpret_cast<int8_t *>(to);
    if (r.wide) {
        UNROLL_FOR (int i = 0; i < TILE_KEYS * pieces / ATTEND_THREADS; i++) {
            int at = (int)threadIdx.x + i * ATTEND_THREADS, entry = at / pieces,
                column = at % pieces * 16;
            int key = key0 + entry;
            bool inside = key >= r.lo && key < r.hi && column0 + column < r.dim;
            const int8_t *p = inside ? from + key_row(keys, key) + column0 + column : from;
            cp_async16(bytes + entry * S::pitch * 2 + column, p, inside);
        }
        return;
    }
    for (int i = (int)threadIdx.x; i < TILE_KEYS * S::slice; i += ATTEND_THREADS) {
        int entry = i / S::slice, column = i % S::slice, key = key0 + entry;
        bool inside = key >= r.lo && key < r.hi && column0 + column < r.dim;
        bytes[entry * S::pitch * 2 + column] =
            inside ? from[key_row(keys, key) + column0 + column] : (int8_t)0;
    }
}

/* The scales of keys key0 .. + 63, of k and then of v, four at a time: around lo and hi also some
 * that no row sees. */
template <typename S, typename Keys>
DEV void load_scales(uint16_t *stage, const Keys &keys, int key0, const key_range &r)
{
    float *to = reinterpret_cast<float *>(stage + TILE_KEYS * S::pitch);
    int piece = (int)threadIdx.x, key = key0 + piece % 16 * 4;
    if (piece >= 2 * TILE_KEYS / 4)
        return;
    const float *from = piece < 16 ? keys.k_scale : keys.v_scale;
    bool inside = key + 3 >= r.lo && key < r.hi;
    cp_async16(to + piece * 4, inside ? from + scale_row(keys, key) : from, inside);
}

/* Scales of a thread's columns of the tile in accumulator n of the warp: keys 2 q and 2 q + 1. */
template <typename S> DEV float2 scales_of(const uint16_t *stage, bool value, int n)
{
    const float *from = reinterpret_cast<const float *>(stage + TILE_KEYS * S::pitch);
    int key = (S::wide ? 0 : (int)threadIdx.x / 32 * 16) + n * 8 + (int)lane_id() % 4 * 2;
    return *reinterpret_cast<const float2 *>(from + (value ? TILE_KEYS : 0) + key);
}

/* Values column .. + 3 of a query row, cut into parts, in the order of K's words. */
template <typename S> DEV void put_query(uint16_t *row, int column, const float (&x)[4])
{
    uint16_t *to = row + column / 16 * 16 + column % 16 / 2;
    uint32_t low[S::parts], high[S::parts];
    cut<false>(x[0], x[1], low);
    cut<false>(x[2], x[3], high);
    UNROLL_FOR (int i = 0; i < S::parts; i++) {
        *reinterpret_cast<uint32_t *>(to + i * S::q_part) = low[i];
        *reinterpret_cast<uint32_t *>(to + i * S::q_part + 8) = high[i];
    }
}

/* ---- products
 * ------------------------------------------------------------------------------------------------
 */

/* s += q K over the columns of one slice, without scales. */
template <typename S>
DEV void add_scores_i8(float (&s)[S::n_score][4], const uint16_t *q, const uint16_t *k)
{
    unsigned lane = lane_id();
    q += lane % 16 * S::q_pitch + lane / 16 * 8;
    k += (lane / 16 * 8 + lane % 8) * S::pitch + lane / 8 % 2 * 8;
    UNROLL_FOR (int step = 0; step < S::slice / 32; step++) {
        uint32_t a[2][S::parts][4];
        UNROLL_FOR (int j = 0; j < 2; j++)
            UNROLL_FOR (int i = 0; i < S::parts; i++)
                ldmatrix_x4(a[j][i], q + i * S::q_part + step * 32 + j * 16);
        UNROLL_FOR (int n = 0; n < S::n_score; n += 2) {
            uint32_t r[4]; /* 8 keys x 16 bytes, the next 16 bytes, the same of the next 8 keys */
            ldmatrix_x4(r, k + n * 8 * S::pitch + step * 16);
            UNROLL_FOR (int j = 0; j < 2; j++) {
                const uint32_t b0[2] = {bf16_of_s8(r[j], S8_0_1), bf16_of_s8(r[j], S8_2_3)};
                const uint32_t b1[2] = {bf16_of_s8(r[2 + j], S8_0_1), bf16_of_s8(r[2 + j], S8_2_3)};
                UNROLL_FOR (int i = 0; i < S::parts; i++) {
                    mma_bf16(s[n], a[j][i], b0);
                    mma_bf16(s[n + 1], a[j][i], b1);
                }
            }
        }
    }
}

/* The byte tile of a warp's accumulator n: bytes 16 (t / 2) + t % 2 + 0, 2, 4, .. of a slice. Tiles
 * 2 i and 2 i + 1 share a load, so of an odd number the one without a partner comes last. */
template <typename S> DEV int byte_tile(int n)
{
    if constexpr (S::wide)
        return n;
    int warp = (int)threadIdx.x / 32;
    if (S::slice_out % 2 == 0 || warp % 2 == 0)
        return warp * S::slice_out + n;
    return warp * S::slice_out + (n + 1 < S::slice_out ? n + 1 : 0);
}

/* o += weights * V over one slice; the weights hold the scales. */
template <typename S>
DEV void add_values_i8(float (*o)[4], const float (&p)[S::n_score][4], const uint4 *shared,
                       const uint16_t *v)
{
    v += lane_id() * S::pitch;
    UNROLL_FOR (int step = 0; step < TILE_KEYS / 32; step++) {
        uint32_t a[2][S::parts][4], r[4] = {};
        UNROLL_FOR (int j = 0; j < 2; j++)
            get_weights<S>(a[j], 2 * step + j, p, shared);
        UNROLL_FOR (int n = 0; n < S::slice_out; n++) {
            int tile = byte_tile<S>(n);
            if (n % 2 == 0)
                ldmatrix_x4_transposed(r, v + step * 32 * S::pitch + tile / 2 * 8);
            uint32_t which = tile % 2 ? S8_1_3 : S8_0_2;
            UNROLL_FOR (int j = 0; j < 2; j++) {
                const uint32_t b[2] = {bf16_of_s8(r[2 * j], which),
                                       bf16_of_s8(r[2 * j + 1], which)};
                UNROLL_FOR (int i = 0; i < S::parts; i++)
                    mma_bf16(o[n], a[j][i], b);
            }
        }
    }
}

#endif
