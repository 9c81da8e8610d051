/* common/utf8.h - strict UTF-8 (RFC 3629: no surrogates, no overlong forms, <= U+10FFFF). */
#ifndef HG_COMMON_UTF8_H
#define HG_COMMON_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Decode the code point at s[0..n). Returns its length 1..4 and stores it, or 0 when s does not
 * begin with a complete valid sequence (also n == 0). */
int hg_utf8_decode(const char *s, size_t n, uint32_t *cp);

/* Encode; returns 1..4, or 0 for a surrogate or a value above U+10FFFF. */
int hg_utf8_encode(uint32_t cp, char out[4]);

/* Length of the longest valid prefix. */
size_t hg_utf8_valid_prefix(const char *s, size_t n);
bool hg_utf8_valid(const char *s, size_t n);

/* How many bytes at the end of s[0..n) may still become a valid sequence when more bytes arrive
 * (0..3): what a streaming decoder must hold back. */
size_t hg_utf8_incomplete_tail(const char *s, size_t n);

#endif
