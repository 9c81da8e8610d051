/* kernels/quantise.h - a row of fp32 weights in the quantised types, as backend.h defines them. All
 * backends store what these functions give; ref quantises activations with them too. */
#ifndef HG_KERNELS_QUANTISE_H
#define HG_KERNELS_QUANTISE_H

#include <stdint.h>

#include "kernels/dtype.h"

/* q = nearest even of x / scale, scale = max|x| / 127, 0 for a row of zeros (and q = 0). A row that
 * holds a NaN or an infinity gets scale NaN and q = 0. Returns the scale. */
float hg_quantise_i8(const float *x, int n, int8_t *q);

/* The same with E4M3 codes of x / scale and scale = max|x| / 448; no code is NaN. */
float hg_quantise_f8(const float *x, int n, uint8_t *q);

/* One group (n <= HG_I4_GROUP): scale = the value of largest magnitude (the first of equals) / -8,
 * rounded to binary16; q = nearest even of x / scale within [-8, 7]. The returned binary16 is NaN
 * where the group is not finite or the scale beyond binary16. */
uint16_t hg_quantise_i4(const float *x, int n, int8_t *q);

static inline int hg_i4_groups(int n)
{
    return (n + HG_I4_GROUP - 1) / HG_I4_GROUP;
}

#endif
