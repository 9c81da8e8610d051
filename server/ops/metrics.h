/* server/ops/metrics.h - what the process counts, and the page that a scrape reads.
 *
 * One set of counters for the process. Every hook is a few atomic additions: no lock, no
 * allocation, any thread. The page has two families of names: vllm:* (labels model_name and
 * engine="0", vLLM's buckets), which dashboards, KEDA and the Kubernetes inference gateway know,
 * and healthgpt_*, with what those lack. All series are there from the first moment on, while the
 * model loads too; a gateway that misses one gives every scrape up. docs/operating.md lists them.
 *
 * Formats: Prometheus text 0.0.4 and OpenMetrics 1.0.0, whose counters' families have no _total. */
#ifndef HG_SERVER_METRICS_H
#define HG_SERVER_METRICS_H

#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/status.h"
#include "server/engine/request.h"
#include "server/engine/scheduler.h"
#include "server/http/guard.h"

/* ---- hooks ----------------------------------------------------------------------------------- */

/* An HTTP exchange has ended. route: a string that stays, NULL for none of ours; status 0: no
 * answer had begun. code: of the error object, or "". */
void hg_metrics_http(const char *route, int status, const char *code);
void hg_metrics_request_ended(const struct hg_request *r); /* its result is complete */
/* A token was handed out, since_ns after the one before it; 0: it is the first. */
void hg_metrics_token(enum hg_task task, int64_t since_ns);
void hg_metrics_step(const int n_sequences[HG_TASK_COUNT], int64_t n_tokens);
void hg_metrics_preview(void);
void hg_metrics_cut(enum hg_cut why);
void hg_metrics_connection(int change);
void hg_metrics_audit(int64_t written, int64_t lost, bool failing); /* changes of the first two */

/* ---- the page -------------------------------------------------------------------------------- */

/* What is not counted here. Zeroed (but for the strings): the model is not loaded yet. */
struct hg_metrics_facts {
    const char *model, *backend, *version; /* "" while not known */
    bool ready;
    double load_share, load_seconds; /* 0..1; the latter 0 until it is loaded */
    int n_restarts, max_running;
    double adapters_changed_s; /* Unix time of the last change of who runs or waits */
    struct hg_scheduler_glance now;
};

/* The types of the two pages. */
extern const char hg_metrics_text_type[], hg_metrics_open_type[];
/* Whether an Accept header (NULL: none) wants OpenMetrics. */
bool hg_metrics_wants_open(const char *accept);

/* Appends the page. NO_MEMORY only. One thread at a time (the process's own figures are read from
 * /proc once a second and kept). */
enum hg_status hg_metrics_write(const struct hg_metrics_facts *f, bool open, struct hg_buf *out);

#endif
