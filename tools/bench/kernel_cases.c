/* tools/bench/kernel_cases.c - see kernel_cases.h.
 *
 * Every linear carries two plug-ins with 4 experts each: rank 64 (com) and 256 (gen) as in
 * HealthGPT-M3, 32 and 128 as in L14. Rows of a step take none, one of them, or both in turns
 * (mixed). */
#include "tools/bench/kernel_cases.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/clock.h"
#include "common/half.h"
#include "kernels/backend.h"

enum {
    MAX_ROWS = 704,
    MAX_SEQS = 64,
    MAX_BLOCKS = 64,
    MAX_ROUNDS = 99,
    EXPERTS = 4,
    FILL_IN = 64,
    N_SLOTS = 4,
    N_TYPES = 5,
    MOST_DECODED = 64, /* more rows than that are a prompt's */
    PROMPT = 700       /* rows of a prefill */
};

struct shape {
    const char *model, *name;
    int n, k;
    enum hg_epilogue epilogue;
    bool norm;
    int ranks[2], n_types;
};
static const struct shape full_shapes[] = {
    {"m3", "qkv", 9216, 3072, HG_EPILOGUE_NONE, true, {64, 256}, N_TYPES},
    {"m3", "o", 3072, 3072, HG_EPILOGUE_RESIDUAL, false, {64, 256}, N_TYPES},
    {"m3", "gate_up", 16384, 3072, HG_EPILOGUE_SWIGLU, true, {64, 256}, N_TYPES},
    {"m3", "down", 3072, 8192, HG_EPILOGUE_RESIDUAL, false, {64, 256}, N_TYPES},
    {"l14", "qkv", 7680, 5120, HG_EPILOGUE_NONE, true, {32, 128}, 1},
    {"l14", "o", 5120, 5120, HG_EPILOGUE_RESIDUAL, false, {32, 128}, 1},
    {"l14", "gate_up", 35840, 5120, HG_EPILOGUE_SWIGLU, true, {32, 128}, 1},
    {"l14", "down", 5120, 17920, HG_EPILOGUE_RESIDUAL, false, {32, 128}, 1},
    {0}};
static const struct shape tiny_shapes[] = {
    {"tiny", "qkv", 96, 64, HG_EPILOGUE_NONE, true, {8, 16}, N_TYPES},
    {"tiny", "gate_up", 128, 64, HG_EPILOGUE_SWIGLU, true, {8, 16}, N_TYPES},
    {0}};
static const int full_rows[] = {1, 2, 4, 8, 16, 32, 64, PROMPT, 0}, tiny_rows[] = {1, 9, 0},
                 one_row[] = {1, 0}, brief_rows[] = {1, 8, 32, 64, PROMPT, 0};

struct heads {
    const char *name;
    int n_heads, n_kv_heads, head_dim, context, n_layers;
};
static const struct heads full_heads[] = {
    {"mha32x96", 32, 32, 96, 1024, 16}, {"gqa40:10x128", 40, 10, 128, 1024, 16}, {0}};
static const struct heads tiny_heads[] = {{"mha2x32", 2, 2, 32, 48, 2}, {0}};
static const int full_seqs[] = {1, 8, 32, 64, 0}, tiny_seqs[] = {1, 3, 0};

static const enum hg_dtype types[N_TYPES] = {HG_DTYPE_BF16, HG_DTYPE_F16, HG_DTYPE_I8, HG_DTYPE_F8,
                                             HG_DTYPE_I4};
static const char *const slots[N_SLOTS] = {"none", "com", "gen", "mixed"};

struct bench {
    struct hg_backend *b;
    const struct hg_backend_ops *ops;
    size_t mib;
    int rounds;
    bool tiny, one, brief;
    uint16_t *host;         /* bf16: weights and adapters */
    void *x, *y, *residual; /* (dev) [MAX_ROWS, MAX_OUT] */
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
    struct hg_host_tensor host = {.data = s->host, .type = HG_DTYPE_BF16};
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
                                                     .rank = p->ranks[i],
                                                     .n_experts = EXPERTS,
                                                     .scaling = 0.5f};
    return s->ops->weight_create(s->b, &d, out, err);
}

static enum hg_status linears(struct bench *s, void *ctx)
{
    struct set *t = ctx;
    const struct shape *p = t->shape;
    HG_TRY(s->ops->step_begin(s->b, &t->plan, NULL));
    for (int i = 0; i < t->n_weights; i++) {
        struct hg_linear_args a = {.w = t->w[i],
                                   .n_rows = t->n_rows,
                                   .n_prompt = t->plan.n_prompt,
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
    return s->ops->step_end(s->b, NULL);
}

/* which: an index of slots. */
static enum hg_status linear_case(struct bench *s, struct set *t, int n_rows, int which)
{
    const struct shape *p = t->shape;
    double element = (double)hg_dtype_bits(t->type) / 8, rank = 0, n = p->n, k = p->k;
    element += t->type == HG_DTYPE_I4 ? 2.0 / HG_I4_GROUP : 0; /* the scales */
    double beside = (double)hg_dtype_bytes(hg_dtype_beside(t->type));
    if (which == 3 && n_rows == 1)
        return HG_STATUS_OK; /* one row is not mixed */
    for (int i = 0; i < n_rows; i++)
        s->slot[i] = which == 3 ? i % 2 : which - 1;
    for (int i = 0; i < 2; i++)
        rank += which == 3 || which == i + 1 ? p->ranks[i] + EXPERTS : 0;
    t->n_rows = n_rows;
    t->plan = (struct hg_plan){.n_tokens = n_rows,
                               .n_prompt = n_rows > MOST_DECODED ? n_rows : 0,
                               .n_seqs = 1,
                               .max_blocks = 1,
                               .token = s->zero,
                               .pos = s->pos,
                               .seq = s->zero,
                               .slot = s->slot,
                               .table = s->zero,
                               .block_table = s->zero};
    /* quantised weights have their adapters in bf16; activations are read and written once, in fp32
     */
    double outs = p->epilogue == HG_EPILOGUE_SWIGLU ? n / 2 : n;
    double bytes = n * k * element + rank * (n + k) * beside + n_rows * (k + outs) * sizeof(float);
    double per_row = which == 3 ? rank / 2 : rank;
    HG_TRY(measure(s, linears, t, t->n_weights, bytes));
    printf("{\"op\":\"linear\",\"model\":\"%s\",\"shape\":\"%s\",\"n\":%d,\"k\":%d,\"type\":\"%s\","
           "\"rows\":%d,\"adapters\":\"%s\",\"weights\":%d,",
           p->model, p->name, p->n, p->k, hg_dtype_name(t->type), n_rows, slots[which],
           t->n_weights);
    print_times(s, bytes, 2 * n_rows * (n * k + per_row * (n + k)));
    return HG_STATUS_OK;
}

static enum hg_status linear_cases(struct bench *s, const struct shape *p, enum hg_dtype type,
                                   struct hg_error *err)
{
    struct set t = {.shape = p, .type = type};
    /* packing is the host's time: as many values of I4 as of I8, half the bytes */
    size_t bytes = (size_t)p->n * (size_t)p->k * ((hg_dtype_bits(type) + 7) / 8);
    size_t n = s->tiny ? 2 : (s->mib * 1024 * 1024 + bytes - 1) / bytes;
    enum hg_status status = HG_STATUS_OK;
    t.w = calloc(n, sizeof(struct hg_weight *));
    if (!t.w)
        return hg_fail(err, HG_STATUS_NO_MEMORY, "weight list");
    for (; t.n_weights < (int)n; t.n_weights++)
        HG_TRY_OUT(make_weight(s, p, type, &t.w[t.n_weights], err));
    for (const int *rows = s->brief  ? brief_rows
                           : s->one  ? one_row
                           : s->tiny ? tiny_rows
                                     : full_rows;
         *rows; rows++)
        for (int which = 0; which < (s->brief ? 2 : N_SLOTS); which++)
            HG_TRY_OUT(linear_case(s, &t, *rows, which));
out:
    for (int i = 0; i < t.n_weights; i++)
        s->ops->weight_free(s->b, t.w[i]);
    free(t.w);
    return status;
}

/* ---- attention ----------------------------------------------------------------------------------
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
        HG_TRY(s->ops->step_begin(s->b, &plan, NULL));
        HG_TRY(s->ops->linear(s->b, &a));
        HG_TRY(s->ops->sync(s->b));
        HG_TRY(s->ops->step_end(s->b, NULL));
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
    HG_TRY(s->ops->step_begin(s->b, &c->plan, NULL));
    for (a.layer = 0; a.layer < h->n_layers; a.layer++)
        HG_TRY(s->ops->attention(s->b, &a));
    return s->ops->step_end(s->b, NULL);
}

/* A decode step of n_seqs sequences, or a prompt of one (prefill): every key up to its own. */
static enum hg_status attention_case(struct bench *s, const struct heads *h, int n_seqs,
                                     bool prefill, enum hg_dtype type, struct hg_error *err)
{
    struct cache c = {.h = h};
    enum hg_status status = HG_STATUS_OK;
    HG_TRY_OUT(open_cache(s, &c, n_seqs, type, err));
    int n = prefill ? (s->tiny ? h->context : PROMPT) : n_seqs;
    for (int i = 0; i < n; i++) {
        s->seq[i] = prefill ? 0 : i;
        s->pos[i] = prefill ? i : h->context - 1;
    }
    c.plan.n_tokens = n;
    double keys = prefill ? n : (double)n_seqs * h->context;
    double pairs = prefill ? n * (n + 1.0) / 2 : keys;
    const struct hg_kv_desc read = {1, 1, h->n_kv_heads, h->head_dim, type};
    double bytes = keys * (double)hg_kv_desc_bytes(&read) / HG_BLOCK_TOKENS +
                   2.0 * n * h->n_heads * h->head_dim * sizeof(float);
    HG_TRY_OUT(measure(s, attend, &c, h->n_layers, bytes));
    printf("{\"op\":\"%s\",\"shape\":\"%s\",\"type\":\"%s\",\"context\":%d,\"rows\":%d,",
           prefill ? "prefill_attention" : "attention", h->name, hg_dtype_name(type),
           prefill ? n : h->context, n);
    print_times(s, bytes, 4.0 * pairs * h->n_heads * h->head_dim);
out:
    if (c.fill)
        s->ops->weight_free(s->b, c.fill);
    s->ops->free(s->b, c.inv_freq);
    s->ops->kv_free(s->b, c.kv);
    return status;
}

/* Dense attention: CLIP's heads, VQGAN's one. */
struct dense {
    const char *name;
    int n_batch, n_rows, n_heads, head_dim;
};
static const struct dense full_dense[] = {
    {"clip", 1, 577, 16, 64}, {"clip", 4, 577, 16, 64}, {"vqgan", 1, 1024, 1, 512}, {0}};
static const struct dense tiny_dense[] = {{"clip", 1, 17, 2, 32}, {0}};

static enum hg_status attend_dense(struct bench *s, void *ctx)
{
    const struct dense *d = ctx;
    int width = d->n_heads * d->head_dim;
    struct hg_attention_full_args a = {.n_batch = d->n_batch,
                                       .n_rows = d->n_rows,
                                       .n_heads = d->n_heads,
                                       .head_dim = d->head_dim,
                                       .scale = 0.1f,
                                       .q = s->x,
                                       .k = hg_act_at(s->b, s->x, width),
                                       .v = hg_act_at(s->b, s->x, 2 * width),
                                       .ld = 3 * width,
                                       .y = s->y};
    return s->ops->attention_full(s->b, &a);
}

static enum hg_status dense_case(struct bench *s, const struct dense *d)
{
    struct dense of = *d;
    double rows = (double)d->n_batch * d->n_rows, width = d->n_heads * d->head_dim;
    double bytes = 4 * rows * width * sizeof(float);
    HG_TRY(measure(s, attend_dense, &of, 1, bytes));
    printf(
        "{\"op\":\"dense_attention\",\"shape\":\"%s\",\"type\":\"f32\",\"context\":%d,\"rows\":%d,"
        "\"heads\":%d,\"head_dim\":%d,",
        d->name, d->n_rows, d->n_batch * d->n_rows, d->n_heads, d->head_dim);
    print_times(s, bytes, 4 * rows * d->n_rows * width);
    return HG_STATUS_OK;
}

/* ---- all ----------------------------------------------------------------------------------------
 */

static enum hg_status setup(struct bench *s, const char *backend, struct hg_error *err)
{
    enum { MAX_IN = 17920, MAX_OUT = 35840 };
    const struct hg_backend_limits limits = {.max_rows = MAX_ROWS,
                                             .max_in = MAX_IN,
                                             .max_out = MAX_OUT,
                                             .max_rank = 320 + 2 * EXPERTS,
                                             .max_context = 1024};
    size_t n = s->tiny ? 1 << 16 : (size_t)MAX_OUT * 5120;
    size_t act = s->tiny ? (size_t)MAX_ROWS * 256 : (size_t)MAX_ROWS * MAX_OUT;
    void *norm = NULL;
    uint64_t seed = 88172645463325252u;
    HG_TRY(hg_backend_open(backend, NULL, &s->b, err));
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
    if (s->one)
        return linear_cases(s, &full_shapes[0], HG_DTYPE_BF16, err);
    for (const struct shape *p = s->tiny ? tiny_shapes : full_shapes; p->name; p++)
        for (int t = 0; t < (s->brief ? p->n_types == N_TYPES : p->n_types); t++)
            HG_TRY(linear_cases(s, p, types[t], err));
    for (const struct heads *h = s->tiny ? tiny_heads : full_heads; h->name; h++)
        for (const int *n = s->tiny ? tiny_seqs : full_seqs; *n; n++)
            for (int t = 0; t < 2; t++)
                HG_TRY(attention_case(s, h, *n, false, t ? HG_DTYPE_I8 : HG_DTYPE_F16, err));
    for (const struct heads *h = s->tiny ? tiny_heads : full_heads; h->name; h++)
        HG_TRY(attention_case(s, h, 1, true, HG_DTYPE_F16, err));
    for (const struct dense *d = s->tiny ? tiny_dense : full_dense; d->name; d++)
        HG_TRY(dense_case(s, d));
    return HG_STATUS_OK;
}

enum hg_status kernel_cases(const char *backend, size_t mib, int rounds,
                            enum kernel_cases_size size, struct hg_error *err)
{
    struct bench *s = calloc(1, sizeof *s);
    if (!s)
        return hg_fail(err, HG_STATUS_NO_MEMORY, "bench");
    s->mib = mib;
    s->rounds = rounds < MAX_ROUNDS ? rounds : MAX_ROUNDS;
    s->tiny = size == KERNEL_CASES_TINY;
    s->one = size == KERNEL_CASES_ONE;
    s->brief = size == KERNEL_CASES_BRIEF;
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
