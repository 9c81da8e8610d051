#include "tests/kernels/attention_case.h"

#include <math.h>

enum { CHUNK = 128 };

/* The identity for n_in == n; for n_in == 1 it copies one number to all outputs. bias: [n] or NULL.
 */
static struct hg_weight *spread_weight(struct hg_backend *b, int n_in, int n, int head_dim,
                                       const float *bias)
{
    struct hg_error err = {0};
    struct hg_weight *w = NULL;
    float *values = calloc((size_t)n_in * (size_t)n, sizeof *values);
    assert_non_null(values);
    for (size_t i = 0; i < (size_t)n; i++)
        values[i * (size_t)n_in + (n_in == 1 ? 0 : i)] = 1;
    struct hg_weight_desc d = {.name = "identity", .n_in = n_in, .n_parts = 1};
    d.parts[0].w = (struct hg_host_tensor){.data = values, .type = HG_DTYPE_F32};
    d.parts[0].bias = (struct hg_host_tensor){.data = bias, .type = HG_DTYPE_F32};
    d.parts[0].n_out = n;
    d.store = HG_DTYPE_F32;
    d.pair = head_dim;
    HG_TEST_OK(b->ops->weight_create(b, &d, &w, &err), err);
    free(values);
    return w;
}

void kt_cache_open_zero(struct kt_cache *c, struct hg_backend *b, int n_heads, int n_kv_heads,
                        int head_dim, enum hg_dtype type, int n_layers, int n_blocks,
                        const float *inv_freq)
{
    struct hg_error err = {0};
    struct hg_kv_desc d = {n_layers, n_blocks, n_kv_heads, head_dim, type};
    *c = (struct kt_cache){.b = b,
                           .n_heads = n_heads,
                           .n_kv_heads = n_kv_heads,
                           .head_dim = head_dim,
                           .n_layers = n_layers,
                           .n_blocks = n_blocks};
    HG_TEST_OK(b->ops->kv_create(b, &d, &c->kv, &err), err);
    int dim = (n_heads + 2 * n_kv_heads) * head_dim;
    c->identity = spread_weight(b, dim, dim, head_dim, NULL);
    float *zeros = calloc((size_t)head_dim, sizeof *zeros);
    assert_non_null(zeros);
    c->inv_freq = kt_upload(b, inv_freq ? inv_freq : zeros, (size_t)head_dim / 2 * sizeof(float));
    free(zeros);
}

void kt_cache_open(struct kt_cache *c, struct hg_backend *b, int n_heads, int n_kv_heads,
                   int head_dim, enum hg_dtype type, int n_layers, int n_blocks,
                   const float *inv_freq)
{
    kt_cache_open_zero(c, b, n_heads, n_kv_heads, head_dim, type, n_layers, n_blocks, inv_freq);
    kt_cache_poison(c);
}

void kt_cache_close(struct kt_cache *c)
{
    c->b->ops->weight_free(c->b, c->identity);
    c->b->ops->free(c->b, c->inv_freq);
    c->b->ops->kv_free(c->b, c->kv);
}

/* At most CHUNK tokens of one sequence; x [n, k] goes through w. */
static void append_chunk(struct kt_cache *c, const struct hg_weight *w, int k, int layer,
                         const int32_t *table, int n_table, int pos0, int n, const float *x_host,
                         float *q)
{
    const struct hg_backend_ops *ops = c->b->ops;
    int32_t pos[CHUNK], zero[CHUNK] = {0}, none[CHUNK];
    for (int i = 0; i < n; i++) {
        pos[i] = pos0 + i;
        none[i] = -1;
    }
    struct hg_plan plan = {.n_tokens = n,
                           .n_seqs = 1,
                           .max_blocks = n_table,
                           .token = zero,
                           .pos = pos,
                           .seq = zero,
                           .slot = none,
                           .table = zero,
                           .block_table = table};
    struct hg_rope_kv rope = {&plan,      c->inv_freq,   c->kv,      layer,
                              c->n_heads, c->n_kv_heads, c->head_dim};
    int q_dim = c->n_heads * c->head_dim;
    void *x = kt_upload_act(c->b, x_host, (size_t)n * (size_t)k);
    void *y = kt_alloc_act(c->b, (size_t)n * (size_t)q_dim);
    struct hg_linear_args a = {.w = w,
                               .n_rows = n,
                               .x = x,
                               .ldx = k,
                               .slot = none,
                               .epilogue = HG_EPILOGUE_ROPE_KV,
                               .rope = &rope,
                               .y = y,
                               .ldy = q_dim};
    assert_int_equal(ops->step_begin(c->b, &plan, NULL), HG_STATUS_OK);
    assert_int_equal(ops->linear(c->b, &a), HG_STATUS_OK);
    assert_int_equal(ops->step_end(c->b, NULL), HG_STATUS_OK);
    if (q)
        kt_download_act(c->b, q, y, (size_t)n * (size_t)q_dim);
    assert_int_equal(ops->sync(c->b), HG_STATUS_OK);
    ops->free(c->b, x);
    ops->free(c->b, y);
}

void kt_cache_append(struct kt_cache *c, int layer, const int32_t *table, int n_table, int pos0,
                     int n, const float *qkv, float *q)
{
    int dim = (c->n_heads + 2 * c->n_kv_heads) * c->head_dim;
    for (int i = 0; i < n; i += CHUNK) {
        int m = n - i < CHUNK ? n - i : CHUNK;
        append_chunk(c, c->identity, dim, layer, table, n_table, pos0 + i, m,
                     qkv + (size_t)i * (size_t)dim,
                     q ? q + (size_t)i * (size_t)(c->n_heads * c->head_dim) : NULL);
    }
}

void kt_cache_poison(struct kt_cache *c)
{
    int n = c->n_blocks * HG_BLOCK_TOKENS;
    int32_t *table = calloc((size_t)c->n_blocks, sizeof *table);
    float nan_row[CHUNK];
    assert_non_null(table);
    for (int i = 0; i < c->n_blocks; i++)
        table[i] = i;
    for (int i = 0; i < CHUNK; i++)
        nan_row[i] = NAN;
    struct hg_weight *w =
        spread_weight(c->b, 1, (c->n_heads + 2 * c->n_kv_heads) * c->head_dim, c->head_dim, NULL);
    for (int l = 0; l < c->n_layers; l++)
        for (int i = 0; i < n; i += CHUNK)
            append_chunk(c, w, 1, l, table, c->n_blocks, i, n - i < CHUNK ? n - i : CHUNK, nan_row,
                         NULL);
    c->b->ops->weight_free(c->b, w);
    free(table);
}

void kt_cache_break(struct kt_cache *c, const int32_t *table, int n_table, int pos,
                    const float *qkv, int at, float broken)
{
    int dim = (c->n_heads + 2 * c->n_kv_heads) * c->head_dim;
    float *bias = calloc((size_t)dim, sizeof *bias);
    assert_non_null(bias);
    bias[at] = broken;
    struct hg_weight *w = spread_weight(c->b, dim, dim, c->head_dim, bias);
    append_chunk(c, w, dim, 0, table, n_table, pos, 1, qkv, NULL);
    c->b->ops->weight_free(c->b, w);
    free(bias);
}

/* Keys and values are numbers of the cache's type already: a linear that is right to 22 bits must
 * not move one across a rounding border of f16 or of an int8 row. */
static void round_row(const struct kt_attention_case *c, float *qkv)
{
    double *row = calloc((size_t)c->head_dim, sizeof *row);
    assert_non_null(row);
    for (int h = c->n_heads; h < c->n_heads + 2 * c->n_kv_heads; h++) {
        kt_cached(c->type, qkv + h * c->head_dim, c->head_dim, row);
        for (int i = 0; i < c->head_dim; i++)
            qkv[h * c->head_dim + i] = (float)row[i];
    }
    free(row);
}

void kt_attention_init(struct kt_attention *a, const struct kt_attention_case *c, uint64_t seed)
{
    memset(a, 0, sizeof *a);
    a->c = *c;
    size_t dim = (size_t)(c->n_heads + 2 * c->n_kv_heads) * (size_t)c->head_dim;
    int used = 0;
    for (int s = 0; s < c->n_seqs; s++) {
        int blocks = (c->len[s] + HG_BLOCK_TOKENS - 1) / HG_BLOCK_TOKENS;
        a->max_blocks = blocks + 2 > a->max_blocks ? blocks + 2 : a->max_blocks;
        used += blocks;
        a->qkv[s] = kt_random((size_t)c->len[s] * dim, kt_next(&seed), 1);
        for (int t = 0; t < c->len[s]; t++)
            round_row(c, a->qkv[s] + (size_t)t * dim);
        for (int q = c->len[s] - c->n_query[s]; q < c->len[s]; q++, a->n_queries++) {
            assert_true(a->n_queries < 512);
            a->query_seq[a->n_queries] = s;
            a->query_pos[a->n_queries] = q;
        }
    }
    a->n_blocks = used + 1; /* the last one stays poisoned */
    int32_t *shuffled = calloc((size_t)used, sizeof *shuffled);
    a->table = calloc((size_t)(c->n_seqs * a->max_blocks), sizeof *a->table);
    assert_non_null(shuffled);
    assert_non_null(a->table);
    for (int i = 0; i < used; i++) {
        int j = kt_below(&seed, i + 1);
        shuffled[i] = shuffled[j];
        shuffled[j] = i;
    }
    for (int s = 0, next = 0; s < c->n_seqs; s++)
        for (int i = 0; i < a->max_blocks; i++)
            a->table[s * a->max_blocks + i] =
                i * HG_BLOCK_TOKENS < c->len[s] ? shuffled[next++] : used;
    free(shuffled);
    snprintf(a->label, sizeof a->label,
             "H %d G %d P %d window %d kv %s seqs %d len %d/%d/%d ask %d", c->n_heads,
             c->n_kv_heads, c->head_dim, c->window, hg_dtype_name(c->type), c->n_seqs, c->len[0],
             c->len[1], c->len[2], a->n_queries);
}

void kt_attention_deinit(struct kt_attention *a)
{
    for (int s = 0; s < KT_MAX_SEQS; s++)
        free(a->qkv[s]);
    free(a->table);
}

void kt_attention_fill(const struct kt_attention *a, struct kt_cache *cache)
{
    for (int s = 0; s < a->c.n_seqs; s++)
        kt_cache_append(cache, 0, a->table + s * a->max_blocks, a->max_blocks, 0, a->c.len[s],
                        a->qkv[s], NULL);
}

void kt_attention_run(const struct kt_attention *a, struct kt_cache *cache, const int *query, int n,
                      float *y)
{
    const struct hg_backend_ops *ops = cache->b->ops;
    size_t q_dim = (size_t)(a->c.n_heads * a->c.head_dim);
    size_t dim = (size_t)(a->c.n_heads + 2 * a->c.n_kv_heads) * (size_t)a->c.head_dim;
    int32_t pos[512], seq[512], zero[512] = {0}, none[512];
    float *q = malloc((size_t)n * q_dim * sizeof *q);
    assert_non_null(q);
    for (int i = 0; i < n; i++) {
        int at = query ? query[i] : i;
        seq[i] = a->query_seq[at];
        pos[i] = a->query_pos[at];
        none[i] = -1;
        memcpy(q + (size_t)i * q_dim, a->qkv[seq[i]] + (size_t)pos[i] * dim, q_dim * sizeof *q);
    }
    struct hg_plan plan = {.n_tokens = n,
                           .n_seqs = a->c.n_seqs,
                           .max_blocks = a->max_blocks,
                           .token = zero,
                           .pos = pos,
                           .seq = seq,
                           .slot = none,
                           .table = zero,
                           .block_table = a->table};
    void *dq = kt_upload_act(cache->b, q, (size_t)n * q_dim);
    void *dy = kt_alloc_act(cache->b, (size_t)n * q_dim);
    struct hg_attention_args args = {.plan = &plan,
                                     .kv = cache->kv,
                                     .n_heads = a->c.n_heads,
                                     .n_kv_heads = a->c.n_kv_heads,
                                     .head_dim = a->c.head_dim,
                                     .window = a->c.window,
                                     .scale = 1 / sqrtf((float)a->c.head_dim),
                                     .q = dq,
                                     .y = dy};
    assert_int_equal(ops->step_begin(cache->b, &plan, NULL), HG_STATUS_OK);
    assert_int_equal(ops->attention(cache->b, &args), HG_STATUS_OK);
    assert_int_equal(ops->step_end(cache->b, NULL), HG_STATUS_OK);
    kt_download_act(cache->b, y, dy, (size_t)n * q_dim);
    ops->free(cache->b, dq);
    ops->free(cache->b, dy);
    free(q);
}

void kt_attention_once(const struct kt_attention *a, struct hg_backend *b, float *y)
{
    struct kt_cache cache;
    kt_cache_open(&cache, b, a->c.n_heads, a->c.n_kv_heads, a->c.head_dim, a->c.type, 1,
                  a->n_blocks, NULL);
    kt_attention_fill(a, &cache);
    kt_attention_run(a, &cache, NULL, a->n_queries, y);
    kt_cache_close(&cache);
}

void kt_cached(enum hg_dtype type, const float *x, int dim, double *y)
{
    if (type == HG_DTYPE_I8) {
        int *q = calloc((size_t)dim, sizeof *q);
        assert_non_null(q);
        double scale = kt_quantise(x, dim, q);
        for (int i = 0; i < dim; i++)
            y[i] = q[i] * scale;
        free(q);
        return;
    }
    for (int i = 0; i < dim; i++)
        y[i] = kt_round(type, x[i]);
}

static void formula_head(const struct kt_attention *a, int query, int h, float *y)
{
    const struct kt_attention_case *c = &a->c;
    int dim = c->head_dim, g = h / (c->n_heads / c->n_kv_heads), pos = a->query_pos[query];
    size_t pitch = (size_t)(c->n_heads + 2 * c->n_kv_heads) * (size_t)dim;
    const float *seq = a->qkv[a->query_seq[query]];
    const float *q = seq + (size_t)pos * pitch + (size_t)(h * dim);
    double weight_sum = 0, *sum = calloc((size_t)dim * 3, sizeof *sum);
    assert_non_null(sum);
    double *key = sum + dim, *value = key + dim;
    for (int j = 0; j <= pos; j++) {
        if (c->window > 0 && pos - j >= c->window)
            continue;
        const float *k = seq + (size_t)j * pitch + (size_t)((c->n_heads + g) * dim);
        const float *v = k + c->n_kv_heads * dim;
        double dot = 0;
        kt_cached(c->type, k, dim, key);
        kt_cached(c->type, v, dim, value);
        for (int i = 0; i < dim; i++)
            dot += q[i] * key[i];
        double weight = exp(dot / sqrt(dim)); /* small scores: no max needed */
        weight_sum += weight;
        for (int i = 0; i < dim; i++)
            sum[i] += weight * value[i];
    }
    for (int i = 0; i < dim; i++)
        y[i] = (float)(sum[i] / weight_sum);
    free(sum);
}

void kt_attention_formula(const struct kt_attention *a, float *y)
{
    for (int t = 0; t < a->n_queries; t++)
        for (int h = 0; h < a->c.n_heads; h++)
            formula_head(a, t, h, y + (t * a->c.n_heads + h) * a->c.head_dim);
}
