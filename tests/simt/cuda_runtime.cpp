/* tests/simt/cuda_runtime.cpp - see cuda_runtime.h. */
#include "cuda_runtime.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <unordered_map>

namespace
{

enum { default_shared = 48 << 10, most_shared = 227 << 10 };
const size_t device_memory = (size_t)8 << 30;

struct Runtime {
    std::unordered_map<void *, size_t> allocations;
    std::unordered_map<const void *, size_t> shared; /* raised limits */
    size_t used = 0;
    long n_malloc = 0, n_launch = 0, n_copy = 0;
    cudaError_t sticky = cudaSuccess, last = cudaSuccess;
};

Runtime r;

bool planted(const char *what, long *count)
{
    const char *fault = getenv("HG_SIMT_FAULT");
    size_t n = strlen(what);
    ++*count;
    return fault && strncmp(fault, what, n) == 0 && fault[n] == ':' &&
           atol(fault + n + 1) == *count;
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

cudaError_t break_device()
{
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
    auto it = r.allocations.find(p);
    if (!p)
        return cudaSuccess;
    if (it == r.allocations.end())
        return remember(cudaErrorInvalidValue);
    r.used -= it->second;
    r.allocations.erase(it);
    free(p);
    return cudaSuccess;
}

cudaError_t cudaMallocHost(void **p, size_t bytes)
{
    *p = planted("malloc", &r.n_malloc) ? nullptr : malloc(bytes ? bytes : 1);
    return *p ? cudaSuccess : remember(cudaErrorMemoryAllocation);
}

cudaError_t cudaFreeHost(void *p)
{
    free(p);
    return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void *dst, const void *src, size_t bytes, enum cudaMemcpyKind kind,
                            cudaStream_t s)
{
    (void)kind;
    (void)s;
    if (r.sticky != cudaSuccess)
        return r.sticky;
    if (planted("copy", &r.n_copy))
        return break_device();
    if (bytes)
        memcpy(dst, src, bytes);
    return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void *p, int value, size_t bytes, cudaStream_t s)
{
    (void)s;
    if (r.sticky == cudaSuccess && bytes)
        memset(p, value, bytes);
    return r.sticky;
}

cudaError_t cudaStreamCreate(cudaStream_t *s)
{
    *s = nullptr;
    return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t s)
{
    (void)s;
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t s)
{
    (void)s;
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

const char *cudaGetErrorName(cudaError_t e)
{
    return e == cudaSuccess                   ? "cudaSuccess"
           : e == cudaErrorMemoryAllocation   ? "cudaErrorMemoryAllocation"
           : e == cudaErrorInsufficientDriver ? "cudaErrorInsufficientDriver"
           : e == cudaErrorNoDevice           ? "cudaErrorNoDevice"
           : e == cudaErrorIllegalAddress     ? "cudaErrorIllegalAddress"
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
    return planted("launch", &r.n_launch) ? break_device() : cudaSuccess;
}

size_t simt_shared_limit(const void *kernel)
{
    auto it = r.shared.find(kernel);
    return it == r.shared.end() ? (size_t)default_shared : it->second;
}

} // extern "C"
