/* tests/simt/streams.cpp - streams, events, captures and graphs of tests/simt/cuda_runtime.h. */
#include <algorithm>
#include <cstring>
#include <deque>
#include <memory>

#include "state.h"

struct work {
    std::function<void()> run;
    bool kernel;
};

struct simt_graph {
    std::vector<work> nodes;
};

struct simt_graph_exec {
    std::vector<work> nodes;
};

struct simt_stream {
    std::deque<std::function<void()>> queue;
    uint64_t n_queued = 0, n_run = 0;
    bool capturing = false, spoiled = false;
    std::unique_ptr<simt_graph> graph;
};

struct simt_event {
    cudaStream_t stream = nullptr;
    uint64_t at = 0; /* work of the stream that comes before it */
};

namespace simt
{
namespace
{

/* Work up to number `end`; a broken device drops what is left. */
void run_until(cudaStream_t s, uint64_t end)
{
    while (s->n_run < end) {
        std::function<void()> next = std::move(s->queue.front());
        s->queue.pop_front();
        s->n_run++;
        if (r.sticky == cudaSuccess)
            next();
    }
}

void enqueue(cudaStream_t s, const std::function<void()> &run)
{
    if (!s) {
        run();
        return;
    }
    s->queue.push_back(run);
    s->n_queued++;
}

/* Into the graph of a capture, else onto the stream. */
cudaError_t put(cudaStream_t s, bool kernel, const std::function<void()> &run)
{
    if (!s || !s->capturing) {
        enqueue(s, run);
        return cudaSuccess;
    }
    if (s->spoiled)
        return remember(cudaErrorStreamCaptureInvalidated);
    s->graph->nodes.push_back({run, kernel});
    return cudaSuccess;
}

/* The state that a wait for the device ends in. */
cudaError_t waited()
{
    r.counts.waits++;
    return r.sticky == cudaSuccess ? cudaSuccess : remember(r.sticky);
}

} // namespace

void run_all()
{
    for (cudaStream_t s : r.streams)
        run_until(s, s->n_queued);
}

cudaError_t forbid_in_capture(cudaStream_t s)
{
    cudaError_t e = cudaSuccess;
    for (cudaStream_t other : r.streams)
        if (other->capturing && (!s || s == other)) {
            e = remember(other->spoiled ? cudaErrorStreamCaptureInvalidated
                                        : cudaErrorStreamCaptureUnsupported);
            other->spoiled = true;
        }
    return e;
}

} // namespace simt

using namespace simt;

void simt_enqueue_kernel(cudaStream_t s, const std::function<void()> &run)
{
    if (r.sticky != cudaSuccess) {
        remember(r.sticky);
        return;
    }
    bool captured = s && s->capturing;
    if (!captured && planted("launch", &r.n_launch)) {
        break_device();
        return;
    }
    r.counts.launches += !captured;
    put(s, true, run);
}

cudaError_t simt_enqueue(cudaStream_t s, const std::function<void()> &run)
{
    return r.sticky == cudaSuccess ? put(s, false, run) : r.sticky;
}

extern "C" {

cudaError_t cudaMemcpyAsync(void *dst, const void *src, size_t bytes, enum cudaMemcpyKind kind,
                            cudaStream_t s)
{
    enter("cudaMemcpyAsync");
    if (r.sticky != cudaSuccess)
        return r.sticky;
    if (planted("copy", &r.n_copy))
        return break_device();
    if (bytes == 0)
        return cudaSuccess;
    bool up = kind == cudaMemcpyHostToDevice, down = kind == cudaMemcpyDeviceToHost;
    bool paged = (up && !is_pinned(src, bytes)) || (down && !is_pinned(dst, bytes));
    if (!paged)
        return put(s, false, [=] { memcpy(dst, src, bytes); });
    cudaError_t e = s ? forbid_in_capture(s) : cudaSuccess;
    if (e != cudaSuccess)
        return e;
    if (up) {
        const char *from = static_cast<const char *>(src);
        auto bytes_now = std::make_shared<std::vector<char>>(from, from + bytes);
        enqueue(s, [=] { memcpy(dst, bytes_now->data(), bytes_now->size()); });
        return cudaSuccess;
    }
    if (s)
        run_until(s, s->n_queued);
    if (r.sticky == cudaSuccess)
        memcpy(dst, src, bytes);
    return r.sticky;
}

cudaError_t cudaMemsetAsync(void *p, int value, size_t bytes, cudaStream_t s)
{
    enter("cudaMemsetAsync");
    if (r.sticky != cudaSuccess || bytes == 0)
        return r.sticky;
    return put(s, false, [=] { memset(p, value, bytes); });
}

cudaError_t cudaStreamCreate(cudaStream_t *s)
{
    enter("cudaStreamCreate");
    *s = new simt_stream;
    r.streams.push_back(*s);
    return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t s)
{
    enter("cudaStreamDestroy");
    run_until(s, s->n_queued);
    r.streams.erase(std::find(r.streams.begin(), r.streams.end(), s));
    delete s;
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t s)
{
    enter("cudaStreamSynchronize");
    cudaError_t e = s ? forbid_in_capture(s) : cudaSuccess;
    if (e != cudaSuccess)
        return e;
    if (s)
        run_until(s, s->n_queued);
    if (r.sticky == cudaSuccess && planted("sync", &r.n_sync))
        break_device();
    return waited();
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned flags)
{
    enter("cudaEventCreateWithFlags");
    (void)flags;
    *e = new simt_event;
    return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t e)
{
    enter("cudaEventDestroy");
    delete e;
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s)
{
    enter("cudaEventRecord");
    cudaError_t forbidden = s ? forbid_in_capture(s) : cudaSuccess;
    if (forbidden != cudaSuccess)
        return forbidden;
    e->stream = s;
    e->at = s ? s->n_queued : 0;
    if (r.sticky == cudaSuccess && planted("event", &r.n_event))
        return break_device();
    return r.sticky;
}

cudaError_t cudaEventSynchronize(cudaEvent_t e)
{
    enter("cudaEventSynchronize");
    cudaError_t forbidden = e->stream ? forbid_in_capture(e->stream) : cudaSuccess;
    if (forbidden != cudaSuccess)
        return forbidden;
    if (e->stream)
        run_until(e->stream, e->at);
    if (r.sticky == cudaSuccess && planted("event", &r.n_event))
        break_device();
    return waited();
}

/* ---- graphs ---- */

cudaError_t cudaStreamBeginCapture(cudaStream_t s, enum cudaStreamCaptureMode mode)
{
    enter("cudaStreamBeginCapture");
    (void)mode;
    if (r.sticky != cudaSuccess)
        return remember(r.sticky);
    if (!s || planted("capture", &r.n_capture))
        return remember(cudaErrorStreamCaptureUnsupported);
    if (s->capturing)
        return remember(cudaErrorIllegalState);
    s->capturing = true;
    s->spoiled = false;
    s->graph.reset(new simt_graph);
    return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t *graph)
{
    enter("cudaStreamEndCapture");
    *graph = nullptr;
    if (!s->capturing)
        return remember(cudaErrorIllegalState);
    s->capturing = false;
    if (s->spoiled)
        return remember(cudaErrorStreamCaptureInvalidated);
    *graph = s->graph.release();
    return cudaSuccess;
}

cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t *exec, cudaGraph_t graph,
                                          unsigned long long flags)
{
    enter("cudaGraphInstantiateWithFlags");
    (void)flags;
    *exec = nullptr;
    if (planted("instantiate", &r.n_instantiate))
        return remember(cudaErrorMemoryAllocation);
    *exec = new simt_graph_exec{graph->nodes};
    r.counts.graphs++;
    return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t s)
{
    enter("cudaGraphLaunch");
    if (r.sticky != cudaSuccess)
        return remember(r.sticky);
    cudaError_t e = s ? forbid_in_capture(s) : cudaSuccess;
    if (e != cudaSuccess)
        return e;
    r.counts.graph_launches++;
    for (const work &node : exec->nodes) {
        r.counts.graph_kernels += node.kernel;
        if (node.kernel && planted("launch", &r.n_launch))
            enqueue(s, [] { break_device(); });
        else
            enqueue(s, node.run);
    }
    return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
    enter("cudaGraphDestroy");
    delete graph;
    return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec)
{
    enter("cudaGraphExecDestroy");
    delete exec;
    return cudaSuccess;
}

} // extern "C"
