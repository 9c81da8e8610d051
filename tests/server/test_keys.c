/* tests/server/test_keys.c - the key file, the check, the reload, keygen. */
#include "server/http/keys.h"

#include <pthread.h>
#include <unistd.h>

#include "common/file.h"
#include "tests/test.h"

/* SHA-256 of "abc" and of "". */
#define ABC "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
#define EMPTY "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

static char path[64];

static void write_keys(const char *text)
{
    struct hg_error err = {0};
    snprintf(path, sizeof path, "/tmp/hg_test_keys_%d.json", (int)getpid());
    HG_TEST_OK(hg_file_write(path, text, strlen(text), &err), err);
}

static struct hg_keys *open_keys(const char *text)
{
    struct hg_keys *k = NULL;
    struct hg_error err = {0};
    write_keys(text);
    HG_TEST_OK(hg_keys_create(path, &k, &err), err);
    return k;
}

static void close_keys(struct hg_keys *k)
{
    hg_keys_free(k);
    unlink(path);
}

static void a_key_is_known_by_its_digest(void **state)
{
    (void)state;
    struct hg_tenant who = {0};
    struct hg_keys *k =
        open_keys("// who may ask\n{\"keys\": [{\"name\": \"a\", \"sha256\": \"" EMPTY "\"},\n"
                  "{\"name\": \"b.c-d_e\", \"sha256\": \"" ABC "\", \"weight\": 3,"
                  " \"max_queued\": 16, \"max_running\": 8, \"requests_per_minute\": 50,"
                  " \"tokens_per_minute\": 9000}]}");
    assert_int_equal(hg_keys_count(k), 2);
    assert_int_equal(hg_keys_check(k, "Bearer abc", false, &who), HG_KEYS_OK);
    assert_string_equal(who.name, "b.c-d_e");
    assert_true(who.id == 0xba7816bf8f01cfeau);
    assert_int_equal(who.weight, 3);
    assert_int_equal(who.max_queued, 16);
    assert_int_equal(who.max_running, 8);
    assert_int_equal(who.requests_per_minute, 50);
    assert_int_equal(who.burst, 17); /* a third, rounded up */
    assert_int_equal(who.tokens_per_minute, 9000);
    assert_int_equal(hg_keys_check(k, "bearer   abc", false, &who), HG_KEYS_OK);
    static const char *const missing[] = {NULL,         "",    "Bearer",         "Bearer ",
                                          "Basic abc",  "abc", "Bearer abc abc", "Bearer abc ",
                                          "Bearer\tabc"};
    for (size_t i = 0; i < sizeof missing / sizeof missing[0]; i++)
        assert_int_equal(hg_keys_check(k, missing[i], false, &who), HG_KEYS_MISSING);
    static const char *const unknown[] = {"Bearer ab", "Bearer abcd", "Bearer ABC", "Bearer " ABC,
                                          "Bearer \xff"};
    for (size_t i = 0; i < sizeof unknown / sizeof unknown[0]; i++)
        assert_int_equal(hg_keys_check(k, unknown[i], false, &who), HG_KEYS_UNKNOWN);
    char longest[600];
    memset(longest, 'x', sizeof longest);
    memcpy(longest, "Bearer ", 7);
    longest[sizeof longest - 1] = '\0';
    assert_int_equal(hg_keys_check(k, longest, false, &who), HG_KEYS_MISSING);
    close_keys(k);
}

static void a_reader_may_only_read(void **state)
{
    (void)state;
    struct hg_tenant who = {0};
    struct hg_keys *k =
        open_keys("{\"keys\": [{\"name\": \"r\", \"sha256\": \"" ABC "\", \"role\": \"reader\"}]}");
    assert_int_equal(hg_keys_check(k, "Bearer abc", true, &who), HG_KEYS_OK);
    assert_int_equal(hg_keys_check(k, "Bearer abc", false, &who), HG_KEYS_FORBIDDEN);
    close_keys(k);
}

#define ENTRY(more) "{\"keys\": [{\"name\": \"a\", \"sha256\": \"" ABC "\"" more "}]}"

static void a_broken_file_is_refused_and_named(void **state)
{
    (void)state;
    static const struct {
        const char *text, *part;
    } rows[] = {
        {"", "empty"},
        {"{", "line 1"},
        {"[]", "expected one JSON object"},
        {"{}", "keys: expected an array of 1..1024"},
        {"{\"keys\": []}", "keys: expected an array of 1..1024, got 0"},
        {"{\"keys\": {}}", "keys: expected an array"},
        {"{\"kyes\": []}", "unknown key kyes"},
        {"{\"keys\": [3]}", "keys[0]: expected an object"},
        {"{\"keys\": [{\"name\": \"a\"}]}", "keys[0]: sha256"},
        {"{\"keys\": [{\"sha256\": \"" ABC "\"}]}", "keys[0]: name"},
        {"{\"keys\": [{\"name\": \"a b\", \"sha256\": \"" ABC "\"}]}", "name: expected 1..32"},
        {"{\"keys\": [{\"name\": \"a\", \"sha256\": \"hg-secret\"}]}", "expected 64 hex digits"},
        {"{\"keys\": [{\"name\": \"a\", \"sha256\": \"" ABC "0\"}]}", "expected 64 hex digits"},
        {ENTRY(", \"role\": \"root\""), "role: expected \"user\" or \"reader\""},
        {ENTRY(", \"weight\": 0"), "weight"},
        {ENTRY(", \"weight\": 101"), "weight"},
        {ENTRY(", \"max_queued\": 0"), "max_queued"},
        {ENTRY(", \"requests_per_minute\": 0"), "requests_per_minute"},
        {ENTRY(", \"burst\": 0"), "burst"},
        {ENTRY(", \"tokens_per_minute\": 1.5"), "tokens_per_minute"},
        {ENTRY(", \"max_running\": \"3\""), "max_running"},
        {ENTRY(", \"wieght\": 1"), "unknown key wieght"},
        {ENTRY("}, {\"name\": \"a\", \"sha256\": \"" EMPTY "\""),
         "keys[1]: name \"a\" is in keys[0]"},
        {ENTRY("}, {\"name\": \"b\", \"sha256\": \"" ABC "\""),
         "keys[1]: sha256 is that of keys[0]"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct hg_keys *k = NULL;
        struct hg_error err = {0};
        write_keys(rows[i].text);
        HG_TEST_FAILS(hg_keys_create(path, &k, &err), HG_STATUS_BAD_FILE, err, rows[i].part);
        assert_non_null(strstr(err.text, path));
        assert_null(strstr(err.text, "hg-secret"));
        assert_null(k);
    }
    struct hg_keys *k = NULL;
    struct hg_error err = {0};
    unlink(path);
    HG_TEST_FAILS(hg_keys_create(path, &k, &err), HG_STATUS_NOT_FOUND, err, path);
}

static void a_reload_takes_all_or_nothing(void **state)
{
    (void)state;
    struct hg_tenant before = {0}, after = {0};
    struct hg_error err = {0};
    struct hg_keys *k = open_keys(ENTRY(""));
    assert_int_equal(hg_keys_check(k, "Bearer abc", false, &before), HG_KEYS_OK);
    write_keys(ENTRY("}, {\"name\": \"b\", \"sha256\": \"12\""));
    HG_TEST_FAILS(hg_keys_reload(k, &err), HG_STATUS_BAD_FILE, err, "keys[1]: sha256");
    unlink(path);
    HG_TEST_FAILS(hg_keys_reload(k, &err), HG_STATUS_NOT_FOUND, err, path);
    assert_int_equal(hg_keys_check(k, "Bearer abc", false, &after), HG_KEYS_OK);
    write_keys("{\"keys\": [{\"name\": \"other\", \"sha256\": \"" EMPTY "\"},"
               "{\"name\": \"renamed\", \"weight\": 9, \"sha256\": \"" ABC "\"}]}");
    HG_TEST_OK(hg_keys_reload(k, &err), err);
    assert_int_equal(hg_keys_check(k, "Bearer abc", false, &after), HG_KEYS_OK);
    assert_true(after.id == before.id); /* the same tenant, by any name, in any place */
    assert_string_equal(after.name, "renamed");
    assert_int_equal(after.weight, 9);
    write_keys("{\"keys\": [{\"name\": \"other\", \"sha256\": \"" EMPTY "\"}]}");
    HG_TEST_OK(hg_keys_reload(k, &err), err);
    assert_int_equal(hg_keys_check(k, "Bearer abc", false, &after), HG_KEYS_UNKNOWN);
    close_keys(k);
}

static void *check_often(void *ctx)
{
    struct hg_tenant who;
    for (int i = 0; i < 2000; i++)
        if (hg_keys_check(ctx, "Bearer abc", false, &who) != HG_KEYS_OK)
            return ctx;
    return NULL;
}

static void a_reload_disturbs_nobody(void **state)
{
    (void)state;
    struct hg_error err = {0};
    pthread_t thread;
    void *failed = NULL;
    struct hg_keys *k = open_keys(ENTRY(""));
    assert_int_equal(pthread_create(&thread, NULL, check_often, k), 0);
    for (int i = 0; i < 100; i++)
        HG_TEST_OK(hg_keys_reload(k, &err), err);
    pthread_join(thread, &failed);
    assert_null(failed);
    close_keys(k);
}

static void keygen_makes_a_line_that_knows_its_key(void **state)
{
    (void)state;
    struct hg_buf text = {0}, again = {0};
    struct hg_error err = {0};
    struct hg_tenant who = {0};
    char key[80] = "Bearer ", file[400];
    HG_TEST_OK(hg_keys_generate("clinic-a", &text, &err), err);
    const char *at = strstr(text.data, "hg-"), *line = strchr(text.data, '{');
    assert_non_null(at);
    assert_non_null(line);
    snprintf(key + 7, sizeof key - 7, "%.*s", (int)strcspn(at, "\n"), at);
    assert_int_equal(strlen(key), 7 + 3 + 43);
    snprintf(file, sizeof file, "{\"keys\": [%s]}", line);
    struct hg_keys *k = open_keys(file);
    assert_int_equal(hg_keys_check(k, key, false, &who), HG_KEYS_OK);
    assert_string_equal(who.name, "clinic-a");
    HG_TEST_OK(hg_keys_generate("clinic-a", &again, &err), err);
    assert_string_not_equal(text.data, again.data);
    HG_TEST_FAILS(hg_keys_generate("a b", &again, &err), HG_STATUS_BAD_REQUEST, err, "name");
    hg_buf_deinit(&text);
    hg_buf_deinit(&again);
    close_keys(k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_key_is_known_by_its_digest),
        cmocka_unit_test(a_reader_may_only_read),
        cmocka_unit_test(a_broken_file_is_refused_and_named),
        cmocka_unit_test(a_reload_takes_all_or_nothing),
        cmocka_unit_test(a_reload_disturbs_nobody),
        cmocka_unit_test(keygen_makes_a_line_that_knows_its_key),
    };
    return cmocka_run_group_tests_name("server/http/keys", tests, NULL, NULL);
}
