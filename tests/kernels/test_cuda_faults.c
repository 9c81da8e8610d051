/* What the cuda backend answers when the device fails, by faults planted in the emulation
 * (HG_SIMT_FAULT, tests/simt/cuda_runtime.h). The emulated device lives as long as its library, so
 * each case runs in a child process and reports through its exit status. */
#include <sys/wait.h>
#include <unistd.h>

#include "tests/kernels/parity.h"

static const struct hg_backend_limits small = {8, 64, 64, 8, 64, 1 << 10};

static struct hg_backend *open_simt(const char *fault)
{
    struct hg_backend *b = NULL;
    struct hg_error err = {0};
    setenv("HG_SIMT_FAULT", fault, 1);
    HG_TEST_OK(hg_backend_open("simt", 1, &b, &err), err);
    return b;
}

/* Runs a case in a child, returns its exit code; its printed failure is the child's own. */
static int code_of_child(void (*run)(const char *fault), const char *fault)
{
    int status = 0;
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        run(fault);
        fflush(NULL);
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    if (!WIFEXITED(status))
        fail_msg("with %s the child ended with status %d", fault, status);
    return WEXITSTATUS(status);
}

static void in_child(void (*run)(const char *fault), const char *fault)
{
    int code = code_of_child(run, fault);
    if (code != 0)
        fail_msg("with %s the child ended with code %d", fault, code);
}

/* cmocka's assertions jump back into the parent's test, which the child must not go on with. */
#define EXPECT(condition)                                                                          \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);                \
            _exit(1);                                                                              \
        }                                                                                          \
    } while (0)

static int skip_without_simt(void **state)
{
    struct hg_backend *b = NULL;
    struct hg_error err = {0};
    *state = hg_backend_open("simt", 1, &b, &err) == HG_STATUS_OK ? "simt" : NULL;
    hg_backend_close(b);
    return 0;
}

static void need_simt(void **state)
{
    if (!*state)
        HG_TEST_SKIP("faults of a device: libhealthgpt_simt.so is not found");
}

/* ---- opening --------------------------------------------------------------------------------- */

static void refuse_to_open(const char *fault)
{
    struct hg_backend *b = NULL;
    struct hg_error err = {0};
    setenv("HG_SIMT_FAULT", fault, 1);
    EXPECT(hg_backend_open("simt", 1, &b, &err) == HG_STATUS_UNSUPPORTED);
    EXPECT(b == NULL);
    printf("  %s: %s\n", fault, err.text);
    EXPECT(strstr(err.text, "--backend cpu"));
    EXPECT(strcmp(fault, "device") || strstr(err.text, "no device (cudaErrorNoDevice)"));
    EXPECT(strcmp(fault, "device") || strstr(err.text, "CUDA_VISIBLE_DEVICES"));
    EXPECT(strcmp(fault, "driver") || strstr(err.text, "CUDA 11.4, this build needs 13.0"));
    EXPECT(strcmp(fault, "nodriver") || strstr(err.text, "no NVIDIA driver"));
}

static void without_a_device_the_text_tells_what_to_do(void **state)
{
    need_simt(state);
    in_child(refuse_to_open, "device");
    in_child(refuse_to_open, "driver");
    in_child(refuse_to_open, "nodriver");
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
    need_simt(state);
    for (int n = 1; n <= 10; n++) { /* nine device buffers and the pinned one */
        char fault[32];
        snprintf(fault, sizeof fault, "malloc:%d", n);
        in_child(run_out_while_reserving, fault);
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
    need_simt(state);
    in_child(ask_for_too_much, "");
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
    need_simt(state);
    int n_cache = 0;
    for (int n = 1, code = 0; code != FROM_NOTHING; n++) {
        char fault[32];
        assert_true(n < 100);
        snprintf(fault, sizeof fault, "malloc:%d", n);
        code = code_of_child(run_out_while_making_a_cache, fault);
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
    d.parts[0].w = (struct hg_host_tensor){numbers, HG_DTYPE_F32};
    d.parts[0].n_out = DIM;
    d.pair = P;
    EXPECT(b->ops->reserve(b, &small, &err) == HG_STATUS_OK);
    EXPECT(b->ops->kv_create(b, &desc, &kv, &err) == HG_STATUS_OK);
    EXPECT(b->ops->reserve(b, &large, &err) == HG_STATUS_OK);
    EXPECT(b->ops->weight_create(b, &d, &w, &err) == HG_STATUS_OK);
    EXPECT(b->ops->alloc(b, sizeof(float[ROWS * (P + 1)]), &x, &err) == HG_STATUS_OK);
    for (int n = 8; n <= ROWS; n += ROWS - 8) {
        struct hg_plan plan = {n, 1, 0, 1, zero, pos, zero, zero, zero, zero, NULL, NULL, NULL};
        struct hg_rope_kv rope = {&plan, x, kv, 0, 1, 1, P};
        struct hg_linear_args a = {.w = w,
                                   .n_rows = n,
                                   .x = x,
                                   .ldx = 1,
                                   .epilogue = HG_EPILOGUE_ROPE_KV,
                                   .rope = &rope,
                                   .y = (float *)x + ROWS,
                                   .ldy = P};
        EXPECT(b->ops->step_begin(b, &plan) == HG_STATUS_OK);
        EXPECT(b->ops->linear(b, &a) == (n == 8 ? HG_STATUS_OK : HG_STATUS_INTERNAL));
        EXPECT(b->ops->step_end(b) == HG_STATUS_OK);
    }
    b->ops->weight_free(b, w);
    b->ops->kv_free(b, kv);
    b->ops->free(b, x);
    b->ops->close(b);
}

static void an_int8_cache_refuses_more_rows_than_it_was_made_for(void **state)
{
    need_simt(state);
    in_child(append_more_than_the_cache_was_made_for, "");
}

/* ---- a broken device ------------------------------------------------------------------------- */

/* Everything answers DEVICE from now on; closing still works. */
static void expect_lost(struct hg_backend *b, void *x)
{
    struct hg_error err = {0};
    struct hg_plan plan = {0};
    struct hg_lookup_args lookup = {1, 4, (const int32_t[]){0}, x, x};
    struct hg_vision_embed_args vision = {1, 1, 4, x, x, x, x};
    float y[4] = {0};
    void *p = NULL;
    EXPECT(b->ops->upload(b, x, y, sizeof y) == HG_STATUS_DEVICE);
    EXPECT(b->ops->download(b, y, x, sizeof y) == HG_STATUS_DEVICE);
    EXPECT(b->ops->sync(b) == HG_STATUS_DEVICE);
    EXPECT(b->ops->step_begin(b, &plan) == HG_STATUS_DEVICE);
    EXPECT(b->ops->step_end(b) == HG_STATUS_DEVICE);
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
    struct hg_vision_embed_args vision = {1, 1, 4, x, x, x, x};
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
    need_simt(state);
    in_child(break_at_launch, "launch:2");
}

static void a_failed_copy_loses_the_device(void **state)
{
    need_simt(state);
    in_child(break_at_copy, "copy:2");
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
    };
    return cmocka_run_group_tests(tests, skip_without_simt, NULL);
}
