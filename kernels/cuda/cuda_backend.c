/* kernels/cuda/cuda_backend.c - open, reserve, close, error handling and the op table of the cuda
 * backend. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/gemm.h"

enum {
    MAX_HISTORIES = 256,
    MAX_GROUPS = 4096,
    TICKETS = 4,
    RECORDS = 512 * 64 * (128 + 4) /* floats: 512 blocks of 64 rows */
};

#ifndef HG_CUDA_ARCHS /* the Makefile names what nvcc compiles for */
#define HG_CUDA_ARCHS "sm_?"
#endif

enum hg_status cuda_check(struct cuda_backend *c, cudaError_t e, const char *what)
{
    if (e == cudaSuccess)
        return HG_STATUS_OK;
    if (e >= cudaErrorStreamCaptureUnsupported && e <= cudaErrorStreamCaptureWrongThread &&
        cuda_graphs_spoil(c, what))
        return HG_STATUS_OK;
    if (!c->lost)
        hg_log(HG_LOG_ERROR, "cuda: %s: %s (%s)%s", what, cudaGetErrorName(e),
               cudaGetErrorString(e),
               e == cudaErrorMemoryAllocation ? "" : "; the device is lost to this process");
    if (e == cudaErrorMemoryAllocation) {
        cudaGetLastError(); /* it does not stick; the next launch is not to blame */
        return HG_STATUS_NO_MEMORY;
    }
    c->lost = true;
    return HG_STATUS_DEVICE;
}

enum hg_status cuda_status(struct cuda_backend *c, const char *kernel)
{
    return cuda_check(c, cudaGetLastError(), kernel);
}

enum hg_status cuda_allow_shared(struct cuda_backend *c, const void *kernel, size_t bytes)
{
    if (bytes <= 48 << 10)
        return HG_STATUS_OK;
    return cuda_check(
        c, cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes),
        "shared memory");
}

/* ---- life ---------------------------------------------------------------------------------------
 */

/* A lost device is not called any more: a driver that has lost its card may never return. What the
 * process still holds goes with the process. */
static void release_scratch(struct cuda_backend *c)
{
    void *const all[] = {c->scratch.x,
                         c->scratch.z,
                         c->scratch.tickets,
                         c->scratch.rows,
                         c->scratch.stats,
                         c->scratch.result,
                         c->scratch.sample,
                         c->scratch.partial,
                         c->plan_device,
                         c->scratch.gemm.weight,
                         c->scratch.gemm.result,
                         c->scratch.gemm.trial,
                         c->scratch.gemm.differs,
                         c->scratch.gemm.workspace};
    cuda_graphs_drop(c);
    cuda_steps_release(c);
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        cuda_free(&c->base, all[i]);
    memset(&c->attention, 0, sizeof c->attention);
    memset(&c->scratch, 0, sizeof c->scratch);
    memset(&c->limits, 0, sizeof c->limits);
    c->plan_device = NULL;
}

static void cuda_close(struct hg_backend *b)
{
    struct cuda_backend *c = cuda_of(b);
    if (c->stream)
        cuda_sync(b); /* copies may still read the pinned buffers */
    release_scratch(c);
    if (!c->lost)
        cuda_gemm_close(c->gemm);
    cuda_stage_close(c);
    cuda_pool_close(c);
    if (c->stream && !c->lost)
        cuda_check(c, cudaStreamDestroy(c->stream), "cudaStreamDestroy");
    free(c);
}

static const char *cuda_describe(struct hg_backend *b)
{
    return cuda_of(b)->description;
}

static size_t at_least_one(int64_t n)
{
    return n > 0 ? (size_t)n : 1;
}

static enum hg_status allocate(struct hg_backend *b, void *slot, size_t bytes, struct hg_error *err)
{
    void *p = NULL;
    HG_TRY(cuda_alloc(b, bytes, &p, err));
    memcpy(slot, &p, sizeof p);
    return HG_STATUS_OK;
}

static enum hg_status cuda_reserve(struct hg_backend *b, const struct hg_backend_limits *limits,
                                   struct hg_error *err)
{
    struct cuda_backend *c = cuda_of(b);
    struct cuda_scratch *s = &c->scratch;
    const struct hg_backend_limits l = *limits;
    enum hg_status status = HG_STATUS_OK;
    size_t rows = at_least_one(l.max_rows), outs = at_least_one(l.max_out);
    size_t in = (at_least_one(l.max_in) + 63) / 64 * 64, rows64 = (rows + 63) / 64 * 64;
    release_scratch(c);
    c->limits = l;
    /* 6 bytes a value: two fp16 halves and, beside F8, bf16, or int8, bf16 and a scale per 128; a
     * row's scale beside it; whole token tiles and whole groups. A convolution needs 4 per input,
     * and 8 rows of a tiny one */
    s->x_bytes = rows64 * (in * 6 + 256);
    size_t conv = at_least_one(l.max_conv),
           conv_bytes = conv * 4 + (conv < 16384 ? conv : 16384) * 32 + 4096;
    s->x_bytes = s->x_bytes < conv_bytes ? conv_bytes : s->x_bytes;
    s->result_bytes = rows * sizeof(struct hg_sample_result) + outs * 4 + at_least_one(l.max_conv);
    s->sample_bytes = (rows < CUDA_SAMPLE_BLOCKS ? rows : CUDA_SAMPLE_BLOCKS) * (outs + 3) * 12;
    s->partial_bytes = (ATTENTION_COUNTERS + (size_t)RECORDS) * sizeof(float);
    /* a token's rows, one per head of a group of up to 64, fill at most 5 tiles; the rest is for
     * split contexts */
    c->attention.capacity = 5 * (int)rows + 2 * CUDA_SMALL_WORK;
    c->plan_bytes = cuda_plan_bytes(c, (int64_t)rows, MAX_HISTORIES) +
                    (size_t)c->attention.capacity * sizeof(struct attend_work);
    HG_TRY_OUT(allocate(b, &s->x, s->x_bytes, err));
    /* A x and logits, the same gated and prepared with parts padded to steps, a scale per part: see
     * linear.cu */
    s->z_bytes = rows64 * (2 * at_least_one(l.max_rank) + 192) * sizeof(float);
    HG_TRY_OUT(allocate(b, &s->z, s->z_bytes, err));
    s->n_tickets = TICKETS + (int)rows;
    HG_TRY_OUT(allocate(b, &s->tickets, 2 * (size_t)s->n_tickets * sizeof(int), err));
    HG_TRY_OUT(allocate(b, &s->rows, rows * sizeof(int32_t), err));
    HG_TRY_OUT(allocate(b, &s->stats, 2 * MAX_GROUPS * sizeof(float), err));
    HG_TRY_OUT(allocate(b, &s->result, s->result_bytes, err));
    HG_TRY_OUT(allocate(b, &s->sample, s->sample_bytes, err));
    HG_TRY_OUT(allocate(b, &s->partial, s->partial_bytes, err));
    HG_TRY_OUT(allocate(b, &c->plan_device, c->plan_bytes, err));
    HG_TRY_OUT(cuda_steps_reserve(c, err));
    HG_TRY_OUT(cuda_gemm_reserve(c, &l, err));
out:
    if (status != HG_STATUS_OK)
        release_scratch(c);
    return status;
}

static enum hg_status upload_act(struct hg_backend *b, void *dst, const float *src, size_t n)
{
    return cuda_upload(b, dst, src, n * sizeof *src);
}

static enum hg_status download_act(struct hg_backend *b, float *dst, const void *src, size_t n)
{
    return cuda_download(b, dst, src, n * sizeof *dst);
}

static const struct hg_backend_ops cuda_ops = {
    .name = "cuda",
    .act_type = HG_DTYPE_F32,
    .close = cuda_close,
    .describe = cuda_describe,
    .reserve = cuda_reserve,
    .memory = cuda_memory,
    .alloc = cuda_alloc,
    .free = cuda_free,
    .upload = cuda_upload,
    .download = cuda_download,
    .upload_act = upload_act,
    .download_act = download_act,
    .sync = cuda_sync,
    .weight_create = cuda_weight_create,
    .weight_free = cuda_weight_free,
    .weight_bytes = cuda_weight_bytes,
    .kv_create = cuda_kv_create,
    .kv_free = cuda_kv_free,
    .kv_zero = cuda_kv_zero,
    .step_begin = cuda_step_begin,
    .step_end = cuda_step_end,
    .step_wait = cuda_step_wait,
    .embed = cuda_embed,
    .linear = cuda_linear,
    .layernorm = cuda_layernorm,
    .attention = cuda_attention,
    .attention_full = cuda_attention_full,
    .head = cuda_head,
    .sample = cuda_sample,
    .im2row = cuda_im2row,
    .vision_embed = cuda_vision_embed,
    .copy_rows = cuda_copy_rows,
    .conv = cuda_conv,
    .lookup = cuda_lookup,
    .argmax = cuda_argmax,
    .to_rgb = cuda_to_rgb,
    .read_rate = cuda_read_rate,
};

/* ---- open ---------------------------------------------------------------------------------------
 */

/* The runtime calls a driver that is missing "insufficient" too. */
static enum hg_status refuse_driver(struct hg_error *err)
{
    int have = 0, want = 0;
    cudaDriverGetVersion(&have);
    cudaRuntimeGetVersion(&want);
    if (have == 0)
        return hg_fail(err, HG_STATUS_UNSUPPORTED,
                       "cuda: no device: no NVIDIA driver is installed; install one or use "
                       "--backend cpu");
    return hg_fail(err, HG_STATUS_UNSUPPORTED,
                   "cuda: the driver is for CUDA %d.%d, this build needs %d.%d; update the driver "
                   "or use --backend cpu",
                   have / 1000, have % 1000 / 10, want / 1000, want % 1000 / 10);
}

static enum hg_status find_device(struct cuda_backend *c, struct hg_error *err)
{
    struct cudaDeviceProp props;
    int n = 0, major = 0, minor = 0;
    cudaError_t e = cudaGetDeviceCount(&n);
    if (e == cudaErrorInsufficientDriver)
        return refuse_driver(err);
    if (e != cudaSuccess || n == 0)
        return hg_fail(err, HG_STATUS_UNSUPPORTED,
                       "cuda: no device (%s); see nvidia-smi and CUDA_VISIBLE_DEVICES, or use "
                       "--backend cpu",
                       cudaGetErrorName(e));
    e = cudaSetDevice(c->device);
    if (e == cudaSuccess)
        e = cudaGetDeviceProperties(&props, c->device);
    if (e != cudaSuccess)
        return hg_fail(err, HG_STATUS_DEVICE,
                       "cuda: device %d cannot be used: %s (%s); see nvidia-smi", c->device,
                       cudaGetErrorName(e), cudaGetErrorString(e));
    cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, c->device);
    cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, c->device);
    cudaDeviceGetAttribute(&c->n_sms, cudaDevAttrMultiProcessorCount, c->device);
    cudaDeviceGetAttribute(&c->shared_per_sm, cudaDevAttrMaxSharedMemoryPerMultiprocessor,
                           c->device);
    if (major < 8)
        return hg_fail(err, HG_STATUS_UNSUPPORTED,
                       "cuda: %s has compute capability %d.%d, expected 8.0 or more; use --backend "
                       "cpu",
                       props.name, major, minor);
    e = cuda_find_image();
    if (e != cudaSuccess)
        return hg_fail(err, HG_STATUS_UNSUPPORTED,
                       "cuda: no kernels for %s (sm_%d%d) in this build, which has %s (%s): build "
                       "with CUDA_ARCHS=%d%d, or use --backend cpu",
                       props.name, major, minor, HG_CUDA_ARCHS, cudaGetErrorName(e), major, minor);
    const char *early = getenv("HG_CUDA_EARLY");
    c->early = major >= 9 && !(early && strcmp(early, "0") == 0);
    snprintf(c->description, sizeof c->description, "cuda %.64s sm_%d%d", props.name, major, minor);
    return HG_STATUS_OK;
}

enum hg_status hg_cuda_open(const struct hg_backend_options *o, struct hg_backend **out,
                            struct hg_error *err)
{
    enum hg_status status = HG_STATUS_OK;
    *out = NULL;
    struct cuda_backend *c = calloc(1, sizeof *c);
    if (!c)
        return hg_fail(err, HG_STATUS_NO_MEMORY, "cuda backend");
    const char *graphs = getenv("HG_CUDA_GRAPHS");
    c->graphs.off = graphs && strcmp(graphs, "0") == 0;
    c->base.ops = &cuda_ops;
    HG_TRY_OUT(find_device(c, err));
    cudaError_t e = cudaStreamCreate(&c->stream);
    if (e != cudaSuccess) {
        status = hg_fail(err, cuda_check(c, e, "cudaStreamCreate"), "cuda: no stream: %s",
                         cudaGetErrorName(e));
        goto out;
    }
    HG_TRY_OUT(cuda_pool_open(c, o->memory_utilization, err));
    *out = &c->base;
    return HG_STATUS_OK;
out:
    cuda_close(&c->base);
    return status;
}
