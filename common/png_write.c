/* common/png_write.c - RGB to PNG: fixed settings, so the same pixels give the same bytes. */
#include <png.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "common/image_io.h"

enum { MAX_KEYWORD = 79 };

struct encoder {
    png_structp png;
    png_infop info;
    const struct hg_image *im;
    const struct hg_png_options *o;
    uint8_t *grey; /* a row of samples, when that is enough */
    struct hg_buf *out;
    size_t len_before; /* of *out, restored on failure */
    struct hg_error *err;
    enum hg_status status;
};

static void on_error(png_structp png, png_const_charp text)
{
    struct encoder *e = png_get_error_ptr(png);
    enum hg_status status = strstr(text, "emory") ? HG_STATUS_NO_MEMORY : HG_STATUS_INTERNAL;
    e->status = hg_fail(e->err, status, "image: cannot write PNG: %s", text);
    png_longjmp(png, 1);
}

static void on_warning(png_structp png, png_const_charp text)
{
    (void)png;
    (void)text;
}

static void on_write(png_structp png, png_bytep data, size_t n)
{
    struct encoder *e = png_get_io_ptr(png);
    if (hg_buf_append(e->out, data, n) != HG_STATUS_OK)
        png_error(png, "out of memory");
}

static void on_flush(png_structp png)
{
    (void)png;
}

/* tEXt holds a keyword, a NUL, then the text; libpng adds length and CRC. */
static void write_text(struct encoder *e)
{
    for (const char *const *t = e->o->text; t && t[0]; t += 2) {
        size_t key_len = strlen(t[0]), value_len = strlen(t[1]);
        png_write_chunk_start(e->png, (png_const_bytep) "tEXt",
                              (png_uint_32)(key_len + 1 + value_len));
        png_write_chunk_data(e->png, (png_const_bytep)t[0], key_len + 1);
        png_write_chunk_data(e->png, (png_const_bytep)t[1], value_len);
        png_write_chunk_end(e->png);
    }
}

/* iTXt: keyword, NUL, not compressed (two zeros), no language, no translation (a NUL each), text.
 */
static void write_xmp(struct encoder *e)
{
    static const char head[] = "XML:com.adobe.xmp\0\0\0\0"; /* and the NUL of C */
    size_t n = e->o->xmp ? strlen(e->o->xmp) : 0;
    if (n == 0)
        return;
    png_write_chunk_start(e->png, (png_const_bytep) "iTXt", (png_uint_32)(sizeof head + n));
    png_write_chunk_data(e->png, (png_const_bytep)head, sizeof head);
    png_write_chunk_data(e->png, (png_const_bytep)e->o->xmp, n);
    png_write_chunk_end(e->png);
}

static bool is_grey(const struct hg_image *im)
{
    const uint8_t *p = im->rgb, *end = p + (size_t)im->width * (size_t)im->height * 3;
    while (p < end && p[0] == p[1] && p[0] == p[2])
        p += 3;
    return p == end;
}

static void write_row(struct encoder *e, const uint8_t *rgb)
{
    for (int x = 0; e->grey && x < e->im->width; x++)
        e->grey[x] = rgb[(size_t)x * 3];
    png_write_row(e->png, e->grey ? e->grey : rgb);
}

/* May longjmp; called by run() only. */
static void encode(struct encoder *e)
{
    png_uint_32 width = (png_uint_32)e->im->width, height = (png_uint_32)e->im->height;
    png_set_write_fn(e->png, e, on_write, on_flush);
    png_set_user_limits(e->png, HG_IMAGE_MAX_SIDE, HG_IMAGE_MAX_SIDE);
    png_set_compression_level(e->png, e->o->level ? e->o->level : HG_PNG_LEVEL);
    png_set_filter(e->png, PNG_FILTER_TYPE_BASE, PNG_ALL_FILTERS);
    png_set_IHDR(e->png, e->info, width, height, 8,
                 e->grey ? PNG_COLOR_TYPE_GRAY : PNG_COLOR_TYPE_RGB, PNG_INTERLACE_NONE,
                 PNG_COMPRESSION_TYPE_BASE, PNG_FILTER_TYPE_BASE);
    png_write_info(e->png, e->info);
    write_text(e);
    write_xmp(e);
    for (png_uint_32 y = 0; y < height; y++)
        write_row(e, e->im->rgb + (size_t)y * width * 3);
    png_write_end(e->png, NULL);
}

static void run(struct encoder *e)
{
    e->png = png_create_write_struct(PNG_LIBPNG_VER_STRING, e, on_error, on_warning);
    if (e->png)
        e->info = png_create_info_struct(e->png);
    if (!e->info)
        e->status = hg_fail(e->err, HG_STATUS_NO_MEMORY, "image: out of memory for a PNG writer");
    else if (setjmp(png_jmpbuf(e->png)) == 0)
        encode(e);
    png_destroy_write_struct(&e->png, &e->info);
}

/* Keywords: 1 to 79 printable ASCII bytes, no space at either end; values: printable ASCII. */
static enum hg_status check_text(const char *const *text, struct hg_error *err)
{
    for (const char *const *t = text; t && t[0]; t++) {
        size_t n = strlen(t[0]);
        size_t n_ok = 0;
        while (n_ok < n && t[0][n_ok] >= 0x20 && t[0][n_ok] < 0x7f)
            n_ok++;
        bool is_key = (t - text) % 2 == 0;
        if (n_ok != n || (is_key && (n == 0 || n > MAX_KEYWORD || t[0][0] == ' ' ||
                                     t[0][n - 1] == ' ' || !t[1])))
            return hg_fail(err, HG_STATUS_BAD_REQUEST, "image: bad PNG text %.40s", t[0]);
    }
    return HG_STATUS_OK;
}

enum hg_status hg_image_encode_png(const struct hg_image *im, const struct hg_png_options *o,
                                   struct hg_buf *out, struct hg_error *err)
{
    static const struct hg_png_options plain;
    if (im->width < 1 || im->height < 1 || !im->rgb)
        return hg_fail(err, HG_STATUS_BAD_REQUEST, "image: cannot write an empty image as PNG");
    o = o ? o : &plain;
    HG_TRY(check_text(o->text, err));
    struct encoder e = {.im = im, .o = o, .out = out, .len_before = out->len, .err = err};
    if (is_grey(im)) {
        e.grey = malloc((size_t)im->width);
        if (!e.grey)
            return hg_fail(err, HG_STATUS_NO_MEMORY, "image: out of memory for a PNG writer");
    }
    run(&e);
    free(e.grey);
    if (e.status != HG_STATUS_OK && out->data) {
        out->len = e.len_before;
        out->data[out->len] = '\0';
    }
    return e.status;
}
