/* tests/server/test_api.c - bodies to struct hg_ask: every field, every kind of bad input. */
#include "server/api/api.h"

#include "common/base64.h"
#include "server/api/body.h"
#include "server/api/data_uri.h"
#include "server/json_text.h"
#include "tests/test.h"

/* Base64 of a 2x1 PNG, made here by our own encoder. */
static char *small_png_base64(void)
{
    struct hg_image im;
    struct hg_buf png = {0}, text = {0};
    struct hg_error err = {0};
    HG_TEST_OK(hg_image_init(&im, 2, 1, &err), err);
    memset(im.rgb, 200, 6);
    HG_TEST_OK(hg_image_encode_png(&im, NULL, &png, &err), err);
    assert_int_equal(hg_base64_encode(png.data, png.len, &text), HG_STATUS_OK);
    hg_image_deinit(&im);
    hg_buf_deinit(&png);
    return text.data;
}

static bool parse_text(const char *s, size_t n, struct hg_ask *ask, struct hg_api_error *e)
{
    struct hg_body body;
    bool ok = hg_body_read(&body, "application/json", s, n, e) && hg_api_parse_json(&body, ask, e);
    hg_body_deinit(&body);
    return ok;
}

/* `format` may hold one %s, which becomes the picture. */
static bool parse(enum hg_task task, const char *format, struct hg_ask *ask, struct hg_api_error *e)
{
    char *png = small_png_base64();
    struct hg_buf body = {0};
    const char *at = strstr(format, "%s");
    assert_int_equal(hg_buf_append(&body, format, at ? (size_t)(at - format) : strlen(format)),
                     HG_STATUS_OK);
    if (at) {
        hg_buf_append_str(&body, png);
        hg_buf_append_str(&body, at + 2);
    }
    hg_ask_init(ask, task);
    *e = (struct hg_api_error){0};
    bool ok = parse_text(body.data ? body.data : "", body.len, ask, e);
    hg_buf_deinit(&body);
    free(png);
    return ok;
}

static void api_reads_every_field_of_a_question(void **state)
{
    (void)state;
    struct hg_ask a;
    struct hg_api_error e;
    bool ok = parse(HG_TASK_COMPREHENSION,
                    "{\"question\":\"Is it?\",\"image\":\"data:image/png;base64,%s\","
                    "\"system\":\"Be brief.\",\"max_tokens\":7,\"temperature\":0.5,\"top_p\":0.9,"
                    "\"top_k\":3,\"seed\":9007199254740993,\"top_logprobs\":2,\"stream\":true,"
                    "\"repetition_penalty\":1.05,\"user\":null}",
                    &a, &e);
    if (!ok)
        fail_msg("refused: %s", e.text);
    assert_string_equal(a.question, "Is it?");
    assert_int_equal(a.n_question, 6);
    assert_string_equal(a.system, "Be brief.");
    assert_int_equal(a.n_images, 1);
    assert_int_equal(a.images[0].width, 2);
    assert_int_equal(a.sampling.max_tokens, 7);
    assert_true(a.has_temperature && a.sampling.temperature == 0.5F);
    assert_true(a.sampling.top_p == 0.9F);
    assert_int_equal(a.sampling.top_k, 3);
    assert_true(a.has_seed && a.sampling.seed == 9007199254740993u);
    assert_int_equal(a.sampling.n_top, 2);
    assert_true(a.stream);
    hg_ask_deinit(&a);
}

static void api_reads_a_prompt_with_several_images(void **state)
{
    (void)state;
    struct hg_ask a;
    struct hg_api_error e;
    assert_true(parse(HG_TASK_GENERATION,
                      "{\"prompt\":\"Draw.\",\"images\":[\"%s\"],\"n\":1,\"size\":\"auto\","
                      "\"model\":\"x\",\"response_format\":\"b64_json\"}",
                      &a, &e));
    assert_string_equal(a.question, "Draw.");
    assert_int_equal(a.n_images, 1);
    assert_false(a.has_temperature);
    hg_ask_deinit(&a);
}

struct bad {
    const char *body;
    int http;
    const char *code, *param;
};

static const struct bad bad_bodies[] = {
    {"", 400, "invalid_json", ""},
    {"{", 400, "invalid_json", ""},
    {"null", 400, "invalid_json", ""},
    {"[]", 400, "invalid_type", "body"},
    {"{\"question\":\"a\",\"question\":\"b\"}", 400, "invalid_json", ""},
    {"{\"question\":\"\\u0000\"}", 400, "invalid_json", ""},
    {"{\"question\":\"\xff\"}", 400, "invalid_json", ""},
    {"{\"question\":\"\\ud800\"}", 400, "invalid_json", ""},
    {"{\"question\":1}", 400, "invalid_type", "question"},
    {"{\"question\":[\"a\"]}", 400, "invalid_type", "question"},
    {"{\"temprature\":1}", 400, "unknown_parameter", "temprature"},
    {"{\"<script>\":1}", 400, "unknown_parameter", ""},
    {"{\"prompt\":\"for the other route\"}", 400, "unknown_parameter", "prompt"},
    {"{\"max_tokens\":0}", 400, "invalid_value", "max_tokens"},
    {"{\"max_tokens\":-1}", 400, "invalid_value", "max_tokens"},
    {"{\"max_tokens\":1.5}", 400, "invalid_type", "max_tokens"},
    {"{\"max_tokens\":\"7\"}", 400, "invalid_type", "max_tokens"},
    {"{\"max_tokens\":9223372036854775807}", 400, "invalid_value", "max_tokens"},
    {"{\"max_tokens\":9223372036854775808}", 400, "invalid_json", ""},
    {"{\"temperature\":-0.1}", 400, "invalid_value", "temperature"},
    {"{\"temperature\":2.1}", 400, "invalid_value", "temperature"},
    {"{\"temperature\":1e308}", 400, "invalid_value", "temperature"},
    {"{\"temperature\":1e999}", 400, "invalid_json", ""},
    {"{\"temperature\":NaN}", 400, "invalid_json", ""},
    {"{\"temperature\":true}", 400, "invalid_type", "temperature"},
    {"{\"top_p\":0}", 400, "invalid_value", "top_p"},
    {"{\"top_p\":1.01}", 400, "invalid_value", "top_p"},
    {"{\"top_k\":-1}", 400, "invalid_value", "top_k"},
    {"{\"seed\":-1}", 400, "invalid_value", "seed"},
    {"{\"top_logprobs\":21}", 400, "invalid_value", "top_logprobs"},
    {"{\"stream\":1}", 400, "invalid_type", "stream"},
    {"{\"image\":7}", 400, "invalid_type", "image"},
    {"{\"image\":\"\"}", 400, "invalid_image", "images[0]"},
    {"{\"image\":\"!!!!\"}", 400, "invalid_request", "images[0]"},
    {"{\"image\":\"abc\"}", 400, "invalid_request", "images[0]"},
    {"{\"image\":\"aGVsbG8=\"}", 400, "invalid_image", "images[0]"},
    {"{\"image\":\"http://x/y.png\"}", 400, "remote_url_disabled", "images[0]"},
    {"{\"image\":\"HTTPS://x/y.png\"}", 400, "remote_url_disabled", "images[0]"},
    {"{\"image\":\"file:///etc/passwd\"}", 400, "remote_url_disabled", "images[0]"},
    {"{\"image\":\"data:text/plain;base64,aGVsbG8=\"}", 400, "invalid_request", "images[0]"},
    {"{\"image\":\"data:image/png,abc\"}", 400, "invalid_request", "images[0]"},
    {"{\"image\":\"data:image/png;base64\"}", 400, "invalid_request", "images[0]"},
    {"{\"images\":[\"%s\",3]}", 400, "invalid_type", "image"},
    {"{\"question\":\"data:image/png;base64,%s\"}", 400, "invalid_type", "question"},
    {"{\"image\":\"\\u00010\"}", 400, "invalid_json", ""},
    {"{\"image\":\"data:image/png;base64,!!!!\"}", 400, "invalid_request", "image"},
    {"{\"images\":[\"%s\",\"data:image/png;base64,abc\"]}", 400, "invalid_request", "images[1]"},
};

static void api_refuses_bad_bodies_with_code_and_field(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof bad_bodies / sizeof bad_bodies[0]; i++) {
        const struct bad *b = &bad_bodies[i];
        struct hg_ask a;
        struct hg_api_error e;
        if (parse(HG_TASK_COMPREHENSION, b->body, &a, &e))
            fail_msg("accepted: %s", b->body);
        if (e.http != b->http || strcmp(e.code, b->code) != 0 || strcmp(e.param, b->param) != 0)
            fail_msg("%s: got %d %s [%s] \"%s\"", b->body, e.http, e.code, e.param, e.text);
        assert_true(strlen(e.text) > 0);
        hg_ask_deinit(&a);
    }
    printf("%zu bad bodies refused\n", sizeof bad_bodies / sizeof bad_bodies[0]);
}

static void api_refuses_a_fifth_image_and_too_long_text(void **state)
{
    (void)state;
    struct hg_ask a;
    struct hg_api_error e;
    struct hg_buf body = {0};
    char *png = small_png_base64();
    hg_buf_append_str(&body, "{\"images\":[");
    for (int i = 0; i < 5; i++)
        hg_buf_printf(&body, "%s\"%s\"", i ? "," : "", png);
    hg_buf_append_str(&body, "]}");
    hg_ask_init(&a, HG_TASK_COMPREHENSION);
    assert_false(parse_text(body.data, body.len, &a, &e));
    assert_string_equal(e.code, "too_many_images");
    assert_string_equal(e.param, "images[4]");
    hg_ask_deinit(&a);
    hg_buf_clear(&body);
    hg_buf_append_str(&body, "{\"question\":\"");
    for (int i = 0; i < HG_API_MAX_TEXT / 16 + 1; i++)
        hg_buf_append_str(&body, "0123456789abcdef");
    hg_buf_append_str(&body, "\"}");
    hg_ask_init(&a, HG_TASK_COMPREHENSION);
    assert_false(parse_text(body.data, body.len, &a, &e));
    assert_int_equal(e.http, 413);
    assert_string_equal(e.param, "question");
    hg_ask_deinit(&a);
    hg_buf_deinit(&body);
    free(png);
}

static void json_caps_stop_depth_and_count_before_parsing(void **state)
{
    (void)state;
    struct hg_error err = {0};
    struct hg_buf b = {0};
    for (int i = 0; i < 33; i++)
        hg_buf_append_str(&b, "[");
    HG_TEST_FAILS(hg_json_check_caps(b.data, b.len, &err), HG_STATUS_BAD_REQUEST, err, "deeper");
    hg_buf_clear(&b);
    hg_buf_append_str(&b, "[");
    for (int i = 0; i < 20001; i++)
        hg_buf_append_str(&b, "1,");
    HG_TEST_FAILS(hg_json_check_caps(b.data, b.len, &err), HG_STATUS_BAD_REQUEST, err, "20000");
    /* Brackets and commas inside strings do not count, whatever stands before a quote. */
    hg_buf_clear(&b);
    hg_buf_append_str(&b, "{\"a\":\"\\\\\\\"");
    for (int i = 0; i < 30000; i++)
        hg_buf_append_str(&b, "[,");
    hg_buf_append_str(&b, "\"}");
    HG_TEST_OK(hg_json_check_caps(b.data, b.len, &err), err);
    hg_buf_deinit(&b);
}

static void api_error_body_has_message_type_code_and_param(void **state)
{
    (void)state;
    struct hg_api_error e = {.http = 400};
    struct hg_buf b = {0};
    snprintf(e.code, sizeof e.code, "c");
    snprintf(e.text, sizeof e.text, "say \"x\"\n");
    assert_int_equal(hg_api_write_error(&e, &b), HG_STATUS_OK);
    assert_string_equal(b.data, "{\"error\":{\"message\":\"say \\\"x\\\"\\n\",\"type\":"
                                "\"invalid_request_error\",\"code\":\"c\",\"param\":null}}");
    hg_buf_deinit(&b);
}

static void json_writer_output_is_read_back_by_jansson(void **state)
{
    (void)state;
    static const char hard[] = "\x01\x1f\" \\ \t\r\n \x7f \xc3\xa9 \xff \xf0\x9f\x98\x80 \xe2\x82";
    struct hg_buf b = {0};
    struct hg_json_out o;
    hg_out_begin(&o, &b);
    hg_out_open(&o, NULL, '{');
    hg_out_string(&o, "s", hard);
    hg_out_string(&o, "none", NULL);
    hg_out_real(&o, "inf", -1.0 / 0.0, 3);
    hg_out_open(&o, "list", '[');
    hg_out_close(&o, ']');
    hg_out_uint(&o, "u", UINT64_MAX >> 1);
    hg_out_close(&o, '}');
    assert_false(o.failed);
    json_t *doc = json_loadb(b.data, b.len, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(doc);
    assert_string_equal(json_string_value(json_object_get(doc, "s")),
                        "\x01\x1f\" \\ \t\r\n \x7f \xc3\xa9 \xef\xbf\xbd \xf0\x9f\x98\x80 "
                        "\xef\xbf\xbd\xef\xbf\xbd");
    json_decref(doc);
    hg_buf_deinit(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(api_reads_every_field_of_a_question),
        cmocka_unit_test(api_reads_a_prompt_with_several_images),
        cmocka_unit_test(api_refuses_bad_bodies_with_code_and_field),
        cmocka_unit_test(api_refuses_a_fifth_image_and_too_long_text),
        cmocka_unit_test(json_caps_stop_depth_and_count_before_parsing),
        cmocka_unit_test(api_error_body_has_message_type_code_and_param),
        cmocka_unit_test(json_writer_output_is_read_back_by_jansson),
    };
    return cmocka_run_group_tests_name("server/api/api", tests, NULL, NULL);
}
