/* The three patterns, reference.md 19.3 and the corners of their character classes. */
#include "model/text/pretokenize.h"

#include "common/buf.h"
#include "tests/test.h"

static enum hg_status join(void *user, const char *s, size_t n)
{
    struct hg_buf *out = user;
    if (out->len)
        HG_TRY(hg_buf_append(out, "|", 1));
    for (size_t i = 0; i < n; i++)
        HG_TRY(hg_buf_append(out, s[i] == ' ' ? "~" : s[i] == '\n' ? "^" : &s[i], 1));
    return HG_STATUS_OK;
}

/* '|' separates pieces, ~ = space, ^ = newline */
static void expect_pieces(enum hg_pattern pattern, const char *s, const char *want)
{
    struct hg_pretokenizer *p = NULL;
    struct hg_error err = {0};
    struct hg_buf out = {0};
    HG_TEST_OK(hg_pretokenizer_create(pattern, &p, &err), err);
    assert_int_equal(hg_pretokenizer_run(p, s, strlen(s), join, &out), 0);
    assert_string_equal(out.data ? out.data : "", want);
    hg_buf_deinit(&out);
    hg_pretokenizer_destroy(p);
}

static const char mixed[] = "\nIs the 12345 mg dose (A) safe?\n\n(B) I'M  not  sure.\n  x";

static void gpt2_pattern_cuts_as_the_reference(void **state)
{
    (void)state;
    expect_pieces(HG_PATTERN_GPT2, mixed,
                  "^|Is|~the|~12345|~mg|~dose|~(|A|)|~safe|?|^|^|(|B|)|~I|'|M|~|~not|~|~sure|.|^~|"
                  "~x");
    expect_pieces(HG_PATTERN_GPT2, "I'm you're 's'S", "I|'m|~you|'re|~'|s|'|S");
    expect_pieces(HG_PATTERN_GPT2, "   ", "~~~");
    expect_pieces(HG_PATTERN_GPT2, "", "");
}

static void qwen2_pattern_cuts_as_the_reference(void **state)
{
    (void)state;
    expect_pieces(HG_PATTERN_QWEN2, mixed,
                  "^|Is|~the|~|1|2|3|4|5|~mg|~dose|~(|A|)|~safe|?^^|(B|)|~I|'M|~|~not|~|~sure|.^|~|"
                  "~x");
    expect_pieces(HG_PATTERN_QWEN2, "a  \n  b", "a|~~^|~|~b");
}

static void cl100k_pattern_groups_three_digits(void **state)
{
    (void)state;
    expect_pieces(
        HG_PATTERN_CL100K, mixed,
        "^|Is|~the|~|123|45|~mg|~dose|~(|A|)|~safe|?^^|(B|)|~I|'M|~|~not|~|~sure|.^|~|~x");
}

/* U+180E is a format character, no White_Space (PCRE2's own \s says otherwise); U+001C..001F are no
 * White_Space either; U+0085, U+00A0 and U+3000 are. */
static void whitespace_is_that_of_unicode(void **state)
{
    (void)state;
    for (int p = 0; p < HG_PATTERN_COUNT; p++) {
        expect_pieces((enum hg_pattern)p, "!\xe1\xa0\x8e!", "!\xe1\xa0\x8e!");
        expect_pieces((enum hg_pattern)p, "!\x1c!", "!\x1c!");
        expect_pieces((enum hg_pattern)p, "!\xc2\x85!", "!|\xc2\x85|!");
        expect_pieces((enum hg_pattern)p, "!\xc2\xa0!", "!|\xc2\xa0|!");
        expect_pieces((enum hg_pattern)p, "!\xe3\x80\x80!", "!|\xe3\x80\x80|!");
    }
}

static void letters_and_digits_are_those_of_unicode(void **state)
{
    (void)state;
    expect_pieces(HG_PATTERN_GPT2, "caf\xc3\xa9 \xc2\xb5g", "caf\xc3\xa9|~\xc2\xb5g");
    expect_pieces(HG_PATTERN_GPT2, "\xd9\xa1\xd9\xa2", "\xd9\xa1\xd9\xa2"); /* Arabic digits */
    expect_pieces(HG_PATTERN_QWEN2, "\xd9\xa1\xd9\xa2", "\xd9\xa1|\xd9\xa2");
    expect_pieces(HG_PATTERN_GPT2, "4\xc2\xbd", "4\xc2\xbd"); /* vulgar fraction: N */
    /* long s folds to s in a case-insensitive contraction */
    expect_pieces(HG_PATTERN_QWEN2, "a'\xc5\xbf", "a|'\xc5\xbf");
    expect_pieces(HG_PATTERN_GPT2, "a'\xc5\xbf", "a|'|\xc5\xbf");
}

static void a_megabyte_of_spaces_stays_within_the_limits(void **state)
{
    (void)state;
    enum { N = 1 << 20 };
    char *s = malloc(N);
    struct hg_error err = {0};
    assert_non_null(s);
    memset(s, ' ', N);
    s[N - 1] = 'x';
    for (int pattern = 0; pattern < HG_PATTERN_COUNT; pattern++) {
        struct hg_pretokenizer *p = NULL;
        struct hg_buf out = {0};
        HG_TEST_OK(hg_pretokenizer_create((enum hg_pattern)pattern, &p, &err), err);
        assert_int_equal(hg_pretokenizer_run(p, s, N, join, &out), 0);
        assert_int_equal(out.len, N + 1);
        hg_buf_deinit(&out);
        hg_pretokenizer_destroy(p);
    }
    free(s);
}

static void a_regex_is_recognised_by_its_text(void **state)
{
    (void)state;
    assert_int_equal(hg_pattern_of_regex(
                         "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}|"
                         " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"),
                     HG_PATTERN_CL100K);
    assert_int_equal(hg_pattern_of_regex("\\s+"), HG_PATTERN_COUNT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gpt2_pattern_cuts_as_the_reference),
        cmocka_unit_test(qwen2_pattern_cuts_as_the_reference),
        cmocka_unit_test(cl100k_pattern_groups_three_digits),
        cmocka_unit_test(whitespace_is_that_of_unicode),
        cmocka_unit_test(letters_and_digits_are_those_of_unicode),
        cmocka_unit_test(a_megabyte_of_spaces_stays_within_the_limits),
        cmocka_unit_test(a_regex_is_recognised_by_its_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
