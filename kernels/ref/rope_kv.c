/* kernels/ref/rope_kv.c - rotary embedding of q and k, append of k and v to the cache. */
#include <math.h>

#include "kernels/ref/ref.h"

/* Half-split pairs (i, i + P/2). The angle is an fp32 product (reference.md 5.4), its cosine and
 * sine are the nearest floats: the definition must not depend on how well a libm rounds cosf. */
static void rotate(const double *x, const float *inv_freq, int32_t pos, int head_dim, float *y)
{
    int half = head_dim / 2;
    for (int i = 0; i < half; i++) {
        float angle = inv_freq[i] * (float)pos;
        double c = (float)cos((double)angle), s = (float)sin((double)angle);
        y[i] = (float)(x[i] * c - x[i + half] * s);
        y[i + half] = (float)(x[i + half] * c + x[i] * s);
    }
}

static void rotate_as(enum hg_rounding rounding, const double *x, const float *inv_freq,
                      int32_t pos, int head_dim, float *y)
{
    if (rounding)
        ref_rounded_rotate(x, inv_freq, pos, head_dim, y);
    else
        rotate(x, inv_freq, pos, head_dim, y);
}

/* row: scratch [P] */
static void append(const struct hg_rope_kv *a, int t, int head, enum hg_rounding rounding,
                   const double *k, const double *v, float *row)
{
    const struct hg_plan *p = a->plan;
    int32_t pos = p->pos[t];
    int32_t block = p->block_table[(int64_t)p->seq[t] * p->max_blocks + pos / HG_BLOCK_TOKENS];
    int64_t at = ref_kv_row(a->kv, a->layer, block, head, pos % HG_BLOCK_TOKENS);
    rotate_as(rounding, k, a->inv_freq, pos, a->head_dim, row);
    ref_kv_set(a->kv, &a->kv->k, at, row);
    for (int i = 0; i < a->head_dim; i++)
        row[i] = (float)v[i];
    ref_kv_set(a->kv, &a->kv->v, at, row);
}

void ref_rope_kv_row(struct ref_backend *r, const struct hg_rope_kv *a, int t,
                     enum hg_rounding rounding, const double *qkv, float *y)
{
    int dim = a->head_dim;
    const double *k = qkv + a->n_heads * dim, *v = k + a->n_kv_heads * dim;
    for (int h = 0; h < a->n_heads; h++)
        rotate_as(rounding, qkv + h * dim, a->inv_freq, a->plan->pos[t], dim, y + h * dim);
    for (int g = 0; g < a->n_kv_heads; g++)
        append(a, t, g, rounding, k + g * dim, v + g * dim, r->row_out);
}
