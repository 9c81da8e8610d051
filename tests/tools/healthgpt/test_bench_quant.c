/* tests/tools/healthgpt/test_bench_quant.c - the arithmetic of bench --quant against numbers worked
 * out by hand. */
#include <math.h>

#include "tests/test.h"
#include "tools/healthgpt/bench_quant.h"

static void near(double got, double want, double share)
{
    if (fabs(got - want) > share * fabs(want) + 1e-12)
        fail_msg("expected %.12g, got %.12g", want, got);
}

/* p = (1/2, 1/4, 1/4), q = (1/4, 1/4, 1/2): KL = 1/2 ln 2 + 0 - 1/4 ln 2 = ln(2) / 4. Logits are
 * known up to a constant. */
static void divergence_is_that_of_the_definition(void **state)
{
    (void)state;
    const float p[] = {0.693147181f, 0, 0}, q[] = {9, 9, 9.693147181f};
    struct hg_quant_dist d = {0}, e = {0};
    assert_int_equal(hg_quant_dist_set(&d, 0, p, 3), HG_STATUS_OK);
    assert_int_equal(hg_quant_dist_set(&e, 2, q, 3), HG_STATUS_OK);
    assert_null(d.id);
    assert_int_equal(d.own, 0);
    near(hg_quant_divergence(&d, q, 3), log(2) / 4, 1e-6);
    near(hg_quant_divergence_kept(&d, &e), log(2) / 4, 1e-6);
    assert_true(hg_quant_divergence(&d, p, 3) < 1e-7);
    assert_true(hg_quant_divergence(&d, p, 3) >= 0);
    hg_quant_dist_deinit(&d);
    hg_quant_dist_deinit(&e);
}

/* Of many tokens some are kept and the rest is one event: never more than the whole divergence, and
 * all of it when q differs among the kept ones only. */
static void what_is_left_out_makes_a_lower_bound(void **state)
{
    (void)state;
    enum { N = HG_QUANT_FULL + 500 };
    static float p[N], q[N], r[N];
    double whole = 0;
    for (int i = 0; i < N; i++) {
        p[i] = (float)(-8.0 * (i * 7919 % N) / N);
        q[i] = p[i] + (float)sin(i);
        r[i] = p[i] + (i * 7919 % N < 100 ? 0.5f * (float)(i % 3) : 0);
    }
    double sp = hg_quant_log_sum(p, N), sq = hg_quant_log_sum(q, N), sr = hg_quant_log_sum(r, N);
    double among_kept = 0;
    for (int i = 0; i < N; i++) {
        whole += exp((double)p[i] - sp) * ((double)p[i] - sp - (double)q[i] + sq);
        among_kept += exp((double)p[i] - sp) * ((double)p[i] - sp - (double)r[i] + sr);
    }
    struct hg_quant_dist d = {0}, e = {0};
    assert_int_equal(hg_quant_dist_set(&d, 0, p, N), HG_STATUS_OK);
    assert_int_equal(hg_quant_dist_set(&e, 0, q, N), HG_STATUS_OK);
    assert_int_equal(d.n, HG_QUANT_TOP);
    assert_non_null(d.id);
    double part = hg_quant_divergence(&d, q, N), kept = hg_quant_divergence_kept(&d, &e);
    printf("# whole %.6f, from the kept ones %.6f, both kept %.6f\n", whole, part, kept);
    assert_true(part > 0.3 * whole && part < whole);
    assert_true(kept > 0 && kept <= part * (1 + 1e-6));
    near(hg_quant_divergence(&d, r, N), among_kept, 1e-4);
    hg_quant_dist_deinit(&d);
    hg_quant_dist_deinit(&e);
}

static void an_impossible_token_costs_a_finite_amount(void **state)
{
    (void)state;
    const float p[] = {0, 0}, q[] = {0, -INFINITY};
    struct hg_quant_dist d = {0};
    assert_int_equal(hg_quant_dist_set(&d, 0, p, 2), HG_STATUS_OK);
    double kl = hg_quant_divergence(&d, q, 2);
    assert_true(isfinite(kl) && kl > 40);
    assert_int_equal(hg_quant_dist_set(&d, 0, q, 2), HG_STATUS_OK);
    near(hg_quant_divergence(&d, p, 2), log(2), 1e-6); /* 0 ln 0 is 0 */
    hg_quant_dist_deinit(&d);
}

/* Nearest rank: of 1..200 the median is 100, the 99th percentile 198. */
static void summaries_take_nearest_ranks(void **state)
{
    (void)state;
    struct hg_quant_sample s = {0};
    struct hg_quant_summary sum;
    hg_quant_summarise(&s, &sum);
    assert_int_equal(sum.n, 0);
    for (int i = 0; i < 200; i++)
        assert_int_equal(hg_quant_sample_add(&s, 1 + i * 37 % 200, i % 4 != 0), HG_STATUS_OK);
    hg_quant_summarise(&s, &sum);
    near(sum.mean, 100.5, 1e-9);
    near(sum.median, 100, 1e-9);
    near(sum.p99, 198, 1e-9);
    near(sum.max, 200, 1e-9);
    near(sum.same, 0.75, 1e-9);
    free(s.v);
}

/* Agresti and Min, Statistics in Medicine 24 (2005): half an observation is added to each of the
 * four cells. n = 100, 10 gained, 4 lost: (10.5 - 4.5) / 102 = 0.058824, sqrt(15 - 36 / 102) / 102
 * = 0.037521, times 1.959964. Without a single change the interval is not empty. */
static void the_paired_interval_is_the_adjusted_one(void **state)
{
    (void)state;
    double low, high;
    hg_quant_paired(100, 10, 4, &low, &high);
    near((low + high) / 2, 6.0 / 102, 1e-9);
    near((high - low) / 2, 1.959964 * 0.0375211, 1e-5);
    hg_quant_paired(624, 0, 0, &low, &high);
    near(low, -high, 1e-9);
    near(high, 1.959964 / 626, 1e-6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(divergence_is_that_of_the_definition),
        cmocka_unit_test(what_is_left_out_makes_a_lower_bound),
        cmocka_unit_test(an_impossible_token_costs_a_finite_amount),
        cmocka_unit_test(summaries_take_nearest_ranks),
        cmocka_unit_test(the_paired_interval_is_the_adjusted_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
