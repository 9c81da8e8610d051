#include "tests/test.h"

#include <stdbool.h>
#include <time.h>

#include "common/image_io.h"
#include "tests/common/png_builder.h"

static struct hg_error err;

/* CPU time: the bounds below must hold on a busy machine too. */
static double cpu_ms(void)
{
    return (double)clock() * 1000 / CLOCKS_PER_SEC;
}

static unsigned sample(uint32_t x, uint32_t y, int c, int depth)
{
    uint32_t v = (x * 2654435761u) ^ (y * 2246822519u) ^ ((uint32_t)c * 3266489917u);
    v ^= v >> 15;
    v *= 2654435761u;
    return v >> (32 - depth);
}

/* Half of the 16-bit grey samples below 256, so that clipping shows. */
static unsigned grey16_sample(uint32_t x, uint32_t y, int c, int depth)
{
    unsigned v = sample(x, y, c, depth);
    return v & 1 ? v : v >> 8;
}

static unsigned small_index(uint32_t x, uint32_t y, int c, int depth)
{
    return sample(x, y, c, depth) % 2;
}

static const uint8_t two_colours[6] = {10, 20, 30, 200, 100, 50};

/* The colour rules of image_io.h, one pixel at a time. */
static void expected_pixel(uint32_t x, uint32_t y, int depth, int colour, const uint8_t *plte,
                           uint8_t rgb[3])
{
    bool grey = colour == 0 || colour == 4;
    for (int c = 0; c < 3; c++) {
        unsigned v =
            (colour == 0 && depth == 16 ? grey16_sample : sample)(x, y, grey ? 0 : c, depth);
        if (colour == 3)
            v = plte[sample(x, y, 0, depth) * 3 + (unsigned)c];
        else if (depth == 16)
            v = colour == 0 ? (v > 255 ? 255 : v) : v >> 8;
        else
            v = v * 255 / ((1u << depth) - 1);
        rgb[c] = (uint8_t)v;
    }
}

static void check_size(uint32_t w, uint32_t h, int depth, int colour, bool interlaced)
{
    uint8_t plte[768];
    for (unsigned i = 0; i < sizeof plte; i++)
        plte[i] = (uint8_t)(i * 37 + 11);
    struct hg_buf b = {0};
    struct hg_image im;
    png_file(&b, w, h, depth, colour, interlaced,
             colour == 0 && depth == 16 ? grey16_sample : sample, colour == 3 ? plte : NULL,
             3u << depth);
    HG_TEST_OK(hg_image_decode(b.data, b.len, &im, &err), err);
    assert_int_equal(im.width, w);
    assert_int_equal(im.height, h);
    for (uint32_t y = 0; y < h; y++) {
        for (uint32_t x = 0; x < w; x++) {
            uint8_t rgb[3];
            expected_pixel(x, y, depth, colour, plte, rgb);
            if (memcmp(rgb, im.rgb + (y * w + x) * 3, 3) != 0)
                fail_msg("%ux%u depth %d colour %d interlaced %d: pixel (%u, %u)", w, h, depth,
                         colour, interlaced, x, y);
        }
    }
    hg_image_deinit(&im);
    hg_buf_deinit(&b);
}

static void every_type_depth_and_interlace_decodes_to_its_samples(void **state)
{
    (void)state;
    static const struct {
        int colour, depth;
    } kinds[] = {{0, 1}, {0, 2}, {0, 4}, {0, 8}, {0, 16}, {2, 8}, {2, 16}, {3, 1},
                 {3, 2}, {3, 4}, {3, 8}, {4, 8}, {4, 16}, {6, 8}, {6, 16}};
    for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++)
        for (int interlaced = 0; interlaced < 2; interlaced++)
            for (uint32_t w = 1; w <= 10; w++)
                for (uint32_t h = 1; h <= 10; h++)
                    check_size(w, h, kinds[k].depth, kinds[k].colour, interlaced);
}

static void extreme_shapes_decode(void **state)
{
    (void)state;
    for (int interlaced = 0; interlaced < 2; interlaced++) {
        check_size(8192, 1, 8, 2, interlaced);
        check_size(1, 8192, 1, 0, interlaced);
        check_size(8192, 3, 4, 3, interlaced);
    }
}

/* ---- chunks ---- */

/* A 4x4 palette file with `extra` (whole chunks) after PLTE. */
static void palette_file(struct hg_buf *b, const struct hg_buf *extra)
{
    struct hg_buf lines = {0}, z = {0};
    png_signature(b);
    png_ihdr(b, 4, 4, 8, 3, false);
    png_chunk(b, "PLTE", two_colours, sizeof two_colours);
    if (extra->len)
        assert_int_equal(hg_buf_append(b, extra->data, extra->len), HG_STATUS_OK);
    png_scanlines(&lines, 4, 4, 8, 3, false, small_index);
    png_stored(&z, lines.data, lines.len);
    /* One byte per IDAT, with empty ones between: legal, and hard on a reader. */
    for (size_t i = 0; i < z.len; i++) {
        png_chunk(b, "IDAT", z.data + i, 1);
        png_chunk(b, "IDAT", "", 0);
    }
    png_chunk(b, "IEND", "", 0);
    hg_buf_deinit(&lines);
    hg_buf_deinit(&z);
}

static void check_palette_file(const struct hg_buf *b)
{
    struct hg_image im;
    HG_TEST_OK(hg_image_decode(b->data, b->len, &im, &err), err);
    for (uint32_t i = 0; i < 16; i++)
        assert_memory_equal(im.rgb + i * 3, two_colours + small_index(i % 4, i / 4, 0, 8) * 3, 3);
    hg_image_deinit(&im);
}

static void ancillary_chunks_change_nothing(void **state)
{
    (void)state;
    static const char *const types[] = {"tRNS", "gAMA", "cHRM", "sRGB", "iCCP", "tEXt", "zTXt",
                                        "iTXt", "eXIf", "sPLT", "hIST", "pHYs", "sBIT", "bKGD",
                                        "acTL", "fcTL", "fdAT", "tIME", "abCD", "aaaa"};
    struct hg_buf extra = {0}, b = {0};
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        png_chunk(&extra, types[i], "\0\0\1\2rubbish", 11);
        png_chunk(&extra, types[i], "", 0);
    }
    extra.data[8] ^= 1; /* also with a wrong CRC: nobody reads it */
    palette_file(&b, &extra);
    check_palette_file(&b);
    hg_buf_deinit(&extra);
    hg_buf_deinit(&b);
}

/* libpng's defaults spend seconds on compressed text and refuse a large chunk. */
static void large_and_many_text_chunks_are_stepped_over(void **state)
{
    (void)state;
    struct hg_buf extra = {0}, b = {0}, big = {0};
    static char block[4096];
    for (int i = 0; i < 600; i++)
        assert_int_equal(hg_buf_append(&big, block, sizeof block), HG_STATUS_OK);
    png_chunk(&extra, "iTXt", big.data, big.len);
    for (int i = 0; i < 20000; i++)
        png_chunk(&extra, "zTXt", "k\0\0x", 4);
    palette_file(&b, &extra);
    double start = cpu_ms();
    check_palette_file(&b);
    double ms = cpu_ms() - start;
    printf("%zu bytes with 20001 text chunks: %.2f ms\n", b.len, ms);
    assert_true(ms < 100);
    hg_buf_deinit(&extra);
    hg_buf_deinit(&b);
    hg_buf_deinit(&big);
}

static void refuse(const struct hg_buf *b, const char *part)
{
    struct hg_image im;
    memset(&im, 0xa5, sizeof im);
    HG_TEST_FAILS(hg_image_decode(b->data, b->len, &im, &err), HG_STATUS_BAD_IMAGE, err, part);
    assert_null(im.rgb);
    assert_int_equal(im.width, 0);
}

static void unknown_critical_chunk_is_refused(void **state)
{
    (void)state;
    struct hg_buf extra = {0}, b = {0};
    png_chunk(&extra, "ABCD", "xyz", 3);
    palette_file(&b, &extra);
    refuse(&b, "ABCD");
    hg_buf_deinit(&extra);
    hg_buf_deinit(&b);
}

static void chunk_length_beyond_the_file_is_refused(void **state)
{
    (void)state;
    static const char *const types[] = {"tEXt", "IDAT", "PLTE"};
    for (size_t i = 0; i < 3; i++) {
        struct hg_buf b = {0};
        png_signature(&b);
        png_ihdr(&b, 4, 4, 8, 3, false);
        size_t at = b.len;
        png_chunk(&b, types[i], "x", 1);
        memcpy(b.data + at, "\xff\xff\xff\xff", 4);
        refuse(&b, "truncated file or bad chunk length");
        hg_buf_deinit(&b);
    }
}

static void bytes_after_the_end_chunk_are_ignored(void **state)
{
    (void)state;
    struct hg_buf extra = {0}, b = {0};
    palette_file(&b, &extra);
    assert_int_equal(hg_buf_append_str(&b, "trailing bytes"), HG_STATUS_OK);
    check_palette_file(&b);
    hg_buf_deinit(&b);
}

static void missing_palette_is_refused(void **state)
{
    (void)state;
    struct hg_buf b = {0};
    png_file(&b, 4, 4, 8, 3, false, sample, NULL, 0);
    refuse(&b, "PLTE");
    hg_buf_deinit(&b);
}

static void index_beyond_the_palette_is_black(void **state)
{
    (void)state;
    for (int depth = 1; depth <= 8; depth *= 2) {
        struct hg_buf b = {0};
        struct hg_image im;
        png_file(&b, 16, 16, depth, 3, false, sample, two_colours, 3);
        HG_TEST_OK(hg_image_decode(b.data, b.len, &im, &err), err);
        for (uint32_t i = 0; i < 256; i++) {
            static const uint8_t black[3];
            bool first = sample(i % 16, i / 16, 0, depth) == 0;
            assert_memory_equal(im.rgb + i * 3, first ? two_colours : black, 3);
        }
        hg_image_deinit(&im);
        hg_buf_deinit(&b);
    }
}

static void too_little_pixel_data_is_refused(void **state)
{
    (void)state;
    struct hg_buf b = {0}, lines = {0}, z = {0};
    png_scanlines(&lines, 9, 8, 8, 2, false, sample);
    png_stored(&z, lines.data, lines.len);
    png_signature(&b);
    png_ihdr(&b, 9, 9, 8, 2, false);
    png_chunk(&b, "IDAT", z.data, z.len);
    png_chunk(&b, "IEND", "", 0);
    refuse(&b, "Not enough image data");
    hg_buf_deinit(&b);
    hg_buf_deinit(&lines);
    hg_buf_deinit(&z);
}

/* ---- encoder ---- */

static void make_image(struct hg_image *im, int w, int h)
{
    HG_TEST_OK(hg_image_init(im, w, h, &err), err);
    for (int i = 0; i < w * h * 3; i++)
        im->rgb[i] = (uint8_t)sample((uint32_t)i, 1, 0, 8);
}

static void written_images_read_back_the_same(void **state)
{
    (void)state;
    static const int sizes[][2] = {{1, 1}, {1, 77}, {77, 1}, {256, 256}, {33, 5}, {8192, 2}};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct hg_image im, back;
        struct hg_buf b = {0};
        make_image(&im, sizes[i][0], sizes[i][1]);
        HG_TEST_OK(hg_image_encode_png(&im, NULL, &b, &err), err);
        HG_TEST_OK(hg_image_decode(b.data, b.len, &back, &err), err);
        assert_int_equal(back.width, im.width);
        assert_int_equal(back.height, im.height);
        assert_memory_equal(back.rgb, im.rgb, (size_t)im.width * (size_t)im.height * 3);
        hg_image_deinit(&im);
        hg_image_deinit(&back);
        hg_buf_deinit(&b);
    }
}

static void written_file_holds_nothing_but_the_given_chunks(void **state)
{
    (void)state;
    static const char *const text[] = {"Software", "healthgpt", "Comment", "", NULL};
    static const char *const expected[] = {"IHDR", "tEXt", "tEXt", "iTXt", "IDAT", "IEND"};
    struct hg_image im;
    struct hg_buf b = {0};
    make_image(&im, 32, 32);
    const struct hg_png_options o = {.text = text, .xmp = "<x/>"};
    HG_TEST_OK(hg_image_encode_png(&im, &o, &b, &err), err);
    size_t pos = 8, k = 0;
    while (pos < b.len) {
        const uint8_t *p = (const uint8_t *)b.data + pos;
        size_t n = (size_t)p[0] << 24 | (size_t)p[1] << 16 | (size_t)p[2] << 8 | p[3];
        assert_in_range(k, 0, 5);
        assert_memory_equal(p + 4, expected[k], 4);
        if (k == 1)
            assert_memory_equal(p, "\0\0\0\x12tEXtSoftware\0healthgpt", 26);
        if (k == 3)
            assert_memory_equal(p, "\0\0\0\x1aiTXtXML:com.adobe.xmp\0\0\0\0\0<x/>", 34);
        k += memcmp(p + 4, "IDAT", 4) != 0 || memcmp(p + n + 16, "IDAT", 4) != 0;
        pos += n + 12;
    }
    assert_int_equal(k, 6);
    hg_image_deinit(&im);
    hg_buf_deinit(&b);
}

/* Byte 25 of a PNG is its colour type: 0 grey, 2 RGB. */
static void pictures_without_colour_are_written_grey(void **state)
{
    (void)state;
    struct hg_image im, back;
    struct hg_buf grey = {0}, colour = {0};
    make_image(&im, 57, 31);
    size_t n = (size_t)im.width * (size_t)im.height * 3;
    for (size_t i = 0; i < n; i++)
        im.rgb[i] = im.rgb[i - i % 3];
    HG_TEST_OK(hg_image_encode_png(&im, NULL, &grey, &err), err);
    assert_int_equal(grey.data[25], 0);
    HG_TEST_OK(hg_image_decode(grey.data, grey.len, &back, &err), err);
    assert_memory_equal(back.rgb, im.rgb, n);
    hg_image_deinit(&back);
    im.rgb[n - 1] ^= 1; /* one sample of the last pixel is enough */
    HG_TEST_OK(hg_image_encode_png(&im, NULL, &colour, &err), err);
    assert_int_equal(colour.data[25], 2);
    HG_TEST_OK(hg_image_decode(colour.data, colour.len, &back, &err), err);
    assert_memory_equal(back.rgb, im.rgb, n);
    hg_image_deinit(&back);
    assert_true(grey.len < colour.len);
    hg_image_deinit(&im);
    hg_buf_deinit(&grey);
    hg_buf_deinit(&colour);
}

static void the_level_changes_bytes_and_no_pixel(void **state)
{
    (void)state;
    struct hg_image im, back;
    struct hg_buf b[2] = {{0}, {0}};
    make_image(&im, 200, 100);
    for (int i = 0; i < 2; i++) {
        const struct hg_png_options o = {.level = i ? 1 : 0};
        HG_TEST_OK(hg_image_encode_png(&im, &o, &b[i], &err), err);
        HG_TEST_OK(hg_image_decode(b[i].data, b[i].len, &back, &err), err);
        assert_memory_equal(back.rgb, im.rgb, (size_t)200 * 100 * 3);
        hg_image_deinit(&back);
    }
    assert_true(b[0].len != b[1].len || memcmp(b[0].data, b[1].data, b[0].len) != 0);
    hg_image_deinit(&im);
    hg_buf_deinit(&b[0]);
    hg_buf_deinit(&b[1]);
}

static void the_same_pixels_give_the_same_bytes(void **state)
{
    (void)state;
    struct hg_image im;
    struct hg_buf a = {0}, b = {0};
    make_image(&im, 100, 50);
    HG_TEST_OK(hg_image_encode_png(&im, NULL, &a, &err), err);
    assert_int_equal(hg_buf_append_str(&b, "before"), HG_STATUS_OK);
    HG_TEST_OK(hg_image_encode_png(&im, NULL, &b, &err), err);
    assert_int_equal(b.len, a.len + 6);
    assert_memory_equal(b.data + 6, a.data, a.len);
    hg_image_deinit(&im);
    hg_buf_deinit(&a);
    hg_buf_deinit(&b);
}

static void bad_text_and_empty_images_are_refused(void **state)
{
    (void)state;
    char long_key[81];
    memset(long_key, 'k', 80);
    long_key[80] = 0;
    const char *const bad[][3] = {
        {"", "v", NULL},    {" k", "v", NULL},       {"k ", "v", NULL},     {"k\n", "v", NULL},
        {"k", "v\n", NULL}, {"k", "\xc3\xa9", NULL}, {long_key, "v", NULL}, {"k", NULL, NULL}};
    struct hg_image im, empty = {0};
    struct hg_buf b = {0};
    make_image(&im, 2, 2);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        const struct hg_png_options o = {.text = bad[i]};
        HG_TEST_FAILS(hg_image_encode_png(&im, &o, &b, &err), HG_STATUS_BAD_REQUEST, err,
                      "bad PNG text");
    }
    HG_TEST_FAILS(hg_image_encode_png(&empty, NULL, &b, &err), HG_STATUS_BAD_REQUEST, err, "empty");
    assert_int_equal(b.len, 0);
    hg_image_deinit(&im);
    hg_buf_deinit(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_type_depth_and_interlace_decodes_to_its_samples),
        cmocka_unit_test(extreme_shapes_decode),
        cmocka_unit_test(ancillary_chunks_change_nothing),
        cmocka_unit_test(large_and_many_text_chunks_are_stepped_over),
        cmocka_unit_test(unknown_critical_chunk_is_refused),
        cmocka_unit_test(chunk_length_beyond_the_file_is_refused),
        cmocka_unit_test(bytes_after_the_end_chunk_are_ignored),
        cmocka_unit_test(missing_palette_is_refused),
        cmocka_unit_test(index_beyond_the_palette_is_black),
        cmocka_unit_test(too_little_pixel_data_is_refused),
        cmocka_unit_test(written_images_read_back_the_same),
        cmocka_unit_test(written_file_holds_nothing_but_the_given_chunks),
        cmocka_unit_test(pictures_without_colour_are_written_grey),
        cmocka_unit_test(the_level_changes_bytes_and_no_pixel),
        cmocka_unit_test(the_same_pixels_give_the_same_bytes),
        cmocka_unit_test(bad_text_and_empty_images_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
