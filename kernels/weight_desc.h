/* kernels/weight_desc.h - the checks that every backend makes before it packs a weight. */
#ifndef HG_KERNELS_WEIGHT_DESC_H
#define HG_KERNELS_WEIGHT_DESC_H

#include "kernels/backend.h"

/* Counts, ranks, presence and types of all parts and adapters; *n_out gets N. A backend that pads
 * its rows leaves `room` for them below INT_MAX. BAD_FILE, UNSUPPORTED or TOO_LARGE with the
 * weight's name, part and slot. */
enum hg_status hg_weight_desc_check(const struct hg_weight_desc *d, int room, int *n_out,
                                    struct hg_error *err);

#endif
