/* Whole files against pixels that others computed: PIL (tables of tests/data/images, made by
 * make.py there), the PngSuite's expected pixels, and the reference pairs of a JPEG test suite.
 * Everything is compared exactly unless a bound is given with its reason. The PIL tables hold for
 * libjpeg-turbo 2.1 to 3.2 (this test ran with 2.1.5, PIL with 3.2.0). */
#include "tests/test.h"

#include <dirent.h>
#include <jansson.h>
#include <stdbool.h>

#include "common/file.h"
#include "common/image_io.h"
#include "tests/common/png_builder.h"

#define SUITES "data/weights_formats/image_suites/"

static struct hg_error err;

static bool png_size_of(const char *path, uint32_t *w, uint32_t *h, int *depth, int *colour)
{
    size_t n;
    unsigned char *d = hg_test_read(path, &n);
    bool ok = n > 26 && memcmp(d + 12, "IHDR", 4) == 0;
    if (ok) {
        *w = (uint32_t)d[18] << 8 | d[19];
        *h = (uint32_t)d[22] << 8 | d[23];
        *depth = d[24];
        *colour = d[25];
    }
    free(d);
    return ok;
}

/* ---- PIL ---- */

/* One line of a table: "path \t WxH \t crc" or "path \t REFUSED \t why". */
static void check_line(const char *root, const char *name, const char *size, const char *crc)
{
    char path[4400], got[64];
    struct hg_image im;
    snprintf(path, sizeof path, "%s/%s", root, name);
    enum hg_status status = hg_image_read(path, &im, &err);
    if (strcmp(size, "REFUSED") == 0) {
        if (status != HG_STATUS_BAD_IMAGE)
            fail_msg("%s: expected a refusal (%s), got \"%s\"", name, crc, hg_status_text(status));
        return;
    }
    if (status != HG_STATUS_OK)
        fail_msg("%s: %s", name, err.text);
    snprintf(got, sizeof got, "%dx%d %08x", im.width, im.height,
             (unsigned)png_crc(0, im.rgb, (size_t)im.width * (size_t)im.height * 3));
    char expected[64];
    snprintf(expected, sizeof expected, "%s %s", size, crc);
    if (strcmp(got, expected) != 0)
        fail_msg("%s: expected %s, got %s", name, expected, got);
    hg_image_deinit(&im);
}

static void check_table(const char *table, const char *root)
{
    FILE *f = fopen(hg_test_file(table), "r");
    char line[512];
    int n = 0, n_refused = 0;
    assert_non_null(f);
    while (fgets(line, sizeof line, f)) {
        char *save, *name = strtok_r(line, "\t", &save), *size = strtok_r(NULL, "\t", &save);
        char *crc = strtok_r(NULL, "\n", &save);
        assert_non_null(crc);
        check_line(root, name, size, crc);
        n++;
        n_refused += strcmp(size, "REFUSED") == 0;
    }
    fclose(f);
    printf("%s: %d files, %d equal to PIL, %d refused\n", table, n, n - n_refused, n_refused);
    assert_true(n > 10);
}

static void own_files_equal_pil(void **state)
{
    (void)state;
    char root[4096];
    snprintf(root, sizeof root, "%s", hg_test_file("tests/data/images"));
    check_table("tests/data/images/own.tsv", root);
}

static void shared_files_equal_pil(void **state)
{
    (void)state;
    const char *path = hg_test_shared("data");
    char root[4096];
    if (!path || !hg_test_shared(SUITES "pngsuite/basn0g01.png"))
        HG_TEST_SKIP("the image suites of the shared data are absent");
    snprintf(root, sizeof root, "%s", hg_test_shared("data"));
    check_table("tests/data/images/shared.tsv", root);
}

/* ---- PngSuite ---- */

/* Expected pixels are [h][w][RGBA], samples of the file's own depth (8 bits for less). */
static void check_pngsuite_pixels(const char *name, const char *png_path, const json_t *pixels)
{
    uint32_t w = 0, h = 0;
    int depth = 0, colour = 0;
    struct hg_image im;
    assert_true(png_size_of(png_path, &w, &h, &depth, &colour));
    HG_TEST_OK(hg_image_read(png_path, &im, &err), err);
    assert_int_equal(json_array_size(pixels), (size_t)w * h * 4);
    assert_int_equal((uint32_t)im.width, w);
    for (size_t i = 0; i < (size_t)w * h * 3; i++) {
        json_int_t v = json_integer_value(json_array_get(pixels, i / 3 * 4 + i % 3));
        if (depth == 16)
            v = colour == 0 ? (v > 255 ? 255 : v) : v >> 8;
        if (im.rgb[i] != v)
            fail_msg("%s: byte %zu: expected %d, got %d", name, i, (int)v, im.rgb[i]);
    }
    hg_image_deinit(&im);
}

static void pngsuite_pixels_are_as_expected(void **state)
{
    (void)state;
    char json_dir[4096], png_dir[4096], path[4400];
    if (!hg_test_shared(SUITES "pngsuite_expected"))
        HG_TEST_SKIP("pngsuite_expected is absent");
    snprintf(json_dir, sizeof json_dir, "%s", hg_test_shared(SUITES "pngsuite_expected"));
    snprintf(png_dir, sizeof png_dir, "%s", hg_test_shared(SUITES "pngsuite"));
    DIR *d = opendir(json_dir);
    int n = 0, n_scaled = 0, n_no_png = 0;
    for (struct dirent *e; (e = readdir(d));) {
        if (!strstr(e->d_name, ".json") || e->d_name[0] == 'x')
            continue; /* x: the damaged files, see the next test */
        if (strstr(e->d_name, "_to8")) {
            n_scaled++;
            continue;
        }
        snprintf(path, sizeof path, "%s/%.*s.png", png_dir, (int)strlen(e->d_name) - 5, e->d_name);
        FILE *png = fopen(path, "rb");
        if (!png) {
            n_no_png++;
            continue;
        }
        fclose(png);
        char json_path[4400];
        snprintf(json_path, sizeof json_path, "%s/%s", json_dir, e->d_name);
        json_t *pixels = json_load_file(json_path, 0, NULL);
        assert_non_null(pixels);
        check_pngsuite_pixels(e->d_name, path, pixels);
        json_decref(pixels);
        n++;
    }
    closedir(d);
    printf("%d files equal; skipped: %d rescaled to 8 bits by rounding (we keep the high byte), "
           "%d without the PNG itself\n",
           n, n_scaled, n_no_png);
    assert_true(n > 150);
}

static void corrupt_pngsuite_files_are_refused(void **state)
{
    (void)state;
    char dir[4096], path[4400];
    int n = 0;
    if (!hg_test_shared(SUITES "pngsuite"))
        HG_TEST_SKIP("pngsuite is absent");
    snprintf(dir, sizeof dir, "%s", hg_test_shared(SUITES "pngsuite"));
    DIR *d = opendir(dir);
    for (struct dirent *e; (e = readdir(d));) {
        struct hg_image im;
        if (e->d_name[0] != 'x')
            continue;
        snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
        assert_int_equal(hg_image_read(path, &im, &err), HG_STATUS_BAD_IMAGE);
        printf("%s: %s\n", e->d_name, err.text);
        n++;
    }
    closedir(d);
    assert_int_equal(n, 14);
}

/* ---- JPEG ---- */

static int max_difference(const struct hg_image *a, const struct hg_image *b)
{
    int max = 0;
    for (size_t i = 0; i < (size_t)a->width * (size_t)a->height * 3; i++) {
        int d = abs(a->rgb[i] - b->rgb[i]);
        max = d > max ? d : max;
    }
    return max;
}

/* The PNG twins were written by ImageMagick, whose CMYK formula rounds otherwise (1) and whose
 * libjpeg was another one (2 in restarts.jpg). */
enum { JPEG_PAIR_BOUND = 2 };

static void check_jpeg_pair(const char *dir, const char *name, int *n, int *n_16bit, int *n_alone)
{
    char jpg[4400], png[4400];
    uint32_t w = 0, h = 0;
    int depth = 0, colour = 0;
    struct hg_image a, b;
    snprintf(jpg, sizeof jpg, "%s/%s", dir, name);
    snprintf(png, sizeof png, "%s/%.*s.png", dir, (int)strlen(name) - 4, name);
    if (!hg_file_exists(png)) {
        ++*n_alone;
        return;
    }
    if (strcmp(name, "partial_progressive.jpg") == 0)
        return; /* refused on purpose: its entropy data ends early */
    assert_true(png_size_of(png, &w, &h, &depth, &colour));
    if (depth == 16 && colour == 0) {
        ++*n_16bit;
        return;
    }
    HG_TEST_OK(hg_image_read(jpg, &a, &err), err);
    HG_TEST_OK(hg_image_read(png, &b, &err), err);
    assert_int_equal(a.width, b.width);
    assert_int_equal(a.height, b.height);
    int max = max_difference(&a, &b);
    if (max)
        printf("%s: largest difference %d\n", name, max);
    assert_in_range(max, 0, JPEG_PAIR_BOUND);
    hg_image_deinit(&a);
    hg_image_deinit(&b);
    ++*n;
}

static void jpeg_reference_pairs_agree(void **state)
{
    (void)state;
    static const char *const folders[] = {SUITES "jpeg_reftest", SUITES "jpeg_reftest/mozilla"};
    int n = 0, n_16bit = 0, n_alone = 0;
    for (int i = 0; i < 2; i++) {
        char dir[4096];
        if (!hg_test_shared(folders[i]))
            HG_TEST_SKIP("jpeg_reftest is absent");
        snprintf(dir, sizeof dir, "%s", hg_test_shared(folders[i]));
        DIR *d = opendir(dir);
        for (struct dirent *e; (e = readdir(d));)
            if (strstr(e->d_name, ".jpg"))
                check_jpeg_pair(dir, e->d_name, &n, &n_16bit, &n_alone);
        closedir(d);
    }
    printf(
        "%d pairs agree; skipped: %d whose PNG is 16-bit grey (PIL clips it), %d without a PNG\n",
        n, n_16bit, n_alone);
    assert_true(n >= 30);
}

static void lossless_and_12_bit_jpegs_are_named_as_unsupported(void **state)
{
    (void)state;
    static const char *const names[] = {SUITES "jpeg_reftest/lossless/2/MR4.jpg",
                                        SUITES "jpeg_testimages/monkey12.jpg"};
    for (int i = 0; i < 2; i++) {
        struct hg_image im;
        const char *path = hg_test_shared(names[i]);
        if (!path)
            HG_TEST_SKIP("%s is absent", names[i]);
        HG_TEST_FAILS(hg_image_read(path, &im, &err), HG_STATUS_BAD_IMAGE, err, "Unsupported JPEG");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(own_files_equal_pil),
        cmocka_unit_test(shared_files_equal_pil),
        cmocka_unit_test(pngsuite_pixels_are_as_expected),
        cmocka_unit_test(corrupt_pngsuite_files_are_refused),
        cmocka_unit_test(jpeg_reference_pairs_agree),
        cmocka_unit_test(lossless_and_12_bit_jpegs_are_named_as_unsupported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
