/* Token rows from table sets of every type, image rows from the feature buffer. */
#include "tests/kernels/parity.h"

static void check(struct kt_targets *ts, int D)
{
    enum { V = 11, MAX_D = 2056, T = 9, F = 3 };
    static const enum hg_dtype types[] = {HG_DTYPE_F32, HG_DTYPE_F16, HG_DTYPE_BF16};
    static const int32_t token[T] = {0, 10, -1, -3, 5, -2, 5, 0, 7};
    static const int32_t set[T] = {0, 3, 0, 0, 0, 3, 3, 3, 0}, zero[T] = {0};
    static float want[T * MAX_D], got[T * MAX_D];
    size_t n_table = (size_t)(V * D), n_y = (size_t)(T * D), n_features = (size_t)(F * D);
    float *t0 = kt_random(n_table, 1, 1), *t3 = kt_random(n_table, 2, 1);
    float *f = kt_random(n_features, 3, 1);
    struct hg_plan plan = {.n_tokens = T,
                           .n_seqs = 1,
                           .max_blocks = 1,
                           .token = token,
                           .pos = zero,
                           .seq = zero,
                           .slot = zero,
                           .table = set,
                           .block_table = zero};
    for (size_t k = 0; k < 3; k++) {
        void *e0 = kt_encode(t0, n_table, types[k]), *e3 = kt_encode(t3, n_table, types[k]);
        for (int t = 0; t < T; t++)
            for (int i = 0; i < D; i++)
                want[t * D + i] =
                    token[t] < 0 ? f[(-1 - token[t]) * D + i]
                                 : (float)kt_round(types[k], (set[t] ? t3 : t0)[token[t] * D + i]);
        for (int i = 0; i < ts->n; i++) {
            struct hg_backend *b = ts->at[i].b;
            size_t bytes = n_table * hg_dtype_bytes(types[k]);
            void *d0 = kt_upload(b, e0, bytes), *d3 = kt_upload(b, e3, bytes);
            void *df = kt_upload_act(b, f, n_features), *dy = kt_alloc_act(b, n_y);
            struct hg_embed_args a = {&plan, {d0, NULL, NULL, d3}, types[k], df, D, dy};
            assert_int_equal(b->ops->step_begin(b, &plan, NULL), HG_STATUS_OK);
            assert_int_equal(b->ops->embed(b, &a), HG_STATUS_OK);
            assert_int_equal(b->ops->step_end(b, NULL), HG_STATUS_OK);
            kt_download_act(b, got, dy, n_y);
            kt_identical(hg_dtype_name(types[k]), ts->at[i].name, got, want, n_y);
            b->ops->free(b, d0);
            b->ops->free(b, d3);
            b->ops->free(b, df);
            b->ops->free(b, dy);
        }
        free(e0);
        free(e3);
    }
    free(t0);
    free(t3);
    free(f);
}

static void tokens_and_features_land_in_their_rows(void **state)
{
    check(*state, 37);
    check(*state, 40);   /* rows of 16 bytes, fewer than a block takes */
    check(*state, 2056); /* and more */
}

static void sweep_of_dims(void **state)
{
    static const int more[] = {255, 256, 257, 512, 1000, 1024, 1032, 2047, 2048};
    for (size_t i = 0; i < 140 + sizeof more / sizeof *more; i++)
        if (kt_sweep(i, 60))
            check(*state, i < 140 ? (int)i + 1 : more[i - 140]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tokens_and_features_land_in_their_rows),
        cmocka_unit_test(sweep_of_dims),
    };
    return cmocka_run_group_tests(tests, kt_setup, kt_teardown);
}
