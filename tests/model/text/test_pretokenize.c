/* The three patterns, reference.md 19.3 and the corners of their character classes. */
#include "model/text/pretokenize.h"

#include "common/buf.h"
#include "common/utf8.h"
#include "model/text/char_class.h"
#include "tests/test.h"

static void join(struct hg_buf *out, const char *s, size_t n)
{
    if (out->len)
        assert_int_equal(hg_buf_append(out, "|", 1), 0);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(hg_buf_append(out, s[i] == ' ' ? "~" : s[i] == '\n' ? "^" : &s[i], 1), 0);
}

/* '|' separates pieces, ~ = space, ^ = newline */
static void expect_pieces(enum hg_pattern pattern, const char *s, const char *want)
{
    struct hg_words words = {.pattern = pattern, .s = s, .n = strlen(s)};
    struct hg_buf out = {0};
    const char *word;
    for (size_t n; hg_words_next(&words, &word, &n);)
        join(&out, word, n);
    assert_string_equal(out.data ? out.data : "", want);
    hg_buf_deinit(&out);
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

/* U+180E is a format character, no White_Space (an older Unicode said so); U+001C..001F are no
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

/* ---- against the regular expressions themselves ---- */

/* A matcher with full backtracking for the few forms that the patterns use: the alternatives of
 * pretokenize.h read literally. It is exponential in principle and fine for short words. */
struct atom {
    const char
        *set; /* letters of L N S(pace) n(ewline), '^' in front: none of them; or "=": chars */
    const char *chars; /* of "=" */
    int min, max;      /* repeats, greedy */
};

struct cp {
    uint32_t c;
    enum hg_char_class of;
};

static bool in_set(struct cp c, const struct atom *a)
{
    if (a->set[0] == '=') /* one of these, an ASCII letter in either case when 'i' follows */
        return c.c < 128 &&
               (strchr(a->chars, (int)c.c) || (a->set[1] == 'i' && c.c >= 'A' && c.c <= 'Z' &&
                                               strchr(a->chars, (int)(c.c | 32))));
    bool negated = a->set[0] == '^', hit = false;
    for (const char *s = a->set + negated; *s; s++)
        hit = hit || (*s == 'L' && c.of == HG_CHAR_LETTER) ||
              (*s == 'N' && c.of == HG_CHAR_NUMBER) || (*s == 'S' && c.of == HG_CHAR_SPACE) ||
              (*s == 'n' && (c.c == '\r' || c.c == '\n'));
    return hit != negated;
}

/* Length of the first match that backtracking finds, -1: none. An atom with max 0 is (?!\S). */
static int match(const struct cp *s, int n, const struct atom *a)
{
    if (!a->set)
        return 0;
    if (a->max == 0)
        return n == 0 || s[0].of == HG_CHAR_SPACE ? match(s, n, a + 1) : -1;
    int most = 0;
    while (most < n && most < a->max && in_set(s[most], a))
        most++;
    for (int k = most; k >= a->min; k--) {
        int rest = match(s + k, n - k, a + 1);
        if (rest >= 0)
            return k + rest;
    }
    return -1;
}

enum { MANY = 1 << 20 };
#define ONE(set, chars)                                                                            \
    {                                                                                              \
        set, chars, 1, 1                                                                           \
    }
#define CONTRACTIONS(eq)                                                                           \
    {ONE("=", "'"), ONE(eq, "stmd")}, {ONE("=", "'"), ONE(eq, "r"), ONE(eq, "e")},                 \
        {ONE("=", "'"), ONE(eq, "v"), ONE(eq, "e")},                                               \
    {                                                                                              \
        ONE("=", "'"), ONE(eq, "l"), ONE(eq, "l")                                                  \
    }
#define SPACES                                                                                     \
    {{"S", 0, 1, MANY}, {"S", 0, 0, 0}},                                                           \
    {                                                                                              \
        {                                                                                          \
            "S", 0, 1, MANY                                                                        \
        }                                                                                          \
    }
#define QWEN_LIKE(digits)                                                                          \
    {                                                                                              \
        CONTRACTIONS("=i"), {{"^nLN", 0, 0, 1}, {"L", 0, 1, MANY}}, {{"N", 0, 1, digits}},         \
            {{"=", " ", 0, 1}, {"^SLN", 0, 1, MANY}, {"n", 0, 0, MANY}},                           \
            {{"S", 0, 0, MANY}, {"n", 0, 1, MANY}}, SPACES                                         \
    }

static const struct atom alternatives[HG_PATTERN_COUNT][10][4] = {
    [HG_PATTERN_GPT2] = {CONTRACTIONS("="),
                         {{"=", " ", 0, 1}, {"L", 0, 1, MANY}},
                         {{"=", " ", 0, 1}, {"N", 0, 1, MANY}},
                         {{"=", " ", 0, 1}, {"^SLN", 0, 1, MANY}},
                         SPACES},
    [HG_PATTERN_QWEN2] = QWEN_LIKE(1),
    [HG_PATTERN_CL100K] = QWEN_LIKE(3),
};

static int first_match(enum hg_pattern pattern, const struct cp *s, int n)
{
    for (int i = 0; i < 10 && alternatives[pattern][i][0].set; i++) {
        int len = match(s, n, alternatives[pattern][i]);
        if (len > 0)
            return len;
    }
    fail_msg("no alternative matches");
    return 0;
}

static void scanners_cut_as_the_expressions_read(void **state)
{
    (void)state;
    /* letters of contractions, digits, spaces, newlines, others; two- to four-byte ones of each */
    static const char *const letters[] = {"s",
                                          "t",
                                          "S",
                                          "r",
                                          "e",
                                          "E",
                                          "v",
                                          "l",
                                          "L",
                                          "m",
                                          "d",
                                          "D",
                                          "a",
                                          "'",
                                          "'",
                                          "'",
                                          " ",
                                          " ",
                                          " ",
                                          "\n",
                                          "\r",
                                          "\t",
                                          "1",
                                          "2",
                                          "7",
                                          ".",
                                          "!",
                                          "(",
                                          "\xc3\xa9",
                                          "\xd9\xa1",
                                          "\xc2\xa0",
                                          "\xe3\x80\x80",
                                          "\xe2\x80\xa6",
                                          "\xf0\x9f\x98\x80",
                                          "\xf0\x9d\x9f\x98",
                                          "\xcc\x81"};
    uint64_t x = 88172645463325252u;
    size_t n_words = 0;
    for (int round = 0; round < 60000; round++) {
        char text[64];
        struct cp cps[16];
        size_t n = 0, at = 0;
        int n_cps = 0, want = 0;
        for (; n_cps < 12 && (n_cps < 1 || x % 11); n_cps++) {
            x ^= x << 13, x ^= x >> 7, x ^= x << 17;
            const char *c = letters[(x >> 20) % (sizeof letters / sizeof *letters)];
            memcpy(text + n, c, strlen(c));
            hg_utf8_decode(text + n, strlen(c), &cps[n_cps].c);
            cps[n_cps].of = hg_char_class(cps[n_cps].c);
            n += strlen(c);
        }
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        for (int p = 0; p < HG_PATTERN_COUNT; p++) {
            struct hg_words words = {.pattern = (enum hg_pattern)p, .s = text, .n = n};
            const char *word;
            at = 0, want = 0;
            for (size_t len; hg_words_next(&words, &word, &len); n_words++) {
                int chars = first_match((enum hg_pattern)p, cps + want, n_cps - want);
                size_t bytes = 0;
                for (int i = 0; i < chars; i++) {
                    char c[4];
                    bytes += (size_t)hg_utf8_encode(cps[want + i].c, c);
                }
                if (len != bytes || word != text + at)
                    fail_msg("pattern %d of '%.*s' at %zu: %zu bytes, expected %zu", p, (int)n,
                             text, at, len, bytes);
                at += len;
                want += chars;
            }
            assert_int_equal(at, n);
        }
    }
    printf("%zu words equal\n", n_words);
}

/* What is looked at per byte does not grow with the text, whatever the text. */
static void the_work_is_bounded_by_the_text(void **state)
{
    (void)state;
    enum { N = 1 << 18 };
    static const char *const fills[] = {" ",      "\n",  " \n", "a",        " a", "1",
                                        "'",      "!",   "! ",  "\xc2\xa0", "'s", "\xe2\x80\xa6 ",
                                        "\r\n  ", "''l", "  x"};
    char *s = malloc(N + 1);
    assert_non_null(s);
    for (size_t i = 0; i < sizeof fills / sizeof *fills; i++)
        for (int p = 0; p < HG_PATTERN_COUNT; p++)
            for (int tail = 0; tail < 2; tail++) {
                size_t len = strlen(fills[i]), n = N / len * len;
                for (size_t at = 0; at < n; at += len)
                    memcpy(s + at, fills[i], len);
                s[n] = 'x'; /* behind a run of spaces: the expression would give one back */
                struct hg_words words = {
                    .pattern = (enum hg_pattern)p, .s = s, .n = n + (size_t)tail};
                const char *word;
                for (size_t k; hg_words_next(&words, &word, &k);)
                    ;
                assert_int_equal(words.at, words.n);
                assert_true(words.n_looks <= 5 * words.n);
            }
    free(s);
}

/* U+2EBF0 came with Unicode 15.1, U+10D4A with 16.0; newer tables would give other ids. */
static void the_unicode_version_is_pinned(void **state)
{
    (void)state;
    size_t n[4] = {0};
    for (uint32_t cp = 0; cp < 0x110000; cp++)
        n[hg_char_class(cp)]++;
    assert_int_equal(hg_char_class(0x2ebf0), HG_CHAR_LETTER);
    assert_int_equal(hg_char_class(0x10d4a), HG_CHAR_OTHER);
    assert_int_equal(n[HG_CHAR_LETTER], 136726);
    assert_int_equal(n[HG_CHAR_NUMBER], 1831);
    assert_int_equal(n[HG_CHAR_SPACE], 25);
    for (size_t i = 1; i < hg_n_char_ranges; i++)
        assert_true(hg_char_ranges[i - 1].last < hg_char_ranges[i].first);
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
        cmocka_unit_test(scanners_cut_as_the_expressions_read),
        cmocka_unit_test(the_work_is_bounded_by_the_text),
        cmocka_unit_test(the_unicode_version_is_pinned),
        cmocka_unit_test(a_regex_is_recognised_by_its_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
