/* common/arena.h - bump allocator: many small pieces, one release. Not thread-safe.
 * A zeroed struct is a valid empty arena. Pieces are 16-byte aligned and zeroed. */
#ifndef HG_COMMON_ARENA_H
#define HG_COMMON_ARENA_H

#include <stddef.h>

struct hg_arena_chunk;

struct hg_arena {
    struct hg_arena_chunk *head;
    size_t used_bytes; /* sum of all pieces */
};

void hg_arena_deinit(struct hg_arena *a);
void *hg_arena_alloc(struct hg_arena *a, size_t bytes); /* NULL when out of memory */
char *hg_arena_strndup(struct hg_arena *a, const char *s, size_t n);

#endif
