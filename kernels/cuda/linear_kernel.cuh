/* kernels/cuda/linear_kernel.cuh - preparation of rows, base weight, H-LoRA adapters and epilogue
 * of a linear in one launch; linear_<type>.cu instantiate it, one weight type each.
 *
 *     y = epilogue(W n + bias + B z),  n = RMSNorm(x) or x, z_j = softmax(R n)_{j / (R/E)} *
 * scaling
 *     * (A n)_j of the token's own slot
 *
 * Shapes: x [T, K], W [N, K], [A; R] stacked over the parts of a slot, B [n_out, R] per part.
 * Mapping: a block is one Stream or Grid of tile_dot.cuh. Blocks take tickets; the lowest prepare a
 * row of x each (prepare.cuh; for Grid they are done by a launch before), the next are the shrink
 * tiles [A; R] of the slots that are present, for every token tile; the rest are output tiles,
 * token tiles fastest. Shrink and output blocks have their first weights in flight when they wait
 * for the rows of their token tile. The last shrink block of a token tile turns the sums into
 * gated, prepared z and counts once more; an output block adds up W n first, waits for that count,
 * adds B z and finishes. Blocks wait for lower tickets only, which run or have run, so residency
 * does not matter. The last block of all sets the tickets back to zero. Bound by the stream of W (T
 * small), by mma (T large). Only the weights of slots present are read. Numerics: see tile_dot.cuh
 * for products, prepare.cuh for the rounding of x and z. Definition: kernels/ref/linear.c. */
#ifndef HG_KERNELS_CUDA_LINEAR_KERNEL_CUH
#define HG_KERNELS_CUDA_LINEAR_KERNEL_CUH

#include "kernels/cuda/finish.cuh"
#include "kernels/cuda/linear.cuh"
#include "kernels/cuda/prepare.cuh"
#include "kernels/cuda/tile_dot.cuh"

enum { CONTROL = 4 /* words of shared memory in front: ticket and answers for the whole block */ };

template <int type> struct Adapter {
    enum { quantised = type >= HG_DTYPE_I8, value = quantised ? (int)HG_DTYPE_BF16 : type };
};

/* ---- the gate -------------------------------------------------------------------------------- */

/* Gated values of one token and part; the softmax needs no table: E is small. */
struct GateGet {
    const float *z, *logits; /* [rank], [E] */
    int rank, per_expert;
    float max, sum, scaling;
    __device__ __forceinline__ void eight(int k, float (&v)[8]) const
    {
        UNROLL_FOR (int i = 0; i < 8; i++) {
            int j = k + i;
            v[i] = j < rank ? div_rn(expf(logits[j / per_expert] - max), sum) * scaling * z[j] : 0;
        }
    }
};

template <int type> DEV void gate_token(const Product &p, int token, int slot)
{
    for (int i = 0; i < p.n_parts; i++) {
        const cuda_expand &e = p.slot[slot].part[i];
        if (!e.rank)
            continue;
        const float *z = p.z + token * p.z_pitch + e.row0;
        GateGet get = {z, z + e.rank, e.rank, e.rank / e.n_experts, -INFINITY, 0, e.scaling};
        for (int j = 0; j < e.n_experts; j++)
            get.max = fmaxf(get.max, get.logits[j]);
        for (int j = 0; j < e.n_experts; j++)
            get.sum += expf(get.logits[j] - get.max);
        prepare_row<type>(get, e.rank, WarpTeam(), p.zp + token * p.zp_pitch + e.z_byte,
                          p.zp_scale + (int64_t)token * HG_MAX_PARTS + i);
    }
}

/* ---- counters ---------------------------------------------------------------------------------
 */

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

/* For the rows of a token tile. */
template <class Team> struct RowsReady {
    const Product &p;
    int token0;
    MEMBER void wait() const
    {
        int left = p.n_tokens - token0;
        if (p.n_prepare)
            wait_for(prepared(p, token0 / Team::tokens),
                     left < Team::tokens ? left : (int)Team::tokens);
    }
};

/* For their z. */
template <class Team> struct GatedReady {
    const Product &p;
    int token0;
    MEMBER void wait() const
    {
        if (!Team::loads || !p.z_ready)
            wait_for(shrunk(p, token0 / Team::tokens), p.n_shrink + 1);
    }
};

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

/* ---- roles of a block ------------------------------------------------------------------------ */

template <int type, class Team> DEV void prepare(const Product &p, int row, float *shared)
{
    prepare_source<type>(p.from, p.x, row, shared + CONTROL);
    __syncthreads();
    if (threadIdx.x == 0)
        release_add(prepared(p, row / Team::tokens), 1);
}

/* Whether a token of the tile is in a slot that has an adapter: a bit per slot. The same in every
 * warp. */
template <class Team> DEV int slots_here(const Product &p, int token0)
{
    int found = 0;
    UNROLL_FOR (int t0 = 0; t0 < Team::tokens; t0 += 32) {
        int token = token0 + t0 + (int)lane_id();
        int slot = t0 + (int)lane_id() < Team::tokens && token < p.n_tokens ? p.slot_of[token] : -1;
        UNROLL_FOR (int s = 0; s < HG_MAX_PLUGINS; s++)
            found |= warp_ballot(slot == s) ? 1 << s : 0;
    }
    return found & p.slots;
}

template <int type, class Team>
DEV void shrink(const Product &p, int block, int token_tile, float *shared)
{
    enum { adapter = Adapter<type>::value };
    int *control = (int *)shared, slot = 0, token0 = token_tile * Team::tokens;
    for (; slot < HG_MAX_PLUGINS; slot++) {
        int n =
            p.slots >> slot & 1 ? (p.slot[slot].shrink.tiles + Team::tiles - 1) / Team::tiles : 0;
        if (block < n)
            break;
        block -= n;
    }
    if (slots_here<Team>(p, token0) >> slot & 1) {
        Team team(shared + CONTROL, block * Team::tiles, token0);
        bool own = Adapter<type>::quantised;
        Rows<adapter> rows(own ? p.x.rows16 : p.x.rows, own ? p.x.pitch16 : p.x.pitch, token0);
        Columns columns = {own ? nullptr : p.x.scale, 1, p.slot_of, slot, p.n_tokens};
        team.template product<adapter>(p.slot[slot].shrink, 0, rows, columns,
                                       RowsReady<Team>{p, token0});
        int n_rows = p.slot[slot].rows;
        team.each_pair([&](int tile, int r, int token, float v0, float v1) {
            int row = tile * TILE_ROWS + r;
            if (token >= p.n_tokens || p.slot_of[token] != slot)
                return;
            if (row < n_rows)
                p.z[token * p.z_pitch + row] = v0;
            if (row + 8 < n_rows)
                p.z[token * p.z_pitch + row + 8] = v1;
        });
    }
    int *counter = shrunk(p, token_tile);
    if (!count(counter, p.n_shrink, control + 1))
        return;
    for (int t = threadIdx.x / 32; t < Team::tokens && token0 + t < p.n_tokens; t += SLICES) {
        int s = p.slot_of[token0 + t];
        if (s >= 0 && p.slots >> s & 1)
            gate_token<adapter>(p, token0 + t, s);
    }
    count(counter, p.n_shrink + 1, control + 1);
}

/* team += B z of the slots of its tokens. */
template <int type, class Team> DEV void expand(const Product &p, Team &team, int token0, int slots)
{
    for (int s = 0; s < HG_MAX_PLUGINS; s++)
        for (int i = 0; i < p.n_parts; i++) {
            const cuda_expand &e = p.slot[s].part[i];
            if (!(slots >> s & 1) || !e.rank)
                continue;
            Rows<type> rows(p.zp + e.z_byte, p.zp_pitch, token0);
            const float *scale = type == HG_DTYPE_BF16 ? nullptr : p.zp_scale + i;
            team.template product<type>(e.b, e.tile0, rows,
                                        Columns{scale, HG_MAX_PARTS, p.slot_of, s, p.n_tokens},
                                        GatedReady<Team>{p, token0});
        }
}

template <int type, class Team>
DEV void output(const Product &p, int block, int token_tile, float *shared)
{
    int token0 = token_tile * Team::tokens;
    Team team(shared + CONTROL, p.first_tile + block * Team::tiles, token0);
    bool given = false;
    if constexpr (Team::loads) {
        given = p.base != nullptr;
        if (given)
            team.load(p.w, p.base, p.ld_base, p.first_tile, p.first_tile + p.n_tiles,
                      Columns{p.x.scale, 1, nullptr, 0, p.n_tokens});
    }
    Rows<type> rows(p.x.rows, p.x.pitch, token0, p.x.scale, p.x.scale_pitch);
    const float *scale = type == HG_DTYPE_I4 ? nullptr : p.x.scale; /* I4: rows has them */
    if (!given)
        team.template product<type>(p.w, 0, rows, Columns{scale, 1, nullptr, 0, p.n_tokens},
                                    RowsReady<Team>{p, token0});
    int slots = p.slots ? slots_here<Team>(p, token0) : 0;
    if (slots)
        expand<Adapter<type>::value>(p, team, token0, slots);
    team.each_pair([&](int tile, int r, int token, float v0, float v1) {
        if (tile < p.first_tile + p.n_tiles && token < p.n_tokens)
            finish(p.finish, tile, r, token, v0, v1);
    });
}

/* Weights do not depend on the kernel before: the first of the tile that this block will probably
 * get, which is a matter of tickets. */
template <int type, class Team> DEV void prefetch(const Product &p)
{
    int tile = p.first_tile + ((int)blockIdx.x - p.n_first) / p.token_tiles;
    int slice = (p.w.steps + SLICES - 1) / SLICES, begin = (int)threadIdx.x / 32 * slice;
    uint32_t step = Dot<type>::weight * 512, n = slice < Dot<type>::ring ? slice : Dot<type>::ring;
    if ((int)blockIdx.x >= p.n_first && lane_id() == 0 && begin + (int)n <= p.w.steps)
        prefetch_l2((const char *)p.w.data + ((int64_t)tile * p.w.steps + begin) * step, n * step);
}

template <int type, class Team>
__global__ void __launch_bounds__(BLOCK_THREADS, (Blocks<type, Team>::least))
    hlora_linear(const Product p)
{
    DYN_SMEM(float, shared);
    int *control = (int *)shared, ticket = blockIdx.x;
    if (Team::prepares && p.early)
        prefetch<type, Team>(p);
    grid_let_next_start();
    grid_wait();
    if (p.n_first) {
        if (threadIdx.x == 0)
            control[0] = take_ticket(p.tickets);
        __syncthreads();
        ticket = control[0];
    }
    if (ticket < p.n_prepare) {
        prepare<type, Team>(p, ticket, shared);
    } else if (ticket < p.n_first) {
        ticket -= p.n_prepare;
        shrink<type, Team>(p, ticket / p.token_tiles, ticket % p.token_tiles, shared);
    } else {
        ticket -= p.n_first;
        output<type, Team>(p, ticket / p.token_tiles, ticket % p.token_tiles, shared);
    }
    if (p.n_first && count(p.tickets + 1, gridDim.x, control + 2))
        for (int i = threadIdx.x; i < 2 + 2 * p.token_tiles; i += BLOCK_THREADS)
            p.tickets[i] = 0;
}

/* ---- launchers ------------------------------------------------------------------------------- */

template <int type, class Team> static enum hg_status launch(struct cuda_backend *c, Product &p)
{
    size_t shared = (CONTROL + Team::shared_floats) * sizeof(float);
    p.token_tiles = (p.n_tokens + Team::tokens - 1) / Team::tokens;
    p.n_blocks = (p.n_tiles + Team::tiles - 1) / Team::tiles;
    p.n_prepare = 0;
    if (p.from.x && Team::prepares)
        p.n_prepare = p.from.n;
    else if (p.from.x)
        HG_TRY(cuda_prepare(c, &p.from, (enum hg_dtype)type, &p.x));
    p.n_shrink = 0;
    for (int s = 0; s < HG_MAX_PLUGINS; s++)
        if (!p.z_ready && p.slots >> s & 1)
            p.n_shrink += (p.slot[s].shrink.tiles + Team::tiles - 1) / Team::tiles;
    p.n_first = p.n_prepare + p.n_shrink * p.token_tiles;
    int64_t blocks = (int64_t)p.n_blocks * p.token_tiles + p.n_first;
    p.early = c->early && Team::prepares;
    const Product fixed = p;
    LAUNCH_EARLY(fixed.early, (hlora_linear<type, Team>), (unsigned)blocks, BLOCK_THREADS, shared,
                 c->stream, fixed);
    return cuda_status(c, "linear");
}

/* Grid for many tokens when its larger tiles still fill the device; the bits are the same either
 * way. Two fp16 planes need twice the registers: half the tokens. */
template <int type> static enum hg_status launch_type(struct cuda_backend *c, Product &p)
{
    enum { NT = Dot<type>::row == 2 ? 4 : 8 };
    if (p.base)
        return launch<type, Grid<1, NT>>(c, p);
    int64_t grid = (int64_t)((p.n_tokens + 8 * NT - 1) / (8 * NT)) * ((p.n_tiles + 7) / 8);
    if (p.n_tokens <= 8)
        return launch<type, Stream<1>>(c, p);
    if (p.n_tokens <= 16)
        return launch<type, Stream<2>>(c, p);
    if (p.n_tokens <= 32)
        return launch<type, Stream<4>>(c, p);
    if (p.n_tokens <= 64 || p.n_tiles < 5 || grid * 2 < c->n_sms)
        return launch<type, Stream<8>>(c, p);
    if (grid < 2 * c->n_sms)
        return launch<type, Grid<1, NT>>(c, p);
    return launch<type, Grid<2, NT>>(c, p);
}

#endif
