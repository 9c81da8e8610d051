/* Thread counts and strides beyond 2^31 elements change no bit of a linear or a convolution. */
#include <sys/mman.h>

#include "kernels/cpu/cpu_backend.h"
#include "tests/kernels/linear_case.h"

enum { MOST_THREADS = 5 };

static struct hg_backend *open_with(const char *path, int n_threads)
{
    struct hg_error err = {0};
    struct hg_backend *b = NULL;
    enum hg_status status = hg_cpu_open(path, n_threads, &b, &err);
    if (status == HG_STATUS_UNSUPPORTED)
        return NULL;
    HG_TEST_OK(status, err);
    HG_TEST_OK(b->ops->reserve(b, &kt_limits, &err), err);
    return b;
}

static const char *const paths[] = {"scalar", "avx2", "avx512"};

static void linear_is_bit_identical_with_1_to_5_threads(void **state)
{
    static const int rows[] = {1, 3, 61, 245}; /* 245: more than a chunk */
    (void)state;
    for (size_t p = 0; p < 3; p++)
        for (size_t t = 0; t < KT_STORES; t++)
            for (size_t r = 0; r < 4; r++) {
                struct kt_linear l;
                struct kt_linear_case c = {.n_rows = rows[r],
                                           .n_in = 300,
                                           .n_parts = 2,
                                           .n_out = {70, 70},
                                           .rank = {{8, 4, 16, 0}, {4, 0, 8, 12}},
                                           .n_experts = 4,
                                           .host = HG_DTYPE_F32,
                                           .store = kt_stores[t],
                                           .epilogue = HG_EPILOGUE_SWIGLU,
                                           .norm = true};
                kt_linear_init(&l, &c, 900 + r);
                size_t n = (size_t)c.n_rows * (size_t)l.y_dim;
                float *want = malloc(n * sizeof *want), *got = malloc(n * sizeof *got);
                for (int threads = 1; threads <= MOST_THREADS; threads += 2) {
                    struct hg_backend *b = open_with(paths[p], threads);
                    if (!b)
                        continue;
                    kt_linear_run(&l, b, NULL, c.n_rows, threads == 1 ? want : got);
                    if (threads > 1)
                        kt_identical(l.label, b->ops->describe(b), got, want, n);
                    hg_backend_close(b);
                }
                free(want);
                free(got);
                kt_linear_deinit(&l);
            }
}

/* One 12 x 12 image of 24 channels, GroupNorm of 4 groups, swish, x2 upsampling, 3 x 3 to 20. */
static void run_conv(struct hg_backend *b, const float *x, const struct hg_weight_desc *d, float *y)
{
    enum { SIDE = 12, C = 24, OUT = 4 * SIDE * SIDE };
    struct hg_error err = {0};
    struct hg_weight *w = NULL;
    float ones[C], zeros[C] = {0};
    for (int i = 0; i < C; i++)
        ones[i] = 1 + (float)i / 8;
    HG_TEST_OK(b->ops->weight_create(b, d, &w, &err), err);
    void *dx = kt_upload_act(b, x, SIDE * SIDE * C), *dy = kt_alloc_act(b, OUT * 20);
    struct hg_conv_args a = {.w = w,
                             .kernel = 3,
                             .stride = 1,
                             .pad_lo = 1,
                             .pad_hi = 1,
                             .upsample = 2,
                             .height = SIDE,
                             .width = SIDE,
                             .channels = C,
                             .norm_groups = 4,
                             .norm_weight = kt_upload(b, ones, sizeof ones),
                             .norm_bias = kt_upload(b, zeros, sizeof zeros),
                             .norm_eps = 1e-6f,
                             .swish = true,
                             .x = dx,
                             .y = dy};
    assert_int_equal(b->ops->conv(b, &a), HG_STATUS_OK);
    kt_download_act(b, y, dy, OUT * 20);
    b->ops->free(b, dx);
    b->ops->free(b, dy);
    b->ops->free(b, (void *)(uintptr_t)a.norm_weight);
    b->ops->free(b, (void *)(uintptr_t)a.norm_bias);
    b->ops->weight_free(b, w);
}

static void convolution_is_bit_identical_with_1_to_5_threads(void **state)
{
    enum { N = 4 * 12 * 12 * 20 };
    static float want[N], got[N];
    float *x = kt_random(12 * 12 * 24, 5, 1), *w = kt_random(9 * 24 * 20, 6, 0.1f);
    struct hg_weight_desc d = {.name = "conv",
                               .n_in = 9 * 24,
                               .n_parts = 1,
                               .parts = {{.w = {.data = w, .type = HG_DTYPE_F32}, .n_out = 20}},
                               .store = HG_DTYPE_F32};
    (void)state;
    for (size_t p = 0; p < 3; p++)
        for (int threads = 1; threads <= MOST_THREADS; threads += 2) {
            struct hg_backend *b = open_with(paths[p], threads);
            if (!b)
                continue;
            run_conv(b, x, &d, threads == 1 ? want : got);
            if (threads > 1)
                kt_identical("conv", b->ops->describe(b), got, want, N);
            hg_backend_close(b);
        }
    free(x);
    free(w);
}

static void strides_beyond_2_31_elements_reach_the_right_rows(void **state)
{
    enum { ROWS = 3, K = 40, N = 24 };
    const int64_t ld = ((int64_t)1 << 30) + 64; /* row 2 begins beyond element 2^31 */
    size_t bytes = (size_t)(2 * ld + 4096) * sizeof(float);
    float *big[2];
    (void)state;
    for (int i = 0; i < 2; i++) {
        big[i] = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (big[i] == MAP_FAILED)
            HG_TEST_SKIP("no address space for a sparse mapping of %zu bytes", bytes);
    }
    float *x = kt_random(ROWS * K, 3, 1), *w = kt_random(N * K, 4, 1), want[ROWS * N];
    struct hg_weight_desc d = {.name = "far",
                               .n_in = K,
                               .n_parts = 1,
                               .parts = {{.w = {.data = w, .type = HG_DTYPE_F32}, .n_out = N}},
                               .store = HG_DTYPE_F32};
    for (int r = 0; r < ROWS; r++)
        memcpy(big[0] + r * ld, x + r * K, K * sizeof *x);
    for (size_t p = 0; p < 3; p++) {
        struct hg_backend *b = open_with(paths[p], 2);
        struct hg_weight *weight = NULL;
        struct hg_error err = {0};
        if (!b)
            continue;
        HG_TEST_OK(b->ops->weight_create(b, &d, &weight, &err), err);
        struct hg_linear_args a = {
            .w = weight, .n_rows = ROWS, .x = x, .ldx = K, .y = want, .ldy = N};
        assert_int_equal(b->ops->linear(b, &a), HG_STATUS_OK);
        a.x = big[0];
        a.y = big[1];
        a.ldx = a.ldy = ld;
        assert_int_equal(b->ops->linear(b, &a), HG_STATUS_OK);
        for (int r = 0; r < ROWS; r++)
            kt_identical("far rows", paths[p], big[1] + r * ld, want + r * N, N);
        b->ops->weight_free(b, weight);
        hg_backend_close(b);
    }
    for (int i = 0; i < 2; i++)
        munmap(big[i], bytes);
    free(x);
    free(w);
}

static void backend_says_its_path_and_threads(void **state)
{
    struct hg_error err = {0};
    struct hg_backend *b = NULL;
    (void)state;
    HG_TEST_OK(hg_cpu_open("scalar", 2, &b, &err), err);
    assert_string_equal(b->ops->describe(b), "cpu scalar, 2 threads");
    hg_backend_close(b);
    HG_TEST_FAILS(hg_cpu_open("mmx", 1, &b, &err), HG_STATUS_BAD_REQUEST, err, "'mmx'");
    assert_null(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(linear_is_bit_identical_with_1_to_5_threads),
        cmocka_unit_test(convolution_is_bit_identical_with_1_to_5_threads),
        cmocka_unit_test(strides_beyond_2_31_elements_reach_the_right_rows),
        cmocka_unit_test(backend_says_its_path_and_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
