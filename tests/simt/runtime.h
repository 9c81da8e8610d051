/* tests/simt/runtime.h - what simt.cpp needs of the runtime in cuda_runtime.cpp. */
#ifndef HG_TESTS_SIMT_RUNTIME_H
#define HG_TESTS_SIMT_RUNTIME_H

#include <cstddef>
#include <functional>

#include "cuda_runtime.h"

/* Put a kernel on a stream, or into the graph that is being captured from it. */
void simt_enqueue_kernel(cudaStream_t s, const std::function<void()> &run);
/* The same for work that is no kernel. */
cudaError_t simt_enqueue(cudaStream_t s, const std::function<void()> &run);
/* The shared memory that a kernel may have. */
size_t simt_shared_limit(const void *kernel);

#endif
