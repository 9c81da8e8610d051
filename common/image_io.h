/* common/image_io.h - PNG and JPEG in, PNG out, as 8-bit RGB.
 *
 * The header is checked before anything is allocated: each side 1..8192, at most 16,777,216 pixels.
 * Ancillary PNG chunks are skipped undecoded. Colour rules are those of PIL's open + convert('RGB')
 * (docs: model/MODEL.md, preprocessing): alpha is dropped without compositing, palettes are
 * expanded, grey is replicated, 16-bit grey samples above 255 clip to 255, 16-bit RGB keeps the
 * high byte, CMYK (Adobe, inverted) becomes RGB; EXIF orientation is not applied.
 *
 * Stricter than PIL: damaged pixel data (wrong CRC, entropy data that ends early, lost restart
 * markers) is refused, never shown grey. JPEG: at most 100 scans, and the coefficients of a
 * progressive file at most 64 MiB (11 megapixels at full chroma, 22 at 4:2:0). All functions are
 * thread-safe. */
#ifndef HG_COMMON_IMAGE_IO_H
#define HG_COMMON_IMAGE_IO_H

#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/status.h"

/* MAX_FILE: the largest legal picture uncompressed (8 bytes a pixel), and 32 MiB of anything else.
 */
enum { HG_IMAGE_MAX_SIDE = 8192, HG_IMAGE_MAX_PIXELS = 16777216, HG_IMAGE_MAX_FILE = 160 << 20 };

struct hg_image {
    int width, height;
    uint8_t *rgb; /* [height][width][3], heap, owned */
};

void hg_image_deinit(struct hg_image *im); /* zeroed struct is fine */
enum hg_status hg_image_init(struct hg_image *im, int width, int height, struct hg_error *err);

/* Decode a whole PNG or JPEG held in memory. On failure *out is zeroed. HG_STATUS_BAD_IMAGE for
 * anything wrong with the bytes (empty, unknown format, damaged), TOO_LARGE for the size rules. */
enum hg_status hg_image_decode(const void *data, size_t n, struct hg_image *out,
                               struct hg_error *err);
/* A file of at most HG_IMAGE_MAX_FILE bytes (TOO_LARGE). */
enum hg_status hg_image_read(const char *path, struct hg_image *out, struct hg_error *err);

/* text: NULL or a NULL-terminated list of key, value, key, value ... in printable ASCII, written as
 * uncompressed tEXt chunks. xmp: NULL or an XMP packet (UTF-8), written as the iTXt chunk
 * XML:com.adobe.xmp (XMP specification part 3, PNG). level: of zlib, 1 to 9; 0: HG_PNG_LEVEL. */
struct hg_png_options {
    const char *const *text;
    const char *xmp;
    int level;
};
enum { HG_PNG_LEVEL = 6 };

/* Append a PNG: 8-bit grey where every pixel has R = G = B, else 8-bit RGB. o NULL: no text. The
 * same pixels and options give the same bytes. */
enum hg_status hg_image_encode_png(const struct hg_image *im, const struct hg_png_options *o,
                                   struct hg_buf *out, struct hg_error *err);

#endif
