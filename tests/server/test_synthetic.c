/* tests/server/test_synthetic.c - the marks of a picture. What the programs send is in tests/e2e.
 */
#include "server/api/synthetic.h"

#include "tests/test.h"

static struct hg_error err;

static void make(struct hg_image *im, bool grey)
{
    HG_TEST_OK(hg_image_init(im, 64, 48, &err), err);
    for (int i = 0; i < 64 * 48 * 3; i++)
        im->rgb[i] = (uint8_t)((unsigned)(grey ? i - i % 3 : i) * 2654435761u >> 24);
}

static bool holds(const struct hg_buf *b, const char *text)
{
    return memmem(b->data, b->len, text, strlen(text)) != NULL;
}

static void the_marks_are_there_and_the_pixels_stay(void **state)
{
    (void)state;
    const struct hg_synthetic s = {"m", "generation", 0xabc, 18446744073709551615u};
    for (int k = 0; k < 4; k++) {
        struct hg_image im, back;
        struct hg_buf b = {0}, again = {0};
        make(&im, k & 1);
        HG_TEST_OK(hg_synthetic_png(&im, &s, k & 2, &b, &err), err);
        HG_TEST_OK(hg_synthetic_png(&im, &s, k & 2, &again, &err), err);
        assert_int_equal(b.len, again.len);
        assert_memory_equal(b.data, again.data, b.len);
        assert_true(holds(&b, "{\"model\":\"m\",\"weights\":\"crc32c:00000abc\",\"plugin\":"
                              "\"generation\",\"seed\":18446744073709551615,\"version\":"));
        assert_true(holds(&b, "Source"));
        assert_true(holds(&b, "AI generated; not for diagnosis"));
        assert_true(holds(&b, "digitalsourcetype/trainedAlgorithmicMedia"));
        HG_TEST_OK(hg_image_decode(b.data, b.len, &back, &err), err);
        assert_memory_equal(back.rgb, im.rgb, (size_t)64 * 48 * 3);
        hg_image_deinit(&back);
        hg_image_deinit(&im);
        hg_buf_deinit(&b);
        hg_buf_deinit(&again);
    }
}

static void a_name_that_is_not_ascii_does_not_break_the_chunk(void **state)
{
    (void)state;
    const struct hg_synthetic s = {"h\xc3\xb4pital \"x\"\n", "generation", 1, 2};
    struct hg_image im;
    struct hg_buf b = {0};
    make(&im, true);
    HG_TEST_OK(hg_synthetic_png(&im, &s, false, &b, &err), err);
    assert_true(holds(&b, "{\"model\":\"h??pital \\\"x\\\"\\n\",\"weights\""));
    hg_image_deinit(&im);
    hg_buf_deinit(&b);
}

static void an_empty_picture_is_refused(void **state)
{
    (void)state;
    const struct hg_synthetic s = {"m", "generation", 1, 2};
    const struct hg_image empty = {0};
    struct hg_buf b = {0};
    HG_TEST_FAILS(hg_synthetic_png(&empty, &s, false, &b, &err), HG_STATUS_BAD_REQUEST, err,
                  "empty");
    assert_int_equal(b.len, 0);
    hg_buf_deinit(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_marks_are_there_and_the_pixels_stay),
        cmocka_unit_test(a_name_that_is_not_ascii_does_not_break_the_chunk),
        cmocka_unit_test(an_empty_picture_is_refused),
    };
    return cmocka_run_group_tests_name("server/api/synthetic", tests, NULL, NULL);
}
