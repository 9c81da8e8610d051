/* common/image_io.c - size rules and the choice of the format by its first bytes. */
#include "common/image_io.h"

#include <stdlib.h>
#include <string.h>

#include "common/file.h"
#include "common/image_codec.h"

enum hg_status hg_image_check_size(uint64_t width, uint64_t height, struct hg_error *err)
{
    unsigned long long w = width, h = height;
    if (w == 0 || h == 0)
        return hg_fail(err, HG_STATUS_BAD_IMAGE,
                       "image: expected sides of at least 1, got %llux%llu", w, h);
    if (w > HG_IMAGE_MAX_SIDE || h > HG_IMAGE_MAX_SIDE)
        return hg_fail(err, HG_STATUS_TOO_LARGE,
                       "image: expected sides of at most %d, got %llux%llu", HG_IMAGE_MAX_SIDE, w,
                       h);
    if (w * h > HG_IMAGE_MAX_PIXELS)
        return hg_fail(err, HG_STATUS_TOO_LARGE,
                       "image: expected at most %d pixels, got %llux%llu = %llu",
                       HG_IMAGE_MAX_PIXELS, w, h, w * h);
    return HG_STATUS_OK;
}

enum hg_status hg_image_init(struct hg_image *im, int width, int height, struct hg_error *err)
{
    *im = (struct hg_image){0};
    if (width < 0 || height < 0)
        width = height = 0;
    HG_TRY(hg_image_check_size((uint64_t)width, (uint64_t)height, err));
    /* Not 0 bytes: both sides were just found to be at least 1. NOLINTNEXTLINE(*UnixAPI) */
    uint8_t *rgb = calloc((size_t)width * (size_t)height, 3);
    if (!rgb)
        return hg_fail(err, HG_STATUS_NO_MEMORY, "image: out of memory for %dx%d pixels", width,
                       height);
    *im = (struct hg_image){width, height, rgb};
    return HG_STATUS_OK;
}

void hg_image_deinit(struct hg_image *im)
{
    if (!im)
        return;
    free(im->rgb);
    *im = (struct hg_image){0};
}

static const uint8_t png_magic[8] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
static const uint8_t jpeg_magic[3] = {0xff, 0xd8, 0xff};

enum hg_status hg_image_decode(const void *data, size_t n, struct hg_image *out,
                               struct hg_error *err)
{
    *out = (struct hg_image){0};
    if (n == 0)
        return hg_fail(err, HG_STATUS_BAD_IMAGE, "image: expected a PNG or JPEG, got 0 bytes");
    if (n >= sizeof png_magic && memcmp(data, png_magic, sizeof png_magic) == 0)
        return hg_png_decode(data, n, out, err);
    if (n >= sizeof jpeg_magic && memcmp(data, jpeg_magic, sizeof jpeg_magic) == 0)
        return hg_jpeg_decode(data, n, out, err);
    const uint8_t *u = data;
    return hg_fail(err, HG_STATUS_BAD_IMAGE,
                   "image: expected a PNG or JPEG, got %zu bytes that begin with %02x %02x %02x", n,
                   u[0], n > 1 ? u[1] : 0, n > 2 ? u[2] : 0);
}

enum hg_status hg_image_read(const char *path, struct hg_image *out, struct hg_error *err)
{
    struct hg_buf file = {0};
    *out = (struct hg_image){0};
    /* Read, not mapped: a mapped file that somebody cuts meanwhile would end the process (SIGBUS).
     */
    enum hg_status status = hg_file_read(path, HG_IMAGE_MAX_FILE, &file, err);
    if (status == HG_STATUS_OK)
        status = hg_image_decode(file.data, file.len, out, err);
    hg_buf_deinit(&file);
    return status;
}
