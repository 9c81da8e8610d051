/* server/ops/metrics_write.c - the page of a scrape: one pass over the cells. */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "common/clock.h"
#include "common/log.h"
#include "kernels/backend.h"
#include "server/ops/metrics_table.h"
#include "server/process.h"

enum { PAGE_BYTES = 96 << 10, LINE_CAP = 512, LABELS_CAP = 320 };

const char hg_metrics_text_type[] = "text/plain; version=0.0.4; charset=utf-8";
const char hg_metrics_open_type[] = "application/openmetrics-text; version=1.0.0; charset=utf-8";

static struct hg_metrics *const m = &hg_metrics_of_process;

struct page {
    struct hg_buf *out;
    enum hg_status status;
    bool open;
    char vllm[LABELS_CAP]; /* model_name="..",engine="0" */
};

bool hg_metrics_wants_open(const char *accept)
{
    return accept && strcasestr(accept, "application/openmetrics-text") != NULL;
}

static void __attribute__((format(printf, 2, 3))) put(struct page *p, const char *format, ...)
{
    va_list args;
    if (p->status == HG_STATUS_OK)
        p->status = hg_buf_reserve(p->out, LINE_CAP);
    if (p->status != HG_STATUS_OK)
        return;
    va_start(args, format);
    int n = vsnprintf(p->out->data + p->out->len, LINE_CAP, format, args);
    va_end(args);
    if (n < 0 || n >= LINE_CAP)
        p->status = HG_STATUS_INTERNAL;
    else
        p->out->len += (size_t)n;
}

/* The value of a label, its end cut if it is longer than cap. */
static void escape(const char *s, char *out, size_t cap)
{
    size_t n = 0;
    for (; *s && n + 3 < cap; s++) {
        if (*s == '\n' || *s == '"' || *s == '\\')
            out[n++] = '\\';
        out[n++] = *s == '\n' ? 'n' : *s;
    }
    out[n] = '\0';
}

/* ---- families -------------------------------------------------------------------------------- */

/* `name` of a counter has its _total, which OpenMetrics wants without in the family. */
static void family(struct page *p, const char *name, const char *type, const char *help)
{
    static const char total[] = "_total";
    size_t n = strlen(name), cut = sizeof total - 1;
    bool bare =
        p->open && strcmp(type, "counter") == 0 && n > cut && strcmp(name + n - cut, total) == 0;
    int shown = (int)(bare ? n - cut : n);
    put(p, "# HELP %.*s %s\n# TYPE %.*s %s\n", shown, name, help, shown, name, type);
}

static void gauge(struct page *p, const char *name, const char *help, const char *labels, double v)
{
    family(p, name, "gauge", help);
    put(p, *labels ? "%s{%s} %.16g\n" : "%s%s %.16g\n", name, labels, v);
}

static void counter(struct page *p, const char *name, const char *help, const char *labels,
                    uint64_t v)
{
    family(p, name, "counter", help);
    put(p, *labels ? "%s{%s} %llu\n" : "%s%s %llu\n", name, labels, (unsigned long long)v);
}

static uint64_t load(atomic_uint_fast64_t *cell)
{
    return atomic_load_explicit(cell, memory_order_relaxed);
}

static void counter_of(struct page *p, const char *name, const char *label, const char *value,
                       uint64_t v)
{
    put(p, "%s{%s=\"%s\"} %llu\n", name, label, value, (unsigned long long)v);
}

/* "1.0", "0.25": as client libraries write them. */
static void bound_text(double v, char out[32])
{
    snprintf(out, 32, v >= 1 && v == floor(v) ? "%.1f" : "%g", v);
}

/* Its count is the sum of its buckets, so that the two agree in every scrape. */
static void histogram(struct page *p, const char *name, const char *labels, enum hg_histogram_id id,
                      int task)
{
    const struct hg_metrics_bounds *b = &hg_metrics_bounds[hg_metrics_bounds_of[id]];
    struct hg_histogram *h = &m->histograms[id][task];
    uint64_t sum = load(&h->sum), n = 0;
    for (int i = 0; i < b->n; i++) {
        char text[32];
        n += load(&h->n[i]);
        bound_text(b->at[i], text);
        put(p, "%s_bucket{%s,le=\"%s\"} %llu\n", name, labels, text, (unsigned long long)n);
    }
    n += load(&h->n[HG_METRICS_BOUNDS]);
    put(p, "%s_bucket{%s,le=\"+Inf\"} %llu\n%s_sum{%s} %.9g\n%s_count{%s} %llu\n", name, labels,
        (unsigned long long)n, name, labels, (double)sum * b->scale, name, labels,
        (unsigned long long)n);
}

/* ---- vllm:* ---------------------------------------------------------------------------------- */

/* "comprehension,generation": those with n > 0. */
static const char *adapters(const size_t n[HG_TASK_COUNT])
{
    static const char *const names[4] = {"", "comprehension", "generation",
                                         "comprehension,generation"};
    return names[(n[HG_TASK_COMPREHENSION] > 0) + 2 * (n[HG_TASK_GENERATION] > 0)];
}

static size_t both(const size_t n[HG_TASK_COUNT])
{
    return n[HG_TASK_COMPREHENSION] + n[HG_TASK_GENERATION];
}

/* What the Kubernetes inference gateway reads. */
static void put_gateway(struct page *p, const struct hg_metrics_facts *f)
{
    const struct hg_scheduler_glance *g = &f->now;
    double used = g->kv_blocks ? (double)(g->kv_blocks - g->kv_free) / (double)g->kv_blocks : 0;
    gauge(p, "vllm:num_requests_running", "Requests that run.", p->vllm, (double)both(g->running));
    gauge(p, "vllm:num_requests_waiting", "Requests that wait.", p->vllm, (double)both(g->waiting));
    gauge(p, "vllm:kv_cache_usage_perc", "Share of the KV cache in use, 0 to 1.", p->vllm, used);
    family(p, "vllm:cache_config_info", "gauge", "The KV cache.");
    put(p, "vllm:cache_config_info{%s,block_size=\"%d\",num_gpu_blocks=\"%zu\"} 1\n", p->vllm,
        HG_BLOCK_TOKENS, g->kv_blocks);
    family(p, "vllm:lora_requests_info", "gauge",
           "Plug-ins of running and waiting requests; the value is the time of the last change.");
    put(p,
        "vllm:lora_requests_info{max_lora=\"2\",running_lora_adapters=\"%s\","
        "waiting_lora_adapters=\"%s\"} %.3f\n",
        adapters(g->running), adapters(g->waiting), f->adapters_changed_s);
}

static void put_vllm(struct page *p, const struct hg_metrics_facts *f)
{
    static const char *const ends[HG_END_COUNT] = {"stop", "length", "abort", "error"};
    uint64_t prompt = 0, generated = 0;
    for (int t = 0; t < HG_TASK_COUNT; t++) {
        prompt += load(&m->tokens[t][HG_TOKENS_PROMPT]);
        generated += load(&m->tokens[t][HG_TOKENS_TEXT]) + load(&m->tokens[t][HG_TOKENS_IMAGE]);
    }
    put_gateway(p, f);
    counter(p, "vllm:prompt_tokens_total", "Prompt tokens.", p->vllm, prompt);
    counter(p, "vllm:generation_tokens_total", "Generated tokens.", p->vllm, generated);
    counter(p, "vllm:num_preemptions_total", "Sequences that gave way.", p->vllm,
            f->now.n_preempted);
    counter(p, "vllm:prefix_cache_queries_total", "Prompt tokens looked up in the cache.", p->vllm,
            load(&m->asked));
    counter(p, "vllm:prefix_cache_hits_total", "Prompt tokens found in the cache.", p->vllm,
            load(&m->found));
    family(p, "vllm:request_success_total", "counter", "Requests that ended.");
    for (int e = 0; e < HG_END_COUNT; e++) {
        unsigned long long n = load(&m->ended[0][e]), n_too = load(&m->ended[1][e]);
        put(p, "vllm:request_success_total{%s,finished_reason=\"%s\"} %llu\n", p->vllm, ends[e],
            n + n_too);
    }
#define PUT_VLLM(id, name, bounds, help)                                                           \
    family(p, name, "histogram", help);                                                            \
    histogram(p, name, p->vllm, HG_HIST_##id, 0);
    HG_METRICS_VLLM(PUT_VLLM)
#undef PUT_VLLM
}

/* ---- healthgpt_* ----------------------------------------------------------------------------- */

static void put_plugin_histogram(struct page *p, const char *name, const char *help,
                                 enum hg_histogram_id id)
{
    family(p, name, "histogram", help);
    for (int t = 0; t < HG_TASK_COUNT; t++) {
        char label[48];
        snprintf(label, sizeof label, "plugin=\"%s\"", hg_task_name((enum hg_task)t));
        histogram(p, name, label, id, t);
    }
}

static void put_http(struct page *p)
{
    family(p, "healthgpt_requests_total", "counter", "HTTP requests by route and status.");
    for (int r = 0; r <= HG_METRICS_ROUTES; r++) {
        const char *route = r < HG_METRICS_ROUTES ? atomic_load(&m->routes[r]) : "other";
        for (int c = 0; route && c < HG_METRICS_CODES; c++) {
            uint64_t n = load(&m->http[r][c]);
            if (n > 0)
                put(p, "healthgpt_requests_total{route=\"%s\",code=\"%d\"} %llu\n", route,
                    hg_metrics_codes[c], (unsigned long long)n);
        }
    }
    family(p, "healthgpt_rejected_total", "counter", "Requests answered with an error, by code.");
    for (int r = 0; r < HG_METRICS_REASONS; r++)
        counter_of(p, "healthgpt_rejected_total", "reason", hg_metrics_reasons[r],
                   load(&m->rejected[r]));
    counter(p, "healthgpt_client_disconnects_total", "Clients that left while they were served.",
            "", load(&m->cuts[HG_CUT_GONE]));
    counter(p, "healthgpt_log_dropped_total", "Log lines that could not be written.", "",
            hg_log_dropped());
    family(p, "healthgpt_connections_cut_total", "counter", "Connections cut, by reason.");
    for (int c = HG_CUT_GONE + 1; c < HG_CUT_COUNT; c++)
        counter_of(p, "healthgpt_connections_cut_total", "reason", hg_cut_name((enum hg_cut)c),
                   load(&m->cuts[c]));
    gauge(p, "healthgpt_connections", "Open connections of the main port.", "",
          (double)atomic_load(&m->connections));
    counter(p, "healthgpt_audit_lines_total", "Requests in the audit log.", "",
            load(&m->audit_lines));
    counter(p, "healthgpt_audit_lost_total", "Requests that are missing in it.", "",
            load(&m->audit_lost));
    gauge(p, "healthgpt_audit_failing", "1: it cannot be written now.", "",
          atomic_load(&m->audit_failing));
}

static void put_work(struct page *p)
{
    static const char *const kinds[HG_TOKENS_KINDS] = {"prompt", "text", "image"};
    static const char *const mixes[HG_MIX_COUNT] = {"comprehension", "generation", "both"};
    family(p, "healthgpt_tokens_total", "counter", "Tokens by plug-in and kind.");
    for (int t = 0; t < HG_TASK_COUNT; t++)
        for (int k = 0; k < HG_TOKENS_KINDS; k++)
            if (k != (t == HG_TASK_GENERATION ? HG_TOKENS_TEXT : HG_TOKENS_IMAGE))
                put(p, "healthgpt_tokens_total{plugin=\"%s\",kind=\"%s\"} %llu\n",
                    hg_task_name((enum hg_task)t), kinds[k],
                    (unsigned long long)load(&m->tokens[t][k]));
    family(p, "healthgpt_steps_total", "counter", "Engine steps by the plug-ins in them.");
    for (int k = 0; k < HG_MIX_COUNT; k++)
        counter_of(p, "healthgpt_steps_total", "mix", mixes[k], load(&m->steps[k]));
    family(p, "healthgpt_step_sequences_total", "counter", "Sequences of all steps, by plug-in.");
    for (int t = 0; t < HG_TASK_COUNT; t++)
        counter_of(p, "healthgpt_step_sequences_total", "plugin", hg_task_name((enum hg_task)t),
                   load(&m->sequences[t]));
    counter(p, "healthgpt_images_seen_total", "Pictures of requests that began.", "",
            load(&m->images_seen));
    counter(p, "healthgpt_images_drawn_total", "Pictures drawn.", "", load(&m->images_drawn));
    counter(p, "healthgpt_previews_total", "Previews of growing pictures.", "", load(&m->previews));
    counter(p, "healthgpt_cached_tokens_total", "Prompt tokens found in the cache.", "",
            load(&m->found));
#define PUT_OWN(id, name, bounds, help) put_plugin_histogram(p, name, help, HG_HIST_##id);
    HG_METRICS_OWN(PUT_OWN)
#undef PUT_OWN
    family(p, "healthgpt_image_seconds", "histogram", "A picture, from the queue to its end.");
    histogram(p, "healthgpt_image_seconds", "plugin=\"generation\"", HG_HIST_IMAGE,
              HG_TASK_GENERATION);
}

static void put_engine(struct page *p, const struct hg_metrics_facts *f)
{
    const struct hg_scheduler_glance *g = &f->now;
    family(p, "healthgpt_running", "gauge", "Requests that run, by plug-in.");
    for (int t = 0; t < HG_TASK_COUNT; t++)
        counter_of(p, "healthgpt_running", "plugin", hg_task_name((enum hg_task)t), g->running[t]);
    family(p, "healthgpt_waiting", "gauge", "Requests that wait, by plug-in.");
    for (int t = 0; t < HG_TASK_COUNT; t++)
        counter_of(p, "healthgpt_waiting", "plugin", hg_task_name((enum hg_task)t), g->waiting[t]);
    gauge(p, "healthgpt_waiting_tokens", "Tokens of requests that wait.", "",
          (double)g->waiting_tokens);
    gauge(p, "healthgpt_kv_blocks", "Blocks of the KV cache.", "", (double)g->kv_blocks);
    gauge(p, "healthgpt_kv_blocks_free", "Blocks that are free.", "", (double)g->kv_free);
    gauge(p, "healthgpt_kv_blocks_quarantined", "Blocks that wait for the canary.", "",
          g->n_quarantined);
    counter(p, "healthgpt_preemptions_total", "Sequences that gave way.", "", g->n_preempted);
    counter(p, "healthgpt_numeric_faults_total", "Requests that met a value not finite.", "",
            g->n_numeric);
    counter(p, "healthgpt_canaries_total", "Self-tests that were right, beside the first.", "",
            g->n_canaries);
    gauge(p, "healthgpt_loaded", "1 once the model is loaded.", "", f->ready);
    gauge(p, "healthgpt_load_ratio", "Share of the weights that is loaded.", "", f->load_share);
    gauge(p, "healthgpt_model_load_seconds", "Time the model took to load; 0 until then.", "",
          f->load_seconds);
    gauge(p, "healthgpt_restarts", "Starts of this server before this one by its supervisor.", "",
          f->n_restarts);
}

static void put_build(struct page *p, const struct hg_metrics_facts *f)
{
    char model[128], backend[192];
    escape(f->model, model, sizeof model);
    escape(f->backend, backend, sizeof backend);
    family(p, "healthgpt_build_info", "gauge", "What runs here.");
    put(p, "healthgpt_build_info{version=\"%s\",model=\"%s\",backend=\"%s\"} 1\n", f->version,
        model, backend);
}

/* ---- process_* ------------------------------------------------------------------------------- */

static void put_process(struct page *p)
{
    static struct hg_process_facts facts;
    static int64_t read_ns;
    int64_t now = hg_now_ns();
    if (read_ns == 0 || now - read_ns >= 1000000000) { /* thousands of descriptors take a while */
        hg_process_facts(&facts);
        read_ns = now;
    }
    family(p, "process_cpu_seconds_total", "counter", "User and system time.");
    put(p, "process_cpu_seconds_total %.3f\n", facts.cpu_s);
    gauge(p, "process_resident_memory_bytes", "Resident memory.", "", (double)facts.resident);
    gauge(p, "process_virtual_memory_bytes", "Virtual memory.", "", (double)facts.virtual);
    gauge(p, "process_open_fds", "Open descriptors.", "", (double)facts.open_files);
    gauge(p, "process_max_fds", "Most descriptors.", "", (double)facts.max_files);
    gauge(p, "process_start_time_seconds", "Unix time of the start.", "", facts.start_s);
}

enum hg_status hg_metrics_write(const struct hg_metrics_facts *f, bool open, struct hg_buf *out)
{
    struct page p = {.out = out, .open = open};
    char model[128];
    escape(f->model, model, sizeof model);
    snprintf(p.vllm, sizeof p.vllm, "model_name=\"%s\",engine=\"0\"", model);
    HG_TRY(hg_buf_reserve(out, PAGE_BYTES));
    put_vllm(&p, f);
    put_http(&p);
    put_work(&p);
    put_engine(&p, f);
    put_build(&p, f);
    put_process(&p);
    if (open)
        put(&p, "# EOF\n");
    return p.status;
}
