/* Dense attention inside groups of rows: CLIP heads, and one wide head as in the VQGAN. */
#include <math.h>

#include "tests/kernels/parity.h"

static void run(struct hg_backend *b, int n_batch, int rows, int heads, int dim, int gap,
                const float *qkv, float *y)
{
    size_t n = (size_t)(n_batch * rows), width = (size_t)(heads * dim),
           ld = 3 * width + (size_t)gap;
    float *x = malloc(n * ld * sizeof *x);
    assert_non_null(x);
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < ld; j++)
            x[i * ld + j] = j < 3 * width ? qkv[i * 3 * width + j] : NAN;
    void *dx = kt_upload_act(b, x, n * ld), *dy = kt_alloc_act(b, n * width);
    struct hg_attention_full_args a = {.n_batch = n_batch,
                                       .n_rows = rows,
                                       .n_heads = heads,
                                       .head_dim = dim,
                                       .scale = 1 / sqrtf((float)dim),
                                       .q = dx,
                                       .k = hg_act_at(b, dx, (int64_t)width),
                                       .v = hg_act_at(b, dx, (int64_t)(2 * width)),
                                       .ld = (int64_t)ld,
                                       .y = dy};
    assert_int_equal(b->ops->attention_full(b, &a), HG_STATUS_OK);
    kt_download_act(b, y, dy, n * width);
    b->ops->free(b, dx);
    b->ops->free(b, dy);
    free(x);
}

static void formula(int n_batch, int rows, int heads, int dim, const float *qkv, float *y)
{
    int width = heads * dim;
    for (int r = 0; r < n_batch * rows; r++)
        for (int h = 0; h < heads; h++) {
            double total = 0, *sum = calloc((size_t)dim, sizeof *sum);
            assert_non_null(sum);
            for (int j = r / rows * rows; j < (r / rows + 1) * rows; j++) {
                double dot = 0;
                for (int i = h * dim; i < (h + 1) * dim; i++)
                    dot += (double)qkv[r * 3 * width + i] * qkv[j * 3 * width + width + i];
                double weight = exp(dot / sqrt(dim));
                total += weight;
                for (int i = 0; i < dim; i++)
                    sum[i] += weight * qkv[j * 3 * width + 2 * width + h * dim + i];
            }
            for (int i = 0; i < dim; i++)
                y[r * width + h * dim + i] = (float)(sum[i] / total);
            free(sum);
        }
}

static void check(struct kt_targets *ts, const int shape[5], uint64_t seed, bool by_formula)
{
    int nb = shape[0], rows = shape[1], heads = shape[2], dim = shape[3], gap = shape[4];
    size_t n = (size_t)(nb * rows * heads * dim);
    float *qkv = kt_random(3 * n, seed, 1);
    float *want = malloc(n * sizeof *want), *ref = malloc(n * sizeof *ref);
    float *got = malloc(n * sizeof *got);
    char label[80];
    snprintf(label, sizeof label, "groups %d rows %d heads %d dim %d", nb, rows, heads, dim);
    run(ts->at[0].b, nb, rows, heads, dim, gap, qkv, ref);
    if (by_formula) {
        formula(nb, rows, heads, dim, qkv, want);
        kt_compare(label, "ref against the formula", ref, want, n, 2e-7);
    }
    for (int i = 1; i < ts->n; i++) { /* the same reasons as in test_attention.c */
        run(ts->at[i].b, nb, rows, heads, dim, gap, qkv, got);
        kt_compare(label, ts->at[i].name, got, ref, n, 2e-5);
    }
    free(qkv);
    free(want);
    free(ref);
    free(got);
}

static void every_row_attends_to_all_rows_of_its_group(void **state)
{
    /* groups, rows, heads, dim, gap: CLIP-like, VQGAN-like, odd ones */
    static const int shapes[][5] = {{2, 37, 4, 64, 0},  {1, 64, 1, 80, 0},  {3, 1, 2, 8, 4},
                                    {2, 5, 3, 7, 3},    {1, 130, 1, 33, 1}, {1, 70, 1, 200, 0},
                                    {2, 20, 1, 512, 4}, {1, 66, 2, 128, 0}};
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        check(*state, shapes[s], s, true);
}

/* Every number of rows up to 66, around tiles, CLIP's 577 and VQGAN's 1024, with every kind of dim.
 */
static void sweep_of_rows_and_dims_matches_ref(void **state)
{
    static const int more_rows[] = {127, 128, 129, 192, 200, 257, 300, 577, 1024};
    static const int dims[] = {1,  2,  3,  7,  8,  16, 17,  24,  32,  33,  40,
                               48, 64, 64, 72, 80, 96, 100, 128, 129, 256, 512};
    enum { ROUNDS = 3 };
    size_t n_rows = 66 + sizeof more_rows / sizeof *more_rows;
    uint64_t seed = 5000;
    for (size_t i = 0; i < n_rows * ROUNDS; i++) {
        uint64_t s = ++seed;
        int rows = (int)(i / ROUNDS) + 1;
        int shape[] = {1 + kt_below(&s, 3), rows > 66 ? more_rows[rows - 67] : rows,
                       1 + kt_below(&s, 4), dims[kt_below(&s, 22)], kt_below(&s, 3) * 4};
        if (shape[1] > 256) { /* one group, and not too many products */
            shape[0] = shape[2] = 1;
            shape[3] = shape[3] > 128 ? 64 : shape[3];
        }
        if (kt_sweep(i, 60))
            check(*state, shape, seed, false);
    }
}

static void a_group_is_the_same_alone_and_beside_a_faulty_group(void **state)
{
    struct kt_targets *ts = *state;
    enum { ROWS = 19, H = 2, P = 20, N = ROWS * H * P };
    float *qkv = kt_random(3 * 3 * N, 9, 1), *all = malloc(3 * N * sizeof *all), alone[N];
    qkv[4] = NAN;         /* group 0 */
    qkv[2 * 3 * N] = NAN; /* group 2 */
    for (int i = 0; i < ts->n; i++) {
        run(ts->at[i].b, 3, ROWS, H, P, 0, qkv, all);
        run(ts->at[i].b, 1, ROWS, H, P, 0, qkv + 3 * N, alone);
        kt_identical("middle group", ts->at[i].name, all + N, alone, N);
        assert_true(isnan(all[0]));
    }
    free(qkv);
    free(all);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_row_attends_to_all_rows_of_its_group),
        cmocka_unit_test(a_group_is_the_same_alone_and_beside_a_faulty_group),
        cmocka_unit_test(sweep_of_rows_and_dims_matches_ref),
    };
    return cmocka_run_group_tests(tests, kt_setup, kt_teardown);
}
