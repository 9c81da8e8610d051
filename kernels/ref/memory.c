/* kernels/ref/memory.c - device memory is ordinary memory; activations are fp32. */
#include <stdlib.h>
#include <string.h>

#include "kernels/ref/ref.h"

enum { ALIGNMENT = 64 };

enum hg_status ref_alloc(struct hg_backend *b, size_t bytes, void **out, struct hg_error *err)
{
    (void)b;
    *out = NULL;
    if (bytes > SIZE_MAX / 2)
        return hg_fail(err, HG_STATUS_TOO_LARGE, "allocation of %zu bytes", bytes);
    size_t padded = (bytes + ALIGNMENT) / ALIGNMENT * ALIGNMENT; /* never 0 */
    void *p = aligned_alloc(ALIGNMENT, padded);
    if (!p)
        return hg_fail(err, HG_STATUS_NO_MEMORY, "allocation of %zu bytes", bytes);
    memset(p, 0, padded);
    *out = p;
    return HG_STATUS_OK;
}

void ref_free(struct hg_backend *b, void *p)
{
    (void)b;
    free(p);
}

enum hg_status ref_upload(struct hg_backend *b, void *dst, const void *src, size_t bytes)
{
    (void)b;
    if (bytes)
        memcpy(dst, src, bytes);
    return HG_STATUS_OK;
}

enum hg_status ref_download(struct hg_backend *b, void *dst, const void *src, size_t bytes)
{
    return ref_upload(b, dst, src, bytes);
}

enum hg_status ref_upload_act(struct hg_backend *b, void *dst, const float *src, size_t n)
{
    return ref_upload(b, dst, src, n * sizeof *src);
}

enum hg_status ref_download_act(struct hg_backend *b, float *dst, const void *src, size_t n)
{
    return ref_upload(b, dst, src, n * sizeof *dst);
}

enum hg_status ref_sync(struct hg_backend *b)
{
    (void)b;
    return HG_STATUS_OK;
}
