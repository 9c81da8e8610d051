#include "tests/test.h"

#include <stdbool.h>

#include "common/base64.h"
#include "common/rng.h"

struct pair {
    const char *plain, *text;
};

/* RFC 4648 section 10. */
static const struct pair pairs[] = {
    {"", ""},
    {"f", "Zg=="},
    {"fo", "Zm8="},
    {"foo", "Zm9v"},
    {"foob", "Zm9vYg=="},
    {"fooba", "Zm9vYmE="},
    {"foobar", "Zm9vYmFy"},
};

static void rfc_vectors_both_ways(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        struct hg_buf b = {0};
        struct hg_error err;
        assert_int_equal(hg_base64_encode(pairs[i].plain, strlen(pairs[i].plain), &b),
                         HG_STATUS_OK);
        assert_string_equal(b.data, pairs[i].text);
        hg_buf_clear(&b);
        HG_TEST_OK(hg_base64_decode(pairs[i].text, strlen(pairs[i].text), 6, &b, &err), err);
        assert_string_equal(b.data, pairs[i].plain);
        hg_buf_deinit(&b);
    }
}

static void random_bytes_make_a_round_trip(void **state)
{
    (void)state;
    struct hg_error err;
    for (uint32_t n = 0; n < 300; n++) {
        unsigned char data[300];
        struct hg_buf text = {0}, back = {0};
        for (uint32_t i = 0; i < n; i++) {
            uint32_t r[4];
            hg_philox(1, n, i, r);
            data[i] = (unsigned char)r[0];
        }
        assert_int_equal(hg_base64_encode(data, n, &text), HG_STATUS_OK);
        assert_int_equal(hg_buf_append_str(&back, "x"), HG_STATUS_OK);
        HG_TEST_OK(hg_base64_decode(text.data, text.len, n, &back, &err), err);
        assert_int_equal(back.len, n + 1);
        assert_memory_equal(back.data + 1, data, n);
        hg_buf_deinit(&text);
        hg_buf_deinit(&back);
    }
}

static void refuse(const char *text, size_t n, const char *part)
{
    struct hg_buf b = {0};
    struct hg_error err;
    assert_int_equal(hg_buf_append_str(&b, "keep"), HG_STATUS_OK);
    HG_TEST_FAILS(hg_base64_decode(text, n, 1000, &b, &err), HG_STATUS_BAD_REQUEST, err, part);
    assert_string_equal(b.data, "keep");
    assert_int_equal(b.len, 4);
    hg_buf_deinit(&b);
}

static void malformed_text_is_refused_with_its_offset(void **state)
{
    (void)state;
    refuse("Zg=", 3, "multiple of 4");
    refuse("Z", 1, "multiple of 4");
    refuse("Zm9v\n", 5, "multiple of 4");
    refuse("Zm9 ", 4, "offset 3");
    refuse("Zm9v\nZm9", 8, "offset 4");
    refuse("Z===", 4, "offset 1");
    refuse("====", 4, "offset 0");
    refuse("Zg==Zg==", 8, "offset 2");
    refuse("Zm-v", 4, "offset 2");
    refuse("Zm_v", 4, "offset 2");
    refuse("Zm\0v", 4, "offset 2");
    refuse("Zm\xc3\xa9", 4, "offset 2");
    refuse("=m9v", 4, "offset 0");
}

/* "Zh==" would decode to the same byte as "Zg==": two texts for one content are refused. */
static void bits_under_the_padding_must_be_zero(void **state)
{
    (void)state;
    refuse("Zh==", 4, "offset 1");
    refuse("Zm9=", 4, "offset 2");
}

static void every_foreign_byte_is_refused(void **state)
{
    (void)state;
    for (int c = 0; c < 256; c++) {
        char text[4] = {'A', 'A', (char)c, 'A'};
        bool ours = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
                    c == '+' || c == '/';
        struct hg_buf b = {0};
        assert_int_equal(hg_base64_decode(text, 4, 3, &b, NULL),
                         ours ? HG_STATUS_OK : HG_STATUS_BAD_REQUEST);
        hg_buf_deinit(&b);
    }
}

static void size_cap_is_exact_and_comes_before_allocation(void **state)
{
    (void)state;
    struct hg_buf b = {0};
    struct hg_error err;
    HG_TEST_OK(hg_base64_decode("Zm9vYg==", 8, 4, &b, &err), err);
    hg_buf_deinit(&b);
    HG_TEST_FAILS(hg_base64_decode("Zm9vYg==", 8, 3, &b, &err), HG_STATUS_TOO_LARGE, err,
                  "at most 3 bytes allowed, has 4");
    assert_null(b.data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rfc_vectors_both_ways),
        cmocka_unit_test(random_bytes_make_a_round_trip),
        cmocka_unit_test(malformed_text_is_refused_with_its_offset),
        cmocka_unit_test(bits_under_the_padding_must_be_zero),
        cmocka_unit_test(every_foreign_byte_is_refused),
        cmocka_unit_test(size_cap_is_exact_and_comes_before_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
