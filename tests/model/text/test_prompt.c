/* Prompts of the demo model against the vectors of its trainer; templates byte by byte. */
#include "model/text/prompt.h"

#include "tests/model/text/text_check.h"

static json_t *demo_vectors(void)
{
    const char *path = hg_test_file("config/models/demo/tokenizer_vectors.json");
    json_error_t e;
    json_t *doc = path ? json_load_file(path, 0, &e) : NULL;
    return doc;
}

enum { N_INDEX = 256 }; /* codes of the demo model's VQGAN */

static struct hg_tokenizer *demo_tokenizer(void)
{
    struct hg_tokenizer *t = text_load(hg_test_file("config/models/demo/llm"));
    struct hg_error err = {0};
    int32_t first = 0;
    HG_TEST_OK(hg_tokenizer_add_image_tokens(t, N_INDEX, &first, &err), err);
    assert_int_equal(first, 779);
    return t;
}

static void demo_chunks_have_the_ids_of_the_trainer(void **state)
{
    (void)state;
    json_t *doc = demo_vectors();
    if (!doc)
        HG_TEST_SKIP("config/models/demo/tokenizer_vectors.json is not there");
    struct hg_tokenizer *t = demo_tokenizer();
    const json_t *chunks = json_object_get(doc, "chunks");
    for (size_t i = 0; i < json_array_size(chunks); i++) {
        const json_t *text = json_object_get(json_array_get(chunks, i), "text");
        struct hg_ids want = text_ids_of_json(json_object_get(json_array_get(chunks, i), "ids"));
        struct hg_ids got = text_encode(t, json_string_value(text), json_string_length(text), true);
        text_expect_ids(json_string_value(text), &got, want.data, want.n);
        hg_ids_deinit(&got);
        hg_ids_deinit(&want);
    }
    printf("%zu chunks equal\n", json_array_size(chunks));
    hg_tokenizer_free(t);
    json_decref(doc);
}

static void check_demo_prompt(const struct hg_tokenizer *t, const json_t *p)
{
    const json_t *question = json_object_get(p, "question");
    struct hg_turn turn = {.question = json_string_value(question),
                           .n_question = json_string_length(question),
                           .n_images = (int)json_integer_value(json_object_get(p, "images"))};
    struct hg_prompt_spec spec = {.template_name = "phi3_instruct",
                                  .turns = &turn,
                                  .n_turns = 1,
                                  .start_image = json_is_true(json_object_get(p, "generate"))};
    struct hg_ids want = text_ids_of_json(json_object_get(p, "ids")), got = {0};
    struct hg_error err = {0};
    HG_TEST_OK(hg_prompt_encode(t, &spec, &got, &err), err);
    text_expect_ids(turn.question, &got, want.data, want.n);
    hg_ids_deinit(&got);
    hg_ids_deinit(&want);
}

static void demo_prompts_have_the_ids_of_the_trainer(void **state)
{
    (void)state;
    json_t *doc = demo_vectors();
    if (!doc)
        HG_TEST_SKIP("config/models/demo/tokenizer_vectors.json is not there");
    struct hg_tokenizer *t = demo_tokenizer();
    const json_t *prompts = json_object_get(doc, "prompts");
    for (size_t i = 0; i < json_array_size(prompts); i++)
        check_demo_prompt(t, json_array_get(prompts, i));
    printf("%zu prompts equal\n", json_array_size(prompts));
    hg_tokenizer_free(t);
    json_decref(doc);
}

static void demo_answers_come_back_as_text(void **state)
{
    (void)state;
    json_t *doc = demo_vectors();
    if (!doc)
        HG_TEST_SKIP("config/models/demo/tokenizer_vectors.json is not there");
    struct hg_tokenizer *t = demo_tokenizer();
    const json_t *answers = json_object_get(doc, "answers");
    for (size_t i = 0; i < json_array_size(answers); i++) {
        const json_t *a = json_array_get(answers, i);
        struct hg_ids ids = text_ids_of_json(json_object_get(a, "ids"));
        char *text = text_decode(t, ids.data, ids.n, false);
        assert_string_equal(text, json_string_value(json_object_get(a, "text")));
        free(text);
        hg_ids_deinit(&ids);
    }
    hg_tokenizer_free(t);
    json_decref(doc);
}

/* ---- composition, against the template's bytes tokenised as trusted text ---- */

static void expect_rendered(const struct hg_tokenizer *t, const struct hg_prompt_spec *spec,
                            const char *text)
{
    struct hg_ids got = {0}, want = text_encode(t, text, strlen(text), true);
    struct hg_error err = {0};
    HG_TEST_OK(hg_prompt_encode(t, spec, &got, &err), err);
    text_expect_ids(text, &got, want.data, want.n);
    hg_ids_deinit(&got);
    hg_ids_deinit(&want);
}

#define TURN(q, a)                                                                                 \
    {                                                                                              \
        .question = q, .n_question = sizeof q - 1, .answer = a, .n_answer = sizeof a - 1           \
    }
#define LAST(q)                                                                                    \
    {                                                                                              \
        .question = q, .n_question = sizeof q - 1                                                  \
    }

static void earlier_turns_stand_in_front(void **state)
{
    (void)state;
    struct hg_tokenizer *t = demo_tokenizer();
    const struct hg_turn turns[] = {TURN("Is it safe?", "Yes"), LAST("Why?")};
    struct hg_prompt_spec spec = {.template_name = "phi3_instruct", .turns = turns, .n_turns = 2};
    expect_rendered(
        t, &spec,
        "<|system|>\nYou are a helpful AI assistant.<|end|>\n<|user|>\nIs it safe?<|end|>"
        "\n<|assistant|>\nYes<|end|>\n<|user|>\nWhy?<|end|>\n<|assistant|>\n");
    spec.system = "Be short.";
    expect_rendered(t, &spec,
                    "<|system|>\nBe short.<|end|>\n<|user|>\nIs it safe?<|end|>"
                    "\n<|assistant|>\nYes<|end|>\n<|user|>\nWhy?<|end|>\n<|assistant|>\n");
    const struct hg_turn empty[] = {LAST("")}; /* an empty question leaves out its own end */
    spec = (struct hg_prompt_spec){
        .template_name = "phi3_instruct", .turns = empty, .n_turns = 1, .start_image = true};
    expect_rendered(
        t, &spec,
        "<|system|>\nYou are a helpful AI assistant.<|end|>\n<|user|>\n\n<|assistant|>\n"
        "<start_index>");
    hg_tokenizer_free(t);
}

static size_t count(const struct hg_ids *ids, int32_t id)
{
    size_t n = 0;
    for (size_t i = 0; i < ids->n; i++)
        n += ids->data[i] == id;
    return n;
}

static void every_image_has_its_place(void **state)
{
    (void)state;
    struct hg_tokenizer *t = demo_tokenizer();
    struct hg_turn turns[] = {TURN("first", "Yes"), LAST("second")};
    turns[0].n_images = 1;
    turns[1].n_images = 3;
    struct hg_prompt_spec spec = {.template_name = "phi3_instruct", .turns = turns, .n_turns = 2};
    struct hg_ids ids = {0};
    struct hg_error err = {0};
    HG_TEST_OK(hg_prompt_encode(t, &spec, &ids, &err), err);
    assert_int_equal(count(&ids, HG_IMAGE_ID), 4);
    hg_ids_deinit(&ids);
    hg_tokenizer_free(t);
}

static void expect_refused(const struct hg_tokenizer *t, const struct hg_prompt_spec *spec,
                           enum hg_status status, const char *part)
{
    struct hg_ids ids = {0};
    struct hg_error err = {0};
    assert_int_equal(hg_ids_push(&ids, 42), 0);
    HG_TEST_FAILS(hg_prompt_encode(t, spec, &ids, &err), status, err, part);
    assert_int_equal(ids.n, 1); /* nothing was appended */
    hg_ids_deinit(&ids);
}

static void prompts_that_make_no_sense_are_refused_by_name(void **state)
{
    (void)state;
    struct hg_tokenizer *bare = text_load(hg_test_file("config/models/demo/llm"));
    struct hg_turn turns[] = {LAST("first"), LAST("second")};
    struct hg_prompt_spec spec = {.template_name = "phi3_instruct", .turns = turns, .n_turns = 2};
    expect_refused(bare, &spec, HG_STATUS_BAD_REQUEST, "turn 0");
    spec.n_turns = 0;
    expect_refused(bare, &spec, HG_STATUS_BAD_REQUEST, "no turn");
    spec.n_turns = 1;
    spec.start_image = true;
    expect_refused(bare, &spec, HG_STATUS_UNSUPPORTED, "<start_index>");
    spec.start_image = false;
    turns[0].n_images = -1;
    expect_refused(bare, &spec, HG_STATUS_BAD_REQUEST, "-1 images");
    turns[0].n_images = 0;
    spec.template_name = "llama_4";
    expect_refused(bare, &spec, HG_STATUS_UNSUPPORTED, "llama_4");
    spec.template_name = "qwen_2"; /* its control tokens are not this tokenizer's */
    expect_refused(bare, &spec, HG_STATUS_UNSUPPORTED, "<|im_start|>");
    hg_tokenizer_free(bare);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(demo_chunks_have_the_ids_of_the_trainer),
        cmocka_unit_test(demo_prompts_have_the_ids_of_the_trainer),
        cmocka_unit_test(demo_answers_come_back_as_text),
        cmocka_unit_test(earlier_turns_stand_in_front),
        cmocka_unit_test(every_image_has_its_place),
        cmocka_unit_test(prompts_that_make_no_sense_are_refused_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
