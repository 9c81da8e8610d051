/* What the cuda backend answers when the device fails, by faults planted in the emulation
 * (HG_SIMT_FAULT, tests/simt/cuda_runtime.h). The emulated device lives as long as its library, so
 * each case runs in a child process and reports through its exit status. */
#include "tests/kernels/child.h"

static const struct hg_backend_limits small = {8, 64, 64, 8, 64, 1 << 10};

static const struct hg_backend_options one_thread = {.n_threads = 1};

static struct hg_backend *open_simt(const char *fault)
{
    struct hg_backend *b = NULL;
    struct hg_error err = {0};
    setenv("HG_SIMT_FAULT", fault, 1);
    HG_TEST_OK(hg_backend_open("simt", &one_thread, &b, &err), err);
    return b;
}

/* ---- opening --------------------------------------------------------------------------------- */

/* Each its own text, which tells what to do, and its own exit code. */
static const struct {
    const char *fault, *parts[3];
    enum hg_status status;
} refusals[] = {
    {"device",
     {"no device (cudaErrorNoDevice)", "CUDA_VISIBLE_DEVICES", "--backend cpu"},
     HG_STATUS_UNSUPPORTED},
    {"driver",
     {"CUDA 11.4, this build needs 13.0", "update the driver", "--backend cpu"},
     HG_STATUS_UNSUPPORTED},
    {"nodriver", {"no NVIDIA driver", "install one", "--backend cpu"}, HG_STATUS_UNSUPPORTED},
    {"arch",
     {"SIMT emulation has compute capability 7.5", "8.0 or more", "--backend cpu"},
     HG_STATUS_UNSUPPORTED},
    {"image",
     {"no kernels for SIMT emulation (sm_90) in this build, which has sm_90, emulated",
      "cudaErrorNoKernelImageForDevice", "CUDA_ARCHS=90"},
     HG_STATUS_UNSUPPORTED},
    {"taken",
     {"device 0 cannot be used: cudaErrorDevicesUnavailable", "nvidia-smi", ""},
     HG_STATUS_DEVICE},
};

static void refuse_to_open(const char *fault)
{
    struct hg_backend *b = NULL;
    struct hg_error err = {0};
    size_t i = 0;
    while (strcmp(refusals[i].fault, fault) != 0)
        i++;
    setenv("HG_SIMT_FAULT", fault, 1);
    EXPECT(hg_backend_open("simt", &one_thread, &b, &err) == refusals[i].status);
    EXPECT(b == NULL);
    printf("  %s: exit %d: %s\n", fault, hg_status_exit_code(err.status), err.text);
    for (int k = 0; k < 3; k++)
        EXPECT(strstr(err.text, refusals[i].parts[k]));
}

static void without_a_device_the_text_tells_what_to_do(void **state)
{
    kt_need_simt(state);
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++)
        kt_in_child(refuse_to_open, refusals[i].fault);
}

/* ---- memory ---------------------------------------------------------------------------------- */

/* The n-th allocation of reserve fails; the backend stays usable and reserves again. */
static void run_out_while_reserving(const char *fault)
{
    struct hg_error err = {0};
    struct hg_backend *b = open_simt(fault);
    EXPECT(b->ops->reserve(b, &small, &err) == HG_STATUS_NO_MEMORY);
    EXPECT(strstr(err.text, " bytes"));
    EXPECT(strstr(err.text, "pinned memory: ") || strstr(err.text, "free"));
    printf("  %s: %s\n", fault, err.text);
    EXPECT(b->ops->reserve(b, &small, &err) == HG_STATUS_OK);
    EXPECT(b->ops->sync(b) == HG_STATUS_OK);
    b->ops->close(b);
}

static void reserve_names_the_bytes_that_are_missing(void **state)
{
    kt_need_simt(state);
    for (int n = 1; n <= 19; n++) { /* ten device buffers, nine pinned ones */
        char fault[32];
        snprintf(fault, sizeof fault, "malloc:%d", n);
        kt_in_child(run_out_while_reserving, fault);
    }
}

static void ask_for_too_much(const char *fault)
{
    struct hg_error err = {0};
    struct hg_backend *b = open_simt(fault);
    void *p = &err;
    EXPECT(b->ops->alloc(b, (size_t)1 << 40, &p, &err) == HG_STATUS_NO_MEMORY);
    EXPECT(p == NULL);
    EXPECT(strstr(err.text, "1099511627776 bytes wanted"));
    EXPECT(b->ops->alloc(b, SIZE_MAX - 5, &p, &err) == HG_STATUS_TOO_LARGE);
    EXPECT(b->ops->alloc(b, 100, &p, &err) == HG_STATUS_OK);
    b->ops->free(b, p);
    b->ops->close(b);
}

static void an_allocation_beyond_the_device_is_refused_and_forgotten(void **state)
{
    kt_need_simt(state);
    kt_in_child(ask_for_too_much, "");
}

/* The n-th allocation fails. Exit codes: NO_MEMORY from reserve, from kv_create, or none. */
enum { FROM_RESERVE = 20, FROM_CACHE, FROM_NOTHING };

static void run_out_while_making_a_cache(const char *fault)
{
    static const struct hg_kv_desc desc = {2, 3, 2, 16, HG_DTYPE_I8};
    struct hg_error err = {0};
    struct hg_kv *kv = NULL;
    struct hg_backend *b = open_simt(fault);
    if (b->ops->reserve(b, &small, &err) != HG_STATUS_OK)
        _exit(FROM_RESERVE);
    enum hg_status status = b->ops->kv_create(b, &desc, &kv, &err);
    if (status == HG_STATUS_OK)
        _exit(FROM_NOTHING);
    EXPECT(status == HG_STATUS_NO_MEMORY && kv == NULL && strstr(err.text, " bytes"));
    EXPECT(b->ops->kv_create(b, &desc, &kv, &err) == HG_STATUS_OK);
    b->ops->kv_free(b, kv);
    b->ops->close(b);
    _exit(FROM_CACHE);
}

/* k, v, their scales, and the rows on their way into them. */
static void an_int8_cache_is_made_whole_or_not_at_all(void **state)
{
    kt_need_simt(state);
    int n_cache = 0;
    for (int n = 1, code = 0; code != FROM_NOTHING; n++) {
        char fault[32];
        assert_true(n < 100);
        snprintf(fault, sizeof fault, "malloc:%d", n);
        code = kt_code_of_child(run_out_while_making_a_cache, fault);
        if (code < FROM_RESERVE)
            fail_msg("with %s the child ended with code %d", fault, code);
        n_cache += code == FROM_CACHE;
    }
    assert_int_equal(n_cache, 5);
}

/* The cache's rows are as many as reserve allowed when it was made. */
static void append_more_than_the_cache_was_made_for(const char *fault)
{
    enum { ROWS = 12, P = 16, DIM = 3 * P };
    static const struct hg_backend_limits large = {ROWS, 64, 64, 8, 64, 1 << 10};
    static const struct hg_kv_desc desc = {1, 1, 1, P, HG_DTYPE_I8};
    static const float numbers[DIM];
    static const int32_t zero[ROWS], pos[ROWS] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
    struct hg_error err = {0};
    struct hg_backend *b = open_simt(fault);
    struct hg_weight *w = NULL;
    struct hg_kv *kv = NULL;
    void *x = NULL;
    struct hg_weight_desc d = {.name = "w", .n_in = 1, .n_parts = 1, .store = HG_DTYPE_F32};
    d.parts[0].w = (struct hg_host_tensor){.data = numbers, .type = HG_DTYPE_F32};
    d.parts[0].n_out = DIM;
    d.pair = P;
    EXPECT(b->ops->reserve(b, &small, &err) == HG_STATUS_OK);
    EXPECT(b->ops->kv_create(b, &desc, &kv, &err) == HG_STATUS_OK);
    EXPECT(b->ops->reserve(b, &large, &err) == HG_STATUS_OK);
    EXPECT(b->ops->weight_create(b, &d, &w, &err) == HG_STATUS_OK);
    EXPECT(b->ops->alloc(b, sizeof(float[ROWS * (P + 1)]), &x, &err) == HG_STATUS_OK);
    for (int n = 8; n <= ROWS; n += ROWS - 8) {
        struct hg_plan plan = {.n_tokens = n,
                               .n_seqs = 1,
                               .max_blocks = 1,
                               .token = zero,
                               .pos = pos,
                               .seq = zero,
                               .slot = zero,
                               .table = zero,
                               .block_table = zero};
        struct hg_rope_kv rope = {&plan, x, kv, 0, 1, 1, P};
        struct hg_linear_args a = {.w = w,
                                   .n_rows = n,
                                   .x = x,
                                   .ldx = 1,
                                   .epilogue = HG_EPILOGUE_ROPE_KV,
                                   .rope = &rope,
                                   .y = (float *)x + ROWS,
                                   .ldy = P};
        EXPECT(b->ops->step_begin(b, &plan, NULL) == HG_STATUS_OK);
        EXPECT(b->ops->linear(b, &a) == (n == 8 ? HG_STATUS_OK : HG_STATUS_INTERNAL));
        EXPECT(b->ops->step_end(b, NULL) == HG_STATUS_OK);
    }
    b->ops->weight_free(b, w);
    b->ops->kv_free(b, kv);
    b->ops->free(b, x);
    b->ops->close(b);
}

static void an_int8_cache_refuses_more_rows_than_it_was_made_for(void **state)
{
    kt_need_simt(state);
    kt_in_child(append_more_than_the_cache_was_made_for, "");
}

/* ---- a broken device ------------------------------------------------------------------------- */

/* Everything answers DEVICE from now on; closing still works. */
static void expect_lost(struct hg_backend *b, void *x)
{
    struct hg_error err = {0};
    struct hg_plan plan = {0};
    struct hg_lookup_args lookup = {1, 4, (const int32_t[]){0}, x, x};
    struct hg_vision_embed_args vision = {1, 1, 4, HG_ROUND_NEVER, x, x, x, x};
    float y[4] = {0};
    void *p = NULL;
    EXPECT(b->ops->upload(b, x, y, sizeof y) == HG_STATUS_DEVICE);
    EXPECT(b->ops->download(b, y, x, sizeof y) == HG_STATUS_DEVICE);
    EXPECT(b->ops->sync(b) == HG_STATUS_DEVICE);
    EXPECT(b->ops->step_begin(b, &plan, NULL) == HG_STATUS_DEVICE);
    EXPECT(b->ops->step_end(b, NULL) == HG_STATUS_DEVICE);
    EXPECT(b->ops->lookup(b, &lookup) == HG_STATUS_DEVICE);
    EXPECT(b->ops->vision_embed(b, &vision) == HG_STATUS_DEVICE);
    EXPECT(b->ops->alloc(b, 64, &p, &err) == HG_STATUS_DEVICE && p == NULL);
    b->ops->free(b, x);
    b->ops->close(b);
}

static void break_at_launch(const char *fault)
{
    struct hg_error err = {0};
    struct hg_backend *b = open_simt(fault);
    void *x = NULL;
    EXPECT(b->ops->reserve(b, &small, &err) == HG_STATUS_OK);
    EXPECT(b->ops->alloc(b, 64, &x, &err) == HG_STATUS_OK);
    struct hg_vision_embed_args vision = {1, 1, 4, HG_ROUND_NEVER, x, x, x, x};
    EXPECT(b->ops->vision_embed(b, &vision) == HG_STATUS_OK);
    EXPECT(b->ops->vision_embed(b, &vision) == HG_STATUS_DEVICE);
    expect_lost(b, x);
}

static void break_at_copy(const char *fault)
{
    struct hg_error err = {0};
    struct hg_backend *b = open_simt(fault);
    float y[4] = {0};
    void *x = NULL;
    EXPECT(b->ops->reserve(b, &small, &err) == HG_STATUS_OK);
    EXPECT(b->ops->alloc(b, 64, &x, &err) == HG_STATUS_OK);
    EXPECT(b->ops->upload(b, x, y, sizeof y) == HG_STATUS_OK);
    EXPECT(b->ops->download(b, y, x, sizeof y) == HG_STATUS_DEVICE);
    expect_lost(b, x);
}

static void a_failed_launch_loses_the_device(void **state)
{
    kt_need_simt(state);
    kt_in_child(break_at_launch, "launch:2");
}

static void a_failed_copy_loses_the_device(void **state)
{
    kt_need_simt(state);
    kt_in_child(break_at_copy, "copy:2");
}

static void break_at_sync(const char *fault)
{
    struct hg_error err = {0};
    struct hg_backend *b = open_simt(fault);
    void *x = NULL;
    EXPECT(b->ops->reserve(b, &small, &err) == HG_STATUS_OK);
    EXPECT(b->ops->alloc(b, 64, &x, &err) == HG_STATUS_OK);
    EXPECT(b->ops->sync(b) == HG_STATUS_OK);
    EXPECT(b->ops->sync(b) == HG_STATUS_DEVICE);
    expect_lost(b, x);
}

static void a_failed_wait_loses_the_device(void **state)
{
    kt_need_simt(state);
    kt_in_child(break_at_sync, "sync:2");
}

/* The same with a driver that never returns from a call after it has lost its card: closing frees
 * nothing through it. */
static void a_lost_device_is_not_called_again(void **state)
{
    kt_need_simt(state);
    kt_in_child(break_at_launch, "launch:2!");
    kt_in_child(break_at_copy, "copy:2!");
    kt_in_child(break_at_sync, "sync:2!");
}

/* ---- while weights are loaded ------------------------------------------------------------------
 */

enum { WIDE = 1 << 14, TALL = 320 }; /* two pinned buffers and more, as fp32 */

static enum hg_status create_weight(struct hg_backend *b, struct hg_weight **w,
                                    struct hg_error *err)
{
    float *x = calloc((size_t)WIDE * TALL, sizeof *x);
    struct hg_weight_desc desc = {
        .name = "layer 7 up",
        .n_in = WIDE,
        .n_parts = 1,
        .store = HG_DTYPE_F32,
        .parts = {{.w = {.data = x, .type = HG_DTYPE_F32}, .n_out = TALL}}};
    enum hg_status status = b->ops->weight_create(b, &desc, w, err);
    free(x);
    return status;
}

static void break_while_loading(const char *fault)
{
    struct hg_error err = {0};
    struct hg_backend *b = open_simt(fault);
    struct hg_weight *w = NULL;
    EXPECT(create_weight(b, &w, &err) == HG_STATUS_DEVICE);
    printf("  %s: %s\n", fault, err.text);
    EXPECT(w == NULL && strstr(err.text, "device error"));
    EXPECT(b->ops->sync(b) == HG_STATUS_DEVICE);
    b->ops->close(b);
}

static void a_device_lost_while_weights_are_loaded(void **state)
{
    static const char *const faults[] = {"copy:1", "copy:4!", "event:1!", "event:7", "sync:1!"};
    kt_need_simt(state);
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++)
        kt_in_child(break_while_loading, faults[i]);
}

/* Device and pinned memory run out at every place of a weight's making; it is made afterwards. */
static void run_out_while_loading(const char *fault)
{
    struct hg_error err = {0};
    struct hg_backend *b = open_simt(fault);
    struct hg_weight *w = NULL;
    EXPECT(create_weight(b, &w, &err) == HG_STATUS_NO_MEMORY);
    printf("  %s: %s\n", fault, err.text);
    EXPECT(w == NULL && strstr(err.text, "memory: ") && strstr(err.text, " bytes"));
    EXPECT(create_weight(b, &w, &err) == HG_STATUS_OK);
    b->ops->weight_free(b, w);
    EXPECT(b->ops->sync(b) == HG_STATUS_OK);
    b->ops->close(b);
}

static void memory_that_runs_out_while_weights_are_loaded(void **state)
{
    kt_need_simt(state);
    for (int n = 1; n <= 5; n++) { /* bias, two pinned buffers, tiles, scales */
        char fault[32];
        snprintf(fault, sizeof fault, "malloc:%d", n);
        kt_in_child(run_out_while_loading, fault);
    }
}

static void run_out_for_the_cache(const char *fault)
{
    static const struct hg_kv_desc desc = {2, 3, 1, 4, HG_DTYPE_F16};
    struct hg_error err = {0};
    struct hg_backend *b = open_simt(fault);
    struct hg_kv *kv = NULL;
    EXPECT(b->ops->kv_create(b, &desc, &kv, &err) == HG_STATUS_NO_MEMORY);
    EXPECT(kv == NULL && strstr(err.text, " bytes wanted"));
    EXPECT(b->ops->kv_create(b, &desc, &kv, &err) == HG_STATUS_OK);
    b->ops->kv_free(b, kv);
    b->ops->close(b);
}

static void memory_that_runs_out_for_the_cache(void **state)
{
    kt_need_simt(state);
    kt_in_child(run_out_for_the_cache, "malloc:1");
    kt_in_child(run_out_for_the_cache, "malloc:2");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_a_device_the_text_tells_what_to_do),
        cmocka_unit_test(reserve_names_the_bytes_that_are_missing),
        cmocka_unit_test(an_allocation_beyond_the_device_is_refused_and_forgotten),
        cmocka_unit_test(an_int8_cache_is_made_whole_or_not_at_all),
        cmocka_unit_test(an_int8_cache_refuses_more_rows_than_it_was_made_for),
        cmocka_unit_test(a_failed_launch_loses_the_device),
        cmocka_unit_test(a_failed_copy_loses_the_device),
        cmocka_unit_test(a_failed_wait_loses_the_device),
        cmocka_unit_test(a_lost_device_is_not_called_again),
        cmocka_unit_test(a_device_lost_while_weights_are_loaded),
        cmocka_unit_test(memory_that_runs_out_while_weights_are_loaded),
        cmocka_unit_test(memory_that_runs_out_for_the_cache),
    };
    return cmocka_run_group_tests(tests, kt_find_simt, NULL);
}
