/* server/http_exchange.h - what http.c (routing, life of a connection) and http_answer.c (what is
 * sent) share: the daemon's state and one HTTP request with its answer. Nobody else includes it. */
#ifndef HG_SERVER_HTTP_EXCHANGE_H
#define HG_SERVER_HTTP_EXCHANGE_H

#include <microhttpd.h>

#include "server/http.h"
#include "server/http_gate.h"
#include "server/reply.h"

struct hg_http {
    struct MHD_Daemon *daemon;
    const struct hg_model *model;
    struct hg_scheduler *scheduler;
    struct hg_guard *guard;
    int64_t stall_ns;
    struct hg_model_info info;
    struct hg_reply_context reply;
    struct hg_keys *keys;
    struct hg_audit *audit;
    int max_queue;
    bool loopback;
    atomic_bool serving; /* before that: no model, no scheduler, no info */
    atomic_bool draining;
    atomic_int n_exchanges;
};

struct exchange;
typedef enum MHD_Result answer_fn(struct exchange *x);

struct route {
    const char *path, *method;
    answer_fn *answer;
    enum hg_task task;
    bool images_api; /* a plain answer is shaped as in the OpenAI images API */
};

struct exchange {
    struct hg_http *http;
    struct MHD_Connection *connection;
    struct hg_guarded *guarded;
    const struct route *route;
    struct hg_gate_facts facts;
    struct hg_tenant who;
    bool seen, bad_uri, bad_framing, refused, is_form;
    bool may_stay; /* refused for want of room: the connection is good for another try */
    struct hg_api_error error;
    struct hg_buf body;
    struct hg_request *request;
    size_t at;         /* next event of the request */
    struct hg_buf out; /* stream bytes not yet taken by MHD start at out.data + sent */
    size_t sent;
    bool end_written;
    bool audited; /* its line of the audit log has a place */
    char subject[HG_AUDIT_SUBJECT_CAP];
};

/* ---- http_answer.c: each queues the answer, or suspends the connection until there is one ---- */
enum MHD_Result hg_http_answer_health(struct exchange *x);
enum MHD_Result hg_http_answer_models(struct exchange *x);
enum MHD_Result hg_http_answer_task(struct exchange *x);
/* Of a task, once resumed. */
enum MHD_Result hg_http_answer_when_ended(struct exchange *x);
enum MHD_Result hg_http_send_error(struct exchange *x); /* x->error */

/* ---- http_audit.c ---- */
/* Of an exchange that asks for work, once its key is known. false: x->error says why not. */
bool hg_http_audit_begin(struct exchange *x);
/* At the end of one that has begun. status 0: no answer had begun; delivered: all of it was taken.
 */
void hg_http_audit_end(struct exchange *x, int status, bool delivered);

#endif
