/* common/arena.c - a list of zeroed chunks, newest first; pieces are cut off the newest one. */
#include "common/arena.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGN = 16, MIN_CHUNK = 4096, MAX_CHUNK = 1 << 20 };

struct hg_arena_chunk {
    struct hg_arena_chunk *next;
    size_t used, cap; /* bytes of data[] */
    _Alignas(ALIGN) unsigned char data[];
};

void hg_arena_deinit(struct hg_arena *a)
{
    if (!a)
        return;
    for (struct hg_arena_chunk *c = a->head, *next; c; c = next) {
        next = c->next;
        free(c);
    }
    *a = (struct hg_arena){0};
}

/* Chunks double up to MAX_CHUNK; a larger piece gets a chunk of its own size. */
static struct hg_arena_chunk *add_chunk(struct hg_arena *a, size_t bytes)
{
    size_t cap = a->head ? a->head->cap * 2 : MIN_CHUNK;
    if (cap > MAX_CHUNK)
        cap = MAX_CHUNK;
    if (cap < bytes)
        cap = bytes;
    struct hg_arena_chunk *c = calloc(1, sizeof *c + cap);
    if (!c)
        return NULL;
    c->cap = cap;
    c->next = a->head;
    a->head = c;
    return c;
}

void *hg_arena_alloc(struct hg_arena *a, size_t bytes)
{
    if (bytes > PTRDIFF_MAX - sizeof(struct hg_arena_chunk) - ALIGN)
        return NULL;
    size_t rounded = bytes ? (bytes + ALIGN - 1) / ALIGN * ALIGN : ALIGN;
    struct hg_arena_chunk *c = a->head;
    if (!c || c->cap - c->used < rounded)
        c = add_chunk(a, rounded);
    if (!c)
        return NULL;
    void *piece = c->data + c->used;
    c->used += rounded;
    a->used_bytes += bytes;
    return piece;
}

char *hg_arena_strndup(struct hg_arena *a, const char *s, size_t n)
{
    if (n == SIZE_MAX)
        return NULL;
    char *copy = hg_arena_alloc(a, n + 1);
    if (copy && n)
        memcpy(copy, s, n);
    return copy;
}
