/* Adapters in a type of their own (hg_weight_desc.plugin): every pair of types that a backend has
 * against the formula, int8 also bit for bit in any batch; what it has not is refused by name. */
#include <math.h>

#include "model/hlora.h"
#include "tests/kernels/linear_case.h"

static const enum hg_dtype plugins[] = {HG_DTYPE_F32, HG_DTYPE_F16, HG_DTYPE_BF16, HG_DTYPE_I8};

static struct kt_linear_case small(enum hg_dtype store, enum hg_dtype plugin, int n_rows)
{
    return (struct kt_linear_case){.n_rows = n_rows,
                                   .n_in = 131,
                                   .n_parts = 2,
                                   .n_out = {50, 37},
                                   .rank = {{64, 12, 0, 20}, {8, 0, 16, 256}},
                                   .n_experts = 4,
                                   .host = HG_DTYPE_BF16,
                                   .store = store,
                                   .plugin = HG_PLUGIN_TYPE(plugin),
                                   .bias = true};
}

/* The targets whose kernels are not compiled for pairs of types. */
static struct kt_targets without_cuda(const struct kt_targets *ts)
{
    struct kt_targets out = {.n = 0};
    for (int i = 0; i < ts->n; i++)
        if (!kt_is_cuda(&ts->at[i]))
            out.at[out.n++] = ts->at[i];
    return out;
}

static void every_pair_of_types_matches_the_formula(void **state)
{
    struct kt_targets host = without_cuda(*state);
    for (size_t t = 0; t < KT_STORES; t++)
        for (size_t p = 0; p < 4; p++) {
            struct kt_linear_case c = small(kt_stores[t], plugins[p], 7);
            kt_linear_check(&host, &c, 10 * t + p);
            c.norm = true;
            kt_linear_check(&host, &c, 100 + 10 * t + p);
        }
}

/* 1 to 3 rows are prepared by every block of a cuda launch for itself, 9 to 64 by some for all,
 * more in launches of their own; inputs of 4090 fill whatever ring weights are read through. */
static void int8_matches_on_every_backend_and_number_of_rows(void **state)
{
    static const int rows[] = {1, 2, 3, 9, 17, 40, 75, 140};
    for (size_t t = 0; t < KT_STORES; t++)
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
            struct kt_linear_case c = small(kt_stores[t], HG_DTYPE_I8, rows[i]);
            c.norm = i % 2 == 0;
            c.epilogue = (enum hg_epilogue)((t + i) % 2 ? HG_EPILOGUE_NONE : HG_EPILOGUE_RESIDUAL);
            if (i == 2)
                c.n_in = 4090;
            kt_linear_check(*state, &c, 200 + 10 * t + i);
        }
}

static void int8_rows_do_not_depend_on_the_batch(void **state)
{
    const struct kt_targets *ts = *state;
    enum { BATCH = 64 };
    static const int sizes[] = {1, 2, 7, 16, 33};
    for (size_t t = 0; t < KT_STORES; t++) {
        struct kt_linear l;
        struct kt_linear_case c = small(kt_stores[t], HG_DTYPE_I8, BATCH);
        c.norm = true;
        kt_linear_init(&l, &c, 300 + t);
        size_t dim = (size_t)l.y_dim;
        float *all = malloc(BATCH * dim * sizeof *all), *some = malloc(BATCH * dim * sizeof *some);
        for (int i = 0; i < ts->n; i++) {
            kt_linear_run(&l, ts->at[i].b, NULL, BATCH, all);
            for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
                int picked[BATCH];
                for (int r = 0; r < sizes[s]; r++) /* ascending, spread over the batch */
                    picked[r] = (int)s + r * (BATCH - 5) / sizes[s];
                kt_linear_run(&l, ts->at[i].b, picked, sizes[s], some);
                for (int r = 0; r < sizes[s]; r++)
                    kt_identical(l.label, ts->at[i].name, some + (size_t)r * dim,
                                 all + (size_t)picked[r] * dim, dim);
            }
        }
        free(all);
        free(some);
        kt_linear_deinit(&l);
    }
}

/* A NaN of B spoils its own output, and of A its part's outputs for rows of its slot; nobody else
 * sees it. 48 outputs are whole tiles of cuda, which keeps parts apart no finer than that. */
static void a_nan_stays_with_its_output_and_slot(void **state)
{
    const struct kt_targets *ts = *state;
    struct kt_linear_case c = small(HG_DTYPE_F32, HG_DTYPE_I8, 10);
    struct kt_linear l;
    c.host = HG_DTYPE_F32;
    c.n_out[0] = 48;
    kt_linear_init(&l, &c, 77);
    ((float *)(uintptr_t)l.desc.parts[0].adapters[0].b.data)[3 * 64 + 5] = NAN;
    ((float *)(uintptr_t)l.desc.parts[1].adapters[3].a.data)[7] = NAN;
    float *y = malloc(10 * (size_t)l.y_dim * sizeof *y);
    for (int i = 0; i < ts->n; i++) {
        kt_linear_run(&l, ts->at[i].b, NULL, 10, y);
        for (int r = 0; r < 10; r++)
            for (int o = 0; o < l.y_dim; o++) {
                bool spoilt = (l.slot[r] == 0 && o == 3) || (l.slot[r] == 3 && o >= 48);
                assert_int_equal(isfinite(y[r * l.y_dim + o]), !spoilt);
            }
    }
    free(y);
    kt_linear_deinit(&l);
}

static size_t plugin_bytes(struct hg_backend *b, enum hg_dtype plugin)
{
    struct kt_linear l;
    struct kt_linear_case c = {.n_rows = 1,
                               .n_in = 512,
                               .n_parts = 1,
                               .n_out = {512},
                               .rank = {{64}},
                               .n_experts = 4,
                               .host = HG_DTYPE_BF16,
                               .store = HG_DTYPE_I8,
                               .plugin = HG_PLUGIN_TYPE(plugin)};
    struct hg_weight *w = NULL;
    struct hg_error err = {0};
    kt_linear_init(&l, &c, 5);
    HG_TEST_OK(b->ops->weight_create(b, &l.desc, &w, &err), err);
    size_t n = b->ops->weight_bytes(w, 0);
    b->ops->weight_free(b, w);
    kt_linear_deinit(&l);
    return n;
}

/* A scale of four bytes a row: (68 + 512) rows beside 2 * 64 * 512 values. */
static void int8_takes_half_of_the_memory(void **state)
{
    const struct kt_targets *ts = *state;
    for (int i = 1; i < ts->n; i++) { /* ref keeps bf16 as floats */
        size_t wide = plugin_bytes(ts->at[i].b, HG_DTYPE_BF16);
        size_t narrow = plugin_bytes(ts->at[i].b, HG_DTYPE_I8);
        printf("# %s: %zu bytes in bf16, %zu in int8\n", ts->at[i].name, wide, narrow);
        size_t bytes = hg_hlora_bytes(HG_DTYPE_I8, 512, 512, 64, 4);
        assert_true(narrow >= bytes && narrow < bytes + bytes / 5); /* whole panels and tiles */
        assert_true(narrow > wide / 2);
    }
}

static enum hg_status create(struct hg_backend *b, enum hg_dtype store, enum hg_dtype plugin,
                             struct hg_error *err)
{
    struct kt_linear l;
    struct kt_linear_case c = small(store, plugin, 1);
    struct hg_weight *w = NULL;
    kt_linear_init(&l, &c, 9);
    enum hg_status status = b->ops->weight_create(b, &l.desc, &w, err);
    b->ops->weight_free(b, w);
    kt_linear_deinit(&l);
    return status;
}

static void what_a_backend_has_not_is_refused_by_name(void **state)
{
    const struct kt_targets *ts = *state;
    for (int i = 0; i < ts->n; i++) {
        struct hg_backend *b = ts->at[i].b;
        struct hg_error err = {0};
        assert_int_equal(create(b, HG_DTYPE_I8, HG_DTYPE_I4, &err), HG_STATUS_UNSUPPORTED);
        assert_non_null(strstr(err.text, "adapters kept in i4"));
        enum hg_status status = create(b, HG_DTYPE_I4, HG_DTYPE_F16, &err);
        assert_int_equal(status, kt_is_cuda(&ts->at[i]) ? HG_STATUS_UNSUPPORTED : HG_STATUS_OK);
        if (status != HG_STATUS_OK)
            assert_non_null(
                strstr(err.text, "adapters beside i4 weights in bf16 or i8, not in f16"));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_pair_of_types_matches_the_formula),
        cmocka_unit_test(int8_matches_on_every_backend_and_number_of_rows),
        cmocka_unit_test(int8_rows_do_not_depend_on_the_batch),
        cmocka_unit_test(a_nan_stays_with_its_output_and_slot),
        cmocka_unit_test(int8_takes_half_of_the_memory),
        cmocka_unit_test(what_a_backend_has_not_is_refused_by_name),
    };
    return cmocka_run_group_tests(tests, kt_setup, kt_teardown);
}
