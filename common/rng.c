/* common/rng.c - Philox 4x32-10, J. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3",
 * SC11. Constants from table 2 of the paper; known answers in tests/common/test_rng.c. */
#include "common/rng.h"

enum { N_ROUNDS = 10 };

void hg_philox(uint64_t seed, uint64_t position, uint64_t lane, uint32_t out[4])
{
    uint32_t key0 = (uint32_t)seed, key1 = (uint32_t)(seed >> 32);
    uint32_t c0 = (uint32_t)position, c1 = (uint32_t)(position >> 32);
    uint32_t c2 = (uint32_t)lane, c3 = (uint32_t)(lane >> 32);
    for (int round = 0; round < N_ROUNDS; round++) {
        uint64_t p0 = (uint64_t)0xd2511f53u * c0;
        uint64_t p1 = (uint64_t)0xcd9e8d57u * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ key0;
        c1 = (uint32_t)p1;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ key1;
        c3 = (uint32_t)p0;
        key0 += 0x9e3779b9u;
        key1 += 0xbb67ae85u;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

double hg_uniform(uint64_t seed, uint64_t position, uint64_t lane)
{
    uint32_t r[4];
    hg_philox(seed, position, lane, r);
    uint64_t bits = (uint64_t)r[0] << 32 | r[1];
    return (double)(bits >> 11) * 0x1p-53;
}
