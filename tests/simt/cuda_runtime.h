/* tests/simt/cuda_runtime.h - the part of the CUDA runtime that kernels/cuda uses, on the host. C
 * and C++.
 *
 * Device memory is host memory filled with 0xff (a large piece is left as it comes, so that it
 * costs nothing until it is used); there are 8 GB of it, or HG_SIMT_MEMORY megabytes.
 *
 * What is put on a stream waits there until the host waits for the stream or an event, frees device
 * memory, or copies to memory that is not pinned: a kernel or a copy that reads what the host has
 * overwritten meanwhile reads the new bytes, as on a device. The null stream runs at once. A copy
 * from memory that is not pinned takes the bytes at the call.
 *
 * A stream in capture records instead. What CUDA forbids there ends the capture with CUDA's error:
 * allocating, freeing, waiting, events (which this stand-in does not record), copies of memory that
 * is not pinned. A graph keeps closures, with the arguments of the launches.
 *
 * Faults can be planted by the environment variable HG_SIMT_FAULT, which is read at every call:
 *   malloc:N launch:N copy:N sync:N event:N capture:N instantiate:N   the N-th such call fails (1 =
 *                         the first). As on a device an error of a launch, a copy or a wait is
 *                         sticky; kernels of a graph count as launches and fail when they run, so
 *                         the error comes with a later call. "sync" counts waits for the stream,
 *                         "event" records and waits of events. With a "!" behind N the driver then
 *                         never returns: the next call that would enter it aborts the process
 *   device driver nodriver  no device; a driver that is too old; none
 *   arch image            a card of compute capability 7.5; no kernels for the card in the library
 *   taken                 the device belongs to somebody else */
#ifndef HG_TESTS_SIMT_CUDA_RUNTIME_H
#define HG_TESTS_SIMT_CUDA_RUNTIME_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum cudaError {
    cudaSuccess = 0,
    cudaErrorInvalidValue = 1,
    cudaErrorMemoryAllocation = 2,
    cudaErrorInsufficientDriver = 35,
    cudaErrorDevicesUnavailable = 46,
    cudaErrorNoDevice = 100,
    cudaErrorInvalidConfiguration = 9,
    cudaErrorNoKernelImageForDevice = 209,
    cudaErrorIllegalState = 401,
    cudaErrorIllegalAddress = 700,
    cudaErrorStreamCaptureUnsupported = 900,
    cudaErrorStreamCaptureInvalidated = 901,
    cudaErrorStreamCaptureUnmatched = 903,
    cudaErrorStreamCaptureWrongThread = 908
} cudaError_t;

enum cudaMemcpyKind {
    cudaMemcpyHostToHost,
    cudaMemcpyHostToDevice,
    cudaMemcpyDeviceToHost,
    cudaMemcpyDeviceToDevice
};
enum cudaDeviceAttr {
    cudaDevAttrMultiProcessorCount = 16,
    cudaDevAttrComputeCapabilityMajor = 75,
    cudaDevAttrComputeCapabilityMinor = 76,
    cudaDevAttrMaxSharedMemoryPerMultiprocessor = 81,
    cudaDevAttrMaxSharedMemoryPerBlockOptin = 97
};
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };

typedef struct simt_stream *cudaStream_t;
typedef struct simt_event *cudaEvent_t;
typedef struct simt_graph *cudaGraph_t;
typedef struct simt_graph_exec *cudaGraphExec_t;

enum { cudaEventDisableTiming = 2 };
enum cudaStreamCaptureMode {
    cudaStreamCaptureModeGlobal,
    cudaStreamCaptureModeThreadLocal,
    cudaStreamCaptureModeRelaxed
};

struct cudaDeviceProp {
    char name[256];
};
struct cudaFuncAttributes {
    size_t sharedSizeBytes;
    int binaryVersion;
};

cudaError_t cudaDriverGetVersion(int *version);
cudaError_t cudaRuntimeGetVersion(int *version);
cudaError_t cudaGetDeviceCount(int *n);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *p, int device);
cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attr, int device);
cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total_bytes);
cudaError_t cudaMalloc(void **p, size_t bytes);
cudaError_t cudaFree(void *p);
cudaError_t cudaMallocHost(void **p, size_t bytes);
cudaError_t cudaFreeHost(void *p);
cudaError_t cudaMemcpyAsync(void *dst, const void *src, size_t bytes, enum cudaMemcpyKind kind,
                            cudaStream_t s);
cudaError_t cudaMemsetAsync(void *p, int value, size_t bytes, cudaStream_t s);
cudaError_t cudaStreamCreate(cudaStream_t *s);
cudaError_t cudaStreamDestroy(cudaStream_t s);
cudaError_t cudaStreamSynchronize(cudaStream_t s);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned flags);
cudaError_t cudaEventDestroy(cudaEvent_t e);
cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s);
cudaError_t cudaEventSynchronize(cudaEvent_t e);
cudaError_t cudaStreamBeginCapture(cudaStream_t s, enum cudaStreamCaptureMode mode);
cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t *graph);
cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t *exec, cudaGraph_t graph,
                                          unsigned long long flags);
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t s);
cudaError_t cudaGraphDestroy(cudaGraph_t graph);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec);
cudaError_t cudaGetLastError(void);
cudaError_t cudaPeekAtLastError(void);
cudaError_t cudaFuncSetAttribute(const void *kernel, enum cudaFuncAttribute attr, int value);
cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes *a, const void *kernel);
const char *cudaGetErrorName(cudaError_t e);
const char *cudaGetErrorString(cudaError_t e);

/* ---- only here ---- */
/* Order of threads and blocks: 0 ascending, 1 descending, 2 shuffled. Initially $HG_SIMT_ORDER,
 * else 0. */
void simt_set_order(int order);
/* Calls since the program began. */
struct simt_counts {
    long allocations;   /* device and pinned */
    long launches;      /* of single kernels, those in capture not counted */
    long graph_kernels; /* kernels that graphs ran */
    long captures, graphs, graph_launches;
    long copies;
    long waits; /* for a stream or an event */
};
void simt_count(struct simt_counts *out);

#ifdef __cplusplus
}
#endif

#endif
