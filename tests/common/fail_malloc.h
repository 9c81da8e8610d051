/* tests/common/fail_malloc.h - a malloc that counts and can be told to fail.
 *
 * It replaces malloc for the whole program that includes this, libraries included; hence code in a
 * header: in the test library it would be every program's malloc. Sanitizers own malloc themselves,
 * so under them such a program only skips (CAN_REPLACE_MALLOC is 0). */
#ifndef HG_TESTS_COMMON_FAIL_MALLOC_H
#define HG_TESTS_COMMON_FAIL_MALLOC_H

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || !defined(__GLIBC__)
#define CAN_REPLACE_MALLOC 0
#else
#define CAN_REPLACE_MALLOC 1
#endif

/* No program uses all of them where malloc is the sanitizer's. */
#define MAYBE __attribute__((unused)) static
/* Countdown to the failing allocation; 0: never. Only the test's own thread counts. */
MAYBE _Thread_local long fail_at;
MAYBE _Thread_local bool fail_later_ones;
MAYBE _Thread_local long n_live; /* allocations minus frees while counting */
MAYBE _Thread_local bool counting;
MAYBE _Thread_local long n_refused;
/* Of all threads. */
MAYBE atomic_bool counting_all;
MAYBE atomic_long n_all;
#undef MAYBE

#if CAN_REPLACE_MALLOC
void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t n);
void *__libc_memalign(size_t align, size_t n);
void __libc_free(void *p);

static bool refuse_now(void)
{
    if (atomic_load_explicit(&counting_all, memory_order_relaxed))
        atomic_fetch_add(&n_all, 1);
    if (!counting || fail_at == 0)
        return false;
    if (fail_at > 1) {
        fail_at--;
        return false;
    }
    if (!fail_later_ones)
        fail_at = 0;
    n_refused++;
    errno = ENOMEM; /* pthread_create relies on it */
    return true;
}

static void *counted(void *p)
{
    n_live += counting && p;
    return p;
}

void *malloc(size_t n)
{
    return refuse_now() ? NULL : counted(__libc_malloc(n));
}

void *calloc(size_t n, size_t size)
{
    return refuse_now() ? NULL : counted(__libc_calloc(n, size));
}

void *aligned_alloc(size_t align, size_t n)
{
    return refuse_now() ? NULL : counted(__libc_memalign(align, n));
}

void *realloc(void *p, size_t n)
{
    if (refuse_now())
        return NULL;
    void *q = __libc_realloc(p, n);
    n_live += counting && !p && q;
    return q;
}

int posix_memalign(void **out, size_t align, size_t n)
{
    *out = refuse_now() ? NULL : counted(__libc_memalign(align, n));
    return *out ? 0 : ENOMEM;
}

void free(void *p)
{
    n_live -= counting && p;
    __libc_free(p);
}
#endif

#endif
