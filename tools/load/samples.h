/* tools/load/samples.h - a set of measured values and its percentiles.
 *
 * All values are kept, so that a percentile is one of them: no bucket, no estimate. A zeroed struct
 * is an empty set. */
#ifndef HG_TOOLS_LOAD_SAMPLES_H
#define HG_TOOLS_LOAD_SAMPLES_H

#include <stdbool.h>
#include <stddef.h>

#include "common/status.h"

struct hg_samples {
    double *v; /* [n] */
    size_t n, cap;
    bool sorted;
};

void hg_samples_deinit(struct hg_samples *s);
enum hg_status hg_samples_add(struct hg_samples *s, double value); /* NO_MEMORY: unchanged */

/* Nearest rank: the smallest value with at least `percent` % of all values at or below it;
 * percent in 0..100, 0 is the smallest value. An empty set has 0. Sorts when needed. */
double hg_samples_percentile(struct hg_samples *s, double percent);
double hg_samples_mean(const struct hg_samples *s); /* 0 of an empty set */

#endif
