/* kernels/cpu/attention.c - causal attention over the paged cache; prefill and decode mixed.
 *
 * A unit of work is a run of tokens of one sequence and one kv head: its query rows (tokens x heads
 * of the group) share every key and value that is read. Units are dealt out by their number of
 * keys. */
#include <string.h>

#include "kernels/cpu/cpu.h"

enum { N_PANELS = CPU_KEYS / CPU_LANES };

struct run { /* tokens [first, end) of one sequence */
    int first, end;
};

static int group_size(const struct hg_attention_args *a)
{
    return a->n_heads / a->n_kv_heads;
}

static struct run next_run(const struct hg_attention_args *a, int first)
{
    int most = CPU_QUERIES / group_size(a), end = first + 1; /* at least one token */
    while (end < a->plan->n_tokens && end - first < most &&
           a->plan->seq[end] == a->plan->seq[first])
        end++;
    return (struct run){first, end};
}

static int first_key(const struct hg_attention_args *a, int t)
{
    int32_t pos = a->plan->pos[t];
    return a->window > 0 && pos >= a->window ? pos - a->window + 1 : 0;
}

static int64_t cost(const struct hg_attention_args *a, struct run r)
{
    int64_t keys = a->plan->pos[r.end - 1] + 1 - first_key(a, r.first);
    return (keys + CPU_KEYS) * (r.end - r.first + 1);
}

struct step { /* panels of 16 keys each, NULL from the first absent one on */
    const void *k[N_PANELS], *v[N_PANELS];
    const float *k_scale[N_PANELS], *v_scale[N_PANELS]; /* NULL unless the cache is I8 */
};

/* The panels of the step at `key0` that exist: those up to position `last`. */
static void find_panels(const struct hg_attention_args *a, int32_t seq, int kv_head, int key0,
                        int last, struct step *s)
{
    const int32_t *table = a->plan->block_table + (int64_t)seq * a->plan->max_blocks;
    const struct hg_kv *kv = a->kv;
    int64_t bytes = (int64_t)hg_dtype_bytes(kv->desc.type);
    for (int p = 0; p < N_PANELS; p++) {
        int key = key0 + p * HG_BLOCK_TOKENS;
        s->k[p] = s->v[p] = NULL;
        s->k_scale[p] = s->v_scale[p] = NULL;
        if (key > last)
            continue;
        int32_t block = table[key / HG_BLOCK_TOKENS];
        s->k[p] =
            (const char *)kv->k + cpu_kv_at(kv, a->head_dim, a->layer, block, kv_head) * bytes;
        s->v[p] =
            (const char *)kv->v + cpu_kv_at(kv, kv->dim_pad, a->layer, block, kv_head) * bytes;
        if (kv->desc.type == HG_DTYPE_I8) {
            int64_t row = cpu_kv_at(kv, 1, a->layer, block, kv_head);
            s->k_scale[p] = kv->k_scale + row;
            s->v_scale[p] = kv->v_scale + row;
        }
    }
}

static int clamp(int v, int hi)
{
    return v < 0 ? 0 : v > hi ? hi : v;
}

/* Query rows [row0, row0 + n) of a unit: row r is token first + r / group, head r % group of it. */
static void attend_rows(const struct hg_attention_args *a, struct run run, int kv_head, int row0,
                        int n, struct cpu_attend *s)
{
    int group = group_size(a), dim = a->head_dim;
    int from = first_key(a, run.first + row0 / group);
    int last = a->plan->pos[run.first + (row0 + n - 1) / group];
    int start = from / CPU_KEYS * CPU_KEYS;
    int32_t seq = a->plan->seq[run.first];
    struct step now, next;
    s->n_rows = n;
    for (int r = 0; r < n; r++) {
        int64_t t = run.first + (row0 + r) / group;
        int64_t head = kv_head * group + (row0 + r) % group;
        memcpy(s->t->q + r * dim, (const float *)a->q + (t * a->n_heads + head) * dim,
               (size_t)dim * sizeof(float));
    }
    cpu_attend_begin(s);
    find_panels(a, seq, kv_head, start, last, &now);
    for (int key0 = start; key0 <= last; key0 += CPU_KEYS, now = next) {
        if (key0 + CPU_KEYS <= last)
            find_panels(a, seq, kv_head, key0 + CPU_KEYS, last, &next);
        else
            find_panels(a, seq, (kv_head + 1) % a->n_kv_heads, start, last, &next);
        for (int r = 0; r < n; r++) {
            int t = run.first + (row0 + r) / group;
            s->lo[r] = clamp(first_key(a, t) - key0, CPU_KEYS);
            s->hi[r] = clamp(a->plan->pos[t] + 1 - key0, CPU_KEYS);
        }
        memcpy(s->k_scale, now.k_scale, sizeof s->k_scale);
        memcpy(s->v_scale, now.v_scale, sizeof s->v_scale);
        cpu_attend_keys(s, now.k, now.v, next.k);
    }
    cpu_attend_end(s);
    for (int r = 0; r < n; r++) {
        int64_t t = run.first + (row0 + r) / group;
        int64_t head = kv_head * group + (row0 + r) % group;
        memcpy((float *)a->y + (t * a->n_heads + head) * dim, s->t->out + r * s->dim_pad,
               (size_t)dim * sizeof(float));
    }
}

struct job {
    struct cpu_backend *c;
    const struct hg_attention_args *a;
    int64_t cost; /* of one kv head */
};

static void attention_member(void *ctx, int member, int n_members)
{
    static const enum cpu_form forms[] = {[HG_DTYPE_F32] = CPU_FORM_F32,
                                          [HG_DTYPE_F16] = CPU_FORM_F16,
                                          [HG_DTYPE_BF16] = CPU_FORM_BF16_FLAT,
                                          [HG_DTYPE_I8] = CPU_FORM_I8_FLAT};
    const struct job *j = ctx;
    const struct hg_attention_args *a = j->a;
    struct cpu_attend s = {.simd = &j->c->simd,
                           .t = &j->c->threads[member],
                           .dim = a->head_dim,
                           .dim_pad = a->kv->dim_pad,
                           .scale = a->scale,
                           .form = forms[a->kv->desc.type]};
    int64_t first, end = cpu_share(j->cost * a->n_kv_heads, member, n_members, &first), at = 0;
    for (struct run r = {0, 0}; r.end < a->plan->n_tokens;) {
        r = next_run(a, r.end);
        int n_rows = (r.end - r.first) * group_size(a);
        int64_t unit = cost(a, r);
        for (int kv_head = 0; kv_head < a->n_kv_heads; kv_head++, at += unit)
            for (int row0 = 0; at >= first && at < end && row0 < n_rows; row0 += CPU_QUERIES)
                attend_rows(a, r, kv_head, row0,
                            n_rows - row0 < CPU_QUERIES ? n_rows - row0 : CPU_QUERIES, &s);
    }
}

enum hg_status cpu_attention(struct hg_backend *b, const struct hg_attention_args *a)
{
    struct job j = {.c = cpu_of(b), .a = a};
    if (a->n_kv_heads <= 0 || a->n_heads % a->n_kv_heads || a->head_dim != a->kv->desc.head_dim)
        return cpu_refuse("attention: %d heads on %d of %d", a->n_heads, a->n_kv_heads,
                          a->head_dim);
    for (int t = 0; t < a->plan->n_tokens; t++)
        if (a->plan->pos[t] >= j.c->limits.max_context)
            return cpu_refuse("attention: position %d, reserved context %d", a->plan->pos[t],
                              j.c->limits.max_context);
    for (struct run r = {0, 0}; r.end < a->plan->n_tokens;) {
        r = next_run(a, r.end);
        j.cost += cost(a, r);
    }
    cpu_run(j.c, j.cost * a->n_heads * a->head_dim, attention_member, &j);
    return HG_STATUS_OK;
}
