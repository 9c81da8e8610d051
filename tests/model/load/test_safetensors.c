/* tests/model/load/test_safetensors.c - the bad-file list of reliability.md 7.1 (T-16). */
#include "tests/test.h"

#include <time.h>

#include "model/load/tensor_file.h"
#include "tests/model/load/build_file.h"

/* Four bytes of data behind the header. */
struct bad {
    const char *header, *part;
};

#define ENTRY(type, shape, begin, end)                                                             \
    "{\"dtype\":\"" type "\",\"shape\":" shape ",\"data_offsets\":[" begin "," end "]}"

static const struct bad bad_headers[] = {
    {"{\"a\":" ENTRY("F32", "[1]", "0", "4") ",\"a\":" ENTRY("F32", "[1]", "0", "4") "}",
     "duplicate"},
    {"{\"a\":" ENTRY("F32", "[2]", "0", "4") "}", "tensor a: data_offsets cover 4 bytes"},
    {"{\"a\":" ENTRY("F32", "[1]", "0", "5") "}", "cut short: the header speaks of"},
    {"{\"a\":" ENTRY("F32", "[1]", "4", "0") "}", "tensor a: data_offsets: expected"},
    {"{\"a\":" ENTRY("F32", "[1]", "-4", "0") "}", "tensor a: data_offsets: expected"},
    {"{\"a\":" ENTRY("F32", "[1]", "1", "5") "}", "cut short: the header speaks of"},
    {"{\"a\":" ENTRY("F32", "[1]", "1", "4") "}", "tensor a: data_offsets cover 3 bytes"},
    {"{\"a\":" ENTRY("F16", "[1]", "0", "2") "}", "4 bytes of data, the tensors cover 2"},
    {"{\"a\":" ENTRY("F16", "[1]", "2", "4") "}", "hole"},
    {"{\"a\":" ENTRY("F16", "[1]", "0", "2") ",\"b\":" ENTRY("U8", "[1]", "3", "4") "}", "hole"},
    {"{\"a\":" ENTRY("F32", "[1]", "0", "4") ",\"b\":" ENTRY("F16", "[1]", "2", "4") "}",
     "overlap"},
    {"{\"a\":" ENTRY("F32", "[1]", "0", "4") ",\"b\":" ENTRY("F32", "[1]", "0", "4") "}",
     "overlap"},
    {"{\"a\":" ENTRY("Q4", "[1]", "0", "4") "}", "dtype Q4"},
    {"{\"a\":" ENTRY("F32", "[-1]", "0", "4") "}", "shape[0]"},
    {"{\"a\":" ENTRY("F32", "[1.0]", "0", "4") "}", "shape[0]"},
    {"{\"a\":" ENTRY("F32", "[\"1\"]", "0", "4") "}", "shape[0]"},
    {"{\"a\":" ENTRY("F32", "[9223372036854775808]", "0", "4") "}", "header"},
    {"{\"a\":" ENTRY("F32", "[4611686018427387904]", "0", "4") "}", "shape[0]"},
    {"{\"a\":" ENTRY("F32", "[1099511627775,1099511627775]", "0", "4") "}", "too many"},
    {"{\"a\":" ENTRY("F32", "[1099511627775,4194304]", "0", "4") "}", "tensor a"},
    {"{\"a\":" ENTRY("F32", "[1,1,1,1,1,1,1,1,1]", "0", "4") "}", "shape"},
    {"{\"a\":" ENTRY("F32", "1", "0", "4") "}", "shape"},
    {"{\"a\":" ENTRY("F32", "[1]", "\"0\"", "4") "}", "data_offsets"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", "data_offsets"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", "expected exactly"},
    {"{\"a\":{\"dtype\":1,\"shape\":[1],\"data_offsets\":[0,4]}}", "expected exactly"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4],\"x\":1}}",
     "expected exactly"},
    {"{\"a\":4}", "expected exactly"},
    {"{\"__metadata__\":{\"a\":1}}", "__metadata__.a"},
    {"{\"__metadata__\":[]}", "__metadata__"},
    {"{\"\":" ENTRY("F32", "[1]", "0", "4") "}", "name of 1..256"},
    {"{\"a\\u0000b\":" ENTRY("F32", "[1]", "0", "4") "}", "header"},
    {"{\"a\\nb\":" ENTRY("F32", "[1]", "0", "4") "}", "printable"},
    {"{\"a/../b\":" ENTRY("F32", "[1]", "0", "4") "}", "path"},
    {"{\"a\":" ENTRY("F32", "[1]", "0", "4") "} x", "header"},
    {"{\"a\":" ENTRY("F32", "[1]", "0", "4"), "header"},
    {"{\"a\":[[[[[[1]]]]]]}", "nested"},
    {"{}", "4 bytes of data"},
};

static void every_bad_header_is_refused_with_its_reason(void **state)
{
    (void)state;
    struct hg_buf file = {0};
    for (size_t i = 0; i < sizeof bad_headers / sizeof bad_headers[0]; i++) {
        struct hg_error err = {0};
        hg_build_safetensors(&file, bad_headers[i].header, "\0\0\200\77", 4);
        if (hg_build_parse(&file, &err) == HG_STATUS_OK)
            fail_msg("accepted: %s", bad_headers[i].header);
        if (!strstr(err.text, bad_headers[i].part))
            fail_msg("%s: \"%s\" does not name \"%s\"", bad_headers[i].header, err.text,
                     bad_headers[i].part);
    }
    hg_buf_deinit(&file);
    printf("%zu bad headers refused\n", sizeof bad_headers / sizeof bad_headers[0]);
}

static void good_headers_are_read(void **state)
{
    (void)state;
    static const char *const good[] = {
        "{\"a\":" ENTRY("F32", "[1]", "0", "4") "}",
        "{\"a\":" ENTRY("F32", "[]", "0", "4") "}        ",
        "{\"__metadata__\":{\"format\":\"pt\"},\"b\":" ENTRY(
            "BF16", "[1]", "2", "4") ",\"a\":" ENTRY("F16", "[1,1]", "0", "2") "}",
        "{\"e\":" ENTRY("F64", "[0,1099511627775]", "4", "4") ",\"a\":" ENTRY("I32", "[1]", "0",
                                                                              "4") "}",
    };
    struct hg_buf file = {0};
    struct hg_error err = {0};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        hg_build_safetensors(&file, good[i], "\0\0\200\77", 4);
        HG_TEST_OK(hg_build_parse(&file, &err), err);
    }
    hg_build_safetensors(&file, good[0], "\0\0\200\77", 4);
    struct hg_tensor_file *f;
    HG_TEST_OK(hg_tensor_file_parse("x", file.data, file.len, &f, &err), err);
    float one;
    memcpy(&one, hg_tensor_file_find(f, "a")->data, 4);
    assert_true(one == 1.0f);
    hg_tensor_file_close(f);
    hg_buf_deinit(&file);
}

static void header_length_is_checked_against_the_file(void **state)
{
    (void)state;
    static const uint64_t lengths[] = {0,         1, 3, 1000, (uint64_t)1 << 31, (uint64_t)1 << 63,
                                       UINT64_MAX};
    struct hg_error err = {0};
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        char bytes[10] = "........{}";
        struct hg_tensor_file *f;
        for (int k = 0; k < 8; k++)
            bytes[k] = (char)(lengths[i] >> 8 * k);
        assert_int_not_equal(hg_tensor_file_parse("x", bytes, 10, &f, &err), HG_STATUS_OK);
        assert_null(f);
    }
    struct hg_tensor_file *f;
    assert_int_not_equal(hg_tensor_file_parse("x", "\2\0\0\0\0\0\0\0[]", 10, &f, &err),
                         HG_STATUS_OK);
    assert_int_not_equal(hg_tensor_file_parse("x", "\5\0\0\0\0\0\0\0\357\273\277{}", 13, &f, &err),
                         HG_STATUS_OK);
}

/* Bombs are refused by counting, before jansson builds anything. */
static void header_bombs_are_refused_fast(void **state)
{
    (void)state;
    size_t n = 30u << 20;
    char *text = malloc(n + 1);
    struct hg_buf file = {0};
    struct hg_error err = {0};
    static const char *const seeds[] = {"[],", "{\"a\":", "1,", "[["};
    for (size_t s = 0; s < 4; s++) {
        size_t k = strlen(seeds[s]);
        for (size_t i = 0; i < n; i++)
            text[i] = seeds[s][i % k];
        memcpy(text, "{\"a\":[", 6);
        text[n] = '\0';
        hg_build_safetensors(&file, text, "", 0);
        clock_t before = clock();
        assert_int_not_equal(hg_build_parse(&file, &err), HG_STATUS_OK);
        printf("30 MB of \"%s\": refused in %.0f ms: %s\n", seeds[s],
               1e3 * (double)(clock() - before) / CLOCKS_PER_SEC, err.text);
    }
    free(text);
    hg_buf_deinit(&file);
}

static void a_million_tensors_are_refused(void **state)
{
    (void)state;
    struct hg_buf header = {0}, file = {0};
    struct hg_error err = {0};
    for (int i = 0; i < 100000; i++)
        hg_buf_printf(&header, "%c\"%d\":" ENTRY("F32", "[0]", "0", "0"), i ? ',' : '{', i);
    hg_buf_append_str(&header, "}");
    hg_build_safetensors(&file, header.data, "", 0);
    HG_TEST_FAILS(hg_build_parse(&file, &err), HG_STATUS_TOO_LARGE, err, "values");
    hg_buf_deinit(&header);
    hg_buf_deinit(&file);
}

static void truncation_at_every_64th_byte_is_refused(void **state)
{
    (void)state;
    const char *path =
        hg_test_shared("data/weights_formats/burn/safetensors-tests/tests/multi_layer/"
                       "multi_layer.safetensors");
    if (!path)
        HG_TEST_SKIP("shared data absent");
    size_t n;
    unsigned char *data = hg_test_read(path, &n);
    for (size_t cut = 0; cut < n; cut += 64) {
        unsigned char *part = malloc(cut + !cut);
        struct hg_error err = {0};
        struct hg_tensor_file *f;
        memcpy(part, data, cut);
        assert_int_not_equal(hg_tensor_file_parse("x", part, cut, &f, &err), HG_STATUS_OK);
        free(part);
    }
    free(data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_bad_header_is_refused_with_its_reason),
        cmocka_unit_test(good_headers_are_read),
        cmocka_unit_test(header_length_is_checked_against_the_file),
        cmocka_unit_test(header_bombs_are_refused_fast),
        cmocka_unit_test(a_million_tensors_are_refused),
        cmocka_unit_test(truncation_at_every_64th_byte_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
