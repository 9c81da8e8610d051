/* kernels/cuda/attend.cuh - the kernel behind attention.cu and attention_full.cu.
 *
 * A block has up to 64 (WIDE) or 16 query rows that read the same keys, and walks over these keys
 * in tiles of 64 whose borders are multiples of 64, in chunks of Source::chunk positions. Inside a
 * chunk the softmax runs on from tile to tile; chunks are merged in ascending order, by the block
 * itself (running total in y), or, where a context is spread over blocks, by the last of them to
 * arrive, from records [max, sum, -, -, output] in scratch. So the additions behind a row depend on
 * its keys' positions only.
 *
 * Grid: (blocks of Source, kv heads); 4 warps. Row r of a tile is token r / group and head r %
 * group of the kv head. */
#ifndef HG_KERNELS_CUDA_ATTEND_CUH
#define HG_KERNELS_CUDA_ATTEND_CUH

#include "kernels/cuda/attend_block.cuh"

/* ---- kernel
 * --------------------------------------------------------------------------------------------------
 */

template <typename S> DEV void clear(attend_state<S> &t)
{
    UNROLL_FOR (int n = 0; n < S::n_out; n++)
        UNROLL_FOR (int i = 0; i < 4; i++)
            t.o[n][i] = 0;
    UNROLL_FOR (int i = 0; i < 4; i++)
        t.sum[i] = 0;
    t.max[0] = t.max[1] = -INFINITY;
    UNROLL_FOR (int i = 0; S::i8 && i < S::n_score / 2; i++)
        t.part[i][0] = t.part[i][1] = 0;
}

template <typename S, typename Source>
__global__ void __launch_bounds__(ATTEND_THREADS, S::least) attend(Source source, attend_args a)
{
    DYN_SMEM(unsigned char, memory);
    grid_let_next_start();
    grid_wait();
    const attend_memory<S> m = carve<S>(memory);
    const attend_work w = work_of(source, (int)blockIdx.x);
    if (w.n_rows == 0) /* an idle entry of the work list: attention_plan.c */
        return;
    const int64_t last_token = token_of(w, a, w.n_rows - 1);
    const int lo = first_key(source, token_of(w, a, 0)), hi = last_key(source, last_token) + 1;
    const int tiles_per_chunk = Source::chunk / TILE_KEYS, chunk_end = w.chunk0 + w.n_chunks;
    int tile = larger(w.chunk0 * tiles_per_chunk, lo / TILE_KEYS);
    const int tile_end = smaller(chunk_end * tiles_per_chunk, (hi - 1) / TILE_KEYS + 1);
    auto keys = keys_of(source, w, (int)blockIdx.y);
    attend_ring<S, decltype(keys)> ring = {
        m.ring, keys, {lo, hi, a.dim, a.wide_kv}, tile, (tile_end - tile) * 2 * S::n_slices, 0};
    attend_state<S> t;
    softmax_state total[2] = {softmax_empty(), softmax_empty()};
    bool first_chunk = true;

    ring_start(ring);
    load_rows<S>(m, source, w, a);
    __syncthreads();
    const uint16_t *q = m.q + warp_row<S>() * S::q_pitch;
    clear(t);
    for (; tile < tile_end; tile++) {
        const int key0 = tile * TILE_KEYS;
        const tile_view view = view_tile<S>(m, w.n_rows, key0, lo, hi);
        float s[S::n_score][4];
        UNROLL_FOR (int n = 0; n < S::n_score; n++)
            UNROLL_FOR (int i = 0; i < 4; i++)
                s[n][i] = 0;
        const uint16_t *stage = nullptr;
        ROLLED_FOR (int i = 0; i < S::n_slices; i++) {
            stage = ring_next(ring);
            const uint16_t *k = stage + (S::wide ? 0 : (int)threadIdx.x / 32 * 16 * S::pitch);
            if (view.busy) {
                if constexpr (S::i8)
                    add_scores_i8<S>(s, q + i * S::slice, k);
                else
                    add_scores<S>(s, q + i * S::slice, k);
            }
        }
        if (view.busy)
            weigh<S>(t, s, m, stage, key0, view.masked);
        UNROLL_FOR (int i = 0; i < S::n_slices; i++) {
            const uint16_t *v = ring_next(ring);
            if (view.busy) {
                if (i == 0 && !S::i8)
                    add_sums<S>(t.sum, s, m.weights);
                take_values<S>(t.o + i * S::slice_out, s, m, v, key0, view.mixed);
            }
        }
        if (tile + 1 < tile_end && (tile + 1) % tiles_per_chunk != 0)
            continue;
        if constexpr (S::i8)
            join_sums<S>(t, m);
        const attend_work again = work_of(source, (int)blockIdx.x); /* not kept in registers */
        if (again.slot < 0)
            merge_chunk<S>(total, t, m, again, a, first_chunk, tile + 1 == tile_end);
        else
            write_records<S>(t, again, a, tile / tiles_per_chunk - lo / Source::chunk);
        first_chunk = false;
        clear(t);
    }
    const attend_work again = work_of(source, (int)blockIdx.x);
    if (again.slot >= 0)
        merge_records<S>(m, again, a, (hi - 1) / Source::chunk + 1 - lo / Source::chunk);
}

/* ---- launch
 * --------------------------------------------------------------------------------------------------
 */

template <typename S, typename Source>
static enum hg_status launch_attend(struct cuda_backend *c, const Source &source,
                                    const attend_args &args, int n_blocks, int n_kv_heads)
{
    void (*kernel)(Source, attend_args) = attend<S, Source>;
    if (n_blocks == 0)
        return HG_STATUS_OK;
    HG_TRY(cuda_allow_shared(c, (const void *)kernel, S::bytes));
    LAUNCH_EARLY(c->early, kernel, dim3((unsigned)n_blocks, (unsigned)n_kv_heads), ATTEND_THREADS,
                 S::bytes, c->stream, source, args);
    return cuda_status(c, "attention");
}

#endif
