/* Final norm and head sets, restricted to each row's id range. */
#include "tests/kernels/head_case.h"

static void logits_of_the_allowed_ids_match_the_formula(void **state)
{
    struct kt_targets *ts = *state;
    static const int dims[] = {40, 129};
    enum { OUT = 9 };
    for (size_t t = 0; t < KT_STORES; t++)
        for (size_t d = 0; d < 2; d++) {
            struct kt_head h;
            kt_head_init(&h, 7, dims[d], OUT, kt_stores[t], 1 + t * 2 + d);
            float want[OUT * 93], ref[OUT * 93], got[OUT * 93];
            char label[64];
            /* the reasons are those of kt_linear_bound with a norm */
            enum hg_dtype s = kt_stores[t];
            bool integers = s == HG_DTYPE_I8 || s == HG_DTYPE_I4;
            double bound = integers ? 6e-3 : s == HG_DTYPE_BF16 ? 3e-3 : 2e-5;
            snprintf(label, sizeof label, "head D %d store %s", dims[d],
                     hg_dtype_name(kt_stores[t]));
            kt_head_formula(&h, want);
            kt_head_run(&h, ts->at[0].b, NULL, OUT, ref);
            kt_compare(label, "ref against the formula", ref, want, OUT * 93, bound / 10);
            for (int i = 1; i < ts->n; i++) {
                kt_head_run(&h, ts->at[i].b, NULL, OUT, got);
                kt_compare(label, ts->at[i].name, got, ref, OUT * 93, bound);
            }
            kt_head_deinit(&h);
        }
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
    };
    return cmocka_run_group_tests(tests, kt_setup, kt_teardown);
}
