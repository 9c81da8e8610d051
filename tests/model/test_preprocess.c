/* tests/model/test_preprocess.c - bit-exactness against Pillow (tests/golden/preprocess, made by
 * tools/oracle/preprocess_oracle.py) and the vectors of reference.md 19.1 and 19.2. */
#include "tests/test.h"

#include <stdbool.h>

#include "common/half.h"
#include "model/preprocess.h"
#include "model/resample.h"

static const struct hg_preprocess_config clip = {
    .side = 336,
    .mean = {0.48145466f, 0.4578275f, 0.40821073f},
    .std = {0.26862954f, 0.26130258f, 0.27577711f},
    .rescale = 1.0 / 255,
};

static uint32_t crc32_of(const void *data, size_t n)
{
    const uint8_t *p = data;
    uint32_t crc = ~0u;
    for (size_t i = 0; i < n; i++) {
        crc ^= p[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
    }
    return ~crc;
}

/* picture() of the oracle. */
static uint8_t sample(uint32_t x, uint32_t y, uint32_t c)
{
    uint32_t t = x * x * 3 + y * y * 5 + x * y * 7 + c * 85;
    uint32_t block = ((x >> 4) + (y >> 4) + c) & 3;
    return (uint8_t)(block == 0 ? 0 : block == 1 ? 255 : (t ^ t >> 7) & 255);
}

static void picture(struct hg_image *im, int width, int height)
{
    struct hg_error err;
    HG_TEST_OK(hg_image_init(im, width, height, &err), err);
    uint8_t *p = im->rgb;
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++)
            for (int c = 0; c < 3; c++)
                *p++ = sample((uint32_t)x, (uint32_t)y, (uint32_t)c);
}

static void grey_row(struct hg_image *im, const uint8_t *values, int n)
{
    struct hg_error err;
    HG_TEST_OK(hg_image_init(im, n, 1, &err), err);
    for (int i = 0; i < n; i++)
        memset(im->rgb + 3 * i, values[i], 3);
}

struct golden {
    char operation[16], filter[16];
    int in_w, in_h, out_w, out_h;
    uint32_t crc;
    const char *spots; /* "x,y,rrggbb ..." */
};

static void check_spots(const struct golden *g, const struct hg_image *out)
{
    int x, y, used;
    unsigned rgb;
    for (const char *s = g->spots; sscanf(s, " %d,%d,%6x%n", &x, &y, &rgb, &used) == 3; s += used) {
        const uint8_t *p = out->rgb + ((size_t)y * (size_t)out->width + (size_t)x) * 3;
        unsigned got = (unsigned)p[0] << 16 | (unsigned)p[1] << 8 | p[2];
        if (got != rgb)
            fail_msg("%s %s %dx%d: pixel %d,%d is %06x, Pillow has %06x", g->operation, g->filter,
                     g->in_w, g->in_h, x, y, got, rgb);
    }
}

/* hg_preprocess with mean 0, std 1, rescale 1 gives the resampled bytes as floats. */
static void squared(const struct hg_image *in, int side, struct hg_image *out)
{
    struct hg_preprocess_config plain = {.side = side, .std = {1, 1, 1}, .rescale = 1};
    struct hg_error err;
    size_t n = (size_t)side * (size_t)side;
    float *pixels = malloc(3 * n * sizeof *pixels);
    assert_non_null(pixels);
    HG_TEST_OK(hg_preprocess(&plain, in, pixels, &err), err);
    HG_TEST_OK(hg_image_init(out, side, side, &err), err);
    for (size_t i = 0; i < n; i++)
        for (size_t c = 0; c < 3; c++)
            out->rgb[i * 3 + c] = (uint8_t)pixels[c * n + i];
    free(pixels);
}

static void check_golden(const struct golden *g)
{
    struct hg_image in, out;
    struct hg_error err;
    enum hg_resample filter =
        strcmp(g->filter, "lanczos") == 0 ? HG_RESAMPLE_LANCZOS : HG_RESAMPLE_BICUBIC;
    picture(&in, g->in_w, g->in_h);
    if (strcmp(g->operation, "square") == 0)
        squared(&in, g->out_w, &out);
    else
        HG_TEST_OK(hg_image_resize(&in, g->out_w, g->out_h, filter, &out, &err), err);
    assert_int_equal(out.width, g->out_w);
    assert_int_equal(out.height, g->out_h);
    check_spots(g, &out);
    uint32_t crc = crc32_of(out.rgb, (size_t)out.width * (size_t)out.height * 3);
    if (crc != g->crc)
        fail_msg("%s %s %dx%d: CRC %08x, Pillow has %08x", g->operation, g->filter, g->in_w,
                 g->in_h, crc, g->crc);
    hg_image_deinit(&out);
    hg_image_deinit(&in);
}

static void resizing_equals_pillow_bit_for_bit(void **state)
{
    (void)state;
    size_t n;
    char *text = (char *)hg_test_read(hg_test_file("tests/golden/preprocess/resize.txt"), &n);
    int n_cases = 0;
    for (char *rest = text, *line; (line = strtok_r(rest, "\n", &rest));) {
        struct golden g;
        int used = 0;
        assert_int_equal(sscanf(line, "%15s %15s %d %d %d %d %x%n", g.operation, g.filter, &g.in_w,
                                &g.in_h, &g.out_w, &g.out_h, &g.crc, &used),
                         7);
        g.spots = line + used;
        check_golden(&g);
        n_cases++;
    }
    free(text);
    printf("%d pictures equal Pillow's\n", n_cases);
    assert_true(n_cases >= 20);
}

static void padding_puts_the_picture_in_the_middle(void **state)
{
    (void)state;
    static const struct {
        int width, height, x, y;
    } cases[] = {{5, 2, 0, 1}, {2, 5, 1, 0}, {4, 3, 0, 0}, {3, 3, 0, 0}};
    static const uint8_t pad[3] = {122, 116, 104};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int w = cases[i].width, h = cases[i].height;
        struct hg_image in, out;
        struct hg_error err;
        picture(&in, w, h);
        HG_TEST_OK(hg_image_pad_square(&in, &out, &err), err);
        assert_int_equal(out.width, w > h ? w : h);
        assert_int_equal(out.height, out.width);
        for (int y = 0; y < out.height; y++)
            for (int x = 0; x < out.width; x++) {
                int sx = x - cases[i].x, sy = y - cases[i].y;
                bool inside = sx >= 0 && sy >= 0 && sx < w && sy < h;
                assert_memory_equal(out.rgb + 3 * (y * out.width + x),
                                    inside ? in.rgb + 3 * (sy * w + sx) : pad, 3);
            }
        hg_image_deinit(&out);
        hg_image_deinit(&in);
    }
}

static void padded_square_never_needs_to_exist(void **state)
{
    (void)state;
    struct hg_image in, padded, resized, direct;
    struct hg_error err;
    picture(&in, 37, 91);
    HG_TEST_OK(hg_image_pad_square(&in, &padded, &err), err);
    HG_TEST_OK(hg_image_resize(&padded, 64, 64, HG_RESAMPLE_BICUBIC, &resized, &err), err);
    squared(&in, 64, &direct);
    assert_memory_equal(resized.rgb, direct.rgb, 64 * 64 * 3);
    hg_image_deinit(&direct);
    hg_image_deinit(&resized);
    hg_image_deinit(&padded);
    hg_image_deinit(&in);
}

/* reference.md 19.2; the padded second axis of one pixel does not matter to a 1-D resize. */
static void one_row_gives_the_listed_values(void **state)
{
    (void)state;
    static const uint8_t row[8] = {0, 50, 100, 150, 200, 250, 10, 20};
    static const uint8_t to5[] = {16, 94, 185, 184, 8}, to3[] = {45, 180, 82};
    static const uint8_t to13[] = {0, 16, 52, 83, 113, 144, 175, 207, 255, 179, 15, 5, 21};
    static const struct {
        const uint8_t *want;
        int n;
    } cases[] = {{to5, 5}, {to13, 13}, {to3, 3}};
    struct hg_image in, out;
    struct hg_error err;
    grey_row(&in, row, 8);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        HG_TEST_OK(hg_image_resize(&in, cases[i].n, 1, HG_RESAMPLE_BICUBIC, &out, &err), err);
        for (int x = 0; x < cases[i].n; x++)
            assert_int_equal(out.rgb[3 * x], cases[i].want[x]);
        hg_image_deinit(&out);
    }
    hg_image_deinit(&in);
}

static void taps_are_the_listed_integers(void **state)
{
    (void)state;
    static const int32_t first[] = {2564317, 1799741, -76390, -93365};
    static const int32_t middle[] = {-143542, 103181, 2137513, 2137513, 103181, -143542};
    struct hg_taps t;
    struct hg_error err;
    HG_TEST_OK(hg_taps_init(&t, 8, 5, HG_RESAMPLE_BICUBIC, &err), err);
    assert_int_equal(t.first[0], 0);
    assert_int_equal(t.count[0], 4);
    assert_memory_equal(t.tap, first, sizeof first);
    assert_int_equal(t.first[2], 1);
    assert_int_equal(t.count[2], 6);
    assert_memory_equal(t.tap + 2 * t.stride, middle, sizeof middle);
    hg_taps_deinit(&t);
}

static void taps_of_one_output_cannot_overflow_the_sum(void **state)
{
    (void)state;
    int64_t worst = 0;
    for (int n_in = 1; n_in <= 8192; n_in = n_in < 40 ? n_in + 1 : n_in * 3 / 2)
        for (int n_out = 1; n_out <= 2048; n_out = n_out < 40 ? n_out + 1 : n_out * 2)
            for (int filter = 0; filter < 2; filter++) {
                struct hg_taps t;
                struct hg_error err;
                HG_TEST_OK(hg_taps_init(&t, n_in, n_out, (enum hg_resample)filter, &err), err);
                for (int i = 0; i < n_out; i++) {
                    int64_t sum = 0;
                    assert_true(t.count[i] >= 1 && t.count[i] <= t.stride);
                    assert_true(t.first[i] + t.count[i] <= n_in);
                    for (int j = 0; j < t.count[i]; j++)
                        sum += llabs(t.tap[i * t.stride + j]);
                    worst = sum > worst ? sum : worst;
                }
                hg_taps_deinit(&t);
            }
    printf("largest sum of |tap|: %.3f of the %.3f that 32 bits hold\n",
           (double)worst / (1 << HG_TAP_BITS), 512.0 / 255);
    assert_true(worst * 255 + (1 << 21) <= INT32_MAX);
}

static void grey_ramp(struct hg_image *im)
{
    struct hg_error err;
    HG_TEST_OK(hg_image_init(im, 16, 16, &err), err);
    for (int i = 0; i < 256; i++)
        memset(im->rgb + 3 * i, i, 3);
}

/* reference.md 19.1: FP16 of the normalised value, R G B. */
static void normalised_values_are_those_of_the_reference(void **state)
{
    (void)state;
    static const struct {
        int p;
        uint16_t rgb[3];
    } want[] = {
        {0, {0xbf2b, 0xbf02, 0xbdec}},   {1, {0xbf1c, 0xbef3, 0xbddd}},
        {104, {0xb462, 0xb21f, 0x9576}}, {116, {0xae53, 0xa1bb, 0x316b}},
        {122, {0xa1c3, 0x2d0c, 0x3413}}, {127, {0x2be7, 0x30ed, 0x3536}},
        {128, {0x2ce3, 0x3168, 0x3570}}, {254, {0x3faa, 0x401f, 0x4043}},
        {255, {0x3fb9, 0x4026, 0x404b}},
    };
    struct hg_preprocess_config c = clip;
    struct hg_image ramp;
    struct hg_error err;
    float pixels[3 * 256];
    c.side = 16;
    grey_ramp(&ramp);
    HG_TEST_OK(hg_preprocess(&c, &ramp, pixels, &err), err);
    for (size_t i = 0; i < sizeof want / sizeof *want; i++)
        for (int ch = 0; ch < 3; ch++)
            assert_int_equal(hg_f32_to_f16(pixels[ch * 256 + want[i].p]), want[i].rgb[ch]);
    size_t n;
    char *text = (char *)hg_test_read(hg_test_file("tests/golden/preprocess/normal.txt"), &n);
    assert_int_equal(crc32_of(pixels, sizeof pixels), (uint32_t)strtoul(text, NULL, 16));
    free(text);
    hg_image_deinit(&ramp);
}

static void the_padding_is_near_zero(void **state)
{
    (void)state;
    static const uint16_t want[3] = {0xa1c3, 0xa1bb, 0x9576};
    static float pixels[3 * 336 * 336];
    struct hg_image in;
    struct hg_error err;
    picture(&in, 40, 10);
    HG_TEST_OK(hg_preprocess(&clip, &in, pixels, &err), err);
    for (int c = 0; c < 3; c++)
        assert_int_equal(hg_f32_to_f16(pixels[c * 336 * 336]), want[c]);
    hg_image_deinit(&in);
}

static void an_empty_image_is_refused(void **state)
{
    (void)state;
    struct hg_image none = {0}, out;
    struct hg_error err;
    float pixels[3];
    HG_TEST_FAILS(hg_image_resize(&none, 4, 4, HG_RESAMPLE_BICUBIC, &out, &err),
                  HG_STATUS_BAD_IMAGE, err, "0 x 0");
    HG_TEST_FAILS(hg_image_pad_square(&none, &out, &err), HG_STATUS_BAD_IMAGE, err, "0 x 0");
    HG_TEST_FAILS(hg_preprocess(&clip, &none, pixels, &err), HG_STATUS_BAD_IMAGE, err, "0 x 0");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(resizing_equals_pillow_bit_for_bit),
        cmocka_unit_test(padding_puts_the_picture_in_the_middle),
        cmocka_unit_test(padded_square_never_needs_to_exist),
        cmocka_unit_test(one_row_gives_the_listed_values),
        cmocka_unit_test(taps_are_the_listed_integers),
        cmocka_unit_test(taps_of_one_output_cannot_overflow_the_sum),
        cmocka_unit_test(normalised_values_are_those_of_the_reference),
        cmocka_unit_test(the_padding_is_near_zero),
        cmocka_unit_test(an_empty_image_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
