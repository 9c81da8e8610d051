/* tests/model/test_model_files.c - model folders whose files do not belong together: each is
 * refused with the tensor or key, what was expected and what was found. Copies of the demo model.
 */
#include <jansson.h>
#include <sys/stat.h>
#include <unistd.h>

#include "model/healthgpt.h"
#include "model/llm.h"
#include "model/load/tensor_file.h"
#include "tests/parity/model_writer.h"
#include "tests/parity/run_seq.h"
#include "tests/parity/tiny_model.h"
#include "tests/test.h"

static const char *const demo_files[] = {
    "healthgpt.json",           "com_hlora_weights.bin",    "gen_hlora_weights.bin",
    "fusion_layer_weights.bin", "llm/config.json",          "llm/generation_config.json",
    "llm/model.safetensors",    "llm/tokenizer.model",      "llm/tokenizer_config.json",
    "vision/config.json",       "vision/model.safetensors", "vision/preprocessor_config.json",
    "vqgan/last.ckpt"};

/* A folder of links to the demo model's files; a test replaces one of them. */
static void demo_copy(char dir[256])
{
    char sub[300], from[700], to[700];
    static const char *const folders[] = {"llm", "vision", "vqgan"};
    writer_temp_dir(dir);
    for (int i = 0; i < 3; i++)
        writer_subdir(dir, folders[i], sub);
    for (size_t i = 0; i < sizeof demo_files / sizeof *demo_files; i++) {
        char *real = NULL;
        snprintf(from, sizeof from, "config/models/demo/%s", demo_files[i]);
        real = realpath(hg_test_file(from), NULL);
        assert_non_null(real);
        snprintf(to, sizeof to, "%s/%s", dir, demo_files[i]);
        assert_int_equal(symlink(real, to), 0);
        free(real);
    }
}

static void replace(const char *dir, const char *name, const void *data, size_t n)
{
    char path[700];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    unlink(path);
    FILE *out = fopen(path, "wb");
    assert_non_null(out);
    assert_int_equal(fwrite(data, 1, n, out), n);
    assert_int_equal(fclose(out), 0);
}

/* Replace `what` by `with` in a text file. */
static void edit_text(const char *dir, const char *name, const char *what, const char *with)
{
    char path[700];
    size_t n;
    snprintf(path, sizeof path, "%s/%s", dir, name);
    char *text = (char *)hg_test_read(path, &n);
    const char *at = memmem(text, n, what, strlen(what));
    if (!at)
        fail_msg("%s does not hold %s", name, what);
    size_t head = (size_t)(at - text);
    struct hg_buf out = {0};
    assert_int_equal(hg_buf_append(&out, text, head), 0);
    assert_int_equal(hg_buf_append_str(&out, with), 0);
    assert_int_equal(hg_buf_append(&out, at + strlen(what), n - head - strlen(what)), 0);
    replace(dir, name, out.data, out.len);
    hg_buf_deinit(&out);
    free(text);
}

static void put_entry(json_t *header, const char *name, const int64_t *dims, int n_dims, size_t *at)
{
    json_t *shape = json_array();
    size_t n = 4;
    for (int i = 0; i < n_dims; i++) {
        json_array_append_new(shape, json_integer(dims[i]));
        n *= (size_t)dims[i];
    }
    json_object_set_new(header, name,
                        json_pack("{s:s,s:o,s:[I,I]}", "dtype", "F32", "shape", shape,
                                  "data_offsets", (json_int_t)*at, (json_int_t)(*at + n)));
    *at += n;
}

/* Write the weight file again as zeros in a safetensors file, without `drop`, with `add` ([3]). */
static void edit_tensors(const char *dir, const char *name, const char *drop, const char *add)
{
    char path[700];
    struct hg_tensor_file *f;
    struct hg_error err = {0};
    size_t at = 0, dropped = 0;
    json_t *header = json_object();
    snprintf(path, sizeof path, "%s/%s", dir, name);
    HG_TEST_OK(hg_tensor_file_open(path, &f, &err), err);
    for (size_t i = 0; i < hg_tensor_file_count(f); i++) {
        const struct hg_tensor *t = hg_tensor_file_at(f, i);
        if (drop && strcmp(t->name, drop) == 0)
            dropped++;
        else
            put_entry(header, t->name, t->dims, t->n_dims, &at);
    }
    assert_int_equal(dropped, drop != NULL);
    if (add)
        put_entry(header, add, (int64_t[]){3}, 1, &at);
    hg_tensor_file_close(f);
    char *text = json_dumps(header, JSON_COMPACT);
    uint64_t n = strlen(text);
    unsigned char *file = calloc(1, 8 + n + at);
    memcpy(file, &n, 8);
    memcpy(file + 8, text, n);
    replace(dir, name, file, 8 + n + at);
    free(file);
    free(text);
    json_decref(header);
}

static enum hg_status load(const char *dir, struct hg_model **m, struct hg_error *err)
{
    struct hg_model_options o = {.path = dir, .n_threads = 1, .kv_tokens = 1024};
    *m = (struct hg_model *)(uintptr_t)1; /* a failure must reset it */
    return hg_model_load(&o, m, err);
}

static void wrong_tensors_are_named(void **state)
{
    (void)state;
    static const struct {
        const char *file, *drop, *add, *part;
    } cases[] = {
        {"llm/model.safetensors", NULL, "model.layers.9.x", "model.layers.9.x: not expected"},
        {"llm/model.safetensors", "model.norm.weight", NULL, "model.norm.weight: missing"},
        {"llm/model.safetensors", "lm_head.weight", NULL, "lm_head.weight: missing"},
        {"vision/model.safetensors", NULL, "vision_model.x", "vision_model.x: not expected"},
        {"vqgan/last.ckpt", NULL, "decoder.x", "decoder.x: not expected"},
        {"vqgan/last.ckpt", NULL, "encoder.down.0.block.7.conv1.bias", "block.7.conv1.bias: not"},
        {"com_hlora_weights.bin", NULL, "base_model.model.model.layers.3.mlp.x.lora_A.weight",
         "x.lora_A.weight: not expected by this model: an adapter of no layer"},
        {"com_hlora_weights.bin", "base_model.model.model.mm_projector.2.bias", NULL,
         "mm_projector.2.bias: missing"},
        {"com_hlora_weights.bin", "base_model.model.model.layers.3.mlp.down_proj.lora_B.weight",
         NULL, "down_proj.lora_B.weight: missing"},
        {"fusion_layer_weights.bin", "base_model.model.model.embed_tokens.weight", NULL,
         "model.embed_tokens.weight for generation: expected at least"},
        {"fusion_layer_weights.bin", "base_model.model.lm_head.weight", NULL,
         "lm_head.weight: missing"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char dir[256];
        struct hg_model *m;
        struct hg_error err = {0};
        demo_copy(dir);
        edit_tensors(dir, cases[i].file, cases[i].drop, cases[i].add);
        HG_TEST_FAILS(load(dir, &m, &err), HG_STATUS_BAD_FILE, err, cases[i].part);
        assert_null(m);
        writer_remove(dir);
    }
}

/* reference.md 2.3: in a plug-in's file unknown names are warnings. */
static void other_surplus_of_a_plugin_is_no_error(void **state)
{
    (void)state;
    char dir[256];
    struct hg_model *m;
    struct hg_error err = {0};
    demo_copy(dir);
    edit_tensors(dir, "com_hlora_weights.bin", NULL, "model.vision_tower.x");
    HG_TEST_OK(load(dir, &m, &err), err);
    hg_model_free(m);
    writer_remove(dir);
}

static void wrong_texts_are_named(void **state)
{
    (void)state;
    static const struct {
        const char *file, *what, *with, *part;
    } cases[] = {
        {"healthgpt.json", "phi3_instruct", "phi9", "unknown template 'phi9', expected phi3"},
        {"healthgpt.json", "\"fusion_layer_weights.bin\"", "null",
         "model.embed_tokens.weight for generation: expected at least"},
        {"healthgpt.json", "\"tasks\"", "\"n_image_tokens\": 7, \"tasks\"",
         "n_image_tokens: expected the 256 codes of the VQGAN, got 7"},
        {"llm/config.json", "832", "778", "vocab_size: expected at least the 779 tokens"},
        {"llm/tokenizer_config.json", "<|end|>", "<|fin|>", "needs the token <|end|>"},
        {"vision/config.json", "\"image_size\": 64", "\"image_size\": 128", "size: expected 128"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char dir[256];
        struct hg_model *m;
        struct hg_error err = {0};
        demo_copy(dir);
        edit_text(dir, cases[i].file, cases[i].what, cases[i].with);
        enum hg_status s = load(dir, &m, &err);
        if (s == HG_STATUS_OK || !strstr(err.text, cases[i].part))
            fail_msg("case %zu: \"%s\" does not name \"%s\"", i, err.text, cases[i].part);
        hg_model_free(m);
        writer_remove(dir);
    }
}

static void run_alone(const char *dir, enum hg_task task, struct run_result *r)
{
    static const int32_t prompt[] = {5, 17, 3, 208, 44, 44, 9};
    struct hg_model *m = NULL;
    struct hg_prepared *p = NULL;
    struct hg_error err = {0};
    struct hg_model_options o = {
        .path = dir, .backend = "ref", .dtype = "f32", .n_threads = 1, .kv_tokens = 1024};
    struct hg_request_input in = {.task = task};
    HG_TEST_OK(hg_model_load(&o, &m, &err), err);
    hg_sampling_default(&in.sampling);
    in.sampling.max_tokens = 8;
    in.sampling.ignore_stop = true;
    in.sampling.unconstrained_image = true;
    HG_TEST_OK(hg_model_prepare_ids(m, &in, prompt, 7, &p, &err), err);
    run_together(m, &p, 1, 512, 0, r);
    hg_model_free(m);
}

static void expect_same(const struct run_result *a, const struct run_result *b)
{
    assert_int_equal(a->n_logits, b->n_logits);
    assert_int_equal(a->n_ids, b->n_ids);
    assert_memory_equal(a->ids, b->ids, a->n_ids * sizeof *a->ids);
    assert_memory_equal(a->logits, b->logits, a->n_ids * a->n_logits * sizeof *a->logits);
}

static void set_tasks(const char *dir, const char *com, const char *gen, int alpha)
{
    char path[700];
    json_t *card, *tasks = json_object();
    const char *const names[] = {"comprehension", "generation"}, *const files[] = {com, gen};
    snprintf(path, sizeof path, "%s/healthgpt.json", dir);
    card = json_load_file(path, 0, NULL);
    assert_non_null(card);
    for (int i = 0; i < 2; i++)
        if (files[i])
            json_object_set_new(tasks, names[i],
                                json_pack("{s:s,s:i}", "hlora", files[i], "alpha", alpha));
    json_object_set_new(card, "tasks", tasks);
    writer_json(card, dir, "healthgpt.json");
}

/* Tables in a plug-in file are the task's, whichever task it is: the file that generation uses
 * gives comprehension the same logits, alone and beside itself. */
static void comprehension_may_have_tables_of_its_own(void **state)
{
    (void)state;
    char dir[256];
    struct run_result want, got;
    json_t *specs = tiny_specs(); /* its first model: 211 base rows, 219 of generation */
    tiny_model_write(json_array_get(specs, 0), dir);
    run_alone(dir, HG_TASK_GENERATION, &want);
    assert_int_equal(want.n_logits, 219);
    set_tasks(dir, "gen.safetensors", NULL, 512);
    run_alone(dir, HG_TASK_COMPREHENSION, &got);
    expect_same(&want, &got);
    run_result_free(&got);
    set_tasks(dir, "gen.safetensors", "gen.safetensors", 512);
    run_alone(dir, HG_TASK_COMPREHENSION, &got);
    expect_same(&want, &got);
    run_result_free(&got);
    set_tasks(dir, "gen.safetensors", "com.safetensors", 512); /* generation has the base tables */
    run_alone(dir, HG_TASK_COMPREHENSION, &got);
    expect_same(&want, &got);
    run_result_free(&got);
    run_alone(dir, HG_TASK_GENERATION, &got);
    assert_int_equal(got.n_logits, 211);
    run_result_free(&got);
    run_result_free(&want);
    writer_remove(dir);
    json_decref(specs);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wrong_tensors_are_named),
        cmocka_unit_test(other_surplus_of_a_plugin_is_no_error),
        cmocka_unit_test(wrong_texts_are_named),
        cmocka_unit_test(comprehension_may_have_tables_of_its_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
