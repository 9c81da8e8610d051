/* Weights that come quantised (the cache of model/load/quant_cache.h) are the same weights, bit for
 * bit and on every backend, as those that the backend quantises itself. */
#include <math.h>

#include "kernels/quantise.h"
#include "tests/kernels/linear_case.h"

static const enum hg_dtype types[] = {HG_DTYPE_I8, HG_DTYPE_F8, HG_DTYPE_I4};

/* A quantised copy of a matrix; data and scale are to be freed. */
static struct hg_host_tensor quantised(const struct hg_host_tensor *t, int n_out, int n_in,
                                       enum hg_dtype type)
{
    size_t code = hg_code_bytes(type, n_in), scale = hg_scale_bytes(type, n_in);
    uint8_t *q = malloc((size_t)n_out * code), *s = malloc((size_t)n_out * scale);
    assert_non_null(q);
    assert_non_null(s);
    for (int i = 0; i < n_out; i++)
        hg_quantise_row(type, (const float *)t->data + (size_t)i * (size_t)n_in, n_in,
                        q + (size_t)i * code, s + (size_t)i * scale);
    return (struct hg_host_tensor){.data = q, .type = type, .scale = s};
}

static void check(struct kt_targets *ts, const struct kt_linear_case *c, int faulty)
{
    struct kt_linear l;
    kt_linear_init(&l, c, 900 + (uint64_t)c->n_in);
    if (faulty) /* a row that is not finite keeps its NaN scale */
        ((float *)(uintptr_t)l.desc.parts[0].w.data)[c->n_in / 2] = NAN;
    size_t n = (size_t)c->n_rows * (size_t)l.y_dim;
    float *want = malloc(n * sizeof *want), *got = malloc(n * sizeof *got);
    struct hg_host_tensor plain[HG_MAX_PARTS], done[HG_MAX_PARTS];
    for (int p = 0; p < c->n_parts; p++) {
        plain[p] = l.desc.parts[p].w;
        done[p] = quantised(&plain[p], c->n_out[p], c->n_in, c->store);
    }
    for (int i = 0; i < ts->n; i++) {
        kt_linear_run(&l, ts->at[i].b, NULL, c->n_rows, want);
        for (int p = 0; p < c->n_parts; p++)
            l.desc.parts[p].w = done[p];
        kt_linear_run(&l, ts->at[i].b, NULL, c->n_rows, got);
        for (int p = 0; p < c->n_parts; p++)
            l.desc.parts[p].w = plain[p];
        kt_identical(l.label, ts->at[i].name, got, want, n);
    }
    for (int p = 0; p < c->n_parts; p++) {
        free((void *)(uintptr_t)done[p].data);
        free((void *)(uintptr_t)done[p].scale);
    }
    free(want);
    free(got);
    kt_linear_deinit(&l);
}

static void results_have_the_same_bits(void **state)
{
    static const int shapes[][3] = {/* rows, K, N */
                                    {1, 1, 1},
                                    {3, 33, 17},
                                    {2, 130, 9},
                                    {5, 640, 40},
                                    {2, 1032, 19}};
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        for (size_t t = 0; t < 3; t++) {
            struct kt_linear_case c = {.n_rows = shapes[s][0],
                                       .n_in = shapes[s][1],
                                       .n_parts = 1,
                                       .n_out = {shapes[s][2]},
                                       .host = HG_DTYPE_F32,
                                       .store = types[t],
                                       .bias = s % 2 == 0};
            check(*state, &c, 0);
            check(*state, &c, 1);
            c.n_parts = 3;
            c.n_out[1] = 5;
            c.n_out[2] = 16;
            check(*state, &c, 0);
            c.n_parts = 2;
            c.n_out[1] = c.n_out[0];
            c.epilogue = HG_EPILOGUE_SWIGLU;
            check(*state, &c, 0);
        }
}

static void another_type_than_the_stored_is_refused(void **state)
{
    struct kt_targets *ts = *state;
    static const float scale[4];
    static const int8_t q[4 * 8];
    struct hg_weight_desc d = {.name = "wrong", .n_in = 8, .n_parts = 1, .store = HG_DTYPE_I8};
    for (int i = 0; i < ts->n; i++) {
        struct hg_backend *b = ts->at[i].b;
        struct hg_weight *w = NULL;
        struct hg_error err = {0};
        d.parts[0] = (struct hg_weight_part){.w = {.data = q, .type = HG_DTYPE_F8, .scale = scale},
                                             .n_out = 4};
        HG_TEST_FAILS(b->ops->weight_create(b, &d, &w, &err), HG_STATUS_UNSUPPORTED, err, "f8");
        d.parts[0].w = (struct hg_host_tensor){.data = q, .type = HG_DTYPE_I8};
        HG_TEST_FAILS(b->ops->weight_create(b, &d, &w, &err), HG_STATUS_UNSUPPORTED, err, "i8");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(results_have_the_same_bits),
        cmocka_unit_test(another_type_than_the_stored_is_refused),
    };
    return cmocka_run_group_tests(tests, kt_setup, kt_teardown);
}
