/* tests/simt/state.h - the state behind cuda_runtime.h: one device, its memory, its streams. */
#ifndef HG_TESTS_SIMT_STATE_H
#define HG_TESTS_SIMT_STATE_H

#include <cstddef>
#include <cstdint>
#include <map>
#include <unordered_map>
#include <vector>

#include "runtime.h"

namespace simt
{

enum { default_shared = 48 << 10, most_shared = 227 << 10 };

struct Runtime {
    std::unordered_map<void *, size_t> allocations;
    std::map<uintptr_t, size_t> pinned;
    std::unordered_map<const void *, size_t> shared; /* raised limits */
    std::vector<cudaStream_t> streams;
    size_t used = 0;
    long n_malloc = 0, n_launch = 0, n_copy = 0, n_sync = 0, n_event = 0;
    long n_capture = 0, n_instantiate = 0;
    bool deaf = false; /* a call that enters the driver would never return */
    struct simt_counts counts = {};
    cudaError_t sticky = cudaSuccess, last = cudaSuccess;
};

extern Runtime r;

/* Whether HG_SIMT_FAULT names this call; counts it. */
bool planted(const char *what, long *count);
cudaError_t remember(cudaError_t e);
cudaError_t break_device();
/* First in every function that would call the driver. */
void enter(const char *function);
size_t device_memory();
bool is_pinned(const void *p, size_t bytes);

/* Work of all streams, as far as the device is not broken. */
void run_all();
/* While this stream (nullptr: any) is in capture: spoils the capture and returns CUDA's error. */
cudaError_t forbid_in_capture(cudaStream_t s);

} // namespace simt

#endif
