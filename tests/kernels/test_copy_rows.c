/* Gathering rows between matrices of different pitch. */
#include "tests/kernels/parity.h"

static void rows_are_copied_in_the_given_order_with_both_pitches(void **state)
{
    struct kt_targets *ts = *state;
    enum { ROWS = 8, LDX = 23, DIM = 19, N = 6, LDY = 21 };
    static const int32_t row[N] = {7, 0, 3, 3, 5, 1};
    float *x = kt_random(ROWS * LDX, 1, 1), *old = kt_random(N * LDY, 2, 1);
    for (int i = 0; i < ts->n; i++) {
        struct hg_backend *b = ts->at[i].b;
        float want[N * LDY], got[N * LDY];
        memcpy(want, old, sizeof want); /* the gaps of y keep their contents */
        for (int r = 0; r < N; r++)
            memcpy(want + r * LDY, x + row[r] * LDX, DIM * sizeof *x);
        void *dx = kt_upload_act(b, x, ROWS * LDX), *dy = kt_upload_act(b, old, N * LDY);
        struct hg_copy_rows_args a = {N, DIM, row, dx, LDX, dy, LDY};
        assert_int_equal(b->ops->copy_rows(b, &a), HG_STATUS_OK);
        kt_download_act(b, got, dy, N * LDY);
        kt_identical("copy_rows", ts->at[i].name, got, want, N * LDY);
        b->ops->free(b, dx);
        b->ops->free(b, dy);
    }
    free(x);
    free(old);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_are_copied_in_the_given_order_with_both_pitches),
    };
    return cmocka_run_group_tests(tests, kt_setup, kt_teardown);
}
