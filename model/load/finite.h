/* model/load/finite.h - is every element of a tensor a finite number?
 *
 * Half an exponent's bit wrong in a file is often NaN or Inf, and a NaN in a weight is a NaN in
 * every answer. */
#ifndef HG_MODEL_LOAD_FINITE_H
#define HG_MODEL_LOAD_FINITE_H

#include <stdint.h>

#include "model/load/tensor_file.h"

/* Index (row major) of the first element that is NaN or Inf; -1: none, or no floating type.
 * `samples` > 0: only that many pages of 4 KiB, evenly spread from the first to the last, are read
 * of a contiguous tensor that is larger. */
int64_t hg_tensor_not_finite(const struct hg_tensor *t, int samples);

#endif
