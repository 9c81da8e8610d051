/* common/image_codec.h - the formats behind image_io: only image_io.c, png.c, png_write.c and
 * jpeg.c include this. The decoders get bytes whose first ones already matched the format. */
#ifndef HG_COMMON_IMAGE_CODEC_H
#define HG_COMMON_IMAGE_CODEC_H

#include <stdint.h>

#include "common/image_io.h"

/* TOO_LARGE unless each side is 1..8192 and there are at most 16,777,216 pixels (BAD_IMAGE for 0).
 */
enum hg_status hg_image_check_size(uint64_t width, uint64_t height, struct hg_error *err);

/* On failure *out is zeroed and nothing stays allocated. */
enum hg_status hg_png_decode(const uint8_t *data, size_t n, struct hg_image *out,
                             struct hg_error *err);
enum hg_status hg_jpeg_decode(const uint8_t *data, size_t n, struct hg_image *out,
                              struct hg_error *err);

#endif
