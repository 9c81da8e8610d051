/* The linear: weight types, norm prologue, epilogues, parts, strides, faulty rows. */
#include <math.h>

#include "tests/kernels/linear_case.h"

static const enum hg_dtype stores[] = {HG_DTYPE_F32, HG_DTYPE_F16, HG_DTYPE_BF16, HG_DTYPE_I8};
static const enum hg_dtype hosts[] = {HG_DTYPE_F32, HG_DTYPE_F16, HG_DTYPE_BF16};

static void linear_of_every_type_and_odd_shape_matches_the_formula(void **state)
{
    static const int shapes[][3] = {
        /* rows, K, N: vector tails of every width, one row, more rows than a tile */
        {1, 1, 1},
        {1, 16, 8},
        {2, 7, 3},
        {3, 33, 17},
        {5, 64, 31},
        {7, 65, 64},
        {1, 127, 5},
        {16, 130, 9},
        {17, 255, 33},
        {33, 48, 40},
        {1, 1024, 7},
        {4, 1031, 19},
        {65, 96, 21},
        {130, 40, 12},
        /* enough rows and outputs for the large tiles of cuda */
        {70, 72, 90},
        {200, 330, 300},
    };
    uint64_t seed = 1;
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        for (size_t t = 0; t < 4; t++) {
            struct kt_linear_case c = {.n_rows = shapes[s][0],
                                       .n_in = shapes[s][1],
                                       .n_parts = 1,
                                       .n_out = {shapes[s][2]},
                                       .host = hosts[(s + t) % 3],
                                       .store = stores[t],
                                       .bias = s % 2 == 0,
                                       .pad = s % 3 == 1 ? 5 : 0};
            kt_linear_check(*state, &c, seed++);
        }
}

static void norm_prologue_is_applied_before_the_weight(void **state)
{
    static const int dims[] = {5, 96, 257};
    for (size_t d = 0; d < 3; d++)
        for (size_t t = 0; t < 4; t++) {
            struct kt_linear_case c = {.n_rows = 9,
                                       .n_in = dims[d],
                                       .n_parts = 1,
                                       .n_out = {50},
                                       .host = HG_DTYPE_BF16,
                                       .store = stores[t],
                                       .norm = true,
                                       .pad = (int)d};
            kt_linear_check(*state, &c, 100 + d * 4 + t);
        }
}

static void every_epilogue_matches_its_formula(void **state)
{
    static const enum hg_epilogue epilogues[] = {HG_EPILOGUE_RESIDUAL, HG_EPILOGUE_SWIGLU,
                                                 HG_EPILOGUE_QUICK_GELU, HG_EPILOGUE_GELU};
    for (size_t e = 0; e < 4; e++)
        for (size_t t = 0; t < 4; t++)
            for (int pad = 0; pad < 2; pad++) {
                struct kt_linear_case c = {.n_rows = 6,
                                           .n_in = 70,
                                           .n_parts = 1,
                                           .n_out = {46},
                                           .host = HG_DTYPE_F32,
                                           .store = stores[t],
                                           .bias = true,
                                           .epilogue = epilogues[e],
                                           .pad = pad * 3};
                kt_linear_check(*state, &c, 200 + e * 8 + t * 2 + (size_t)pad);
            }
}

static void parts_are_stacked_along_the_outputs(void **state)
{
    for (size_t t = 0; t < 4; t++) {
        struct kt_linear_case c = {.n_rows = 5,
                                   .n_in = 40,
                                   .n_parts = 3,
                                   .n_out = {17, 5, 6},
                                   .host = hosts[t % 3],
                                   .store = stores[t],
                                   .bias = true};
        kt_linear_check(*state, &c, 300 + t);
        c.n_parts = 2;
        c.n_out[1] = 17;
        c.epilogue = HG_EPILOGUE_SWIGLU;
        kt_linear_check(*state, &c, 310 + t);
    }
}

/* A NaN or an infinity makes its own row NaN or infinite and leaves every other row as it was. */
static void faulty_row_is_visible_and_does_not_touch_its_neighbours(void **state)
{
    struct kt_targets *ts = *state;
    for (size_t t = 0; t < 4; t++) {
        struct kt_linear l;
        struct kt_linear_case c = {.n_rows = 7,
                                   .n_in = 80,
                                   .n_parts = 1,
                                   .n_out = {21},
                                   .rank = {{8, 4, 16, 0}},
                                   .n_experts = 4,
                                   .host = HG_DTYPE_F32,
                                   .store = stores[t],
                                   .norm = t % 2 == 1};
        kt_linear_init(&l, &c, 400 + t);
        for (int i = 0; i < ts->n; i++) {
            float clean[7 * 21], dirty[7 * 21];
            kt_linear_run(&l, ts->at[i].b, NULL, 7, clean);
            float keep[2] = {l.x[3 * 80 + 41], l.x[5 * 80]};
            l.x[3 * 80 + 41] = NAN;
            l.x[5 * 80] = INFINITY;
            kt_linear_run(&l, ts->at[i].b, NULL, 7, dirty);
            l.x[3 * 80 + 41] = keep[0];
            l.x[5 * 80] = keep[1];
            for (int row = 0; row < 7; row++)
                if (row != 3 && row != 5)
                    kt_identical(l.label, ts->at[i].name, dirty + row * 21, clean + row * 21, 21);
            for (int j = 0; j < 21; j++) {
                assert_true(!isfinite(dirty[3 * 21 + j]));
                assert_true(!isfinite(dirty[5 * 21 + j]));
            }
        }
        kt_linear_deinit(&l);
    }
}

static void all_zero_row_gives_the_bias(void **state)
{
    struct kt_targets *ts = *state;
    for (size_t t = 0; t < 4; t++) {
        struct kt_linear l;
        struct kt_linear_case c = {.n_rows = 2,
                                   .n_in = 40,
                                   .n_parts = 1,
                                   .n_out = {11},
                                   .host = HG_DTYPE_F32,
                                   .store = stores[t],
                                   .bias = true,
                                   .norm = true};
        kt_linear_init(&l, &c, 500 + t);
        memset(l.x, 0, 2 * 40 * sizeof *l.x);
        for (int i = 0; i < ts->n; i++) {
            float y[22];
            kt_linear_run(&l, ts->at[i].b, NULL, 2, y);
            kt_identical(l.label, ts->at[i].name, y, l.desc.parts[0].bias.data, 11);
        }
        kt_linear_deinit(&l);
    }
}

/* W = 4 x 2, by hand: int8 rows of scale max/127, activations likewise; sums exact. */
static void int8_rounding_follows_the_hand_computed_example(void **state)
{
    struct kt_targets *ts = *state;
    static const float w[] = {127, 1, -127, 64, 0, 0, 1, 1};
    static const float x[] = {254, 3}; /* scale 2: q = 127, 1.5 -> 2 (nearest even) */
    static const float want[] = {2 * (127 * 127 + 2), 2 * (-127 * 127 + 128), 0, 2 * (127 + 2)};
    struct hg_weight_desc d = {.name = "hand",
                               .n_in = 2,
                               .n_parts = 1,
                               .parts = {{.w = {w, HG_DTYPE_F32}, .n_out = 4}},
                               .store = HG_DTYPE_I8};
    for (int i = 0; i < ts->n; i++) {
        struct hg_backend *b = ts->at[i].b;
        struct hg_error err = {0};
        struct hg_weight *weight = NULL;
        float y[4];
        HG_TEST_OK(b->ops->weight_create(b, &d, &weight, &err), err);
        assert_true(b->ops->weight_bytes(weight) >= 8);
        void *dx = kt_upload_act(b, x, 2), *dy = kt_alloc_act(b, 4);
        struct hg_linear_args a = {.w = weight, .n_rows = 1, .x = dx, .ldx = 2, .y = dy, .ldy = 4};
        assert_int_equal(b->ops->linear(b, &a), HG_STATUS_OK);
        kt_download_act(b, y, dy, 4);
        kt_compare("hand-computed int8", ts->at[i].name, y, want, 4, 1e-6);
        b->ops->free(b, dx);
        b->ops->free(b, dy);
        b->ops->weight_free(b, weight);
    }
}

/* A bf16 weight meets activations rounded to bf16: 1 + 2^-9 is 1, 1 + 3 * 2^-9 is 1 + 2^-7. */
static void bf16_weight_rounds_activations_to_nearest_even(void **state)
{
    struct kt_targets *ts = *state;
    static const float w[] = {1, 0, 0, 1};
    static const float x[] = {1.001953125f, 1.005859375f}; /* 1 + 2^-9, 1 + 3 * 2^-9 */
    static const float want[] = {1, 1.0078125f};
    struct hg_weight_desc d = {.name = "hand",
                               .n_in = 2,
                               .n_parts = 1,
                               .parts = {{.w = {w, HG_DTYPE_F32}, .n_out = 2}},
                               .store = HG_DTYPE_BF16};
    for (int i = 0; i < ts->n; i++) {
        struct hg_backend *b = ts->at[i].b;
        struct hg_error err = {0};
        struct hg_weight *weight = NULL;
        float y[2];
        HG_TEST_OK(b->ops->weight_create(b, &d, &weight, &err), err);
        void *dx = kt_upload_act(b, x, 2), *dy = kt_alloc_act(b, 2);
        struct hg_linear_args a = {.w = weight, .n_rows = 1, .x = dx, .ldx = 2, .y = dy, .ldy = 2};
        assert_int_equal(b->ops->linear(b, &a), HG_STATUS_OK);
        kt_download_act(b, y, dy, 2);
        kt_identical("hand-computed bf16", ts->at[i].name, y, want, 2);
        b->ops->free(b, dx);
        b->ops->free(b, dy);
        b->ops->weight_free(b, weight);
    }
}

/* Every number of rows up to 64, and around the tiles beyond, with odd inputs and outputs of every
 * weight type. */
static void sweep_of_rows_types_and_odd_shapes_matches_ref(void **state)
{
    static const int more_rows[] = {65, 72, 96, 127, 128, 129, 160, 193, 255, 256};
    static const int inputs[] = {1,   2,   5,   8,   15,  16,   17,   31,   32,  33,  47,
                                 63,  64,  65,  96,  100, 127,  128,  129,  200, 255, 257,
                                 330, 384, 511, 513, 770, 1023, 1024, 1031, 2050};
    static const int outputs[] = {1,  2,  3,  7,  8,  9,   15,  16,  17,  24,  31,  33,
                                  40, 63, 64, 65, 90, 127, 128, 129, 192, 257, 300, 514};
    enum { N_TYPES = sizeof stores / sizeof *stores, ROUNDS = 6 };
    size_t n_rows = 64 + sizeof more_rows / sizeof *more_rows;
    uint64_t seed = 1000;
    for (size_t i = 0; i < n_rows * N_TYPES * ROUNDS; i++) {
        uint64_t s = ++seed;
        int rows = (int)(i / (N_TYPES * ROUNDS)) + 1;
        struct kt_linear_case c = {.n_rows = rows > 64 ? more_rows[rows - 65] : rows,
                                   .n_in =
                                       inputs[kt_below(&s, (int)(sizeof inputs / sizeof *inputs))],
                                   .n_parts = 1 + kt_below(&s, 3) / 2,
                                   .host = hosts[kt_below(&s, 3)],
                                   .store = stores[i % N_TYPES],
                                   .bias = kt_below(&s, 2),
                                   .norm = kt_below(&s, 2),
                                   .epilogue = (enum hg_epilogue)kt_below(&s, HG_EPILOGUE_ROPE_KV),
                                   .pad = kt_below(&s, 3) * 3};
        for (int p = 0; p < c.n_parts; p++)
            c.n_out[p] = outputs[kt_below(&s, (int)(sizeof outputs / sizeof *outputs))];
        if (c.epilogue == HG_EPILOGUE_SWIGLU) { /* pairs of outputs */
            c.n_out[0] *= c.n_parts == 1 ? 2 : 1;
            c.n_out[1] = c.n_parts == 2 ? c.n_out[0] : 0;
        }
        if (kt_sweep(i, 90))
            kt_linear_check_ref(*state, &c, seed);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(linear_of_every_type_and_odd_shape_matches_the_formula),
        cmocka_unit_test(norm_prologue_is_applied_before_the_weight),
        cmocka_unit_test(every_epilogue_matches_its_formula),
        cmocka_unit_test(parts_are_stacked_along_the_outputs),
        cmocka_unit_test(faulty_row_is_visible_and_does_not_touch_its_neighbours),
        cmocka_unit_test(all_zero_row_gives_the_bias),
        cmocka_unit_test(int8_rounding_follows_the_hand_computed_example),
        cmocka_unit_test(bf16_weight_rounds_activations_to_nearest_even),
        cmocka_unit_test(sweep_of_rows_types_and_odd_shapes_matches_ref),
    };
    return cmocka_run_group_tests(tests, kt_setup, kt_teardown);
}
