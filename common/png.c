/* common/png.c - PNG to 8-bit RGB with libpng's row reader.
 *
 * libpng sees a filtered file: signature, then critical chunks only (IHDR, PLTE, IDAT, IEND and any
 * unknown critical chunk, which it refuses). Ancillary chunks (text, profiles, EXIF, tRNS, gAMA,
 * ...) change no output pixel under our colour rules, so the source below steps over them: they
 * cost neither time nor memory, and the code that parses them cannot be attacked.
 * libpng undoes compression and row filters; samples, palettes and Adam7 passes are expanded here.
 */
#include <png.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "common/image_codec.h"

enum { SIGNATURE_LEN = 8, CHUNK_OVERHEAD = 12, HEADER_LEN = 33, MAX_CHUNK = 1 << 20 };

struct decoder {
    png_structp png;
    png_infop info;
    const uint8_t *data; /* whole file */
    size_t n, pos;
    size_t chunk_left; /* bytes of the current chunk (or signature) still to hand out */
    struct hg_image *out;
    uint8_t *row; /* one unfiltered row as libpng gives it */
    int colour_type, bit_depth;
    uint8_t palette[256][3];
    struct hg_error *err;
    enum hg_status status;
};

static uint32_t be32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* Both callbacks may run inside libpng only; they leave by longjmp. */
static void on_error(png_structp png, png_const_charp text)
{
    struct decoder *d = png_get_error_ptr(png);
    d->status = strstr(text, "emory") ? HG_STATUS_NO_MEMORY : HG_STATUS_BAD_IMAGE;
    hg_fail(d->err, d->status, "image: damaged PNG: %s", text);
    png_longjmp(png, 1);
}

static void on_warning(png_structp png, png_const_charp text)
{
    (void)png;
    (void)text;
}

/* Move to the next chunk that is not ancillary (bit 5 of its first letter). */
static void next_chunk(struct decoder *d)
{
    for (;;) {
        size_t left = d->n - d->pos;
        if (left < CHUNK_OVERHEAD)
            png_error(d->png, "truncated file");
        const uint8_t *p = d->data + d->pos;
        uint32_t len = be32(p);
        if (len > left - CHUNK_OVERHEAD)
            png_error(d->png, "truncated file or bad chunk length");
        if (!(p[4] & 0x20)) {
            d->chunk_left = (size_t)len + CHUNK_OVERHEAD;
            return;
        }
        d->pos += (size_t)len + CHUNK_OVERHEAD;
    }
}

static void on_read(png_structp png, png_bytep out, size_t n)
{
    struct decoder *d = png_get_io_ptr(png);
    while (n) {
        if (d->chunk_left == 0)
            next_chunk(d);
        size_t k = n < d->chunk_left ? n : d->chunk_left;
        memcpy(out, d->data + d->pos, k);
        d->pos += k;
        d->chunk_left -= k;
        out += k;
        n -= k;
    }
}

/* Sample i of a row with 1, 2, 4 or 8 bits per sample. */
static unsigned sample_at(const uint8_t *row, uint32_t i, int bit_depth)
{
    if (bit_depth == 8)
        return row[i];
    unsigned per_byte = 8u / (unsigned)bit_depth;
    unsigned shift = 8u - (unsigned)bit_depth * (i % per_byte + 1u);
    return (unsigned)row[i / per_byte] >> shift & ((1u << bit_depth) - 1u);
}

static void put_grey(uint8_t *rgb, unsigned v)
{
    rgb[0] = rgb[1] = rgb[2] = (uint8_t)v;
}

/* The following write n pixels, `step` bytes apart. */

static void expand_grey(const struct decoder *d, uint32_t n, uint8_t *rgb, size_t step)
{
    if (d->bit_depth == 16) { /* PIL: mode I;16, values above 255 saturate */
        for (uint32_t i = 0; i < n; i++, rgb += step)
            put_grey(rgb, d->row[2 * i] ? 255 : d->row[2 * i + 1]);
        return;
    }
    unsigned scale = 255u / ((1u << d->bit_depth) - 1u);
    for (uint32_t i = 0; i < n; i++, rgb += step)
        put_grey(rgb, sample_at(d->row, i, d->bit_depth) * scale);
}

static void expand_palette(const struct decoder *d, uint32_t n, uint8_t *rgb, size_t step)
{
    for (uint32_t i = 0; i < n; i++, rgb += step)
        memcpy(rgb, d->palette[sample_at(d->row, i, d->bit_depth)], 3);
}

/* Grey+alpha, RGB, RGBA with 8 or 16 bits: the high byte of the colour samples, alpha dropped. */
static void expand_direct(const struct decoder *d, uint32_t n, uint8_t *rgb, size_t step)
{
    size_t sample = (size_t)d->bit_depth / 8;
    bool colour = d->colour_type & PNG_COLOR_MASK_COLOR;
    bool alpha = d->colour_type & PNG_COLOR_MASK_ALPHA;
    size_t pixel = sample * ((colour ? 3u : 1u) + (alpha ? 1u : 0u));
    size_t green = colour ? sample : 0;
    const uint8_t *p = d->row;
    if (pixel == 3 && step == 3) {
        memcpy(rgb, p, (size_t)n * 3);
        return;
    }
    for (uint32_t i = 0; i < n; i++, p += pixel, rgb += step) {
        rgb[0] = p[0];
        rgb[1] = p[green];
        rgb[2] = p[2 * green];
    }
}

static void expand_row(const struct decoder *d, uint32_t n, uint8_t *rgb, size_t step)
{
    if (d->colour_type == PNG_COLOR_TYPE_GRAY)
        expand_grey(d, n, rgb, step);
    else if (d->colour_type == PNG_COLOR_TYPE_PALETTE)
        expand_palette(d, n, rgb, step);
    else
        expand_direct(d, n, rgb, step);
}

/* An index beyond the palette is black, as in PIL: the table starts zeroed. */
static void load_palette(struct decoder *d)
{
    png_colorp entries = NULL;
    int n = 0;
    if (d->colour_type != PNG_COLOR_TYPE_PALETTE)
        return;
    if (!png_get_PLTE(d->png, d->info, &entries, &n))
        png_error(d->png, "palette is missing");
    for (int i = 0; i < n && i < 256; i++) {
        d->palette[i][0] = entries[i].red;
        d->palette[i][1] = entries[i].green;
        d->palette[i][2] = entries[i].blue;
    }
}

/* One pass of a progressive (Adam7) file, or the whole of a plain one. libpng is not asked to
 * de-interlace, so a pass arrives as a small image of its own: one row buffer is enough. */
static void read_pass(struct decoder *d, uint32_t x0, uint32_t y0, uint32_t dx, uint32_t dy)
{
    uint32_t width = (uint32_t)d->out->width, height = (uint32_t)d->out->height;
    if (x0 >= width)
        return;
    uint32_t n = (width - x0 + dx - 1) / dx;
    for (uint32_t y = y0; y < height; y += dy) {
        png_read_row(d->png, d->row, NULL);
        expand_row(d, n, d->out->rgb + ((size_t)y * width + x0) * 3, (size_t)dx * 3);
    }
}

/* Adam7: first column and row of each pass and the distance to the next (PNG, section 8.2). */
static const struct {
    uint8_t x0, y0, dx, dy;
} adam7[7] = {{0, 0, 8, 8}, {4, 0, 8, 8}, {0, 4, 4, 8}, {2, 0, 4, 4},
              {0, 2, 2, 4}, {1, 0, 2, 2}, {0, 1, 1, 2}};

static void read_pixels(struct decoder *d)
{
    if (png_get_interlace_type(d->png, d->info) == PNG_INTERLACE_NONE) {
        read_pass(d, 0, 0, 1, 1);
        return;
    }
    for (int pass = 0; pass < 7; pass++)
        read_pass(d, adam7[pass].x0, adam7[pass].y0, adam7[pass].dx, adam7[pass].dy);
}

/* Everything that may longjmp, called by run() only; what it allocates hangs on *d. */
static void decode(struct decoder *d)
{
    png_set_read_fn(d->png, d, on_read);
    png_set_user_limits(d->png, HG_IMAGE_MAX_SIDE, HG_IMAGE_MAX_SIDE);
    png_set_chunk_malloc_max(d->png, MAX_CHUNK);
    png_set_crc_action(d->png, PNG_CRC_ERROR_QUIT, PNG_CRC_WARN_DISCARD);
    png_set_check_for_invalid_index(d->png, 0);
    png_read_info(d->png, d->info);
    d->colour_type = png_get_color_type(d->png, d->info);
    d->bit_depth = png_get_bit_depth(d->png, d->info);
    load_palette(d);
    png_start_read_image(d->png);
    d->row = malloc(png_get_rowbytes(d->png, d->info));
    if (d->row)
        d->status = hg_image_init(d->out, (int)png_get_image_width(d->png, d->info),
                                  (int)png_get_image_height(d->png, d->info), d->err);
    else
        d->status = hg_fail(d->err, HG_STATUS_NO_MEMORY, "image: out of memory for a PNG row");
    if (d->status != HG_STATUS_OK)
        return;
    read_pixels(d);
    png_read_end(d->png, NULL);
}

static void run(struct decoder *d)
{
    d->png = png_create_read_struct(PNG_LIBPNG_VER_STRING, d, on_error, on_warning);
    if (d->png)
        d->info = png_create_info_struct(d->png);
    if (!d->info)
        d->status = hg_fail(d->err, HG_STATUS_NO_MEMORY, "image: out of memory for a PNG reader");
    else if (setjmp(png_jmpbuf(d->png)) == 0)
        decode(d);
    png_destroy_read_struct(&d->png, &d->info, NULL);
    free(d->row);
}

enum hg_status hg_png_decode(const uint8_t *data, size_t n, struct hg_image *out,
                             struct hg_error *err)
{
    *out = (struct hg_image){0};
    /* The header has a fixed place; a size that is too large is refused before libpng starts. */
    if (n < HEADER_LEN || be32(data + 8) != 13 || memcmp(data + 12, "IHDR", 4) != 0)
        return hg_fail(err, HG_STATUS_BAD_IMAGE, "image: damaged PNG: no complete IHDR chunk");
    HG_TRY(hg_image_check_size(be32(data + 16), be32(data + 20), err));
    struct decoder d = {.data = data, .n = n, .chunk_left = SIGNATURE_LEN, .out = out, .err = err};
    run(&d);
    if (d.status != HG_STATUS_OK)
        hg_image_deinit(out);
    return d.status;
}
