/* tests/common/png_builder.h - PNG files written by hand (stored deflate blocks), good or bad. */
#ifndef HG_TESTS_COMMON_PNG_BUILDER_H
#define HG_TESTS_COMMON_PNG_BUILDER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"

/* CRC-32 of PNG and zlib; start with crc = 0. */
uint32_t png_crc(uint32_t crc, const void *data, size_t n);

void png_signature(struct hg_buf *b);
void png_chunk(struct hg_buf *b, const char *type, const void *data, size_t n);
void png_ihdr(struct hg_buf *b, uint32_t width, uint32_t height, int depth, int colour,
              bool interlaced);
/* zlib stream of stored blocks around n bytes. */
void png_stored(struct hg_buf *b, const void *data, size_t n);

/* Value of channel c at (x, y), below 2^depth. */
typedef unsigned png_sample_fn(uint32_t x, uint32_t y, int c, int depth);

int png_n_channels(int colour);
/* Append the scan lines (filter type 0) of the image or, interlaced, of its seven passes. */
void png_scanlines(struct hg_buf *b, uint32_t width, uint32_t height, int depth, int colour,
                   bool interlaced, png_sample_fn *sample);
/* A whole file. plte may be NULL. */
void png_file(struct hg_buf *b, uint32_t width, uint32_t height, int depth, int colour,
              bool interlaced, png_sample_fn *sample, const uint8_t *plte, size_t n_plte);

#endif
