/* model/preprocess.c - square padding, resampling, normalisation (reference.md 8.1-8.3). */
#include "model/preprocess.h"

#include <string.h>

#include "model/healthgpt.h"
#include "model/resample.h"

/* int(mean * 255) of the CLIP means: what the reference fills the square with. */
static const uint8_t pad_colour[3] = {122, 116, 104};

/* The picture in the middle of a square canvas; an odd pixel of padding goes to the right or below.
 */
static struct hg_canvas square_canvas(const struct hg_image *im)
{
    int side = im->width > im->height ? im->width : im->height;
    struct hg_canvas c = {im, side, side, (side - im->width) / 2, (side - im->height) / 2, {0}};
    memcpy(c.pad, pad_colour, sizeof c.pad);
    return c;
}

static enum hg_status check_image(const struct hg_image *im, struct hg_error *err)
{
    if (!im->rgb || im->width < 1 || im->height < 1)
        return hg_fail(err, HG_STATUS_BAD_IMAGE, "image: %d x %d pixels", im->width, im->height);
    return HG_STATUS_OK;
}

enum hg_status hg_image_pad_square(const struct hg_image *in, struct hg_image *out,
                                   struct hg_error *err)
{
    *out = (struct hg_image){0};
    HG_TRY(check_image(in, err));
    struct hg_canvas c = square_canvas(in);
    HG_TRY(hg_image_init(out, c.width, c.height, err));
    size_t side = (size_t)c.width, row_bytes = (size_t)in->width * 3;
    for (size_t i = 0; i < side * side; i++)
        memcpy(out->rgb + i * 3, c.pad, 3);
    for (size_t y = 0; y < (size_t)in->height; y++)
        memcpy(out->rgb + ((y + (size_t)c.y) * side + (size_t)c.x) * 3, in->rgb + y * row_bytes,
               row_bytes);
    return HG_STATUS_OK;
}

enum hg_status hg_image_resize(const struct hg_image *in, int width, int height,
                               enum hg_resample filter, struct hg_image *out, struct hg_error *err)
{
    *out = (struct hg_image){0};
    HG_TRY(check_image(in, err));
    struct hg_canvas c = {.im = in, .width = in->width, .height = in->height};
    return hg_canvas_resize(&c, width, height, filter, out, err);
}

void hg_preprocess_transform(const struct hg_preprocess_config *c, const struct hg_image *in,
                             struct hg_image_transform *out)
{
    struct hg_canvas square = square_canvas(in);
    *out = (struct hg_image_transform){.width = in->width,
                                       .height = in->height,
                                       .left = square.x,
                                       .top = square.y,
                                       .right = square.width - in->width - square.x,
                                       .bottom = square.height - in->height - square.y,
                                       .side = c->side,
                                       .scale = (double)c->side / square.width};
    memcpy(out->pad_rgb, square.pad, sizeof out->pad_rgb);
}

/* The reference rescales in double, rounds to fp32, then subtracts and divides in fp32. */
static void normalise_table(const struct hg_preprocess_config *c, int channel, float table[256])
{
    for (int p = 0; p < 256; p++) {
        float v = (float)(p * c->rescale);
        v -= c->mean[channel];
        table[p] = v / c->std[channel];
    }
}

enum hg_status hg_preprocess(const struct hg_preprocess_config *c, const struct hg_image *in,
                             float *pixels, struct hg_error *err)
{
    HG_TRY(check_image(in, err));
    struct hg_canvas square = square_canvas(in);
    struct hg_image im;
    HG_TRY(hg_canvas_resize(&square, c->side, c->side, HG_RESAMPLE_BICUBIC, &im, err));
    size_t n = (size_t)c->side * (size_t)c->side;
    for (int channel = 0; channel < 3; channel++) {
        float table[256];
        normalise_table(c, channel, table);
        for (size_t i = 0; i < n; i++)
            *pixels++ = table[im.rgb[i * 3 + (size_t)channel]];
    }
    hg_image_deinit(&im);
    return HG_STATUS_OK;
}
