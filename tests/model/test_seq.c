/* tests/model/test_seq.c - how a sequence ends and what it runs through: stop ids, the inherited
 * repetition penalty, the context's end, numbers that are not finite, no plug-in. On random tiny
 * models of tests/golden/llm/specs.json. */
#include <math.h>

#include "model/healthgpt.h"
#include "tests/parity/model_writer.h"
#include "tests/parity/run_seq.h"
#include "tests/parity/tiny_model.h"
#include "tests/test.h"

static void write_spec(size_t i, char dir[256])
{
    json_t *specs = tiny_specs();
    tiny_model_write(json_array_get(specs, i), dir);
    json_decref(specs);
}

static struct hg_model *load(const char *dir)
{
    struct hg_model *m = NULL;
    struct hg_error err = {0};
    struct hg_model_options o = {.path = dir,
                                 .backend = "ref",
                                 .dtype = "f32",
                                 .n_threads = 1,
                                 .kv_tokens = 1024,
                                 .any_values = true};
    HG_TEST_OK(hg_model_load(&o, &m, &err), err);
    return m;
}

static struct hg_prepared *prepare(struct hg_model *m, enum hg_task task, bool no_plugin,
                                   int max_tokens)
{
    static const int32_t prompt[] = {5, 17, 3, 60, 44, 44, 9};
    struct hg_request_input in = {.task = task, .no_plugin = no_plugin};
    struct hg_prepared *p = NULL;
    struct hg_error err = {0};
    hg_sampling_default(&in.sampling);
    in.sampling.max_tokens = max_tokens;
    in.sampling.unconstrained_image = true;
    HG_TEST_OK(hg_model_prepare_ids(m, &in, prompt, 7, &p, &err), err);
    return p;
}

static void run(const char *dir, bool no_plugin, struct run_result *r)
{
    struct hg_model *m = load(dir);
    struct hg_prepared *p = prepare(m, HG_TASK_COMPREHENSION, no_plugin, 6);
    run_together(m, &p, 1, 512, 0, r);
    hg_model_free(m);
}

/* Take the id that comes third and call it a stop id. */
static void a_stop_id_ends_the_answer_and_is_no_part_of_it(void **state)
{
    (void)state;
    char dir[256], llm[300];
    struct run_result r;
    write_spec(1, dir);
    run(dir, false, &r);
    assert_int_equal(r.n_ids, 6);
    assert_int_equal(r.finish, HG_FINISH_LENGTH);
    assert_true(r.ids[2] != r.ids[0] && r.ids[2] != r.ids[1]);
    snprintf(llm, sizeof llm, "%s/llm", dir);
    writer_json(json_pack("{s:[i,i]}", "eos_token_id", 1, r.ids[2]), llm, "generation_config.json");

    struct hg_model *m = load(dir);
    struct hg_seq *s = NULL;
    struct hg_error err = {0};
    HG_TEST_OK(hg_seq_create(m, prepare(m, HG_TASK_COMPREHENSION, false, 6), &s, &err), err);
    for (int i = 0; i < 3; i++) {
        struct hg_token t;
        struct hg_step_item item = {s, i ? 1 : 7};
        HG_TEST_OK(hg_model_step(m, &item, 1, &t, &err), err);
        assert_int_equal(t.id, r.ids[i]);
        assert_int_equal(t.finish, i == 2 ? HG_FINISH_STOP : HG_FINISH_NONE);
    }
    assert_int_equal(hg_seq_n_generated(s), 2);
    assert_memory_equal(hg_seq_generated(s), r.ids, 2 * sizeof *r.ids);
    struct hg_token t;
    struct hg_step_item again = {s, 1};
    HG_TEST_FAILS(hg_model_step(m, &again, 1, &t, &err), HG_STATUS_INTERNAL, err, "finished");
    hg_seq_free(s);
    hg_model_free(m);
    run_result_free(&r);
    writer_remove(dir);
}

/* generation_config.json, as Qwen2.5's: a single stop id, and a penalty on what was generated (the
 * seven prompt ids are unknown to it, reference.md 11): s < 0 ? s p : s / p. */
static void the_inherited_penalty_acts_on_generated_ids_only(void **state)
{
    (void)state;
    char dir[256], llm[300];
    struct run_result plain, with;
    const double p = 1.3;
    int moved = 0;
    write_spec(4, dir);
    run(dir, false, &plain);
    snprintf(llm, sizeof llm, "%s/llm", dir);
    writer_json(json_pack("{s:i,s:f}", "eos_token_id", 2, "repetition_penalty", p), llm,
                "generation_config.json");
    struct hg_model *m = load(dir);
    struct hg_prepared *r = prepare(m, HG_TASK_COMPREHENSION, false, 40);
    run_together(m, &r, 1, 512, 0, &with);
    hg_model_free(m);
    assert_int_equal(with.ids[0], plain.ids[0]);
    size_t n = with.n_logits;
    assert_memory_equal(with.logits, plain.logits, n * sizeof *with.logits); /* the head's own */
    for (size_t k = 1; k < with.n_ids; k++) {
        int best = 0, alone = 0;
        double most = -INFINITY;
        for (size_t i = 0; i < n; i++) {
            double s = (double)with.logits[k * n + i];
            alone = with.logits[k * n + i] > with.logits[k * n + (size_t)alone] ? (int)i : alone;
            for (size_t j = 0; j < k; j++)
                if (with.ids[j] == (int32_t)i) {
                    s = s < 0 ? s * p : s / p;
                    break;
                }
            if (s > most) {
                most = s;
                best = (int)i;
            }
        }
        assert_int_equal(with.ids[k], best);
        moved += best != alone;
    }
    assert_true(moved > 0);
    run_result_free(&plain);
    run_result_free(&with);
    writer_remove(dir);
}

static enum hg_status fit(struct hg_model *m, size_t n_ids, int max_tokens, struct hg_error *err)
{
    static const int32_t ids[4200];
    struct hg_request_input in = {.task = HG_TASK_COMPREHENSION};
    struct hg_prepared *p = NULL;
    hg_sampling_default(&in.sampling);
    in.sampling.max_tokens = max_tokens;
    enum hg_status status = hg_model_prepare_ids(m, &in, ids, n_ids, &p, err);
    hg_prepared_free(p);
    return status;
}

/* M3's 4096 positions (the reference has no check and runs past them). */
static void a_context_of_4096_positions_ends_there(void **state)
{
    (void)state;
    char dir[256], path[600], llm[300];
    struct hg_error err = {0};
    write_spec(1, dir);
    snprintf(llm, sizeof llm, "%s/llm", dir);
    snprintf(path, sizeof path, "%s/config.json", llm);
    json_t *config = json_load_file(path, 0, NULL);
    json_object_set_new(config, "max_position_embeddings", json_integer(4096));
    json_object_set_new(config, "sliding_window", json_integer(2047));
    writer_json(config, llm, "config.json");
    struct hg_model *m = load(dir);
    HG_TEST_OK(fit(m, 4095, 1, &err), err);
    HG_TEST_OK(fit(m, 2048, 2048, &err), err);
    HG_TEST_FAILS(fit(m, 4096, 1, &err), HG_STATUS_TOO_LARGE, err,
                  "prompt: 4096 tokens, the context holds 4096");
    HG_TEST_FAILS(fit(m, 2049, 2048, &err), HG_STATUS_TOO_LARGE, err,
                  "prompt of 2049 tokens + 2048 new ones: the context holds 4096");
    hg_model_free(m);
    writer_remove(dir);
}

/* Put a NaN into the first weight of a tensor of an F32 safetensors file. */
static void spoil(const char *dir, const char *name, const char *tensor)
{
    char path[600];
    size_t n;
    snprintf(path, sizeof path, "%s/%s", dir, name);
    unsigned char *file = hg_test_read(path, &n);
    uint64_t header = 0;
    memcpy(&header, file, 8);
    json_t *doc = json_loadb((const char *)file + 8, header, 0, NULL);
    const json_t *range = json_object_get(json_object_get(doc, tensor), "data_offsets");
    float nan = NAN;
    assert_int_equal(json_array_size(range), 2);
    memcpy(file + 8 + header + json_integer_value(json_array_get(range, 0)), &nan, 4);
    FILE *out = fopen(path, "wb");
    assert_non_null(out);
    assert_int_equal(fwrite(file, 1, n, out), n);
    fclose(out);
    json_decref(doc);
    free(file);
}

/* A fault in one task's head ends that task's sequence; its neighbour gives the same bits. */
static void a_number_that_is_not_finite_ends_only_its_own_sequence(void **state)
{
    (void)state;
    char dir[256];
    struct run_result want;
    struct hg_error err = {0};
    write_spec(0, dir);
    run(dir, false, &want);
    spoil(dir, "gen.safetensors", "lm_head.weight");
    struct hg_model *m = load(dir);
    struct hg_seq *s[2] = {0};
    struct hg_token t[2];
    for (int i = 0; i < 2; i++)
        HG_TEST_OK(hg_seq_create(m, prepare(m, (enum hg_task)i, false, 6), &s[i], &err), err);
    struct hg_step_item items[2] = {{s[0], 7}, {s[1], 7}};
    HG_TEST_OK(hg_model_step(m, items, 2, t, &err), err);
    assert_int_equal(t[1].finish, HG_FINISH_ERROR);
    assert_int_equal(t[1].id, -1);
    assert_int_equal(hg_seq_n_generated(s[1]), 0);
    assert_int_equal(t[0].id, want.ids[0]);
    hg_seq_free(s[1]);
    for (size_t i = 1; i < want.n_ids; i++) {
        items[0].n_tokens = 1;
        HG_TEST_OK(hg_model_step(m, items, 1, t, &err), err);
        assert_int_equal(t[0].id, want.ids[i]);
    }
    hg_seq_free(s[0]);
    hg_model_free(m);
    run_result_free(&want);
    writer_remove(dir);
}

/* no_plugin: the base model, bit for bit what a card without plug-in files gives. */
static void without_its_plug_in_a_request_runs_the_base_model(void **state)
{
    (void)state;
    char dir[256];
    struct run_result with, without, base;
    write_spec(1, dir);
    run(dir, false, &with);
    run(dir, true, &without);
    char path[600];
    snprintf(path, sizeof path, "%s/healthgpt.json", dir);
    json_t *card = json_load_file(path, 0, NULL);
    json_object_set_new(card, "tasks", json_pack("{s:{}}", "comprehension"));
    writer_json(card, dir, "healthgpt.json");
    run(dir, false, &base);
    size_t bytes = base.n_logits * sizeof *base.logits;
    assert_int_equal(without.n_logits, base.n_logits);
    assert_memory_equal(without.logits, base.logits, bytes);
    assert_memory_not_equal(with.logits, base.logits, bytes);
    run_result_free(&with);
    run_result_free(&without);
    run_result_free(&base);
    writer_remove(dir);
}

/* The logits of the step begun last. */
static void last_logits(struct hg_model *m, float *to, size_t cap, size_t *n)
{
    int32_t first;
    struct hg_error err = {0};
    HG_TEST_OK(hg_model_last_logits(m, 0, to, cap, n, &first, &err), err);
}

/* After a forced token a sequence goes on as if it had been the last of the prompt. */
static void a_forced_token_is_followed_like_a_prompt(void **state)
{
    (void)state;
    enum { CAP = 4096 };
    static float forced[CAP], asked[CAP];
    char dir[256];
    struct hg_error err = {0};
    struct hg_token t;
    size_t n = 0, n_asked = 0;
    write_spec(1, dir);
    struct hg_model *m = load(dir);
    struct hg_seq *s = NULL, *other = NULL;
    HG_TEST_OK(hg_seq_create(m, prepare(m, HG_TASK_COMPREHENSION, false, 4), &s, &err), err);
    assert_int_equal(hg_seq_force(s, 1, &err), HG_STATUS_INTERNAL); /* nothing was said yet */
    struct hg_step_item item = {s, 7};
    HG_TEST_OK(hg_model_step(m, &item, 1, &t, &err), err);
    int32_t id = t.id == 20 ? 21 : 20;
    assert_int_equal(hg_seq_force(s, -1, &err), HG_STATUS_BAD_REQUEST);
    assert_int_equal(hg_seq_force(s, 1 << 20, &err), HG_STATUS_BAD_REQUEST);
    HG_TEST_OK(hg_seq_force(s, id, &err), err);
    assert_int_equal(hg_seq_generated(s)[0], id);
    item.n_tokens = 1;
    HG_TEST_OK(hg_model_step(m, &item, 1, &t, &err), err);
    last_logits(m, forced, CAP, &n);

    const int32_t prompt[] = {5, 17, 3, 60, 44, 44, 9, id};
    struct hg_request_input in = {.task = HG_TASK_COMPREHENSION};
    struct hg_prepared *p = NULL;
    hg_sampling_default(&in.sampling);
    in.sampling.max_tokens = 4;
    HG_TEST_OK(hg_model_prepare_ids(m, &in, prompt, 8, &p, &err), err);
    HG_TEST_OK(hg_seq_create(m, p, &other, &err), err);
    item = (struct hg_step_item){other, hg_seq_n_waiting(other)};
    HG_TEST_OK(hg_model_step(m, &item, 1, &t, &err), err);
    last_logits(m, asked, CAP, &n_asked);
    assert_int_equal(n, n_asked);
    assert_memory_equal(forced, asked, n * sizeof *forced);
    hg_seq_free(s);
    hg_seq_free(other);
    hg_model_free(m);
    writer_remove(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_stop_id_ends_the_answer_and_is_no_part_of_it),
        cmocka_unit_test(the_inherited_penalty_acts_on_generated_ids_only),
        cmocka_unit_test(a_context_of_4096_positions_ends_there),
        cmocka_unit_test(a_number_that_is_not_finite_ends_only_its_own_sequence),
        cmocka_unit_test(without_its_plug_in_a_request_runs_the_base_model),
        cmocka_unit_test(a_forced_token_is_followed_like_a_prompt),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
