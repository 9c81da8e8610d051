/* Codebook rows by index. */
#include "tests/kernels/parity.h"

static void each_index_yields_its_codebook_row(void **state)
{
    struct kt_targets *ts = *state;
    enum { N_TABLE = 50, DIM = 13, N = 40 };
    float *table = kt_random(N_TABLE * DIM, 1, 1), want[N * DIM], got[N * DIM];
    int32_t index[N];
    uint64_t seed = 4;
    for (int i = 0; i < N; i++) {
        index[i] = i < 2 ? i * (N_TABLE - 1) : kt_below(&seed, N_TABLE);
        memcpy(want + i * DIM, table + index[i] * DIM, DIM * sizeof *table);
    }
    for (int i = 0; i < ts->n; i++) {
        struct hg_backend *b = ts->at[i].b;
        void *dt = kt_upload(b, table, N_TABLE * DIM * sizeof *table);
        void *dy = kt_alloc_act(b, N * DIM);
        struct hg_lookup_args a = {N, DIM, index, dt, dy};
        assert_int_equal(b->ops->lookup(b, &a), HG_STATUS_OK);
        kt_download_act(b, got, dy, N * DIM);
        kt_identical("lookup", ts->at[i].name, got, want, N * DIM);
        b->ops->free(b, dt);
        b->ops->free(b, dy);
    }
    free(table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_index_yields_its_codebook_row),
    };
    return cmocka_run_group_tests(tests, kt_setup, kt_teardown);
}
