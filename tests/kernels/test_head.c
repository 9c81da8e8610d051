/* Final norm and head sets, restricted to each row's id range. */
#include "tests/kernels/head_case.h"
#include "tests/kernels/linear_case.h"

/* The reasons are those of kt_linear_bound with a norm. */
static double bound_of(enum hg_dtype store)
{
    struct kt_linear_case c = {.store = store, .norm = true};
    return kt_linear_bound(&c);
}

static void check(struct kt_targets *ts, int dim, int n_out, enum hg_dtype store, uint64_t seed)
{
    struct kt_head h;
    kt_head_init(&h, 7, dim, n_out, store, seed);
    float want[64 * 93], ref[64 * 93], got[64 * 93];
    char label[64];
    size_t n = (size_t)n_out * 93;
    double bound = bound_of(store);
    snprintf(label, sizeof label, "head D %d rows %d store %s", dim, n_out, hg_dtype_name(store));
    kt_head_formula(&h, want);
    kt_head_run(&h, ts->at[0].b, NULL, n_out, ref);
    kt_compare(label, "ref against the formula", ref, want, n, bound / 10);
    for (int i = 1; i < ts->n; i++) {
        kt_head_run(&h, ts->at[i].b, NULL, n_out, got);
        kt_compare(label, ts->at[i].name, got, ref, n, bound);
    }
    kt_head_deinit(&h);
}

static void logits_of_the_allowed_ids_match_the_formula(void **state)
{
    static const int dims[] = {40, 129};
    for (size_t t = 0; t < KT_STORES; t++)
        for (size_t d = 0; d < 2; d++)
            check(*state, dims[d], 9, kt_stores[t], 1 + t * 2 + d);
}

static void sweep_of_rows_and_dims_matches_the_formula(void **state)
{
    static const int dims[] = {8, 16, 33, 64, 100, 128, 257};
    for (size_t i = 0; i < 64 * KT_STORES; i++)
        if (kt_sweep(i, 60))
            check(*state, dims[i % 7], (int)(i % 64) + 1, kt_stores[i / 64], 7000 + i);
}

static void ids_outside_the_range_are_not_written(void **state)
{
    struct kt_targets *ts = *state;
    struct kt_head h;
    kt_head_init(&h, 3, 33, 4, HG_DTYPE_F32, 30);
    for (int i = 0; i < ts->n; i++) {
        float y[4 * 93];
        kt_head_run(&h, ts->at[i].b, NULL, 4, y);
        for (int r = 0; r < 4; r++)
            for (int v = h.hi[r] - h.lo[r]; v < 93; v++)
                assert_true(y[r * 93 + v] == 0);
    }
    kt_head_deinit(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(logits_of_the_allowed_ids_match_the_formula),
        cmocka_unit_test(ids_outside_the_range_are_not_written),
        cmocka_unit_test(sweep_of_rows_and_dims_matches_the_formula),
    };
    return cmocka_run_group_tests(tests, kt_setup, kt_teardown);
}
