/* kernels/cuda/linear_prompt.cuh - a linear of many rows: prompts, images.
 *
 *     y = epilogue(W n + bias + B z): see linear_kernel.cuh, whose shapes and bits these are
 *
 * Up to four launches: prepare.cu makes the rows; hlora_shrink their A n and R n, a block per tile
 * and 64 tokens; hlora_gate z; hlora_prompt the outputs, a block per 8 or 16 tiles
 * and token tile. With p.base the product W n is at hand (gemm.h) and hlora_prompt is bound by
 * memory, else by mma. */
#ifndef HG_KERNELS_CUDA_LINEAR_PROMPT_CUH
#define HG_KERNELS_CUDA_LINEAR_PROMPT_CUH

#include "kernels/cuda/finish.cuh"
#include "kernels/cuda/gate.cuh"

/* Whether a token of the tile is in a slot that has an adapter: a bit per slot. The same in every
 * warp. */
template <int tokens> DEV int slots_here(const Product &p, int token0)
{
    int found = 0;
    UNROLL_FOR (int t0 = 0; t0 < tokens; t0 += 32) {
        int token = token0 + t0 + (int)lane_id();
        int slot = t0 + (int)lane_id() < tokens && token < p.n_tokens ? p.slot_of[token] : -1;
        UNROLL_FOR (int s = 0; s < HG_MAX_PLUGINS; s++)
            found |= warp_ballot(slot == s) ? 1 << s : 0;
    }
    return found & p.slots;
}

/* Tiles of [A; R] of the slots that are present. */
static inline int shrink_blocks(const Product &p)
{
    int n = 0;
    for (int s = 0; s < HG_MAX_PLUGINS; s++)
        n += p.slots >> s & 1 ? p.slot[s].shrink.tiles : 0;
    return n;
}

/* The slot of shrink tile *tile of all, which becomes its tile of the slot. */
DEV int shrink_slot(const Product &p, int *tile)
{
    for (int slot = 0;; slot++) {
        int n = p.slots >> slot & 1 ? p.slot[slot].shrink.tiles : 0;
        if (*tile < n)
            return slot;
        *tile -= n;
    }
}

/* Sums of rows `row` and row + 8 of [A; R] of a slot, for a token of it. */
DEV void store_shrunk(const Product &p, int slot, int row, int token, float v0, float v1)
{
    int n_rows = p.slot[slot].rows;
    if (token >= p.n_tokens || p.slot_of[token] != slot)
        return;
    if (row < n_rows)
        p.z[token * p.z_pitch + row] = v0;
    if (row + 8 < n_rows)
        p.z[token * p.z_pitch + row + 8] = v1;
}

/* As Grid<1, NT>, for products that are at hand but for the adapters: registers that a ring would
 * take are left to more blocks. */
template <int NT> struct Patch : Grid<1, NT> {
    MEMBER Patch(float *memory, int first_tile, int first_token)
        : Grid<1, NT>(memory, first_tile, first_token)
    {
    }
    template <int type, int most>
    MEMBER void product(const cuda_matrix &m, int tile0, const Rows<type> &rows,
                        const Columns &columns)
    {
        int at = this->tile - tile0;
        int slice = type == HG_DTYPE_I8 ? m.steps : (m.steps + SLICES - 1) / SLICES,
            fold_at = slice;
        if (at < 0 || at >= m.tiles)
            return;
        Weights<1> weight;
        typename Dot<type>::sum sum[1][NT][4] = {};
        weight.set(m, 0, at, Dot<type>::weight);
        ROLLED_FOR (int step = 0; step < m.steps; step++) {
            add_step<type, NT>(sum[0], weight, rows, step);
            if (step + 1 == fold_at || step + 1 == m.steps) {
                this->template fold<1>(m, at, this->v, sum, columns);
                fold_at += slice;
            }
        }
    }
};

/* ---- kernels --------------------------------------------------------------------------------- */

enum { SHRINK_NT = 8, GATE_THREADS = 128, GATE_TOKENS = 4 };

template <int type, int plugin>
__global__ void __launch_bounds__(BLOCK_THREADS, Dot<plugin>::row == 1 ? 2 : 1)
    hlora_shrink(const Product p, int token_tiles)
{
    typedef Inputs<type, plugin> X;
    enum { tokens = 8 * SHRINK_NT };
    DYN_SMEM(float, shared);
    int tile = blockIdx.x / token_tiles, token0 = blockIdx.x % token_tiles * tokens;
    int slot = shrink_slot(p, &tile);
    if (!(slots_here<tokens>(p, token0) >> slot & 1))
        return;
    Stream<SHRINK_NT> team(shared, tile, token0);
    team.template product<plugin>(p.slot[slot].shrink, 0,
                                  Rows<plugin>(X::rows(p.x), X::pitch(p.x), token0, p.n_tokens),
                                  Columns{X::scale(p.x), 1, p.slot_of, slot, p.n_tokens});
    team.each_pair([&](int at, int r, int token, float v0, float v1) {
        store_shrunk(p, slot, at * TILE_ROWS + r, token, v0, v1);
    });
}

template <int plugin> __global__ void __launch_bounds__(GATE_THREADS) hlora_gate(const Product p)
{
    int token0 = blockIdx.x * GATE_TOKENS, left = p.n_tokens - token0;
    gate_tokens<plugin>(p, token0, left < GATE_TOKENS ? left : (int)GATE_TOKENS, threadIdx.x,
                        GATE_THREADS);
}

template <int type, class Team, int plugin>
__global__ void __launch_bounds__(BLOCK_THREADS, (Blocks<type, Team>::least))
    hlora_prompt(const Product p)
{
    enum { AT_ONCE = plugin == HG_DTYPE_I8 ? 1 : (int)TILES_AT_ONCE };
    DYN_SMEM(float, shared);
    int token0 = (int)blockIdx.x % p.token_tiles * Team::tokens, end = p.first_tile + p.n_tiles;
    Team team(shared, p.first_tile + (int)blockIdx.x / p.token_tiles * Team::tiles, token0);
    const float *scale = type == HG_DTYPE_I4 ? nullptr : p.x.scale; /* I4: rows has them */
    if constexpr (Team::tokens <= 16)
        team.load(p.w, p.base, p.ld_base, p.first_tile, end,
                  Columns{p.x.scale, 1, nullptr, 0, p.n_tokens});
    else
        team.template product<type>(
            p.w, 0, Rows<type>(p.x.rows, p.x.pitch, token0, p.n_tokens, p.x.scale, p.x.scale_pitch),
            Columns{scale, 1, nullptr, 0, p.n_tokens});
    int slots = p.slots ? slots_here<Team::tokens>(p, token0) : 0;
    for (int s = 0; s < HG_MAX_PLUGINS; s++)
        for (int i = 0; i < p.n_parts; i++) {
            const cuda_expand &e = p.slot[s].part[i];
            if (!(slots >> s & 1) || !e.rank)
                continue;
            const float *z_scale = plugin == HG_DTYPE_BF16 ? nullptr : p.zp_scale + i;
            team.template product<plugin, AT_ONCE>(
                e.b, e.tile0, Rows<plugin>(p.zp + e.z_byte, p.zp_pitch, token0, p.n_tokens),
                Columns{z_scale, HG_MAX_PARTS, p.slot_of, s, p.n_tokens});
        }
    team.each_pair([&](int tile, int r, int token, float v0, float v1) {
        if (tile < end && token < p.n_tokens)
            finish(p.finish, tile, r, token, v0, v1);
    });
}

/* ---- launchers ------------------------------------------------------------------------------- */

/* Rows and z, where they are not at hand from a launch before. */
template <int type, int plugin>
static enum hg_status launch_shrink(struct cuda_backend *c, Product &p)
{
    enum { tokens = 8 * SHRINK_NT };
    size_t shared = Stream<SHRINK_NT>::shared_floats * sizeof(float);
    int token_tiles = (p.n_tokens + tokens - 1) / tokens;
    if (p.from.x)
        HG_TRY(cuda_prepare(c, &p.from, (enum hg_dtype)type, &p.x));
    p.from.x = NULL;
    if (!p.slots || p.z_ready)
        return HG_STATUS_OK;
    p.z_ready = true;
    const Product fixed = p;
    LAUNCH((hlora_shrink<type, plugin>), (unsigned)(shrink_blocks(p) * token_tiles), BLOCK_THREADS,
           shared, c->stream, fixed, token_tiles);
    HG_TRY(cuda_status(c, "shrink"));
    LAUNCH((hlora_gate<plugin>), (unsigned)((p.n_tokens + GATE_TOKENS - 1) / GATE_TOKENS),
           GATE_THREADS, 0, c->stream, fixed);
    return cuda_status(c, "gate");
}

template <int type, class Team, int plugin>
static enum hg_status launch_many(struct cuda_backend *c, Product &p)
{
    HG_TRY((launch_shrink<type, plugin>(c, p)));
    p.token_tiles = (p.n_tokens + Team::tokens - 1) / Team::tokens;
    p.n_blocks = (p.n_tiles + Team::tiles - 1) / Team::tiles;
    const Product fixed = p;
    LAUNCH((hlora_prompt<type, Team, plugin>), (unsigned)((int64_t)p.n_blocks * p.token_tiles),
           BLOCK_THREADS, Team::shared_floats * sizeof(float), c->stream, fixed);
    return cuda_status(c, "linear");
}

#endif
