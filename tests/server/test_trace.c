/* tests/server/test_trace.c - names that clients give to requests: which are taken over. */
#include "server/http/trace.h"

#include "tests/test.h"

static void request_ids_of_plain_characters_are_taken_over(void **state)
{
    (void)state;
    static const char *const good[] = {
        "a", "A.b_c-9", "req-0123456789abcdef",
        "0123456789012345678901234567890123456789012345678901234567890123"};
    static const char *const bad[] = {
        "",
        " ",
        "a b",
        "a\"b",
        "a,b",
        "a\r\nX: y",
        "\xc3\xa9",
        "a/b",
        "<x>",
        "a\x7f",
        "01234567890123456789012345678901234567890123456789012345678901234"};
    struct hg_trace t;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        hg_trace_begin(&t, good[i], NULL);
        assert_string_equal(t.request_id, good[i]);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        hg_trace_begin(&t, bad[i], NULL);
        assert_int_equal(strlen(t.request_id), 4 + 16);
        assert_memory_equal(t.request_id, "req-", 4);
        assert_int_equal(strspn(t.request_id + 4, "0123456789abcdef"), 16);
    }
}

static void made_names_differ(void **state)
{
    (void)state;
    enum { N = 2000 };
    static char names[N][65];
    struct hg_trace t;
    for (int i = 0; i < N; i++) {
        hg_trace_begin(&t, NULL, NULL);
        memcpy(names[i], t.request_id, sizeof names[i]);
        for (int k = 0; k < i; k++)
            assert_string_not_equal(names[k], names[i]);
    }
}

/* https://www.w3.org/TR/trace-context/, 3.2. */
static void traceparent_is_read_or_ignored(void **state)
{
    (void)state;
#define TRACE "4bf92f3577b34da6a3ce929d0e0e4736"
#define PARENT "00f067aa0ba902b7"
    static const struct {
        const char *text;
        bool good;
    } rows[] = {
        {"00-" TRACE "-" PARENT "-01", true},
        {"00-" TRACE "-" PARENT "-00", true},
        {"00-" TRACE "-" PARENT "-ff", true},
        {"01-" TRACE "-" PARENT "-01", true},
        {"cc-" TRACE "-" PARENT "-01-what-comes-later", true},
        {"00-" TRACE "-" PARENT "-01-what-comes-later", false},
        {"00-" TRACE "-" PARENT "-01.", false},
        {"cc-" TRACE "-" PARENT "-01.", false},
        {"ff-" TRACE "-" PARENT "-01", false},
        {"00-" TRACE "-" PARENT "-0", false},
        {"00-" TRACE "-" PARENT "-0x", false},
        {"00-" TRACE "-" PARENT, false},
        {"0-" TRACE "-" PARENT "-01", false},
        {"00-00000000000000000000000000000000-" PARENT "-01", false},
        {"00-" TRACE "-0000000000000000-01", false},
        {"00-4BF92F3577B34DA6A3CE929D0E0E4736-" PARENT "-01", false},
        {"00-" TRACE "_" PARENT "-01", false},
        {"00-4bf92f3577b34da6a3ce929d0e0e473-" PARENT "-01x", false},
        {"00-4bf92f3577b34da6a3ce929d0e0e473g-" PARENT "-01", false},
        {"", false},
        {"00", false},
        {"-------------------------------------------------------", false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct hg_trace t;
        hg_trace_begin(&t, NULL, rows[i].text);
        if (strcmp(t.trace_id, rows[i].good ? TRACE : "") != 0 ||
            strcmp(t.parent_id, rows[i].good ? PARENT : "") != 0)
            fail_msg("\"%s\": got \"%s\", \"%s\"", rows[i].text, t.trace_id, t.parent_id);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(request_ids_of_plain_characters_are_taken_over),
        cmocka_unit_test(made_names_differ),
        cmocka_unit_test(traceparent_is_read_or_ignored),
    };
    return cmocka_run_group_tests_name("server/http/trace", tests, NULL, NULL);
}
