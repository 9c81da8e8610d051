#include "tests/test.h"

#include "common/utf8.h"

static void every_code_point_makes_a_round_trip(void **state)
{
    (void)state;
    for (uint32_t cp = 0; cp <= 0x110010; cp++) {
        char s[4];
        int n = hg_utf8_encode(cp, s);
        if (cp > 0x10ffff || (cp >= 0xd800 && cp <= 0xdfff)) {
            assert_int_equal(n, 0);
            continue;
        }
        uint32_t back = 0xffffffff;
        int expected = cp < 0x80 ? 1 : cp < 0x800 ? 2 : cp < 0x10000 ? 3 : 4;
        assert_int_equal(n, expected);
        assert_int_equal(hg_utf8_decode(s, (size_t)n, &back), n);
        assert_int_equal(back, cp);
        for (int cut = 0; cut < n; cut++)
            assert_int_equal(hg_utf8_decode(s, (size_t)cut, &back), 0);
    }
}

/* RFC 3629 as a grammar, written the long way round. */
static bool valid_pair(unsigned char a, unsigned char b)
{
    return a >= 0xc2 && a <= 0xdf && b >= 0x80 && b <= 0xbf;
}

static bool valid_triple(const unsigned char *s)
{
    uint32_t cp = (s[0] & 15u) << 12 | (s[1] & 63u) << 6 | (s[2] & 63u);
    return (s[0] & 0xf0) == 0xe0 && (s[1] & 0xc0) == 0x80 && (s[2] & 0xc0) == 0x80 && cp >= 0x800 &&
           !(cp >= 0xd800 && cp <= 0xdfff);
}

static void all_two_and_three_byte_strings_are_judged_right(void **state)
{
    (void)state;
    uint32_t cp;
    for (unsigned v = 0; v < 1u << 24; v += 1) {
        unsigned char s[3] = {(unsigned char)(v >> 16), (unsigned char)(v >> 8), (unsigned char)v};
        int n = hg_utf8_decode((const char *)s, 3, &cp);
        int expected = s[0] < 0x80 ? 1 : valid_pair(s[0], s[1]) ? 2 : valid_triple(s) ? 3 : 0;
        if (n != expected)
            fail_msg("%02x %02x %02x: expected %d, got %d", s[0], s[1], s[2], expected, n);
    }
}

static void four_byte_limits(void **state)
{
    (void)state;
    uint32_t cp;
    assert_int_equal(hg_utf8_decode("\xf0\x90\x80\x80", 4, &cp), 4);
    assert_int_equal(cp, 0x10000);
    assert_int_equal(hg_utf8_decode("\xf4\x8f\xbf\xbf", 4, &cp), 4);
    assert_int_equal(cp, 0x10ffff);
    assert_int_equal(hg_utf8_decode("\xf0\x8f\xbf\xbf", 4, &cp), 0);
    assert_int_equal(hg_utf8_decode("\xf4\x90\x80\x80", 4, &cp), 0);
    assert_int_equal(hg_utf8_decode("\xf5\x80\x80\x80", 4, &cp), 0);
    assert_int_equal(hg_utf8_decode("\xf8\x88\x80\x80\x80", 5, &cp), 0);
}

static void valid_prefix_stops_at_the_first_error(void **state)
{
    (void)state;
    assert_int_equal(hg_utf8_valid_prefix("ab\xc3\xa9\xff z", 7), 4);
    assert_int_equal(hg_utf8_valid_prefix("ab\xe2\x82", 4), 2);
    assert_true(hg_utf8_valid("", 0));
    assert_true(hg_utf8_valid("\0x", 2));
    assert_false(hg_utf8_valid("\xed\xa0\x80", 3));
}

/* The tail is what a longer string could still complete: try all completions of short strings. */
static bool completable(const unsigned char *s, size_t n)
{
    unsigned char t[4] = {0};
    uint32_t cp;
    memcpy(t, s, n);
    size_t whole = s[0] >= 0xf0 ? 4 : s[0] >= 0xe0 ? 3 : 2;
    if (n >= whole)
        return false;
    size_t missing = whole - n;
    for (unsigned b = 0x80; b < 0xc0; b++) {
        memset(t + n, (int)b, missing);
        if (hg_utf8_decode((const char *)t, n + missing, &cp) == (int)(n + missing))
            return true;
    }
    return false;
}

static void incomplete_tail_is_exactly_what_may_still_become_valid(void **state)
{
    (void)state;
    for (unsigned v = 0; v < 1u << 24; v += 3) {
        unsigned char s[4] = {'a', (unsigned char)(v >> 16), (unsigned char)(v >> 8),
                              (unsigned char)v};
        size_t expected = 0;
        for (size_t k = 3; k >= 1 && !expected; k--)
            if (s[4 - k] >= 0xc2 && completable(s + 4 - k, k))
                expected = k;
        size_t got = hg_utf8_incomplete_tail((const char *)s, 4);
        if (got != expected)
            fail_msg("%02x %02x %02x: expected %zu, got %zu", s[1], s[2], s[3], expected, got);
    }
    assert_int_equal(hg_utf8_incomplete_tail("", 0), 0);
    assert_int_equal(hg_utf8_incomplete_tail("\xe2", 1), 1);
    assert_int_equal(hg_utf8_incomplete_tail("\x80\x80", 2), 0);
}

static void bytes_fed_one_at_a_time_come_out_whole(void **state)
{
    (void)state;
    static const char text[] = "a\xc3\xa9\xe2\x82\xac\xf0\x9f\xa9\xba!";
    size_t sent = 0;
    for (size_t n = 1; n < sizeof text; n++) {
        size_t hold = hg_utf8_incomplete_tail(text, n);
        size_t ready = n - hold;
        assert_true(ready >= sent);
        assert_true(hg_utf8_valid(text + sent, ready - sent));
        sent = ready;
    }
    assert_int_equal(sent, sizeof text - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_code_point_makes_a_round_trip),
        cmocka_unit_test(all_two_and_three_byte_strings_are_judged_right),
        cmocka_unit_test(four_byte_limits),
        cmocka_unit_test(valid_prefix_stops_at_the_first_error),
        cmocka_unit_test(incomplete_tail_is_exactly_what_may_still_become_valid),
        cmocka_unit_test(bytes_fed_one_at_a_time_come_out_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
