/* tests/parity/test_strict.c - numerics "strict" against the reference's rounding in PyTorch half
 * tensors (tests/golden/strict, made by tools/oracle/golden_strict.py), and what it refuses.
 *
 * Bounds of reference.md 5.9: |dlogit| <= 0.06, ids equal up to the first step whose two best
 * logits are closer than 0.05. Logits are compared as far as the ids before them are equal. */
#include <math.h>

#include "common/half.h"
#include "tests/parity/model_writer.h"
#include "tests/parity/run_seq.h"
#include "tests/parity/tiny_model.h"
#include "tests/test.h"

static const double LOGIT_BOUND = 0.06, CERTAIN_GAP = 0.05;

static struct hg_model *load(const char *dir, const char *numerics)
{
    struct hg_model *m = NULL;
    struct hg_error err = {0};
    struct hg_model_options o = {.path = dir,
                                 .backend = "ref",
                                 .dtype = "f16",
                                 .rope = "fp16",
                                 .numerics = numerics,
                                 .n_threads = 1,
                                 .kv_tokens = 2048};
    HG_TEST_OK(hg_model_load(&o, &m, &err), err);
    return m;
}

static void run(struct hg_model *m, int task, json_t *prompt, size_t n_new, struct run_result *r)
{
    int32_t ids[128];
    struct hg_prepared *p = NULL;
    struct hg_error err = {0};
    struct hg_request_input in = {.task = (enum hg_task)task};
    size_t n = json_array_size(prompt);
    assert_true(n <= 128);
    for (size_t i = 0; i < n; i++)
        ids[i] = (int32_t)json_integer_value(json_array_get(prompt, i));
    hg_sampling_default(&in.sampling);
    in.sampling.max_tokens = (int)n_new;
    in.sampling.ignore_stop = true;
    in.sampling.unconstrained_image = true;
    HG_TEST_OK(hg_model_prepare_ids(m, &in, ids, n, &p, &err), err);
    run_together(m, &p, 1, 16, 0, r);
}

/* Steps whose ids are those of the golden; fails where they must be and are not. */
static size_t equal_steps(const struct run_result *r, json_t *golden, const char *name)
{
    json_t *ids = json_object_get(golden, "ids"), *gaps = json_object_get(golden, "gaps");
    bool certain = true;
    for (size_t i = 0; i < r->n_ids; i++) {
        certain = certain && json_real_value(json_array_get(gaps, i)) >= CERTAIN_GAP;
        if (r->ids[i] == json_integer_value(json_array_get(ids, i)))
            continue;
        if (certain)
            fail_msg("%s: token %zu differs though every gap was over %g", name, i, CERTAIN_GAP);
        return i;
    }
    return r->n_ids;
}

static double worst_logit(const struct run_result *r, json_t *golden, size_t equal)
{
    double worst = 0;
    const char *row;
    json_t *values;
    json_object_foreach(json_object_get(golden, "logits"), row, values)
    {
        const float *ours = r->logits + (size_t)atoi(row) * r->n_logits;
        if ((size_t)atoi(row) > equal)
            continue;
        assert_int_equal(json_array_size(values), r->n_logits);
        for (size_t i = 0; i < r->n_logits; i++) {
            double d = fabs((double)ours[i] - json_real_value(json_array_get(values, i)));
            worst = d > worst || isnan(d) ? d : worst;
            assert_true(ours[i] == hg_f16_to_f32(hg_f32_to_f16(ours[i]))); /* on the grid */
        }
    }
    return worst;
}

static void check_spec(json_t *spec)
{
    char dir[256], path[256];
    const char *name = json_string_value(json_object_get(spec, "name"));
    snprintf(path, sizeof path, "tests/golden/strict/%s.json", name);
    json_t *golden = json_load_file(hg_test_file(path), 0, NULL);
    assert_non_null(golden);
    tiny_model_write(spec, dir);
    struct hg_model *m = load(dir, "strict");
    for (int task = 0; task < 2; task++) {
        json_t *g = json_array_get(json_object_get(golden, "tasks"), (size_t)task);
        struct run_result r;
        if (!json_is_object(g))
            continue;
        size_t n = json_array_size(json_object_get(g, "ids"));
        run(m, task, json_object_get(golden, "prompt"), n, &r);
        size_t equal = equal_steps(&r, g, name);
        double worst = worst_logit(&r, g, equal);
        printf("# %s task %d: %zu of %zu ids equal, worst logit %.2e\n", name, task, equal, n,
               worst);
        assert_true(worst <= LOGIT_BOUND);
        run_result_free(&r);
    }
    hg_model_free(m);
    writer_remove(dir);
    json_decref(golden);
}

static void strict_models_agree_with_pytorch_in_half(void **state)
{
    (void)state;
    static const char *const names[] = {"phi3_gqa4_p80_window", "qwen2_gqa5_p64"};
    json_t *specs = tiny_specs(), *spec;
    size_t i, n = 0;
    json_array_foreach(specs, i, spec)
    {
        const char *name = json_string_value(json_object_get(spec, "name"));
        if (strcmp(name, names[0]) != 0 && strcmp(name, names[1]) != 0)
            continue;
        check_spec(spec);
        n++;
    }
    assert_int_equal(n, 2);
    json_decref(specs);
}

/* The same model with the same weights: strict rounds what default does not. */
static void strict_is_another_computation_than_default(void **state)
{
    (void)state;
    json_t *specs = tiny_specs(), *prompt = json_pack("[iiii]", 5, 17, 3, 60);
    char dir[256];
    struct run_result r[3];
    static const char *const numerics[] = {NULL, "default", "strict"};
    tiny_model_write(json_array_get(specs, 1), dir);
    for (int i = 0; i < 3; i++) {
        struct hg_model *m = load(dir, numerics[i]);
        run(m, 0, prompt, 1, &r[i]);
        hg_model_free(m);
    }
    size_t bytes = r[0].n_logits * sizeof *r[0].logits;
    assert_memory_equal(r[0].logits, r[1].logits, bytes);
    assert_memory_not_equal(r[0].logits, r[2].logits, bytes);
    for (int i = 0; i < 3; i++)
        run_result_free(&r[i]);
    writer_remove(dir);
    json_decref(prompt);
    json_decref(specs);
}

static void what_strict_does_not_fit_is_named(void **state)
{
    (void)state;
    static const struct {
        struct hg_model_options o;
        const char *text;
    } cases[] = {
        {{.numerics = "exact"}, "numerics: expected default or strict, got \"exact\""},
        {{.numerics = "strict", .backend = "cpu"}, "backend: expected ref, got \"cpu\""},
        {{.numerics = "strict", .dtype = "int8"}, "dtype: expected f16, got \"int8\""},
        {{.numerics = "strict", .kv_dtype = "f32"}, "kv_dtype: expected f16, got \"f32\""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct hg_model *m = NULL;
        struct hg_error err = {0};
        struct hg_model_options o = cases[i].o;
        o.path = hg_test_file("config/models/demo");
        HG_TEST_FAILS(hg_model_load(&o, &m, &err), HG_STATUS_BAD_REQUEST, err, cases[i].text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(strict_models_agree_with_pytorch_in_half),
        cmocka_unit_test(strict_is_another_computation_than_default),
        cmocka_unit_test(what_strict_does_not_fit_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
