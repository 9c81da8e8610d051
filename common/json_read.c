/* common/json_read.c - every block of a parse is known, so that a parse can be left by longjmp.
 *
 * They are in a hash table with linear probing, at most half full: a body of 20,000 values that is
 * no JSON at its last byte is freed in any order. */
#include "common/json_read.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

enum { FIRST_BITS = 8 };

struct reading {
    jmp_buf out_of_memory;
    void **blocks; /* [1 << bits] allocated and not freed, NULL between them */
    unsigned bits;
    size_t n;
};

static _Thread_local struct reading *now; /* NULL outside a parse: plain malloc and free */

static size_t home_of(const struct reading *r, const void *p)
{
    return (size_t)((uint64_t)(uintptr_t)p * 0x9e3779b97f4a7c15u >> (64 - r->bits));
}

static size_t next_of(const struct reading *r, size_t i)
{
    return (i + 1) & (((size_t)1 << r->bits) - 1);
}

static void put(struct reading *r, void *p)
{
    size_t i = home_of(r, p);
    while (r->blocks[i])
        i = next_of(r, i);
    r->blocks[i] = p;
    r->n++;
}

static bool make_room(struct reading *r)
{
    struct reading more = {.bits = r->bits + 1};
    if (2 * r->n < (size_t)1 << r->bits)
        return true;
    more.blocks = calloc((size_t)1 << more.bits, sizeof *more.blocks);
    if (!more.blocks)
        return false;
    for (size_t i = 0; i < (size_t)1 << r->bits; i++)
        if (r->blocks[i])
            put(&more, r->blocks[i]);
    free(r->blocks);
    r->blocks = more.blocks;
    r->bits = more.bits;
    return true;
}

/* Blocks behind the gap move up, unless they stand between their home and the gap. */
static void take_out(struct reading *r, const void *p)
{
    size_t gap = home_of(r, p), mask = ((size_t)1 << r->bits) - 1;
    while (r->blocks[gap] && r->blocks[gap] != p)
        gap = next_of(r, gap);
    if (!r->blocks[gap])
        return; /* of before the parse */
    r->blocks[gap] = NULL;
    r->n--;
    for (size_t i = next_of(r, gap); r->blocks[i]; i = next_of(r, i)) {
        size_t from_home = (i - home_of(r, r->blocks[i])) & mask;
        if (from_home < ((i - gap) & mask))
            continue;
        r->blocks[gap] = r->blocks[i];
        r->blocks[i] = NULL;
        gap = i;
    }
}

static void *allocate(size_t n)
{
    struct reading *r = now;
    void *p = r && !make_room(r) ? NULL : malloc(n);
    if (r && !p)
        longjmp(r->out_of_memory, 1);
    if (r)
        put(r, p);
    return p;
}

static void release(void *p)
{
    if (now && p)
        take_out(now, p);
    free(p);
}

static void use_them(void)
{
    json_set_alloc_funcs(allocate, release);
}

enum hg_status hg_json_read(const char *s, size_t n, size_t flags, json_t **out, json_error_t *e)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    struct reading r = {.bits = FIRST_BITS};
    enum hg_status status = HG_STATUS_NO_MEMORY;
    *out = NULL;
    pthread_once(&once, use_them);
    r.blocks = calloc((size_t)1 << r.bits, sizeof *r.blocks);
    if (!r.blocks)
        return status;
    now = &r;
    if (setjmp(r.out_of_memory) == 0) {
        *out = json_loadb(s, n, flags, e);
        now = NULL;
        status = *out ? HG_STATUS_OK : HG_STATUS_BAD_REQUEST;
    } else {
        now = NULL;
        for (size_t i = 0; i < (size_t)1 << r.bits; i++)
            free(r.blocks[i]);
    }
    free(r.blocks);
    return status;
}
