/* tests/simt/cuda_runtime.cpp - devices, memory, errors: see cuda_runtime.h. Streams and graphs are
 * in streams.cpp. */
#include "cuda_runtime.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>

#include <sys/mman.h>

#include "state.h"

namespace simt
{

static const size_t large_piece = (size_t)64 << 20;

Runtime r;

/* For faults a call counts while the variable names it, so that a test may set it after other work.
 */
bool planted(const char *what, long *count)
{
    static std::map<std::string, long> named;
    const char *fault = getenv("HG_SIMT_FAULT");
    size_t n = strlen(what);
    ++*count;
    return fault && strncmp(fault, what, n) == 0 && fault[n] == ':' &&
           atol(fault + n + 1) == ++named[what];
}

/* First in every function that would call the driver. */
void enter(const char *function)
{
    if (!r.deaf)
        return;
    fprintf(stderr, "simt: %s after the device was lost\n", function);
    abort();
}

cudaError_t remember(cudaError_t e)
{
    if (e != cudaSuccess)
        r.last = e;
    return e;
}

bool is_pinned(const void *p, size_t bytes)
{
    auto at = r.pinned.upper_bound(reinterpret_cast<uintptr_t>(p));
    if (at == r.pinned.begin())
        return false;
    --at;
    return reinterpret_cast<uintptr_t>(p) + bytes <= at->first + at->second;
}

size_t device_memory()
{
    const char *mb = getenv("HG_SIMT_MEMORY");
    return mb ? (size_t)atol(mb) * 1000000 : (size_t)8 << 30;
}

cudaError_t break_device()
{
    const char *fault = getenv("HG_SIMT_FAULT");
    r.deaf = fault && *fault && fault[strlen(fault) - 1] == '!';
    r.sticky = cudaErrorIllegalAddress;
    return remember(r.sticky);
}

} // namespace simt

using namespace simt;

static bool planted_device(const char *what)
{
    const char *fault = getenv("HG_SIMT_FAULT");
    return fault && strcmp(fault, what) == 0;
}

size_t simt_shared_limit(const void *kernel)
{
    auto it = r.shared.find(kernel);
    return it == r.shared.end() ? (size_t)default_shared : it->second;
}

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
    cudaError_t e = forbid_in_capture(nullptr);
    if (e != cudaSuccess)
        return e;
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
    if (!p)
        return cudaSuccess;
    cudaError_t e = forbid_in_capture(nullptr);
    if (e != cudaSuccess)
        return e;
    run_all(); /* it waits for the device */
    auto it = r.allocations.find(p);
    if (it == r.allocations.end())
        return remember(cudaErrorInvalidValue);
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
    *p = nullptr;
    cudaError_t e = forbid_in_capture(nullptr);
    if (e != cudaSuccess)
        return e;
    *p = planted("malloc", &r.n_malloc) ? nullptr : malloc(bytes ? bytes : 1);
    if (!*p)
        return remember(cudaErrorMemoryAllocation);
    r.pinned[reinterpret_cast<uintptr_t>(*p)] = bytes;
    return cudaSuccess;
}

cudaError_t cudaFreeHost(void *p)
{
    enter("cudaFreeHost");
    if (!p)
        return cudaSuccess;
    run_all();
    if (!r.pinned.erase(reinterpret_cast<uintptr_t>(p)))
        return remember(cudaErrorInvalidValue);
    free(p);
    return cudaSuccess;
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
    switch (e) {
    case cudaSuccess:
        return "cudaSuccess";
    case cudaErrorMemoryAllocation:
        return "cudaErrorMemoryAllocation";
    case cudaErrorDevicesUnavailable:
        return "cudaErrorDevicesUnavailable";
    case cudaErrorNoKernelImageForDevice:
        return "cudaErrorNoKernelImageForDevice";
    case cudaErrorInsufficientDriver:
        return "cudaErrorInsufficientDriver";
    case cudaErrorNoDevice:
        return "cudaErrorNoDevice";
    case cudaErrorIllegalState:
        return "cudaErrorIllegalState";
    case cudaErrorIllegalAddress:
        return "cudaErrorIllegalAddress";
    case cudaErrorStreamCaptureUnsupported:
        return "cudaErrorStreamCaptureUnsupported";
    case cudaErrorStreamCaptureInvalidated:
        return "cudaErrorStreamCaptureInvalidated";
    case cudaErrorStreamCaptureUnmatched:
        return "cudaErrorStreamCaptureUnmatched";
    default:
        return "cudaErrorInvalidValue";
    }
}

const char *cudaGetErrorString(cudaError_t e)
{
    return cudaGetErrorName(e);
}

void simt_count(struct simt_counts *out)
{
    *out = r.counts;
    out->allocations = r.n_malloc;
    out->captures = r.n_capture;
    out->copies = r.n_copy;
}

} // extern "C"
