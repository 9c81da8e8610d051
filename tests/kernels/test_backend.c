/* Opening backends by name, memory, refusals of broken weights and of work beyond the limits. */
#include "tests/kernels/parity.h"

static void unknown_name_is_refused_with_the_list_of_names(void **state)
{
    (void)state;
    struct hg_backend *b = NULL;
    struct hg_error err = {0};
    HG_TEST_FAILS(hg_backend_open("tpu", &(struct hg_backend_options){.n_threads = 1}, &b, &err),
                  HG_STATUS_BAD_REQUEST, err, "'tpu'");
    static const char *const names[] = {"auto",       "cpu",  "cpu-scalar", "cpu-avx2",
                                        "cpu-avx512", "cuda", "ref"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        assert_non_null(strstr(err.text, names[i]));
    assert_null(b);
    HG_TEST_FAILS(hg_backend_open("", &(struct hg_backend_options){.n_threads = 1}, &b, &err),
                  HG_STATUS_BAD_REQUEST, err, "known:");
    HG_TEST_FAILS(hg_backend_open("cpu-", &(struct hg_backend_options){.n_threads = 1}, &b, &err),
                  HG_STATUS_BAD_REQUEST, err, "known:");
    hg_backend_close(NULL);
}

static void open_or_skip(const char *name)
{
    struct hg_backend *b = NULL;
    struct hg_error err = {0};
    enum hg_status status =
        hg_backend_open(name, &(struct hg_backend_options){.n_threads = 1}, &b, &err);
    if (status == HG_STATUS_UNSUPPORTED)
        HG_TEST_SKIP("%s", err.text);
    HG_TEST_OK(status, err);
    assert_non_null(b->ops->describe(b));
    assert_true(strlen(b->ops->describe(b)) > 0);
    printf("  %s is %s\n", name, b->ops->describe(b));
    hg_backend_close(b);
}

static void ref_opens(void **state)
{
    (void)state;
    open_or_skip("ref");
}

static void auto_opens(void **state)
{
    (void)state;
    open_or_skip("auto");
}

static void cpu_scalar_opens(void **state)
{
    (void)state;
    open_or_skip("cpu-scalar");
}

static void cpu_avx2_opens(void **state)
{
    (void)state;
    open_or_skip("cpu-avx2");
}

static void cpu_avx512_opens(void **state)
{
    (void)state;
    open_or_skip("cpu-avx512");
}

static void simt_opens(void **state)
{
    (void)state;
    open_or_skip("simt");
}

static void every_op_of_every_table_is_present(void **state)
{
    struct kt_targets *ts = *state;
    for (int i = 0; i < ts->n; i++) {
        const struct hg_backend_ops *ops = ts->at[i].b->ops;
        const char *const *first = (const char *const *)(const void *)&ops->close;
        const char *const *last = (const char *const *)(const void *)&ops->to_rgb;
        assert_string_equal(ops->name, kt_is_cuda(&ts->at[i]) ? "cuda" : i ? "cpu" : "ref");
        for (; first <= last; first++) /* all members from here on are function pointers */
            assert_non_null(*first);
    }
}

static void memory_is_zeroed_aligned_and_keeps_what_is_uploaded(void **state)
{
    struct kt_targets *ts = *state;
    for (int i = 0; i < ts->n; i++) {
        struct hg_backend *b = ts->at[i].b;
        struct hg_error err = {0};
        for (size_t bytes = 0; bytes < 300; bytes += 37) {
            void *p = NULL;
            uint8_t in[300], out[300];
            HG_TEST_OK(b->ops->alloc(b, bytes, &p, &err), err);
            assert_non_null(p);
            assert_int_equal((uintptr_t)p % 64, 0);
            assert_int_equal(b->ops->download(b, out, p, bytes), HG_STATUS_OK);
            assert_int_equal(b->ops->sync(b), HG_STATUS_OK);
            for (size_t j = 0; j < bytes; j++) {
                assert_int_equal(out[j], 0);
                in[j] = (uint8_t)(j * 7 + bytes);
            }
            assert_int_equal(b->ops->upload(b, p, in, bytes), HG_STATUS_OK);
            assert_int_equal(b->ops->download(b, out, p, bytes), HG_STATUS_OK);
            assert_int_equal(b->ops->sync(b), HG_STATUS_OK);
            assert_true(bytes == 0 || memcmp(in, out, bytes) == 0);
            b->ops->free(b, p);
        }
        b->ops->free(b, NULL);
        float x[5] = {1, -2, 0.5f, 1024, 0}, y[5];
        void *p = kt_upload_act(b, x, 5);
        kt_download_act(b, y, p, 5);
        kt_identical("activations", ts->at[i].name, y, x, 5);
        b->ops->free(b, p);
    }
}

static void impossible_allocation_is_an_error(void **state)
{
    struct kt_targets *ts = *state;
    for (int i = 0; i < ts->n; i++) {
        struct hg_error err = {0};
        void *p = NULL;
        assert_true(ts->at[i].b->ops->alloc(ts->at[i].b, SIZE_MAX - 5, &p, &err) != HG_STATUS_OK);
        assert_null(p);
        assert_true(err.text[0] != 0);
    }
}

static const float four[4] = {1, 2, 3, 4};

static struct hg_weight_desc good(void)
{
    struct hg_host_tensor t = {.data = four, .type = HG_DTYPE_F32};
    struct hg_weight_desc d = {.name = "layer 3 qkv", .n_in = 2, .n_parts = 1};
    d.parts[0].w = t;
    d.parts[0].n_out = 2;
    d.parts[0].adapters[1] = (struct hg_adapter){t, t, t, 2, 2, 8};
    return d;
}

static void broken_weight_descriptions_are_refused_by_name(void **state)
{
    struct kt_targets *ts = *state;
    struct hg_weight_desc wrong[9];
    for (int k = 0; k < 9; k++)
        wrong[k] = good();
    wrong[0].n_in = 0;
    wrong[1].n_parts = HG_MAX_PARTS + 1;
    wrong[2].n_parts = 0;
    wrong[3].parts[0].n_out = 0;
    wrong[4].parts[0].w.data = NULL;
    wrong[5].parts[0].adapters[1].n_experts = 3; /* rank 2 */
    wrong[6].parts[0].adapters[1].rank = -2;
    wrong[7].parts[0].adapters[1].route.data = NULL;
    wrong[8].parts[0].adapters[1].n_experts = 0;
    for (int i = 0; i < ts->n; i++) {
        struct hg_backend *b = ts->at[i].b;
        struct hg_weight_desc d = good();
        struct hg_weight *w = NULL;
        struct hg_error err = {0};
        HG_TEST_OK(b->ops->weight_create(b, &d, &w, &err), err);
        assert_true(b->ops->weight_bytes(w, -1) >= 4 * sizeof(float));
        b->ops->weight_free(b, w);
        b->ops->weight_free(b, NULL);
        b->ops->kv_free(b, NULL);
        for (int k = 0; k < 9; k++) {
            memset(&err, 0, sizeof err);
            w = NULL;
            enum hg_status s = b->ops->weight_create(b, &wrong[k], &w, &err);
            if (s == HG_STATUS_OK || w || !strstr(err.text, "layer 3 qkv"))
                fail_msg("%s on weight %d: %s '%s'", ts->at[i].name, k, hg_status_text(s),
                         err.text);
        }
    }
}

static void reserve_can_be_repeated_with_other_limits(void **state)
{
    struct kt_targets *ts = *state;
    for (int i = 0; i < ts->n; i++) {
        struct hg_error err = {0};
        struct hg_backend_limits small = {1, 8, 8, 8, 16, 64};
        HG_TEST_OK(ts->at[i].b->ops->reserve(ts->at[i].b, &small, &err), err);
        HG_TEST_OK(ts->at[i].b->ops->reserve(ts->at[i].b, &kt_limits, &err), err);
    }
}

/* Work beyond what was reserved must be refused, not overrun. */
static void a_linear_beyond_the_limits_is_refused(void **state)
{
    struct kt_targets *ts = *state;
    for (int i = 0; i < ts->n; i++) {
        struct hg_backend *b = ts->at[i].b;
        struct hg_error err = {0};
        struct hg_weight_desc d = good();
        struct hg_weight *w = NULL;
        HG_TEST_OK(b->ops->weight_create(b, &d, &w, &err), err);
        int n = kt_limits.max_rows + 1;
        void *x = kt_alloc_act(b, (size_t)n * 2), *y = kt_alloc_act(b, (size_t)n * 2);
        struct hg_linear_args a = {.w = w, .n_rows = n, .x = x, .ldx = 2, .y = y, .ldy = 2};
        assert_true(b->ops->linear(b, &a) != HG_STATUS_OK);
        a.n_rows = 0; /* nothing to do is fine */
        assert_int_equal(b->ops->linear(b, &a), HG_STATUS_OK);
        b->ops->free(b, x);
        b->ops->free(b, y);
        b->ops->weight_free(b, w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unknown_name_is_refused_with_the_list_of_names),
        cmocka_unit_test(ref_opens),
        cmocka_unit_test(auto_opens),
        cmocka_unit_test(cpu_scalar_opens),
        cmocka_unit_test(cpu_avx2_opens),
        cmocka_unit_test(cpu_avx512_opens),
        cmocka_unit_test(simt_opens),
        cmocka_unit_test(every_op_of_every_table_is_present),
        cmocka_unit_test(memory_is_zeroed_aligned_and_keeps_what_is_uploaded),
        cmocka_unit_test(impossible_allocation_is_an_error),
        cmocka_unit_test(broken_weight_descriptions_are_refused_by_name),
        cmocka_unit_test(reserve_can_be_repeated_with_other_limits),
        cmocka_unit_test(a_linear_beyond_the_limits_is_refused),
    };
    return cmocka_run_group_tests(tests, kt_setup, kt_teardown);
}
