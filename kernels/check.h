/* kernels/check.h - the checks and the refusal that every backend shares. */
#ifndef HG_KERNELS_CHECK_H
#define HG_KERNELS_CHECK_H

#include "kernels/backend.h"

/* Counts, ranks, presence and types of all parts and adapters; *n_out gets N. A backend that pads
 * its rows leaves `room` for them below INT_MAX. BAD_FILE, UNSUPPORTED or TOO_LARGE with the
 * weight's name, part and slot. */
enum hg_status hg_weight_desc_check(const struct hg_weight_desc *d, int room, int *n_out,
                                    struct hg_error *err);

/* Sizes and type of a cache whose heads take `pad_dim` elements (>= head_dim); *n gets the elements
 * of the keys, as many as of the values, *n_scales the fp32 scales of the keys, 0 unless the type
 * is I8. UNSUPPORTED, or TOO_LARGE when 16 bytes each overflow. */
enum hg_status hg_kv_desc_check(const struct hg_kv_desc *d, int64_t pad_dim, size_t *n,
                                size_t *n_scales, struct hg_error *err);

/* The `memory` op of a backend on the host: all zero, no bound of its own. */
void hg_host_memory(struct hg_backend *b, struct hg_backend_memory *out);

/* Log a broken contract (ops have no struct hg_error) and return HG_STATUS_INTERNAL. */
enum hg_status hg_refuse(const char *backend, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#endif
