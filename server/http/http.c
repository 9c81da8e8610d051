/* server/http/http.c - from a connection to a submitted request, and from its events back.
 *
 * One struct exchange per HTTP request, made in the URI callback and released in the completed
 * callback. MHD calls on_request first with the headers, then with pieces of the body, then with
 * nothing left; a waiting exchange is suspended and called once more when it is resumed. */
#include "server/http/http_exchange.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/fault.h"
#include "common/log.h"
#include "server/http/mhd_log.h"
#include "server/notice.h"
#include "server/ops/metrics.h"

/* libmicrohttpd hands over no two chunks of a chunked body in one piece. */
enum { CONNECTION_MEMORY = 16 << 10, MAX_CHUNKS = 65536 };
static const int64_t ping_default_ns = 15000000000; /* nginx cuts what is silent for 60 s */

/* ---- routing --------------------------------------------------------------------------------- */

static answer_fn *const answers[HG_ROUTE_ID_COUNT] = {
    [HG_ROUTE_PAGE] = hg_http_answer_page,       [HG_ROUTE_HEALTH] = hg_http_answer_health,
    [HG_ROUTE_OPENAPI] = hg_http_answer_openapi, [HG_ROUTE_MODELS] = hg_http_answer_models,
    [HG_ROUTE_MODEL] = hg_http_answer_model,     [HG_ROUTE_CARD] = hg_http_answer_card,
    [HG_ROUTE_WORK] = hg_http_answer_task,
};

static bool method_fits(const struct hg_route *r, const char *method)
{
    return strcmp(r->method, method) == 0 ||
           (strcmp(r->method, "GET") == 0 && strcmp(method, "HEAD") == 0);
}

/* "application/json", with or without parameters. */
static bool type_is(const char *value, const char *type)
{
    size_t n = strlen(type);
    return value && strncasecmp(value, type, n) == 0 &&
           (value[n] == '\0' || value[n] == ';' || value[n] == ' ');
}

static bool refuse(struct exchange *x, int http, const char *code, const char *text)
{
    hg_api_error_set(&x->error, http, code, text);
    return false;
}

/* Whose key it is. Without one nothing is told, not even which routes there are. */
static bool knows_key(struct exchange *x, const char *path, const char *method)
{
    bool reads = strcmp(method, "GET") == 0 || strcmp(method, "HEAD") == 0;
    if (!x->http->keys ||
        (reads && (strcmp(path, "/health") == 0 || hg_http_is_page(x->http, path))))
        return true;
    switch (hg_keys_check(x->http->keys, x->facts.authorization, reads, &x->who)) {
    case HG_KEYS_OK:
        return true;
    case HG_KEYS_MISSING:
        return hg_http_rate_failure(x) &&
               refuse(x, 401, "missing_api_key", "expected Authorization: Bearer <API key>");
    case HG_KEYS_FORBIDDEN:
        return refuse(x, 403, "not_allowed", "this API key is for GET requests only");
    case HG_KEYS_UNKNOWN:
        break;
    }
    return hg_http_rate_failure(x) &&
           refuse(x, 401, "invalid_api_key", "this API key is not known here");
}

/* No room: said before the body is looked at. */
static bool has_room(struct exchange *x)
{
    struct hg_error err = {0};
    if (hg_scheduler_has_room(x->http->scheduler, &x->who, x->route->task, &err) == HG_STATUS_OK)
        return true;
    hg_api_error_of(&x->error, &err);
    x->may_stay = true;
    return false;
}

void hg_http_drop_body(struct exchange *x)
{
    hg_body_deinit(x->body);
    free(x->body);
    x->body = NULL;
}

static bool begin_body(struct exchange *x)
{
    struct hg_error err = {.status = HG_STATUS_NO_MEMORY};
    x->body = malloc(sizeof *x->body);
    if (!x->body)
        hg_api_error_of(&x->error, &err);
    if (x->body && hg_body_begin(x->body, x->facts.content_type, &x->error))
        return true;
    hg_http_drop_body(x);
    return false;
}

/* Versions of libmicrohttpd before 1.0 let a bare LF pass in chunk lines, where another reader may
 * see one line: nothing that stands behind a chunked body is read as a request. */
static bool is_last(const struct exchange *x)
{
    return hg_guard_request(x->guarded) || x->facts.chunked;
}

/* Everything that can be decided from the headers; false: x->error says why not. */
static bool look_at_headers(struct exchange *x, const char *path, const char *method,
                            const char *version)
{
    x->bad_framing = !hg_http_gate(x->connection, method, version, &x->target, &x->http->policy,
                                   &x->facts, &x->error);
    hg_trace_begin(&x->trace, x->facts.request_id, x->facts.traceparent);
    if (x->bad_framing)
        return false;
    const struct hg_route *route = hg_route_find(path, x->id);
    x->preflight = route && x->facts.origin && x->facts.preflight && strcmp(method, "OPTIONS") == 0;
    x->route = x->preflight ? route : NULL;
    if (x->preflight)
        return true;
    if (!knows_key(x, path, method))
        return false;
    if (!atomic_load(&x->http->serving) && !hg_http_is_page(x->http, path))
        return refuse(x, 503, "loading", "the model is still being loaded: try again later");
    x->route = route;
    if (!x->route || (x->route->id == HG_ROUTE_PAGE && x->http->no_page))
        return refuse(x, 404, "unknown_route", "no such route: see GET /openapi.json");
    if (!method_fits(x->route, method))
        return refuse(x, 405, "method_not_allowed",
                      strcmp(x->route->method, "GET") == 0 ? "this route takes GET and HEAD only"
                                                           : "this route takes POST only");
    if (strcmp(x->route->method, "POST") != 0)
        return true;
    if (!hg_http_audit_begin(x))
        return false;
    if (!type_is(x->facts.content_type, "multipart/form-data") &&
        !type_is(x->facts.content_type, "application/json"))
        return refuse(x, 415, "unsupported_media_type",
                      "expected Content-Type application/json or multipart/form-data");
    if (x->facts.encoded)
        return refuse(x, 415, "unsupported_encoding", "expected a body without Content-Encoding");
    if (x->facts.content_length > HG_API_MAX_BODY)
        return refuse(x, 413, "body_too_large", "the body is larger than 24 MiB");
    const char *trouble = hg_scheduler_trouble(x->http->scheduler);
    if (trouble)
        return refuse(x, 503, trouble, "the engine has failed; the server has to start again");
    if (atomic_load(&x->http->draining))
        return refuse(x, 503, "shutting_down", "the server is shutting down");
    return has_room(x) && hg_http_rate_begin(x) && begin_body(x);
}

/* A refused body is read and dropped before the answer, because a client that is still sending may
 * never see an answer that comes with a reset; unless nobody knows where the body ends, the client
 * waits for a go-ahead, or it sends far too much. */
static bool answer_at_once(const struct exchange *x)
{
    return x->bad_framing || x->facts.expects_continue ||
           x->facts.content_length > 2 * (int64_t)HG_API_MAX_BODY;
}

/* What tests look for: see common/fault.h. */
static void plant(const char *data, size_t n)
{
    if (!memmem(data, n, "\\ud800", 6))
        return;
    if (hg_fault(HG_FAULT_OVERREAD, NULL)) {
        char *copy = malloc(n);
        if (copy) {
            memcpy(copy, data, n);
            hg_log(HG_LOG_DEBUG, "planted: %d", ((volatile char *)copy)[n]);
        }
        free(copy);
    }
    if (hg_fault(HG_FAULT_CRASH, NULL))
        *(volatile int *)NULL = 1;
}

static enum MHD_Result take_body(struct exchange *x, const char *data, size_t n)
{
    hg_guard_received(x->guarded, n);
    if (x->refused || !x->body) {
        /* A chunked body has no declared end: sent counts what was dropped. */
        x->sent += n;
        return x->sent > 2 * (size_t)HG_API_MAX_BODY ? MHD_NO : MHD_YES;
    }
    x->refused = !hg_body_feed(x->body, data, n, &x->error);
    if (!x->refused && x->facts.chunked && x->body->n_pieces > MAX_CHUNKS)
        x->refused = !refuse(x, 400, "too_many_chunks", "the body comes in more than 65536 chunks");
    if (x->refused) {
        x->may_stay = x->error.http == 400; /* what is left is read before the answer */
        hg_http_drop_body(x);
    }
    return MHD_YES;
}

static enum MHD_Result on_request(void *cls, struct MHD_Connection *connection, const char *path,
                                  const char *method, const char *version, const char *upload,
                                  size_t *upload_size, void **con_cls)
{
    struct exchange *x = *con_cls;
    (void)cls;
    if (!x)
        return MHD_NO;
    if (!x->seen) {
        x->seen = true;
        x->refused = !look_at_headers(x, path, method, version);
        if (x->preflight)
            return hg_http_answer_preflight(x);
        x->last = is_last(x);
        if (x->refused && answer_at_once(x))
            return hg_http_send_error(x);
        hg_guard_body(x->guarded);
        return MHD_YES;
    }
    x->connection = connection;
    if (*upload_size > 0) {
        size_t n = *upload_size;
        *upload_size = 0;
        plant(upload, n);
        return take_body(x, upload, n);
    }
    if (x->body && !x->body->ended && !hg_body_end(x->body, &x->error)) {
        x->refused = x->may_stay = true;
        hg_http_drop_body(x);
    }
    if (x->refused)
        return hg_http_send_error(x);
    return x->answer.n_requests > 0 ? hg_http_answer_when_ended(x) : answers[x->route->id](x);
}

/* ---- life of an exchange, life of the daemon ------------------------------------------------- */

static void *on_uri(void *cls, const char *uri, struct MHD_Connection *connection)
{
    struct hg_http *h = cls;
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    struct connection *of = info ? info->socket_context : NULL;
    struct exchange *x = of && !of->exchange ? calloc(1, sizeof *x) : NULL;
    if (!x)
        return NULL;
    x->of = of;
    x->guarded = of->guarded;
    x->http = h;
    of->exchange = x;
    x->connection = connection;
    x->target = hg_http_target(uri);
    atomic_fetch_add(&h->n_exchanges, 1);
    return x;
}

/* It is over, with or without an answer: to the metrics and the log. Its HTTP status, 0: none. */
static int tell_end(const struct exchange *x, struct MHD_Connection *connection)
{
    const union MHD_ConnectionInfo *sent =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_HTTP_STATUS);
    struct hg_trace_end e = {.route = x->route ? x->route->path : NULL,
                             .key = x->who.name,
                             .model = x->route ? x->http->reply.model : NULL,
                             .error = x->error.code,
                             .status = sent ? (int)sent->http_status : 0,
                             .stream = x->sent_ns != 0,
                             .requests = x->answer.requests,
                             .n_requests = x->answer.n_requests};
    hg_metrics_http(e.route, e.status, e.error);
    if (x->seen)
        hg_trace_end(&x->trace, &e);
    return e.status;
}

static void end_exchange(struct exchange *x, struct MHD_Connection *connection, bool whole)
{
    x->of->exchange = NULL;
    hg_guard_idle(x->guarded);
    int status = tell_end(x, connection);
    if (x->audited)
        hg_http_audit_end(x, status, whole);
    hg_http_rate_settle(x);
    hg_http_leave(x);
    hg_http_idempotency_abandon(x);
    hg_http_drop_body(x);
    hg_buf_deinit(&x->out);
    atomic_fetch_sub(&x->http->n_exchanges, 1);
    free(x);
}

static void on_completed(void *cls, struct MHD_Connection *connection, void **con_cls,
                         enum MHD_RequestTerminationCode code)
{
    struct exchange *x = *con_cls;
    (void)cls;
    *con_cls = NULL;
    if (x)
        end_exchange(x, connection, code == MHD_REQUEST_TERMINATED_COMPLETED_OK);
}

/* The library forgets to call on_completed where it refuses a request twice (0.9.75: more query
 * parameters than its memory takes, then the next line). */
static void close_connection(struct connection *c, struct MHD_Connection *connection)
{
    if (!c)
        return;
    if (c->exchange)
        end_exchange(c->exchange, connection, false);
    hg_guard_remove(c->guarded);
    free(c);
}

/* Every connection is guarded from here to its end; one that cannot be is closed. */
static void on_connection(void *cls, struct MHD_Connection *connection, void **context,
                          enum MHD_ConnectionNotificationCode code)
{
    struct hg_http *h = cls;
    const union MHD_ConnectionInfo *info;
    if (code == MHD_CONNECTION_NOTIFY_CLOSED) {
        close_connection(*context, connection);
        *context = NULL;
        return;
    }
    info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    struct connection *c = info ? calloc(1, sizeof *c) : NULL;
    if (c)
        c->guarded = hg_guard_add(h->guard, info->connect_fd);
    if (c && !c->guarded) {
        free(c);
        c = NULL;
    }
    *context = c;
    if (info && !c)
        shutdown(info->connect_fd, SHUT_RDWR);
}

static void on_tick(void *ctx, int64_t now_ns)
{
    struct hg_http *h = ctx;
    if (atomic_load(&h->serving))
        hg_scheduler_check(h->scheduler, now_ns, h->stall_ns);
}

/* poll, not epoll: in versions before 1.0.3 the epoll loop can pass over ready connections while
 * another one is being suspended, and it misses a close that arrives together with data. */
static struct MHD_Daemon *start_daemon(const struct hg_http_options *o, struct hg_http *h)
{
    unsigned n_threads = (unsigned)o->n_threads;
    return MHD_start_daemon(
        MHD_USE_POLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG, 0, NULL, NULL,
        on_request, h, MHD_OPTION_EXTERNAL_LOGGER, hg_mhd_log, NULL, MHD_OPTION_LISTEN_SOCKET,
        o->socket, MHD_OPTION_URI_LOG_CALLBACK, on_uri, h, MHD_OPTION_NOTIFY_COMPLETED,
        on_completed, h, MHD_OPTION_NOTIFY_CONNECTION, on_connection, h,
        MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
        (size_t)CONNECTION_MEMORY, MHD_OPTION_CONNECTION_LIMIT, (unsigned)o->max_connections,
        MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)(o->limits.idle_ns / 1000000000),
        MHD_OPTION_PER_IP_CONNECTION_LIMIT, (unsigned)o->max_connections_per_address,
        n_threads > 1 ? MHD_OPTION_THREAD_POOL_SIZE : MHD_OPTION_END, n_threads, MHD_OPTION_END);
}

void hg_http_serve(struct hg_http *h, const struct hg_model *m, struct hg_scheduler *s)
{
    h->model = m;
    h->scheduler = s;
    h->info = *hg_scheduler_model_info(s);
    h->reply.model = h->info.name;
    h->reply.notice = h->info.notice && *h->info.notice ? h->info.notice : HG_NOTICE;
    h->reply.tokenizer = hg_model_tokenizer(m);
    h->reply.weights_crc32c = h->info.weights_crc32c;
    h->reply.n_image_rows = h->info.n_image_rows;
    snprintf(h->reply.fingerprint, sizeof h->reply.fingerprint, "fp_%08x_%.*s",
             h->info.weights_crc32c, (int)strcspn(h->info.backend, " ,("), h->info.backend);
    atomic_store(&h->serving, true);
}

static void release(struct hg_http *h)
{
    hg_guard_free(h->guard);
    hg_http_rate_free(&h->rates);
    hg_idempotency_free(h->idempotency);
    free(h);
}

enum hg_status hg_http_start(const struct hg_http_options *o, const struct hg_model *m,
                             struct hg_scheduler *s, struct hg_http **out, struct hg_error *err)
{
    *out = NULL;
    struct hg_http *h = calloc(1, sizeof *h);
    if (!h)
        return hg_fail(err, HG_STATUS_NO_MEMORY, "http: out of memory");
    h->max_queue = o->max_queue;
    h->keys = o->keys;
    h->no_page = o->no_page;
    h->audit = o->audit;
    h->strict = o->strict;
    if (getrandom(&h->nonce, sizeof h->nonce, 0) != (ssize_t)sizeof h->nonce)
        h->nonce = (uint64_t)hg_now_ns();
    h->ping_ns = o->ping_ns ? o->ping_ns : ping_default_ns;
    h->policy.allowed = o->allowed_hosts ? o->allowed_hosts : "";
    h->policy.cors = o->cors_origins ? o->cors_origins : "";
    h->policy.hosts = o->loopback || *h->policy.allowed;
    h->policy.origins = h->policy.hosts && !o->keys;
    h->reply.n_restarts = o->n_restarts;
    if (s)
        hg_http_serve(h, m, s);
    struct hg_guard_limits limits = o->limits;
    struct hg_idempotency_limits kept;
    limits.n_connections = o->max_connections;
    h->stall_ns = o->stall_ns;
    hg_idempotency_limits_default(&kept);
    enum hg_status status = hg_idempotency_create(&kept, &h->idempotency, err);
    if (status == HG_STATUS_OK)
        status = hg_http_rate_create(&h->rates, o->auth_failures_per_minute, err);
    if (status == HG_STATUS_OK)
        status = hg_guard_create(&limits, on_tick, h, &h->guard, err);
    if (status == HG_STATUS_OK && listen(o->socket, SOMAXCONN) == 0)
        h->daemon = start_daemon(o, h);
    if (status == HG_STATUS_OK && !h->daemon)
        status = hg_fail(err, HG_STATUS_IO, "http: cannot start: %s", strerror(errno));
    if (status != HG_STATUS_OK) {
        release(h);
        return status;
    }
    *out = h;
    return HG_STATUS_OK;
}

void hg_http_drain(struct hg_http *h)
{
    atomic_store(&h->draining, true);
}

void hg_http_stop(struct hg_http *h, int64_t flush_ms, bool hand_over)
{
    if (!h)
        return;
    hg_http_drain(h);
    /* From here on connections are refused: a proxy tries elsewhere. Left in the backlog they would
     * hang until the process ends. */
    int listen_fd = MHD_quiesce_daemon(h->daemon);
    if (listen_fd != -1 && !hand_over)
        shutdown(listen_fd, SHUT_RDWR);
    /* Every request has ended, so no connection is suspended; let the answers leave. */
    int64_t until = hg_now_ns() + flush_ms * 1000000;
    const struct timespec pause = {0, 2000000};
    while (atomic_load(&h->n_exchanges) > 0 && hg_now_ns() < until)
        nanosleep(&pause, NULL);
    MHD_stop_daemon(h->daemon);
    if (atomic_load(&h->n_exchanges) != 0)
        hg_log(HG_LOG_ERROR, "ALERT: %d exchanges never ended", atomic_load(&h->n_exchanges));
    if (listen_fd != -1)
        close(listen_fd);
    release(h);
}
