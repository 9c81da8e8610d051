/* kernels/cuda/pool.c - device memory: one allocation at open, pieces of it afterwards.
 *
 * Nothing waits for a piece that is given back: whatever may still read it was enqueued before, and
 * the next owner's zeroing is enqueued behind that on the same stream. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "kernels/cuda/cuda.h"

enum { PIECE_ALIGN = 256 }; /* as cudaMalloc gives, and what a bulk copy wants at most is 128 */

static bool pool_is_off(double utilization)
{
    const char *v = getenv("HG_CUDA_POOL");
    return utilization <= 0 || (v && strcmp(v, "0") == 0);
}

enum hg_status cuda_pool_open(struct cuda_backend *c, double utilization, struct hg_error *err)
{
    struct cuda_pool *p = &c->pool;
    cudaError_t e = cudaMemGetInfo(&p->card_free, &p->card_bytes);
    if (e != cudaSuccess)
        return hg_fail(err, cuda_check(c, e, "cudaMemGetInfo"), "cuda: memory of the card: %s",
                       cudaGetErrorName(e));
    if (pool_is_off(utilization))
        return HG_STATUS_OK;
    size_t bytes = (size_t)((double)p->card_free * (utilization < 1 ? utilization : 1));
    if (hg_region_init(&p->region, bytes, PIECE_ALIGN) != HG_STATUS_OK)
        return hg_fail(err, HG_STATUS_NO_MEMORY, "cuda: table of the pool");
    e = cudaMalloc((void **)&p->base, p->region.size);
    if (e == cudaSuccess)
        return HG_STATUS_OK;
    p->base = NULL;
    return hg_fail(err, cuda_check(c, e, "cudaMalloc of the pool"),
                   "cuda: no pool of %zu MB, %.2f of the %zu MB that are free of the card's %zu MB "
                   "(%s): lower --gpu-memory-utilization, or see what else uses the card",
                   bytes / 1000000, utilization, p->card_free / 1000000, p->card_bytes / 1000000,
                   cudaGetErrorName(e));
}

void cuda_pool_close(struct cuda_backend *c)
{
    if (c->pool.base && !c->lost)
        cuda_check(c, cudaFree(c->pool.base), "cudaFree of the pool");
    hg_region_deinit(&c->pool.region);
    c->pool.base = NULL;
}

static enum hg_status from_pool(struct cuda_pool *p, size_t bytes, void **out, struct hg_error *err)
{
    uint64_t at = 0;
    if (!hg_region_take(&p->region, bytes, &at))
        return hg_fail(err, HG_STATUS_NO_MEMORY,
                       "device memory: %zu bytes wanted, at most %llu together of the pool's %llu "
                       "are free",
                       bytes, (unsigned long long)hg_region_largest(&p->region),
                       (unsigned long long)p->region.size);
    *out = p->base + at;
    return HG_STATUS_OK;
}

static enum hg_status from_driver(struct cuda_backend *c, size_t bytes, void **out,
                                  struct hg_error *err)
{
    size_t free_bytes = 0, total = 0;
    cudaError_t e = cudaMalloc(out, bytes ? bytes : 1);
    if (e == cudaSuccess)
        return HG_STATUS_OK;
    *out = NULL;
    if (e != cudaErrorMemoryAllocation)
        return hg_fail(err, cuda_check(c, e, "cudaMalloc"), "device memory: %s",
                       cudaGetErrorName(e));
    cudaGetLastError(); /* not sticky */
    cudaMemGetInfo(&free_bytes, &total);
    return hg_fail(err, HG_STATUS_NO_MEMORY, "device memory: %zu bytes wanted, %zu of %zu free",
                   bytes, free_bytes, total);
}

enum hg_status cuda_alloc(struct hg_backend *b, size_t bytes, void **out, struct hg_error *err)
{
    struct cuda_backend *c = cuda_of(b);
    *out = NULL;
    if (c->lost)
        return hg_fail(err, HG_STATUS_DEVICE, "device memory: the device is lost");
    if (cuda_graphs_spoil(c, "an allocation"))
        return hg_fail(err, HG_STATUS_INTERNAL, "allocation of %zu bytes inside a step", bytes);
    if (bytes > SIZE_MAX / 2)
        return hg_fail(err, HG_STATUS_TOO_LARGE, "allocation of %zu bytes", bytes);
    HG_TRY(c->pool.base ? from_pool(&c->pool, bytes, out, err) : from_driver(c, bytes, out, err));
    enum hg_status status = cuda_check(c, cudaMemsetAsync(*out, 0, bytes, c->stream), "cudaMemset");
    if (status == HG_STATUS_OK)
        return status;
    cuda_free(b, *out);
    *out = NULL;
    return hg_fail(err, status, "device memory: clearing %zu bytes failed", bytes);
}

void cuda_free(struct hg_backend *b, void *p)
{
    struct cuda_backend *c = cuda_of(b);
    if (!p)
        return;
    cuda_graphs_drop(c); /* one of them may use it */
    if (c->pool.base) {
        if (!hg_region_give(&c->pool.region, (uint64_t)((char *)p - c->pool.base)))
            hg_log(HG_LOG_ERROR, "cuda: free of what was never allocated");
    } else if (!c->lost) {
        cuda_check(c, cudaFree(p), "cudaFree");
    }
}

void cuda_memory(struct hg_backend *b, struct hg_backend_memory *out)
{
    const struct cuda_pool *p = &cuda_of(b)->pool;
    *out = (struct hg_backend_memory){.card = p->card_bytes, .free_at_open = p->card_free};
    if (!p->base)
        return;
    out->limit = p->region.size;
    out->used = p->region.used;
    out->largest = hg_region_largest(&p->region);
}
