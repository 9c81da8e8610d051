/* Pixels to bytes: clamp, scale, truncate (never round), report faults. */
#include <math.h>

#include "tests/kernels/parity.h"

static bool run(struct hg_backend *b, int n_pixels, const float *x, uint8_t *rgb)
{
    bool finite = false;
    void *dx = kt_upload_act(b, x, (size_t)n_pixels * 3);
    struct hg_to_rgb_args a = {n_pixels, dx, rgb, &finite};
    assert_int_equal(b->ops->to_rgb(b, &a), HG_STATUS_OK);
    assert_int_equal(b->ops->sync(b), HG_STATUS_OK);
    for (int i = 0; i < 3 * n_pixels; i++)
        kt_note(b, &(float){rgb[i]}, 1);
    b->ops->free(b, dx);
    return finite;
}

static void values_are_clamped_and_truncated(void **state)
{
    struct kt_targets *ts = *state;
    static const float x[12] = {-1,       1,    0,     -7,         7,       0.999f,
                                -0.9999f, 0.5f, -0.5f, 0.9921569f, 1.0001f, -0.0f};
    /* 0 -> 127.5 -> 127; 0.999 -> 254.87 -> 254; -0.9999 -> 0.01 -> 0; 0.5 -> 191.25; -0.5
     * -> 63.75; 0.9921569 (254 / 255 * 2 - 1) -> 254.00001 in fp32 */
    static const uint8_t want[12] = {0, 255, 127, 0, 255, 254, 0, 191, 63, 254, 255, 127};
    for (int i = 0; i < ts->n; i++) {
        uint8_t rgb[12];
        assert_true(run(ts->at[i].b, 4, x, rgb));
        for (int j = 0; j < 12; j++)
            assert_int_equal(rgb[j], want[j]);
    }
}

/* Bytes are equal on every path, because each fp32 step is rounded the same way everywhere. */
static void a_sweep_is_bit_equal_to_the_fp32_formula(void **state)
{
    struct kt_targets *ts = *state;
    enum { N = 4999 * 3 };
    float *x = malloc(N * sizeof *x);
    uint8_t *rgb = malloc(N);
    for (int i = 0; i < N; i++)
        x[i] = -1.1f + 2.2f * (float)i / N;
    for (int t = 0; t < ts->n; t++) {
        assert_true(run(ts->at[t].b, N / 3, x, rgb));
        for (int i = 0; i < N; i++) {
            volatile float v = fminf(fmaxf(x[i], -1), 1) + 1;
            v = v / 2;
            v = v * 255;
            assert_int_equal(rgb[i], (uint8_t)v);
        }
    }
    free(x);
    free(rgb);
}

static void nan_and_infinity_are_reported_and_leave_other_pixels_alone(void **state)
{
    struct kt_targets *ts = *state;
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    for (int i = 0; i < ts->n; i++)
        for (int k = 0; k < 3; k++)
            for (int at = 0; at < 99; at += 7) {
                float x[99] = {0};
                uint8_t rgb[99];
                x[at] = bad[k];
                assert_false(run(ts->at[i].b, 33, x, rgb));
                for (int j = 0; j < 99; j++)
                    assert_true(j == at || rgb[j] == 127);
            }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_are_clamped_and_truncated),
        cmocka_unit_test(a_sweep_is_bit_equal_to_the_fp32_formula),
        cmocka_unit_test(nan_and_infinity_are_reported_and_leave_other_pixels_alone),
    };
    return cmocka_run_group_tests(tests, kt_setup, kt_teardown);
}
