/* kernels/cuda/steps.c - steps in flight: their pinned sides, their events, their results.
 *
 * A step is, in the order of the stream: the plan's copy, the ops (or a graph of them), the copy of
 * the samples, an event. The device side needs no ring: the copy of the next plan comes behind the
 * last op of this step. The pinned sides are written and read by the host, so each of
 * HG_STEPS_AHEAD steps has its own, free again when its event has passed; plans of more than
 * CUDA_SMALL_ROWS tokens or with long histories share one large buffer, because a ring of those
 * would pin hundreds of megabytes at long contexts. Copies and events stay outside of graphs, so a
 * graph serves every place of the ring. */
#include <string.h>

#include "kernels/cuda/cuda.h"

static enum hg_status pin(void *slot, size_t bytes, struct hg_error *err)
{
    void *p = NULL;
    if (cudaMallocHost(&p, bytes) != cudaSuccess) {
        cudaGetLastError(); /* not sticky */
        return hg_fail(err, HG_STATUS_NO_MEMORY, "pinned memory: %zu bytes", bytes);
    }
    memcpy(slot, &p, sizeof p);
    return HG_STATUS_OK;
}

enum hg_status cuda_steps_reserve(struct cuda_backend *c, struct hg_error *err)
{
    struct cuda_steps *s = &c->steps;
    int rows = c->limits.max_rows > 0 ? c->limits.max_rows : 1;
    size_t small = cuda_plan_bytes(c, rows < CUDA_SMALL_ROWS ? rows : CUDA_SMALL_ROWS, 0) +
                   2 * CUDA_SMALL_WORK * sizeof(struct attend_work);
    void *p = NULL;
    s->max_out = rows < CUDA_MAX_OUT ? rows : CUDA_MAX_OUT;
    s->small_bytes = small < c->plan_bytes ? small : c->plan_bytes;
    size_t result_bytes = (size_t)s->max_out * sizeof *s->sampled;
    HG_TRY(cuda_alloc(&c->base, result_bytes, &p, err));
    s->sampled = p;
    HG_TRY(pin(&s->large, c->plan_bytes, err));
    for (int i = 0; i < HG_STEPS_AHEAD; i++) {
        HG_TRY(pin(&s->ring[i].plan, s->small_bytes, err));
        HG_TRY(pin(&s->ring[i].result, result_bytes, err));
        if (cudaEventCreateWithFlags(&s->ring[i].done, cudaEventDisableTiming) != cudaSuccess)
            return hg_fail(err, HG_STATUS_DEVICE, "cuda: no event");
    }
    return HG_STATUS_OK;
}

void cuda_steps_release(struct cuda_backend *c)
{
    struct cuda_steps *s = &c->steps;
    cuda_free(&c->base, s->sampled);
    if (!c->lost && s->large)
        cudaStreamSynchronize(c->stream); /* the device may still read the pinned sides */
    for (int i = 0; i < HG_STEPS_AHEAD && !c->lost; i++) {
        cudaFreeHost(s->ring[i].plan);
        cudaFreeHost(s->ring[i].result);
        if (s->ring[i].done)
            cudaEventDestroy(s->ring[i].done);
    }
    if (!c->lost)
        cudaFreeHost(s->large);
    memset(s, 0, sizeof *s);
}

/* Wait for one step and hand its samples out. */
static enum hg_status finish(struct cuda_backend *c, struct cuda_step *step)
{
    if (!step->pending)
        return HG_STATUS_OK;
    if (c->lost)
        return HG_STATUS_DEVICE;
    HG_TRY(cuda_check(c, cudaEventSynchronize(step->done), "step"));
    step->pending = false;
    if (step->n > 0)
        memcpy(step->to, step->result, (size_t)step->n * sizeof *step->to);
    return HG_STATUS_OK;
}

/* The ids that the plan takes from the step before are there. */
static enum hg_status check_sampled(const struct cuda_backend *c, const struct hg_plan *plan)
{
    for (int t = 0; t < plan->n_tokens && plan->token; t++)
        if (HG_TOKEN_IS_SAMPLED(plan->token[t]) &&
            HG_TOKEN_OUT_ROW(plan->token[t]) >= c->steps.n_sampled)
            return cuda_refuse("plan: token %d is sampled row %d, the step before has %d", t,
                               HG_TOKEN_OUT_ROW(plan->token[t]), c->steps.n_sampled);
    return HG_STATUS_OK;
}

/* Pack into the step's own pinned side or the large one, whose last copy has to be over. */
static enum hg_status pack(struct cuda_backend *c, struct cuda_step *step,
                           const struct hg_plan *plan, bool list)
{
    struct cuda_steps *s = &c->steps;
    if (plan->n_tokens <= CUDA_SMALL_ROWS && plan->n_out <= CUDA_SMALL_ROWS &&
        cuda_plan_pack(c, plan, step->plan, s->small_bytes, list))
        return HG_STATUS_OK;
    struct cuda_step *last = &s->ring[s->large_step % HG_STEPS_AHEAD];
    if (last->number == s->large_step && last->pending)
        HG_TRY(cuda_check(c, cudaEventSynchronize(last->done), "step"));
    if (!cuda_plan_pack(c, plan, s->large, c->plan_bytes, list))
        return cuda_refuse("plan of %d tokens, %d sequences of %d blocks: reserved %zu bytes",
                           plan->n_tokens, plan->n_seqs, plan->max_blocks, c->plan_bytes);
    s->large_step = s->n + 1;
    return HG_STATUS_OK;
}

enum hg_status cuda_step_begin(struct hg_backend *b, const struct hg_plan *plan, bool *replayed)
{
    struct cuda_backend *c = cuda_of(b);
    struct cuda_steps *s = &c->steps;
    if (c->lost)
        return HG_STATUS_DEVICE;
    if (s->open)
        HG_TRY(cuda_step_end(b, NULL));
    struct cuda_step *step = &s->ring[(s->n + 1) % HG_STEPS_AHEAD];
    HG_TRY(finish(c, step));
    HG_TRY(check_sampled(c, plan));
    HG_TRY(pack(c, step, plan, replayed && cuda_graphs_want(c, plan)));
    step->number = ++s->n;
    step->to = plan->result;
    step->n = 0;
    s->n_before = s->n_sampled;
    s->n_sampled = 0;
    s->open = true;
    c->host_plan = plan;
    enum hg_status status = cuda_upload(b, c->plan_device, c->plan_host, c->plan_at);
    if (status == HG_STATUS_OK && replayed)
        status = cuda_graphs_begin(c, plan, replayed);
    if (status != HG_STATUS_OK)
        cuda_step_end(b, NULL);
    return status;
}

enum hg_status cuda_step_end(struct hg_backend *b, int64_t *number)
{
    struct cuda_backend *c = cuda_of(b);
    struct cuda_steps *s = &c->steps;
    struct cuda_step *step = &s->ring[s->n % HG_STEPS_AHEAD];
    bool again = false;
    if (!s->open)
        return c->lost ? HG_STATUS_DEVICE : cuda_refuse("step_end without step_begin");
    s->open = false;
    c->host_plan = NULL;
    c->attention.plan = NULL;
    enum hg_status status = cuda_graphs_end(c, number != NULL, &again);
    if (again)
        s->n_sampled = s->n_before;
    else if (!number || status != HG_STATUS_OK)
        s->n_sampled = 0;
    else if (step->to)
        step->n = s->n_sampled;
    if (status == HG_STATUS_OK && step->n > 0)
        status = cuda_download(b, step->result, s->sampled, (size_t)step->n * sizeof *s->sampled);
    if (status == HG_STATUS_OK)
        status = c->lost ? HG_STATUS_DEVICE
                         : cuda_check(c, cudaEventRecord(step->done, c->stream), "step");
    step->pending = status == HG_STATUS_OK;
    if (number)
        *number = again ? 0 : step->number;
    return c->lost ? HG_STATUS_DEVICE : status;
}

enum hg_status cuda_step_wait(struct hg_backend *b, int64_t number)
{
    struct cuda_backend *c = cuda_of(b);
    const struct cuda_steps *s = &c->steps;
    if (c->lost)
        return HG_STATUS_DEVICE;
    if (number < 1 || number > s->n)
        return cuda_refuse("wait for step %lld of %lld", (long long)number, (long long)s->n);
    struct cuda_step *step = &c->steps.ring[number % HG_STEPS_AHEAD];
    return step->number == number ? finish(c, step) : HG_STATUS_OK;
}
