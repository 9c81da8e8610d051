/* The linear: weight types, norm prologue, epilogues, parts, strides, faulty rows. */
#include <math.h>

#include "tests/kernels/linear_case.h"

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
        /* groups of int4: several whole ones, a short last one */
        {3, 1280, 18},
        {14, 700, 35},
        /* enough rows and outputs for the large tiles of cuda */
        {70, 72, 90},
        {200, 330, 300},
    };
    uint64_t seed = 1;
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        for (size_t t = 0; t < KT_STORES; t++) {
            struct kt_linear_case c = {.n_rows = shapes[s][0],
                                       .n_in = shapes[s][1],
                                       .n_parts = 1,
                                       .n_out = {shapes[s][2]},
                                       .host = hosts[(s + t) % 3],
                                       .store = kt_stores[t],
                                       .bias = s % 2 == 0,
                                       .pad = s % 3 == 1 ? 5 : 0};
            kt_linear_check(*state, &c, seed++);
        }
}

static void norm_prologue_is_applied_before_the_weight(void **state)
{
    static const int dims[] = {5, 96, 257};
    for (size_t d = 0; d < 3; d++)
        for (size_t t = 0; t < KT_STORES; t++) {
            struct kt_linear_case c = {.n_rows = 9,
                                       .n_in = dims[d],
                                       .n_parts = 1,
                                       .n_out = {50},
                                       .host = HG_DTYPE_BF16,
                                       .store = kt_stores[t],
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
        for (size_t t = 0; t < KT_STORES; t++)
            for (int pad = 0; pad < 2; pad++) {
                struct kt_linear_case c = {.n_rows = 6,
                                           .n_in = 70,
                                           .n_parts = 1,
                                           .n_out = {46},
                                           .host = HG_DTYPE_F32,
                                           .store = kt_stores[t],
                                           .bias = true,
                                           .epilogue = epilogues[e],
                                           .pad = pad * 3};
                kt_linear_check(*state, &c, 200 + e * 8 + t * 2 + (size_t)pad);
            }
}

static void parts_are_stacked_along_the_outputs(void **state)
{
    for (size_t t = 0; t < KT_STORES; t++) {
        struct kt_linear_case c = {.n_rows = 5,
                                   .n_in = 40,
                                   .n_parts = 3,
                                   .n_out = {17, 5, 6},
                                   .host = hosts[t % 3],
                                   .store = kt_stores[t],
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
    for (size_t t = 0; t < KT_STORES; t++) {
        struct kt_linear l;
        struct kt_linear_case c = {.n_rows = 7,
                                   .n_in = 80,
                                   .n_parts = 1,
                                   .n_out = {21},
                                   .rank = {{8, 4, 16, 0}},
                                   .n_experts = 4,
                                   .host = HG_DTYPE_F32,
                                   .store = kt_stores[t],
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
    for (size_t t = 0; t < KT_STORES; t++) {
        struct kt_linear l;
        struct kt_linear_case c = {.n_rows = 2,
                                   .n_in = 40,
                                   .n_parts = 1,
                                   .n_out = {11},
                                   .host = HG_DTYPE_F32,
                                   .store = kt_stores[t],
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

/* Packing and back: row k of x is 1 at k, so row k of y is column k of the stored W. A scale, a
 * product of scales and the 127 of an int8 activation round once each: 3 * 2^-24 of a value. */
static void one_hot_rows_read_every_stored_weight_back(void **state)
{
    enum { K = 200, N = 45 };
    struct kt_targets *ts = *state;
    float *x = calloc((size_t)K * K, sizeof *x), *y = calloc((size_t)K * N, sizeof *y);
    float *w = kt_random((size_t)N * K, 600, 0.3f), *want = calloc((size_t)K * N, sizeof *want);
    float stored[K];
    for (int k = 0; k < K; k++)
        x[k * K + k] = 1;
    for (size_t t = 0; t < KT_STORES; t++) {
        struct hg_weight_desc d = {.name = "packed",
                                   .n_in = K,
                                   .n_parts = 1,
                                   .parts = {{.w = {.data = w, .type = HG_DTYPE_F32}, .n_out = N}},
                                   .store = kt_stores[t]};
        for (int n = 0; n < N; n++) {
            kt_stored(kt_stores[t], w + n * K, K, stored);
            for (int k = 0; k < K; k++)
                want[k * N + n] = stored[k];
        }
        for (int i = 0; i < ts->n; i++) {
            struct hg_backend *b = ts->at[i].b;
            struct hg_error err = {0};
            struct hg_weight *weight = NULL;
            HG_TEST_OK(b->ops->weight_create(b, &d, &weight, &err), err);
            void *dx = kt_upload_act(b, x, (size_t)K * K), *dy = kt_alloc_act(b, (size_t)K * N);
            struct hg_linear_args a = {
                .w = weight, .n_rows = K, .x = dx, .ldx = K, .y = dy, .ldy = N};
            assert_int_equal(b->ops->linear(b, &a), HG_STATUS_OK);
            kt_download_act(b, y, dy, (size_t)K * N);
            kt_compare(hg_dtype_name(kt_stores[t]), ts->at[i].name, y, want, (size_t)K * N, 2e-7);
            b->ops->free(b, dx);
            b->ops->free(b, dy);
            b->ops->weight_free(b, weight);
        }
    }
    free(x);
    free(y);
    free(w);
    free(want);
}

/* One row of K inputs through N outputs of a hand-made weight on every target. */
static void hand_computed(struct kt_targets *ts, enum hg_dtype store, const float *w, int n_in,
                          int n_out, const float *x, const float *want, double bound)
{
    struct hg_weight_desc d = {.name = "hand",
                               .n_in = n_in,
                               .n_parts = 1,
                               .parts = {{.w = {.data = w, .type = HG_DTYPE_F32}, .n_out = n_out}},
                               .store = store};
    for (int i = 0; i < ts->n; i++) {
        struct hg_backend *b = ts->at[i].b;
        struct hg_error err = {0};
        struct hg_weight *weight = NULL;
        float y[8];
        assert_true(n_out <= 8);
        HG_TEST_OK(b->ops->weight_create(b, &d, &weight, &err), err);
        size_t bits = (size_t)n_in * (size_t)n_out * hg_dtype_bits(store);
        assert_true(b->ops->weight_bytes(weight, -1) >= bits / 8);
        void *dx = kt_upload_act(b, x, (size_t)n_in), *dy = kt_alloc_act(b, (size_t)n_out);
        struct hg_linear_args a = {
            .w = weight, .n_rows = 1, .x = dx, .ldx = n_in, .y = dy, .ldy = n_out};
        assert_int_equal(b->ops->linear(b, &a), HG_STATUS_OK);
        kt_download_act(b, y, dy, (size_t)n_out);
        char label[64];
        snprintf(label, sizeof label, "hand-computed %s", hg_dtype_name(store));
        kt_compare(label, ts->at[i].name, y, want, (size_t)n_out, bound);
        b->ops->free(b, dx);
        b->ops->free(b, dy);
        b->ops->weight_free(b, weight);
    }
}

/* W = 4 x 2, by hand: int8 rows of scale max/127, activations likewise; sums exact. */
static void int8_rounding_follows_the_hand_computed_example(void **state)
{
    static const float w[] = {127, 1, -127, 64, 0, 0, 1, 1};
    static const float x[] = {254, 3}; /* scale 2: q = 127, 1.5 -> 2 (nearest even) */
    static const float want[] = {2 * (127 * 127 + 2), 2 * (-127 * 127 + 128), 0, 2 * (127 + 2)};
    hand_computed(*state, HG_DTYPE_I8, w, 2, 4, x, want, 1e-6);
}

/* Rows of scale 1, 1, 0 and 2^-3. 17 and 19 lie between multiples of 2 and go to the even one, 16
 * and 20; 1.5 * 2^-9 goes to 2 * 2^-9, the second subnormal. x keeps bits that bf16 would drop. */
static void e4m3_rounding_follows_the_hand_computed_example(void **state)
{
    static const float w[] = {448, 17, -448, 19, 0, 0, 56, 0.0029296875f / 8};
    static const float x[] = {1.001953125f, 3};
    static const float want[] = {448.875f + 48, -448.875f + 60, 0, 56.109375f + 0.01171875f / 8};
    hand_computed(*state, HG_DTYPE_F8, w, 2, 4, x, want, 1e-7);
}

/* Groups of 128 and 2. First: scale 1, 2.5 -> 2, 7.9 -> 8, which saturates at 7; x of scale 1, 1.5
 * -> 2. Second: the largest is positive, so the scale is -0.5, q = -8 and -2.5 -> -2; x of scale 2,
 * 1.5 -> 2. The second row's first group is zero. */
static void int4_rounding_follows_the_hand_computed_example(void **state)
{
    float w[2 * 130] = {-8, 2.5f, 7.9f}, x[130] = {127, 1.5f, -127};
    const float want[] = {-8 * 127 + 2 * 2 - 7 * 127 + 8 * 127 + 2 * 2, 2 * 127};
    w[128] = 4;
    w[129] = 1.25f;
    w[130 + 128] = 1; /* scale -1/8, q = -8 */
    x[128] = 254;
    x[129] = 3;
    hand_computed(*state, HG_DTYPE_I4, w, 130, 2, x, want, 1e-7);
}

/* A quantised row of W that holds a NaN or an infinity gives NaN and leaves its neighbours alone;
 * so does a group of int4 whose scale exceeds binary16. */
static void weight_row_that_is_not_finite_gives_nan(void **state)
{
    enum { K = 140, N = 5 };
    for (size_t t = HG_DTYPE_I8; t < KT_STORES; t++) {
        float w[N * K] = {0}, x[K] = {0}, want[N] = {1, NAN, 1, NAN, 1};
        for (int i = 0; i < N; i++)
            w[i * K + 3] = 1;
        x[3] = 1;
        w[1 * K + 139] = NAN;
        w[3 * K] = -INFINITY;
        if (kt_stores[t] == HG_DTYPE_I4) {
            w[4 * K + 139] = 1e6f;
            want[4] = NAN;
        }
        hand_computed(*state, kt_stores[t], w, K, N, x, want, 1e-6);
    }
}

/* A bf16 weight meets activations rounded to bf16: 1 + 2^-9 is 1, 1 + 3 * 2^-9 is 1 + 2^-7. */
static void bf16_weight_rounds_activations_to_nearest_even(void **state)
{
    static const float w[] = {1, 0, 0, 1};
    static const float x[] = {1.001953125f, 1.005859375f}; /* 1 + 2^-9, 1 + 3 * 2^-9 */
    static const float want[] = {1, 1.0078125f};
    hand_computed(*state, HG_DTYPE_BF16, w, 2, 2, x, want, 0);
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
    enum { N_TYPES = KT_STORES, ROUNDS = 6 };
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
                                   .store = kt_stores[i % N_TYPES],
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
        cmocka_unit_test(one_hot_rows_read_every_stored_weight_back),
        cmocka_unit_test(int8_rounding_follows_the_hand_computed_example),
        cmocka_unit_test(e4m3_rounding_follows_the_hand_computed_example),
        cmocka_unit_test(int4_rounding_follows_the_hand_computed_example),
        cmocka_unit_test(weight_row_that_is_not_finite_gives_nan),
        cmocka_unit_test(bf16_weight_rounds_activations_to_nearest_even),
        cmocka_unit_test(sweep_of_rows_types_and_odd_shapes_matches_ref),
    };
    return cmocka_run_group_tests(tests, kt_setup, kt_teardown);
}
