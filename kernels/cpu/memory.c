/* kernels/cpu/memory.c - device memory is ordinary memory, 64-byte aligned; activations are fp32.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "kernels/cpu/cpu.h"

enum { HUGE_PAGE = 2 << 20 };

/* Huge pages for the whole ones only: a last one that is used in part would be taken whole, half a
 * megabyte or more for each of the hundreds of tensors of a model. */
void *cpu_memory(size_t bytes)
{
    size_t align = bytes >= 2 * (size_t)HUGE_PAGE ? HUGE_PAGE : 64;
    void *p = NULL;
    if (bytes > SIZE_MAX / 2 || posix_memalign(&p, align, bytes ? bytes : 1) != 0)
        return NULL;
#ifdef MADV_HUGEPAGE
    if (align == HUGE_PAGE)
        madvise(p, bytes / HUGE_PAGE * HUGE_PAGE, MADV_HUGEPAGE);
#endif
    return p;
}

struct zero_job {
    char *p;
    int64_t n; /* huge pages */
};

static void zero_member(void *ctx, int member, int n_members)
{
    const struct zero_job *j = ctx;
    int64_t first, end = cpu_share(j->n, member, n_members, &first);
    memset(j->p + first * HUGE_PAGE, 0, (size_t)(end - first) * HUGE_PAGE);
}

/* The first touch of gigabytes takes seconds of the kernel's time: by all threads. */
static void zero(struct cpu_backend *c, char *p, size_t bytes)
{
    struct zero_job job = {.p = p, .n = c ? (int64_t)(bytes / HUGE_PAGE) : 0};
    size_t whole = (size_t)job.n * HUGE_PAGE;
    if (job.n)
        cpu_run(c, (int64_t)whole, zero_member, &job);
    memset(p + whole, 0, bytes - whole);
}

enum hg_status cpu_alloc(struct hg_backend *b, size_t bytes, void **out, struct hg_error *err)
{
    *out = NULL;
    if (bytes > SIZE_MAX / 2)
        return hg_fail(err, HG_STATUS_TOO_LARGE, "allocation of %zu bytes", bytes);
    void *p = cpu_memory(bytes);
    if (!p)
        return hg_fail(err, HG_STATUS_NO_MEMORY, "allocation of %zu bytes", bytes);
    zero(b && cpu_of(b)->pool ? cpu_of(b) : NULL, p, bytes);
    *out = p;
    return HG_STATUS_OK;
}

enum hg_status cpu_scratch(void *out, int64_t count, size_t size, struct hg_error *err)
{
    return cpu_array(NULL, out, count, size, err);
}

enum hg_status cpu_array(struct hg_backend *b, void *out, int64_t count, size_t size,
                         struct hg_error *err)
{
    size_t bytes = 0;
    void *p = NULL;
    if (count < 0 || __builtin_mul_overflow((size_t)count, size, &bytes))
        return hg_fail(err, HG_STATUS_TOO_LARGE, "scratch of %lld * %zu bytes", (long long)count,
                       size);
    enum hg_status status = cpu_alloc(b, bytes, &p, err);
    memcpy(out, &p, sizeof p);
    return status;
}

void cpu_free(struct hg_backend *b, void *p)
{
    (void)b;
    free(p);
}

enum hg_status cpu_upload(struct hg_backend *b, void *dst, const void *src, size_t bytes)
{
    (void)b;
    if (bytes)
        memcpy(dst, src, bytes);
    return HG_STATUS_OK;
}

enum hg_status cpu_download(struct hg_backend *b, void *dst, const void *src, size_t bytes)
{
    return cpu_upload(b, dst, src, bytes);
}

enum hg_status cpu_upload_act(struct hg_backend *b, void *dst, const float *src, size_t n)
{
    return cpu_upload(b, dst, src, n * sizeof *src);
}

enum hg_status cpu_download_act(struct hg_backend *b, float *dst, const void *src, size_t n)
{
    return cpu_upload(b, dst, src, n * sizeof *dst);
}

enum hg_status cpu_sync(struct hg_backend *b)
{
    (void)b;
    return HG_STATUS_OK;
}
