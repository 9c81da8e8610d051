/* LayerNorm with affine, biased variance, also in place. */
#include <math.h>

#include "tests/kernels/parity.h"

static void run(struct hg_backend *b, int rows, int dim, const float *x, const float *w,
                const float *bias, bool in_place, float *y)
{
    size_t n = (size_t)(rows * dim);
    void *dx = kt_upload_act(b, x, n), *dy = in_place ? dx : kt_alloc_act(b, n);
    void *dw = kt_upload(b, w, (size_t)dim * 4), *db = kt_upload(b, bias, (size_t)dim * 4);
    struct hg_layernorm_args a = {rows, dim, dx, dw, db, 1e-5f, HG_ROUND_NEVER, dy};
    assert_int_equal(b->ops->layernorm(b, &a), HG_STATUS_OK);
    kt_download_act(b, y, dy, n);
    b->ops->free(b, dx);
    if (!in_place)
        b->ops->free(b, dy);
    b->ops->free(b, dw);
    b->ops->free(b, db);
}

static void check(struct kt_targets *ts, int rows, int dim, uint64_t s)
{
    size_t n = (size_t)(rows * dim);
    float *x = kt_random(n, s, 3), *w = kt_random((size_t)dim, s + 10, 1);
    float *bias = kt_random((size_t)dim, s + 20, 1);
    float *want = malloc(n * sizeof *want), *got = malloc(n * sizeof *got);
    for (size_t i = 0; i < n; i++)
        x[i] += 10; /* a mean three deviations off: E[x^2] - mean^2 in fp32 would show */
    for (int r = 0; r < rows; r++) {
        double mean = 0, square = 0;
        for (int i = 0; i < dim; i++)
            mean += (double)x[r * dim + i] / dim;
        for (int i = 0; i < dim; i++)
            square += pow(x[r * dim + i] - mean, 2) / dim;
        for (int i = 0; i < dim; i++)
            want[r * dim + i] =
                (float)((x[r * dim + i] - mean) / sqrt(square + 1e-5f) * w[i] + bias[i]);
    }
    char label[64];
    snprintf(label, sizeof label, "layernorm rows %d dim %d", rows, dim);
    for (int i = 0; i < ts->n; i++)
        for (int in_place = 0; in_place < 2; in_place++) {
            run(ts->at[i].b, rows, dim, x, w, bias, in_place, got);
            /* fp32: the mean of values near 10 is known to 1e-6, deviations are 3 */
            kt_compare(label, ts->at[i].name, got, want, n, i ? 5e-6 : 2e-7);
        }
    free(x);
    free(w);
    free(bias);
    free(want);
    free(got);
}

static void layernorm_matches_the_formula_also_in_place(void **state)
{
    static const int shapes[][2] = {{1, 1}, {3, 7}, {5, 64}, {2, 1024}, {17, 131}};
    for (size_t s = 0; s < 5; s++)
        check(*state, shapes[s][0], shapes[s][1], s);
}

static void sweep_of_dims_matches_the_formula(void **state)
{
    static const int more[] = {160,  255,  256,  257,  384,  512, 768,
                               1023, 1024, 1025, 2048, 3072, 4096};
    for (size_t i = 0; i < 140 + sizeof more / sizeof *more; i++)
        if (kt_sweep(i, 50))
            check(*state, 1 + (int)(i * 7 % 70), i < 140 ? (int)i + 1 : more[i - 140], 6000 + i);
}

static void constant_rows_become_the_bias_and_faulty_rows_stay_alone(void **state)
{
    struct kt_targets *ts = *state;
    enum { DIM = 48 };
    float x[3 * DIM], w[DIM], bias[DIM], y[3 * DIM];
    for (int i = 0; i < DIM; i++) {
        x[i] = x[2 * DIM + i] = 4;
        x[DIM + i] = i == 5 ? NAN : 1;
        w[i] = 2;
        bias[i] = (float)i;
    }
    for (int i = 0; i < ts->n; i++) {
        run(ts->at[i].b, 3, DIM, x, w, bias, false, y);
        kt_identical("constant row", ts->at[i].name, y, bias, DIM);
        kt_identical("constant row", ts->at[i].name, y + 2 * DIM, bias, DIM);
        for (int j = 0; j < DIM; j++)
            assert_true(isnan(y[DIM + j]));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(layernorm_matches_the_formula_also_in_place),
        cmocka_unit_test(constant_rows_become_the_bias_and_faulty_rows_stay_alone),
        cmocka_unit_test(sweep_of_dims_matches_the_formula),
    };
    return cmocka_run_group_tests(tests, kt_setup, kt_teardown);
}
