/* common/base64.c - four characters are three bytes; the table maps foreign characters to -1. */
#include "common/base64.h"

#include <stdbool.h>
#include <stdint.h>

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/* value + 1 of each character, 0 for the others (so that the gaps need no initialiser). */
static const uint8_t value_plus_1[256] = {
    ['A'] = 1,  ['B'] = 2,  ['C'] = 3,  ['D'] = 4,  ['E'] = 5,  ['F'] = 6,  ['G'] = 7,  ['H'] = 8,
    ['I'] = 9,  ['J'] = 10, ['K'] = 11, ['L'] = 12, ['M'] = 13, ['N'] = 14, ['O'] = 15, ['P'] = 16,
    ['Q'] = 17, ['R'] = 18, ['S'] = 19, ['T'] = 20, ['U'] = 21, ['V'] = 22, ['W'] = 23, ['X'] = 24,
    ['Y'] = 25, ['Z'] = 26, ['a'] = 27, ['b'] = 28, ['c'] = 29, ['d'] = 30, ['e'] = 31, ['f'] = 32,
    ['g'] = 33, ['h'] = 34, ['i'] = 35, ['j'] = 36, ['k'] = 37, ['l'] = 38, ['m'] = 39, ['n'] = 40,
    ['o'] = 41, ['p'] = 42, ['q'] = 43, ['r'] = 44, ['s'] = 45, ['t'] = 46, ['u'] = 47, ['v'] = 48,
    ['w'] = 49, ['x'] = 50, ['y'] = 51, ['z'] = 52, ['0'] = 53, ['1'] = 54, ['2'] = 55, ['3'] = 56,
    ['4'] = 57, ['5'] = 58, ['6'] = 59, ['7'] = 60, ['8'] = 61, ['9'] = 62, ['+'] = 63, ['/'] = 64,
};

static int value_of(char c)
{
    return value_plus_1[(unsigned char)c] - 1;
}

/* Decode n characters without padding (n % 4 is 0, 2 or 3) to out; false with *bad = offset. */
static bool decode_body(const char *s, size_t n, unsigned char *out, size_t *bad)
{
    uint32_t acc = 0;
    for (size_t i = 0; i < n; i++) {
        int v = value_of(s[i]);
        if (v < 0) {
            *bad = i;
            return false;
        }
        acc = acc << 6 | (uint32_t)v;
        if (i % 4 != 3)
            continue;
        *out++ = (unsigned char)(acc >> 16);
        *out++ = (unsigned char)(acc >> 8);
        *out++ = (unsigned char)acc;
    }
    /* Left over: 12 bits for 1 byte or 18 bits for 2; the lowest 4 or 2 bits must be zero. */
    uint32_t spare = n % 4 == 2 ? acc & 0xfu : n % 4 == 3 ? acc & 0x3u : 0;
    *bad = n - 1;
    if (n % 4 == 2)
        *out = (unsigned char)(acc >> 4);
    if (n % 4 == 3) {
        *out++ = (unsigned char)(acc >> 10);
        *out = (unsigned char)(acc >> 2);
    }
    return spare == 0;
}

enum hg_status hg_base64_decode(const char *s, size_t n, size_t max_bytes, struct hg_buf *out,
                                struct hg_error *err)
{
    if (n % 4)
        return hg_fail(err, HG_STATUS_BAD_REQUEST,
                       "base64: expected a length that is a multiple of 4, got %zu", n);
    size_t n_pad = 0;
    while (n_pad < 2 && n_pad < n && s[n - 1 - n_pad] == '=')
        n_pad++;
    size_t n_bytes = n / 4 * 3 - n_pad;
    if (n_bytes > max_bytes)
        return hg_fail(err, HG_STATUS_TOO_LARGE, "base64: at most %zu bytes allowed, has %zu",
                       max_bytes, n_bytes);
    if (hg_buf_reserve(out, n_bytes) != HG_STATUS_OK)
        return hg_fail(err, HG_STATUS_NO_MEMORY, "base64: out of memory for %zu bytes", n_bytes);
    size_t bad = 0;
    bool ok = n == 0 || decode_body(s, n - n_pad, (unsigned char *)out->data + out->len, &bad);
    if (ok)
        out->len += n_bytes;
    out->data[out->len] = '\0';
    if (ok)
        return HG_STATUS_OK;
    return hg_fail(err, HG_STATUS_BAD_REQUEST, "base64: invalid character or bits at offset %zu",
                   bad);
}

enum hg_status hg_base64_encode(const void *data, size_t n, struct hg_buf *out)
{
    size_t n_chars;
    if (__builtin_mul_overflow((n + 2) / 3, 4u, &n_chars) || n > SIZE_MAX - 2)
        return HG_STATUS_NO_MEMORY;
    HG_TRY(hg_buf_reserve(out, n_chars));
    const unsigned char *u = data;
    char *p = out->data + out->len;
    for (size_t i = 0; i < n; i += 3) {
        size_t left = n - i;
        uint32_t acc = (uint32_t)u[i] << 16;
        if (left > 1)
            acc |= (uint32_t)u[i + 1] << 8;
        if (left > 2)
            acc |= u[i + 2];
        *p++ = alphabet[acc >> 18];
        *p++ = alphabet[acc >> 12 & 63];
        *p++ = left > 1 ? alphabet[acc >> 6 & 63] : '=';
        *p++ = left > 2 ? alphabet[acc & 63] : '=';
    }
    out->len += n_chars;
    out->data[out->len] = '\0';
    return HG_STATUS_OK;
}
