/* tests/simt/cuda_runtime.cpp - devices, memory, errors: see cuda_runtime.h. Streams and graphs are
 * in streams.cpp. */
#include "cuda_runtime.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "state.h"

namespace simt
{

Runtime r;

bool planted(const char *what, long *count)
{
    const char *fault = getenv("HG_SIMT_FAULT");
    size_t n = strlen(what);
    ++*count;
    return fault && strncmp(fault, what, n) == 0 && fault[n] == ':' &&
           atol(fault + n + 1) == *count;
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
             : attr == cudaDevAttrComputeCapabilityMajor ? 9
             : attr == cudaDevAttrComputeCapabilityMinor ? 0
                                                         : most_shared;
    return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total_bytes)
{
    *free_bytes = device_memory - r.used;
    *total_bytes = device_memory;
    return cudaSuccess;
}

cudaError_t cudaMalloc(void **p, size_t bytes)
{
    *p = nullptr;
    cudaError_t e = forbid_in_capture(nullptr);
    if (e != cudaSuccess)
        return e;
    if (planted("malloc", &r.n_malloc) || bytes > device_memory - r.used)
        return remember(cudaErrorMemoryAllocation);
    if (posix_memalign(p, 256, bytes ? bytes : 1) != 0)
        return remember(cudaErrorMemoryAllocation);
    memset(*p, 0xff, bytes);
    r.allocations[*p] = bytes;
    r.used += bytes;
    return cudaSuccess;
}

cudaError_t cudaFree(void *p)
{
    if (!p)
        return cudaSuccess;
    cudaError_t e = forbid_in_capture(nullptr);
    if (e != cudaSuccess)
        return e;
    run_all(); /* it waits for the device */
    auto it = r.allocations.find(p);
    if (it == r.allocations.end())
        return remember(cudaErrorInvalidValue);
    r.used -= it->second;
    r.allocations.erase(it);
    free(p);
    return cudaSuccess;
}

cudaError_t cudaMallocHost(void **p, size_t bytes)
{
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

const char *cudaGetErrorName(cudaError_t e)
{
    switch (e) {
    case cudaSuccess:
        return "cudaSuccess";
    case cudaErrorMemoryAllocation:
        return "cudaErrorMemoryAllocation";
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
