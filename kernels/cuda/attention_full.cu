/* kernels/cuda/attention_full.cu - every row of a group of S rows attends to all rows of the group.
 *
 *   y[r, h] = sum over rows j of r's group of softmax_j(scale q[r, h] . k[j, h]) v[j, h]
 *
 * q, k, v [n_batch * S, ld] and y [n_batch * S, H*P], fp32. A block of attend.cuh takes 64 rows of
 * one group and head (CLIP: 577 rows, 16 heads of 64), or 16 when the head is wider (VQGAN: one
 * head of 512); fp32 operands go through mma as three bf16 parts, six products each, which is what
 * bounds it. No chunks: a group's rows are the same for all of them. Defined by
 * kernels/ref/attention_full.c. */
#include "kernels/cuda/attend.cuh"

template <int ROWS> struct dense_source {
    static constexpr int chunk = 1 << 30;
    const float *k, *v;
    int64_t ld;
    int n_rows, n_tiles, dim; /* of a group */
};

struct dense_keys {
    const float *k, *v; /* of the group and head */
    int64_t ld;
};

template <int ROWS> DEV attend_work work_of(const dense_source<ROWS> &s, int block)
{
    int group = block / s.n_tiles, row0 = block % s.n_tiles * ROWS, left = s.n_rows - row0;
    attend_work w = {group * s.n_rows, row0, left < ROWS ? left : ROWS, group, 0, 1, -1, 0, 1};
    return w;
}

template <int ROWS> DEV int first_key(const dense_source<ROWS> &, int64_t)
{
    return 0;
}

template <int ROWS> DEV int last_key(const dense_source<ROWS> &s, int64_t)
{
    return s.n_rows - 1;
}

template <int ROWS>
DEV dense_keys keys_of(const dense_source<ROWS> &s, const attend_work &w, int head)
{
    int64_t at = (int64_t)w.first * s.ld + (int64_t)head * s.dim;
    dense_keys k = {s.k + at, s.v + at, s.ld};
    return k;
}

DEV int64_t key_row(const dense_keys &k, int key)
{
    return key * k.ld;
}

/* ---- launcher
 * ------------------------------------------------------------------------------------------------
 */

template <int DIM, bool WIDE>
static enum hg_status launch(struct cuda_backend *c, const struct hg_attention_full_args *a,
                             const attend_args &args)
{
    typedef attend_shape<HG_DTYPE_F32, DIM, WIDE> shape;
    int n_tiles = (a->n_rows + shape::rows - 1) / shape::rows;
    dense_source<shape::rows> s = {
        (const float *)a->k, (const float *)a->v, a->ld, a->n_rows, n_tiles, a->head_dim};
    return launch_attend<shape>(c, s, args, a->n_batch * n_tiles, a->n_heads);
}

extern "C" enum hg_status cuda_attention_full(struct hg_backend *b,
                                              const struct hg_attention_full_args *a)
{
    struct cuda_backend *c = cuda_of(b);
    if (a->head_dim < 1 || a->head_dim > 512)
        return cuda_refuse("attention_full: heads of %d, at most 512", a->head_dim);
    if (a->n_batch < 1 || a->n_rows < 1)
        return HG_STATUS_OK;
    attend_args args = {};
    args.q = (const float *)a->q;
    args.y = (float *)a->y;
    args.ldq = a->ld;
    args.n_heads = a->n_heads;
    args.group = 1;
    args.dim = a->head_dim;
    args.scale = fabsf(a->scale) * 1.44269504f; /* log2 e */
    args.sign = a->scale < 0 ? -1.0f : 1.0f;
    bool rows_of_4 = a->head_dim % 4 == 0 && a->ld % 4 == 0;
    args.wide_q = rows_of_4 && (uintptr_t)a->q % 16 == 0;
    args.wide_kv = rows_of_4 && (uintptr_t)a->k % 16 == 0 && (uintptr_t)a->v % 16 == 0;
    args.pairs = a->head_dim % 2 == 0 && (uintptr_t)a->y % 8 == 0;
    if (a->head_dim <= 32)
        return launch<32, false>(c, a, args);
    if (a->head_dim <= 64)
        return launch<64, true>(c, a, args);
    if (a->head_dim <= 128)
        return launch<128, false>(c, a, args);
    if (a->head_dim <= 256)
        return launch<256, false>(c, a, args);
    return launch<512, false>(c, a, args);
}
