/* tests/server/test_config.c - configuration: table, file, environment, flags, what is made of it.
 */
#include "server/config/config.h"

#include <jansson.h>

#include "kernels/backend.h"
#include "server/config/config_table.h"
#include "server/config/options.h"
#include "tests/test.h"

/* Free with hg_config_deinit. */
static void parse(struct hg_config_build *b, const char *text)
{
    hg_config_begin(b);
    hg_config_add_json(b, "f", text, strlen(text));
}

static const char *errors_of(const struct hg_config_build *b)
{
    return b->errors.data ? b->errors.data : "";
}

static void config_default_file_holds_the_defaults(void **state)
{
    (void)state;
    struct hg_config_build b;
    struct hg_config built_in;
    size_t n;
    const struct hg_config_row *rows = hg_config_rows(&n);
    hg_config_default(&built_in);
    hg_config_begin(&b);
    memset(&b.config, 0, sizeof b.config); /* what the file lacks stays so */
    hg_config_add_file(&b, hg_test_file("config/default.json"));
    assert_string_equal(errors_of(&b), "");
    assert_memory_equal(&built_in, &b.config, sizeof built_in);
    for (size_t i = 0; i < n; i++)
        if (rows[i].key && b.source[rows[i].offset] != HG_CONFIG_FROM_FILE)
            fail_msg("config/default.json lacks %s", rows[i].key);
    assert_string_equal(built_in.listen, "127.0.0.1:8080");
    assert_int_equal(built_in.max_queue, 64);
    assert_int_equal(built_in.max_batch, 16);
    hg_config_deinit(&b);
}

static void config_reads_comments_and_overlays_keys(void **state)
{
    (void)state;
    struct hg_config_build b;
    parse(&b,
          "\xEF\xBB\xBF// head\n{\"$schema\": \"schema.json\", \"model\": \"/m // no \\\"comment\","
          " /* x */ \"max_queue\": 3,\r\n\"gpu_memory_utilization\": 1,\"log_json\": true}\n//");
    assert_string_equal(errors_of(&b), "");
    assert_string_equal(b.config.model, "/m // no \"comment");
    assert_int_equal(b.config.max_queue, 3);
    assert_true(b.config.log_json);
    assert_true(b.config.gpu_memory_utilization == 1);
    assert_int_equal(b.config.max_batch, 16);
    assert_int_equal(b.source[offsetof(struct hg_config, max_queue)], HG_CONFIG_FROM_FILE);
    assert_int_equal(b.source[offsetof(struct hg_config, max_batch)], HG_CONFIG_FROM_DEFAULT);
    hg_config_deinit(&b);
    parse(&b, "{}");
    assert_int_equal(b.n_errors, 0);
}

/* Each text has exactly these errors. */
static void config_errors_have_line_column_and_path(void **state)
{
    (void)state;
    static const struct {
        const char *text, *errors;
    } rows[] = {
        {"{\"max_qeue\": 3}", "f:1:2: max_qeue: unknown key; did you mean max_queue?\n"},
        {"{\"zzz\": 3}", "f:1:2: zzz: unknown key\n"},
        {"{\"max_queue\": 0}", "f:1:15: max_queue: expected a whole number in 1..65536, got 0\n"},
        {"{\"max_queue\": \"3\"}",
         "f:1:15: max_queue: expected a whole number in 1..65536, got \"3\"\n"},
        {"{\"max_queue\": 1.5}",
         "f:1:15: max_queue: expected a whole number in 1..65536, got 1.5\n"},
        {"{\"max_queue\": 99999999999999999999}",
         "f:1:15: max_queue: expected a whole number in 1..65536, got 99999999999999999999\n"},
        {"{\"max_queue\": null}",
         "f:1:15: max_queue: expected a whole number in 1..65536, got null\n"},
        {"{\"max_queue\": {\"a\": [1, \"}\"]}, \"log_json\": true}",
         "f:1:15: max_queue: expected a whole number in 1..65536, got an object\n"},
        {"{\"model\": 3}",
         "f:1:11: model: expected a text of at most 1023 bytes in double quotes, got 3\n"},
        {"{\"log_json\": 1}", "f:1:14: log_json: expected true or false, got 1\n"},
        {"{\"log_json\": yes}", "f:1:14: log_json: expected true or false, got yes\n"},
        {"{\"log_json\": [}", "f:1:14: log_json: expected true or false, got an array\n"
                              "f:1:16: expected the closing }, got the end of the file\n"},
        {"{\"dtype\": \"f7\"}", "f:1:11: dtype: expected one of the texts auto, f32, f16, bf16, "
                                "int8, fp8, int4, got \"f7\"\n"},
        {"{\"gpu_memory_utilization\": 1.5}",
         "f:1:28: gpu_memory_utilization: expected a number in 0.01..1, got 1.5\n"},
        {"{\"max_queue\": 3,\n \"max_queue\": 4}",
         "f:2:2: max_queue: given twice, first on line 1\n"},
        /* every error, not only the first; columns count characters */
        {"{\n  /* \xC3\xA9\xC3\xA9 */ \"max_qeue\": 3,\n  \"max_queue\": 0, \"log_json\": 1\n}",
         "f:2:12: max_qeue: unknown key; did you mean max_queue?\n"
         "f:3:16: max_queue: expected a whole number in 1..65536, got 0\n"
         "f:3:31: log_json: expected true or false, got 1\n"},
        /* syntax, and what comes after it */
        {"{\"max_queue\" 3, \"zzz\": 1}",
         "f:1:14: max_queue: expected a colon after the key, got 3\nf:1:17: zzz: unknown key\n"},
        {"{\"max_queue\": 3\n \"zzz\": 1}",
         "f:2:2: expected a comma before this key\nf:2:2: zzz: unknown key\n"},
        {"{\"max_queue\": 3,}", "f:1:16: a comma before the closing }\n"},
        {"{max_queue: 3, \"zzz\": 1}",
         "f:1:2: expected a key in double quotes, got max_queue:\nf:1:16: zzz: unknown key\n"},
        {"{\"max_queue\": , \"zzz\": 1}", "f:1:15: max_queue: expected a whole number in 1..65536, "
                                          "got nothing\nf:1:17: zzz: unknown key\n"},
        {"{\"model\": \"a\n, \"zzz\": 1}",
         "f:1:11: model: the text that begins here is not closed on its line\n"
         "f:2:3: zzz: unknown key\n"},
        {"{\"max_queue\": 3 4}", "f:1:17: expected a comma or }, got 4\n"},
        {"{\"max_queue\": 3} x", "f:1:18: expected nothing after the closing }, got x\n"},
        {"{\"a\\u0000\": 3}", "f:1:2: this is not a JSON text\n"},
        {"[]", "f:1:1: expected one JSON object, got an array\n"},
        {"{", "f:1:2: expected the closing }, got the end of the file\n"},
        {"", "f:1:1: expected one JSON object, got the end of the file\n"},
        {"// nothing\n", "f:2:1: expected one JSON object, got the end of the file\n"},
        {"{/* not closed", "f:1:15: expected the closing }, got the end of the file\n"},
        {"{\"model\": \"\xFF\"}", "f:1:12: this is not UTF-8 text\n"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct hg_config_build b;
        parse(&b, rows[i].text);
        assert_string_equal(errors_of(&b), rows[i].errors);
        hg_config_deinit(&b);
    }
}

static size_t lines_of(const char *s)
{
    size_t n = 0;
    for (; *s; s++)
        n += *s == '\n';
    return n;
}

/* Files of the size limit that are wrong in every line are read in linear time: the limit here is
 * that of the whole test program, which quadratic time exceeds by far. */
static void config_hostile_files_end(void **state)
{
    (void)state;
    static const char *const units[] = {
        "[\n", "\"\n", "x\n", "{\n", "\"max_queue\":1,\n", "\"zzzz\":[\n", ",", "\"a\"", "1 ", "}"};
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
        size_t unit = strlen(units[i]), n = 1;
        char *text = malloc(HG_CONFIG_MAX_BYTES);
        assert_non_null(text);
        text[0] = '{';
        for (; n + unit <= HG_CONFIG_MAX_BYTES; n += unit)
            memcpy(text + n, units[i], unit);
        struct hg_config_build b;
        hg_config_begin(&b);
        hg_config_add_json(&b, "f", text, n);
        assert_true(b.n_errors > 0);
        assert_true(lines_of(errors_of(&b)) <= HG_CONFIG_MAX_ERRORS);
        hg_config_deinit(&b);
        free(text);
    }
    struct hg_config_build b;
    char nul[] = "{\"max_queue\0\": 3}";
    hg_config_begin(&b);
    hg_config_add_json(&b, "f", nul, sizeof nul - 1);
    assert_string_equal(errors_of(&b), "f:1:12: this is not UTF-8 text\n");
    hg_config_deinit(&b);
}

static void config_errors_name_the_file(void **state)
{
    (void)state;
    static const char path[] = "/tmp/hg_test_config.json";
    struct hg_config_build b;
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs("{\n \"max_queue\" 3}", f);
    fclose(f);
    hg_config_begin(&b);
    hg_config_add_file(&b, path);
    assert_string_equal(errors_of(&b), "/tmp/hg_test_config.json:2:14: max_queue: expected a colon "
                                       "after the key, got 3\n");
    hg_config_deinit(&b);
    remove(path);
    hg_config_begin(&b);
    hg_config_add_file(&b, path);
    assert_non_null(strstr(errors_of(&b), path));
    hg_config_deinit(&b);
}

static void config_flags_set_the_same_keys(void **state)
{
    (void)state;
    struct hg_config_build b;
    hg_config_begin(&b);
    hg_config_add_flag(&b, "max-queue", "5");
    hg_config_add_flag(&b, "kv_tokens", "4096");
    hg_config_add_flag(&b, "log-json", NULL);
    hg_config_add_flag(&b, "gpu-memory-utilization", "0.85");
    assert_string_equal(errors_of(&b), "");
    assert_true(b.config.gpu_memory_utilization == 0.85);
    assert_int_equal(b.config.max_queue, 5);
    assert_int_equal(b.config.kv_tokens, 4096);
    assert_true(b.config.log_json);
    hg_config_add_flag(&b, "log-json", "false");
    assert_false(b.config.log_json);
    static const char *const wrong[][3] = {
        {"gpu-memory-utilization", "1.01",
         "--gpu-memory-utilization: expected a number in 0.01..1, got \"1.01\"\n"},
        {"gpu-memory-utilization", "nan", NULL},
        {"gpu-memory-utilization", "half", NULL},
        {"max-queue", "5x", "--max-queue: expected a whole number in 1..65536, got \"5x\"\n"},
        {"max-queue", " 5", NULL},
        {"max-queue", "", NULL},
        {"max-queue", NULL, "option --max-queue: expected a value\n"},
        {"log-json", "no", "--log-json: expected true, false, 1 or 0, got \"no\"\n"},
        {"dtype", "f7",
         "--dtype: expected one of auto, f32, f16, bf16, int8, fp8, int4, got "
         "\"f7\"\n"},
        {"dtype", "", NULL},
        {"dtype", "f32|f16", NULL},
        {"max-qeue", "5", "unknown option --max-qeue: did you mean --max-queue?\n"},
        {"no-such", "5", "unknown option --no-such: see --help\n"},
        {"no-such\n\x1b[2J", "5", "unknown option --no-such??[2J: see --help\n"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        hg_config_deinit(&b);
        hg_config_begin(&b);
        hg_config_add_flag(&b, wrong[i][0], wrong[i][1]);
        assert_int_equal(b.n_errors, 1);
        if (wrong[i][2])
            assert_string_equal(errors_of(&b), wrong[i][2]);
    }
    hg_config_deinit(&b);
}

static void config_environment_lies_between_file_and_flags(void **state)
{
    (void)state;
    static char *const environment[] = {
        "PATH=/bin", "HEALTHGPT_MAX_QUEUE=7", "HEALTHGPT_MAX_BATCH=8", "HEALTHGPT_LOG_JSON=1",
        "HEALTHGPT_GPU_MEMORY_UTILIZATION=0.5", "HEALTHGPT_MODEL=", "HEALTHGPT_CONFIG=/x",
        /* of services called healthgpt and healthgpt-gpu */
        "HEALTHGPT_SERVICE_HOST=10.0.0.1", "HEALTHGPT_SERVICE_PORT=8080",
        "HEALTHGPT_SERVICE_PORT_HTTP=8080", "HEALTHGPT_PORT=tcp://10.0.0.1:8080",
        "HEALTHGPT_PORT_8080_TCP=tcp://10.0.0.1:8080", "HEALTHGPT_PORT_8080_TCP_ADDR=10.0.0.1",
        "HEALTHGPT_GPU_SERVICE_HOST=10.0.0.2", "HEALTHGPT_GPU_PORT_80_TCP_PROTO=tcp", NULL};
    struct hg_config_build b;
    parse(&b, "{\"max_queue\": 3, \"max_batch\": 4, \"threads\": 1, \"model\": \"/m\"}");
    hg_config_add_environment(&b, environment, "HEALTHGPT_CONFIG");
    hg_config_add_flag(&b, "max-queue", "9");
    assert_string_equal(errors_of(&b), "");
    assert_int_equal(b.config.max_queue, 9);
    assert_int_equal(b.config.max_batch, 8);
    assert_int_equal(b.config.threads, 1);
    assert_true(b.config.gpu_memory_utilization == 0.5);
    assert_true(b.config.log_json);
    assert_string_equal(b.config.model, "/m");
    struct hg_buf shown = {0};
    assert_int_equal(hg_config_show(&b, &shown), HG_STATUS_OK);
    json_t *root = json_loads(shown.data, JSON_REJECT_DUPLICATES, NULL);
    static const char *const from[][2] = {{"max_queue", "flag"},
                                          {"max_batch", "environment"},
                                          {"threads", "file"},
                                          {"drain_s", "default"}};
    for (size_t i = 0; i < 4; i++)
        assert_string_equal(
            json_string_value(json_object_get(json_object_get(root, from[i][0]), "from")),
            from[i][1]);
    assert_int_equal(
        json_integer_value(json_object_get(json_object_get(root, "max_queue"), "value")), 9);
    json_decref(root);
    hg_buf_deinit(&shown);
    hg_config_deinit(&b);

    static char *const wrong[] = {"HEALTHGPT_MAX_QEUE=7", "HEALTHGPT_max_queue=7",
                                  "HEALTHGPT_MAX_BATCH=many", "HEALTHGPT_LOG_JSON=on", NULL};
    hg_config_begin(&b);
    hg_config_add_environment(&b, wrong, "");
    assert_string_equal(
        errors_of(&b),
        "environment: HEALTHGPT_MAX_QEUE: there is no such key; did you mean HEALTHGPT_MAX_QUEUE?\n"
        "environment: HEALTHGPT_max_queue: there is no such key\n"
        "environment: HEALTHGPT_MAX_BATCH: expected a whole number in 1..1024, got \"many\"\n"
        "environment: HEALTHGPT_LOG_JSON: expected true, false, 1 or 0, got \"on\"\n");
    hg_config_deinit(&b);
}

static void config_distance_counts_slips(void **state)
{
    (void)state;
    static const struct {
        const char *a, *b;
        int distance;
    } rows[] = {{"", "", 0},     {"abc", "abc", 0},        {"abc", "", 3},
                {"ab", "ba", 1}, {"queue", "qeue", 1},     {"a", "b", 1},
                {"", "xy", 2},   {"kitten", "sitting", 3}, {"max_qeueu", "max_queue", 2}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        assert_int_equal(hg_config_distance(rows[i].a, rows[i].b), rows[i].distance);
        assert_int_equal(hg_config_distance(rows[i].b, rows[i].a), rows[i].distance);
    }
    assert_null(hg_config_nearest("completely_else"));
    assert_string_equal(hg_config_nearest("kv_token"), "kv_tokens");
}

/* What the table offers, the backends know. */
static void config_choices_of_backends_are_known(void **state)
{
    (void)state;
    const struct hg_config_row *r = hg_config_row_of_key("backend");
    for (const char *p = r->choices; *p; p += strcspn(p, "|"), p += *p == '|') {
        char name[32];
        struct hg_backend *b = NULL;
        struct hg_error err = {0};
        snprintf(name, sizeof name, "%.*s", (int)strcspn(p, "|"), p);
        enum hg_status status = hg_backend_open(name, NULL, &b, &err);
        if (status == HG_STATUS_BAD_REQUEST)
            fail_msg("%s: %s", name, err.text);
        if (status == HG_STATUS_OK)
            b->ops->close(b);
    }
}

static void config_schema_file_is_what_the_table_makes(void **state)
{
    (void)state;
    struct hg_buf made = {0};
    size_t n;
    assert_int_equal(hg_config_schema(&made), HG_STATUS_OK);
    unsigned char *file = hg_test_read(hg_test_file("config/schema.json"), &n);
    if (n != made.len || memcmp(file, made.data, n) != 0)
        fail_msg("config/schema.json is not what server/config/config.h says: run make schema");
    json_t *schema = json_loads(made.data, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(schema);
    json_t *all = json_object_get(schema, "properties");
    json_t *dtype = json_object_get(all, "dtype"), *queue = json_object_get(all, "max_queue");
    assert_int_equal(json_array_size(json_object_get(dtype, "enum")), 7);
    assert_int_equal(json_integer_value(json_object_get(queue, "maximum")), 65536);
    assert_int_equal(json_integer_value(json_object_get(queue, "default")), 64);
    assert_true(json_string_length(json_object_get(queue, "description")) > 0);
    json_decref(schema);
    free(file);
    hg_buf_deinit(&made);
}

/* Every key and option is in everything that is made from the tables. */
static void config_documents_name_every_key(void **state)
{
    (void)state;
    struct hg_buf help = {0}, bash = {0}, zsh = {0}, man1 = {0}, man5 = {0};
    struct hg_error err = {0};
    size_t n;
    char flag[96], text[128];
    assert_int_equal(hg_options_help(&help), HG_STATUS_OK);
    assert_int_equal(hg_options_completion("bash", &bash, &err), HG_STATUS_OK);
    assert_int_equal(hg_options_completion("zsh", &zsh, &err), HG_STATUS_OK);
    assert_int_equal(hg_options_man("1", &man1, &err), HG_STATUS_OK);
    assert_int_equal(hg_options_man("5", &man5, &err), HG_STATUS_OK);
    const struct hg_config_row *rows = hg_config_rows(&n);
    for (size_t i = 0; i < n; i++) {
        if (!rows[i].key)
            continue;
        hg_config_flag_name(rows[i].key, flag, sizeof flag);
        snprintf(text, sizeof text, "\n  --%s ", flag);
        assert_non_null(strstr(help.data, text));
        snprintf(text, sizeof text, " --%s", flag);
        assert_non_null(strstr(bash.data, text));
        snprintf(text, sizeof text, "'--%s%s[", flag, *rows[i].argument ? "=" : "");
        assert_non_null(strstr(zsh.data, text));
        snprintf(text, sizeof text, ".It Va %s\n", rows[i].key);
        assert_non_null(strstr(man5.data, text));
    }
    HG_TEST_FAILS(hg_options_man("2", &man1, &err), HG_STATUS_BAD_REQUEST, err, "expected 1 or 5");
    HG_TEST_FAILS(hg_options_completion("csh", &man1, &err), HG_STATUS_BAD_REQUEST, err, "csh");
    hg_buf_deinit(&help);
    hg_buf_deinit(&bash);
    hg_buf_deinit(&zsh);
    hg_buf_deinit(&man1);
    hg_buf_deinit(&man5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(config_default_file_holds_the_defaults),
        cmocka_unit_test(config_reads_comments_and_overlays_keys),
        cmocka_unit_test(config_errors_have_line_column_and_path),
        cmocka_unit_test(config_hostile_files_end),
        cmocka_unit_test(config_errors_name_the_file),
        cmocka_unit_test(config_flags_set_the_same_keys),
        cmocka_unit_test(config_environment_lies_between_file_and_flags),
        cmocka_unit_test(config_distance_counts_slips),
        cmocka_unit_test(config_choices_of_backends_are_known),
        cmocka_unit_test(config_schema_file_is_what_the_table_makes),
        cmocka_unit_test(config_documents_name_every_key),
    };
    return cmocka_run_group_tests_name("server/config/config", tests, NULL, NULL);
}
