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

/* A row of a host tensor of a quantised type: hg_code_bytes(type, n) at q, hg_scale_bytes(type, n)
 * at scale. I8: int8, an fp32 scale. F8: E4M3 codes, an fp32 scale. I4: 8 values are 4 bytes, byte
 * i has value i in its low and value 4 + i in its high half, each plus 8 (8 where there is none); a
 * binary16 scale per group. */
void hg_quantise_row(enum hg_dtype type, const float *x, int n, void *q, void *scale);
/* Value i of an I4 row, -8..7. */
static inline int hg_i4_code(const uint8_t *q, int i)
{
    return (q[i / 8 * 4 + i % 4] >> (i % 8 / 4 * 4) & 15) - 8;
}

static inline int hg_i4_groups(int n)
{
    return (n + HG_I4_GROUP - 1) / HG_I4_GROUP;
}

#endif
