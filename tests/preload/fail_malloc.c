/* tests/preload/fail_malloc.c - LD_PRELOAD: memory runs out in a program that is running.
 *
 * HG_FAIL_CONTROL names a file that holds a struct control; tests/e2e/check_memory_runs_out.py maps
 * it too. While `armed`, allocations of all threads are counted (malloc, calloc, realloc, aligned
 * ones, anonymous mmap, mremap, also those of the libraries) and the k-th fails, or it and all
 * later ones. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

struct control {
    _Atomic int64_t armed;
    _Atomic int64_t k, later_ones;      /* k counts from 1 */
    _Atomic int64_t n_asked, n_refused; /* since it was armed */
    _Atomic int64_t n_live;             /* blocks of the heap, always */
};

void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t n);
void *__libc_memalign(size_t align, size_t n);
void __libc_free(void *p);

static struct control before; /* until the file is mapped */
static struct control *control = &before;

static void __attribute__((constructor)) map_control(void)
{
    const char *path = getenv("HG_FAIL_CONTROL");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0)
        abort();
    void *p = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED)
        abort();
    close(fd);
    control = p;
}

static int refused(void)
{
    struct control *c = control;
    if (!atomic_load_explicit(&c->armed, memory_order_acquire))
        return 0;
    int64_t n = atomic_fetch_add(&c->n_asked, 1) + 1, k = atomic_load(&c->k);
    if (k == 0 || n < k || (n > k && !atomic_load(&c->later_ones)))
        return 0;
    atomic_fetch_add(&c->n_refused, 1);
    errno = ENOMEM;
    return 1;
}

static void *counted(void *p)
{
    if (p)
        atomic_fetch_add_explicit(&control->n_live, 1, memory_order_relaxed);
    return p;
}

void *malloc(size_t n)
{
    return refused() ? NULL : counted(__libc_malloc(n));
}

void *calloc(size_t n, size_t size)
{
    return refused() ? NULL : counted(__libc_calloc(n, size));
}

void *realloc(void *p, size_t n)
{
    if (refused())
        return NULL;
    void *q = __libc_realloc(p, n);
    if (!p)
        counted(q);
    else if (!q && n == 0)
        atomic_fetch_sub(&control->n_live, 1);
    return q;
}

void *aligned_alloc(size_t align, size_t n)
{
    return refused() ? NULL : counted(__libc_memalign(align, n));
}

void *memalign(size_t align, size_t n)
{
    return aligned_alloc(align, n);
}

int posix_memalign(void **out, size_t align, size_t n)
{
    void *p = aligned_alloc(align, n);
    if (!p)
        return ENOMEM;
    *out = p;
    return 0;
}

void free(void *p)
{
    if (p)
        atomic_fetch_sub_explicit(&control->n_live, 1, memory_order_relaxed);
    __libc_free(p);
}

void *mmap(void *at, size_t n, int prot, int flags, int fd, off_t offset)
{
    if ((flags & MAP_ANONYMOUS) && refused())
        return MAP_FAILED;
    return (void *)syscall(SYS_mmap, at, n, prot, flags, fd, offset);
}

void *mremap(void *at, size_t old, size_t n, int flags, ...)
{
    va_list args;
    va_start(args, flags);
    void *to = flags & MREMAP_FIXED ? va_arg(args, void *) : NULL;
    va_end(args);
    return refused() ? MAP_FAILED : (void *)syscall(SYS_mremap, at, old, n, flags, to);
}
