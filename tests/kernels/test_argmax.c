/* Lowest argmax of each row, NaN counts as the largest. */
#include <math.h>

#include "tests/kernels/parity.h"

static void run(struct hg_backend *b, int rows, int dim, int ldx, const float *x, int32_t *index)
{
    void *dx = kt_upload_act(b, x, (size_t)(rows * ldx));
    struct hg_argmax_args a = {rows, dim, dx, ldx, index};
    assert_int_equal(b->ops->argmax(b, &a), HG_STATUS_OK);
    assert_int_equal(b->ops->sync(b), HG_STATUS_OK);
    for (int i = 0; i < rows; i++)
        kt_note(b, &(float){(float)index[i]}, 1);
    b->ops->free(b, dx);
}

static void ties_and_nan_go_to_the_lowest_index(void **state)
{
    struct kt_targets *ts = *state;
    enum { DIM = 70, LDX = 77, ROWS = 6 };
    float x[ROWS * LDX];
    static const int32_t want[ROWS] = {0, 3, 17, 20, 69, 33};
    for (int i = 0; i < ROWS * LDX; i++)
        x[i] = i % LDX < DIM ? 0 : 100; /* the gap would win */
    for (int i = 0; i < DIM; i++)
        x[5 * LDX + i] = i < 33 ? -INFINITY : -5;
    x[LDX + 3] = x[LDX + 4] = x[LDX + 64] = 1;
    x[2 * LDX + 17] = INFINITY;
    x[2 * LDX + 60] = INFINITY;
    x[3 * LDX + 2] = INFINITY;
    x[3 * LDX + 20] = x[3 * LDX + 40] = NAN;
    x[4 * LDX + 69] = 1e-30f;
    for (int i = 0; i < ts->n; i++) {
        int32_t got[ROWS];
        run(ts->at[i].b, ROWS, DIM, LDX, x, got);
        for (int r = 0; r < ROWS; r++)
            assert_int_equal(got[r], want[r]);
    }
}

static void random_rows_of_every_width(void **state)
{
    struct kt_targets *ts = *state;
    uint64_t seed = 3;
    for (int dim = 1; dim < 140; dim++) {
        float x[140];
        int32_t want = 0, got = -1;
        for (int i = 0; i < dim; i++)
            x[i] = (float)kt_below(&seed, 1 + dim / 3);
        for (int i = dim - 1; i >= 0; i--)
            want = x[i] >= x[want] ? i : want;
        for (int i = 0; i < dim; i++)
            if (x[i] == x[want]) {
                want = i;
                break;
            }
        for (int i = 0; i < ts->n; i++) {
            run(ts->at[i].b, 1, dim, dim, x, &got);
            assert_int_equal(got, want);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ties_and_nan_go_to_the_lowest_index),
        cmocka_unit_test(random_rows_of_every_width),
    };
    return cmocka_run_group_tests(tests, kt_setup, kt_teardown);
}
