/* common/checksum.c - CRC-32C: eight tables, or the crc32 instruction over three streams at once.
 *
 * The instruction takes three cycles but starts one per cycle, so three neighbouring lanes of a
 * block are summed side by side and then joined: the sum of a followed by n bytes is the sum of a
 * carried over n zero bytes, xor the sum of the n bytes. Carrying is linear over GF(2), so four
 * tables of 256 entries do it for the fixed length of a lane. */
#include "common/checksum.h"

#include <pthread.h>
#include <string.h>

#if defined(__x86_64__)
#include <nmmintrin.h>
#endif

enum { LANE = 2048 };

static const uint32_t polynomial = 0x82f63b78; /* reflected */
static uint32_t byte_table[8][256];            /* [k]: a byte followed by k zero bytes */
static uint32_t lane_table[4][256];            /* [k]: byte k of a sum, followed by LANE zeros */
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void make_tables(void)
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t crc = i;
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? polynomial : 0);
        byte_table[0][i] = crc;
    }
    for (int k = 1; k < 8; k++)
        for (int i = 0; i < 256; i++) {
            uint32_t crc = byte_table[k - 1][i];
            byte_table[k][i] = crc >> 8 ^ byte_table[0][crc & 255];
        }
    for (int k = 0; k < 4; k++)
        for (uint32_t i = 0; i < 256; i++) {
            uint32_t crc = i << 8 * k;
            for (int zero = 0; zero < LANE; zero++)
                crc = crc >> 8 ^ byte_table[0][crc & 255];
            lane_table[k][i] = crc;
        }
}

uint32_t hg_crc32c_portable(uint32_t crc, const void *data, size_t n)
{
    const unsigned char *p = data;
    pthread_once(&once, make_tables);
    crc = ~crc;
    for (; n >= 8; n -= 8, p += 8) {
        crc ^= (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
        crc = byte_table[7][crc & 255] ^ byte_table[6][crc >> 8 & 255] ^
              byte_table[5][crc >> 16 & 255] ^ byte_table[4][crc >> 24] ^ byte_table[3][p[4]] ^
              byte_table[2][p[5]] ^ byte_table[1][p[6]] ^ byte_table[0][p[7]];
    }
    for (; n; n--)
        crc = crc >> 8 ^ byte_table[0][(crc ^ *p++) & 255];
    return ~crc;
}

#if defined(__x86_64__)

static uint32_t over_lane(uint32_t crc)
{
    return lane_table[0][crc & 255] ^ lane_table[1][crc >> 8 & 255] ^
           lane_table[2][crc >> 16 & 255] ^ lane_table[3][crc >> 24];
}

static uint64_t word(const unsigned char *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

__attribute__((target("sse4.2"))) static uint32_t by_instruction(uint32_t crc,
                                                                 const unsigned char *p, size_t n)
{
    uint64_t a = ~crc;
    for (; n >= 3 * LANE; n -= 3 * LANE, p += 2 * LANE) {
        uint64_t b = 0, c = 0;
        for (const unsigned char *end = p + LANE; p < end; p += 8) {
            a = _mm_crc32_u64(a, word(p));
            b = _mm_crc32_u64(b, word(p + LANE));
            c = _mm_crc32_u64(c, word(p + 2 * LANE));
        }
        a = over_lane((uint32_t)a) ^ b;
        a = over_lane((uint32_t)a) ^ c;
    }
    for (; n >= 8; n -= 8, p += 8)
        a = _mm_crc32_u64(a, word(p));
    for (; n; n--)
        a = _mm_crc32_u8((uint32_t)a, *p++);
    return ~(uint32_t)a;
}

uint32_t hg_crc32c(uint32_t crc, const void *data, size_t n)
{
    if (!__builtin_cpu_supports("sse4.2"))
        return hg_crc32c_portable(crc, data, n);
    pthread_once(&once, make_tables);
    return by_instruction(crc, data, n);
}

#else

uint32_t hg_crc32c(uint32_t crc, const void *data, size_t n)
{
    return hg_crc32c_portable(crc, data, n);
}

#endif
