/* server/http/http_exchange.h - what http.c (routing, life of a connection) and http_answer.c (what
 * is sent) share: the daemon's state and one HTTP request with its answer. Nobody else includes it.
 */
#ifndef HG_SERVER_HTTP_EXCHANGE_H
#define HG_SERVER_HTTP_EXCHANGE_H

#include <microhttpd.h>

#include "server/api/answer.h"
#include "server/api/body.h"
#include "server/http/http.h"
#include "server/http/http_gate.h"
#include "server/http/idempotency.h"
#include "server/http/rate.h"
#include "server/http/routes.h"
#include "server/http/trace.h"

struct hg_http_rates {
    struct hg_buckets *requests, *tokens; /* by tenant */
    struct hg_buckets *addresses;
    struct hg_rate failures; /* per_minute 0: not counted */
};

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
    struct hg_http_rates rates;
    struct hg_idempotency *idempotency;
    int max_queue;
    int64_t ping_ns; /* of an idle stream */
    uint64_t nonce;  /* of this process, in the names of answers */
    bool strict, no_page;
    struct hg_gate_policy policy;
    atomic_bool serving; /* before that: no model, no scheduler, no info */
    atomic_bool draining;
    atomic_int n_exchanges;
};

struct exchange;
typedef enum MHD_Result answer_fn(struct exchange *x);

/* From accept to close. */
struct connection {
    struct hg_guarded *guarded;
    struct exchange *exchange; /* that is not over */
};

struct exchange {
    struct hg_http *http;
    struct connection *of;
    struct MHD_Connection *connection;
    struct hg_guarded *guarded;
    const struct hg_route *route;
    char id[HG_ROUTE_ID_CAP]; /* what stands for {id} */
    struct hg_gate_facts facts;
    struct hg_trace trace;
    struct hg_tenant who;
    struct hg_gate_target target;
    bool seen, bad_framing, refused;
    bool preflight; /* a browser asks whether a page may ask */
    bool last;      /* of its connection, which closes behind the answer */
    bool may_stay;  /* refused for want of room: the connection is good for another try */
    struct hg_api_error error;
    struct hg_body *body;    /* of a POST that was not refused, until it is parsed */
    struct hg_answer answer; /* n_requests > 0: accepted */
    const struct hg_answer_form *form;
    size_t at;         /* next event of answer.requests[answer.choice] */
    struct hg_buf out; /* stream bytes not yet taken by MHD start at out.data + sent */
    size_t sent;
    int64_t sent_ns; /* when something was */
    bool end_written;
    double retry_s;       /* after which a refused one may come again; 0: as the scheduler says */
    int64_t reserved;     /* tokens of its key */
    uint64_t idempotency; /* its ticket, 0: none */
    bool replayed;        /* the answer was kept from before */
    bool audited;         /* its line of the audit log has a place */
    char subject[HG_AUDIT_SUBJECT_CAP];
};

/* ---- http_answer.c: each queues the answer, or suspends the connection until there is one ---- */
enum MHD_Result hg_http_answer_health(struct exchange *x);
enum MHD_Result hg_http_answer_models(struct exchange *x);
enum MHD_Result hg_http_answer_model(struct exchange *x);
enum MHD_Result hg_http_answer_card(struct exchange *x);
enum MHD_Result hg_http_answer_openapi(struct exchange *x);
enum MHD_Result hg_http_answer_task(struct exchange *x);
/* Of a task, once resumed. */
enum MHD_Result hg_http_answer_when_ended(struct exchange *x);
enum MHD_Result hg_http_send_error(struct exchange *x); /* x->error */
void hg_http_leave(struct exchange *x);                 /* cancel and let go its requests */
/* http.c: nothing more is needed of the body. */
void hg_http_drop_body(struct exchange *x);
/* http_page.c */
bool hg_http_is_page(const struct hg_http *h, const char *path); /* GET / is there: no key needed */
/* To a page of a listed origin: what it may send. */
enum MHD_Result hg_http_answer_preflight(struct exchange *x);
enum MHD_Result hg_http_answer_page(struct exchange *x);
/* Every answer leaves through it: the last one of a connection says so. */
enum MHD_Result hg_http_queue(struct exchange *x, unsigned http, struct MHD_Response *r);

/* ---- http_rate.c ---- */
enum hg_status hg_http_rate_create(struct hg_http_rates *r, double failures_per_minute,
                                   struct hg_error *err);
void hg_http_rate_free(struct hg_http_rates *r); /* also after a failed create */
bool hg_http_rate_begin(struct exchange *x);     /* false: x->error, x->retry_s */
void hg_http_rate_reserve(struct exchange *x);   /* its requests were accepted */
void hg_http_rate_settle(struct exchange *x);    /* they have ended */
void hg_http_rate_headers(struct exchange *x, struct MHD_Response *r);
/* There was no key, or a wrong one. false: that was too often. */
bool hg_http_rate_failure(struct exchange *x);
/* ---- http_idempotency.c ---- */
/* Before the request is made, while the body is there. False: x->error. `kept` gets the answer if
 * there is one; else the request's answer goes to finish, or its failure to abandon. */
bool hg_http_idempotency_begin(struct exchange *x, bool stream, struct hg_buf *kept);
void hg_http_idempotency_finish(struct exchange *x, const struct hg_buf *answer);
void hg_http_idempotency_abandon(struct exchange *x); /* of no effect after finish */

/* ---- http_audit.c ---- */
/* Of an exchange that asks for work, once its key is known. false: x->error says why not. */
bool hg_http_audit_begin(struct exchange *x);
/* What the body says of whom it is about, when no header did. */
void hg_http_audit_subject(struct exchange *x, const struct hg_ask *ask);
/* At the end of one that has begun. status 0: no answer had begun; delivered: all of it was taken.
 */
void hg_http_audit_end(struct exchange *x, int status, bool delivered);

#endif
