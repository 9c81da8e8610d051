/* Token rows from table sets of every type, image rows from the feature buffer. */
#include "tests/kernels/parity.h"

static void tokens_and_features_land_in_their_rows(void **state)
{
    struct kt_targets *ts = *state;
    enum { V = 11, D = 37, T = 9, F = 3 };
    static const enum hg_dtype types[] = {HG_DTYPE_F32, HG_DTYPE_F16, HG_DTYPE_BF16};
    static const int32_t token[T] = {0, 10, -1, -3, 5, -2, 5, 0, 7};
    static const int32_t set[T] = {0, 3, 0, 0, 0, 3, 3, 3, 0}, zero[T] = {0};
    float *t0 = kt_random(V * D, 1, 1), *t3 = kt_random(V * D, 2, 1), *f = kt_random(F * D, 3, 1);
    struct hg_plan plan = {T, 1, 0, 1, token, zero, zero, zero, set, zero, NULL, NULL, NULL};
    for (size_t k = 0; k < 3; k++) {
        void *e0 = kt_encode(t0, V * D, types[k]), *e3 = kt_encode(t3, V * D, types[k]);
        float want[T * D], got[T * D];
        for (int t = 0; t < T; t++)
            for (int i = 0; i < D; i++)
                want[t * D + i] =
                    token[t] < 0 ? f[(-1 - token[t]) * D + i]
                                 : (float)kt_round(types[k], (set[t] ? t3 : t0)[token[t] * D + i]);
        for (int i = 0; i < ts->n; i++) {
            struct hg_backend *b = ts->at[i].b;
            size_t bytes = V * D * hg_dtype_bytes(types[k]);
            void *d0 = kt_upload(b, e0, bytes), *d3 = kt_upload(b, e3, bytes);
            void *df = kt_upload_act(b, f, F * D), *dy = kt_alloc_act(b, T * D);
            struct hg_embed_args a = {&plan, {d0, NULL, NULL, d3}, types[k], df, D, dy};
            assert_int_equal(b->ops->step_begin(b, &plan), HG_STATUS_OK);
            assert_int_equal(b->ops->embed(b, &a), HG_STATUS_OK);
            assert_int_equal(b->ops->step_end(b), HG_STATUS_OK);
            kt_download_act(b, got, dy, T * D);
            kt_identical(hg_dtype_name(types[k]), ts->at[i].name, got, want, T * D);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tokens_and_features_land_in_their_rows),
    };
    return cmocka_run_group_tests(tests, kt_setup, kt_teardown);
}
