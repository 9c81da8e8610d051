/* common/sha256.h - SHA-256 (FIPS 180-4, section 6.2). For digests of API keys, not for speed. */
#ifndef HG_COMMON_SHA256_H
#define HG_COMMON_SHA256_H

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
/* 1 when equal, else 0, in a time that does not depend on the bytes. */
unsigned hg_sha256_equal(const uint8_t a[HG_SHA256_BYTES], const uint8_t b[HG_SHA256_BYTES]);

#endif
