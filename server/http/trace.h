/* server/http/trace.h - the name of an HTTP request, and its line in the log when it has ended.
 *
 * X-Request-Id of 1 to 64 characters of [A-Za-z0-9._-], given once, is taken over; else a name is
 * made ("req-" and 16 hex digits). traceparent (W3C Trace Context) is taken over when it is valid
 * and ignored when not.
 *
 * With --log-json every request that has ended is one line:
 *   time, level, event "request", request_id, trace_id and parent_id (if there were any), route
 *   (null: none of ours), status (499: the client left before an answer), key (its name), model,
 *   plugin, stream, choices, prompt_tokens, cached_tokens, completion_tokens, images and
 *   image_sizes [[w,h],..], drawn [w,h], queue_ms, first_token_ms, total_ms, finish_reason, error
 *   (code)
 * Counts are sums over the choices, times those of the slowest. Never in it: text, pixels, file
 * names, header values but the two above, keys, addresses. */
#ifndef HG_SERVER_TRACE_H
#define HG_SERVER_TRACE_H

#include <stdbool.h>
#include <stdint.h>

#include "server/engine/request.h"

struct hg_trace {
    char request_id[65];
    char trace_id[33], parent_id[17]; /* "": none */
    int64_t start_ns;
};

/* Headers are NULL when absent or given twice. */
void hg_trace_begin(struct hg_trace *t, const char *request_id, const char *traceparent);

bool hg_trace_id_is_good(const char *s);
/* False, and both "": not valid. */
bool hg_trace_parse(const char *traceparent, char trace_id[33], char parent_id[17]);

struct hg_trace_end {
    const char *route, *key, *model, *error; /* NULL or "": none */
    int status;                              /* 0: no answer had begun */
    bool stream;
    struct hg_request *const *requests; /* [n_requests] of its choices; some may not have ended */
    int n_requests;
};
/* Nothing unless the log is JSON. */
void hg_trace_end(const struct hg_trace *t, const struct hg_trace_end *e);

#endif
