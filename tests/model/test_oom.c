/* tests/model/test_oom.c - memory runs out while a model is read and a request is prepared. */
#include <time.h>

#include "model/healthgpt.h"
#include "model/load/tensor_file.h"
#include "model/load/weights.h"
#include "tests/common/oom.h"
#include "tests/parity/model_writer.h"
#include "tests/parity/tiny_model.h"

struct bytes {
    unsigned char *data;
    size_t n;
};

static enum hg_status parse(void *ctx, struct hg_error *err)
{
    struct bytes *b = ctx;
    struct hg_tensor_file *f;
    HG_TRY(hg_tensor_file_parse("x", b->data, b->n, &f, err));
    hg_tensor_file_close(f);
    return HG_STATUS_OK;
}

static void reading_weight_files(void **state)
{
    (void)state;
    static const char *const files[] = {
        "tests/data/weights/views.pt", "tests/data/weights/views_legacy.pth",
        "tests/data/weights/lightning.ckpt", "tests/golden/vqgan/plain.safetensors"};
    skip_without_our_malloc();
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        struct bytes b;
        b.data = hg_test_read(hg_test_file(files[i]), &b.n);
        exhaust_both_ways(files[i], parse, &b, 1);
        free(b.data);
    }
}

static enum hg_status overlay(void *ctx, struct hg_error *err)
{
    struct hg_weights *w = NULL;
    const char *const *paths = ctx;
    enum hg_status status = hg_weights_create(&w, err);
    for (int i = 0; status == HG_STATUS_OK && i < 2; i++)
        status = hg_weights_add_file(w, paths[i], err);
    hg_weights_free(w);
    return status;
}

static void overlaying_weight_files(void **state)
{
    (void)state;
    char first[1024], second[1024];
    skip_without_our_malloc();
    snprintf(first, sizeof first, "%s", hg_test_file("tests/golden/vqgan/plain.safetensors"));
    snprintf(second, sizeof second, "%s", hg_test_file("tests/data/weights/parameters.pt"));
    exhaust_both_ways("overlay", overlay, (const char *[]){first, second}, 1);
}

static enum hg_status load_tokenizer(void *ctx, struct hg_error *err)
{
    struct hg_tokenizer *t = NULL;
    HG_TRY(hg_tokenizer_load(ctx, &t, err));
    hg_tokenizer_free(t);
    return HG_STATUS_OK;
}

static void loading_a_tokenizer(void **state)
{
    (void)state;
    char dir[1024];
    skip_without_our_malloc();
    snprintf(dir, sizeof dir, "%s", hg_test_file("config/models/demo/llm"));
    exhaust_both_ways("tokenizer", load_tokenizer, dir, 1);
}

static enum hg_status ask(void *ctx, struct hg_error *err)
{
    static const char question[] = "Is this na\xc3\xafve \xf0\x9f\x98\x80 picture sharp?";
    struct hg_turn turn = {.question = question, .n_question = sizeof question - 1};
    struct hg_prompt_spec spec = {.template_name = "phi3_instruct", .turns = &turn, .n_turns = 1};
    struct hg_ids ids = {0};
    struct hg_buf out = {0};
    struct hg_detok d;
    enum hg_status status = hg_prompt_encode(ctx, &spec, &ids, err);
    hg_detok_init(&d, ctx, false);
    for (size_t i = 0; status == HG_STATUS_OK && i < ids.n; i++)
        status = hg_detok_push(&d, ids.data[i], &out);
    if (status == HG_STATUS_OK)
        status = hg_detok_finish(&d, &out);
    hg_buf_deinit(&out);
    hg_ids_deinit(&ids);
    return status;
}

static void encoding_and_decoding_text(void **state)
{
    (void)state;
    struct hg_tokenizer *t = NULL;
    struct hg_error err = {0};
    skip_without_our_malloc();
    HG_TEST_OK(hg_tokenizer_load(hg_test_file("config/models/demo/llm"), &t, &err), err);
    text_needed = false; /* the detokeniser has none */
    exhaust_both_ways("prompt and answer", ask, t, 1);
    text_needed = true;
    hg_tokenizer_free(t);
}

static enum hg_status load_model(void *ctx, struct hg_error *err)
{
    struct hg_model *m = NULL;
    struct hg_model_options o = {
        .path = ctx, .backend = "ref", .n_threads = 1, .kv_tokens = 64, .max_batch_tokens = 32};
    HG_TRY(hg_model_load(&o, &m, err));
    hg_model_free(m);
    return HG_STATUS_OK;
}

static void loading_a_model(void **state)
{
    (void)state;
    char dir[256];
    skip_without_our_malloc();
    json_t *specs = tiny_specs();
    tiny_model_write(json_array_get(specs, 1), dir);
    json_decref(specs);
    exhaust_both_ways("model", load_model, dir, 7);
    writer_remove(dir);
}

static enum hg_status run_request(void *ctx, struct hg_error *err)
{
    static const int32_t prompt[] = {5, 17, 3};
    struct hg_model *m = ctx;
    struct hg_request_input in = {.task = HG_TASK_COMPREHENSION};
    struct hg_prepared *p = NULL;
    struct hg_seq *s = NULL;
    struct hg_token t;
    hg_sampling_default(&in.sampling);
    in.sampling.max_tokens = 2;
    HG_TRY(hg_model_prepare_ids(m, &in, prompt, 3, &p, err));
    enum hg_status status = hg_seq_create(m, p, &s, err);
    if (status != HG_STATUS_OK) {
        hg_prepared_free(p);
        return status;
    }
    struct hg_step_item item = {s, 3};
    status = hg_model_step(m, &item, 1, &t, err);
    hg_seq_free(s);
    return status;
}

static void running_a_request(void **state)
{
    (void)state;
    char dir[256];
    struct hg_model *m = NULL;
    struct hg_model_info info;
    struct hg_error err = {0};
    skip_without_our_malloc();
    json_t *specs = tiny_specs();
    tiny_model_write(json_array_get(specs, 1), dir);
    json_decref(specs);
    struct hg_model_options o = {.path = dir, .backend = "ref", .n_threads = 1, .kv_tokens = 64};
    HG_TEST_OK(hg_model_load(&o, &m, &err), err);
    exhaust_both_ways("request", run_request, m, 1);
    hg_model_info(m, &info);
    assert_int_equal(info.kv_blocks_free, info.kv_blocks);
    hg_model_free(m);
    writer_remove(dir);
}

int main(void)
{
    text_needed = true;
    tzset(); /* the first line of the log would read it, and libc keeps it */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reading_weight_files), cmocka_unit_test(overlaying_weight_files),
        cmocka_unit_test(loading_a_tokenizer),  cmocka_unit_test(encoding_and_decoding_text),
        cmocka_unit_test(loading_a_model),      cmocka_unit_test(running_a_request),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
