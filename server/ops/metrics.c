/* server/ops/metrics.c - the hooks: from an event to atomic additions. */
#include "server/ops/metrics.h"

#include <string.h>

#include "server/ops/metrics_table.h"

struct hg_metrics hg_metrics_of_process;

static struct hg_metrics *const m = &hg_metrics_of_process;

/* vllm/v1/metrics/loggers.py; the last three as OpenTelemetry advises for generative models. */
const struct hg_metrics_bounds hg_metrics_bounds[HG_BOUNDS_COUNT] = {
    [HG_BOUNDS_FIRST] = {22, 1e-9, {0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1,
                                    0.25,  0.5,   0.75, 1,    2.5,  5,    7.5,  10,
                                    20,    40,    80,   160,  640,  2560}},
    [HG_BOUNDS_TOKEN] = {19,
                         1e-9,
                         {0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5,
                          7.5, 10, 20, 40, 80}},
    [HG_BOUNDS_REQUEST] = {21, 1e-9, {0.3, 0.5, 0.8, 1,  1.5, 2,   2.5, 5,   10,   15,  20,
                                      30,  40,  50,  60, 120, 240, 480, 960, 1920, 7680}},
    [HG_BOUNDS_TOKENS] =
        {15, 1, {1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000}},
    [HG_BOUNDS_STEP] = {13, 1, {1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384}},
    [HG_BOUNDS_OWN_FIRST] = {16,
                             1e-9,
                             {0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1,
                              2.5, 5, 7.5, 10}},
    [HG_BOUNDS_OWN_TOKEN] =
        {13, 1e-9, {0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5}},
    [HG_BOUNDS_OWN_REQUEST] = {14,
                               1e-9,
                               {0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24,
                                20.48, 40.96, 81.92}},
};

const enum hg_bounds hg_metrics_bounds_of[HG_HIST_COUNT] = {
#define BOUNDS_OF(id, name, bounds, help) [HG_HIST_##id] = HG_BOUNDS_##bounds,
    HG_METRICS_VLLM(BOUNDS_OF) HG_METRICS_OWN(BOUNDS_OF)[HG_HIST_IMAGE] = HG_BOUNDS_OWN_REQUEST};

const int hg_metrics_codes[HG_METRICS_CODES] = {200, 204, 304, 400, 401, 403, 404, 405, 406,
                                                408, 409, 411, 413, 415, 417, 422, 429, 431,
                                                499, 500, 501, 502, 503, 504, 505, 0};

const char *const hg_metrics_reasons[HG_METRICS_REASONS] = {
    "queue_full",        "rate_limit_exceeded",
    "shutting_down",     "loading",
    "deadline_exceeded", "numeric_fault",
    "out_of_memory",     "device_lost",
    "engine_hung",       "engine_broken",
    "canary_failed",     "missing_api_key",
    "invalid_api_key",   "not_allowed",
    "host_not_allowed",  "bad_http_request",
    "body_too_large",    "unsupported_media_type",
    "audit_unavailable", "too_many_auth_failures",
    "client_closed",     "other"};

static void add(atomic_uint_fast64_t *cell, uint64_t n)
{
    atomic_fetch_add_explicit(cell, n, memory_order_relaxed);
}

static void observe(enum hg_histogram_id id, int task, int64_t value)
{
    const struct hg_metrics_bounds *b = &hg_metrics_bounds[hg_metrics_bounds_of[id]];
    struct hg_histogram *h = &m->histograms[id][task];
    int i = 0;
    value = value > 0 ? value : 0;
    while (i < b->n && (double)value * b->scale > b->at[i])
        i++;
    add(&h->n[i < b->n ? i : HG_METRICS_BOUNDS], 1);
    add(&h->sum, (uint64_t)value);
}

/* ---- HTTP ------------------------------------------------------------------------------------ */

/* Its place; whoever comes first with a route takes one. */
static int place_of(const char *route)
{
    for (int i = 0; route && i < HG_METRICS_ROUTES; i++) {
        const char *there = atomic_load(&m->routes[i]);
        if (!there && atomic_compare_exchange_strong(&m->routes[i], &there, route))
            return i;
        if (strcmp(there, route) == 0)
            return i;
    }
    return HG_METRICS_ROUTES;
}

void hg_metrics_http(const char *route, int status, const char *code)
{
    int c = 0, r = 0;
    while (c < HG_METRICS_CODES - 1 && hg_metrics_codes[c] != status)
        c++;
    add(&m->http[place_of(route)][c], 1);
    if (status < 400)
        return;
    while (r < HG_METRICS_REASONS - 1 && strcmp(hg_metrics_reasons[r], code) != 0)
        r++;
    add(&m->rejected[r], 1);
}

void hg_metrics_cut(enum hg_cut why)
{
    add(&m->cuts[why], 1);
}

void hg_metrics_audit(int64_t written, int64_t lost, bool failing)
{
    add(&m->audit_lines, (uint64_t)written);
    add(&m->audit_lost, (uint64_t)lost);
    atomic_store_explicit(&m->audit_failing, failing, memory_order_relaxed);
}

void hg_metrics_connection(int change)
{
    atomic_fetch_add_explicit(&m->connections, change, memory_order_relaxed);
}

/* ---- engine ---------------------------------------------------------------------------------- */

void hg_metrics_token(enum hg_task task, int64_t since_ns)
{
    add(&m->tokens[task][task == HG_TASK_GENERATION ? HG_TOKENS_IMAGE : HG_TOKENS_TEXT], 1);
    if (since_ns <= 0)
        return;
    observe(HG_HIST_TOKEN, 0, since_ns);
    observe(HG_HIST_OWN_TOKEN, (int)task, since_ns);
}

void hg_metrics_step(const int n_sequences[HG_TASK_COUNT], int64_t n_tokens)
{
    int asks = n_sequences[HG_TASK_COMPREHENSION], draws = n_sequences[HG_TASK_GENERATION];
    add(&m->steps[asks && draws ? HG_MIX_BOTH
                  : draws       ? HG_MIX_GENERATION
                                : HG_MIX_COMPREHENSION],
        1);
    add(&m->sequences[HG_TASK_COMPREHENSION], (uint64_t)asks);
    add(&m->sequences[HG_TASK_GENERATION], (uint64_t)draws);
    observe(HG_HIST_STEP, 0, n_tokens);
}

void hg_metrics_preview(void)
{
    add(&m->previews, 1);
}

static enum hg_end end_of(const struct hg_result *u)
{
    if (u->error.status == HG_STATUS_CANCELLED)
        return HG_END_ABORT;
    if (u->error.status != HG_STATUS_OK)
        return HG_END_ERROR;
    return u->finish == HG_FINISH_LENGTH ? HG_END_LENGTH : HG_END_STOP;
}

static int64_t ns_of(double ms)
{
    return (int64_t)(ms * 1e6);
}

/* What a request took that had begun. */
static void observe_times(const struct hg_request *r)
{
    const struct hg_result *u = &r->result;
    int task = (int)r->task;
    int64_t queue = ns_of(u->queue_ms), first = ns_of(u->first_token_ms), all = ns_of(u->total_ms);
    observe(HG_HIST_QUEUE, 0, queue);
    observe(HG_HIST_OWN_QUEUE, task, queue);
    observe(HG_HIST_INFERENCE, 0, all - queue);
    if (first > 0) {
        observe(HG_HIST_FIRST, 0, first);
        observe(HG_HIST_OWN_FIRST, task, first);
        observe(HG_HIST_PREFILL, 0, first - queue);
        observe(HG_HIST_DECODE, 0, all - first);
    }
    observe(HG_HIST_PROMPT, 0, u->n_prompt);
    observe(HG_HIST_GENERATED, 0, u->n_generated);
    observe(HG_HIST_LIMIT, 0, r->max_tokens);
    if (u->image.rgb) {
        observe(HG_HIST_IMAGE, task, all - queue);
        add(&m->images_drawn, 1);
    }
}

void hg_metrics_request_ended(const struct hg_request *r)
{
    const struct hg_result *u = &r->result;
    add(&m->ended[r->task][end_of(u)], 1);
    observe(HG_HIST_TOTAL, 0, ns_of(u->total_ms));
    observe(HG_HIST_OWN_TOTAL, (int)r->task, ns_of(u->total_ms));
    if (u->n_prompt == 0)
        return; /* it never left the queue */
    observe_times(r);
    add(&m->tokens[r->task][HG_TOKENS_PROMPT], (uint64_t)u->n_prompt);
    add(&m->asked, (uint64_t)u->n_prompt);
    add(&m->found, (uint64_t)u->n_found);
    add(&m->images_seen, (uint64_t)r->n_images);
}
