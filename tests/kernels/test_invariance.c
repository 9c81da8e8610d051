/* THE ORDER RULE of kernels/backend.h: a row's bits depend neither on the rows beside it nor on the
 * number of threads. Rows are compared alone, in batches of 2, 3, 7, 16 and 64 with mixed plug-ins,
 * generated ones beside those of prompts, and between the 1- and 2-thread backends of one path. */
#include "tests/kernels/attention_case.h"
#include "tests/kernels/head_case.h"
#include "tests/kernels/linear_case.h"

enum { BATCH = 64 };

/* Batch sizes to compare with all BATCH rows: some, or with $HG_TEST_FULL more. */
static int n_sizes(void)
{
    return hg_test_full() ? 28 : 5;
}

static int size_at(int i)
{
    static const int sizes[] = {1, 2, 3, 7, 16};
    static const int more[] = {23, 24, 25, 31, 32, 33, 40, 48, 56, 62, 63};
    return !hg_test_full() ? sizes[i] : i < 17 ? i + 1 : more[i - 17];
}

/* The target of the same path with one thread, or itself. */
static int one_thread_twin(const struct kt_targets *ts, int i)
{
    size_t n = strcspn(ts->at[i].name, " ");
    for (int j = 0; j < i; j++)
        if (strncmp(ts->at[j].name, ts->at[i].name, n + 1) == 0)
            return j;
    return i;
}

/* n rows, ascending, chosen at random from BATCH; the first call of a size starts at 0. */
static void choose(uint64_t *seed, int n, int *rows)
{
    int left = BATCH, taken = 0;
    for (int i = 0; i < BATCH && taken < n; i++, left--)
        if (kt_below(seed, left) < n - taken)
            rows[taken++] = i;
}

static void check_linear(const struct kt_targets *ts, const struct kt_linear_case *c, uint64_t seed)
{
    struct kt_linear l;
    kt_linear_init(&l, c, seed);
    size_t dim = (size_t)l.y_dim, n = BATCH * dim;
    float *all[8] = {0}, *some = malloc(n * sizeof *some);
    for (int t = 0; t < ts->n; t++) {
        struct hg_backend *b = ts->at[t].b;
        all[t] = malloc(n * sizeof *all[t]);
        kt_linear_run(&l, b, NULL, BATCH, all[t]);
        kt_identical(l.label, ts->at[t].name, all[t], all[one_thread_twin(ts, t)], n);
        for (int s = 0; s < n_sizes(); s++)
            for (int repeat = 0; repeat < (size_at(s) == 1 ? 10 : 2); repeat++) {
                int rows[BATCH];
                choose(&seed, size_at(s), rows);
                kt_linear_run(&l, b, rows, size_at(s), some);
                for (int i = 0; i < size_at(s); i++)
                    kt_identical(l.label, ts->at[t].name, some + (size_t)i * dim,
                                 all[t] + (size_t)rows[i] * dim, dim);
            }
    }
    for (int t = 0; t < ts->n; t++)
        free(all[t]);
    free(some);
    kt_linear_deinit(&l);
}

static void linear_rows_do_not_depend_on_the_batch(void **state)
{
    for (size_t t = 0; t < KT_STORES; t++) {
        struct kt_linear_case c = {.n_rows = BATCH,
                                   .n_in = 131,
                                   .n_parts = 1,
                                   .n_out = {37},
                                   .rank = {{16, 64, 0, 12}},
                                   .n_experts = 4,
                                   .host = HG_DTYPE_BF16,
                                   .store = kt_stores[t],
                                   .norm = true};
        check_linear(*state, &c, t);
        c.n_prompt = 29;
        check_linear(*state, &c, t);
        c.n_in = 1040; /* beyond any block of K */
        c.n_out[0] = 12;
        check_linear(*state, &c, 10 + t);
        c.n_prompt = 0;
        c.n_in = 64;
        c.n_out[0] = 300; /* beyond any tile of N */
        c.norm = false;
        c.epilogue = HG_EPILOGUE_SWIGLU;
        check_linear(*state, &c, 20 + t);
    }
}

static void stacked_parts_do_not_depend_on_the_batch(void **state)
{
    for (size_t t = 0; t < KT_STORES; t++) {
        struct kt_linear_case c = {.n_rows = BATCH,
                                   .n_in = 72,
                                   .n_parts = 3,
                                   .n_out = {32, 8, 8},
                                   .rank = {{16, 8, 0, 0}, {16, 4, 8, 0}, {0, 4, 8, 12}},
                                   .n_experts = 4,
                                   .host = HG_DTYPE_F32,
                                   .store = kt_stores[t],
                                   .bias = true,
                                   .epilogue = HG_EPILOGUE_RESIDUAL};
        check_linear(*state, &c, 30 + t);
    }
}

/* A prompt of 200 rows goes through other tiles than its last chunk or one of its rows. */
static void rows_of_a_long_prompt_do_not_depend_on_its_length(void **state)
{
    static const int lengths[] = {1, 5, 12, 30, 64, 70, 130};
    enum { ROWS = 200, DIM = 150 };
    struct kt_targets *ts = *state;
    for (size_t k = 0; k < 2 * KT_STORES; k++) {
        struct kt_linear l;
        struct kt_linear_case c = {.n_rows = ROWS,
                                   .n_prompt = k < KT_STORES ? 0 : ROWS,
                                   .n_in = 330,
                                   .n_parts = 2,
                                   .n_out = {DIM, DIM},
                                   .rank = {{16, 64, 0, 12}, {300, 0, 8, 12}},
                                   .n_experts = 4,
                                   .host = HG_DTYPE_BF16,
                                   .store = kt_stores[k % KT_STORES],
                                   .bias = true,
                                   .norm = true,
                                   .epilogue = HG_EPILOGUE_SWIGLU};
        kt_linear_init(&l, &c, 40 + k);
        float *all = malloc(sizeof(float[ROWS * DIM])), *some = malloc(sizeof(float[ROWS * DIM]));
        for (int t = 0; t < ts->n; t++) {
            kt_linear_run(&l, ts->at[t].b, NULL, ROWS, all);
            for (size_t s = 0; s < sizeof lengths / sizeof *lengths; s++) {
                int rows[ROWS], first = ROWS - 1 - lengths[s];
                for (int i = 0; i < lengths[s]; i++)
                    rows[i] = first + i;
                kt_linear_run(&l, ts->at[t].b, rows, lengths[s], some);
                kt_identical(l.label, ts->at[t].name, some, all + first * DIM,
                             (size_t)lengths[s] * DIM);
            }
        }
        free(all);
        free(some);
        kt_linear_deinit(&l);
    }
}

static void check_attention(const struct kt_targets *ts, const struct kt_attention_case *c,
                            uint64_t seed)
{
    struct kt_attention a;
    kt_attention_init(&a, c, seed);
    assert_int_equal(a.n_queries, BATCH);
    size_t dim = (size_t)(c->n_heads * c->head_dim), n = BATCH * dim;
    float *all[8] = {0}, *some = malloc(n * sizeof *some);
    for (int t = 0; t < ts->n; t++) {
        struct kt_cache cache;
        kt_cache_open(&cache, ts->at[t].b, c->n_heads, c->n_kv_heads, c->head_dim, c->type, 1,
                      a.n_blocks, NULL);
        kt_attention_fill(&a, &cache);
        all[t] = malloc(n * sizeof *all[t]);
        kt_attention_run(&a, &cache, NULL, BATCH, all[t]);
        kt_identical(a.label, ts->at[t].name, all[t], all[one_thread_twin(ts, t)], n);
        for (int s = 0; s < n_sizes(); s++)
            for (int repeat = 0; repeat < (size_at(s) == 1 ? 10 : 3); repeat++) {
                int query[BATCH];
                choose(&seed, size_at(s), query);
                kt_attention_run(&a, &cache, query, size_at(s), some);
                for (int i = 0; i < size_at(s); i++)
                    kt_identical(a.label, ts->at[t].name, some + (size_t)i * dim,
                                 all[t] + (size_t)query[i] * dim, dim);
            }
        kt_cache_close(&cache);
    }
    for (int t = 0; t < ts->n; t++)
        free(all[t]);
    free(some);
    kt_attention_deinit(&a);
}

/* A token sees the same keys in the same order as a decode step, as the end of a chunk or inside a
 * whole prompt. */
static void attention_rows_do_not_depend_on_the_batch(void **state)
{
    static const enum hg_dtype types[] = {HG_DTYPE_F32, HG_DTYPE_F16, HG_DTYPE_BF16, HG_DTYPE_I8};
    for (size_t t = 0; t < 4; t++) {
        struct kt_attention_case c = {.n_heads = 6,
                                      .n_kv_heads = 2,
                                      .head_dim = 20,
                                      .window = t == 1 ? 33 : 0,
                                      .type = types[t],
                                      .n_seqs = 4,
                                      .len = {30, 90, 17, 1},
                                      .n_query = {30, 32, 1, 1}};
        check_attention(*state, &c, 50 + t);
    }
}

/* Alone, a long context may be spread over a device; in a batch it may not. */
static void attention_rows_do_not_depend_on_how_contexts_are_cut(void **state)
{
    static const enum hg_dtype types[] = {HG_DTYPE_F32, HG_DTYPE_F16, HG_DTYPE_BF16, HG_DTYPE_I8};
    for (size_t t = 0; t < 4; t++) {
        struct kt_attention_case c = {.n_heads = 6,
                                      .n_kv_heads = 2,
                                      .head_dim = 40,
                                      .window = t == 2 ? 400 : 0,
                                      .type = types[t],
                                      .n_seqs = 4,
                                      .len = {800, 300, 17, 1},
                                      .n_query = {30, 32, 1, 1}};
        check_attention(*state, &c, 90 + t);
    }
}

static void head_rows_do_not_depend_on_the_batch(void **state)
{
    struct kt_targets *ts = *state;
    for (size_t k = 0; k < KT_STORES; k++) {
        struct kt_head h;
        kt_head_init(&h, 20, 67, BATCH, kt_stores[k], 60 + k);
        size_t ld = (size_t)h.ld, n = BATCH * ld;
        float *all[8] = {0}, *some = malloc(n * sizeof *some);
        uint64_t seed = 70 + k;
        for (int t = 0; t < ts->n; t++) {
            all[t] = malloc(n * sizeof *all[t]);
            kt_head_run(&h, ts->at[t].b, NULL, BATCH, all[t]);
            kt_identical("head", ts->at[t].name, all[t], all[one_thread_twin(ts, t)], n);
            for (int s = 0; s < n_sizes(); s++) {
                int pick[BATCH];
                choose(&seed, size_at(s), pick);
                kt_head_run(&h, ts->at[t].b, pick, size_at(s), some);
                for (int i = 0; i < size_at(s); i++)
                    kt_identical("head", ts->at[t].name, some + (size_t)i * ld,
                                 all[t] + (size_t)pick[i] * ld, ld);
            }
        }
        for (int t = 0; t < ts->n; t++)
            free(all[t]);
        free(some);
        kt_head_deinit(&h);
    }
}

/* An id's logit is the same whatever range it is asked in: constrained decoding must not move it.
 */
static void logits_do_not_depend_on_the_range_they_are_asked_in(void **state)
{
    struct kt_targets *ts = *state;
    for (size_t k = 0; k < KT_STORES; k++) {
        struct kt_head h;
        kt_head_init(&h, 2, 67, 2, kt_stores[k], 80 + k);
        for (int i = 0; i < 2; i++) {
            h.row[i] = 1;
            h.set[i] = 2;
            h.lo[i] = i ? 13 : 0;
            h.hi[i] = i ? 88 : 90;
        }
        for (int t = 0; t < ts->n; t++) {
            float y[2 * 93];
            kt_head_run(&h, ts->at[t].b, NULL, 2, y);
            kt_identical("head range", ts->at[t].name, y + 93, y + 13, 75);
        }
        kt_head_deinit(&h);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(linear_rows_do_not_depend_on_the_batch),
        cmocka_unit_test(stacked_parts_do_not_depend_on_the_batch),
        cmocka_unit_test(rows_of_a_long_prompt_do_not_depend_on_its_length),
        cmocka_unit_test(attention_rows_do_not_depend_on_the_batch),
        cmocka_unit_test(attention_rows_do_not_depend_on_how_contexts_are_cut),
        cmocka_unit_test(head_rows_do_not_depend_on_the_batch),
        cmocka_unit_test(logits_do_not_depend_on_the_range_they_are_asked_in),
    };
    return cmocka_run_group_tests(tests, kt_setup, kt_teardown);
}
