/* tools/bench/kernel_cases.c - see kernel_cases.h.
 *
 * Every linear carries the two plug-ins of HealthGPT-M3: rank 64 (com) and 256 (gen), 4 experts
 * each. Rows of a step take none, one of them, or both in turns (mixed). */
#include "tools/bench/kernel_cases.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/clock.h"
#include "common/half.h"
#include "kernels/backend.h"

enum {
    MAX_ROWS = 704,
    MAX_SEQS = 32,
    MAX_BLOCKS = 64,
    MAX_ROUNDS = 99,
    EXPERTS = 4,
    FILL_IN = 64,
    N_SLOTS = 4,
    N_TYPES = 3
};

struct shape {
    const char *name;
    int n, k;
    enum hg_epilogue epilogue;
    bool norm;
};
static const struct shape full_shapes[] = {{"qkv", 9216, 3072, HG_EPILOGUE_NONE, true},
                                           {"o", 3072, 3072, HG_EPILOGUE_RESIDUAL, false},
                                           {"gate_up", 16384, 3072, HG_EPILOGUE_SWIGLU, true},
                                           {"down", 3072, 8192, HG_EPILOGUE_RESIDUAL, false},
                                           {0}};
static const struct shape tiny_shapes[] = {
    {"qkv", 96, 64, HG_EPILOGUE_NONE, true}, {"gate_up", 128, 64, HG_EPILOGUE_SWIGLU, true}, {0}};
static const int full_rows[] = {1, 2, 4, 8, 16, 32, 64, 700, 0}, tiny_rows[] = {1, 9, 0};
static const int full_ranks[] = {64, 256}, tiny_ranks[] = {8, 16};

struct heads {
    const char *name;
    int n_heads, n_kv_heads, head_dim, context, n_layers;
};
static const struct heads full_heads[] = {
    {"mha32x96", 32, 32, 96, 1024, 16}, {"gqa40:10x128", 40, 10, 128, 1024, 16}, {0}};
static const struct heads tiny_heads[] = {{"mha2x32", 2, 2, 32, 48, 2}, {0}};
static const int full_seqs[] = {1, 8, 32, 0}, tiny_seqs[] = {1, 3, 0};

static const enum hg_dtype types[N_TYPES] = {HG_DTYPE_BF16, HG_DTYPE_F16, HG_DTYPE_I8};
static const char *const slots[N_SLOTS] = {"none", "com", "gen", "mixed"};

struct bench {
    struct hg_backend *b;
    const struct hg_backend_ops *ops;
    size_t mib;
    int rounds;
    bool tiny;
    const int *ranks;
    uint16_t *host;         /* bf16: weights and adapters */
    void *x, *y, *residual; /* (dev) [MAX_ROWS, 8192], [MAX_ROWS, 16384] twice */
    float *norm;            /* (dev) */
    int32_t zero[MAX_ROWS], slot[MAX_ROWS], pos[MAX_ROWS], seq[MAX_ROWS];
    int32_t table[MAX_SEQS * MAX_BLOCKS];
    double us[MAX_ROUNDS];
};

/* ---- timing -------------------------------------------------------------------------------------
 */

typedef enum hg_status pass_fn(struct bench *s, void *ctx);

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* `pass` makes n_calls calls; as many passes as read 4 GB make a round, one is thrown away. */
static enum hg_status measure(struct bench *s, pass_fn *pass, void *ctx, int n_calls, double bytes)
{
    double total = n_calls * bytes, passes = s->tiny || total > 4e9 ? 1 : (int)(4e9 / total) + 1;
    for (int r = -1; r < s->rounds; r++) {
        HG_TRY(s->ops->sync(s->b));
        int64_t start = hg_now_ns();
        for (int p = 0; p < (int)passes; p++)
            HG_TRY(pass(s, ctx));
        HG_TRY(s->ops->sync(s->b));
        if (r >= 0)
            s->us[r] = (double)(hg_now_ns() - start) * 1e-3 / passes / n_calls;
    }
    qsort(s->us, (size_t)s->rounds, sizeof *s->us, compare);
    return HG_STATUS_OK;
}

static void print_times(const struct bench *s, double bytes, double flops)
{
    printf("\"us\":%.3f,\"us_p10\":%.3f,\"us_p90\":%.3f,\"bytes\":%.0f,\"flops\":%.0f}\n",
           s->us[s->rounds / 2], s->us[s->rounds / 10], s->us[s->rounds * 9 / 10], bytes, flops);
    fflush(stdout);
}

/* ---- linears ------------------------------------------------------------------------------------
 */

struct set {
    const struct shape *shape;
    enum hg_dtype type;
    struct hg_weight **w;
    int n_weights, n_rows;
    struct hg_plan plan;
};

static enum hg_status make_weight(struct bench *s, const struct shape *p, enum hg_dtype type,
                                  struct hg_weight **out, struct hg_error *err)
{
    struct hg_host_tensor host = {s->host, HG_DTYPE_BF16};
    struct hg_weight_desc d = {.name = p->name,
                               .n_in = p->k,
                               .n_parts = 1,
                               .store = type,
                               .pair = p->epilogue == HG_EPILOGUE_SWIGLU ? p->n : 0,
                               .parts = {{.w = host, .n_out = p->n}}};
    for (int i = 0; i < 2; i++)
        d.parts[0].adapters[i] = (struct hg_adapter){.a = host,
                                                     .b = host,
                                                     .route = host,
                                                     .rank = s->ranks[i],
                                                     .n_experts = EXPERTS,
                                                     .scaling = 0.5f};
    return s->ops->weight_create(s->b, &d, out, err);
}

static enum hg_status linears(struct bench *s, void *ctx)
{
    struct set *t = ctx;
    const struct shape *p = t->shape;
    HG_TRY(s->ops->step_begin(s->b, &t->plan));
    for (int i = 0; i < t->n_weights; i++) {
        struct hg_linear_args a = {.w = t->w[i],
                                   .n_rows = t->n_rows,
                                   .x = s->x,
                                   .ldx = p->k,
                                   .norm = p->norm ? s->norm : NULL,
                                   .norm_eps = 1e-5f,
                                   .slot = t->plan.slot,
                                   .epilogue = p->epilogue,
                                   .residual = s->residual,
                                   .ld_residual = p->n,
                                   .y = s->y,
                                   .ldy = p->epilogue == HG_EPILOGUE_SWIGLU ? p->n / 2 : p->n};
        HG_TRY(s->ops->linear(s->b, &a));
    }
    return s->ops->step_end(s->b);
}

/* which: an index of slots. */
static enum hg_status linear_case(struct bench *s, struct set *t, int n_rows, int which)
{
    const struct shape *p = t->shape;
    double element = (double)hg_dtype_bytes(t->type), rank = 0, n = p->n, k = p->k;
    if (which == 3 && n_rows == 1)
        return HG_STATUS_OK; /* one row is not mixed */
    for (int i = 0; i < n_rows; i++)
        s->slot[i] = which == 3 ? i % 2 : which - 1;
    for (int i = 0; i < 2; i++)
        rank += which == 3 || which == i + 1 ? s->ranks[i] + EXPERTS : 0;
    t->n_rows = n_rows;
    t->plan = (struct hg_plan){.n_tokens = n_rows,
                               .n_seqs = 1,
                               .max_blocks = 1,
                               .token = s->zero,
                               .pos = s->pos,
                               .seq = s->zero,
                               .slot = s->slot,
                               .table = s->zero,
                               .block_table = s->zero};
    /* a value of int8 has its adapters in bf16; activations are read and written once, in fp32 */
    double outs = p->epilogue == HG_EPILOGUE_SWIGLU ? n / 2 : n;
    double bytes = n * k * element + rank * (n + k) * (element < 2 ? 2 : element) +
                   n_rows * (k + outs) * sizeof(float);
    double per_row = which == 3 ? rank / 2 : rank;
    HG_TRY(measure(s, linears, t, t->n_weights, bytes));
    printf("{\"op\":\"linear\",\"shape\":\"%s\",\"n\":%d,\"k\":%d,\"type\":\"%s\",\"rows\":%d,"
           "\"adapters\":\"%s\",\"weights\":%d,",
           p->name, p->n, p->k, hg_dtype_name(t->type), n_rows, slots[which], t->n_weights);
    print_times(s, bytes, 2 * n_rows * (n * k + per_row * (n + k)));
    return HG_STATUS_OK;
}

static enum hg_status linear_cases(struct bench *s, const struct shape *p, enum hg_dtype type,
                                   struct hg_error *err)
{
    struct set t = {.shape = p, .type = type};
    size_t bytes = (size_t)p->n * (size_t)p->k * hg_dtype_bytes(type);
    size_t n = s->tiny ? 2 : (s->mib * 1024 * 1024 + bytes - 1) / bytes;
    enum hg_status status = HG_STATUS_OK;
    t.w = calloc(n, sizeof(struct hg_weight *));
    if (!t.w)
        return hg_fail(err, HG_STATUS_NO_MEMORY, "weight list");
    for (; t.n_weights < (int)n; t.n_weights++)
        HG_TRY_OUT(make_weight(s, p, type, &t.w[t.n_weights], err));
    for (const int *rows = s->tiny ? tiny_rows : full_rows; *rows; rows++)
        for (int which = 0; which < N_SLOTS; which++)
            HG_TRY_OUT(linear_case(s, &t, *rows, which));
out:
    for (int i = 0; i < t.n_weights; i++)
        s->ops->weight_free(s->b, t.w[i]);
    free(t.w);
    return status;
}

/* ---- attention, decode --------------------------------------------------------------------------
 */

struct cache {
    const struct heads *h;
    struct hg_kv *kv;
    struct hg_plan plan;
    struct hg_weight *fill; /* random rows of FILL_IN values -> q, k, v */
    float *inv_freq;        /* (dev) */
    int layer;              /* of fill */
};

/* Random keys and values for HG_BLOCK_TOKENS positions of every block that the plan names. */
static enum hg_status fill_pass(struct bench *s, struct cache *c, int n_seqs, int first)
{
    const struct heads *h = c->h;
    struct hg_plan plan = c->plan;
    int n = MAX_ROWS / HG_BLOCK_TOKENS * HG_BLOCK_TOKENS, width = h->n_heads * h->head_dim;
    n = n < h->context - first ? n : h->context - first;
    for (int q = 0; q < n_seqs; q++) {
        for (int i = 0; i < n; i++) {
            s->pos[i] = first + i;
            s->seq[i] = q;
            s->slot[i] = -1;
        }
        plan.n_tokens = n;
        struct hg_rope_kv rope = {&plan,      c->inv_freq,   c->kv,      c->layer,
                                  h->n_heads, h->n_kv_heads, h->head_dim};
        struct hg_linear_args a = {.w = c->fill,
                                   .n_rows = n,
                                   .x = s->x,
                                   .ldx = FILL_IN,
                                   .slot = s->slot,
                                   .epilogue = HG_EPILOGUE_ROPE_KV,
                                   .rope = &rope,
                                   .y = s->y,
                                   .ldy = width};
        HG_TRY(s->ops->step_begin(s->b, &plan));
        HG_TRY(s->ops->linear(s->b, &a));
        HG_TRY(s->ops->sync(s->b));
        HG_TRY(s->ops->step_end(s->b));
    }
    return HG_STATUS_OK;
}

static enum hg_status open_cache(struct bench *s, struct cache *c, int n_seqs, enum hg_dtype type,
                                 struct hg_error *err)
{
    const struct heads *h = c->h;
    int blocks = h->context / HG_BLOCK_TOKENS,
        outs = (h->n_heads + 2 * h->n_kv_heads) * h->head_dim;
    struct hg_kv_desc d = {h->n_layers, n_seqs * blocks, h->n_kv_heads, h->head_dim, type};
    struct hg_weight_desc w = {.name = "fill",
                               .n_in = FILL_IN,
                               .n_parts = 1,
                               .store = HG_DTYPE_F16,
                               .pair = h->head_dim,
                               .parts = {{.w = {s->host, HG_DTYPE_BF16}, .n_out = outs}}};
    for (int i = 0; i < n_seqs * blocks; i++)
        s->table[i] = (i * 7 + 3) % (n_seqs * blocks); /* blocks and 7 have no common factor */
    c->plan = (struct hg_plan){.n_seqs = n_seqs,
                               .max_blocks = blocks,
                               .token = s->zero,
                               .pos = s->pos,
                               .seq = s->seq,
                               .slot = s->slot,
                               .table = s->zero,
                               .block_table = s->table};
    void *p = NULL;
    HG_TRY(s->ops->kv_create(s->b, &d, &c->kv, err));
    HG_TRY(s->ops->weight_create(s->b, &w, &c->fill, err));
    HG_TRY(s->ops->alloc(s->b, (size_t)h->head_dim * sizeof(float), &p, err));
    c->inv_freq = p;
    for (c->layer = 0; c->layer < h->n_layers; c->layer++)
        for (int first = 0; first < h->context; first += MAX_ROWS)
            HG_TRY(fill_pass(s, c, n_seqs, first));
    return HG_STATUS_OK;
}

static enum hg_status attend(struct bench *s, void *ctx)
{
    struct cache *c = ctx;
    const struct heads *h = c->h;
    struct hg_attention_args a = {.plan = &c->plan,
                                  .kv = c->kv,
                                  .n_heads = h->n_heads,
                                  .n_kv_heads = h->n_kv_heads,
                                  .head_dim = h->head_dim,
                                  .scale = 0.1f,
                                  .q = s->x,
                                  .y = s->y};
    HG_TRY(s->ops->step_begin(s->b, &c->plan));
    for (a.layer = 0; a.layer < h->n_layers; a.layer++)
        HG_TRY(s->ops->attention(s->b, &a));
    return s->ops->step_end(s->b);
}

static enum hg_status attention_case(struct bench *s, const struct heads *h, int n_seqs,
                                     enum hg_dtype type, struct hg_error *err)
{
    struct cache c = {.h = h};
    enum hg_status status = HG_STATUS_OK;
    HG_TRY_OUT(open_cache(s, &c, n_seqs, type, err));
    for (int i = 0; i < n_seqs; i++) {
        s->seq[i] = i;
        s->pos[i] = h->context - 1;
    }
    c.plan.n_tokens = n_seqs;
    const struct hg_kv_desc read = {1, h->context / HG_BLOCK_TOKENS, h->n_kv_heads, h->head_dim,
                                    type};
    double bytes =
        n_seqs * ((double)hg_kv_desc_bytes(&read) + 2.0 * h->n_heads * h->head_dim * sizeof(float));
    HG_TRY_OUT(measure(s, attend, &c, h->n_layers, bytes));
    printf("{\"op\":\"attention\",\"shape\":\"%s\",\"type\":\"%s\",\"context\":%d,\"rows\":%d,",
           h->name, hg_dtype_name(type), h->context, n_seqs);
    print_times(s, bytes, 4.0 * n_seqs * h->context * h->n_heads * h->head_dim);
out:
    if (c.fill)
        s->ops->weight_free(s->b, c.fill);
    s->ops->free(s->b, c.inv_freq);
    s->ops->kv_free(s->b, c.kv);
    return status;
}

/* ---- all ----------------------------------------------------------------------------------------
 */

static enum hg_status setup(struct bench *s, const char *backend, struct hg_error *err)
{
    enum { MAX_IN = 8192, MAX_OUT = 16384 };
    const struct hg_backend_limits limits = {.max_rows = MAX_ROWS,
                                             .max_in = MAX_IN,
                                             .max_out = MAX_OUT,
                                             .max_rank = 320 + 2 * EXPERTS,
                                             .max_context = 1024};
    size_t n = s->tiny ? 1 << 16 : (size_t)MAX_OUT * 3072, act = (size_t)MAX_ROWS * MAX_OUT;
    void *norm = NULL;
    uint64_t seed = 88172645463325252u;
    HG_TRY(hg_backend_open(backend, 0, &s->b, err));
    s->ops = s->b->ops;
    HG_TRY(s->ops->reserve(s->b, &limits, err));
    float *values = malloc(act * sizeof *values);
    s->host = malloc(n * sizeof *s->host);
    if (!s->host || !values) {
        free(values);
        return hg_fail(err, HG_STATUS_NO_MEMORY, "host weights");
    }
    for (size_t i = 0; i < act || i < n; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        float v = (float)(int32_t)(seed >> 32) / 2147483648.0f;
        if (i < act)
            values[i] = v;
        if (i < n)
            s->host[i] = hg_f32_to_bf16(v * 0.03f);
    }
    enum hg_status status = HG_STATUS_OK;
    HG_TRY_OUT(s->ops->alloc(s->b, act * sizeof(float), &s->x, err));
    HG_TRY_OUT(s->ops->alloc(s->b, act * sizeof(float), &s->y, err));
    HG_TRY_OUT(s->ops->alloc(s->b, act * sizeof(float), &s->residual, err));
    HG_TRY_OUT(s->ops->alloc(s->b, MAX_IN * sizeof(float), &norm, err));
    s->norm = norm;
    HG_TRY_OUT(s->ops->upload_act(s->b, s->x, values, act));
    HG_TRY_OUT(s->ops->upload_act(s->b, s->residual, values, act));
    HG_TRY_OUT(s->ops->upload(s->b, norm, values, MAX_IN * sizeof(float)));
    HG_TRY_OUT(s->ops->sync(s->b));
out:
    free(values);
    return status;
}

static enum hg_status run(struct bench *s, struct hg_error *err)
{
    for (const struct shape *p = s->tiny ? tiny_shapes : full_shapes; p->name; p++)
        for (int t = 0; t < N_TYPES; t++)
            HG_TRY(linear_cases(s, p, types[t], err));
    for (const struct heads *h = s->tiny ? tiny_heads : full_heads; h->name; h++)
        for (const int *n = s->tiny ? tiny_seqs : full_seqs; *n; n++)
            for (int t = 0; t < 2; t++)
                HG_TRY(attention_case(s, h, *n, t ? HG_DTYPE_I8 : HG_DTYPE_F16, err));
    return HG_STATUS_OK;
}

enum hg_status kernel_cases(const char *backend, size_t mib, int rounds, bool tiny,
                            struct hg_error *err)
{
    struct bench *s = calloc(1, sizeof *s);
    if (!s)
        return hg_fail(err, HG_STATUS_NO_MEMORY, "bench");
    s->mib = mib;
    s->rounds = rounds < MAX_ROUNDS ? rounds : MAX_ROUNDS;
    s->tiny = tiny;
    s->ranks = tiny ? tiny_ranks : full_ranks;
    enum hg_status status = setup(s, backend, err);
    if (status == HG_STATUS_OK)
        status = run(s, err);
    if (s->b) {
        s->ops->free(s->b, s->x);
        s->ops->free(s->b, s->y);
        s->ops->free(s->b, s->residual);
        s->ops->free(s->b, s->norm);
        hg_backend_close(s->b);
    }
    free(s->host);
    free(s);
    return status;
}
