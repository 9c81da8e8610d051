/* The cuda backend's pool, on an emulated card of a few megabytes (HG_SIMT_MEMORY): one allocation
 * of the driver, pieces of it, refusals with numbers, and the same results as without it. */
#include "tests/kernels/child.h"

static const struct hg_backend_options half = {.memory_utilization = 0.5};

static enum hg_status open_pool(const char *megabytes, const char *fault, struct hg_backend **b,
                                struct hg_error *err)
{
    setenv("HG_SIMT_MEMORY", megabytes, 1);
    setenv("HG_SIMT_FAULT", fault, 1);
    return hg_backend_open("simt", &half, b, err);
}

static struct hg_backend_memory memory_of(struct hg_backend *b)
{
    struct hg_backend_memory m;
    b->ops->memory(b, &m);
    return m;
}

/* "malloc:2" would fail a second allocation of the driver: there is none. */
static void everything_comes_out_of_one_allocation(const char *fault)
{
    static const struct hg_kv_desc desc = {2, 3, 1, 4, HG_DTYPE_F16};
    struct hg_error err = {0};
    struct hg_backend *b = NULL;
    struct hg_kv *kv = NULL;
    unsigned char bytes[100], *p[3];
    void *x[3];
    EXPECT(open_pool("40", fault, &b, &err) == HG_STATUS_OK);
    struct hg_backend_memory m = memory_of(b);
    EXPECT(m.card == 40000000 && m.free_at_open == 40000000);
    EXPECT(m.limit == 20000000 && m.used == 0 && m.largest == m.limit);
    for (int i = 0; i < 3; i++) {
        EXPECT(b->ops->alloc(b, 100, &x[i], &err) == HG_STATUS_OK);
        p[i] = x[i];
        EXPECT((uintptr_t)x[i] % 256 == 0);
        memset(bytes, 7, sizeof bytes);
        EXPECT(b->ops->upload(b, x[i], bytes, sizeof bytes) == HG_STATUS_OK);
    }
    EXPECT(p[1] - p[0] == 256 && p[2] - p[1] == 256);
    b->ops->free(b, x[1]);
    EXPECT(b->ops->alloc(b, 50, &x[1], &err) == HG_STATUS_OK);
    EXPECT(x[1] == p[1]); /* the hole, and it is clean again */
    EXPECT(b->ops->download(b, bytes, x[1], 50) == HG_STATUS_OK);
    for (int i = 0; i < 50; i++)
        EXPECT(bytes[i] == 0);
    EXPECT(b->ops->kv_create(b, &desc, &kv, &err) == HG_STATUS_OK);
    EXPECT(memory_of(b).used == 3 * 256 + 2 * 768);
    b->ops->kv_free(b, kv);
    for (int i = 0; i < 3; i++)
        b->ops->free(b, x[i]);
    m = memory_of(b);
    EXPECT(m.used == 0 && m.largest == m.limit);
    b->ops->close(b);
}

static void one_allocation_serves_all(void **state)
{
    kt_need_simt(state);
    kt_in_child(everything_comes_out_of_one_allocation, "");
    kt_in_child(everything_comes_out_of_one_allocation, "malloc:2");
}

static void ask_the_pool_for_too_much(const char *fault)
{
    struct hg_error err = {0};
    struct hg_backend *b = NULL;
    void *p = &err, *q = NULL;
    EXPECT(open_pool("40", fault, &b, &err) == HG_STATUS_OK);
    EXPECT(b->ops->alloc(b, 15000000, &q, &err) == HG_STATUS_OK);
    EXPECT(b->ops->alloc(b, 6000000, &p, &err) == HG_STATUS_NO_MEMORY && p == NULL);
    printf("  %s\n", err.text);
    EXPECT(strstr(err.text, "6000000 bytes wanted"));
    EXPECT(strstr(err.text, "the pool's 20000000"));
    EXPECT(b->ops->alloc(b, SIZE_MAX - 5, &p, &err) == HG_STATUS_TOO_LARGE);
    EXPECT(b->ops->alloc(b, SIZE_MAX / 2, &p, &err) == HG_STATUS_NO_MEMORY);
    b->ops->free(b, q);
    EXPECT(b->ops->alloc(b, 19000000, &p, &err) == HG_STATUS_OK);
    b->ops->close(b); /* the rest goes with the pool */
}

static void a_full_pool_refuses_with_the_numbers(void **state)
{
    kt_need_simt(state);
    kt_in_child(ask_the_pool_for_too_much, "");
}

static void fail_to_open(const char *fault)
{
    struct hg_error err = {0};
    struct hg_backend *b = NULL;
    EXPECT(open_pool("40", fault, &b, &err) == HG_STATUS_NO_MEMORY);
    EXPECT(b == NULL);
    printf("  %s: %s\n", fault, err.text);
    EXPECT(
        strstr(err.text, "no pool of 20 MB, 0.50 of the 40 MB that are free of the card's 40 MB"));
    EXPECT(strstr(err.text, "lower --gpu-memory-utilization"));
}

static void a_pool_that_cannot_be_had_is_refused_with_the_numbers(void **state)
{
    kt_need_simt(state);
    kt_in_child(fail_to_open, "malloc:1");
}

static void open_without_a_pool(const char *value)
{
    struct hg_error err = {0};
    struct hg_backend *b = NULL;
    void *p = NULL;
    setenv("HG_CUDA_POOL", value, 1);
    EXPECT(open_pool("40", "", &b, &err) == HG_STATUS_OK);
    bool has = memory_of(b).limit != 0;
    EXPECT(has == (strcmp(value, "0") != 0));
    EXPECT(b->ops->alloc(b, 30000000, &p, &err) == (has ? HG_STATUS_NO_MEMORY : HG_STATUS_OK));
    b->ops->free(b, p);
    b->ops->close(b);
}

static void the_environment_can_turn_it_off(void **state)
{
    kt_need_simt(state);
    kt_in_child(open_without_a_pool, "0");
    kt_in_child(open_without_a_pool, "1");
}

/* ---- uploads -----------------------------------------------------------------------------------
 */

/* Weights larger than both pinned buffers; one with a tile that is larger than a buffer. Bound: of
 * sums of n_in products near 2 in fp32, in another order. */
static const struct upload {
    const char *name;
    enum hg_dtype type;
    int n_in, n_out;
    float bound;
} uploads[] = {
    {"fp32", HG_DTYPE_F32, 5000, 700, 2e-3f},
    {"bf16", HG_DTYPE_BF16, 5000, 900, 2e-3f},
    {"int8", HG_DTYPE_I8, 5000, 1800, 2e-3f},
    {"wide", HG_DTYPE_F32, 70000, 40, 1e-2f},
};

static void multiply(const char *backend, const struct upload *u, const float *w, const float *x,
                     float *y)
{
    struct hg_backend_limits limits = {1, u->n_in, u->n_out, 1, 1, 1};
    struct hg_weight_desc desc = {
        .name = "w",
        .n_in = u->n_in,
        .n_parts = 1,
        .store = u->type,
        .parts = {{.w = {.data = w, .type = HG_DTYPE_F32}, .n_out = u->n_out}}};
    struct hg_error err = {0};
    struct hg_backend *b = NULL;
    struct hg_weight *packed = NULL;
    setenv("HG_SIMT_MEMORY", "400", 1);
    EXPECT(hg_backend_open(backend, &half, &b, &err) == HG_STATUS_OK);
    EXPECT(b->ops->reserve(b, &limits, &err) == HG_STATUS_OK);
    EXPECT(b->ops->weight_create(b, &desc, &packed, &err) == HG_STATUS_OK);
    void *dx = kt_upload_act(b, x, (size_t)u->n_in), *dy = kt_alloc_act(b, (size_t)u->n_out);
    struct hg_linear_args a = {
        .w = packed, .n_rows = 1, .x = dx, .ldx = u->n_in, .y = dy, .ldy = u->n_out};
    EXPECT(b->ops->linear(b, &a) == HG_STATUS_OK);
    kt_download_act(b, y, dy, (size_t)u->n_out);
    b->ops->free(b, dx);
    b->ops->free(b, dy);
    b->ops->weight_free(b, packed);
    b->ops->close(b);
}

/* y = W x for one row: every tile must have arrived where it belongs. The emulation copies out of
 * pinned memory as late as it may, so a buffer that is filled too early shows. */
static void upload_a_large_weight(const char *name)
{
    const struct upload *u = uploads;
    while (strcmp(u->name, name) != 0)
        u++;
    size_t n_in = (size_t)u->n_in, n_out = (size_t)u->n_out;
    float *w = kt_random(n_in * n_out, 5, 1), *x = kt_random(n_in, 6, 1), worst = 0;
    float *want = malloc(n_out * sizeof *want), *got = malloc(n_out * sizeof *got);
    multiply("ref", u, w, x, want);
    multiply("simt", u, w, x, got);
    for (size_t i = 0; i < n_out; i++) {
        float d = got[i] < want[i] ? want[i] - got[i] : got[i] - want[i];
        EXPECT(d <= u->bound); /* NaN too */
        worst = d > worst ? d : worst;
    }
    printf("  %s: largest difference from ref %g, bound %g\n", name, (double)worst,
           (double)u->bound);
    free(w);
    free(x);
    free(want);
    free(got);
}

static void weights_arrive_through_two_pinned_buffers(void **state)
{
    kt_need_simt(state);
    for (size_t i = 0; i < sizeof uploads / sizeof *uploads; i++)
        kt_in_child(upload_a_large_weight, uploads[i].name);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_allocation_serves_all),
        cmocka_unit_test(a_full_pool_refuses_with_the_numbers),
        cmocka_unit_test(a_pool_that_cannot_be_had_is_refused_with_the_numbers),
        cmocka_unit_test(the_environment_can_turn_it_off),
        cmocka_unit_test(weights_arrive_through_two_pinned_buffers),
    };
    return cmocka_run_group_tests(tests, kt_find_simt, NULL);
}
