/* common/jpeg.c - JPEG to 8-bit RGB with libjpeg-turbo at its defaults (ISLOW DCT, fancy
 * upsampling), which is what PIL uses.
 *
 * The whole file is in memory: running out of bytes is an error, where libjpeg's own memory source
 * would invent an end marker and hand out a grey rest. Warnings that mean damaged pixel data are
 * errors as well: a partly grey scan must not be read as a finding. */
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>

#include <jerror.h>

#include "common/image_codec.h"

/* MAX_SCANS: a progressive file may repeat scans at almost no cost in bytes.
 * MAX_MEMORY: what libjpeg may hold, above all the coefficients of a progressive file. */
enum { MAX_SCANS = 100, MAX_MEMORY = 64 << 20, CMYK = 4 };

struct decoder {
    struct jpeg_decompress_struct cinfo;
    struct jpeg_error_mgr errors;
    struct jpeg_source_mgr source;
    struct jpeg_progress_mgr progress;
    jmp_buf jump;
    struct hg_image *out;
    uint8_t *cmyk; /* one row */
    struct hg_error *err;
    enum hg_status status;
};

static struct decoder *decoder_of(j_common_ptr cinfo)
{
    return cinfo->client_data;
}

static void leave(struct decoder *d, enum hg_status status, const char *text)
{
    const char *what = status == HG_STATUS_BAD_IMAGE ? "damaged or unsupported JPEG" : "JPEG";
    d->status = hg_fail(d->err, status, "image: %s: %s", what, text);
    longjmp(d->jump, 1);
}

static void on_error(j_common_ptr cinfo)
{
    char text[JMSG_LENGTH_MAX];
    enum hg_status status = HG_STATUS_BAD_IMAGE;
    cinfo->err->format_message(cinfo, text);
    if (cinfo->err->msg_code == JERR_OUT_OF_MEMORY)
        status = HG_STATUS_NO_MEMORY;
    else if (cinfo->err->msg_code == JERR_IMAGE_TOO_BIG)
        status = HG_STATUS_TOO_LARGE;
    else if (cinfo->err->msg_code == JERR_NO_BACKING_STORE) {
        status = HG_STATUS_TOO_LARGE;
        snprintf(text, sizeof text, "progressive image needs more than %d MiB", MAX_MEMORY >> 20);
    }
    leave(decoder_of(cinfo), status, text);
}

static void on_message(j_common_ptr cinfo, int level)
{
    if (level >= 0)
        return;
    switch (cinfo->err->msg_code) {
    case JWRN_HIT_MARKER:
    case JWRN_HUFF_BAD_CODE:
    case JWRN_ARITH_BAD_CODE:
    case JWRN_MUST_RESYNC:
    case JWRN_JPEG_EOF:
        on_error(cinfo);
        break;
    default: /* odd but harmless: bytes between segments, unknown JFIF revision, ... */
        break;
    }
}

static void on_output(j_common_ptr cinfo)
{
    (void)cinfo;
}

static void source_nothing(j_decompress_ptr cinfo)
{
    (void)cinfo;
}

static boolean source_fill(j_decompress_ptr cinfo)
{
    leave(decoder_of((j_common_ptr)cinfo), HG_STATUS_BAD_IMAGE, "truncated file");
    return FALSE;
}

static void source_skip(j_decompress_ptr cinfo, long n)
{
    if (n <= 0)
        return;
    if ((size_t)n > cinfo->src->bytes_in_buffer)
        source_fill(cinfo);
    cinfo->src->next_input_byte += n;
    cinfo->src->bytes_in_buffer -= (size_t)n;
}

static void on_progress(j_common_ptr cinfo)
{
    if (((j_decompress_ptr)cinfo)->input_scan_number > MAX_SCANS)
        leave(decoder_of(cinfo), HG_STATUS_BAD_IMAGE, "more than 100 scans");
}

/* a * b / 255, rounded, as PIL computes it. */
static unsigned mul_div_255(unsigned a, unsigned b)
{
    unsigned t = a * b + 128;
    return ((t >> 8) + t) >> 8;
}

/* PIL takes every CMYK JPEG as Adobe's inverted form (255 = no ink): ink c = 255 - v, and
 * rgb = white - black - ink * (white - black), clipped at 0. */
static void cmyk_to_rgb(const uint8_t *cmyk, uint32_t n, uint8_t *rgb)
{
    for (uint32_t i = 0; i < n; i++, cmyk += 4, rgb += 3) {
        unsigned paper = cmyk[3];
        for (int c = 0; c < 3; c++) {
            unsigned ink = mul_div_255(255u - cmyk[c], paper);
            rgb[c] = (uint8_t)(paper > ink ? paper - ink : 0);
        }
    }
}

static void grey_to_rgb(uint8_t *row, uint32_t n)
{
    for (uint32_t i = n; i-- > 0;)
        row[3 * i] = row[3 * i + 1] = row[3 * i + 2] = row[i];
}

static void read_rows(struct decoder *d)
{
    struct jpeg_decompress_struct *c = &d->cinfo;
    while (c->output_scanline < c->output_height) {
        uint8_t *rgb = d->out->rgb + (size_t)c->output_scanline * c->output_width * 3;
        JSAMPROW row = d->cmyk ? d->cmyk : rgb;
        jpeg_read_scanlines(c, &row, 1);
        if (d->cmyk)
            cmyk_to_rgb(d->cmyk, c->output_width, rgb);
        else if (c->output_components == 1)
            grey_to_rgb(rgb, c->output_width);
    }
}

static J_COLOR_SPACE output_space(int n_components)
{
    return n_components == 1 ? JCS_GRAYSCALE : n_components == CMYK ? JCS_CMYK : JCS_RGB;
}

/* By the frame header alone; libjpeg has allocated next to nothing so far. */
static enum hg_status check_header(const struct decoder *d)
{
    const struct jpeg_decompress_struct *c = &d->cinfo;
    HG_TRY(hg_image_check_size(c->image_width, c->image_height, d->err));
    if (c->num_components == 2 || c->num_components > CMYK)
        return hg_fail(d->err, HG_STATUS_BAD_IMAGE, "image: expected 1, 3 or 4 components, got %d",
                       c->num_components);
    return HG_STATUS_OK;
}

static enum hg_status allocate(struct decoder *d)
{
    const struct jpeg_decompress_struct *c = &d->cinfo;
    HG_TRY(hg_image_init(d->out, (int)c->output_width, (int)c->output_height, d->err));
    if (c->num_components != CMYK)
        return HG_STATUS_OK;
    d->cmyk = malloc((size_t)c->output_width * CMYK);
    return d->cmyk ? HG_STATUS_OK
                   : hg_fail(d->err, HG_STATUS_NO_MEMORY, "image: out of memory for a JPEG row");
}

/* May longjmp; called by run() only. */
static void decode(struct decoder *d, const uint8_t *data, size_t n)
{
    struct jpeg_decompress_struct *c = &d->cinfo;
    jpeg_create_decompress(c);
    c->client_data = d;
    c->mem->max_memory_to_use = MAX_MEMORY;
    d->source = (struct jpeg_source_mgr){.next_input_byte = data,
                                         .bytes_in_buffer = n,
                                         .init_source = source_nothing,
                                         .fill_input_buffer = source_fill,
                                         .skip_input_data = source_skip,
                                         .resync_to_restart = jpeg_resync_to_restart,
                                         .term_source = source_nothing};
    c->src = &d->source;
    d->progress.progress_monitor = on_progress;
    c->progress = &d->progress;
    jpeg_read_header(c, TRUE);
    d->status = check_header(d);
    if (d->status != HG_STATUS_OK)
        return;
    c->out_color_space = output_space(c->num_components);
    c->dct_method = JDCT_ISLOW;
    c->do_fancy_upsampling = TRUE;
    jpeg_start_decompress(c); /* reads all scans of a progressive file */
    d->status = allocate(d);
    if (d->status != HG_STATUS_OK)
        return;
    read_rows(d);
    jpeg_finish_decompress(c);
}

static void run(struct decoder *d, const uint8_t *data, size_t n)
{
    d->cinfo.err = jpeg_std_error(&d->errors);
    d->cinfo.client_data = d;
    d->errors.error_exit = on_error;
    d->errors.emit_message = on_message;
    d->errors.output_message = on_output;
    if (setjmp(d->jump) == 0)
        decode(d, data, n);
    jpeg_destroy_decompress(&d->cinfo);
    free(d->cmyk);
}

enum hg_status hg_jpeg_decode(const uint8_t *data, size_t n, struct hg_image *out,
                              struct hg_error *err)
{
    *out = (struct hg_image){0};
    struct decoder d = {.out = out, .err = err};
    run(&d, data, n);
    if (d.status != HG_STATUS_OK)
        hg_image_deinit(out);
    return d.status;
}
