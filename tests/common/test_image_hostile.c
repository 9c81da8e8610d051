/* Damaged and malicious files: every answer is pixels or a clean refusal, in bounded time and
 * memory. Run under AddressSanitizer this is a small deterministic fuzzer; the mutants come from
 * the files of tests/data/images and a fixed seed. */
#include "tests/test.h"

#include <pthread.h>
#include <stdbool.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "common/image_io.h"
#include "common/rng.h"
#include "tests/common/png_builder.h"

static const char *const names[] = {
    "cmyk.jpg",       "grey.jpg",    "progressive.jpg", "restart.jpg",          "rgb420.jpg",
    "rgb444.jpg",     "ycck.jpg",    "stored_rgb.jpg",  "grey16.png",           "one_bit.png",
    "grey_alpha.png", "palette.png", "rgb_alpha.png",   "grey_transparent.png",
};
enum { N_NAMES = sizeof names / sizeof names[0], N_MUTANTS = 2000 };

static struct hg_error err;

/* CPU time: the bounds below must hold on a busy machine too. */
static double cpu_ms(void)
{
    return (double)clock() * 1000 / CLOCKS_PER_SEC;
}

static unsigned char *load(const char *name, size_t *n)
{
    char path[200];
    snprintf(path, sizeof path, "tests/data/images/%s", name);
    return hg_test_read(hg_test_file(path), n);
}

/* Decode from a block of exactly n bytes, so that a read past the end is seen. */
static enum hg_status decode_exact(const void *data, size_t n, unsigned *sum)
{
    struct hg_image im;
    struct hg_error e = {0};
    void *copy = malloc(n ? n : 1);
    memcpy(copy, data, n);
    enum hg_status status = hg_image_decode(copy, n, &im, &e);
    free(copy);
    if (status == HG_STATUS_OK) {
        for (size_t i = 0; i < (size_t)im.width * (size_t)im.height * 3; i++)
            *sum += im.rgb[i];
    } else {
        assert_null(im.rgb);
        assert_int_equal(e.status, status);
        assert_true(strlen(e.text) > 10);
    }
    hg_image_deinit(&im);
    return status;
}

static void every_prefix_is_refused(void **state)
{
    (void)state;
    unsigned sum = 0;
    int n_cuts = 0;
    for (int f = 0; f < N_NAMES; f++) {
        size_t n;
        unsigned char *data = load(names[f], &n);
        assert_int_equal(decode_exact(data, n, &sum), HG_STATUS_OK);
        for (size_t cut = (size_t)f % 7; cut < n; cut += 7, n_cuts++)
            if (decode_exact(data, cut, &sum) != HG_STATUS_BAD_IMAGE)
                fail_msg("%s cut to %zu bytes was not refused", names[f], cut);
        assert_int_equal(decode_exact(data, n - 1, &sum), HG_STATUS_BAD_IMAGE);
        free(data);
    }
    printf("%d prefixes refused\n", n_cuts);
}

/* Make the CRC of every whole chunk right again: mutants that only fail there teach nothing. */
static void mend_png_crcs(unsigned char *d, size_t n)
{
    size_t pos = 8;
    while (n - pos >= 12) {
        size_t len =
            (size_t)d[pos] << 24 | (size_t)d[pos + 1] << 16 | (size_t)d[pos + 2] << 8 | d[pos + 3];
        if (len > n - pos - 12)
            return;
        uint32_t crc = png_crc(0, d + pos + 4, len + 4);
        for (int i = 0; i < 4; i++)
            d[pos + 8 + len + (size_t)i] = (unsigned char)(crc >> (24 - 8 * i));
        pos += len + 12;
    }
}

static void mutate(unsigned char *d, size_t n, uint64_t seed)
{
    uint32_t r[4];
    hg_philox(seed, 0, 0, r);
    unsigned n_flips = 1 + r[0] % 8;
    for (unsigned i = 1; i <= n_flips; i++) {
        hg_philox(seed, i, 0, r);
        size_t at = (r[3] & 1 ? r[0] : r[0] % 700) % n; /* headers more often than pixels */
        if (r[3] & 2)
            d[at] = (unsigned char)r[1];
        else
            d[at] = (unsigned char)(d[at] ^ 1u << r[1] % 8);
    }
}

static void random_mutants_give_pixels_or_a_clean_refusal(void **state)
{
    (void)state;
    int n_ok = 0;
    unsigned sum = 0;
    double slowest = 0;
    for (uint64_t m = 0; m < N_MUTANTS; m++) {
        size_t n;
        unsigned char *data = load(names[m % N_NAMES], &n);
        bool png = data[0] == 0x89;
        mutate(data, n, m);
        if (png && m / N_NAMES % 4)
            mend_png_crcs(data, n);
        double start = cpu_ms();
        enum hg_status status = decode_exact(data, n, &sum);
        double ms = cpu_ms() - start;
        slowest = ms > slowest ? ms : slowest;
        n_ok += status == HG_STATUS_OK;
        assert_true(status == HG_STATUS_OK || status == HG_STATUS_BAD_IMAGE ||
                    status == HG_STATUS_TOO_LARGE);
        free(data);
    }
    printf("%d mutants: %d decoded, %d refused, slowest %.1f ms\n", N_MUTANTS, n_ok,
           N_MUTANTS - n_ok, slowest);
    assert_in_range(n_ok, N_MUTANTS / 50, N_MUTANTS * 49 / 50);
}

/* ---- bombs ---- */

static unsigned zero_sample(uint32_t x, uint32_t y, int c, int depth)
{
    (void)x;
    (void)y;
    (void)c;
    (void)depth;
    return 0;
}

static long peak_kib(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return u.ru_maxrss;
}

static void header_bombs_are_refused_in_milliseconds(void **state)
{
    (void)state;
    static const uint32_t sizes[][2] = {{20000, 20000}, {8193, 1},    {1, 8193},
                                        {8192, 8192},   {4097, 4096}, {UINT32_MAX, UINT32_MAX},
                                        {1u << 31, 1}};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct hg_buf b = {0};
        struct hg_image im;
        png_signature(&b);
        png_ihdr(&b, sizes[i][0], sizes[i][1], 16, 6, true);
        long before = peak_kib();
        double start = cpu_ms();
        HG_TEST_FAILS(hg_image_decode(b.data, b.len, &im, &err), HG_STATUS_TOO_LARGE, err, "got ");
        double ms = cpu_ms() - start;
        printf("%.3f ms, %ld KiB: %s\n", ms, peak_kib() - before, err.text);
        assert_true(ms < 10);
        assert_true(peak_kib() - before < 1024);
        hg_buf_deinit(&b);
    }
}

/* The largest allowed header without its pixels: 48 MiB are reserved, but never touched. */
static void large_header_without_pixels_costs_no_memory(void **state)
{
    (void)state;
    struct hg_buf b = {0}, z = {0};
    struct hg_image im;
    png_signature(&b);
    png_ihdr(&b, 8192, 2048, 16, 6, false);
    png_stored(&z, "", 1);
    png_chunk(&b, "IDAT", z.data, z.len);
    png_chunk(&b, "IEND", "", 0);
    long before = peak_kib();
    double start = cpu_ms();
    HG_TEST_FAILS(hg_image_decode(b.data, b.len, &im, &err), HG_STATUS_BAD_IMAGE, err, "PNG");
    double ms = cpu_ms() - start;
    printf("%.2f ms, %ld KiB: %s\n", ms, peak_kib() - before, err.text);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    assert_true(ms < 50);
    assert_true(peak_kib() - before < 8192);
#endif
    hg_buf_deinit(&b);
    hg_buf_deinit(&z);
}

/* A small file of the largest legal size: the worst accepted input; time and memory are printed. */
static void largest_legal_image_decodes(void **state)
{
    (void)state;
    struct hg_buf b = {0};
    struct hg_image im;
    png_file(&b, 8192, 2048, 1, 0, false, zero_sample, NULL, 0);
    double start = cpu_ms();
    HG_TEST_OK(hg_image_decode(b.data, b.len, &im, &err), err);
    printf("8192x2048 from %zu bytes: %.1f ms\n", b.len, cpu_ms() - start);
    hg_image_deinit(&im);
    hg_buf_deinit(&b);
}

/* ---- not images ---- */

static void empty_and_foreign_bytes_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *data;
        size_t n;
        const char *part;
    } files[] = {
        {"", 0, "got 0 bytes"},
        {"\xff", 1, "1 bytes that begin with ff 00 00"},
        {"\x89PNG\r\n\x1a\n", 8, "no complete IHDR"},
        {"\xff\xd8\xff", 3, "truncated"},
        {"GIF89a\1\0\1\0", 10, "begin with 47 49 46"},
        {"This is a text file.\n", 21, "begin with 54 68 69"},
        {"BM\0\0\0\0", 6, "begin with 42 4d 00"},
    };
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        struct hg_image im;
        HG_TEST_FAILS(hg_image_decode(files[i].data, files[i].n, &im, &err), HG_STATUS_BAD_IMAGE,
                      err, files[i].part);
        assert_null(im.rgb);
    }
}

static void image_of_a_bad_size_is_not_made(void **state)
{
    (void)state;
    struct hg_image im;
    HG_TEST_FAILS(hg_image_init(&im, 0, 1, &err), HG_STATUS_BAD_IMAGE, err, "at least 1");
    HG_TEST_FAILS(hg_image_init(&im, -1, 1, &err), HG_STATUS_BAD_IMAGE, err, "at least 1");
    HG_TEST_FAILS(hg_image_init(&im, 8193, 1, &err), HG_STATUS_TOO_LARGE, err, "8193");
    HG_TEST_FAILS(hg_image_init(&im, 8192, 8192, &err), HG_STATUS_TOO_LARGE, err, "67108864");
    assert_null(im.rgb);
    hg_image_deinit(&im);
    hg_image_deinit(NULL);
    HG_TEST_FAILS(hg_image_read("/nonexistent/x.png", &im, &err), HG_STATUS_NOT_FOUND, err,
                  "x.png");
}

/* ---- threads ---- */

static void *decode_all(void *arg)
{
    unsigned *sum = arg;
    for (int round = 0; round < 5; round++) {
        for (int f = 0; f < N_NAMES; f++) {
            size_t n;
            char path[200];
            struct hg_image im;
            snprintf(path, sizeof path, "%s/tests/data/images/%s",
                     getenv("HG_ROOT") ? getenv("HG_ROOT") : ".", names[f]);
            if (hg_image_read(path, &im, NULL) != HG_STATUS_OK)
                continue;
            n = (size_t)im.width * (size_t)im.height * 3;
            *sum = png_crc(*sum, im.rgb, n);
            hg_image_deinit(&im);
        }
    }
    return NULL;
}

static void threads_decode_without_disturbing_each_other(void **state)
{
    (void)state;
    pthread_t threads[4];
    unsigned sums[4] = {0}, alone = 0;
    decode_all(&alone);
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, decode_all, &sums[i]), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < 4; i++)
        assert_int_equal(sums[i], alone);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_prefix_is_refused),
        cmocka_unit_test(random_mutants_give_pixels_or_a_clean_refusal),
        cmocka_unit_test(header_bombs_are_refused_in_milliseconds),
        cmocka_unit_test(large_header_without_pixels_costs_no_memory),
        cmocka_unit_test(largest_legal_image_decodes),
        cmocka_unit_test(empty_and_foreign_bytes_are_refused),
        cmocka_unit_test(image_of_a_bad_size_is_not_made),
        cmocka_unit_test(threads_decode_without_disturbing_each_other),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
