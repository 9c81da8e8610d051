/* kernels/cuda/linear.cu - base weight, H-LoRA adapters and epilogue of a linear in one launch.
 *
 *     y = epilogue(W x + bias + B z),  z_j = softmax(R x)_{j / (R/E)} * scaling * (A x)_j of the
 * token's own slot
 *
 * Shapes: x [T, K] prepared by prepare.cu, W [N, K], [A; R] stacked over the parts of a slot, B
 * [n_out, R] per part. Mapping: a block is one Stream or Grid of tile_dot.cuh. Blocks take tickets;
 * low tickets are the shrink tiles [A; R] of the slots that are present, for every token tile; the
 * rest are output tiles, token tiles fastest. The last shrink block of a token tile turns the sums
 * into gated, prepared z and counts once more; an output block adds up W x first, waits for that
 * count, adds B z and finishes. It waits for lower tickets only, which run or have run, so
 * residency does not matter. The last block of all sets the tickets back to zero. Bound by the
 * stream of W (T small), by mma (T large). Only the weights of slots present are read. Numerics:
 * see tile_dot.cuh for products, prepare.cuh for the rounding of x and z. Definition:
 * kernels/ref/linear.c. */
#include "kernels/cuda/linear.cuh"

#include "kernels/cuda/finish.cuh"
#include "kernels/cuda/prepare.cuh"
#include "kernels/cuda/tile_dot.cuh"

enum { CONTROL = 4 /* words of shared memory in front: ticket and answers for the whole block */ };

template <int type> struct Adapter {
    enum { value = type == HG_DTYPE_I8 ? (int)HG_DTYPE_BF16 : type };
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

/* ---- roles of a block ------------------------------------------------------------------------ */

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
        bool i8 = type == HG_DTYPE_I8;
        Rows<adapter> rows(i8 ? p.x.rows16 : p.x.rows, i8 ? p.x.pitch16 : p.x.pitch, token0);
        Columns columns = {i8 ? nullptr : p.x.scale, 1, p.slot_of, slot, p.n_tokens};
        team.template product<adapter>(p.slot[slot].shrink, 0, rows, columns);
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
    int *counter = p.tickets + 2 + token_tile;
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
template <int type, class Team>
DEV void expand(const Product &p, Team &team, int token_tile, int slots)
{
    int token0 = token_tile * Team::tokens;
    if (threadIdx.x == 0)
        SPIN_UNTIL(load_acquire(p.tickets + 2 + token_tile) > p.n_shrink);
    __syncthreads();
    for (int s = 0; s < HG_MAX_PLUGINS; s++)
        for (int i = 0; i < p.n_parts; i++) {
            const cuda_expand &e = p.slot[s].part[i];
            if (!(slots >> s & 1) || !e.rank)
                continue;
            Rows<type> rows(p.zp + e.z_byte, p.zp_pitch, token0);
            const float *scale = type == HG_DTYPE_BF16 ? nullptr : p.zp_scale + i;
            team.template product<type>(e.b, e.tile0, rows,
                                        Columns{scale, HG_MAX_PARTS, p.slot_of, s, p.n_tokens});
        }
}

template <int type, class Team>
DEV void output(const Product &p, int block, int token_tile, float *shared)
{
    int token0 = token_tile * Team::tokens, end = p.first_tile + p.n_tiles;
    Team team(shared + CONTROL, p.first_tile + block * Team::tiles, token0);
    team.template product<type>(p.w, 0, Rows<type>(p.x.rows, p.x.pitch, token0),
                                Columns{p.x.scale, 1, nullptr, 0, p.n_tokens});
    int slots = p.slots ? slots_here<Team>(p, token0) : 0;
    if (slots)
        expand<Adapter<type>::value>(p, team, token_tile, slots);
    team.each_pair([&](int tile, int r, int token, float v0, float v1) {
        if (tile < end && token < p.n_tokens)
            finish(p.finish, tile, r, token, v0, v1);
    });
}

template <int type, class Team>
__global__ void __launch_bounds__(BLOCK_THREADS, (Blocks<type, Team>::least))
    hlora_linear(const Product p)
{
    DYN_SMEM(float, shared);
    int *control = (int *)shared;
    int ticket = blockIdx.x, n_shrink = p.n_shrink * p.token_tiles;
    if (n_shrink) {
        if (threadIdx.x == 0)
            control[0] = take_ticket(p.tickets);
        __syncthreads();
        ticket = control[0];
    }
    if (ticket < n_shrink)
        shrink<type, Team>(p, ticket / p.token_tiles, ticket % p.token_tiles, shared);
    else
        output<type, Team>(p, (ticket - n_shrink) / p.token_tiles,
                           (ticket - n_shrink) % p.token_tiles, shared);
    if (n_shrink && count(p.tickets + 1, gridDim.x, control + 2))
        for (int i = threadIdx.x; i < 2 + p.token_tiles; i += BLOCK_THREADS)
            p.tickets[i] = 0;
}

/* ---- launchers ------------------------------------------------------------------------------- */

template <int type, class Team> static enum hg_status launch(struct cuda_backend *c, Product &p)
{
    size_t shared = (CONTROL + Team::shared_floats) * sizeof(float);
    p.token_tiles = (p.n_tokens + Team::tokens - 1) / Team::tokens;
    p.n_blocks = (p.n_tiles + Team::tiles - 1) / Team::tiles;
    p.n_shrink = 0;
    for (int s = 0; s < HG_MAX_PLUGINS; s++)
        if (p.slots >> s & 1)
            p.n_shrink += (p.slot[s].shrink.tiles + Team::tiles - 1) / Team::tiles;
    int64_t blocks = (int64_t)(p.n_blocks + p.n_shrink) * p.token_tiles;
    const Product fixed = p;
    LAUNCH((hlora_linear<type, Team>), (unsigned)blocks, BLOCK_THREADS, shared, c->stream, fixed);
    return cuda_status(c, "linear");
}

/* Grid for many tokens when its larger tiles still fill the device; the bits are the same either
 * way. Two fp16 planes need twice the registers: half the tokens. */
template <int type> static enum hg_status launch_type(struct cuda_backend *c, Product &p)
{
    enum { NT = Dot<type>::row == 2 ? 4 : 8 };
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

enum hg_status cuda_product(struct cuda_backend *c, struct Product *p)
{
    switch (p->w.type) {
    case HG_DTYPE_F32:
        return launch_type<HG_DTYPE_F32>(c, *p);
    case HG_DTYPE_F16:
        return launch_type<HG_DTYPE_F16>(c, *p);
    case HG_DTYPE_BF16:
        return launch_type<HG_DTYPE_BF16>(c, *p);
    default:
        return launch_type<HG_DTYPE_I8>(c, *p);
    }
}

static enum hg_status check_rope(const struct cuda_backend *c, const struct hg_linear_args *a)
{
    const struct hg_rope_kv *k = a->rope;
    const struct hg_weight *w = a->w;
    if (a->n_rows != k->plan->n_tokens ||
        w->n_out != (k->n_heads + 2 * k->n_kv_heads) * k->head_dim)
        return cuda_refuse("linear: %d rows of %d outputs for %d tokens, %d + 2 * %d heads of %d",
                           a->n_rows, w->n_out, k->plan->n_tokens, k->n_heads, k->n_kv_heads,
                           k->head_dim);
    if (w->pair != k->head_dim)
        return cuda_refuse("linear: rotary heads of %d, weight packed in pairs of %d", k->head_dim,
                           w->pair);
    if (k->plan != c->host_plan)
        return cuda_refuse("linear: the plan is not that of step_begin");
    if (k->kv->rows && a->n_rows > k->kv->max_rows)
        return cuda_refuse("linear: %d rows for a kv cache made for %d", a->n_rows,
                           k->kv->max_rows);
    return HG_STATUS_OK;
}

static enum hg_status check(const struct cuda_backend *c, const struct hg_linear_args *a)
{
    const struct hg_weight *w = a->w;
    const struct hg_backend_limits *l = &c->limits;
    if (a->n_rows > l->max_rows || w->n_in > l->max_in || w->n_out > l->max_out)
        return cuda_refuse("linear: %d rows of [%d, %d] exceed the reserved %d rows of [%d, %d]",
                           a->n_rows, w->n_out, w->n_in, l->max_rows, l->max_out, l->max_in);
    for (int i = 0; a->slot && i < a->n_rows; i++)
        if (a->slot[i] < -1 || a->slot[i] >= HG_MAX_PLUGINS ||
            (a->slot[i] >= 0 && w->rank[a->slot[i]] > l->max_rank))
            return cuda_refuse("linear: row %d: slot %d, reserved rank %d", i, a->slot[i],
                               l->max_rank);
    if (a->epilogue == HG_EPILOGUE_SWIGLU && w->n_out % 2)
        return cuda_refuse("linear: SwiGLU of %d outputs", w->n_out);
    if (a->epilogue == HG_EPILOGUE_SWIGLU && w->pair != w->n_out)
        return cuda_refuse("linear: SwiGLU of %d outputs, weight packed in pairs of %d", w->n_out,
                           w->pair);
    return a->epilogue == HG_EPILOGUE_ROPE_KV ? check_rope(c, a) : HG_STATUS_OK;
}

static void set_finish(const struct cuda_backend *c, const struct hg_linear_args *a, Finish *f)
{
    f->kind = a->epilogue;
    f->n_out = a->w->n_out;
    f->pair = a->w->pair;
    f->bias = a->w->bias;
    f->residual = (const float *)a->residual;
    f->ld_residual = a->ld_residual;
    f->y = (float *)a->y;
    f->ldy = a->ldy;
    if (a->epilogue != HG_EPILOGUE_ROPE_KV)
        return;
    f->pos = c->plan.pos;
    f->seq = c->plan.seq;
    f->block_table = c->plan.block_table;
    f->max_blocks = c->plan.max_blocks;
    f->inv_freq = a->rope->inv_freq;
    f->k = a->rope->kv->k;
    f->v = a->rope->kv->v;
    f->kv_rows = a->rope->kv->rows;
    f->kv_type = a->rope->kv->desc.type;
    f->layer_block0 = (int64_t)a->rope->layer * a->rope->kv->desc.n_blocks;
    f->n_heads = a->rope->n_heads;
    f->n_kv_heads = a->rope->n_kv_heads;
    f->head_dim = a->rope->head_dim;
}

/* The slots that rows of this call are in and that have an adapter; places z in scratch. */
static enum hg_status set_adapters(struct cuda_backend *c, const struct hg_linear_args *a,
                                   Product *p)
{
    const struct hg_weight *w = a->w;
    for (int i = 0; a->slot && i < a->n_rows; i++)
        if (a->slot[i] >= 0 && w->slot[a->slot[i]].rows)
            p->slots |= 1 << a->slot[i];
    if (!p->slots)
        return HG_STATUS_OK;
    for (int s = 0; s < HG_MAX_PLUGINS; s++) {
        p->slot[s] = w->slot[s];
        p->z_pitch = p->z_pitch < w->slot[s].rows ? w->slot[s].rows : p->z_pitch;
        p->zp_pitch = p->zp_pitch < w->slot[s].z_bytes ? w->slot[s].z_bytes : p->zp_pitch;
    }
    size_t rows = (size_t)cuda_padded_rows(a->n_rows);
    p->n_parts = w->n_parts;
    p->zp = (char *)c->scratch.z;
    p->z = (float *)(p->zp + rows * (size_t)p->zp_pitch);
    p->zp_scale = p->z + rows * (size_t)p->z_pitch;
    p->tickets = c->scratch.tickets;
    size_t end = (size_t)((char *)(p->zp_scale + rows * HG_MAX_PARTS) - p->zp);
    if (end > c->scratch.z_bytes)
        return cuda_refuse("linear: adapters need %zu bytes, reserved %zu", end,
                           c->scratch.z_bytes);
    return cuda_table(c, a->slot, a->n_rows, &p->slot_of);
}

extern "C" enum hg_status cuda_linear(struct hg_backend *b, const struct hg_linear_args *a)
{
    struct cuda_backend *c = cuda_of(b);
    const struct hg_weight *w = a->w;
    Product p = {};
    HG_TRY(check(c, a));
    if (a->n_rows <= 0)
        return HG_STATUS_OK;
    HG_TRY(set_adapters(c, a, &p));
    if (!cuda_place_rows(c, w, p.slots != 0, a->n_rows, &p.x))
        return cuda_refuse("linear: %d rows of %d do not fit %zu bytes", a->n_rows, w->n_in,
                           c->scratch.x_bytes);
    RowSource from = {(const float *)a->x, a->ldx, a->n_rows, w->n_in, a->norm,
                      a->norm_eps,         NULL,   NULL,      0};
    HG_TRY(cuda_prepare(c, &from, w->w.type, &p.x));
    p.w = w->w;
    p.n_tokens = a->n_rows;
    p.n_tiles = w->w.tiles;
    set_finish(c, a, &p.finish);
    HG_TRY(cuda_product(c, &p));
    return p.finish.kv_rows ? cuda_kv_append(c, a->rope) : HG_STATUS_OK;
}
