/* server/http/http.h - libmicrohttpd behind five functions: routes, limits, suspend and resume.
 *
 * Its threads parse bodies and prepare requests (hg_model_prepare); the scheduler's thread
 * computes. A connection that waits is suspended and resumed by its request's stream. This is the
 * only folder entry that knows MHD, so that another server could take its place. */
#ifndef HG_SERVER_HTTP_H
#define HG_SERVER_HTTP_H

#include <stdbool.h>
#include <stdint.h>

#include "common/status.h"
#include "model/healthgpt.h"
#include "server/engine/scheduler.h"
#include "server/http/guard.h"
#include "server/http/keys.h"
#include "server/ops/audit.h"

struct hg_http;

struct hg_http_options {
    int socket;                /* bound (hg_listen_bind) */
    bool loopback;             /* bound to loopback: only local names are good in Host */
    const char *allowed_hosts; /* and these: "a.example,b.example"; NULL or "": none */
    bool strict;               /* refuse fields that are not known on OpenAI's routes too */
    int64_t ping_ns;           /* of an idle stream; 0: 15 s */
    int n_threads, max_connections, max_queue;
    int max_connections_per_address; /* 0: as many as there are */
    struct hg_keys *keys;            /* who may ask, GET /health apart; NULL: everybody */
    double auth_failures_per_minute; /* of an address; 0: not counted */
    struct hg_audit *audit;          /* NULL: none is written */
    struct hg_guard_limits limits;   /* n_connections is taken from max_connections */
    int64_t stall_ns; /* a request that has not ended so long after its deadline is told of */
    const char *cors_origins; /* pages of these may ask: server/http/cors.h; NULL or "": none */
    bool no_page;             /* GET / is 404 */
    int n_restarts;           /* of this process by its supervisor, for /health */
};

/* Begins to listen. Takes the socket, also when it fails. m and s NULL: they are not there yet, and
 * every route answers 503 "loading" until hg_http_serve. */
enum hg_status hg_http_start(const struct hg_http_options *o, const struct hg_model *m,
                             struct hg_scheduler *s, struct hg_http **out, struct hg_error *err);
void hg_http_serve(struct hg_http *h, const struct hg_model *m, struct hg_scheduler *s);

/* From now on requests for work are answered 503 at once, on old and new connections. */
void hg_http_drain(struct hg_http *h);
/* After the scheduler has ended every request: refuse connections, wait up to flush_ms for the last
 * answers to leave, close, release. hand_over: whoever else has the socket goes on with it, so
 * connections that were not accepted yet are left to it, not refused. NULL is fine. */
void hg_http_stop(struct hg_http *h, int64_t flush_ms, bool hand_over);

#endif
