/* Memory runs out in a backend: opening, reserving, packing a weight, making a cache and running
 * the operations are repeated with the 1st, 2nd, 3rd, ... allocation failing. Each time the status
 * must say so, nothing may leak, and closing must work. */
#include "tests/common/fail_malloc.h"
#include "tests/kernels/parity.h"

enum { K = 18, N = 20, SIDE = 3, ROWS = 4 };

static float numbers[N * K];

static struct hg_weight_desc description(enum hg_dtype store)
{
    struct hg_host_tensor t = {.data = numbers, .type = HG_DTYPE_F32};
    struct hg_weight_desc d = {.name = "w", .n_in = K, .n_parts = 1, .store = store};
    d.parts[0].w = d.parts[0].bias = t;
    d.parts[0].n_out = N;
    d.parts[0].adapters[0] = (struct hg_adapter){t, t, t, 8, 4, 8};
    return d;
}

/* 3x3 convolution of 2 channels (K = 18) and a tiny dense attention. */
static enum hg_status run_ops(struct hg_backend *b, struct hg_weight *w, void *x, void *y)
{
    static const int32_t slot[ROWS] = {0, -1, 0, 0};
    struct hg_linear_args linear = {
        .w = w, .n_rows = ROWS, .x = x, .ldx = K, .slot = slot, .y = y, .ldy = N};
    struct hg_conv_args conv = {.w = w,
                                .kernel = 3,
                                .stride = 1,
                                .pad_lo = 1,
                                .pad_hi = 1,
                                .upsample = 1,
                                .height = SIDE,
                                .width = SIDE,
                                .channels = 2,
                                .swish = true,
                                .x = x,
                                .y = y};
    struct hg_attention_full_args full = {1, ROWS, 2, 3, 1, HG_ROUND_NEVER, x, x, x, 6, y};
    HG_TRY(b->ops->linear(b, &linear));
    HG_TRY(b->ops->conv(b, &conv));
    HG_TRY(b->ops->attention_full(b, &full));
    return b->ops->sync(b);
}

static enum hg_status whole_life(const char *name, enum hg_dtype store, struct hg_error *err)
{
    static const struct hg_backend_limits limits = {16, 32, 32, 16, 32, 1 << 12};
    const struct hg_kv_desc kv_desc = {2, 3, 1, 4, store};
    struct hg_weight_desc desc = description(store);
    struct hg_backend *b = NULL;
    struct hg_weight *w = NULL;
    struct hg_kv *kv = NULL;
    void *x = NULL, *y = NULL;
    enum hg_status status = HG_STATUS_OK;
    HG_TRY(hg_backend_open(name, &(struct hg_backend_options){.n_threads = 1}, &b, err));
    HG_TRY_OUT(b->ops->reserve(b, &limits, err));
    HG_TRY_OUT(b->ops->weight_create(b, &desc, &w, err));
    HG_TRY_OUT(b->ops->kv_create(b, &kv_desc, &kv, err));
    HG_TRY_OUT(b->ops->alloc(b, ROWS * K * sizeof(float), &x, err));
    HG_TRY_OUT(b->ops->alloc(b, SIDE * SIDE * N * sizeof(float), &y, err));
    HG_TRY_OUT(run_ops(b, w, x, y));
out:
    b->ops->free(b, y);
    b->ops->free(b, x);
    b->ops->kv_free(b, kv);
    b->ops->weight_free(b, w);
    hg_backend_close(b);
    return status;
}

static void exhaust(const char *name, enum hg_dtype store)
{
    for (long k = 1; k < 10000; k++) {
        struct hg_error err = {0};
        fail_at = k;
        n_live = n_refused = 0;
        counting = true;
        enum hg_status status = whole_life(name, store, &err);
        counting = false;
        if (n_live != 0)
            fail_msg("%s: allocation %ld failed: %ld blocks leaked", name, k, n_live);
        if (n_refused == 0) {
            assert_int_equal(status, HG_STATUS_OK);
            printf("  %s %s: %ld allocations, each failed once\n", name, hg_dtype_name(store),
                   k - 1);
            return;
        }
        if (status != HG_STATUS_NO_MEMORY)
            fail_msg("%s: allocation %ld failed: \"%s\" (%s)", name, k, hg_status_text(status),
                     err.text);
    }
    fail_msg("%s: does not end", name);
}

static void every_failed_allocation_is_reported_and_nothing_leaks(void **state)
{
    (void)state;
    static const char *const names[] = {"ref", "cpu-scalar", "cpu-avx2", "cpu-avx512"};
    if (!CAN_REPLACE_MALLOC)
        HG_TEST_SKIP("malloc belongs to the sanitizer");
    for (size_t i = 0; i < 4; i++) {
        struct hg_backend *b = NULL;
        if (hg_backend_open(names[i], &(struct hg_backend_options){.n_threads = 1}, &b, NULL) !=
            HG_STATUS_OK)
            continue; /* counted in test_backend.c */
        hg_backend_close(b);
        for (int store = HG_DTYPE_F32; store < HG_DTYPE_COUNT; store++)
            exhaust(names[i], (enum hg_dtype)store);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_failed_allocation_is_reported_and_nothing_leaks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
