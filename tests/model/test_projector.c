/* tests/model/test_projector.c - Linear, exact GELU, Linear against torch in double precision
 * (tests/golden/vision, made by tools/oracle/clip_oracle.py). */
#include "tests/test.h"

#include "model/projector.h"
#include "tests/model/tiny_file.h"
#include "tests/parity/tiny_model.h"

#define GOLDEN "tests/golden/vision/tiny_clip.safetensors"

enum { IN = 48, OUT = 40, ROWS = 9 };

static const struct hg_backend_limits limits = {.max_rows = ROWS, .max_in = IN, .max_out = OUT};

static void projector(struct tiny_file *f)
{
    *f = (struct tiny_file){0};
    tiny_file_add_linear(f, "model.mm_projector.0", OUT, IN);
    tiny_file_add_linear(f, "model.mm_projector.2", OUT, OUT);
}

static void run(struct hg_backend *b, struct hg_projector *p, int first, int n_rows, float *y)
{
    static float x[ROWS * IN];
    size_t act = hg_dtype_bytes(b->ops->act_type);
    void *from, *to;
    struct hg_error err;
    tiny_fill("features", ROWS * IN, 2, 0, x);
    HG_TEST_OK(b->ops->alloc(b, ROWS * IN * act, &from, &err), err);
    HG_TEST_OK(b->ops->alloc(b, ROWS * OUT * act, &to, &err), err);
    assert_int_equal(b->ops->upload_act(b, from, x, ROWS * IN), HG_STATUS_OK);
    from = hg_act_at(b, from, (int64_t)first * IN);
    assert_int_equal(hg_projector_run(p, from, n_rows, to), HG_STATUS_OK);
    assert_int_equal(b->ops->download_act(b, y, to, (size_t)n_rows * OUT), HG_STATUS_OK);
    b->ops->free(b, hg_act_at(b, from, -(int64_t)first * IN));
    b->ops->free(b, to);
}

static void rows_equal_those_of_torch(void **state)
{
    (void)state;
    static struct tiny_file f;
    static float got[ROWS * OUT], one[OUT];
    struct hg_error err;
    float *want = tiny_golden_tensor(GOLDEN, "projected", ROWS * OUT);
    projector(&f);
    for (int i = 0; i < 2; i++) {
        struct hg_backend *b = tiny_backend(tiny_backends[i], &limits);
        struct hg_projector *p;
        if (!b)
            continue;
        struct hg_weights *w = tiny_file_open(&f);
        HG_TEST_OK(hg_projector_load(b, w, IN, OUT, ROWS, HG_DTYPE_F32, &p, &err), err);
        HG_TEST_OK(hg_weights_check_all_used(w, &err), err);
        run(b, p, 0, ROWS, got);
        /* two fp32 dots of about 45 terms against double */
        tiny_compare("projected", b->ops->name, got, want, ROWS * OUT, 1e-5);
        run(b, p, 4, 1, one);
        assert_memory_equal(one, got + 4 * OUT, sizeof one);
        assert_true(hg_projector_bytes(p) >= 4 * (IN + OUT + 2) * OUT);
        assert_int_equal(hg_projector_run(p, got, ROWS + 1, got), HG_STATUS_INTERNAL);
        hg_projector_free(p);
        hg_weights_free(w);
        hg_backend_close(b);
    }
    free(want);
    tiny_file_deinit(&f);
}

static void a_missing_or_misshapen_tensor_is_named(void **state)
{
    (void)state;
    static const char *const names[] = {"model.mm_projector.0.weight", "model.mm_projector.0.bias",
                                        "model.mm_projector.2.weight", "model.mm_projector.2.bias"};
    static struct tiny_file f;
    struct hg_backend *b = tiny_backend("ref", &limits);
    for (size_t i = 0; i < 8; i++) {
        struct hg_projector *p;
        struct hg_error err;
        projector(&f);
        if (i < 4)
            tiny_file_drop(&f, names[i]);
        else
            tiny_file_find(&f, names[i - 4])->dims[0]--;
        struct hg_weights *w = tiny_file_open(&f);
        HG_TEST_FAILS(hg_projector_load(b, w, IN, OUT, ROWS, HG_DTYPE_F32, &p, &err),
                      HG_STATUS_BAD_FILE, err, names[i % 4]);
        assert_null(p);
        hg_weights_free(w);
        tiny_file_deinit(&f);
    }
    hg_backend_close(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_equal_those_of_torch),
        cmocka_unit_test(a_missing_or_misshapen_tensor_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
