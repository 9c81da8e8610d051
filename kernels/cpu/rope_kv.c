/* kernels/cpu/rope_kv.c - rotary embedding of q and k, append of k and v to the cache.
 *
 * The angle is an fp32 product (reference.md 5.4) and reaches thousands of radians, so sine and
 * cosine come from libm, which reduces the argument exactly. */
#include <math.h>
#include <string.h>

#include "kernels/cpu/cpu.h"

/* Half-split pairs (i, i + P/2). */
static void rotate(const float *x, const struct cpu_thread *t, int half, float *y)
{
    for (int i = 0; i < half; i++) {
        y[i] = x[i] * t->cos[i] - x[i + half] * t->sin[i];
        y[i + half] = x[i + half] * t->cos[i] + x[i] * t->sin[i];
    }
}

/* One key and value of a head in the cache's type; entries are `stride` elements apart in a key,
 * values lie in runs of 16. */
static void put_f32(float *k, float *v, const float *key, const float *value, int dim)
{
    for (int i = 0; i < dim; i++) {
        k[(int64_t)i * HG_BLOCK_TOKENS] = key[i];
        v[(int64_t)(i / CPU_LANES) * HG_BLOCK_TOKENS * CPU_LANES + i % CPU_LANES] = value[i];
    }
}

static void put_half(uint16_t *k, uint16_t *v, const uint16_t *key, const uint16_t *value, int dim)
{
    for (int i = 0; i < dim; i++) {
        k[(int64_t)i * HG_BLOCK_TOKENS] = key[i];
        v[(int64_t)(i / CPU_LANES) * HG_BLOCK_TOKENS * CPU_LANES + i % CPU_LANES] = value[i];
    }
}

static void put_i8(int8_t *k, int8_t *v, const int8_t *key, const int8_t *value, int dim)
{
    for (int i = 0; i < dim; i++) {
        k[(int64_t)i * HG_BLOCK_TOKENS] = key[i];
        v[(int64_t)(i / CPU_LANES) * HG_BLOCK_TOKENS * CPU_LANES + i % CPU_LANES] = value[i];
    }
}

static void append(const struct cpu_backend *c, const struct hg_rope_kv *a, int token, int head,
                   const float *key, const float *value)
{
    const struct hg_plan *p = a->plan;
    const struct hg_kv *kv = a->kv;
    int entry = p->pos[token] % HG_BLOCK_TOKENS, dim = a->head_dim;
    int32_t block =
        p->block_table[(int64_t)p->seq[token] * p->max_blocks + p->pos[token] / HG_BLOCK_TOKENS];
    int64_t k_at = cpu_kv_at(kv, dim, a->layer, block, head) + entry;
    int64_t v_at = cpu_kv_at(kv, kv->dim_pad, a->layer, block, head) + entry * CPU_LANES;
    if (kv->desc.type == HG_DTYPE_F32) {
        put_f32((float *)kv->k + k_at, (float *)kv->v + v_at, key, value, dim);
        return;
    }
    if (kv->desc.type == HG_DTYPE_I8) {
        int8_t k[CPU_MAX_HEAD_DIM], v[CPU_MAX_HEAD_DIM];
        int32_t sum;
        int64_t row = cpu_kv_at(kv, 1, a->layer, block, head) + entry;
        kv->k_scale[row] = c->simd.quantise(key, dim, k, &sum);
        kv->v_scale[row] = c->simd.quantise(value, dim, v, &sum);
        put_i8((int8_t *)kv->k + k_at, (int8_t *)kv->v + v_at, k, v, dim);
        return;
    }
    uint16_t k[CPU_MAX_HEAD_DIM], v[CPU_MAX_HEAD_DIM];
    if (kv->desc.type == HG_DTYPE_F16) {
        c->simd.to_f16(key, dim, k);
        c->simd.to_f16(value, dim, v);
    } else {
        c->simd.to_bf16(key, dim, k);
        c->simd.to_bf16(value, dim, v);
    }
    put_half((uint16_t *)kv->k + k_at, (uint16_t *)kv->v + v_at, k, v, dim);
}

void cpu_rope_angles(const struct hg_rope_kv *a, int token, const struct cpu_thread *t)
{
    for (int i = 0; i < a->head_dim / 2; i++)
        sincosf(a->inv_freq[i] * (float)a->plan->pos[token], &t->sin[i], &t->cos[i]);
}

void cpu_rope_kv_head(const struct cpu_backend *c, const struct cpu_thread *t,
                      const struct hg_rope_kv *a, int token, int head, const float *qkv, float *y)
{
    int dim = a->head_dim, half = dim / 2;
    const float *k = qkv + (a->n_heads + head) * dim, *v = k + a->n_kv_heads * dim;
    float key[CPU_MAX_HEAD_DIM];
    int64_t first, end = cpu_share(a->n_heads, head, a->n_kv_heads, &first);
    for (int64_t h = first; h < end; h++)
        rotate(qkv + h * dim, t, half, y + h * dim);
    memcpy(key, k, (size_t)dim * sizeof *key);
    rotate(k, t, half, key);
    append(c, a, token, head, key, v);
}
