/* kernels/cuda/linear_kernel.cuh - a linear of few rows, which decode is made of: preparation of
 * rows, base weight, H-LoRA adapters and epilogue in one launch. linear_<type>.cu instantiate it,
 * one weight type each; linear_prompt.cuh is for many rows.
 *
 *     y = epilogue(W n + bias + B z),  n = RMSNorm(x) or x,  z gated from A n and R n: see gate.cuh
 *
 * Shapes: x [T, K], W [N, K], [A; R] stacked over the parts of a slot, B [n_out, R] per part.
 * Mapping: blocks take tickets. The lowest prepare a row of x each (prepare.cuh), unless there are
 * so few that every block does it for itself; the next are the shrink tiles [A; R] of the slots
 * that are present, for every token tile of 8 NT tokens, the last of which turns the sums into
 * gated, prepared z; the rest are output blocks, token tiles fastest, each of which goes over
 * several tiles (or pairs of tiles) of W. Its 8 warps have an eighth of K each and read weights
 * `ring` steps ahead, also from one tile into the next, so that memory never waits for what happens
 * between tiles: sums meet in shared memory, adapters are added, outputs are finished. Weights do
 * not depend on the kernel before: the ring is filled before grid_wait. Blocks wait for lower
 * tickets only, which run or have run, so residency does not matter. The last block of all sets the
 * tickets back to zero; the next launch has the other half of them, because its blocks may start
 * before that. Bound by the stream of W. Only the weights of slots present are read. Numerics: see
 * tile_dot.cuh for products, prepare.cuh for the rounding of x and z. Definition:
 * kernels/ref/linear.c. */
#ifndef HG_KERNELS_CUDA_LINEAR_KERNEL_CUH
#define HG_KERNELS_CUDA_LINEAR_KERNEL_CUH

#include "kernels/cuda/finish.cuh"
#include "kernels/cuda/linear_prompt.cuh"
#include "kernels/cuda/linear_ring.cuh"

enum {
    OWN_ROWS = 2, /* every block prepares that many itself */
    OWN_BYTES = 18 << 10
};
enum { CONTROL = 4 /* words of shared memory in front: ticket, answers for the whole block */ };

/* ---- counters -------------------------------------------------------------------------------- */

/* tickets: next, done, then per token tile the finished shrink blocks, then the prepared rows. */
DEV int *shrunk(const Product &p, int token_tile)
{
    return p.tickets + 2 + token_tile;
}

DEV int *prepared(const Product &p, int token_tile)
{
    return p.tickets + 2 + p.token_tiles + token_tile;
}

/* A warp waits until a counter is at n; what was written before is then visible. */
DEV void wait_for(const int *counter, int n)
{
    if (lane_id() == 0)
        SPIN_UNTIL(load_acquire(counter) >= n);
    __syncwarp();
}

/* The kernel before has ended; only then may the one after this start, which shares tickets with
 * it. */
DEV void begin_work()
{
    grid_wait();
    grid_let_next_start();
}

/* Scales of the rows that a block prepares for itself: in all, or per step. */
template <int type> struct OwnScales {
    enum {
        per_step = type == HG_DTYPE_I4 ? 8 : 0,
        fixed = type == HG_DTYPE_BF16 || type == HG_DTYPE_I4 ? 0 : 8
    };
};

/* The rows of a token tile, once they are there: in memory, or made by this block in `own`. */
template <int type, int tokens, int plugin>
DEV Prepared ready_rows(const Product &p, int token0, char *own, float *scratch)
{
    int left = p.n_tokens - token0;
    Prepared x = p.x;
    begin_work();
    if (p.n_prepare)
        wait_for(prepared(p, token0 / tokens), left < tokens ? left : tokens);
    if (!p.own_bytes)
        return x;
    x.rows = own;
    float *scales = (float *)(own + p.n_tokens * (x.pitch + x.pitch2));
    x.scale = x.scale ? scales : nullptr;
    if constexpr (Inputs<type, plugin>::own) {
        x.rows2 = x.rows2 ? own + p.n_tokens * x.pitch : nullptr;
        x.scale2 = x.scale2
                       ? scales + OwnScales<type>::fixed + OwnScales<type>::per_step * p.w.steps
                       : nullptr;
    }
    x.scale_pitch = 8;
    for (int row = 0; row < p.n_tokens; row++) {
        prepare_source<type, plugin>(p.from, x, row, scratch);
        __syncthreads();
    }
    return x;
}

/* Whether this block was the last of n to count; block-uniform. Everything written before is then
 * visible. */
DEV bool count(int *counter, int n, int *answer)
{
    __syncthreads();
    if (threadIdx.x == 0)
        *answer = release_add(counter, 1) == n - 1;
    __syncthreads();
    return *answer;
}

/* ---- output tiles ---------------------------------------------------------------------------- */

/* This warp's share of tile `at` of B times the gated z of 8 NT tokens, to shared memory. */
template <int plugin, int NT>
DEV void multiply_gated(const Product &p, const cuda_expand &e, int at, int token0, float *to)
{
    int slice = (e.b.steps + SLICES - 1) / SLICES, begin = (int)threadIdx.x / 32 * slice;
    int end = begin + slice < e.b.steps ? begin + slice : e.b.steps;
    if (begin >= end)
        return;
    typename Dot<plugin>::sum sum[NT][4] = {};
    Rows<plugin> rows(p.zp + e.z_byte, p.zp_pitch, token0, p.n_tokens);
    Weights<1> weight;
    weight.set(e.b, 0, at, Dot<plugin>::weight);
    ROLLED_FOR (int step = begin; step < end; step++)
        add_step<plugin, NT>(sum, weight, rows, step);
    Sliced<NT>::put(to, sum);
}

/* An output block: units block, block + n_blocks, ... of F::tiles tiles. Its tiles are numbered q =
 * 0, 1, ... in the order that it goes over them. */
template <int type, int NT, int plugin> struct Outputs {
    typedef Few<type, NT> F;
    typedef Sliced<NT> Sums;
    typedef Ring<type, NT, F::tiles, F::depth> R;
    enum { tokens = F::tokens };
    const Product &p;
    float *sums, *kept;
    int *control;
    int token0, block, slots, turn;
    int first_kept; /* tiles first_kept .. q - 1 wait for z */
    bool gated;
    Prepared x;

    MEMBER int tile_of(int q) const
    {
        return p.first_tile + (block + q / F::tiles * p.n_blocks) * F::tiles + q % F::tiles;
    }
    MEMBER float *next_sums()
    {
        if (F::buffers == 1)
            __syncthreads(); /* the sums before have been read */
        turn ^= 1;
        return sums + (F::buffers == 2 ? turn * Sums::floats : 0);
    }
    /* Each thread keeps its own values. */
    MEMBER void keep(float (&v)[Sums::pairs][2], int q, bool store)
    {
        UNROLL_FOR (int i = 0; i < Sums::pairs; i++) {
            int e = threadIdx.x + i * BLOCK_THREADS;
            float2 *at = (float2 *)(kept + q % F::waiting * F::tile_floats) + e;
            if (e < tokens * 8 && store)
                *at = {v[i][0], v[i][1]};
            else if (e < tokens * 8)
                v[i][0] = at->x, v[i][1] = at->y;
        }
    }

    /* v += B z of the slots of its tokens. */
    MEMBER void expand(float (&v)[Sums::pairs][2], int tile)
    {
        for (int s = 0; s < HG_MAX_PLUGINS; s++)
            for (int i = 0; i < p.n_parts; i++) {
                const cuda_expand &e = p.slot[s].part[i];
                int at = tile - e.tile0;
                if (!(slots >> s & 1) || !e.rank || at < 0 || at >= e.b.tiles)
                    continue;
                float *to = next_sums();
                multiply_gated<plugin, NT>(p, e, at, token0, to);
                __syncthreads();
                const float *scale = plugin == HG_DTYPE_BF16 ? nullptr : p.zp_scale + i;
                Sums::template take<plugin>(v, to, e.b, at, token0,
                                            Columns{scale, HG_MAX_PARTS, p.slot_of, s, p.n_tokens});
            }
    }
    MEMBER void finish_tile(const float (&v)[Sums::pairs][2], int tile)
    {
        Sums::each_pair(v, token0, [&](int r, int token, float v0, float v1) {
            if (token < p.n_tokens)
                finish(p.finish, tile, r, token, v0, v1);
        });
    }
    /* The sums of tile q become outputs, now or when z is there. */
    MEMBER void end_tile(const typename R::sum_t (&sum)[NT][4], int q, bool last)
    {
        const float *scale = type == HG_DTYPE_I4 ? nullptr : x.scale; /* I4: rows has them */
        float v[Sums::pairs][2] = {}, *to = next_sums();
        int *counter = p.tickets + 2 + token0 / tokens;
        Sums::put(to, sum);
        if (slots && !gated && threadIdx.x == 0)
            control[turn] = load_acquire(counter) > p.n_shrink;
        __syncthreads();
        Sums::template take<type>(v, to, p.w, tile_of(q), token0,
                                  Columns{scale, 1, nullptr, 0, p.n_tokens});
        if (!slots) {
            finish_tile(v, tile_of(q));
            return;
        }
        keep(v, q, true);
        if (!gated && (control[turn] || last || q - first_kept == F::waiting - 1)) {
            wait_for(counter, p.n_shrink + 1);
            gated = true;
        }
        for (; gated && first_kept <= q; first_kept++) {
            keep(v, first_kept, false);
            expand(v, tile_of(first_kept));
            finish_tile(v, tile_of(first_kept));
        }
    }

    /* What comes after a tile's sums should not wait for memory: a warp's share of all its B. */
    MEMBER void prefetch_adapters(int end)
    {
        for (int q = threadIdx.x / 32; p.slots && lane_id() == 0 && tile_of(q) < end; q += SLICES)
            for (int s = 0; s < HG_MAX_PLUGINS; s++)
                for (int i = 0; i < p.n_parts; i++) {
                    const cuda_expand &e = p.slot[s].part[i];
                    int at = tile_of(q) - e.tile0;
                    uint32_t bytes = e.b.steps * (Dot<plugin>::weight * 512);
                    if (p.slots >> s & 1 && e.rank && at >= 0 && at < e.b.tiles)
                        prefetch_l2((const char *)e.b.data + (int64_t)at * bytes, bytes);
                }
    }

    MEMBER void run(float *ring_memory)
    {
        R ring(p.w, ring_memory);
        int stride = p.n_blocks * F::tiles, end = p.first_tile + p.n_tiles, q = 0;
        ring.fill(tile_of(0), stride, end);
        prefetch_adapters(end);
        x = ready_rows<type, tokens, plugin>(p, token0,
                                             (char *)(kept + F::waiting * F::tile_floats), sums);
        ring.set_rows(Rows<type>(x.rows, x.pitch, token0, p.n_tokens, x.scale, x.scale_pitch));
        slots = p.slots ? slots_here<tokens>(p, token0) : 0;
        for (int tile = tile_of(0); tile < end; tile += stride, q += F::tiles) {
            typename R::sum_t sum[F::tiles][NT][4] = {};
            ring.run(sum);
            UNROLL_FOR (int m = 0; m < F::tiles; m++)
                if (tile + m < end)
                    end_tile(sum[m], q + m,
                             tile + m + 1 >= end || (m == F::tiles - 1 && tile + stride >= end));
        }
    }
};

/* The sums of one tile of [A; R]: as hlora_shrink, through the ring. */
template <int type, int NT, int plugin>
DEV void shrink_few(const Product &p, int tile, int token0, float *shared)
{
    typedef Few<type, NT> F;
    typedef Inputs<type, plugin> X;
    enum {
        fits = F::depth * F::step_bytes / (Dot<plugin>::weight * 512), /* in the ring of W */
        depth = fits < 16 ? fits : 16
    };
    int slot = shrink_slot(p, &tile);
    const cuda_matrix &m = p.slot[slot].shrink;
    Ring<plugin, NT, 1, depth> ring(m, shared);
    typename Dot<plugin>::sum sum[1][NT][4] = {};
    float v[F::Sums::pairs][2] = {};
    float *sums = shared + SLICES * F::depth * F::step_bytes / 4;
    ring.fill(tile, 1, tile + 1);
    Prepared x = ready_rows<type, F::tokens, plugin>(
        p, token0, (char *)(sums + F::floats - SLICES * F::depth * F::step_bytes / 4), sums);
    ring.set_rows(Rows<plugin>(X::rows(x), X::pitch(x), token0, p.n_tokens));
    ring.run(sum);
    F::Sums::put(sums, sum[0]);
    __syncthreads();
    F::Sums::template take<plugin>(v, sums, m, tile, token0,
                                   Columns{X::scale(x), 1, p.slot_of, slot, p.n_tokens});
    F::Sums::each_pair(v, token0, [&](int r, int token, float v0, float v1) {
        store_shrunk(p, slot, tile * TILE_ROWS + r, token, v0, v1);
    });
}

/* ---- the kernel ------------------------------------------------------------------------------ */

template <int type, int NT, int plugin>
__global__ void __launch_bounds__(BLOCK_THREADS, (Few<type, NT>::least))
    hlora_linear(const Product p)
{
    enum { tokens = 8 * NT };
    DYN_SMEM(float, shared);
    int *control = (int *)shared, ticket;
    if (threadIdx.x == 0)
        control[0] = take_ticket(p.tickets);
    __syncthreads();
    ticket = control[0];
    if (ticket < p.n_prepare) {
        begin_work();
        prepare_source<type, plugin>(p.from, p.x, ticket, shared + CONTROL);
        __syncthreads();
        if (threadIdx.x == 0)
            release_add(prepared(p, ticket / tokens), 1);
    } else if (ticket < p.n_first) {
        int i = ticket - p.n_prepare, token_tile = i % p.token_tiles, token0 = token_tile * tokens;
        shrink_few<type, NT, plugin>(p, i / p.token_tiles, token0, shared + CONTROL);
        if (count(shrunk(p, token_tile), p.n_shrink, control + 1)) {
            int left = p.n_tokens - token0;
            gate_tokens<plugin>(p, token0, left < tokens ? left : (int)tokens, threadIdx.x,
                                BLOCK_THREADS);
            count(shrunk(p, token_tile), p.n_shrink + 1, control + 1);
        }
    } else {
        typedef Few<type, NT> F;
        int i = ticket - p.n_first, token_tile = i % p.token_tiles;
        float *ring = shared + CONTROL, *sums = ring + SLICES * F::depth * F::step_bytes / 4;
        Outputs<type, NT, plugin>{p,
                                  sums,
                                  sums + F::buffers * F::Sums::floats,
                                  control + 2,
                                  token_tile * tokens,
                                  i / p.token_tiles,
                                  0,
                                  0,
                                  0,
                                  false,
                                  p.x}
            .run(ring);
    }
    if (count(p.tickets + 1, gridDim.x, control + 1))
        for (int i = threadIdx.x; i < 2 + 2 * p.token_tiles; i += BLOCK_THREADS)
            p.tickets[i] = 0;
}

/* ---- launchers ------------------------------------------------------------------------------- */

/* As many output blocks as run together. */
template <int type, int NT, int plugin>
static enum hg_status launch_few(struct cuda_backend *c, Product &p)
{
    typedef Few<type, NT> F;
    size_t shared = (CONTROL + F::floats) * sizeof(float);
    int64_t scales =
        OwnScales<type>::fixed + OwnScales<type>::per_step * p.w.steps + (p.x.scale2 ? 8 : 0);
    int64_t own = p.n_tokens * (p.x.pitch + p.x.pitch2) + scales * (int64_t)sizeof(float);
    p.own_bytes = p.from.x && p.n_tokens <= OWN_ROWS && own <= OWN_BYTES ? (int)own : 0;
    size_t largest = shared + (NT == 1 ? OWN_BYTES : 0); /* of any launch: a graph keeps its own */
    shared += (size_t)p.own_bytes;
    int units = (p.n_tiles + F::tiles - 1) / F::tiles;
    p.token_tiles = (p.n_tokens + F::tokens - 1) / F::tokens;
    p.n_prepare = p.from.x && !p.own_bytes ? p.from.n : 0;
    p.n_shrink = shrink_blocks(p);
    p.n_first = p.n_prepare + p.n_shrink * p.token_tiles;
    int fit = c->shared_per_sm / (int)(shared + 1024); /* 1 KiB of each block is the driver's */
    int most = c->n_sms * (fit < F::least ? fit : (int)F::least) / p.token_tiles;
    p.n_blocks = most < 1 ? 1 : most < units ? most : units;
    p.tickets = c->scratch.tickets + (c->ticket_half ^= 1) * c->scratch.n_tickets;
    int64_t blocks = (int64_t)p.n_blocks * p.token_tiles + p.n_first;
    const Product fixed = p;
    HG_TRY(cuda_allow_shared(c, (const void *)hlora_linear<type, NT, plugin>, largest));
    LAUNCH_EARLY(c->early, (hlora_linear<type, NT, plugin>), (unsigned)blocks, BLOCK_THREADS,
                 shared, c->stream, fixed);
    return cuda_status(c, "linear");
}

/* Grid for many tokens when its larger tiles still fill the device; the bits are the same either
 * way. Two fp16 planes need twice the registers: half the tokens. */
template <int type, int plugin>
static enum hg_status launch_type(struct cuda_backend *c, Product &p)
{
    enum { NT = Dot<type>::row == 2 ? 4 : 8 };
    if (p.base)
        return launch_many<type, Patch<2>, plugin>(c, p);
    int64_t grid = (int64_t)((p.n_tokens + 8 * NT - 1) / (8 * NT)) * ((p.n_tiles + 7) / 8);
    if (p.n_tokens <= 8)
        return launch_few<type, 1, plugin>(c, p);
    if (p.n_tokens <= 16)
        return launch_few<type, 2, plugin>(c, p);
    if (p.n_tokens <= 32)
        return launch_few<type, 4, plugin>(c, p);
    if (p.n_tokens <= 64 || p.n_tiles < 5 || grid * 2 < c->n_sms)
        return launch_few<type, 8, plugin>(c, p);
    if (grid < 2 * c->n_sms)
        return launch_many<type, Grid<1, NT>, plugin>(c, p);
    return launch_many<type, Grid<2, NT>, plugin>(c, p);
}

#endif
