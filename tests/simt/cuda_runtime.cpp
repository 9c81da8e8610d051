/* tests/simt/cuda_runtime.cpp - see cuda_runtime.h. */
#include "cuda_runtime.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <unordered_map>
#include <vector>

#include <sys/mman.h>

struct simt_stream {
};
struct simt_event {
    size_t copies; /* enqueued before it */
};

namespace
{

enum { default_shared = 48 << 10, most_shared = 227 << 10 };
const size_t large_piece = (size_t)64 << 20;

struct Copy { /* out of pinned memory, not yet done */
    void *dst;
    const void *src;
    size_t bytes;
};

struct Runtime {
    simt_stream stream;
    std::unordered_map<void *, size_t> allocations;
    std::map<const char *, size_t> pinned;
    std::vector<Copy> waiting;
    size_t n_enqueued = 0, n_copied = 0;             /* copies out of pinned memory */
    std::unordered_map<const void *, size_t> shared; /* raised limits */
    size_t used = 0;
    long n_malloc = 0, n_launch = 0, n_copy = 0, n_sync = 0, n_event = 0;
    cudaError_t sticky = cudaSuccess, last = cudaSuccess;
    bool deaf = false; /* a call that enters the driver would never return */
};

Runtime r;

/* Counted while the variable names `what`, so that a test may set it after other work. */
bool planted(const char *what, long *count)
{
    const char *fault = getenv("HG_SIMT_FAULT");
    size_t n = strlen(what);
    return fault && strncmp(fault, what, n) == 0 && fault[n] == ':' &&
           atol(fault + n + 1) == ++*count;
}

/* First in every function that would call the driver. */
void enter(const char *function)
{
    if (!r.deaf)
        return;
    fprintf(stderr, "simt: %s after the device was lost\n", function);
    abort();
}

bool planted_device(const char *what)
{
    const char *fault = getenv("HG_SIMT_FAULT");
    return fault && strcmp(fault, what) == 0;
}

cudaError_t remember(cudaError_t e)
{
    if (e != cudaSuccess)
        r.last = e;
    return e;
}

size_t device_memory()
{
    const char *mb = getenv("HG_SIMT_MEMORY");
    return mb ? (size_t)atol(mb) * 1000000 : (size_t)8 << 30;
}

bool is_pinned(const void *p)
{
    auto it = r.pinned.upper_bound((const char *)p);
    if (it == r.pinned.begin())
        return false;
    --it;
    return (const char *)p < it->first + it->second;
}

/* Do the copies that wait, up to the n-th of all. */
void do_copies(size_t n = (size_t)-1)
{
    size_t k = 0;
    for (; k < r.waiting.size() && r.n_copied < n; k++, r.n_copied++)
        memcpy(r.waiting[k].dst, r.waiting[k].src, r.waiting[k].bytes);
    r.waiting.erase(r.waiting.begin(), r.waiting.begin() + (long)k);
}

cudaError_t break_device()
{
    const char *fault = getenv("HG_SIMT_FAULT");
    r.deaf = fault && fault[strlen(fault) - 1] == '!';
    r.sticky = cudaErrorIllegalAddress;
    return remember(r.sticky);
}

} // namespace

extern "C" {

cudaError_t cudaDriverGetVersion(int *version)
{
    *version = planted_device("nodriver") ? 0 : planted_device("driver") ? 11040 : 13000;
    return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int *version)
{
    *version = 13000;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int *n)
{
    *n = 0;
    if (planted_device("device"))
        return cudaErrorNoDevice;
    if (planted_device("driver") || planted_device("nodriver"))
        return cudaErrorInsufficientDriver;
    *n = 1;
    return cudaSuccess;
}

cudaError_t cudaSetDevice(int device)
{
    if (planted_device("taken"))
        return remember(cudaErrorDevicesUnavailable);
    return device == 0 ? cudaSuccess : remember(cudaErrorInvalidValue);
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *p, int device)
{
    (void)device;
    snprintf(p->name, sizeof p->name, "SIMT emulation");
    return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attr, int device)
{
    (void)device;
    *value = attr == cudaDevAttrMultiProcessorCount      ? 4
             : attr == cudaDevAttrComputeCapabilityMajor ? planted_device("arch") ? 7 : 9
             : attr == cudaDevAttrComputeCapabilityMinor ? planted_device("arch") ? 5 : 0
                                                         : most_shared;
    return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total_bytes)
{
    enter("cudaMemGetInfo");
    *total_bytes = device_memory();
    *free_bytes = *total_bytes > r.used ? *total_bytes - r.used : 0;
    return cudaSuccess;
}

cudaError_t cudaMalloc(void **p, size_t bytes)
{
    enter("cudaMalloc");
    *p = nullptr;
    if (planted("malloc", &r.n_malloc) || r.used + bytes > device_memory())
        return remember(cudaErrorMemoryAllocation);
    if (bytes >= large_piece) {
        *p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (*p == MAP_FAILED)
            *p = nullptr;
    } else if (posix_memalign(p, 256, bytes ? bytes : 1) == 0) {
        memset(*p, 0xff, bytes);
    }
    if (!*p)
        return remember(cudaErrorMemoryAllocation);
    r.allocations[*p] = bytes;
    r.used += bytes;
    return cudaSuccess;
}

cudaError_t cudaFree(void *p)
{
    enter("cudaFree");
    auto it = r.allocations.find(p);
    if (!p)
        return cudaSuccess;
    if (it == r.allocations.end())
        return remember(cudaErrorInvalidValue);
    do_copies(); /* as on a device, freeing waits */
    if (it->second >= large_piece)
        munmap(p, it->second);
    else
        free(p);
    r.used -= it->second;
    r.allocations.erase(it);
    return cudaSuccess;
}

cudaError_t cudaMallocHost(void **p, size_t bytes)
{
    enter("cudaMallocHost");
    *p = planted("malloc", &r.n_malloc) ? nullptr : malloc(bytes ? bytes : 1);
    if (!*p)
        return remember(cudaErrorMemoryAllocation);
    r.pinned[(const char *)*p] = bytes;
    return cudaSuccess;
}

cudaError_t cudaFreeHost(void *p)
{
    enter("cudaFreeHost");
    do_copies();
    r.pinned.erase((const char *)p);
    free(p);
    return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void *dst, const void *src, size_t bytes, enum cudaMemcpyKind kind,
                            cudaStream_t s)
{
    enter("cudaMemcpyAsync");
    (void)s;
    if (r.sticky != cudaSuccess)
        return r.sticky;
    if (planted("copy", &r.n_copy))
        return break_device();
    if (kind == cudaMemcpyHostToDevice && is_pinned(src)) {
        r.waiting.push_back({dst, src, bytes});
        r.n_enqueued++;
        return cudaSuccess;
    }
    do_copies();
    if (bytes)
        memcpy(dst, src, bytes);
    return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void *p, int value, size_t bytes, cudaStream_t s)
{
    enter("cudaMemsetAsync");
    (void)s;
    do_copies();
    if (r.sticky == cudaSuccess && bytes)
        memset(p, value, bytes);
    return r.sticky;
}

cudaError_t cudaStreamCreate(cudaStream_t *s)
{
    enter("cudaStreamCreate");
    *s = &r.stream;
    return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t s)
{
    enter("cudaStreamDestroy");
    (void)s;
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t s)
{
    enter("cudaStreamSynchronize");
    (void)s;
    do_copies();
    if (r.sticky == cudaSuccess && planted("sync", &r.n_sync))
        return break_device();
    return r.sticky;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned flags)
{
    enter("cudaEventCreateWithFlags");
    (void)flags;
    *e = new simt_event{0};
    return r.sticky;
}

cudaError_t cudaEventDestroy(cudaEvent_t e)
{
    enter("cudaEventDestroy");
    delete e;
    return r.sticky;
}

cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s)
{
    enter("cudaEventRecord");
    (void)s;
    e->copies = r.n_enqueued;
    if (r.sticky == cudaSuccess && planted("event", &r.n_event))
        return break_device();
    return r.sticky;
}

cudaError_t cudaEventSynchronize(cudaEvent_t e)
{
    enter("cudaEventSynchronize");
    do_copies(e->copies);
    if (r.sticky == cudaSuccess && planted("event", &r.n_event))
        return break_device();
    return r.sticky;
}

cudaError_t cudaGetLastError(void)
{
    cudaError_t e = r.last;
    r.last = r.sticky;
    return e;
}

cudaError_t cudaPeekAtLastError(void)
{
    return r.last;
}

cudaError_t cudaFuncSetAttribute(const void *kernel, enum cudaFuncAttribute attr, int value)
{
    (void)attr;
    if (value < 0 || value > most_shared)
        return remember(cudaErrorInvalidValue);
    r.shared[kernel] = (size_t)value;
    return cudaSuccess;
}

cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes *a, const void *kernel)
{
    (void)kernel;
    *a = {0, 90};
    return planted_device("image") ? remember(cudaErrorNoKernelImageForDevice) : cudaSuccess;
}

const char *cudaGetErrorName(cudaError_t e)
{
    return e == cudaSuccess                       ? "cudaSuccess"
           : e == cudaErrorDevicesUnavailable     ? "cudaErrorDevicesUnavailable"
           : e == cudaErrorNoKernelImageForDevice ? "cudaErrorNoKernelImageForDevice"
           : e == cudaErrorMemoryAllocation       ? "cudaErrorMemoryAllocation"
           : e == cudaErrorInsufficientDriver     ? "cudaErrorInsufficientDriver"
           : e == cudaErrorNoDevice               ? "cudaErrorNoDevice"
           : e == cudaErrorIllegalAddress         ? "cudaErrorIllegalAddress"
                                                  : "cudaErrorInvalidValue";
}

const char *cudaGetErrorString(cudaError_t e)
{
    return cudaGetErrorName(e);
}

cudaError_t simt_launch_fault(void)
{
    if (r.sticky != cudaSuccess)
        return remember(r.sticky);
    do_copies();
    return planted("launch", &r.n_launch) ? break_device() : cudaSuccess;
}

size_t simt_shared_limit(const void *kernel)
{
    auto it = r.shared.find(kernel);
    return it == r.shared.end() ? (size_t)default_shared : it->second;
}

} // extern "C"
