/* common/region.h - places inside one large allocation: offsets, no memory of its own.
 *
 * First fit over an address-ordered table, neighbours that are free are merged at once. Every piece
 * begins at a multiple of `align` and takes a multiple of it. Offsets are 64 bits wide. Meant for
 * thousands of pieces that live long (weights, caches), not for a heap. Not thread-safe. */
#ifndef HG_COMMON_REGION_H
#define HG_COMMON_REGION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/status.h"

struct hg_region_piece {
    uint64_t at, n;
    bool used;
};

struct hg_region {
    struct hg_region_piece *pieces; /* cover [0, size), ascending; no two free ones meet */
    size_t n_pieces, cap;
    uint64_t size, align, used;
};

/* align: a power of two; size is cut to a multiple of it. NO_MEMORY: the table. */
enum hg_status hg_region_init(struct hg_region *r, uint64_t size, uint64_t align);
void hg_region_deinit(struct hg_region *r);

/* n bytes (0 counts as 1) at *at. false: no free piece is large enough, or no table; r is as it
 * was. */
bool hg_region_take(struct hg_region *r, uint64_t n, uint64_t *at);
/* false: nothing was taken there. */
bool hg_region_give(struct hg_region *r, uint64_t at);
/* The most that one take could get. */
uint64_t hg_region_largest(const struct hg_region *r);

#endif
