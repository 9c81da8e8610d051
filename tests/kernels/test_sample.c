/* The sampler against a plain re-telling of reference.md section 11, ties, faults, distribution. */
#include <math.h>

#include "common/rng.h"
#include "kernels/ref/sample.h"
#include "tests/kernels/parity.h"

enum { V = 40 };

static struct hg_sample_params greedy(void)
{
    return (struct hg_sample_params){.lo = 100, .hi = 100 + V, .top_p = 1, .repetition_penalty = 1};
}

/* One row through the op of a backend; the logits lie in a wider matrix. */
static void sample_rows(struct hg_backend *b, const float *logits, int n, int64_t ld,
                        const struct hg_sample_params *p, struct hg_sample_result *r)
{
    int32_t zero[70] = {0};
    struct hg_plan plan = {.n_tokens = 1,
                           .n_seqs = 1,
                           .n_out = n,
                           .max_blocks = 1,
                           .token = zero,
                           .pos = zero,
                           .seq = zero,
                           .slot = zero,
                           .table = zero,
                           .block_table = zero,
                           .out_row = zero,
                           .out_table = zero,
                           .sample = p,
                           .result = r};
    int64_t step = 0;
    void *dev = kt_upload(b, logits, (size_t)n * (size_t)ld * sizeof *logits);
    struct hg_sample_args a = {&plan, dev, ld};
    memset(r, 0xff, (size_t)n * sizeof *r);
    assert_int_equal(b->ops->step_begin(b, &plan, NULL), HG_STATUS_OK);
    assert_int_equal(b->ops->sample(b, &a), HG_STATUS_OK);
    assert_int_equal(b->ops->step_end(b, &step), HG_STATUS_OK);
    assert_int_equal(b->ops->step_wait(b, step), HG_STATUS_OK);
    for (int i = 0; i < n; i++)
        kt_note(b, (float[]){(float)r[i].token, r[i].logprob}, 2);
    b->ops->free(b, dev);
}

static void greedy_takes_the_lowest_id_among_equal_logits(void **state)
{
    struct kt_targets *ts = *state;
    static const int32_t winners[][2] = {{7, 8}, {0, V - 1}, {15, 16}, {3, 35}};
    for (int i = 0; i < ts->n; i++)
        for (size_t k = 0; k < 4; k++) {
            float x[V] = {0};
            struct hg_sample_params p = greedy();
            struct hg_sample_result r;
            x[winners[k][0]] = x[winners[k][1]] = 2.5f;
            sample_rows(ts->at[i].b, x, 1, V, &p, &r);
            assert_int_equal(r.token, 100 + winners[k][0]);
            assert_true(r.finite);
        }
}

/* Scores 4, 4, -1, -1 with penalty 2 on ids 0 and 2 (twice): 2, 4, -2, -1. */
static void penalty_hits_distinct_history_ids_once_by_sign(void **state)
{
    struct kt_targets *ts = *state;
    static const float x[] = {4, 4, -1, -1};
    static const int32_t history[] = {10, 12, 12, 9, 14, -1, 99};
    struct hg_sample_params p = greedy();
    p.lo = 10;
    p.hi = 14;
    p.repetition_penalty = 2;
    p.history = history;
    p.n_history = 7;
    p.n_top = 4;
    for (int i = 0; i < ts->n; i++) {
        struct hg_sample_result r;
        sample_rows(ts->at[i].b, x, 1, 4, &p, &r);
        static const int32_t order[] = {11, 10, 13, 12};
        static const double score[] = {4, 2, -1, -2};
        double sum = exp(4) + exp(2) + exp(-1) + exp(-2);
        assert_int_equal(r.token, 11);
        assert_int_equal(r.n_top, 4);
        for (int j = 0; j < 4; j++) {
            assert_int_equal(r.top_id[j], order[j]);
            assert_true(fabs(r.top_logprob[j] - (score[j] - log(sum))) < 1e-6);
        }
    }
}

static void a_row_with_nan_or_infinity_is_reported_and_yields_lo(void **state)
{
    struct kt_targets *ts = *state;
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    for (int i = 0; i < ts->n; i++)
        for (int k = 0; k < 3; k++)
            for (int t = 0; t < 2; t++) {
                float x[3 * V];
                struct hg_sample_params p[3];
                struct hg_sample_result r[3];
                for (int j = 0; j < 3 * V; j++)
                    x[j] = (float)(j % V == 11);
                x[V + 20] = bad[k];
                for (int j = 0; j < 3; j++) {
                    p[j] = greedy();
                    p[j].temperature = (float)t;
                    p[j].top_k = t;
                }
                sample_rows(ts->at[i].b, x, 3, V, p, r);
                assert_true(!r[1].finite && r[1].token == 100);
                assert_true(r[0].finite && r[0].token == 111);
                assert_true(r[2].finite && r[2].token == 111);
            }
}

/* ---- the oracle: sort everything, walk upwards ---- */

static const float *sort_score;

static int ascending(const void *a, const void *b)
{
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    if (sort_score[x] != sort_score[y])
        return sort_score[x] < sort_score[y] ? -1 : 1;
    return x > y ? -1 : 1; /* the lowest id counts as the best */
}

static void oracle(const float *x, const struct hg_sample_params *p, int n, int32_t *token,
                   double *logprob, double *edge)
{
    float s[256] = {0}, scaled[256] = {0};
    int32_t order[256];
    double prob[256], total = 0, norm = 0;
    for (int i = 0; i < n; i++) {
        bool seen = false;
        for (int j = 0; j < p->n_history; j++)
            seen = seen || p->history[j] == p->lo + i;
        s[i] = !seen      ? x[i]
               : x[i] < 0 ? x[i] * p->repetition_penalty
                          : x[i] / p->repetition_penalty;
        scaled[i] = s[i];
        order[i] = i;
        norm += exp(s[i]);
    }
    sort_score = scaled;
    qsort(order, (size_t)n, sizeof *order, ascending);
    for (int i = 0; i < n; i++) {
        int id = order[i];
        bool kept = p->top_k <= 0 || p->top_k >= n || s[id] >= s[order[n - p->top_k]];
        prob[id] = kept ? exp((double)s[id] / p->temperature) : 0;
        total += prob[id];
    }
    double cumulative = 0;
    *edge = 1; /* how close a decision came to a rounding error */
    for (int i = 0; i < n - 1 && p->top_p < 1; i++) {
        cumulative += prob[order[i]] / total;
        if (prob[order[i]] > 0)
            *edge = fmin(*edge, fabs(cumulative - (1 - (double)p->top_p)));
        if (cumulative <= 1 - (double)p->top_p)
            prob[order[i]] = 0;
    }
    double kept_total = 0, sum = 0, u = hg_uniform(p->seed, p->position, 0);
    for (int i = 0; i < n; i++)
        kept_total += prob[i];
    *token = -1;
    for (int i = 0; i < n; i++) {
        sum += prob[i] / kept_total;
        *edge = fmin(*edge, fabs(sum - u));
        if (*token < 0 && sum > u)
            *token = p->lo + i;
    }
    *token = *token < 0 ? p->hi - 1 : *token; /* u in the last rounding error: edge is tiny */
    *logprob = s[*token - p->lo] - log(norm);
}

static void random_rows_match_the_sorted_oracle(void **state)
{
    struct kt_targets *ts = *state;
    uint64_t seed = 17;
    int n_checked = 0;
    for (int k = 0; k < 3000; k++) {
        int n = 1 + kt_below(&seed, 200);
        float x[256];
        int32_t history[20];
        struct hg_sample_params p = {.lo = kt_below(&seed, 50),
                                     .temperature = 0.3f + (float)kt_below(&seed, 30) / 10,
                                     .top_k = kt_below(&seed, 3) ? kt_below(&seed, n + 5) : 0,
                                     .top_p =
                                         kt_below(&seed, 3) ? (float)kt_below(&seed, 101) / 100 : 1,
                                     .repetition_penalty = 1 + (float)kt_below(&seed, 3) / 10,
                                     .history = history,
                                     .n_history = kt_below(&seed, 20),
                                     .seed = kt_next(&seed),
                                     .position = kt_next(&seed)};
        p.hi = p.lo + n;
        for (int i = 0; i < 20; i++)
            history[i] = kt_below(&seed, 300);
        for (int i = 0; i < n; i++) /* steps of 1/4: many ties */
            x[i] = rintf(kt_uniform(&seed) * 12) / 4;
        int32_t token = 0;
        double logprob = 0, edge = 0;
        oracle(x, &p, n, &token, &logprob, &edge);
        if (edge < 1e-9)
            continue; /* decided by the last bits of a sum */
        n_checked++;
        for (int i = 0; i < ts->n; i++) {
            struct hg_sample_result r;
            sample_rows(ts->at[i].b, x, 1, 256 > n ? n : 256, &p, &r);
            if (r.token != token || !(fabs(r.logprob - logprob) < 1e-5))
                fail_msg("case %d on %s: token %d logprob %g, expected %d %g (k %d p %g)", k,
                         ts->at[i].name, r.token, r.logprob, token, logprob, p.top_k,
                         (double)p.top_p);
        }
    }
    printf("  %d rows checked\n", n_checked);
    assert_true(n_checked > 2500);
}

/* Thousands of ids, all rows in one call: continuous scores, or a quarter apart with large groups
 * of equal ones; aligned and not. The n_top lists and tokens are those of ref. */
static void long_rows_in_one_call_match_ref(void **state)
{
    struct kt_targets *ts = *state;
    enum { N = 4095, LD = 4096, ROWS = 24 };
    static int32_t history[300];
    float *x = kt_random(ROWS * LD, 11, 2);
    struct hg_sample_params p[ROWS];
    struct hg_sample_result want[ROWS], got[ROWS];
    uint64_t seed = 17;
    for (int i = 0; i < 300; i++)
        history[i] = 50 + kt_below(&seed, N);
    for (int i = 0; i < ROWS; i++) {
        p[i] =
            (struct hg_sample_params){.lo = 50,
                                      .hi = 50 + N - i * 37,
                                      .temperature = i % 4 == 0 ? 0 : 0.3f + kt_uniform(&seed) / 5,
                                      .top_k = i % 3 ? 0 : 1 + kt_below(&seed, 2000),
                                      .top_p = i % 2 ? 0.2f + 0.7f * (float)i / ROWS : 1,
                                      .repetition_penalty = i % 5 ? 1 : 1.3f,
                                      .history = history,
                                      .n_history = 300,
                                      .seed = 8,
                                      .position = (uint64_t)i,
                                      .n_top = i % 21};
        for (int j = 0; j < LD && i % 6 > 2; j++)
            x[i * LD + j] = rintf(x[i * LD + j] * 4) / 4;
    }
    for (int t = 0; t < ts->n; t++)
        for (int shift = 0; shift < 2; shift++) { /* ld 4096, then 4095 */
            float *rows = malloc(ROWS * LD * sizeof *rows);
            assert_non_null(rows);
            for (int i = 0; i < ROWS; i++)
                memcpy(rows + i * (LD - shift), x + i * LD, (size_t)(LD - shift) * sizeof *x);
            sample_rows(ts->at[t].b, rows, ROWS, LD - shift, p, t ? got : want);
            free(rows);
            for (int i = 0; i < ROWS && t; i++) {
                assert_int_equal(got[i].token, want[i].token);
                assert_true(fabs(got[i].logprob - want[i].logprob) < 1e-5);
                assert_int_equal(got[i].n_top, want[i].n_top);
                assert_memory_equal(got[i].top_id, want[i].top_id, sizeof want[i].top_id);
            }
        }
    free(x);
}

/* Probabilities 1/2, 1/4, 1/8, 1/8. */
static void top_p_keeps_the_smallest_set_that_exceeds_it(void **state)
{
    (void)state;
    const float l = logf(2), x[4] = {-3 * l, -l, -2 * l, -3 * l};
    static const struct {
        float top_p;
        unsigned kept; /* bit i: id i can be drawn */
    } cases[] = {{0, 2}, {0.4f, 2}, {0.5f, 2}, {0.6f, 6}, {0.75f, 6}, {0.8f, 7}, {0.9f, 15}};
    struct hg_sample_scratch s;
    struct hg_error err = {0};
    HG_TEST_OK(hg_sample_scratch_init(&s, 4, &err), err);
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        unsigned drawn = 0;
        for (uint64_t position = 0; position < 500; position++) {
            struct hg_sample_params p = {.hi = 4,
                                         .temperature = 1,
                                         /* a hair below, so that fp32 log 2 cannot cross it */
                                         .top_p = cases[k].top_p * 0.9999f,
                                         .repetition_penalty = 1,
                                         .seed = 3,
                                         .position = position};
            struct hg_sample_result r;
            assert_int_equal(hg_ref_sample_row(x, &p, &r, &s), HG_STATUS_OK);
            drawn |= 1u << r.token;
        }
        assert_int_equal(drawn, cases[k].kept);
    }
    hg_sample_scratch_deinit(&s);
}

/* Four equal ids, top_p 1/2: the ascending sums 1/4 and 2/4 are <= 1/2 exactly, so two go, and the
 * two lowest ids stay. */
static void top_p_drops_an_id_whose_sum_is_exactly_the_limit(void **state)
{
    (void)state;
    const float x[4] = {1, 1, 1, 1};
    unsigned drawn = 0;
    struct hg_sample_scratch s;
    struct hg_error err = {0};
    HG_TEST_OK(hg_sample_scratch_init(&s, 4, &err), err);
    for (uint64_t position = 0; position < 200; position++) {
        struct hg_sample_params p = {.hi = 4,
                                     .temperature = 1,
                                     .top_p = 0.5f,
                                     .repetition_penalty = 1,
                                     .position = position};
        struct hg_sample_result r;
        assert_int_equal(hg_ref_sample_row(x, &p, &r, &s), HG_STATUS_OK);
        drawn |= 1u << r.token;
    }
    assert_int_equal(drawn, 3);
    hg_sample_scratch_deinit(&s);
}

static void draws_follow_the_softmax_at_the_temperature(void **state)
{
    (void)state;
    enum { N = 40000, IDS = 6 };
    static const float x[IDS] = {0, 1, -1, 2, 0.5f, -3};
    double total = 0, chi = 0;
    int count[IDS] = {0};
    struct hg_sample_scratch s;
    struct hg_error err = {0};
    HG_TEST_OK(hg_sample_scratch_init(&s, IDS, &err), err);
    for (uint64_t position = 0; position < N; position++) {
        struct hg_sample_params p = {.hi = IDS,
                                     .temperature = 0.8f,
                                     .top_p = 1,
                                     .repetition_penalty = 1,
                                     .seed = 42,
                                     .position = position};
        struct hg_sample_result r;
        assert_int_equal(hg_ref_sample_row(x, &p, &r, &s), HG_STATUS_OK);
        count[r.token]++;
    }
    for (int i = 0; i < IDS; i++)
        total += exp(x[i] / 0.8);
    for (int i = 0; i < IDS; i++) {
        double expected = N * exp(x[i] / 0.8) / total;
        chi += (count[i] - expected) * (count[i] - expected) / expected;
    }
    printf("  chi-square of %d draws: %.2f with 5 degrees of freedom (99.9 %% point 20.5)\n", N,
           chi);
    assert_true(chi < 20.5);
    hg_sample_scratch_deinit(&s);
}

static void a_draw_depends_on_seed_and_position_only(void **state)
{
    struct kt_targets *ts = *state;
    enum { ROWS = 70, LD = V + 3 }; /* more rows than cuda takes at a time */
    float *x = kt_random(ROWS * LD, 5, 1);
    struct hg_sample_params p[ROWS];
    for (int i = 0; i < ROWS; i++) {
        p[i] = greedy();
        p[i].temperature = 1.3f;
        p[i].top_k = i % 7 * 3;
        p[i].top_p = i % 2 ? 0.8f : 1;
        p[i].seed = 99;
        p[i].position = (uint64_t)i;
        p[i].n_top = i % 7;
    }
    for (int t = 0; t < ts->n; t++) {
        struct hg_sample_result all[ROWS], one;
        sample_rows(ts->at[t].b, x, ROWS, LD, p, all);
        for (int i = 0; i < ROWS; i++) {
            sample_rows(ts->at[t].b, x + i * LD, 1, LD, &p[i], &one);
            assert_int_equal(one.token, all[i].token);
            assert_true(one.logprob == all[i].logprob);
            assert_int_equal(one.n_top, i % 7);
        }
    }
    free(x);
}

static void top_logprobs_are_descending_with_ties_by_lowest_id(void **state)
{
    struct kt_targets *ts = *state;
    float x[V];
    for (int i = 0; i < V; i++)
        x[i] = (float)(i % 10); /* four ids of each score */
    for (int t = 0; t < ts->n; t++) {
        struct hg_sample_params p = greedy();
        struct hg_sample_result r;
        p.n_top = 1000; /* more than there can be */
        sample_rows(ts->at[t].b, x, 1, V, &p, &r);
        assert_int_equal(r.n_top, HG_MAX_TOP);
        for (int i = 0; i < HG_MAX_TOP; i++)
            assert_int_equal(r.top_id[i], 100 + 9 - i / 4 + i % 4 * 10);
        assert_true(r.logprob == r.top_logprob[0]);
        p.hi = p.lo + 3; /* fewer ids than asked for */
        sample_rows(ts->at[t].b, x, 1, V, &p, &r);
        assert_int_equal(r.n_top, 3);
    }
}

static void impossible_requests_are_refused(void **state)
{
    (void)state;
    struct hg_sample_scratch s;
    struct hg_error err = {0};
    struct hg_sample_result r;
    float x[V] = {0};
    HG_TEST_OK(hg_sample_scratch_init(&s, V - 1, &err), err);
    struct hg_sample_params p = greedy();
    assert_int_equal(hg_ref_sample_row(x, &p, &r, &s), HG_STATUS_INTERNAL);
    p.hi = p.lo;
    assert_int_equal(hg_ref_sample_row(x, &p, &r, &s), HG_STATUS_BAD_REQUEST);
    p = greedy();
    p.hi--;
    p.repetition_penalty = 0;
    assert_int_equal(hg_ref_sample_row(x, &p, &r, &s), HG_STATUS_BAD_REQUEST);
    p.repetition_penalty = 1;
    p.temperature = NAN; /* greedy */
    x[4] = 1;
    assert_int_equal(hg_ref_sample_row(x, &p, &r, &s), HG_STATUS_OK);
    assert_int_equal(r.token, 104);
    hg_sample_scratch_deinit(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(greedy_takes_the_lowest_id_among_equal_logits),
        cmocka_unit_test(penalty_hits_distinct_history_ids_once_by_sign),
        cmocka_unit_test(a_row_with_nan_or_infinity_is_reported_and_yields_lo),
        cmocka_unit_test(random_rows_match_the_sorted_oracle),
        cmocka_unit_test(long_rows_in_one_call_match_ref),
        cmocka_unit_test(top_p_keeps_the_smallest_set_that_exceeds_it),
        cmocka_unit_test(top_p_drops_an_id_whose_sum_is_exactly_the_limit),
        cmocka_unit_test(draws_follow_the_softmax_at_the_temperature),
        cmocka_unit_test(a_draw_depends_on_seed_and_position_only),
        cmocka_unit_test(top_logprobs_are_descending_with_ties_by_lowest_id),
        cmocka_unit_test(impossible_requests_are_refused),
    };
    return cmocka_run_group_tests(tests, kt_setup, kt_teardown);
}
