/* Patches of planar pixels in (c, ky, kx) order. */
#include "tests/kernels/parity.h"

static void check(struct kt_targets *ts, int images, int channels, int side, int patch)
{
    int grid = side / patch, k = channels * patch * patch;
    size_t n_pixels = (size_t)(images * channels * side * side);
    size_t n = (size_t)(images * grid * grid * k);
    float *x = kt_random(n_pixels, 1, 1);
    float *want = malloc(n * sizeof *want), *got = malloc(n * sizeof *got);
    for (size_t i = 0; i < n; i++) { /* from the place in y back to the pixel */
        int at = (int)(i % (size_t)k), row = (int)(i / (size_t)k);
        int c = at / (patch * patch), ky = at / patch % patch, kx = at % patch;
        int image = row / (grid * grid), py = row / grid % grid, px = row % grid;
        want[i] = x[((image * channels + c) * side + py * patch + ky) * side + px * patch + kx];
    }
    for (int i = 0; i < ts->n; i++) {
        struct hg_backend *b = ts->at[i].b;
        void *dx = kt_upload(b, x, n_pixels * sizeof *x), *dy = kt_alloc_act(b, n);
        struct hg_im2row_args a = {images, channels, side, patch, HG_ROUND_NEVER, dx, dy};
        assert_int_equal(b->ops->im2row(b, &a), HG_STATUS_OK);
        kt_download_act(b, got, dy, n);
        kt_identical("im2row", ts->at[i].name, got, want, n);
        b->ops->free(b, dx);
        b->ops->free(b, dy);
    }
    free(x);
    free(want);
    free(got);
}

static void patches_are_row_major_and_ordered_by_channel(void **state)
{
    check(*state, 1, 3, 28, 14);
    check(*state, 2, 3, 12, 4);
    check(*state, 3, 1, 5, 5);
    check(*state, 1, 2, 6, 1);
}

static void sweep_of_sides_and_patches(void **state)
{
    size_t i = 0;
    for (int patch = 1; patch <= 16; patch++)
        for (int grid = 1; grid <= 5; grid++, i++)
            if (kt_sweep(i, 20))
                check(*state, 1 + (int)(i % 3), 1 + (int)(i % 4), patch * grid, patch);
    if (hg_test_full())
        check(*state, 1, 3, 336, 14); /* CLIP ViT-L/14 */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(patches_are_row_major_and_ordered_by_channel),
        cmocka_unit_test(sweep_of_sides_and_patches),
    };
    return cmocka_run_group_tests(tests, kt_setup, kt_teardown);
}
