#include "tests/test.h"

#include <math.h>
#include <unistd.h>

#include "common/file.h"
#include "common/json.h"

static const char text[] =
    "{\"i\": 7, \"neg\": -3, \"big\": 9007199254740993, \"r\": 0.5, \"s\": \"h\\u00e9\", \"t\": "
    "true,"
    " \"f\": false, \"null\": null, \"a\": [1, 2, 3], \"e\": [], \"mixed\": [1, \"x\"],"
    " \"o\": {\"deep\": 1}}";

static json_t *doc;
static struct hg_json_view view;
static struct hg_error err;

static int open_doc(void **state)
{
    (void)state;
    if (hg_json_parse("config.json", text, sizeof text - 1, &doc, NULL) != HG_STATUS_OK)
        return -1;
    view = hg_json_view_of(doc, "config.json");
    return 0;
}

static int close_doc(void **state)
{
    (void)state;
    json_decref(doc);
    return 0;
}

static void integers_are_read_within_their_range(void **state)
{
    (void)state;
    int i = 0;
    int64_t wide = 0;
    HG_TEST_OK(hg_json_int(&view, "i", HG_JSON_REQUIRED, 7, 7, &i, &err), err);
    assert_int_equal(i, 7);
    HG_TEST_OK(hg_json_int64(&view, "big", HG_JSON_REQUIRED, 0, INT64_MAX, &wide, &err), err);
    assert_true(wide == 9007199254740993);
    HG_TEST_FAILS(hg_json_int(&view, "i", HG_JSON_REQUIRED, 8, 9, &i, &err), HG_STATUS_BAD_FILE,
                  err, "config.json: i: expected 8 to 9, got 7");
    HG_TEST_FAILS(hg_json_int(&view, "neg", HG_JSON_REQUIRED, 0, 9, &i, &err), HG_STATUS_BAD_FILE,
                  err, "got -3");
    HG_TEST_FAILS(hg_json_int(&view, "big", HG_JSON_REQUIRED, INT32_MIN, INT32_MAX, &i, &err),
                  HG_STATUS_BAD_FILE, err, "got 9007199254740993");
    HG_TEST_FAILS(hg_json_int(&view, "r", HG_JSON_REQUIRED, 0, 9, &i, &err), HG_STATUS_BAD_FILE,
                  err, "config.json: r: expected an integer, got a real number");
    assert_int_equal(i, 7);
}

static void optional_keys_keep_the_default(void **state)
{
    (void)state;
    int i = 41;
    double r = 2.5;
    bool b = true;
    const char *s = "default";
    size_t n = 99;
    HG_TEST_OK(hg_json_int(&view, "none", HG_JSON_OPTIONAL, 0, 1, &i, &err), err);
    HG_TEST_OK(hg_json_int(&view, "null", HG_JSON_OPTIONAL, 0, 1, &i, &err), err);
    HG_TEST_OK(hg_json_real(&view, "none", HG_JSON_OPTIONAL, 0, 1, &r, &err), err);
    HG_TEST_OK(hg_json_bool(&view, "null", HG_JSON_OPTIONAL, &b, &err), err);
    HG_TEST_OK(hg_json_string(&view, "none", HG_JSON_OPTIONAL, 9, &s, &err), err);
    HG_TEST_OK(hg_json_ints(&view, "none", HG_JSON_OPTIONAL, 0, 1, &i, 1, &n, &err), err);
    assert_int_equal(i, 41);
    assert_true(r == 2.5 && b && n == 99);
    assert_string_equal(s, "default");
}

static void missing_required_keys_are_named(void **state)
{
    (void)state;
    int i;
    bool b;
    HG_TEST_FAILS(hg_json_int(&view, "none", HG_JSON_REQUIRED, 0, 1, &i, &err), HG_STATUS_BAD_FILE,
                  err, "config.json: none: expected an integer, got nothing");
    HG_TEST_FAILS(hg_json_bool(&view, "null", HG_JSON_REQUIRED, &b, &err), HG_STATUS_BAD_FILE, err,
                  "config.json: null: expected true or false, got nothing");
}

static void optional_keys_of_a_wrong_type_are_refused(void **state)
{
    (void)state;
    bool b = false;
    const char *s = NULL;
    double r = 0;
    HG_TEST_FAILS(hg_json_bool(&view, "i", HG_JSON_OPTIONAL, &b, &err), HG_STATUS_BAD_FILE, err,
                  "i: expected true or false, got an integer");
    HG_TEST_FAILS(hg_json_string(&view, "t", HG_JSON_OPTIONAL, 9, &s, &err), HG_STATUS_BAD_FILE,
                  err, "t: expected a string, got a boolean");
    HG_TEST_FAILS(hg_json_real(&view, "s", HG_JSON_OPTIONAL, 0, 9, &r, &err), HG_STATUS_BAD_FILE,
                  err, "s: expected a number, got a string");
}

static void reals_accept_integers_and_keep_their_bounds(void **state)
{
    (void)state;
    double r = 0;
    HG_TEST_OK(hg_json_real(&view, "i", HG_JSON_REQUIRED, 0, 9, &r, &err), err);
    assert_true(r == 7.0);
    HG_TEST_OK(hg_json_real(&view, "r", HG_JSON_REQUIRED, 0.5, 0.5, &r, &err), err);
    HG_TEST_FAILS(hg_json_real(&view, "r", HG_JSON_REQUIRED, 1, 2, &r, &err), HG_STATUS_BAD_FILE,
                  err, "r: expected 1 to 2, got 0.5");
    assert_true(r == 0.5);
}

static void strings_and_booleans_are_read(void **state)
{
    (void)state;
    const char *s = NULL;
    bool t = false, f = true;
    HG_TEST_OK(hg_json_string(&view, "s", HG_JSON_REQUIRED, 3, &s, &err), err);
    assert_string_equal(s, "h\xc3\xa9");
    HG_TEST_FAILS(hg_json_string(&view, "s", HG_JSON_REQUIRED, 2, &s, &err), HG_STATUS_BAD_FILE,
                  err, "s: expected at most 2 bytes, got 3");
    HG_TEST_OK(hg_json_bool(&view, "t", HG_JSON_REQUIRED, &t, &err), err);
    HG_TEST_OK(hg_json_bool(&view, "f", HG_JSON_REQUIRED, &f, &err), err);
    assert_true(t && !f);
}

static void integer_arrays_are_bounded(void **state)
{
    (void)state;
    int a[3] = {0};
    size_t n = 9;
    HG_TEST_OK(hg_json_ints(&view, "a", HG_JSON_REQUIRED, 1, 3, a, 3, &n, &err), err);
    assert_int_equal(n, 3);
    assert_int_equal(a[0] * 100 + a[1] * 10 + a[2], 123);
    HG_TEST_OK(hg_json_ints(&view, "e", HG_JSON_REQUIRED, 1, 3, a, 3, &n, &err), err);
    assert_int_equal(n, 0);
    HG_TEST_FAILS(hg_json_ints(&view, "a", HG_JSON_REQUIRED, 1, 3, a, 2, &n, &err),
                  HG_STATUS_BAD_FILE, err, "a: expected at most 2 integers, got 3");
    HG_TEST_FAILS(hg_json_ints(&view, "a", HG_JSON_REQUIRED, 1, 2, a, 3, &n, &err),
                  HG_STATUS_BAD_FILE, err, "a: expected 1 to 2, got 3");
    HG_TEST_FAILS(hg_json_ints(&view, "mixed", HG_JSON_REQUIRED, 1, 2, a, 3, &n, &err),
                  HG_STATUS_BAD_FILE, err, "mixed: expected an integer, got a string");
}

static void nested_objects_carry_their_path(void **state)
{
    (void)state;
    struct hg_json_view o, none;
    int i = 0;
    HG_TEST_OK(hg_json_object(&view, "o", HG_JSON_REQUIRED, &o, &err), err);
    HG_TEST_OK(hg_json_int(&o, "deep", HG_JSON_REQUIRED, 0, 1, &i, &err), err);
    HG_TEST_FAILS(hg_json_int(&o, "x", HG_JSON_REQUIRED, 0, 1, &i, &err), HG_STATUS_BAD_FILE, err,
                  "config.json: o: x: expected an integer, got nothing");
    HG_TEST_OK(hg_json_object(&view, "none", HG_JSON_OPTIONAL, &none, &err), err);
    assert_null(none.obj);
    HG_TEST_FAILS(hg_json_object(&view, "a", HG_JSON_OPTIONAL, &o, &err), HG_STATUS_BAD_FILE, err,
                  "a: expected an object, got an array");
}

static void unknown_keys_are_named(void **state)
{
    (void)state;
    struct hg_json_view o;
    static const char *const right[] = {"other", "deep", NULL}, *const wrong[] = {"deeper", NULL};
    HG_TEST_OK(hg_json_object(&view, "o", HG_JSON_REQUIRED, &o, &err), err);
    HG_TEST_OK(hg_json_known_keys(&o, right, &err), err);
    HG_TEST_FAILS(hg_json_known_keys(&o, wrong, &err), HG_STATUS_BAD_FILE, err,
                  "config.json: o: unknown key deep");
}

static void bad_documents_are_refused_with_line_and_column(void **state)
{
    (void)state;
    static const struct {
        const char *text, *part;
    } bad[] = {
        {"", "line 1"},
        {"[1]", "expected a JSON object"},
        {"1", "line 1"},
        {"{\"a\": 1, \"a\": 2}", "duplicate"},
        {"{\n \"a\": ,}", "x.json: line 2"},
        {"{\"a\": 1} x", "line 1"},
        {"{\"a\": 99999999999999999999}", "too big"},
        {"{\"a\": 1e999}", "real number overflow"},
        {"{\"a\": NaN}", "line 1"},
        {"{\"a\": \"\xff\"}", "byte 0xff"},
        {"{\"a\\u0000b\": 1}", "u0000"},
        {"\xef\xbb\xbf{}", "line 1"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        json_t *d = (json_t *)&d;
        HG_TEST_FAILS(hg_json_parse("x.json", bad[i].text, strlen(bad[i].text), &d, &err),
                      HG_STATUS_BAD_FILE, err, bad[i].part);
        assert_null(d);
    }
}

static void deep_nesting_is_refused_but_brackets_in_strings_are_not(void **state)
{
    (void)state;
    char deep[20000] = "{\"a\":";
    size_t n = strlen(deep);
    json_t *d;
    memset(deep + n, '[', sizeof deep - n);
    HG_TEST_FAILS(hg_json_parse("x.json", deep, sizeof deep, &d, &err), HG_STATUS_BAD_FILE, err,
                  "deeper than 64");
    memset(deep + n, '[', 63);
    memset(deep + n + 63, ']', 63);
    deep[n + 126] = '}';
    HG_TEST_OK(hg_json_parse("x.json", deep, n + 127, &d, &err), err);
    json_decref(d);
    static const char quoted[] =
        "{\"a\": \"\\\"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[["
        "[[[[[[[[[[[[[[[[[[[[[[[[[[[\"}";
    HG_TEST_OK(hg_json_parse("x.json", quoted, sizeof quoted - 1, &d, &err), err);
    json_decref(d);
}

static void files_are_loaded_with_a_size_cap(void **state)
{
    (void)state;
    char path[] = "/tmp/hg_test_json_XXXXXX";
    int fd = mkstemp(path);
    json_t *d;
    assert_true(fd >= 0);
    close(fd);
    HG_TEST_OK(hg_file_write(path, text, sizeof text - 1, &err), err);
    HG_TEST_OK(hg_json_load(path, sizeof text, &d, &err), err);
    assert_true(json_equal(d, doc));
    json_decref(d);
    HG_TEST_FAILS(hg_json_load(path, 10, &d, &err), HG_STATUS_TOO_LARGE, err, path);
    unlink(path);
    HG_TEST_FAILS(hg_json_load(path, 10, &d, &err), HG_STATUS_NOT_FOUND, err, path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(integers_are_read_within_their_range),
        cmocka_unit_test(optional_keys_keep_the_default),
        cmocka_unit_test(missing_required_keys_are_named),
        cmocka_unit_test(optional_keys_of_a_wrong_type_are_refused),
        cmocka_unit_test(reals_accept_integers_and_keep_their_bounds),
        cmocka_unit_test(strings_and_booleans_are_read),
        cmocka_unit_test(integer_arrays_are_bounded),
        cmocka_unit_test(nested_objects_carry_their_path),
        cmocka_unit_test(unknown_keys_are_named),
        cmocka_unit_test(bad_documents_are_refused_with_line_and_column),
        cmocka_unit_test(deep_nesting_is_refused_but_brackets_in_strings_are_not),
        cmocka_unit_test(files_are_loaded_with_a_size_cap),
    };
    return cmocka_run_group_tests(tests, open_doc, close_doc);
}
