/* Causal, ragged, paged attention: formula, windows, head mapping, faulty neighbours. */
#include <math.h>

#include "tests/kernels/attention_case.h"

/* fp32 dots of P <= 128 products, an fp32 exp and sums over <= 300 keys: each below 2e-6 of the
 * peak; 2e-5 leaves room for polynomial exps. ref is double inside and rounds once: 2e-7. */
static const double bound = 2e-5, ref_bound = 2e-7;

static void compare(struct kt_targets *ts, const struct kt_attention_case *c, uint64_t seed,
                    bool formula)
{
    struct kt_attention a;
    kt_attention_init(&a, c, seed);
    size_t n = (size_t)(a.n_queries * c->n_heads * c->head_dim);
    float *want = malloc(n * sizeof *want), *ref = malloc(n * sizeof *ref);
    float *got = malloc(n * sizeof *got);
    kt_attention_once(&a, ts->at[0].b, ref);
    if (formula) {
        kt_attention_formula(&a, want);
        kt_compare(a.label, "ref against the formula", ref, want, n, ref_bound);
    }
    for (int i = 1; i < ts->n; i++) {
        kt_attention_once(&a, ts->at[i].b, got);
        kt_compare(a.label, ts->at[i].name, got, ref, n, bound);
    }
    free(want);
    free(ref);
    free(got);
    kt_attention_deinit(&a);
}

static void check(struct kt_targets *ts, const struct kt_attention_case *c, uint64_t seed)
{
    compare(ts, c, seed, true);
}

static const enum hg_dtype types[] = {HG_DTYPE_F32, HG_DTYPE_F16, HG_DTYPE_BF16, HG_DTYPE_I8};
enum { N_TYPES = sizeof types / sizeof *types };

static void ragged_prefill_and_decode_match_the_formula(void **state)
{
    static const int heads[][3] = {{2, 2, 96}, {3, 1, 128}, {6, 2, 24},
                                   {1, 1, 2},  {8, 2, 34},  {2, 1, 64}};
    for (size_t h = 0; h < sizeof heads / sizeof *heads; h++)
        for (size_t t = 0; t < N_TYPES; t++) {
            /* whole prompts, chunk ends and single decode tokens; lengths around the block size */
            struct kt_attention_case c = {.n_heads = heads[h][0],
                                          .n_kv_heads = heads[h][1],
                                          .head_dim = heads[h][2],
                                          .type = types[t],
                                          .n_seqs = 6,
                                          .len = {17, 1, 70, 16, 33, 15},
                                          .n_query = {17, 1, 5, 1, 20, 1}};
            check(*state, &c, h * N_TYPES + t);
        }
}

static void window_hides_older_keys(void **state)
{
    static const int windows[] = {1, 2, 15, 16, 17, 40, 200};
    for (size_t w = 0; w < 7; w++)
        for (size_t t = w % 3; t < N_TYPES; t += t < 3 ? 3 - t : 1) {
            struct kt_attention_case c = {.n_heads = 4,
                                          .n_kv_heads = 2,
                                          .head_dim = 32,
                                          .window = windows[w],
                                          .type = types[t],
                                          .n_seqs = 2,
                                          .len = {90, 40},
                                          .n_query = {60, 40}};
            check(*state, &c, 30 + w);
        }
}

static void a_chunk_of_a_long_prompt_matches_the_formula(void **state)
{
    struct kt_attention_case c = {.n_heads = 3,
                                  .n_kv_heads = 3,
                                  .head_dim = 16,
                                  .type = HG_DTYPE_F16,
                                  .n_seqs = 1,
                                  .len = {300},
                                  .n_query = {64}};
    check(*state, &c, 50);
}

/* Beyond any tile of queries and any chunk of keys that a backend may cut a context into. */
static void contexts_of_many_tiles_match_the_formula(void **state)
{
    static const struct {
        int heads, kv_heads, dim, window, n_query;
        enum hg_dtype type;
    } cases[] = {
        {4, 1, 64, 0, 20, HG_DTYPE_F16},   {5, 1, 40, 300, 50, HG_DTYPE_BF16},
        {2, 2, 96, 0, 70, HG_DTYPE_F16},   {1, 1, 200, 0, 3, HG_DTYPE_BF16},
        {20, 1, 36, 0, 30, HG_DTYPE_F32},  {2, 1, 128, 100, 40, HG_DTYPE_F32},
        {1, 1, 256, 0, 20, HG_DTYPE_F32},  {3, 1, 80, 0, 1, HG_DTYPE_F16},
        {4, 1, 64, 0, 20, HG_DTYPE_I8},    {2, 2, 96, 0, 70, HG_DTYPE_I8},
        {2, 1, 128, 100, 40, HG_DTYPE_I8}, {1, 1, 256, 0, 20, HG_DTYPE_I8},
        {5, 1, 40, 300, 50, HG_DTYPE_I8},  {1, 1, 200, 0, 3, HG_DTYPE_I8},
        {20, 1, 32, 0, 30, HG_DTYPE_I8},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct kt_attention_case c = {.n_heads = cases[i].heads,
                                      .n_kv_heads = cases[i].kv_heads,
                                      .head_dim = cases[i].dim,
                                      .window = cases[i].window,
                                      .type = cases[i].type,
                                      .n_seqs = 3,
                                      .len = {700, 40, 290},
                                      .n_query = {cases[i].n_query, 40, 1}};
        check(*state, &c, 70 + i);
    }
}

/* All keys are zero, so the softmax is uniform; dimension i of V marks key mark[i] with the number
 * of visible keys: the output is 1 where that key is visible and 0 where it is not. */
static void look_through_window(struct hg_backend *b, int window, int pos, const int mark[4],
                                float y[4])
{
    int n = pos + 1, n_blocks = n / HG_BLOCK_TOKENS + 1;
    float visible = (float)(window && window < n ? window : n);
    struct kt_cache cache;
    kt_cache_open(&cache, b, 1, 1, 4, HG_DTYPE_F32, 1, n_blocks, NULL);
    int32_t *table = calloc((size_t)n_blocks, sizeof *table);
    float *x = calloc((size_t)n * 12, sizeof *x);
    assert_non_null(table);
    assert_non_null(x);
    for (int i = 0; i < n_blocks; i++)
        table[i] = n_blocks - 1 - i;
    for (int i = 0; i < 4; i++)
        if (mark[i] >= 0)
            x[mark[i] * 12 + 8 + i] = visible;
    kt_cache_append(&cache, 0, table, n_blocks, 0, n, x, NULL);
    int32_t p = pos, zero = 0, none = -1;
    struct hg_plan plan = {.n_tokens = 1,
                           .n_seqs = 1,
                           .max_blocks = n_blocks,
                           .token = &zero,
                           .pos = &p,
                           .seq = &zero,
                           .slot = &none,
                           .table = &zero,
                           .block_table = table};
    void *q = kt_alloc_act(b, 4), *dy = kt_alloc_act(b, 4);
    struct hg_attention_args a = {.plan = &plan,
                                  .kv = cache.kv,
                                  .n_heads = 1,
                                  .n_kv_heads = 1,
                                  .head_dim = 4,
                                  .window = window,
                                  .scale = 0.5f,
                                  .q = q,
                                  .y = dy};
    assert_int_equal(b->ops->step_begin(b, &plan, NULL), HG_STATUS_OK);
    assert_int_equal(b->ops->attention(b, &a), HG_STATUS_OK);
    assert_int_equal(b->ops->step_end(b, NULL), HG_STATUS_OK);
    kt_download_act(b, y, dy, 4);
    b->ops->free(b, q);
    b->ops->free(b, dy);
    free(table);
    free(x);
    kt_cache_close(&cache);
}

/* reference.md 5.5 and 19.5: the M3 rule j >= i - 2047 is a window of 2048 keys, itself included.
 */
static void window_of_2048_keys_at_positions_2047_2048_and_5000(void **state)
{
    struct kt_targets *ts = *state;
    static const struct {
        int window, pos, mark[4];
        float want[4];
    } cases[] = {
        {2048, 5000, {2952, 2953, 5000, 0}, {0, 1, 1, 0}},
        {2048, 2047, {0, 1, 2047, 1000}, {1, 1, 1, 1}},
        {2048, 2048, {0, 1, 2048, 2047}, {0, 1, 1, 1}},
        {0, 5000, {0, 2952, 5000, 4999}, {1, 1, 1, 1}},
    };
    for (int i = 0; i < ts->n; i++)
        for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
            char label[64];
            float y[4];
            snprintf(label, sizeof label, "window %d position %d", cases[k].window, cases[k].pos);
            look_through_window(ts->at[i].b, cases[k].window, cases[k].pos, cases[k].mark, y);
            /* the softmax denominator, a count up to 5001, is exact or off by fp32 rounding */
            kt_compare(label, ts->at[i].name, y, cases[k].want, 4, 1e-6);
        }
}

/* V of kv head g is g + 1 everywhere: query head h must show h / (H / G) + 1. */
static void query_head_reads_the_kv_head_of_its_group(void **state)
{
    struct kt_targets *ts = *state;
    struct kt_attention_case c = {.n_heads = 10,
                                  .n_kv_heads = 2,
                                  .head_dim = 8,
                                  .type = HG_DTYPE_F32,
                                  .n_seqs = 1,
                                  .len = {21},
                                  .n_query = {1}};
    struct kt_attention a;
    kt_attention_init(&a, &c, 60);
    for (int t = 0; t < 21; t++)
        for (int i = 0; i < 16; i++)
            a.qkv[0][t * 112 + 96 + i] = (float)(i / 8 + 1);
    for (int i = 0; i < ts->n; i++) {
        float y[80], want[80];
        for (int j = 0; j < 80; j++)
            want[j] = (float)(j / 8 / 5 + 1);
        kt_attention_once(&a, ts->at[i].b, y);
        kt_compare("kv head per query head", ts->at[i].name, y, want, 80, 1e-6);
    }
    kt_attention_deinit(&a);
}

/* Scores of +-1e4 and equal scores: the softmax must subtract the maximum. */
static void large_scores_do_not_overflow(void **state)
{
    struct kt_targets *ts = *state;
    struct kt_attention_case c = {.n_heads = 2,
                                  .n_kv_heads = 1,
                                  .head_dim = 16,
                                  .type = HG_DTYPE_F32,
                                  .n_seqs = 1,
                                  .len = {40},
                                  .n_query = {8}};
    struct kt_attention a;
    kt_attention_init(&a, &c, 61);
    for (int i = 0; i < 40 * 64; i++)
        if (i % 64 < 48)
            a.qkv[0][i] = rintf(a.qkv[0][i] * 64); /* integers: fp32 dots are exact */
    float ref[8 * 32], got[8 * 32];
    for (int i = 0; i < ts->n; i++) {
        kt_attention_once(&a, ts->at[i].b, i ? got : ref);
        for (int j = 0; j < 8 * 32; j++)
            assert_true(isfinite(i ? got[j] : ref[j]));
        if (i) /* fp32 scores of 1e4 are known to 2^-11: weights move by that share */
            kt_compare("scores of 1e4", ts->at[i].name, got, ref, 8 * 32, 1e-3);
    }
    kt_attention_deinit(&a);
}

/* A NaN key of one sequence (or of a position not yet visible) never reaches another row. Unused
 * slots are NaN in every case of this file already: kt_cache_open poisons all blocks. */
static void check_nan(struct kt_targets *ts, enum hg_dtype type, int dim)
{
    struct kt_attention_case c = {.n_heads = 4,
                                  .n_kv_heads = 2,
                                  .head_dim = dim,
                                  .type = type,
                                  .n_seqs = 3,
                                  .len = {37, 30, 18},
                                  .n_query = {5, 20, 18}};
    struct kt_attention a;
    kt_attention_init(&a, &c, 62);
    size_t n = (size_t)dim;
    float *clean = malloc(43 * 4 * n * sizeof *clean), *dirty = malloc(43 * 4 * n * sizeof *dirty);
    for (int i = 0; i < ts->n; i++) {
        kt_attention_once(&a, ts->at[i].b, clean);
        float *key = &a.qkv[1][20 * 8 * dim + 4 * dim + 3], keep = *key; /* seq 1, position 20 */
        *key = NAN;
        kt_attention_once(&a, ts->at[i].b, dirty);
        *key = keep;
        for (int t = 0; t < 43; t++)
            for (int h = 0; h < 4; h++) {
                bool hit = a.query_seq[t] == 1 && a.query_pos[t] >= 20;
                const float *row = dirty + (t * 4 + h) * dim;
                for (int j = 0; hit && j < dim; j++)
                    assert_true(isnan(row[j]));
                if (!hit)
                    kt_identical("row without NaN", ts->at[i].name, row, clean + (t * 4 + h) * dim,
                                 n);
            }
    }
    free(clean);
    free(dirty);
    kt_attention_deinit(&a);
}

static void nan_in_one_sequence_leaves_the_others_alone(void **state)
{
    for (size_t t = 0; t < N_TYPES; t++) {
        check_nan(*state, types[t], 20);
        check_nan(*state, types[t], 40);
    }
}

/* Head dims, groups of query heads, windows and ragged lengths against each other: every dim with
 * every cache type, and steps of 1..64 queries. */
static void sweep_of_dims_groups_and_windows_matches_ref(void **state)
{
    static const int dims[] = {2,  4,  6,  8,  10, 16, 20, 24,  30,  32,  34,  36,  40,  48,
                               62, 64, 66, 72, 80, 88, 96, 100, 112, 126, 128, 160, 200, 256};
    static const int groups[] = {1, 2, 3, 4, 5, 7, 8, 9, 16, 20};
    static const int windows[] = {0, 0, 0, 1, 2, 15, 16, 17, 33, 63, 64, 65, 100, 500};
    enum { N_DIMS = sizeof dims / sizeof *dims, ROUNDS = 2 };
    uint64_t seed = 3000;
    for (size_t i = 0; i < (size_t)N_DIMS * N_TYPES * ROUNDS; i++) {
        uint64_t s = ++seed;
        struct kt_attention_case c = {.head_dim = dims[i / (N_TYPES * ROUNDS)],
                                      .window = windows[kt_below(&s, 14)],
                                      .type = types[i % N_TYPES],
                                      .n_seqs = 1 + kt_below(&s, KT_MAX_SEQS)};
        int group = groups[kt_below(&s, 10)],
            most = 640 / c.head_dim; /* the filling costs (H P)^2 */
        c.n_kv_heads = 1 + kt_below(&s, 2);
        if (group * c.n_kv_heads > most) {
            c.n_kv_heads = 1;
            group = group > most ? most : group;
        }
        c.n_heads = group * c.n_kv_heads;
        for (int q = 0; q < c.n_seqs; q++) {
            c.len[q] = 1 + kt_below(&s, kt_below(&s, 3) ? 70 : 150);
            c.n_query[q] = 1 + kt_below(&s, kt_below(&s, 2) ? 1 : 64);
            c.n_query[q] = c.n_query[q] < c.len[q] ? c.n_query[q] : c.len[q];
        }
        if (kt_sweep(i, 40))
            compare(*state, &c, seed, false);
    }
}

/* One element of a cached key or value is broken: all of an int8 row is, as its scale takes the
 * NaN; rows that do not see it, and those of the other kv head, keep their bits. */
static void check_broken(struct kt_targets *ts, enum hg_dtype type, int dim, bool value,
                         float broken)
{
    enum { AT = 20, COLUMN = 3 };
    struct kt_attention_case c = {.n_heads = 4,
                                  .n_kv_heads = 2,
                                  .head_dim = dim,
                                  .type = type,
                                  .n_seqs = 2,
                                  .len = {30, 18},
                                  .n_query = {20, 18}};
    struct kt_attention a;
    kt_attention_init(&a, &c, 63);
    size_t n = (size_t)(a.n_queries * 4 * dim);
    float *clean = malloc(n * sizeof *clean), *dirty = malloc(n * sizeof *dirty);
    for (int i = 0; i < ts->n; i++) {
        struct kt_cache cache;
        kt_cache_open(&cache, ts->at[i].b, 4, 2, dim, type, 1, a.n_blocks, NULL);
        kt_attention_fill(&a, &cache);
        kt_attention_run(&a, &cache, NULL, a.n_queries, clean);
        kt_cache_break(&cache, a.table, a.max_blocks, AT, a.qkv[0] + AT * 8 * dim,
                       (value ? 6 : 4) * dim + COLUMN, broken);
        kt_attention_run(&a, &cache, NULL, a.n_queries, dirty);
        for (int r = 0; r < a.n_queries * 4; r++) {
            bool hit = a.query_seq[r / 4] == 0 && a.query_pos[r / 4] >= AT && r % 4 < 2;
            if (!hit)
                kt_identical("row that sees nothing broken", ts->at[i].name, dirty + r * dim,
                             clean + r * dim, (size_t)dim);
            for (int j = 0; hit && j < dim; j++)
                if ((type == HG_DTYPE_I8 || !value || j == COLUMN) && isfinite(dirty[r * dim + j]))
                    fail_msg("%s: row %d column %d is %g", ts->at[i].name, r, j,
                             (double)dirty[r * dim + j]);
        }
        kt_cache_close(&cache);
    }
    free(clean);
    free(dirty);
    kt_attention_deinit(&a);
}

static void a_broken_key_or_value_stays_visible(void **state)
{
    static const int dims[] = {20, 40, 96};
    for (size_t t = 0; t < N_TYPES; t++)
        for (size_t i = 0; i < 3; i++) {
            check_broken(*state, types[t], dims[i], true, NAN);
            check_broken(*state, types[t], dims[i], true, INFINITY);
            check_broken(*state, types[t], dims[i], false, NAN);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ragged_prefill_and_decode_match_the_formula),
        cmocka_unit_test(window_hides_older_keys),
        cmocka_unit_test(a_chunk_of_a_long_prompt_matches_the_formula),
        cmocka_unit_test(contexts_of_many_tiles_match_the_formula),
        cmocka_unit_test(window_of_2048_keys_at_positions_2047_2048_and_5000),
        cmocka_unit_test(query_head_reads_the_kv_head_of_its_group),
        cmocka_unit_test(large_scores_do_not_overflow),
        cmocka_unit_test(nan_in_one_sequence_leaves_the_others_alone),
        cmocka_unit_test(sweep_of_dims_groups_and_windows_matches_ref),
        cmocka_unit_test(a_broken_key_or_value_stays_visible),
    };
    return cmocka_run_group_tests(tests, kt_setup, kt_teardown);
}
