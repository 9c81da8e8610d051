/* server/http.c - from a connection to a submitted request, and from its events back.
 *
 * One struct exchange per HTTP request, made in the URI callback and released in the completed
 * callback. MHD calls on_request first with the headers, then with pieces of the body, then with
 * nothing left; a waiting exchange is suspended and called once more when it is resumed. */
#include "server/http.h"

#include <errno.h>
#include <microhttpd.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "server/http_gate.h"
#include "server/reply.h"

enum { CONNECTION_MEMORY = 64 << 10, STREAM_BLOCK = 16 << 10 };

struct hg_http {
    struct MHD_Daemon *daemon;
    const struct hg_model *model;
    struct hg_scheduler *scheduler;
    struct hg_guard *guard;
    int64_t stall_ns;
    struct hg_model_info info;
    struct hg_reply_context reply;
    struct hg_keys *keys;
    int max_queue;
    bool loopback;
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
};

/* ---- answers --------------------------------------------------------------------------------- */

static bool add_common_headers(struct MHD_Response *r, const char *type)
{
    return MHD_add_response_header(r, "Content-Type", type) == MHD_YES &&
           MHD_add_response_header(r, "X-Content-Type-Options", "nosniff") == MHD_YES &&
           MHD_add_response_header(r, "Cache-Control", "no-store") == MHD_YES;
}

static const char *allowed(const struct route *r)
{
    return strcmp(r->method, "GET") == 0 ? "GET, HEAD" : r->method;
}

/* Spread by a half to both sides, so that those who were refused together do not come together. */
static void add_retry_after(struct exchange *x, struct MHD_Response *r)
{
    char seconds[24];
    enum hg_task task = x->route ? x->route->task : HG_TASK_COMPREHENSION;
    double s = hg_scheduler_retry_s(x->http->scheduler, &x->who, task);
    double spread = (double)((uint64_t)hg_now_ns() * 0x9e3779b97f4a7c15u >> 40) / (1 << 24);
    snprintf(seconds, sizeof seconds, "%d", (int)(s * (0.5 + spread) + 0.5));
    MHD_add_response_header(r, "Retry-After", seconds);
}

static void add_refusal_headers(struct exchange *x, struct MHD_Response *r)
{
    if (x->error.http == 405 && x->route)
        MHD_add_response_header(r, "Allow", allowed(x->route));
    if (x->error.http == 503 || x->error.http == 429)
        add_retry_after(x, r);
    if (x->error.http == 401)
        MHD_add_response_header(r, "WWW-Authenticate", "Bearer realm=\"healthgpt\"");
    if ((x->refused && !x->may_stay) || atomic_load(&x->http->draining))
        MHD_add_response_header(r, "Connection", "close");
}

/* Takes the buffer. */
static enum MHD_Result send_buffer(struct exchange *x, int http, struct hg_buf *b)
{
    struct MHD_Response *r =
        MHD_create_response_from_buffer(b->len, b->data, MHD_RESPMEM_MUST_FREE);
    if (!r) {
        hg_buf_deinit(b);
        return MHD_NO;
    }
    hg_guard_answer(x->guarded, b->len);
    *b = (struct hg_buf){0};
    enum MHD_Result ok = MHD_NO;
    if (add_common_headers(r, "application/json")) {
        if (http >= 400)
            add_refusal_headers(x, r);
        else if (x->request && x->request->task == HG_TASK_GENERATION)
            MHD_add_response_header(r, "X-Synthetic-Image", "true");
        ok = MHD_queue_response(x->connection, (unsigned)http, r);
    }
    MHD_destroy_response(r);
    return ok;
}

static enum MHD_Result send_error(struct exchange *x)
{
    struct hg_buf b = {0};
    if (hg_api_write_error(&x->error, &b) != HG_STATUS_OK ||
        hg_buf_append_str(&b, "\n") != HG_STATUS_OK) {
        hg_buf_deinit(&b);
        return MHD_NO;
    }
    return send_buffer(x, x->error.http, &b);
}

static enum MHD_Result send_failure(struct exchange *x, const struct hg_error *err)
{
    hg_api_error_of(&x->error, err);
    return send_error(x);
}

static enum MHD_Result send_out_of_memory(struct exchange *x)
{
    struct hg_error err = {.status = HG_STATUS_NO_MEMORY};
    return send_failure(x, &err);
}

/* ---- GET /health, GET /v1/models ------------------------------------------------------------- */

static enum MHD_Result send_document(struct exchange *x, int http, enum hg_status status,
                                     struct hg_buf *b)
{
    if (status == HG_STATUS_OK)
        return send_buffer(x, http, b);
    hg_buf_deinit(b);
    return send_out_of_memory(x);
}

/* Readiness: 200 while this is "ok", else 503, so that a balancer sends its requests elsewhere. */
static const char *state_of(struct hg_http *h)
{
    const char *trouble = hg_scheduler_trouble(h->scheduler);
    if (trouble)
        return trouble;
    return atomic_load(&h->draining) ? "draining" : "ok";
}

static enum MHD_Result answer_health(struct exchange *x)
{
    struct hg_http *h = x->http;
    struct hg_scheduler_stats stats;
    struct hg_guard_stats guard;
    struct hg_buf b = {0};
    hg_scheduler_stats(h->scheduler, &stats);
    hg_guard_stats(h->guard, &guard);
    const char *state = state_of(h);
    enum hg_status s =
        hg_reply_health(&h->reply, &h->info, &stats, &guard, h->max_queue, state, &b);
    return send_document(x, strcmp(state, "ok") == 0 ? 200 : 503, s, &b);
}

static enum MHD_Result answer_models(struct exchange *x)
{
    struct hg_buf b = {0};
    return send_document(x, 200, hg_reply_models(&x->http->reply, &x->http->info, &b), &b);
}

/* ---- POST /v1/vqa, /v1/draw, /v1/images/generations ------------------------------------------ */

static void suspend_connection(void *ctx)
{
    MHD_suspend_connection(ctx);
}

static void resume_connection(void *ctx)
{
    MHD_resume_connection(ctx);
}

static void client_gone(void *ctx)
{
    hg_request_cancel(ctx);
}

/* The next bytes of a stream: lines that are ready, or 0 with the connection suspended. */
static ssize_t read_stream(void *cls, uint64_t pos, char *buf, size_t max)
{
    struct exchange *x = cls;
    (void)pos;
    while (x->sent == x->out.len) {
        struct hg_event event;
        struct hg_top_token tops[HG_MAX_TOP];
        struct hg_buf text = {0};
        if (x->end_written)
            return MHD_CONTENT_READER_END_OF_STREAM;
        hg_buf_clear(&x->out);
        x->sent = 0;
        if (!hg_stream_read(&x->request->stream, x->at, &event, &text, tops))
            return 0;
        x->at++;
        x->end_written = event.type == HG_EVENT_END;
        enum hg_status s = x->end_written
                               ? hg_reply_end(&x->http->reply, x->request, &x->out)
                               : hg_reply_event(&x->http->reply, &event, &text, tops, &x->out);
        hg_buf_deinit(&text);
        if (s != HG_STATUS_OK)
            return MHD_CONTENT_READER_END_WITH_ERROR;
        if (x->end_written)
            hg_guard_answer(x->guarded, x->out.len);
    }
    size_t n = x->out.len - x->sent < max ? x->out.len - x->sent : max;
    memcpy(buf, x->out.data + x->sent, n);
    x->sent += n;
    return (ssize_t)n;
}

static enum MHD_Result start_stream(struct exchange *x)
{
    if (hg_reply_queued(x->request, &x->out) != HG_STATUS_OK)
        return MHD_NO;
    struct MHD_Response *r =
        MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, STREAM_BLOCK, read_stream, x, NULL);
    if (!r)
        return MHD_NO;
    enum MHD_Result ok = MHD_NO;
    if (add_common_headers(r, "application/x-ndjson") &&
        MHD_add_response_header(r, "X-Accel-Buffering", "no") == MHD_YES) {
        if (x->request->task == HG_TASK_GENERATION)
            MHD_add_response_header(r, "X-Synthetic-Image", "true");
        hg_stream_attach(&x->request->stream, suspend_connection, resume_connection, x->connection,
                         false);
        ok = MHD_queue_response(x->connection, 200, r);
    }
    MHD_destroy_response(r);
    return ok;
}

/* The plain answer once END is there; until then the connection sleeps. */
static enum MHD_Result answer_when_ended(struct exchange *x)
{
    struct hg_request *r = x->request;
    struct hg_buf b = {0};
    if (!hg_stream_ended(&r->stream))
        return MHD_YES;
    if (r->result.error.status != HG_STATUS_OK) {
        hg_reply_error_of(r, &x->error);
        return send_error(x);
    }
    enum hg_status s = x->route->images_api ? hg_reply_images_answer(&x->http->reply, r, &b)
                                            : hg_reply_answer(&x->http->reply, r, &b);
    if (s == HG_STATUS_OK)
        s = hg_buf_append_str(&b, "\n");
    return send_document(x, 200, s, &b);
}

static bool parse_body(struct exchange *x, struct hg_ask *ask)
{
    return x->is_form
               ? hg_api_parse_form(x->facts.content_type, x->body.data, x->body.len, ask, &x->error)
               : hg_api_parse_json(x->body.data ? x->body.data : "", x->body.len, ask, &x->error);
}

static enum MHD_Result answer_task(struct exchange *x)
{
    struct hg_ask ask;
    struct hg_error err = {0};
    if (hg_scheduler_has_room(x->http->scheduler, &x->who, x->route->task, &err) != HG_STATUS_OK) {
        hg_buf_deinit(&x->body); /* no room: nothing is decoded for the refusal */
        return send_failure(x, &err);
    }
    hg_ask_init(&ask, x->route->task);
    ask.tenant = x->who;
    bool parsed = parse_body(x, &ask), wants_stream = ask.stream;
    hg_buf_deinit(&x->body); /* the images are decoded: the body is not needed any more */
    enum hg_status status = HG_STATUS_OK;
    if (parsed)
        status = hg_request_create(x->http->model, &ask, &x->request, &err);
    hg_ask_deinit(&ask);
    if (!parsed)
        return send_error(x);
    if (status == HG_STATUS_OK)
        status = hg_scheduler_submit(x->http->scheduler, x->request, &err);
    if (status != HG_STATUS_OK)
        return send_failure(x, &err);
    hg_guard_work(x->guarded, x->request->number, x->request->deadline_ns, client_gone, x->request,
                  wants_stream ? &x->request->stream.waiting : NULL);
    if (wants_stream)
        return start_stream(x);
    hg_stream_attach(&x->request->stream, suspend_connection, resume_connection, x->connection,
                     true);
    return answer_when_ended(x);
}

/* ---- routing --------------------------------------------------------------------------------- */

static const struct route routes[] = {
    {"/health", "GET", answer_health, HG_TASK_COUNT, false},
    {"/v1/models", "GET", answer_models, HG_TASK_COUNT, false},
    {"/v1/vqa", "POST", answer_task, HG_TASK_COMPREHENSION, false},
    {"/v1/draw", "POST", answer_task, HG_TASK_GENERATION, false},
    {"/v1/images/generations", "POST", answer_task, HG_TASK_GENERATION, true},
};

static const struct route *route_of(const char *path)
{
    for (size_t i = 0; i < sizeof routes / sizeof routes[0]; i++)
        if (strcmp(routes[i].path, path) == 0)
            return &routes[i];
    return NULL;
}

static bool method_fits(const struct route *r, const char *method)
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
    if (!x->http->keys || (reads && strcmp(path, "/health") == 0))
        return true;
    switch (hg_keys_check(x->http->keys, x->facts.authorization, reads, &x->who)) {
    case HG_KEYS_OK:
        return true;
    case HG_KEYS_MISSING:
        return refuse(x, 401, "missing_api_key", "expected Authorization: Bearer <API key>");
    case HG_KEYS_FORBIDDEN:
        return refuse(x, 403, "not_allowed", "this API key is for GET requests only");
    case HG_KEYS_UNKNOWN:
        break;
    }
    return refuse(x, 401, "invalid_api_key", "this API key is not known here");
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

/* Everything that can be decided from the headers; false: x->error says why not. */
static bool look_at_headers(struct exchange *x, const char *path, const char *method,
                            const char *version)
{
    x->bad_framing = !hg_http_gate(x->connection, method, version, x->bad_uri, x->http->loopback,
                                   &x->facts, &x->error);
    if (x->bad_framing)
        return false;
    if (!knows_key(x, path, method))
        return false;
    x->route = route_of(path);
    if (!x->route)
        return refuse(x, 404, "unknown_route",
                      "no such route: see /v1/models, /v1/vqa, /v1/draw, "
                      "/v1/images/generations, /health");
    if (!method_fits(x->route, method))
        return refuse(x, 405, "method_not_allowed",
                      strcmp(x->route->method, "GET") == 0 ? "this route takes GET and HEAD only"
                                                           : "this route takes POST only");
    if (strcmp(x->route->method, "POST") != 0)
        return true;
    x->is_form = type_is(x->facts.content_type, "multipart/form-data");
    if (!x->is_form && !type_is(x->facts.content_type, "application/json"))
        return refuse(x, 415, "unsupported_media_type",
                      "expected Content-Type application/json or multipart/form-data");
    if (x->facts.content_length > HG_API_MAX_BODY)
        return refuse(x, 413, "body_too_large", "the body is larger than 24 MiB");
    const char *trouble = hg_scheduler_trouble(x->http->scheduler);
    if (trouble)
        return refuse(x, 503, trouble, "the engine has failed; the server has to start again");
    if (atomic_load(&x->http->draining))
        return refuse(x, 503, "shutting_down", "the server is shutting down");
    return has_room(x);
}

/* A refused body is read and dropped before the answer, because a client that is still sending may
 * never see an answer that comes with a reset; unless nobody knows where the body ends, the client
 * waits for a go-ahead, or it sends far too much. */
static bool answer_at_once(const struct exchange *x)
{
    return x->bad_framing || x->facts.expects_continue ||
           x->facts.content_length > 2 * (int64_t)HG_API_MAX_BODY;
}

static enum MHD_Result take_body(struct exchange *x, const char *data, size_t n)
{
    hg_guard_received(x->guarded, n);
    if (x->refused) {
        /* A chunked body has no declared end: sent counts what was dropped. */
        x->sent += n;
        return x->sent > 2 * (size_t)HG_API_MAX_BODY ? MHD_NO : MHD_YES;
    }
    if (x->body.len + n > HG_API_MAX_BODY) {
        x->refused = true;
        refuse(x, 413, "body_too_large", "the body is larger than 24 MiB");
    } else if (hg_buf_append(&x->body, data, n) != HG_STATUS_OK) {
        struct hg_error err = {.status = HG_STATUS_NO_MEMORY};
        x->refused = true;
        hg_api_error_of(&x->error, &err);
    }
    if (x->refused)
        hg_buf_deinit(&x->body);
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
        if (x->refused && answer_at_once(x))
            return send_error(x);
        hg_guard_body(x->guarded);
        return MHD_YES;
    }
    x->connection = connection;
    if (*upload_size > 0) {
        size_t n = *upload_size;
        *upload_size = 0;
        return take_body(x, upload, n);
    }
    if (x->refused)
        return send_error(x);
    return x->request ? answer_when_ended(x) : x->route->answer(x);
}

/* ---- life of an exchange, life of the daemon ------------------------------------------------- */

static void *on_uri(void *cls, const char *uri, struct MHD_Connection *connection)
{
    struct hg_http *h = cls;
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    struct hg_guarded *guarded = info ? info->socket_context : NULL;
    struct exchange *x = guarded ? calloc(1, sizeof *x) : NULL;
    if (!x)
        return NULL;
    x->guarded = guarded;
    x->http = h;
    x->connection = connection;
    x->bad_uri = hg_http_uri_is_bad(uri);
    atomic_fetch_add(&h->n_exchanges, 1);
    return x;
}

static void on_completed(void *cls, struct MHD_Connection *connection, void **con_cls,
                         enum MHD_RequestTerminationCode code)
{
    struct exchange *x = *con_cls;
    (void)cls;
    (void)connection;
    (void)code;
    if (!x)
        return;
    *con_cls = NULL;
    hg_guard_idle(x->guarded);
    if (x->request) {
        hg_stream_detach(&x->request->stream);
        hg_request_cancel(x->request); /* of no effect when it has ended */
        hg_request_unref(x->request);
    }
    hg_buf_deinit(&x->body);
    hg_buf_deinit(&x->out);
    atomic_fetch_sub(&x->http->n_exchanges, 1);
    free(x);
}

/* Every connection is guarded from here to its end; one that cannot be is closed. */
static void on_connection(void *cls, struct MHD_Connection *connection, void **context,
                          enum MHD_ConnectionNotificationCode code)
{
    struct hg_http *h = cls;
    const union MHD_ConnectionInfo *info;
    if (code == MHD_CONNECTION_NOTIFY_CLOSED) {
        hg_guard_remove(*context);
        *context = NULL;
        return;
    }
    info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    *context = info ? hg_guard_add(h->guard, info->connect_fd) : NULL;
    if (info && !*context)
        shutdown(info->connect_fd, SHUT_RDWR);
}

static void on_tick(void *ctx, int64_t now_ns)
{
    struct hg_http *h = ctx;
    hg_scheduler_check(h->scheduler, now_ns, h->stall_ns);
}

static void __attribute__((format(printf, 2, 0)))
on_log(void *cls, const char *format, va_list args)
{
    char line[256];
    (void)cls;
    vsnprintf(line, sizeof line, format, args);
    line[strcspn(line, "\n")] = '\0';
    hg_log(HG_LOG_DEBUG, "microhttpd: %s", line);
}

/* poll, not epoll: in versions before 1.0.3 the epoll loop can pass over ready connections while
 * another one is being suspended, and it misses a close that arrives together with data. */
static struct MHD_Daemon *start_daemon(const struct hg_http_options *o, struct hg_http *h)
{
    unsigned n_threads = (unsigned)o->n_threads;
    return MHD_start_daemon(
        MHD_USE_POLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG, 0, NULL, NULL,
        on_request, h, MHD_OPTION_EXTERNAL_LOGGER, on_log, NULL, MHD_OPTION_LISTEN_SOCKET,
        o->socket, MHD_OPTION_URI_LOG_CALLBACK, on_uri, h, MHD_OPTION_NOTIFY_COMPLETED,
        on_completed, h, MHD_OPTION_NOTIFY_CONNECTION, on_connection, h,
        MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
        (size_t)CONNECTION_MEMORY, MHD_OPTION_CONNECTION_LIMIT, (unsigned)o->max_connections,
        MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)(o->limits.idle_ns / 1000000000),
        n_threads > 1 ? MHD_OPTION_THREAD_POOL_SIZE : MHD_OPTION_END, n_threads, MHD_OPTION_END);
}

enum hg_status hg_http_start(const struct hg_http_options *o, const struct hg_model *m,
                             struct hg_scheduler *s, struct hg_http **out, struct hg_error *err)
{
    *out = NULL;
    struct hg_http *h = calloc(1, sizeof *h);
    if (!h)
        return hg_fail(err, HG_STATUS_NO_MEMORY, "http: out of memory");
    h->model = m;
    h->scheduler = s;
    h->max_queue = o->max_queue;
    h->keys = o->keys;
    h->loopback = o->loopback;
    h->info = *hg_scheduler_model_info(s);
    h->reply = (struct hg_reply_context){
        .model = h->info.name,
        .notice = h->info.notice && *h->info.notice ? h->info.notice : "not for clinical use",
        .tokenizer = hg_model_tokenizer(m),
        .n_restarts = o->n_restarts};
    struct hg_guard_limits limits = o->limits;
    limits.n_connections = o->max_connections;
    h->stall_ns = o->stall_ns;
    enum hg_status status = hg_guard_create(&limits, on_tick, h, &h->guard, err);
    if (status != HG_STATUS_OK) {
        free(h);
        return status;
    }
    if (listen(o->socket, SOMAXCONN) == 0)
        h->daemon = start_daemon(o, h);
    if (!h->daemon) {
        status = hg_fail(err, HG_STATUS_IO, "http: cannot start: %s", strerror(errno));
        hg_guard_free(h->guard);
        free(h);
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
    hg_guard_free(h->guard);
    if (listen_fd != -1)
        close(listen_fd);
    free(h);
}
