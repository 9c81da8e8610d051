/* kernels/cuda/linear.cu - host side of a linear: checks, places in scratch, and the choice of the
 * kernel. Rows of generated tokens are one launch of linear_kernel.cuh. Rows of prompts and images
 * go through cuBLASLt where gemm.h can: the base product of a slab of outputs, then the same kernel
 * for adapters and epilogue. */
#include "kernels/cuda/linear.cuh"
extern "C" {
#include "kernels/cuda/gemm.h"
}

enum hg_status cuda_product(struct cuda_backend *c, struct Product *p)
{
    bool bytes = p->slots && p->plugin == HG_DTYPE_I8;
    switch (p->w.type) {
    case HG_DTYPE_F32:
        return bytes ? cuda_product_f32_i8(c, p) : cuda_product_f32(c, p);
    case HG_DTYPE_F16:
        return bytes ? cuda_product_f16_i8(c, p) : cuda_product_f16(c, p);
    case HG_DTYPE_BF16:
        return bytes ? cuda_product_bf16_i8(c, p) : cuda_product_bf16(c, p);
    case HG_DTYPE_F8:
        return bytes ? cuda_product_f8_i8(c, p) : cuda_product_f8(c, p);
    case HG_DTYPE_I4:
        return bytes ? cuda_product_i4_i8(c, p) : cuda_product_i4(c, p);
    default:
        return bytes ? cuda_product_i8_i8(c, p) : cuda_product_i8(c, p);
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
    if (a->n_prompt < 0 || a->n_prompt > a->n_rows)
        return cuda_refuse("linear: %d prompt rows of %d", a->n_prompt, a->n_rows);
    if (a->epilogue == HG_EPILOGUE_SWIGLU && w->n_out % 2)
        return cuda_refuse("linear: SwiGLU of %d outputs", w->n_out);
    if (a->epilogue == HG_EPILOGUE_SWIGLU && w->pair != w->n_out)
        return cuda_refuse("linear: SwiGLU of %d outputs, weight packed in pairs of %d", w->n_out,
                           w->pair);
    return a->epilogue == HG_EPILOGUE_ROPE_KV ? check_rope(c, a) : HG_STATUS_OK;
}

/* From row `first` on. */
static void set_finish(const struct cuda_backend *c, const struct hg_linear_args *a, int first,
                       Finish *f)
{
    f->kind = a->epilogue;
    f->n_out = a->w->n_out;
    f->pair = a->w->pair;
    f->bias = a->w->bias;
    f->ld_residual = a->ld_residual;
    f->residual = a->residual ? (const float *)a->residual + first * a->ld_residual : NULL;
    f->ldy = a->ldy;
    f->y = (float *)a->y + first * a->ldy;
    if (a->epilogue != HG_EPILOGUE_ROPE_KV)
        return;
    f->pos = c->plan.pos + first;
    f->seq = c->plan.seq + first;
    f->block_table = c->plan.block_table;
    f->max_blocks = c->plan.max_blocks;
    f->inv_freq = a->rope->inv_freq;
    f->k = a->rope->kv->k;
    f->v = a->rope->kv->v;
    int width = 2 * a->rope->n_kv_heads * a->rope->head_dim;
    f->kv_rows = a->rope->kv->rows ? a->rope->kv->rows + (int64_t)first * width : NULL;
    f->kv_type = a->rope->kv->desc.type;
    f->layer_block0 = (int64_t)a->rope->layer * a->rope->kv->desc.n_blocks;
    f->n_heads = a->rope->n_heads;
    f->n_kv_heads = a->rope->n_kv_heads;
    f->head_dim = a->rope->head_dim;
}

/* The slots that rows [first, first + n) are in and that have an adapter; places z in scratch. */
static enum hg_status set_adapters(struct cuda_backend *c, const struct hg_linear_args *a,
                                   int first, int n, Product *p)
{
    const struct hg_weight *w = a->w;
    for (int i = first; a->slot && i < first + n; i++)
        if (a->slot[i] >= 0 && w->slot[a->slot[i]].rows)
            p->slots |= 1 << a->slot[i];
    if (!p->slots)
        return HG_STATUS_OK;
    for (int s = 0; s < HG_MAX_PLUGINS; s++) {
        p->slot[s] = w->slot[s];
        p->z_pitch = p->z_pitch < w->slot[s].rows ? w->slot[s].rows : p->z_pitch;
        p->zp_pitch = p->zp_pitch < w->slot[s].z_bytes ? w->slot[s].z_bytes : p->zp_pitch;
    }
    size_t rows = (size_t)cuda_padded_rows(n);
    p->n_parts = w->n_parts;
    p->plugin = w->plugin;
    p->zp = (char *)c->scratch.z;
    p->z = (float *)(p->zp + rows * (size_t)p->zp_pitch);
    p->zp_scale = p->z + rows * (size_t)p->z_pitch;
    size_t end = (size_t)((char *)(p->zp_scale + rows * HG_MAX_PARTS) - p->zp);
    if (end > c->scratch.z_bytes)
        return cuda_refuse("linear: adapters need %zu bytes, reserved %zu", end,
                           c->scratch.z_bytes);
    return HG_STATUS_OK;
}

/* Rows [first, first + n); slot_of: their slots on the device. */
static enum hg_status set_product(struct cuda_backend *c, const struct hg_linear_args *a,
                                  const int32_t *slot_of, int first, int n, Product *p)
{
    const struct hg_weight *w = a->w;
    const float *x = (const float *)a->x + first * a->ldx;
    HG_TRY(set_adapters(c, a, first, n, p));
    if (!cuda_place_rows(c, w, p->slots != 0, n, &p->x))
        return cuda_refuse("linear: %d rows of %d do not fit %zu bytes", n, w->n_in,
                           c->scratch.x_bytes);
    p->from = {x, a->ldx, n, w->n_in, a->norm, a->norm_eps, NULL, NULL, 0};
    p->slot_of = slot_of ? slot_of + first : NULL;
    p->w = w->w;
    p->n_tokens = n;
    p->n_tiles = w->w.tiles;
    set_finish(c, a, first, &p->finish);
    return HG_STATUS_OK;
}

static enum hg_status run_rows(struct cuda_backend *c, const struct hg_linear_args *a,
                               const int32_t *slot_of, int n)
{
    Product p = {};
    HG_TRY(set_product(c, a, slot_of, 0, n, &p));
    return cuda_product(c, &p);
}

/* Base products by cuBLASLt, `tiles` at a time. */
static enum hg_status run_gemm(struct cuda_backend *c, const struct hg_linear_args *a,
                               const int32_t *slot_of, int first, int n, int tiles)
{
    Product p = {};
    HG_TRY(set_product(c, a, slot_of, first, n, &p));
    HG_TRY(cuda_prepare(c, &p.from, p.w.type, &p.x));
    p.from.x = NULL;
    for (int tile = 0; tile < p.w.tiles; tile += tiles) {
        p.first_tile = tile;
        p.n_tiles = p.w.tiles - tile < tiles ? p.w.tiles - tile : tiles;
        HG_TRY(
            cuda_gemm_run(c, a->w, tile, p.n_tiles, p.x.rows, p.x.pitch, n, &p.base, &p.ld_base));
        HG_TRY(cuda_product(c, &p));
    }
    return HG_STATUS_OK;
}

extern "C" enum hg_status cuda_linear(struct hg_backend *b, const struct hg_linear_args *a)
{
    struct cuda_backend *c = cuda_of(b);
    const int32_t *slot_of = NULL;
    HG_TRY(check(c, a));
    if (a->n_rows <= 0)
        return HG_STATUS_OK;
    HG_TRY(cuda_table(c, a->slot, a->n_rows, &slot_of));
    int tiles = a->n_prompt ? cuda_gemm_tiles(c, a->w) : 0;
    int single = tiles ? a->n_rows - a->n_prompt : a->n_rows;
    if (single)
        HG_TRY(run_rows(c, a, slot_of, single));
    for (int first = single; first < a->n_rows; first += CUDA_GEMM_ROWS) {
        int n = a->n_rows - first < CUDA_GEMM_ROWS ? a->n_rows - first : CUDA_GEMM_ROWS;
        HG_TRY(run_gemm(c, a, slot_of, first, n, tiles));
    }
    bool append = a->epilogue == HG_EPILOGUE_ROPE_KV && a->rope->kv->desc.type == HG_DTYPE_I8;
    return append ? cuda_kv_append(c, a->rope) : HG_STATUS_OK;
}
