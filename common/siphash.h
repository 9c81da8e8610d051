/* common/siphash.h - SipHash-2-4 with 128 bits of output (Aumasson and Bernstein 2012): a keyed
 * hash whose collisions nobody can plan without the key. For tables and caches, not for passwords
 * or signatures. */
#ifndef HG_COMMON_SIPHASH_H
#define HG_COMMON_SIPHASH_H

#include <stddef.h>
#include <stdint.h>

struct hg_hash128 {
    uint64_t lo, hi; /* bytes 0..7 and 8..15 of the output, little endian */
};

struct hg_siphash {
    uint64_t v[4];
    uint64_t tail; /* of the last incomplete word */
    size_t len;
};

void hg_siphash_init(struct hg_siphash *s, const uint8_t key[16]);
void hg_siphash_update(struct hg_siphash *s, const void *data, size_t len);
struct hg_hash128 hg_siphash_final(struct hg_siphash *s); /* s must be initialised anew */

static inline int hg_hash128_equal(struct hg_hash128 a, struct hg_hash128 b)
{
    return a.lo == b.lo && a.hi == b.hi;
}

#endif
