#include "tests/test.h"

#include <jpeglib.h>
#include <time.h>

#include "common/buf.h"
#include "common/image_io.h"

static struct hg_error err;

/* CPU time: the bounds below must hold on a busy machine too. */
static double cpu_ms(void)
{
    return (double)clock() * 1000 / CLOCKS_PER_SEC;
}

/* A file of tests/data/images as a buffer that the test may damage. */
static struct hg_buf load(const char *name)
{
    char path[200];
    size_t n;
    struct hg_buf b = {0};
    snprintf(path, sizeof path, "tests/data/images/%s", name);
    unsigned char *data = hg_test_read(hg_test_file(path), &n);
    assert_int_equal(hg_buf_append(&b, data, n), HG_STATUS_OK);
    free(data);
    return b;
}

/* Offset of the first segment with this marker byte; walks the segments up to SOS. */
static size_t segment(const struct hg_buf *b, int marker)
{
    const uint8_t *u = (const uint8_t *)b->data;
    for (size_t at = 2; at + 4 < b->len; at += 2 + ((size_t)u[at + 2] << 8 | u[at + 3])) {
        assert_int_equal(u[at], 0xff);
        if (u[at + 1] == marker)
            return at;
        if (u[at + 1] == 0xda)
            break;
    }
    fail_msg("marker %02x not found", marker);
    return 0;
}

static void set_size(struct hg_buf *b, int sof, unsigned width, unsigned height)
{
    char *p = b->data + segment(b, sof) + 5;
    p[0] = (char)(height >> 8);
    p[1] = (char)height;
    p[2] = (char)(width >> 8);
    p[3] = (char)width;
}

static void insert(struct hg_buf *b, size_t at, const void *data, size_t n)
{
    struct hg_buf out = {0};
    assert_int_equal(hg_buf_append(&out, b->data, at), HG_STATUS_OK);
    assert_int_equal(hg_buf_append(&out, data, n), HG_STATUS_OK);
    assert_int_equal(hg_buf_append(&out, b->data + at, b->len - at), HG_STATUS_OK);
    hg_buf_deinit(b);
    *b = out;
}

/* Decode, expect this failure within max_ms, release the buffer. */
static void refuse(struct hg_buf *b, enum hg_status status, const char *part, double max_ms)
{
    struct hg_image im;
    double start = cpu_ms();
    HG_TEST_FAILS(hg_image_decode(b->data, b->len, &im, &err), status, err, part);
    double ms = cpu_ms() - start;
    printf("%.2f ms: %s\n", ms, err.text);
    assert_true(ms < max_ms);
    assert_null(im.rgb);
    hg_buf_deinit(b);
}

static struct hg_image accept(struct hg_buf *b)
{
    struct hg_image im;
    HG_TEST_OK(hg_image_decode(b->data, b->len, &im, &err), err);
    hg_buf_deinit(b);
    return im;
}

static void same_pixels(struct hg_buf *a, struct hg_buf *b)
{
    struct hg_image x = accept(a), y = accept(b);
    assert_int_equal(x.width, y.width);
    assert_int_equal(x.height, y.height);
    assert_memory_equal(x.rgb, y.rgb, (size_t)x.width * (size_t)x.height * 3);
    hg_image_deinit(&x);
    hg_image_deinit(&y);
}

static void orientation_tag_is_not_applied(void **state)
{
    (void)state;
    struct hg_buf a = load("rotated.jpg"), b = load("rgb420.jpg");
    same_pixels(&a, &b);
}

static void grey_is_replicated(void **state)
{
    (void)state;
    struct hg_buf b = load("grey.jpg");
    struct hg_image im = accept(&b);
    for (int i = 0; i < im.width * im.height; i++) {
        assert_int_equal(im.rgb[3 * i], im.rgb[3 * i + 1]);
        assert_int_equal(im.rgb[3 * i], im.rgb[3 * i + 2]);
    }
    hg_image_deinit(&im);
}

static void large_comments_and_foreign_segments_are_stepped_over(void **state)
{
    (void)state;
    static uint8_t chunk[65537] = {0xff, 0xfe, 0xff, 0xff};
    struct hg_buf a = load("rgb420.jpg"), b = load("rgb420.jpg");
    for (int i = 0; i < 20; i++) {
        chunk[1] = (uint8_t)(i < 10 ? 0xfe : 0xe2 + i % 12);
        insert(&a, 2, chunk, sizeof chunk);
    }
    same_pixels(&a, &b);
}

static void bytes_after_the_end_marker_are_ignored(void **state)
{
    (void)state;
    struct hg_buf a = load("rgb420.jpg"), b = load("rgb420.jpg");
    assert_int_equal(hg_buf_append_str(&a, "trailing"), HG_STATUS_OK);
    same_pixels(&a, &b);
}

static void file_without_its_end_is_truncated(void **state)
{
    (void)state;
    struct hg_buf b = load("rgb420.jpg");
    b.len -= 2;
    refuse(&b, HG_STATUS_BAD_IMAGE, "truncated file", 50);
}

/* libjpeg fills the rest with grey and only warns. */
static void pixel_data_that_ends_early_is_damage(void **state)
{
    (void)state;
    struct hg_buf b = load("rgb420.jpg");
    b.len -= 150;
    assert_int_equal(hg_buf_append(&b, "\xff\xd9", 2), HG_STATUS_OK);
    refuse(&b, HG_STATUS_BAD_IMAGE, "premature end of data segment", 50);
}

static void lost_restart_marker_is_damage(void **state)
{
    (void)state;
    struct hg_buf b = load("restart.jpg");
    size_t at = b.len;
    for (size_t i = b.len - 2; i > 0 && at == b.len; i--)
        if ((uint8_t)b.data[i] == 0xff && ((uint8_t)b.data[i + 1] & 0xf8) == 0xd0)
            at = i;
    assert_true(at < b.len);
    b.data[at + 1] = (char)(((uint8_t)b.data[at + 1] ^ 4));
    refuse(&b, HG_STATUS_BAD_IMAGE, "Corrupt JPEG data", 50);
}

static void frame_sizes_are_checked_before_anything_is_allocated(void **state)
{
    (void)state;
    static const struct {
        unsigned w, h;
        enum hg_status status;
        const char *part;
    } sizes[] = {
        {20000, 20000, HG_STATUS_TOO_LARGE, "at most 8192, got 20000x20000"},
        {65535, 65535, HG_STATUS_TOO_LARGE, "65500"},
        {8193, 1, HG_STATUS_TOO_LARGE, "got 8193x1"},
        {8192, 2049, HG_STATUS_TOO_LARGE, "at most 16777216 pixels"},
        {0, 5, HG_STATUS_BAD_IMAGE, "Empty JPEG image"},
        {5, 0, HG_STATUS_BAD_IMAGE, "Empty JPEG image"},
    };
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct hg_buf base = load("rgb420.jpg"), progressive = load("progressive.jpg");
        set_size(&base, 0xc0, sizes[i].w, sizes[i].h);
        refuse(&base, sizes[i].status, sizes[i].part, 10);
        set_size(&progressive, 0xc2, sizes[i].w, sizes[i].h);
        refuse(&progressive, sizes[i].status, sizes[i].part, 10);
    }
}

/* 4096 x 4096 x 3 coefficients of 2 bytes are 96 MiB at full sampling, 48 MiB at 4:2:0. */
static void progressive_coefficients_are_limited_to_64_mib(void **state)
{
    (void)state;
    struct hg_buf b = load("progressive.jpg");
    set_size(&b, 0xc2, 4096, 4096);
    b.data[segment(&b, 0xc2) + 11] = 0x11;
    refuse(&b, HG_STATUS_TOO_LARGE, "progressive image needs more than 64 MiB", 10);
}

/* The first scan of progressive.jpg, repeated: legal for libjpeg, and each repetition costs a pass.
 */
static void more_than_100_scans_are_refused(void **state)
{
    (void)state;
    struct hg_buf b = load("progressive.jpg");
    const uint8_t *u = (const uint8_t *)b.data;
    size_t from = segment(&b, 0xda), to = from + 2;
    while (!(u[to] == 0xff && u[to + 1] != 0 && (u[to + 1] & 0xf8) != 0xd0))
        to++;
    size_t n = to - from;
    uint8_t *scan = malloc(n);
    memcpy(scan, u + from, n);
    struct hg_buf few = load("progressive.jpg"), plain = load("progressive.jpg");
    for (int i = 0; i < 20; i++)
        insert(&few, from, scan, n);
    for (int i = 0; i < 150; i++)
        insert(&b, from, scan, n);
    free(scan);
    same_pixels(&few, &plain);
    refuse(&b, HG_STATUS_BAD_IMAGE, "more than 100 scans", 100);
}

/* No common encoder writes two components; libjpeg does when told not to know the colour space. */
static struct hg_buf two_component_file(void)
{
    struct jpeg_compress_struct c;
    struct jpeg_error_mgr errors;
    unsigned char *data = NULL, pixels[8 * 2] = {0};
    unsigned long n = 0;
    struct hg_buf b = {0};
    c.err = jpeg_std_error(&errors);
    jpeg_create_compress(&c);
    jpeg_mem_dest(&c, &data, &n);
    c.image_width = 8;
    c.image_height = 1;
    c.input_components = 2;
    c.in_color_space = JCS_UNKNOWN;
    jpeg_set_defaults(&c);
    jpeg_start_compress(&c, TRUE);
    jpeg_write_scanlines(&c, &(JSAMPROW){pixels}, 1);
    jpeg_finish_compress(&c);
    jpeg_destroy_compress(&c);
    assert_int_equal(hg_buf_append(&b, data, n), HG_STATUS_OK);
    free(data);
    return b;
}

static void two_components_are_refused(void **state)
{
    (void)state;
    struct hg_buf b = two_component_file();
    refuse(&b, HG_STATUS_BAD_IMAGE, "expected 1, 3 or 4 components, got 2", 50);
}

static void cmyk_and_ycck_differ_only_by_the_transform(void **state)
{
    (void)state;
    struct hg_buf a = load("cmyk.jpg"), b = load("ycck.jpg");
    struct hg_image x = accept(&a), y = accept(&b);
    assert_int_equal(x.width, y.width);
    assert_memory_not_equal(x.rgb, y.rgb, (size_t)x.width * 3);
    hg_image_deinit(&x);
    hg_image_deinit(&y);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(orientation_tag_is_not_applied),
        cmocka_unit_test(grey_is_replicated),
        cmocka_unit_test(large_comments_and_foreign_segments_are_stepped_over),
        cmocka_unit_test(bytes_after_the_end_marker_are_ignored),
        cmocka_unit_test(file_without_its_end_is_truncated),
        cmocka_unit_test(pixel_data_that_ends_early_is_damage),
        cmocka_unit_test(lost_restart_marker_is_damage),
        cmocka_unit_test(frame_sizes_are_checked_before_anything_is_allocated),
        cmocka_unit_test(progressive_coefficients_are_limited_to_64_mib),
        cmocka_unit_test(more_than_100_scans_are_refused),
        cmocka_unit_test(two_components_are_refused),
        cmocka_unit_test(cmyk_and_ycck_differ_only_by_the_transform),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
