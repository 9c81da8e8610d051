/* kernels/cuda/stage.c - from the host to the device through two pinned buffers.
 *
 * While the copy engine reads one buffer the host fills the other; an event behind each copy says
 * when its buffer may be filled again. Made at the first use, so a backend without weights has
 * none. */
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/cuda.h"

static enum hg_status explain(enum hg_status status, struct hg_error *err)
{
    if (status != HG_STATUS_OK)
        hg_fail(err, status, "upload: %s", hg_status_text(status));
    return status;
}

void cuda_stage_close(struct cuda_backend *c)
{
    struct cuda_stage *s = &c->stage;
    for (int i = 0; i < 2 && !c->lost; i++) {
        if (s->done[i])
            cuda_check(c, cudaEventDestroy(s->done[i]), "cudaEventDestroy");
        if (s->host[i])
            cuda_check(c, cudaFreeHost(s->host[i]), "cudaFreeHost");
    }
    memset(s, 0, sizeof *s);
}

/* Room for `bytes` in both buffers: a tile of a very wide matrix is larger than usual. */
static enum hg_status make_room(struct cuda_backend *c, size_t bytes, struct hg_error *err)
{
    struct cuda_stage *s = &c->stage;
    HG_TRY(explain(cuda_sync(&c->base), err)); /* copies may still read the old ones */
    cuda_stage_close(c);
    for (int i = 0; i < 2; i++) {
        if (cudaMallocHost(&s->host[i], bytes) != cudaSuccess) {
            cudaGetLastError(); /* not sticky */
            s->host[i] = NULL;
            cuda_stage_close(c);
            return hg_fail(err, HG_STATUS_NO_MEMORY, "pinned memory: two buffers of %zu bytes",
                           bytes);
        }
        HG_TRY(explain(
            cuda_check(c, cudaEventCreateWithFlags(&s->done[i], cudaEventDisableTiming), "event"),
            err));
    }
    s->bytes = bytes;
    return HG_STATUS_OK;
}

enum hg_status cuda_stage_take(struct cuda_backend *c, size_t bytes, void **host,
                               struct hg_error *err)
{
    struct cuda_stage *s = &c->stage;
    *host = NULL;
    if (c->lost)
        return explain(HG_STATUS_DEVICE, err);
    if (bytes > s->bytes)
        HG_TRY(make_room(c, bytes > CUDA_STAGE_BYTES ? bytes : CUDA_STAGE_BYTES, err));
    s->turn ^= 1;
    if (s->busy[s->turn])
        HG_TRY(explain(cuda_check(c, cudaEventSynchronize(s->done[s->turn]), "upload"), err));
    s->busy[s->turn] = false;
    *host = s->host[s->turn];
    return HG_STATUS_OK;
}

enum hg_status cuda_stage_send(struct cuda_backend *c, void *dst, size_t bytes,
                               struct hg_error *err)
{
    struct cuda_stage *s = &c->stage;
    HG_TRY(explain(cuda_upload(&c->base, dst, s->host[s->turn], bytes), err));
    s->busy[s->turn] = true;
    return explain(cuda_check(c, cudaEventRecord(s->done[s->turn], c->stream), "event"), err);
}

enum hg_status cuda_put(struct hg_backend *b, void *dst, const void *src, size_t bytes,
                        struct hg_error *err)
{
    struct cuda_backend *c = cuda_of(b);
    for (size_t at = 0; at < bytes;) {
        size_t n = bytes - at < CUDA_STAGE_BYTES ? bytes - at : CUDA_STAGE_BYTES;
        void *host = NULL;
        HG_TRY(cuda_stage_take(c, n, &host, err));
        memcpy(host, (const char *)src + at, n);
        HG_TRY(cuda_stage_send(c, (char *)dst + at, n, err));
        at += n;
    }
    return HG_STATUS_OK;
}
