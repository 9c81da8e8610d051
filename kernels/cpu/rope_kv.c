/* kernels/cpu/rope_kv.c - rotary embedding of q and k, append of k and v to the cache.
 *
 * The angle is an fp32 product (reference.md 5.4) and reaches thousands of radians, so sine and
 * cosine come from libm, which reduces the argument exactly. */
#include <math.h>

#include "common/half.h"
#include "kernels/cpu/cpu.h"

static void put(const struct hg_kv *kv, void *base, int64_t i, float v)
{
    if (kv->desc.type == HG_DTYPE_F32)
        ((float *)base)[i] = v;
    else if (kv->desc.type == HG_DTYPE_F16)
        ((uint16_t *)base)[i] = hg_f32_to_f16(v);
    else
        ((uint16_t *)base)[i] = hg_f32_to_bf16(v);
}

static void append(const struct hg_rope_kv *a, int t, int head, const float *k, const float *v,
                   const struct cpu_thread *s)
{
    const struct hg_plan *p = a->plan;
    const struct hg_kv *kv = a->kv;
    int half = a->head_dim / 2, entry = p->pos[t] % HG_BLOCK_TOKENS;
    int32_t block =
        p->block_table[(int64_t)p->seq[t] * p->max_blocks + p->pos[t] / HG_BLOCK_TOKENS];
    int64_t k_at = cpu_kv_at(kv, a->head_dim, a->layer, block, head) + entry;
    int64_t v_at = cpu_kv_at(kv, kv->dim_pad, a->layer, block, head) + entry * CPU_LANES;
    for (int i = 0; i < half; i++) {
        float x = k[i] * s->cos[i] - k[i + half] * s->sin[i];
        float y = k[i + half] * s->cos[i] + k[i] * s->sin[i];
        put(kv, kv->k, k_at + (int64_t)i * HG_BLOCK_TOKENS, x);
        put(kv, kv->k, k_at + (int64_t)(i + half) * HG_BLOCK_TOKENS, y);
    }
    for (int i = 0; i < a->head_dim; i++)
        put(kv, kv->v, v_at + (i / CPU_LANES) * HG_BLOCK_TOKENS * CPU_LANES + i % CPU_LANES, v[i]);
}

void cpu_rope_kv_row(const struct hg_rope_kv *a, int t, const float *qkv, float *y,
                     const struct cpu_thread *s)
{
    int dim = a->head_dim, half = dim / 2;
    const float *k = qkv + a->n_heads * dim, *v = k + a->n_kv_heads * dim;
    for (int i = 0; i < half; i++)
        sincosf(a->inv_freq[i] * (float)a->plan->pos[t], &s->sin[i], &s->cos[i]);
    for (int h = 0; h < a->n_heads; h++) {
        const float *q = qkv + h * dim;
        for (int i = 0; i < half; i++) {
            y[h * dim + i] = q[i] * s->cos[i] - q[i + half] * s->sin[i];
            y[h * dim + i + half] = q[i + half] * s->cos[i] + q[i] * s->sin[i];
        }
    }
    for (int g = 0; g < a->n_kv_heads; g++)
        append(a, t, g, k + g * dim, v + g * dim, s);
}
