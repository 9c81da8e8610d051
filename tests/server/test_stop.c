/* tests/server/test_stop.c - stop strings against a search of the whole text, cut in every way. */
#include "server/engine/stop.h"

#include "tests/test.h"

/* What may be sent of `text`, pushed in pieces of `piece` bytes. */
static bool run(const struct hg_stop_strings *strings, const char *text, size_t piece,
                struct hg_buf *out)
{
    struct hg_stop s = {.strings = strings};
    bool found = false;
    size_t n = strlen(text);
    hg_buf_clear(out);
    for (size_t i = 0; i < n && !found; i += piece) {
        size_t k = n - i < piece ? n - i : piece;
        assert_int_equal(hg_stop_push(&s, text + i, k, out, &found), HG_STATUS_OK);
    }
    if (!found)
        assert_int_equal(hg_stop_finish(&s, out), HG_STATUS_OK);
    hg_buf_append(out, "", 1);
    return found;
}

static void stop_ends_where_the_first_string_is_complete(void **state)
{
    (void)state;
    static const struct {
        struct hg_stop_strings stop;
        const char *text, *sent;
        bool found;
    } cases[] = {
        {{0}, "anything", "anything", false},
        {{1, {"\n"}}, "one\ntwo", "one", true},
        {{1, {"abab"}}, "xabaabab!", "xaba", true},
        {{1, {"abab"}}, "xaba", "xaba", false},
        {{2, {"END", "ND"}}, "the END", "the ", true},
        {{2, {"yes", "no"}}, "I know", "I k", true},
        {{1, {"x"}}, "xyz", "", true},
        {{1, {"\xc3\xa9"}}, "caf\xc3\xa8 caf\xc3\xa9 end", "caf\xc3\xa8 caf", true},
        {{1, {"aaaab"}}, "aaaaaaab", "aaa", true},
    };
    struct hg_buf out = {0};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        for (size_t piece = 1; piece < 10; piece++) {
            assert_int_equal(run(&cases[i].stop, cases[i].text, piece, &out), cases[i].found);
            assert_string_equal(out.data, cases[i].sent);
        }
    hg_buf_deinit(&out);
}

/* Where a string ends first, the longest of those that end there: by looking at every end. */
static bool look(const struct hg_stop_strings *s, const char *text, size_t *at)
{
    for (size_t end = 1; end <= strlen(text); end++)
        for (size_t k = end; k > 0; k--)
            for (int i = 0; i < s->n; i++)
                if (strlen(s->text[i]) == k && memcmp(text + end - k, s->text[i], k) == 0) {
                    *at = end - k;
                    return true;
                }
    return false;
}

static void stop_agrees_with_a_plain_search(void **state)
{
    (void)state;
    struct hg_buf out = {0};
    int n_found = 0;
    srand(7);
    for (int round = 0; round < 20000; round++) {
        struct hg_stop_strings s = {.n = 1 + rand() % HG_STOP_MAX};
        char text[40] = "";
        for (int i = 0; i < s.n; i++)
            for (int k = 1 + rand() % 5, j = 0; j < k; j++)
                s.text[i][j] = (char)('a' + rand() % 2);
        for (int k = rand() % 39, j = 0; j < k; j++)
            text[j] = (char)('a' + rand() % 3);
        size_t at = strlen(text);
        bool want = look(&s, text, &at);
        assert_int_equal(run(&s, text, 1 + (size_t)rand() % 6, &out), want);
        assert_int_equal(out.len - 1, at);
        assert_memory_equal(out.data, text, at);
        n_found += want;
    }
    assert_in_range(n_found, 5000, 19999);
    hg_buf_deinit(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stop_ends_where_the_first_string_is_complete),
        cmocka_unit_test(stop_agrees_with_a_plain_search),
    };
    return cmocka_run_group_tests_name("server/engine/stop", tests, NULL, NULL);
}
