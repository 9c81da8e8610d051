/* common/sha256.c - names as in FIPS 180-4. */
#include "common/sha256.h"

#include <stdatomic.h>
#include <string.h>
#ifdef __x86_64__
#include <cpuid.h>
#include <immintrin.h>
#endif

/* First 32 bits of the fractions of the cube roots of the first 64 primes (4.2.2). */
static const uint32_t K[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

static uint32_t rotr(uint32_t x, int n)
{
    return x >> n | x << (32 - n);
}

/* One round. Who was b is c in the next one, and so on: the caller names them anew. */
#define ROUND(a, b, c, d, e, f, g, h, t)                                                           \
    do {                                                                                           \
        uint32_t T1 = (h) + (rotr(e, 6) ^ rotr(e, 11) ^ rotr(e, 25)) +                             \
                      (((e) & (f)) ^ (~(e) & (g))) + K[t] + W[t];                                  \
        (d) += T1;                                                                                 \
        (h) = T1 + (rotr(a, 2) ^ rotr(a, 13) ^ rotr(a, 22)) +                                      \
              (((a) & (b)) ^ ((a) & (c)) ^ ((b) & (c)));                                           \
    } while (0)

static void compress_portable(uint32_t H[8], const uint8_t *block, size_t n_blocks)
{
    for (; n_blocks > 0; n_blocks--, block += 64) {
        uint32_t W[64];
        uint32_t a = H[0], b = H[1], c = H[2], d = H[3], e = H[4], f = H[5], g = H[6], h = H[7];
        for (int t = 0; t < 16; t++)
            W[t] = (uint32_t)block[4 * t] << 24 | (uint32_t)block[4 * t + 1] << 16 |
                   (uint32_t)block[4 * t + 2] << 8 | block[4 * t + 3];
        for (int t = 16; t < 64; t++) {
            uint32_t x = W[t - 15], y = W[t - 2];
            W[t] = (rotr(y, 17) ^ rotr(y, 19) ^ y >> 10) + W[t - 7] +
                   (rotr(x, 7) ^ rotr(x, 18) ^ x >> 3) + W[t - 16];
        }
        for (int t = 0; t < 64; t += 8) {
            ROUND(a, b, c, d, e, f, g, h, t);
            ROUND(h, a, b, c, d, e, f, g, t + 1);
            ROUND(g, h, a, b, c, d, e, f, t + 2);
            ROUND(f, g, h, a, b, c, d, e, t + 3);
            ROUND(e, f, g, h, a, b, c, d, t + 4);
            ROUND(d, e, f, g, h, a, b, c, t + 5);
            ROUND(c, d, e, f, g, h, a, b, t + 6);
            ROUND(b, c, d, e, f, g, h, a, t + 7);
        }
        H[0] += a, H[1] += b, H[2] += c, H[3] += d;
        H[4] += e, H[5] += f, H[6] += g, H[7] += h;
    }
}

#ifdef __x86_64__
/* The instructions keep a..h as {a, b, e, f} and {c, d, g, h}, highest first, and do two rounds. */
__attribute__((target("sha,sse4.1"))) static void
compress_sha_ni(uint32_t H[8], const uint8_t *block, size_t n_blocks)
{
    const __m128i swap = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
    __m128i dcba = _mm_loadu_si128((const __m128i *)(const void *)H);
    __m128i hgfe = _mm_loadu_si128((const __m128i *)(const void *)(H + 4));
    __m128i cdab = _mm_shuffle_epi32(dcba, 0xB1), efgh = _mm_shuffle_epi32(hgfe, 0x1B);
    __m128i abef = _mm_alignr_epi8(cdab, efgh, 8), cdgh = _mm_blend_epi16(efgh, cdab, 0xF0);
    for (; n_blocks > 0; n_blocks--, block += 64) {
        const __m128i abef_before = abef, cdgh_before = cdgh;
        __m128i w[4]; /* W[t..t + 3] of the last sixteen, at (t / 4) mod 4 */
        for (size_t i = 0; i < 16; i++) {
            __m128i *now = &w[i & 3], *last = &w[(i + 3) & 3];
            if (i < 4) {
                *now = _mm_shuffle_epi8(
                    _mm_loadu_si128((const __m128i *)(const void *)(block + 16 * i)), swap);
            } else {
                __m128i sum = _mm_add_epi32(_mm_sha256msg1_epu32(*now, w[(i + 1) & 3]),
                                            _mm_alignr_epi8(*last, w[(i + 2) & 3], 4));
                *now = _mm_sha256msg2_epu32(sum, *last);
            }
            __m128i k = _mm_loadu_si128((const __m128i *)(const void *)(K + 4 * i));
            __m128i sum = _mm_add_epi32(*now, k);
            cdgh = _mm_sha256rnds2_epu32(cdgh, abef, sum);
            abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(sum, 0x0E));
        }
        abef = _mm_add_epi32(abef, abef_before);
        cdgh = _mm_add_epi32(cdgh, cdgh_before);
    }
    __m128i feba = _mm_shuffle_epi32(abef, 0x1B), dchg = _mm_shuffle_epi32(cdgh, 0xB1);
    _mm_storeu_si128((__m128i *)(void *)H, _mm_blend_epi16(feba, dchg, 0xF0));
    _mm_storeu_si128((__m128i *)(void *)(H + 4), _mm_alignr_epi8(dchg, feba, 8));
}

static bool has_sha_ni(void)
{
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & (1u << 19)) &&
           __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & (1u << 29));
}
#else
#define compress_sha_ni compress_portable
static bool has_sha_ni(void)
{
    return false;
}
#endif

/* 0: not looked yet, 1: portable, 2: the instructions */
static atomic_int path_now;

bool hg_sha256_use_instructions(bool wanted)
{
    bool there = wanted && has_sha_ni();
    atomic_store_explicit(&path_now, there ? 2 : 1, memory_order_relaxed);
    return there;
}

static void compress(uint32_t H[8], const uint8_t *block, size_t n_blocks)
{
    int path = atomic_load_explicit(&path_now, memory_order_relaxed);
    if (path == 0)
        path = hg_sha256_use_instructions(true) ? 2 : 1;
    if (path == 2)
        compress_sha_ni(H, block, n_blocks);
    else
        compress_portable(H, block, n_blocks);
}

void hg_sha256_init(struct hg_sha256 *s)
{
    static const uint32_t H0[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                   0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    *s = (struct hg_sha256){0};
    memcpy(s->state, H0, sizeof H0);
}

void hg_sha256_update(struct hg_sha256 *s, const void *data, size_t n)
{
    const uint8_t *p = data;
    while (n > 0) {
        size_t at = s->n % 64, take = n < 64 - at ? n : 64 - at;
        if (at == 0 && n >= 64) { /* whole blocks from where they are */
            take = n - n % 64;
            compress(s->state, p, take / 64);
        } else {
            memcpy(s->block + at, p, take);
            if (at + take == 64)
                compress(s->state, s->block, 1);
        }
        s->n += take;
        p += take;
        n -= take;
    }
}

void hg_sha256_final(struct hg_sha256 *s, uint8_t out[HG_SHA256_BYTES])
{
    static const uint8_t pad[64] = {0x80};
    uint64_t bits = s->n * 8;
    uint8_t length[8];
    for (int i = 0; i < 8; i++)
        length[i] = (uint8_t)(bits >> (56 - 8 * i));
    hg_sha256_update(s, pad, (119 - s->n % 64) % 64 + 1);
    hg_sha256_update(s, length, 8);
    for (int i = 0; i < 32; i++)
        out[i] = (uint8_t)(s->state[i / 4] >> (24 - 8 * (i % 4)));
}

void hg_sha256(const void *data, size_t n, uint8_t out[HG_SHA256_BYTES])
{
    struct hg_sha256 s;
    hg_sha256_init(&s);
    hg_sha256_update(&s, data, n);
    hg_sha256_final(&s, out);
}

unsigned hg_sha256_equal(const uint8_t a[HG_SHA256_BYTES], const uint8_t b[HG_SHA256_BYTES])
{
    unsigned differ = 0;
    for (int i = 0; i < HG_SHA256_BYTES; i++)
        differ |= (unsigned)(a[i] ^ b[i]);
    return (differ - 1) >> 31;
}

void hg_hmac_init(struct hg_hmac *h, const void *key, size_t n_key)
{
    uint8_t block[64] = {0}, digest[HG_SHA256_BYTES];
    if (n_key > sizeof block) {
        hg_sha256(key, n_key, digest);
        key = digest;
        n_key = sizeof digest;
    }
    memcpy(block, key, n_key);
    for (size_t i = 0; i < sizeof block; i++)
        block[i] ^= 0x36;
    hg_sha256_init(&h->inner);
    hg_sha256_update(&h->inner, block, sizeof block);
    for (size_t i = 0; i < sizeof block; i++)
        block[i] ^= 0x36 ^ 0x5c;
    hg_sha256_init(&h->outer);
    hg_sha256_update(&h->outer, block, sizeof block);
    explicit_bzero(block, sizeof block);
    explicit_bzero(digest, sizeof digest);
}

void hg_hmac_update(struct hg_hmac *h, const void *data, size_t n)
{
    hg_sha256_update(&h->inner, data, n);
}

void hg_hmac_final(struct hg_hmac *h, uint8_t out[HG_SHA256_BYTES])
{
    hg_sha256_final(&h->inner, out);
    hg_sha256_update(&h->outer, out, HG_SHA256_BYTES);
    hg_sha256_final(&h->outer, out);
}

void hg_hex(const uint8_t *data, size_t n, char *out)
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < n; i++) {
        *out++ = digits[data[i] >> 4];
        *out++ = digits[data[i] & 15];
    }
    *out = '\0';
}
