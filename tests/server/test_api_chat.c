/* tests/server/test_api_chat.c - OpenAI's dialects into struct hg_ask: messages, choices, what is
 * ignored and what is refused; names of models. */
#include "common/base64.h"
#include "server/api/api.h"
#include "server/api/body.h"
#include "tests/test.h"

/* Every "%s" of `format` becomes a 2x1 PNG in base64. */
static bool parse(enum hg_dialect d, bool strict, const char *format, struct hg_ask *ask,
                  struct hg_api_error *e)
{
    struct hg_image im;
    struct hg_buf png = {0}, base64 = {0}, text = {0};
    struct hg_error err = {0};
    struct hg_body body;
    HG_TEST_OK(hg_image_init(&im, 2, 1, &err), err);
    memset(im.rgb, 200, 6);
    HG_TEST_OK(hg_image_encode_png(&im, NULL, &png, &err), err);
    hg_base64_encode(png.data, png.len, &base64);
    for (const char *at; (at = strstr(format, "%s")); format = at + 2) {
        hg_buf_append(&text, format, (size_t)(at - format));
        hg_buf_append(&text, base64.data, base64.len);
    }
    hg_buf_append_str(&text, format);
    hg_ask_init_dialect(ask, d);
    ask->strict = strict;
    *e = (struct hg_api_error){0};
    bool ok = hg_body_read(&body, "application/json", text.data, text.len, e) &&
              hg_api_parse_json(&body, ask, e);
    hg_body_deinit(&body);
    hg_image_deinit(&im);
    hg_buf_deinit(&png);
    hg_buf_deinit(&base64);
    hg_buf_deinit(&text);
    return ok;
}

static void chat_messages_become_turns(void **state)
{
    (void)state;
    struct hg_ask a;
    struct hg_api_error e;
    bool ok =
        parse(HG_DIALECT_CHAT, false,
              "{\"messages\":["
              "{\"role\":\"system\",\"content\":\"Be brief.\"},"
              "{\"role\":\"developer\",\"content\":[{\"type\":\"text\",\"text\":\"Really.\"}]},"
              "{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"What\"},"
              "{\"type\":\"image_url\",\"image_url\":{\"url\":\"data:image/png;base64,%s\","
              "\"detail\":\"high\"}},{\"type\":\"text\",\"text\":\"is it?\"}]},"
              "{\"role\":\"assistant\",\"content\":\"A lung.\"},"
              "{\"role\":\"user\",\"content\":\"Sure?\"},"
              "{\"role\":\"assistant\",\"content\":null,\"images\":[]},"
              "{\"role\":\"user\",\"content\":[{\"type\":\"image_url\",\"image_url\":"
              "\"data:image\\/png;base64,%s\"}]},"
              "{\"role\":\"user\",\"content\":\"And this?\"}]}",
              &a, &e);
    if (!ok)
        fail_msg("refused: %s", e.text);
    assert_string_equal(a.system, "Be brief.\nReally.");
    assert_int_equal(a.n_turns, 3);
    assert_string_equal(a.turns[0].question, "What\nis it?");
    assert_int_equal(a.turns[0].n_question, 11);
    assert_int_equal(a.turns[0].n_images, 1);
    assert_string_equal(a.turns[0].answer, "A lung.");
    assert_string_equal(a.turns[1].question, "Sure?");
    assert_string_equal(a.turns[1].answer, "");
    assert_string_equal(a.turns[2].question, "And this?");
    assert_int_equal(a.turns[2].n_images, 1);
    assert_null(a.turns[2].answer);
    assert_int_equal(a.n_images, 2);
    assert_int_equal(a.task, HG_TASK_COMPREHENSION);
    hg_ask_deinit(&a);
}

static void chat_options_are_read(void **state)
{
    (void)state;
    struct hg_ask a;
    struct hg_api_error e;
    bool ok = parse(
        HG_DIALECT_CHAT, true,
        "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"model\":\"m\",\"n\":3,"
        "\"max_completion_tokens\":9,\"temperature\":0.5,\"top_p\":0.9,\"seed\":7,"
        "\"stop\":[\"a\",\"bc\"],\"logprobs\":true,\"top_logprobs\":4,\"stream\":true,"
        "\"stream_options\":{\"include_usage\":true},\"modalities\":[\"text\",\"image\"],"
        "\"frequency_penalty\":0,\"tools\":[],\"logit_bias\":{},\"user\":\"u\",\"store\":true,"
        "\"response_format\":{\"type\":\"text\"},"
        "\"healthgpt\":{\"top_k\":5,\"timeout_ms\":100,\"previews\":2,\"plugin\":\"none\"}}",
        &a, &e);
    if (!ok)
        fail_msg("refused: %s", e.text);
    assert_int_equal(a.n_choices, 3);
    assert_int_equal(a.sampling.max_tokens, 9);
    assert_int_equal(a.stop.n, 2);
    assert_string_equal(a.stop.text[1], "bc");
    assert_true(a.wants_logprobs && a.sampling.n_top == 4);
    assert_true(a.stream && a.wants_usage && !a.wants_obfuscation);
    assert_int_equal(a.task, HG_TASK_GENERATION);
    assert_true(a.no_plugin && a.previews == 2 && a.timeout_ms == 100 && a.sampling.top_k == 5);
    hg_ask_deinit(&a);
}

struct bad {
    enum hg_dialect dialect;
    const char *body, *code, *param;
};

#define USER "{\"role\":\"user\",\"content\":\"x\"}"
#define ASK(rest) "{\"messages\":[" USER "]," rest "}"
#define CHAT HG_DIALECT_CHAT
#define COMP HG_DIALECT_COMPLETION
#define IMAGES HG_DIALECT_IMAGES
#define EDITS HG_DIALECT_EDITS

static const struct bad bad_bodies[] = {
    {CHAT, "{}", "missing_text", "messages"},
    {CHAT, "{\"messages\":[]}", "invalid_type", "messages"},
    {CHAT, "{\"messages\":{}}", "invalid_type", "messages"},
    {CHAT, "{\"messages\":[7]}", "unsupported_value", "messages[0]"},
    {CHAT, "{\"messages\":[{\"role\":\"tool\",\"content\":\"x\"}]}", "unsupported_value",
     "messages[0]"},
    {CHAT, "{\"messages\":[{\"role\":\"assistant\",\"content\":\"x\"}]}", "invalid_value",
     "messages[0]"},
    {CHAT, "{\"messages\":[{\"role\":\"user\"}]}", "invalid_type", "messages[0]"},
    {CHAT, "{\"messages\":[{\"role\":\"system\",\"content\":\"x\"}]}", "missing_text", "messages"},
    {CHAT, "{\"messages\":[" USER ",{\"role\":\"assistant\",\"content\":\"y\"}]}", "missing_text",
     "messages"},
    {CHAT, "{\"messages\":[{\"role\":\"user\",\"content\":[{\"text\":\"x\"}]}]}", "invalid_type",
     "messages[0].content[0]"},
    {CHAT, "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"input_audio\"}]}]}",
     "unsupported_value", "messages[0].content[0]"},
    {CHAT, "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":1}]}]}",
     "invalid_type", "messages[0].content[0]"},
    {CHAT,
     "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\",\"image_url\":{"
     "\"url\":\"https://x/y.png\"}}]}]}",
     "remote_url_disabled", "messages[0].content[0]"},
    {CHAT,
     "{\"messages\":[" USER ",{\"role\":\"assistant\",\"content\":[{\"type\":\"image_url\","
     "\"image_url\":\"data:image/png;base64,%s\"}]}]}",
     "invalid_value", "messages[1].content[0]"},
    {CHAT, "{\"messages\":[{\"role\":\"user\",\"content\":\"data:image/png;base64,%s\"}]}",
     "invalid_type", "messages[0]"},
    {CHAT, ASK("\"n\":0"), "invalid_value", "n"},
    {CHAT, ASK("\"n\":5"), "invalid_value", "n"},
    {CHAT, ASK("\"tools\":[{}]"), "unsupported_parameter", "tools"},
    {CHAT, ASK("\"audio\":{\"voice\":\"x\"}"), "unsupported_parameter", "audio"},
    {CHAT, ASK("\"logit_bias\":{\"1\":2}"), "unsupported_parameter", "logit_bias"},
    {CHAT, ASK("\"frequency_penalty\":0.1"), "unsupported_value", "frequency_penalty"},
    {CHAT, ASK("\"response_format\":{\"type\":\"json_object\"}"), "unsupported_value",
     "response_format"},
    {CHAT, ASK("\"modalities\":[\"audio\"]"), "unsupported_value", "modalities"},
    {CHAT, ASK("\"stop\":[\"a\",\"b\",\"c\",\"d\",\"e\"]"), "invalid_value", "stop"},
    {CHAT, ASK("\"stop\":\"\""), "invalid_value", "stop"},
    {CHAT, ASK("\"stop\":\"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0\""),
     "invalid_value", "stop"},
    {CHAT, ASK("\"top_logprobs\":2"), "invalid_value", "top_logprobs"},
    {CHAT, ASK("\"stream_options\":7"), "invalid_type", "stream_options"},
    {CHAT, ASK("\"stream_options\":{\"include_usage\":1}"), "invalid_type",
     "stream_options.include_usage"},
    {CHAT, ASK("\"healthgpt\":{\"plugin\":\"x\"}"), "unsupported_value", "healthgpt.plugin"},
    {COMP, "{\"prompt\":[\"a\",\"b\"]}", "unsupported_value", "prompt"},
    {COMP, "{\"prompt\":[1,2]}", "invalid_type", "prompt"},
    {COMP, "{\"prompt\":\"x\",\"echo\":true}", "unsupported_value", "echo"},
    {COMP, "{\"prompt\":\"x\",\"logprobs\":6}", "invalid_value", "logprobs"},
    {IMAGES, "{\"prompt\":\"x\",\"partial_images\":4}", "invalid_value", "partial_images"},
    {IMAGES, "{\"prompt\":\"x\",\"response_format\":\"url\"}", "unsupported_value",
     "response_format"},
    {IMAGES, "{\"prompt\":\"x\",\"output_format\":\"webp\"}", "unsupported_value", "output_format"},
    {IMAGES, "{\"prompt\":\"x\",\"size\":\"big\"}", "invalid_value", "size"},
    {IMAGES, "{\"prompt\":\"x\",\"size\":\"256x\"}", "invalid_value", "size"},
    {EDITS, "{\"prompt\":\"x\"}", "missing_image", "image"},
    {EDITS, "{\"prompt\":\"x\",\"images\":[{\"file_id\":\"f\"}]}", "invalid_type", "image"},
    {EDITS, "{\"prompt\":\"x\",\"image\":\"%s\",\"mask\":\"%s\"}", "unsupported_parameter", "mask"},
};

static void openai_bodies_are_refused_with_code_and_field(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof bad_bodies / sizeof bad_bodies[0]; i++) {
        const struct bad *b = &bad_bodies[i];
        struct hg_ask a;
        struct hg_api_error e;
        if (parse(b->dialect, false, b->body, &a, &e))
            fail_msg("accepted: %s", b->body);
        if (e.http != 400 || strcmp(e.code, b->code) != 0 || strcmp(e.param, b->param) != 0)
            fail_msg("%s: got %d %s [%s] \"%s\"", b->body, e.http, e.code, e.param, e.text);
        hg_ask_deinit(&a);
    }
}

static void unknown_fields_are_ignored_unless_strict(void **state)
{
    (void)state;
    static const char body[] = "{\"prompt\":\"x\",\"size\":\"1024x1024\",\"quality\":\"hd\","
                               "\"no_such\":{\"a\":1},\"healthgpt.top_k\":7}";
    struct hg_ask a;
    struct hg_api_error e;
    assert_true(parse(HG_DIALECT_IMAGES, false, body, &a, &e));
    assert_int_equal(a.sampling.top_k, 0);
    hg_ask_deinit(&a);
    assert_false(parse(HG_DIALECT_IMAGES, true, body, &a, &e));
    assert_string_equal(e.code, "unknown_parameter");
    hg_ask_deinit(&a);
    assert_false(parse(HG_DIALECT_DRAW, false, "{\"prompt\":\"x\",\"quality\":1}", &a, &e));
    assert_string_equal(e.param, "quality");
    hg_ask_deinit(&a);
}

static void names_of_models_pick_the_task(void **state)
{
    (void)state;
    static const struct {
        enum hg_dialect dialect;
        const char *model;
        int http; /* 0: good */
        enum hg_task task;
    } cases[] = {
        {CHAT, "", 0, HG_TASK_COMPREHENSION},
        {CHAT, "demo", 0, HG_TASK_COMPREHENSION},
        {CHAT, "demo:comprehension", 0, HG_TASK_COMPREHENSION},
        {CHAT, "demo:generation", 0, HG_TASK_GENERATION},
        {IMAGES, "demo", 0, HG_TASK_GENERATION},
        {IMAGES, "demo:generation", 0, HG_TASK_GENERATION},
        {IMAGES, "demo:comprehension", 400, HG_TASK_GENERATION},
        {HG_DIALECT_VQA, "demo:generation", 400, HG_TASK_COMPREHENSION},
        {CHAT, "demo:", 404, HG_TASK_COMPREHENSION},
        {CHAT, "demox", 404, HG_TASK_COMPREHENSION},
        {CHAT, "dem", 404, HG_TASK_COMPREHENSION},
        {CHAT, "demo:other", 404, HG_TASK_COMPREHENSION},
        {CHAT, "demo:generation:x", 404, HG_TASK_COMPREHENSION},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct hg_ask a;
        struct hg_api_error e = {0};
        hg_ask_init_dialect(&a, cases[i].dialect);
        snprintf(a.model, sizeof a.model, "%s", cases[i].model);
        a.sampling.max_tokens = 5;
        bool good = hg_api_choose_model(&a, "demo", &e);
        if (good != (cases[i].http == 0) || e.http != cases[i].http || a.task != cases[i].task)
            fail_msg("\"%s\": %d, http %d, task %d", cases[i].model, good, e.http, a.task);
        /* A chat's limit is not a picture's. */
        if (good && cases[i].dialect == CHAT)
            assert_int_equal(a.sampling.max_tokens, a.task == HG_TASK_GENERATION ? 0 : 5);
        hg_ask_deinit(&a);
    }
}

static void long_chats_are_bounded(void **state)
{
    (void)state;
    struct hg_ask a;
    struct hg_api_error e;
    struct hg_buf b = {0};
    for (int n = 31; n <= 33; n++) { /* exchanges, the last one without an answer */
        hg_buf_clear(&b);
        hg_buf_append_str(&b, "{\"messages\":[");
        for (int i = 0; i < n; i++)
            hg_buf_printf(&b, "%s" USER "%s", i ? "," : "",
                          i + 1 < n ? ",{\"role\":\"assistant\",\"content\":\"y\"}" : "");
        hg_buf_append_str(&b, "]}");
        bool ok = parse(HG_DIALECT_CHAT, false, b.data, &a, &e);
        assert_int_equal(ok, n <= 32);
        if (!ok)
            assert_string_equal(e.code, "too_many_messages");
        hg_ask_deinit(&a);
    }
    /* Texts count together. */
    hg_buf_clear(&b);
    hg_buf_append_str(&b, "{\"messages\":[");
    for (int i = 0; i < 5; i++) {
        hg_buf_printf(&b, "%s{\"role\":\"user\",\"content\":\"", i ? "," : "");
        for (int k = 0; k < HG_API_MAX_TEXT / 64; k++)
            hg_buf_append_str(&b, "0123456789abcdef");
        hg_buf_append_str(&b, "\"}");
    }
    hg_buf_append_str(&b, "]}");
    assert_false(parse(HG_DIALECT_CHAT, false, b.data, &a, &e));
    assert_int_equal(e.http, 413);
    assert_string_equal(e.param, "messages[4]");
    hg_ask_deinit(&a);
    hg_buf_deinit(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chat_messages_become_turns),
        cmocka_unit_test(chat_options_are_read),
        cmocka_unit_test(openai_bodies_are_refused_with_code_and_field),
        cmocka_unit_test(unknown_fields_are_ignored_unless_strict),
        cmocka_unit_test(names_of_models_pick_the_task),
        cmocka_unit_test(long_chats_are_bounded),
    };
    return cmocka_run_group_tests_name("server/api/api_chat", tests, NULL, NULL);
}
