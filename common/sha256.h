/* common/sha256.h - SHA-256 (FIPS 180-4, section 6.2) and HMAC-SHA-256 (RFC 2104). With the
 * instructions of x86 processors where they are there. */
#ifndef HG_COMMON_SHA256_H
#define HG_COMMON_SHA256_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { HG_SHA256_BYTES = 32 };

struct hg_sha256 {
    uint32_t state[8];
    uint64_t n; /* bytes so far */
    uint8_t block[64];
};

void hg_sha256_init(struct hg_sha256 *s);
void hg_sha256_update(struct hg_sha256 *s, const void *data, size_t n);
void hg_sha256_final(struct hg_sha256 *s, uint8_t out[HG_SHA256_BYTES]); /* init it anew */
void hg_sha256(const void *data, size_t n, uint8_t out[HG_SHA256_BYTES]);
/* Without being told it takes the processor's instructions where they are. For tests; returns what
 * is taken from now on. */
bool hg_sha256_use_instructions(bool wanted);
/* 1 when equal, else 0, in a time that does not depend on the bytes. */
unsigned hg_sha256_equal(const uint8_t a[HG_SHA256_BYTES], const uint8_t b[HG_SHA256_BYTES]);

struct hg_hmac {
    struct hg_sha256 inner, outer;
};

void hg_hmac_init(struct hg_hmac *h, const void *key, size_t n_key);
void hg_hmac_update(struct hg_hmac *h, const void *data, size_t n);
void hg_hmac_final(struct hg_hmac *h, uint8_t out[HG_SHA256_BYTES]); /* init it anew */

void hg_hex(const uint8_t *data, size_t n, char *out); /* 2 n digits and a NUL */

#endif
