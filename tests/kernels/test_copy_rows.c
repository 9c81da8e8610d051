/* Gathering rows between matrices of different pitch. */
#include "tests/kernels/parity.h"

static void check(struct kt_targets *ts, int ldx, int dim, int ldy)
{
    enum { ROWS = 8, N = 6, MAX_LDY = 1300 };
    static const int32_t row[N] = {7, 0, 3, 3, 5, 1};
    static float want[N * MAX_LDY], got[N * MAX_LDY];
    size_t n_x = (size_t)(ROWS * ldx), n_y = (size_t)(N * ldy);
    float *x = kt_random(n_x, 1, 1), *old = kt_random(n_y, 2, 1);
    for (int i = 0; i < ts->n; i++) {
        struct hg_backend *b = ts->at[i].b;
        memcpy(want, old, n_y * sizeof *old); /* the gaps of y keep their contents */
        for (int r = 0; r < N; r++)
            memcpy(want + r * ldy, x + row[r] * ldx, (size_t)dim * sizeof *x);
        void *dx = kt_upload_act(b, x, n_x), *dy = kt_upload_act(b, old, n_y);
        struct hg_copy_rows_args a = {N, dim, row, dx, ldx, dy, ldy};
        assert_int_equal(b->ops->copy_rows(b, &a), HG_STATUS_OK);
        kt_download_act(b, got, dy, n_y);
        kt_identical("copy_rows", ts->at[i].name, got, want, n_y);
        b->ops->free(b, dx);
        b->ops->free(b, dy);
    }
    free(x);
    free(old);
}

static void rows_are_copied_in_the_given_order_with_both_pitches(void **state)
{
    check(*state, 23, 19, 21);
    check(*state, 24, 20, 20);
    check(*state, 24, 20, 22); /* 16-byte reads, but not writes */
    check(*state, 1040, 1036, 1300);
}

static void sweep_of_dims_and_pitches(void **state)
{
    for (int dim = 1; dim <= 140; dim++)
        for (int k = 0; k < 4; k++)
            if (kt_sweep((size_t)(dim * 4 + k), 150))
                check(*state, dim + k * 3 % 5, dim, dim + k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_are_copied_in_the_given_order_with_both_pitches),
        cmocka_unit_test(sweep_of_dims_and_pitches),
    };
    return cmocka_run_group_tests(tests, kt_setup, kt_teardown);
}
