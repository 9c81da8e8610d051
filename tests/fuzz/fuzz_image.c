/* tests/fuzz/fuzz_image.c - libFuzzer target of the picture decoders (make fuzz).
 *
 * Every input is tried as a file; of a decoded picture every byte is read, and what is written as
 * PNG must come back the same. Inputs whose first bytes promise more than a megapixel are left to
 * the tests of the size rules: they only make the fuzzer slow. */
#include <stdlib.h>
#include <string.h>

#include "common/image_io.h"

enum { MAX_INPUT = 1 << 16, MAX_PIXELS = 1 << 20 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static uint64_t be(const uint8_t *p, int bytes)
{
    uint64_t v = 0;
    for (int i = 0; i < bytes; i++)
        v = v << 8 | p[i];
    return v;
}

/* Size in the IHDR chunk, or in any marker that looks like a JPEG frame header. */
static int is_large(const uint8_t *data, size_t n)
{
    if (n >= 24 && data[0] == 0x89)
        return be(data + 16, 4) * be(data + 20, 4) > MAX_PIXELS;
    for (size_t i = 0; i + 9 < n; i++)
        if (data[i] == 0xff && data[i + 1] >= 0xc0 && data[i + 1] <= 0xcf &&
            be(data + i + 5, 2) * be(data + i + 7, 2) > MAX_PIXELS)
            return 1;
    return 0;
}

static void write_and_read(const struct hg_image *im)
{
    struct hg_buf png = {0};
    struct hg_image again;
    size_t n = (size_t)im->width * (size_t)im->height * 3;
    if (hg_image_encode_png(im, NULL, &png, NULL) != HG_STATUS_OK ||
        hg_image_decode(png.data, png.len, &again, NULL) != HG_STATUS_OK)
        abort();
    if (again.width != im->width || again.height != im->height ||
        memcmp(again.rgb, im->rgb, n) != 0)
        abort();
    hg_image_deinit(&again);
    hg_buf_deinit(&png);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct hg_image im;
    struct hg_error err = {0};
    if (n > MAX_INPUT || is_large(data, n))
        return 0;
    enum hg_status s = hg_image_decode(data, n, &im, &err);
    if (s != HG_STATUS_OK) {
        if (im.rgb || im.width || !err.text[0] || s == HG_STATUS_INTERNAL)
            abort();
        return 0;
    }
    write_and_read(&im);
    hg_image_deinit(&im);
    return 0;
}
