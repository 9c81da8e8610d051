/* Class row, patch rows and positions of several images. */
#include "tests/kernels/parity.h"

static void check(struct kt_targets *ts, size_t D)
{
    enum { IMAGES = 3, PATCHES = 9, MAX_D = 1100, ROWS = 1 + PATCHES };
    float *patches = kt_random(IMAGES * PATCHES * D, 1, 1), *cls = kt_random(D, 2, 1);
    float *pos = kt_random(ROWS * D, 3, 1);
    static float want[IMAGES * ROWS * MAX_D], got[IMAGES * ROWS * MAX_D];
    for (size_t n = 0; n < IMAGES; n++)
        for (size_t i = 0; i < D; i++) {
            want[n * ROWS * D + i] = cls[i] + pos[i];
            for (size_t p = 0; p < PATCHES; p++)
                want[(n * ROWS + 1 + p) * D + i] =
                    patches[(n * PATCHES + p) * D + i] + pos[(1 + p) * D + i];
        }
    for (int i = 0; i < ts->n; i++) {
        struct hg_backend *b = ts->at[i].b;
        void *dp = kt_upload_act(b, patches, IMAGES * PATCHES * D);
        void *dc = kt_upload(b, cls, D * 4), *ds = kt_upload(b, pos, ROWS * D * 4);
        void *dy = kt_alloc_act(b, IMAGES * ROWS * D);
        struct hg_vision_embed_args a = {IMAGES, PATCHES, (int)D, HG_ROUND_NEVER, dp, dc, ds, dy};
        assert_int_equal(b->ops->vision_embed(b, &a), HG_STATUS_OK);
        kt_download_act(b, got, dy, IMAGES * ROWS * D);
        kt_identical("vision_embed", ts->at[i].name, got, want, IMAGES * ROWS * D);
        b->ops->free(b, dp);
        b->ops->free(b, dc);
        b->ops->free(b, ds);
        b->ops->free(b, dy);
    }
    free(patches);
    free(cls);
    free(pos);
}

static void class_row_comes_first_and_positions_are_added(void **state)
{
    check(*state, 21);
    check(*state, 24);
}

static void sweep_of_dims(void **state)
{
    static const size_t more[] = {128, 129, 255, 256, 260, 512, 1000, 1023, 1024, 1028};
    for (size_t i = 0; i < 100 + sizeof more / sizeof *more; i++)
        if (kt_sweep(i, 50))
            check(*state, i < 100 ? i + 1 : more[i - 100]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(class_row_comes_first_and_positions_are_added),
        cmocka_unit_test(sweep_of_dims),
    };
    return cmocka_run_group_tests(tests, kt_setup, kt_teardown);
}
