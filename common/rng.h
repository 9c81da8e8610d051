/* common/rng.h - counter-based random numbers: a pure function of (seed, position, lane).
 *
 * Philox 4x32-10 (Salmon et al., SC11). No state: the same request gives the same draw alone, in
 * any batch and after preemption. */
#ifndef HG_COMMON_RNG_H
#define HG_COMMON_RNG_H

#include <stdint.h>

/* Key = seed (low word first), counter = {position low, position high, lane low, lane high}. */
void hg_philox(uint64_t seed, uint64_t position, uint64_t lane, uint32_t out[4]);

/* Uniform in [0, 1): the top 53 bits of out[0] * 2^32 + out[1], times 2^-53. */
double hg_uniform(uint64_t seed, uint64_t position, uint64_t lane);

#endif
