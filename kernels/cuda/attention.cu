/* kernels/cuda/attention.cu - causal, ragged, paged attention: decode tokens and prefill chunks in
 * one call.
 *
 *   y[t, h] = sum over keys j in max(0, p - window + 1) .. p of softmax_j(scale q[t, h] . k[j, h /
 * group]) v[j, ...]
 *
 * q, y [T, H*P] fp32; k, v [layer][block][kv head][16][P] in f32, f16, bf16, or int8 with scales. A
 * block of attend.cuh takes a tile of query rows (tokens x heads of a group) and some chunks of its
 * sequence; attention_plan.c decides which. Decode is bound by the cache's bytes: narrow tiles keep
 * 3 slices of keys or values in flight per block. Prefill is bound by mma: a wide tile reads a key
 * once for 64 rows. Scores and softmax are fp32; see attention_tile.cuh for the parts. Defined by
 * kernels/ref/attention.c. */
#include "kernels/cuda/attend.cuh"

template <typename E> struct paged_source {
    static constexpr int chunk = ATTENTION_CHUNK;
    const struct attend_work *work;
    const int32_t *pos, *block_table;
    int max_blocks, window, n_work;
    const E *k, *v;                /* of the layer */
    int64_t head_size, block_size; /* elements */
    int dim;
    const float *k_scale, *v_scale; /* of the layer, I8 */
    int n_kv_heads;
};

template <typename E> struct paged_keys {
    const E *k, *v; /* of the layer and head */
    const int32_t *blocks;
    int64_t block_size;
    int dim;
    const float *k_scale, *v_scale; /* of the layer and head, I8 */
    int scale_block;                /* scales of a block */
};

/* Late tokens of a prompt see the most keys: they go first. */
template <typename E> DEV attend_work work_of(const paged_source<E> &s, int block)
{
    return s.work[s.n_work - 1 - block];
}

template <typename E> DEV int last_key(const paged_source<E> &s, int64_t token)
{
    return s.pos[token];
}

template <typename E> DEV int first_key(const paged_source<E> &s, int64_t token)
{
    int pos = s.pos[token];
    return s.window > 0 && pos >= s.window ? pos - s.window + 1 : 0;
}

template <typename E>
DEV paged_keys<E> keys_of(const paged_source<E> &s, const attend_work &w, int kv_head)
{
    const int scales = s.k_scale ? kv_head * HG_BLOCK_TOKENS : 0;
    paged_keys<E> k = {s.k + kv_head * s.head_size,
                       s.v + kv_head * s.head_size,
                       s.block_table + (int64_t)w.seq * s.max_blocks,
                       s.block_size,
                       s.dim,
                       s.k_scale + scales,
                       s.v_scale + scales,
                       s.n_kv_heads * HG_BLOCK_TOKENS};
    return k;
}

template <typename E> DEV int64_t key_row(const paged_keys<E> &k, int key)
{
    return k.blocks[key / HG_BLOCK_TOKENS] * k.block_size + key % HG_BLOCK_TOKENS * k.dim;
}

DEV int64_t scale_row(const paged_keys<int8_t> &k, int key)
{
    return (int64_t)k.blocks[key / HG_BLOCK_TOKENS] * k.scale_block + key % HG_BLOCK_TOKENS;
}

/* ---- launcher
 * ------------------------------------------------------------------------------------------------
 */

template <typename E>
static paged_source<E> source_of(const struct cuda_backend *c, const struct hg_attention_args *a)
{
    const struct hg_kv_desc *d = &a->kv->desc;
    int64_t head_size = (int64_t)HG_BLOCK_TOKENS * d->head_dim,
            block_size = head_size * d->n_kv_heads;
    int64_t layer = a->layer * (int64_t)d->n_blocks * block_size;
    int64_t scales = a->kv->k_scale ? layer / d->head_dim : 0;
    paged_source<E> s = {c->attention.device,
                         c->plan.pos,
                         c->plan.block_table,
                         c->plan.max_blocks,
                         a->window,
                         0,
                         (const E *)a->kv->k + layer,
                         (const E *)a->kv->v + layer,
                         head_size,
                         block_size,
                         a->head_dim,
                         a->kv->k_scale + scales,
                         a->kv->v_scale + scales,
                         d->n_kv_heads};
    return s;
}

template <enum hg_dtype TYPE, int DIM, bool WIDE, typename E>
static enum hg_status launch(struct cuda_backend *c, paged_source<E> s, const attend_args &args)
{
    const struct cuda_attention_plan *p = &c->attention;
    s.work += WIDE ? 0 : p->n_wide;
    s.n_work = WIDE ? p->n_wide : p->n_narrow;
    return launch_attend<attend_shape<TYPE, DIM, WIDE>>(c, s, args, s.n_work, p->shape.n_kv_heads);
}

/* Is there a kernel for tiles of 64 rows? */
static bool has_wide(const struct hg_attention_args *a)
{
    return a->kv->desc.type != HG_DTYPE_F32 && a->head_dim > 32 && a->head_dim <= 128;
}

template <enum hg_dtype TYPE, int DIM, typename E>
static enum hg_status launch_both(struct cuda_backend *c, const paged_source<E> &s,
                                  const attend_args &args)
{
    if constexpr (TYPE != HG_DTYPE_F32)
        HG_TRY((launch<TYPE, DIM, true>(c, s, args)));
    return launch<TYPE, DIM, false>(c, s, args);
}

template <enum hg_dtype TYPE, typename E>
static enum hg_status launch_type(struct cuda_backend *c, const struct hg_attention_args *a,
                                  attend_args args)
{
    paged_source<E> s = source_of<E>(c, a);
    args.wide_kv = a->head_dim % (16 / (int)sizeof(E)) == 0;
    if (a->head_dim <= 32)
        return launch<TYPE, 32, false>(c, s, args);
    if (a->head_dim <= 64)
        return launch_both<TYPE, 64>(c, s, args);
    if (a->head_dim <= 96 && TYPE != HG_DTYPE_F32)
        return launch_both < TYPE, TYPE == HG_DTYPE_F32 ? 128 : 96 > (c, s, args);
    if (a->head_dim <= 128)
        return launch_both<TYPE, 128>(c, s, args);
    return launch<TYPE, 256, false>(c, s, args);
}

static enum hg_status check(const struct cuda_backend *c, const struct hg_attention_args *a)
{
    const struct hg_kv_desc *d = &a->kv->desc;
    if (a->n_kv_heads <= 0 || a->n_heads % a->n_kv_heads)
        return cuda_refuse("attention: %d heads on %d", a->n_heads, a->n_kv_heads);
    if (a->head_dim != d->head_dim || a->n_kv_heads != d->n_kv_heads || a->head_dim > 256)
        return cuda_refuse("attention: %d kv heads of %d, cache of %d heads of %d", a->n_kv_heads,
                           a->head_dim, d->n_kv_heads, d->head_dim);
    if (a->plan != c->host_plan)
        return cuda_refuse("attention: not the plan of this step");
    for (int t = 0; t < a->plan->n_tokens; t++)
        if (a->plan->pos[t] >= c->limits.max_context)
            return cuda_refuse("attention: position %d, reserved context %d", a->plan->pos[t],
                               c->limits.max_context);
    return HG_STATUS_OK;
}

extern "C" enum hg_status cuda_attention(struct hg_backend *b, const struct hg_attention_args *a)
{
    struct cuda_backend *c = cuda_of(b);
    HG_TRY(check(c, a));
    HG_TRY(cuda_plan_attention(c, a, has_wide(a)));
    attend_args args = {};
    args.q = (const float *)a->q;
    args.y = (float *)a->y;
    args.ldq = (int64_t)a->n_heads * a->head_dim;
    args.n_heads = a->n_heads;
    args.group = a->n_heads / a->n_kv_heads;
    args.dim = a->head_dim;
    args.scale = fabsf(a->scale) * 1.44269504f; /* log2 e */
    args.sign = a->scale < 0 ? -1.0f : 1.0f;
    args.wide_q = a->head_dim % 4 == 0 && (uintptr_t)a->q % 16 == 0;
    args.pairs = a->head_dim % 2 == 0 && (uintptr_t)a->y % 8 == 0;
    args.arrived = (int *)c->scratch.partial;
    args.records = c->scratch.partial + ATTENTION_COUNTERS;
    switch (a->kv->desc.type) {
    case HG_DTYPE_F32:
        return launch_type<HG_DTYPE_F32, float>(c, a, args);
    case HG_DTYPE_F16:
        return launch_type<HG_DTYPE_F16, uint16_t>(c, a, args);
    case HG_DTYPE_I8:
        return launch_type<HG_DTYPE_I8, int8_t>(c, a, args);
    default:
        return launch_type<HG_DTYPE_BF16, uint16_t>(c, a, args);
    }
}
