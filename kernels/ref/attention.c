/* kernels/ref/attention.c - causal attention of each token over its own sequence's paged cache. */
#include "kernels/ref/ref.h"

static int64_t cache_row(const struct hg_attention_args *a, int32_t seq, int32_t pos, int head)
{
    const struct hg_plan *p = a->plan;
    int32_t block = p->block_table[(int64_t)seq * p->max_blocks + pos / HG_BLOCK_TOKENS];
    return ref_kv_row(a->kv, a->layer, block, head, pos % HG_BLOCK_TOKENS);
}

static void attend(struct ref_backend *r, const struct hg_attention_args *a, int t, int head)
{
    int dim = a->head_dim, kv_head = head / (a->n_heads / a->n_kv_heads);
    int32_t seq = a->plan->seq[t], pos = a->plan->pos[t];
    int32_t first = a->window > 0 && pos >= a->window ? pos - a->window + 1 : 0;
    int64_t at = ((int64_t)t * a->n_heads + head) * dim;
    const float *q = (const float *)a->q + at;
    float *y = (float *)a->y + at;
    bool eager = a->rounding == HG_ROUND_FP16;

    for (int32_t j = first; j <= pos; j++) {
        int64_t k = cache_row(a, seq, j, kv_head);
        double dot = 0;
        for (int i = 0; i < dim; i++)
            dot += (double)q[i] * ref_kv_get(a->kv, &a->kv->k, k, i);
        r->score[j - first] = eager ? ref_half((double)(ref_half(dot) * a->scale)) : dot * a->scale;
    }
    ref_softmax(r->score, pos - first + 1);
    for (int32_t j = first; eager && j <= pos; j++)
        r->score[j - first] = ref_half(r->score[j - first]);
    for (int i = 0; i < dim; i++) {
        double sum = 0;
        for (int32_t j = first; j <= pos; j++)
            sum += r->score[j - first] *
                   ref_kv_get(a->kv, &a->kv->v, cache_row(a, seq, j, kv_head), i);
        y[i] = a->rounding ? ref_half(sum) : (float)sum;
    }
}

enum hg_status ref_attention(struct hg_backend *b, const struct hg_attention_args *a)
{
    struct ref_backend *r = ref_of(b);
    if (a->n_kv_heads <= 0 || a->n_heads % a->n_kv_heads)
        return ref_refuse("attention: %d heads on %d", a->n_heads, a->n_kv_heads);
    for (int t = 0; t < a->plan->n_tokens; t++) {
        if (a->plan->pos[t] >= r->limits.max_context)
            return ref_refuse("attention: position %d, reserved context %d", a->plan->pos[t],
                              r->limits.max_context);
        for (int h = 0; h < a->n_heads; h++)
            attend(r, a, t, h);
    }
    return HG_STATUS_OK;
}
