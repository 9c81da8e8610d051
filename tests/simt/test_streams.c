/* Streams and graphs of the emulation: what is put on a stream waits; what CUDA forbids in a
 * capture ends it with CUDA's error; a replay runs what was captured, on the bytes of now. */
#include "tests/simt/cases.h"
#include "tests/simt/cuda_runtime.h"
#include "tests/test.h"

enum { N = CASE_THREADS, BYTES = N * sizeof(int32_t) };

struct bed {
    cudaStream_t s;
    int32_t *dev, *pinned;
};

static void open_bed(struct bed *b)
{
    assert_int_equal(cudaStreamCreate(&b->s), cudaSuccess);
    assert_int_equal(cudaMalloc((void **)&b->dev, BYTES), cudaSuccess);
    assert_int_equal(cudaMallocHost((void **)&b->pinned, BYTES), cudaSuccess);
    memset(b->pinned, 0, BYTES);
}

static void close_bed(struct bed *b)
{
    assert_int_equal(cudaFree(b->dev), cudaSuccess);
    assert_int_equal(cudaFreeHost(b->pinned), cudaSuccess);
    assert_int_equal(cudaStreamDestroy(b->s), cudaSuccess);
    assert_int_equal(cudaGetLastError(), cudaSuccess);
}

static void fill(int32_t *x, int32_t v)
{
    for (int i = 0; i < N; i++)
        x[i] = v;
}

static cudaError_t up(struct bed *b, const int32_t *from)
{
    return cudaMemcpyAsync(b->dev, from, BYTES, cudaMemcpyHostToDevice, b->s);
}

static cudaError_t down(struct bed *b, int32_t *to)
{
    return cudaMemcpyAsync(to, b->dev, BYTES, cudaMemcpyDeviceToHost, b->s);
}

/* A pinned source is read when the copy runs, another when it is put on the stream. */
static void work_waits_on_its_stream(void **state)
{
    (void)state;
    struct bed b;
    int32_t paged[N], got[N];
    open_bed(&b);
    fill(b.pinned, 1);
    assert_int_equal(up(&b, b.pinned), cudaSuccess);
    case_increment(b.s, b.dev);
    fill(b.pinned, 10); /* the bug that a ring of buffers avoids */
    assert_int_equal(down(&b, got), cudaSuccess);
    assert_int_equal(got[5], 11);
    fill(paged, 20);
    assert_int_equal(up(&b, paged), cudaSuccess);
    fill(paged, 30);
    assert_int_equal(down(&b, got), cudaSuccess);
    assert_int_equal(got[N - 1], 20);
    case_increment(b.s, b.dev);
    assert_int_equal(down(&b, b.pinned), cudaSuccess);
    assert_int_equal(b.pinned[7], 10); /* has not run */
    assert_int_equal(cudaStreamSynchronize(b.s), cudaSuccess);
    assert_int_equal(b.pinned[7], 21);
    close_bed(&b);
}

static void an_event_waits_for_what_came_before_it(void **state)
{
    (void)state;
    struct bed b;
    cudaEvent_t first, second;
    open_bed(&b);
    assert_int_equal(cudaEventCreateWithFlags(&first, cudaEventDisableTiming), cudaSuccess);
    assert_int_equal(cudaEventCreateWithFlags(&second, cudaEventDisableTiming), cudaSuccess);
    assert_int_equal(cudaMemsetAsync(b.dev, 0, BYTES, b.s), cudaSuccess);
    case_increment(b.s, b.dev);
    assert_int_equal(cudaEventRecord(first, b.s), cudaSuccess);
    case_increment(b.s, b.dev);
    assert_int_equal(cudaEventRecord(second, b.s), cudaSuccess);
    assert_int_equal(cudaEventSynchronize(first), cudaSuccess);
    assert_int_equal(b.dev[3], 1); /* device memory is the host's here */
    assert_int_equal(cudaEventSynchronize(second), cudaSuccess);
    assert_int_equal(b.dev[3], 2);
    cudaEventDestroy(first);
    cudaEventDestroy(second);
    close_bed(&b);
}

static void a_graph_runs_what_was_captured_as_often_as_it_is_launched(void **state)
{
    (void)state;
    struct bed b;
    cudaGraph_t graph = NULL;
    cudaGraphExec_t exec = NULL;
    struct simt_counts before, after;
    open_bed(&b);
    fill(b.pinned, 4);
    simt_count(&before);
    assert_int_equal(cudaStreamBeginCapture(b.s, cudaStreamCaptureModeThreadLocal), cudaSuccess);
    assert_int_equal(up(&b, b.pinned), cudaSuccess);
    case_increment(b.s, b.dev);
    case_increment(b.s, b.dev);
    assert_int_equal(cudaStreamEndCapture(b.s, &graph), cudaSuccess);
    assert_int_equal(cudaGraphInstantiateWithFlags(&exec, graph, 0), cudaSuccess);
    assert_int_equal(cudaGraphDestroy(graph), cudaSuccess);
    assert_int_equal(b.dev[0], -1); /* nothing has run: device memory is as it was allocated */
    for (int i = 0; i < 3; i++) {
        fill(b.pinned, 100 * i);
        assert_int_equal(cudaGraphLaunch(exec, b.s), cudaSuccess);
        assert_int_equal(cudaStreamSynchronize(b.s), cudaSuccess);
        assert_int_equal(b.dev[N - 1], 100 * i + 2);
    }
    simt_count(&after);
    assert_int_equal(after.launches, before.launches);
    assert_int_equal(after.captures - before.captures, 1);
    assert_int_equal(after.graphs - before.graphs, 1);
    assert_int_equal(after.graph_launches - before.graph_launches, 3);
    assert_int_equal(after.graph_kernels - before.graph_kernels, 6);
    assert_int_equal(cudaGraphExecDestroy(exec), cudaSuccess);
    close_bed(&b);
}

/* ---- what a capture does not survive --------------------------------------------------------- */

static cudaError_t allocate(struct bed *b)
{
    void *p = b;
    cudaError_t e = cudaMalloc(&p, 8);
    assert_null(p);
    return e;
}

static cudaError_t pin(struct bed *b)
{
    void *p = b;
    return cudaMallocHost(&p, 8);
}

static cudaError_t release(struct bed *b)
{
    return cudaFree(b->dev);
}

static cudaError_t wait_for(struct bed *b)
{
    return cudaStreamSynchronize(b->s);
}

static cudaError_t upload_paged(struct bed *b)
{
    static int32_t paged[N];
    return up(b, paged);
}

static cudaError_t download_paged(struct bed *b)
{
    static int32_t paged[N];
    return down(b, paged);
}

static cudaError_t past_the_pinned(struct bed *b)
{
    return cudaMemcpyAsync(b->dev, b->pinned + 1, BYTES, cudaMemcpyHostToDevice, b->s);
}

static void a_forbidden_call_ends_the_capture(void **state)
{
    (void)state;
    static cudaError_t (*const calls[])(struct bed *) = {
        allocate, pin, release, wait_for, upload_paged, download_paged, past_the_pinned};
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        struct bed b;
        cudaGraph_t graph = NULL;
        open_bed(&b);
        assert_int_equal(cudaStreamBeginCapture(b.s, cudaStreamCaptureModeThreadLocal),
                         cudaSuccess);
        case_increment(b.s, b.dev);
        assert_int_equal(cudaGetLastError(), cudaSuccess);
        assert_int_equal(calls[i](&b), cudaErrorStreamCaptureUnsupported);
        assert_int_equal(cudaGetLastError(), cudaErrorStreamCaptureUnsupported);
        case_increment(b.s, b.dev); /* too late */
        assert_int_equal(cudaGetLastError(), cudaErrorStreamCaptureInvalidated);
        assert_int_equal(cudaStreamEndCapture(b.s, &graph), cudaErrorStreamCaptureInvalidated);
        assert_null(graph);
        assert_int_equal(cudaGetLastError(), cudaErrorStreamCaptureInvalidated);
        fill(b.pinned, 1); /* the stream is usable again, and nothing of the capture has run */
        assert_int_equal(up(&b, b.pinned), cudaSuccess);
        case_increment(b.s, b.dev);
        assert_int_equal(cudaStreamSynchronize(b.s), cudaSuccess);
        assert_int_equal(b.dev[0], 2);
        close_bed(&b);
    }
}

static void captures_do_not_nest(void **state)
{
    (void)state;
    struct bed b;
    cudaGraph_t graph = NULL;
    open_bed(&b);
    assert_int_equal(cudaStreamEndCapture(b.s, &graph), cudaErrorIllegalState);
    assert_int_equal(cudaStreamBeginCapture(b.s, cudaStreamCaptureModeGlobal), cudaSuccess);
    assert_int_equal(cudaStreamBeginCapture(b.s, cudaStreamCaptureModeGlobal),
                     cudaErrorIllegalState);
    assert_int_equal(cudaStreamEndCapture(b.s, &graph), cudaSuccess);
    assert_int_equal(cudaGraphDestroy(graph), cudaSuccess);
    assert_int_equal(cudaGetLastError(), cudaErrorIllegalState);
    close_bed(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(work_waits_on_its_stream),
        cmocka_unit_test(an_event_waits_for_what_came_before_it),
        cmocka_unit_test(a_graph_runs_what_was_captured_as_often_as_it_is_launched),
        cmocka_unit_test(a_forbidden_call_ends_the_capture),
        cmocka_unit_test(captures_do_not_nest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
