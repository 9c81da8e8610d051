/* common/region.c - see region.h. */
#include "common/region.h"

#include <stdlib.h>
#include <string.h>

enum hg_status hg_region_init(struct hg_region *r, uint64_t size, uint64_t align)
{
    *r = (struct hg_region){.size = size / align * align, .align = align, .cap = 64};
    r->pieces = malloc(r->cap * sizeof *r->pieces);
    if (!r->pieces)
        return HG_STATUS_NO_MEMORY;
    if (r->size > 0)
        r->pieces[r->n_pieces++] = (struct hg_region_piece){0, r->size, false};
    return HG_STATUS_OK;
}

void hg_region_deinit(struct hg_region *r)
{
    free(r->pieces);
    *r = (struct hg_region){0};
}

static bool room_for_one_more(struct hg_region *r)
{
    if (r->n_pieces < r->cap)
        return true;
    struct hg_region_piece *p = realloc(r->pieces, 2 * r->cap * sizeof *p);
    if (!p)
        return false;
    r->pieces = p;
    r->cap *= 2;
    return true;
}

static void remove_piece(struct hg_region *r, size_t i)
{
    r->n_pieces--;
    memmove(r->pieces + i, r->pieces + i + 1, (r->n_pieces - i) * sizeof *r->pieces);
}

bool hg_region_take(struct hg_region *r, uint64_t n, uint64_t *at)
{
    if (n > r->size)
        return false;
    uint64_t need = ((n ? n : 1) + r->align - 1) / r->align * r->align;
    for (size_t i = 0; i < r->n_pieces; i++) {
        struct hg_region_piece *p = &r->pieces[i];
        if (p->used || p->n < need)
            continue;
        if (p->n > need) {
            if (!room_for_one_more(r))
                return false;
            p = &r->pieces[i];
            memmove(p + 1, p, (r->n_pieces - i) * sizeof *p);
            r->n_pieces++;
            p[1] = (struct hg_region_piece){p->at + need, p->n - need, false};
        }
        *p = (struct hg_region_piece){p->at, need, true};
        r->used += need;
        *at = p->at;
        return true;
    }
    return false;
}

bool hg_region_give(struct hg_region *r, uint64_t at)
{
    size_t lo = 0, hi = r->n_pieces;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (r->pieces[mid].at < at)
            lo = mid + 1;
        else
            hi = mid;
    }
    if (lo == r->n_pieces || r->pieces[lo].at != at || !r->pieces[lo].used)
        return false;
    r->pieces[lo].used = false;
    r->used -= r->pieces[lo].n;
    if (lo + 1 < r->n_pieces && !r->pieces[lo + 1].used) {
        r->pieces[lo].n += r->pieces[lo + 1].n;
        remove_piece(r, lo + 1);
    }
    if (lo > 0 && !r->pieces[lo - 1].used) {
        r->pieces[lo - 1].n += r->pieces[lo].n;
        remove_piece(r, lo);
    }
    return true;
}

uint64_t hg_region_largest(const struct hg_region *r)
{
    uint64_t most = 0;
    for (size_t i = 0; i < r->n_pieces; i++)
        if (!r->pieces[i].used && r->pieces[i].n > most)
            most = r->pieces[i].n;
    return most;
}
