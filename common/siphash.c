/* common/siphash.c - see siphash.h. */
#include "common/siphash.h"

#include <string.h>

static uint64_t rotate(uint64_t v, int bits)
{
    return v << bits | v >> (64 - bits);
}

static uint64_t load_le(const uint8_t *p)
{
    uint64_t v = 0;
    for (int i = 7; i >= 0; i--)
        v = v << 8 | p[i];
    return v;
}

static void rounds(uint64_t v[4], int n)
{
    for (int i = 0; i < n; i++) {
        v[0] += v[1];
        v[1] = rotate(v[1], 13) ^ v[0];
        v[0] = rotate(v[0], 32);
        v[2] += v[3];
        v[3] = rotate(v[3], 16) ^ v[2];
        v[0] += v[3];
        v[3] = rotate(v[3], 21) ^ v[0];
        v[2] += v[1];
        v[1] = rotate(v[1], 17) ^ v[2];
        v[2] = rotate(v[2], 32);
    }
}

static void absorb(struct hg_siphash *s, uint64_t word)
{
    s->v[3] ^= word;
    rounds(s->v, 2);
    s->v[0] ^= word;
}

void hg_siphash_init(struct hg_siphash *s, const uint8_t key[16])
{
    uint64_t k0 = load_le(key), k1 = load_le(key + 8);
    memset(s, 0, sizeof *s);
    s->v[0] = k0 ^ 0x736f6d6570736575u;
    s->v[1] = k1 ^ 0x646f72616e646f6du ^ 0xee; /* 128 bits of output */
    s->v[2] = k0 ^ 0x6c7967656e657261u;
    s->v[3] = k1 ^ 0x7465646279746573u;
}

void hg_siphash_update(struct hg_siphash *s, const void *data, size_t len)
{
    const uint8_t *p = data, *end = p + len;
    while (p < end && s->len % 8) {
        s->tail |= (uint64_t)*p++ << s->len % 8 * 8;
        if (++s->len % 8 == 0) {
            absorb(s, s->tail);
            s->tail = 0;
        }
    }
    for (; end - p >= 8; p += 8, s->len += 8)
        absorb(s, load_le(p));
    for (; p < end; p++, s->len++)
        s->tail |= (uint64_t)*p << s->len % 8 * 8;
}

struct hg_hash128 hg_siphash_final(struct hg_siphash *s)
{
    struct hg_hash128 out;
    absorb(s, s->tail | (uint64_t)s->len << 56);
    s->v[2] ^= 0xee;
    rounds(s->v, 4);
    out.lo = s->v[0] ^ s->v[1] ^ s->v[2] ^ s->v[3];
    s->v[1] ^= 0xdd;
    rounds(s->v, 4);
    out.hi = s->v[0] ^ s->v[1] ^ s->v[2] ^ s->v[3];
    return out;
}
