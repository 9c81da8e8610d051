#include "tests/test.h"

#include "tools/load/samples.h"

static void percentiles_are_nearest_ranks(void **state)
{
    (void)state;
    struct hg_samples s = {0};
    assert_true(hg_samples_percentile(&s, 50) == 0);
    assert_true(hg_samples_mean(&s) == 0);
    const double v[] = {15, 50, 20, 40, 35}; /* the usual example of the nearest rank */
    for (int i = 0; i < 5; i++)
        assert_int_equal(hg_samples_add(&s, v[i]), HG_STATUS_OK);
    const double expected[][2] = {{0, 15},  {5, 15},  {20, 15}, {30, 20},
                                  {40, 20}, {50, 35}, {99, 50}, {100, 50}};
    for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++)
        assert_true(hg_samples_percentile(&s, expected[i][0]) == expected[i][1]);
    assert_true(hg_samples_mean(&s) == 32);
    /* A value that comes later is found too. */
    assert_int_equal(hg_samples_add(&s, 1), HG_STATUS_OK);
    assert_true(hg_samples_percentile(&s, 0) == 1);
    hg_samples_deinit(&s);
}

static void many_values_are_kept(void **state)
{
    (void)state;
    struct hg_samples s = {0};
    for (int i = 0; i < 100000; i++)
        assert_int_equal(hg_samples_add(&s, (i * 7919) % 100000), HG_STATUS_OK);
    assert_int_equal(s.n, 100000);
    for (int p = 1; p <= 100; p++)
        assert_true(hg_samples_percentile(&s, p) == p * 1000 - 1);
    hg_samples_deinit(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(percentiles_are_nearest_ranks),
        cmocka_unit_test(many_values_are_kept),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
