#include "tests/test.h"

#include "common/utf8.h"

static void every_status_has_text_http_and_exit_code(void **state)
{
    (void)state;
    for (int s = 0; s < HG_STATUS_COUNT; s++) {
        assert_true(strlen(hg_status_text((enum hg_status)s)) > 1);
        assert_in_range(hg_status_http((enum hg_status)s), 200, 599);
        assert_in_range(hg_status_exit_code((enum hg_status)s), 0, 78);
    }
    assert_int_equal(hg_status_http(HG_STATUS_OK), 200);
    assert_int_equal(hg_status_exit_code(HG_STATUS_OK), 0);
    assert_int_equal(hg_status_http(HG_STATUS_TOO_LARGE), 413);
}

static void unknown_status_reads_as_internal_error(void **state)
{
    (void)state;
    assert_string_equal(hg_status_text((enum hg_status)9999), "internal error");
    assert_int_equal(hg_status_http((enum hg_status) - 1), 500);
}

static void fail_formats_and_returns_the_status(void **state)
{
    (void)state;
    struct hg_error err;
    assert_int_equal(hg_fail(&err, HG_STATUS_BAD_FILE, "tensor %s: [%d]", "a.b", 7),
                     HG_STATUS_BAD_FILE);
    assert_int_equal(err.status, HG_STATUS_BAD_FILE);
    assert_string_equal(err.text, "tensor a.b: [7]");
}

static void fail_accepts_a_null_error(void **state)
{
    (void)state;
    assert_int_equal(hg_fail(NULL, HG_STATUS_IO, "%d", 1), HG_STATUS_IO);
}

static void long_text_is_cut_and_stays_utf8(void **state)
{
    (void)state;
    struct hg_error err;
    char name[400];
    for (size_t shift = 0; shift < 4; shift++) {
        memset(name, 'x', shift);
        for (size_t i = shift; i + 2 < sizeof name; i += 2)
            memcpy(name + i, "\xc3\xa9", 3);
        hg_fail(&err, HG_STATUS_BAD_FILE, "%s", name);
        assert_int_equal(strlen(err.text), sizeof err.text - 1);
        assert_true(hg_utf8_valid(err.text, strlen(err.text)));
    }
}

static void control_and_foreign_bytes_become_question_marks(void **state)
{
    (void)state;
    struct hg_error err;
    hg_fail(&err, HG_STATUS_BAD_FILE, "%s", "a\nb\x1b[2J\xff \xc2\x85 \xe2\x82\xac");
    assert_string_equal(err.text, "a?b?[2J? ?? \xe2\x82\xac");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_status_has_text_http_and_exit_code),
        cmocka_unit_test(unknown_status_reads_as_internal_error),
        cmocka_unit_test(fail_formats_and_returns_the_status),
        cmocka_unit_test(fail_accepts_a_null_error),
        cmocka_unit_test(long_text_is_cut_and_stays_utf8),
        cmocka_unit_test(control_and_foreign_bytes_become_question_marks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
