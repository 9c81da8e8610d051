/* Codebook rows by index. */
#include "tests/kernels/parity.h"

static void check(struct kt_targets *ts, size_t dim)
{
    enum { N_TABLE = 50, MAX_DIM = 300, N = 40 };
    float *table = kt_random(N_TABLE * dim, 1, 1);
    static float want[N * MAX_DIM], got[N * MAX_DIM];
    int32_t index[N];
    uint64_t seed = 4;
    for (int i = 0; i < N; i++) {
        index[i] = i < 2 ? i * (N_TABLE - 1) : kt_below(&seed, N_TABLE);
        memcpy(want + (size_t)i * dim, table + (size_t)index[i] * dim, dim * sizeof *table);
    }
    for (int i = 0; i < ts->n; i++) {
        struct hg_backend *b = ts->at[i].b;
        void *dt = kt_upload(b, table, N_TABLE * dim * sizeof *table);
        void *dy = kt_alloc_act(b, N * dim);
        struct hg_lookup_args a = {N, (int)dim, index, dt, dy};
        assert_int_equal(b->ops->lookup(b, &a), HG_STATUS_OK);
        kt_download_act(b, got, dy, N * dim);
        kt_identical("lookup", ts->at[i].name, got, want, N * dim);
        b->ops->free(b, dt);
        b->ops->free(b, dy);
    }
    free(table);
}

static void each_index_yields_its_codebook_row(void **state)
{
    check(*state, 13);
    check(*state, 16);
}

static void sweep_of_dims(void **state)
{
    for (size_t dim = 1; dim <= 300; dim++)
        if (kt_sweep(dim, 70))
            check(*state, dim);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_index_yields_its_codebook_row),
        cmocka_unit_test(sweep_of_dims),
    };
    return cmocka_run_group_tests(tests, kt_setup, kt_teardown);
}
