/* tests/server/test_config.c - configuration file and flags. */
#include "server/config.h"

#include <jansson.h>

#include "tests/test.h"

static enum hg_status parse(struct hg_config *c, const char *text, struct hg_error *err)
{
    char copy[1024];
    snprintf(copy, sizeof copy, "%s", text);
    hg_config_default(c);
    return hg_config_parse(c, copy, strlen(copy), err);
}

static void config_default_file_holds_the_defaults(void **state)
{
    (void)state;
    struct hg_config built_in, read;
    struct hg_error err = {0};
    hg_config_default(&built_in);
    memset(&read, 0, sizeof read);
    HG_TEST_OK(hg_config_read(&read, hg_test_file("config/default.json"), &err), err);
    assert_memory_equal(&built_in, &read, sizeof read);
    assert_string_equal(built_in.listen, "127.0.0.1:8080");
    assert_int_equal(built_in.max_queue, 64);
    assert_int_equal(built_in.max_batch, 16);
}

static void config_reads_comments_and_overlays_keys(void **state)
{
    (void)state;
    struct hg_config c;
    struct hg_error err = {0};
    HG_TEST_OK(parse(&c,
                     "// head\n{\"model\": \"/m // not a comment\", /* x */ \"max_queue\": 3,\n"
                     "\"log_json\": true}",
                     &err),
               err);
    assert_string_equal(c.model, "/m // not a comment");
    assert_int_equal(c.max_queue, 3);
    assert_true(c.log_json);
    assert_int_equal(c.max_batch, 16);
}

static void config_names_the_key_that_is_wrong(void **state)
{
    (void)state;
    static const struct {
        const char *text, *part;
    } rows[] = {
        {"{\"max_qeue\": 3}", "max_qeue"},
        {"{\"max_queue\": 0}", "expected 1..65536, got 0"},
        {"{\"max_queue\": \"3\"}", "max_queue: expected a whole number"},
        {"{\"max_queue\": 1.5}", "max_queue: expected a whole number"},
        {"{\"model\": 3}", "model: expected a string"},
        {"{\"log_json\": 1}", "log_json: expected true or false"},
        {"{\"gpu_memory_utilization\": 1.5}", "gpu_memory_utilization: expected 0..1, got 1.5"},
        {"{\"gpu_memory_utilization\": -1}", "gpu_memory_utilization: expected 0..1, got -1"},
        {"{\"gpu_memory_utilization\": \"x\"}", "gpu_memory_utilization: expected a number"},
        {"{\"max_queue\": 3,\n \"max_queue\": 4}", "line 2"},
        {"[]", "expected one JSON object"},
        {"{", "line 1"},
        {"", "line 1"},
        {"// nothing\n", "JSON: not valid at line"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct hg_config c;
        struct hg_error err = {0};
        HG_TEST_FAILS(parse(&c, rows[i].text, &err), HG_STATUS_BAD_REQUEST, err, rows[i].part);
    }
}

static void config_errors_name_the_file(void **state)
{
    (void)state;
    static const char path[] = "/tmp/hg_test_config.json";
    struct hg_config c;
    struct hg_error err = {0};
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs("{\n \"max_queue\" 3}", f);
    fclose(f);
    hg_config_default(&c);
    HG_TEST_FAILS(hg_config_read(&c, path, &err), HG_STATUS_BAD_REQUEST, err, path);
    assert_non_null(strstr(err.text, "line 2"));
    remove(path);
}

static void config_flags_set_the_same_keys(void **state)
{
    (void)state;
    struct hg_config c;
    struct hg_error err = {0};
    hg_config_default(&c);
    HG_TEST_OK(hg_config_set(&c, "max-queue", "5", &err), err);
    HG_TEST_OK(hg_config_set(&c, "kv_tokens", "4096", &err), err);
    HG_TEST_OK(hg_config_set(&c, "log-json", NULL, &err), err);
    HG_TEST_OK(hg_config_set(&c, "gpu-memory-utilization", "0.85", &err), err);
    assert_true(c.gpu_memory_utilization == 0.85);
    HG_TEST_FAILS(hg_config_set(&c, "gpu-memory-utilization", "1.01", &err), HG_STATUS_BAD_REQUEST,
                  err, "expected 0..1");
    HG_TEST_FAILS(hg_config_set(&c, "gpu-memory-utilization", "nan", &err), HG_STATUS_BAD_REQUEST,
                  err, "expected 0..1");
    HG_TEST_FAILS(hg_config_set(&c, "gpu-memory-utilization", "half", &err), HG_STATUS_BAD_REQUEST,
                  err, "expected a number");
    assert_int_equal(c.max_queue, 5);
    assert_int_equal(c.kv_tokens, 4096);
    assert_true(c.log_json);
    HG_TEST_FAILS(hg_config_set(&c, "max-queue", "5x", &err), HG_STATUS_BAD_REQUEST, err,
                  "max-queue");
    HG_TEST_FAILS(hg_config_set(&c, "no-such", "5", &err), HG_STATUS_BAD_REQUEST, err, "no-such");
    HG_TEST_FAILS(hg_config_set(&c, "log-json", "false", &err), HG_STATUS_BAD_REQUEST, err,
                  "takes no value");
    assert_int_equal(hg_config_flag_takes_value("model"), 1);
    assert_int_equal(hg_config_flag_takes_value("log-json"), 0);
    assert_int_equal(hg_config_flag_takes_value("bogus"), -1);
}

static json_t *property(json_t *schema, const char *key, const char *type)
{
    json_t *p = json_object_get(json_object_get(schema, "properties"), key);
    if (!p)
        fail_msg("config/schema.json lacks %s", key);
    const char *found = json_string_value(json_object_get(p, "type"));
    if (!json_object_get(p, "enum") && (!found || strcmp(found, type) != 0))
        fail_msg("config/schema.json: %s: expected type %s", key, type);
    return p;
}

static void config_schema_says_what_the_table_says(void **state)
{
    (void)state;
    json_error_t e;
    json_t *schema = json_load_file(hg_test_file("config/schema.json"), 0, &e), *p;
    assert_non_null(schema);
    size_t n = 1; /* $schema */
#define TEXT_KEY(key, value, arg, help)                                                            \
    p = property(schema, #key, "string");                                                          \
    assert_string_equal(json_string_value(json_object_get(p, "default")), value);                  \
    n++;
#define NUMBER_KEY(key, value, min, max, help)                                                     \
    p = property(schema, #key, "integer");                                                         \
    assert_int_equal(json_integer_value(json_object_get(p, "default")), value);                    \
    assert_int_equal(json_integer_value(json_object_get(p, "minimum")), min);                      \
    assert_int_equal(json_integer_value(json_object_get(p, "maximum")), max);                      \
    n++;
#define FLAG_KEY(key, help)                                                                        \
    p = property(schema, #key, "boolean");                                                         \
    assert_true(json_is_false(json_object_get(p, "default")));                                     \
    n++;
#define REAL_KEY(key, value, min, max, help)                                                       \
    p = property(schema, #key, "number");                                                          \
    assert_true(json_number_value(json_object_get(p, "default")) == (value));                      \
    assert_true(json_number_value(json_object_get(p, "minimum")) == (min));                        \
    assert_true(json_number_value(json_object_get(p, "maximum")) == (max));                        \
    n++;
    HG_CONFIG_MAP(TEXT_KEY, NUMBER_KEY, FLAG_KEY, REAL_KEY)
    assert_int_equal(json_object_size(json_object_get(schema, "properties")), n);
    json_decref(schema);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(config_default_file_holds_the_defaults),
        cmocka_unit_test(config_reads_comments_and_overlays_keys),
        cmocka_unit_test(config_names_the_key_that_is_wrong),
        cmocka_unit_test(config_errors_name_the_file),
        cmocka_unit_test(config_flags_set_the_same_keys),
        cmocka_unit_test(config_schema_says_what_the_table_says),
    };
    return cmocka_run_group_tests_name("server/config", tests, NULL, NULL);
}
