/* tests/common/png_builder.c - see png_builder.h; written from the PNG specification alone. */
#include "tests/common/png_builder.h"

#include <string.h>

#include "tests/test.h"

static void put(struct hg_buf *b, const void *data, size_t n)
{
    assert_int_equal(hg_buf_append(b, data, n), HG_STATUS_OK);
}

static void put_be32(struct hg_buf *b, uint32_t v)
{
    uint8_t u[4] = {(uint8_t)(v >> 24), (uint8_t)(v >> 16), (uint8_t)(v >> 8), (uint8_t)v};
    put(b, u, 4);
}

uint32_t png_crc(uint32_t crc, const void *data, size_t n)
{
    const uint8_t *u = data;
    crc = ~crc;
    for (size_t i = 0; i < n; i++) {
        crc ^= u[i];
        for (int k = 0; k < 8; k++)
            crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
    }
    return ~crc;
}

void png_signature(struct hg_buf *b)
{
    put(b, "\x89PNG\r\n\x1a\n", 8);
}

void png_chunk(struct hg_buf *b, const char *type, const void *data, size_t n)
{
    put_be32(b, (uint32_t)n);
    put(b, type, 4);
    put(b, data, n);
    put_be32(b, png_crc(png_crc(0, type, 4), data, n));
}

void png_ihdr(struct hg_buf *b, uint32_t width, uint32_t height, int depth, int colour,
              bool interlaced)
{
    struct hg_buf d = {0};
    uint8_t tail[5] = {(uint8_t)depth, (uint8_t)colour, 0, 0, interlaced};
    put_be32(&d, width);
    put_be32(&d, height);
    put(&d, tail, 5);
    png_chunk(b, "IHDR", d.data, d.len);
    hg_buf_deinit(&d);
}

void png_stored(struct hg_buf *b, const void *data, size_t n)
{
    const uint8_t *u = data;
    uint32_t s1 = 1, s2 = 0;
    size_t at = 0;
    put(b, "\x78\x01", 2);
    do {
        size_t k = n - at < 65535 ? n - at : 65535;
        uint8_t head[5] = {at + k == n, (uint8_t)k, (uint8_t)(k >> 8), (uint8_t)~k,
                           (uint8_t)(~k >> 8)};
        put(b, head, 5);
        put(b, u + at, k);
        at += k;
    } while (at < n);
    for (size_t i = 0; i < n; i++) {
        s1 = (s1 + u[i]) % 65521;
        s2 = (s2 + s1) % 65521;
    }
    put_be32(b, s2 << 16 | s1);
}

int png_n_channels(int colour)
{
    return (colour == 2 || colour == 6 ? 3 : 1) + (colour >= 4);
}

/* One filtered row of the pixels x0, x0 + dx, ... of line y. */
static void put_row(struct hg_buf *b, uint32_t x0, uint32_t dx, uint32_t width, uint32_t y,
                    int depth, int colour, png_sample_fn *sample)
{
    uint32_t bits = 0;
    int n_bits = 0;
    put(b, "", 1);
    for (uint32_t x = x0; x < width; x += dx) {
        for (int c = 0; c < png_n_channels(colour); c++) {
            bits = bits << depth | sample(x, y, c, depth);
            for (n_bits += depth; n_bits >= 8; n_bits -= 8)
                put(b, &(uint8_t){(uint8_t)(bits >> (n_bits - 8))}, 1);
        }
    }
    if (n_bits)
        put(b, &(uint8_t){(uint8_t)(bits << (8 - n_bits))}, 1);
}

void png_scanlines(struct hg_buf *b, uint32_t width, uint32_t height, int depth, int colour,
                   bool interlaced, png_sample_fn *sample)
{
    /* "Starting_Row", "Starting_Col", "Row_Increment", "Col_Increment" of the specification. */
    static const uint8_t row0[] = {0, 0, 4, 0, 2, 0, 1}, col0[] = {0, 4, 0, 2, 0, 1, 0};
    static const uint8_t drow[] = {8, 8, 8, 4, 4, 2, 2}, dcol[] = {8, 8, 4, 4, 2, 2, 1};
    if (!interlaced) {
        for (uint32_t y = 0; y < height; y++)
            put_row(b, 0, 1, width, y, depth, colour, sample);
        return;
    }
    for (int pass = 0; pass < 7; pass++)
        for (uint32_t y = row0[pass]; y < height && col0[pass] < width; y += drow[pass])
            put_row(b, col0[pass], dcol[pass], width, y, depth, colour, sample);
}

void png_file(struct hg_buf *b, uint32_t width, uint32_t height, int depth, int colour,
              bool interlaced, png_sample_fn *sample, const uint8_t *plte, size_t n_plte)
{
    struct hg_buf lines = {0}, z = {0};
    png_signature(b);
    png_ihdr(b, width, height, depth, colour, interlaced);
    if (plte)
        png_chunk(b, "PLTE", plte, n_plte);
    png_scanlines(&lines, width, height, depth, colour, interlaced, sample);
    png_stored(&z, lines.data, lines.len);
    png_chunk(b, "IDAT", z.data, z.len);
    png_chunk(b, "IEND", "", 0);
    hg_buf_deinit(&lines);
    hg_buf_deinit(&z);
}
