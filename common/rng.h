/* common/rng.h - counter-based random numbers: a pure function of (seed, position, lane).
 *
 * Philox 4x32-10 (Salmon et al., SC11). No state: the same request gives the same draw alone, in any
 * batch and after preemption. */
#ifndef HG_COMMON_RNG_H
#define HG_COMMON_RNG_H

#include <stdint.h>

void hg_philox(uint64_t seed, uint64_t position, uint64_t lane, uint32_t out[4]);

/* Uniform in [0, 1) with 53 bits: out[0], out[1] of hg_philox. */
double hg_uniform(uint64_t seed, uint64_t position, uint64_t lane);

#endif
