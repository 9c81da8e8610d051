/* server/ops/ops.c - see ops.h. */
#include "server/ops/ops.h"

#include <errno.h>
#include <microhttpd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "server/http/guard.h"
#include "server/http/http_gate.h"
#include "server/http/mhd_log.h"
#include "server/json_text.h"
#include "server/ops/audit.h"
#include "server/ops/metrics.h"
#include "server/version.h"

enum { MAX_CONNECTIONS = 64, HEADER_S = 5, IDLE_S = 15, CONNECTION_MEMORY = 16 << 10 };

/* An engine whose piece of work takes longer is not sent requests (reliability: a heartbeat of 2 s;
 * pieces known to be longer, and the first ones, get more: hg_watch_limit). */
static const int64_t STALLED_NS = 2000000000, second_ns = 1000000000;

struct hg_ops {
    struct hg_gate_policy policy;
    struct MHD_Daemon *daemon;
    struct hg_guard *guard;
    struct hg_ops_options options;
    int64_t start_ns;
    _Atomic(const char *) phase;
    _Atomic(struct hg_scheduler *) scheduler; /* NULL: not ready */
    atomic_int_fast64_t load_ns;              /* that it took */
    atomic_bool draining;
    /* [its thread] */
    int adapters; /* who ran and waited at the last scrape, as bits */
    double adapters_changed_s;
};

/* Of a program that is not the daemon; that one has server/git_commit.c. */
__attribute__((weak)) const char *hg_ops_commit(void)
{
    return "";
}

/* ---- conditions ------------------------------------------------------------------------------ */

static bool queue_is_full(struct hg_scheduler *s)
{
    struct hg_scheduler_glance g;
    hg_scheduler_glance(s, &g);
    size_t n = 0;
    for (int t = 0; t < HG_TASK_COUNT; t++)
        n += g.waiting[t];
    return 10 * n >= 9 * g.max_queue ||
           (g.max_waiting_tokens > 0 && 10 * g.waiting_tokens >= 9 * g.max_waiting_tokens);
}

/* The first condition that fails; NULL: ready. */
static const char *not_ready(struct hg_ops *o)
{
    struct hg_scheduler *s = atomic_load(&o->scheduler);
    const char *trouble = s ? hg_scheduler_trouble(s) : NULL;
    if (trouble)
        return trouble;
    if (atomic_load(&o->draining))
        return "draining";
    if (!s)
        return "loading";
    if (!hg_heart_is_young(o->options.heart, STALLED_NS, hg_now_ns()))
        return "engine_stalled";
    if (hg_audit_blocks())
        return "audit_unavailable";
    return queue_is_full(s) ? "queue_full" : NULL;
}

static void put_progress(struct hg_ops *o, struct hg_json_out *j)
{
    double left_s, share = hg_model_load_share(&left_s);
    const char *phase = atomic_load(&o->phase);
    if (share >= 1 && strcmp(phase, "weights") == 0)
        phase = "memory"; /* the KV cache and the workspace are made */
    hg_out_string(j, "phase", phase);
    hg_out_int(j, "percent", (int)(100 * share));
    if (share > 0 && share < 1)
        hg_out_real(j, "eta_s", left_s, 1);
    else
        hg_out_raw(j, "eta_s", "null");
}

/* ---- documents ------------------------------------------------------------------------------- */

struct answer {
    int http;
    const char *type;
    struct hg_buf body;
    enum hg_status status;
};

static void begin(struct hg_json_out *j, struct answer *a)
{
    hg_out_begin(j, &a->body);
    hg_out_open(j, NULL, '{');
}

static void end(struct hg_json_out *j, struct answer *a)
{
    hg_out_close(j, '}');
    a->status = j->failed ? HG_STATUS_NO_MEMORY : hg_buf_append_str(&a->body, "\n");
}

/* {"status": good} or {"status": bad, "reason": why, ..} with 503. */
static void put_condition(struct hg_ops *o, struct answer *a, const char *good, const char *bad,
                          const char *why)
{
    struct hg_json_out j;
    begin(&j, a);
    hg_out_string(&j, "status", why ? bad : good);
    if (why)
        hg_out_string(&j, "reason", why);
    if (!atomic_load(&o->scheduler))
        put_progress(o, &j);
    end(&j, a);
    a->http = why ? 503 : 200;
}

static void answer_live(struct hg_ops *o, struct answer *a)
{
    struct hg_scheduler *s = atomic_load(&o->scheduler);
    put_condition(o, a, "alive", "ending", s ? hg_scheduler_trouble(s) : NULL);
}

static void answer_ready(struct hg_ops *o, struct answer *a)
{
    put_condition(o, a, "ready", "not_ready", not_ready(o));
}

static void answer_startup(struct hg_ops *o, struct answer *a)
{
    put_condition(o, a, "started", "starting", atomic_load(&o->scheduler) ? NULL : "loading");
}

static void answer_version(struct hg_ops *o, struct answer *a)
{
    struct hg_scheduler *s = atomic_load(&o->scheduler);
    const struct hg_model_info *info = s ? hg_scheduler_model_info(s) : NULL;
    const char *commit = hg_ops_commit();
    struct hg_json_out j;
    char sum[16];
    begin(&j, a);
    hg_out_string(&j, "version", HG_VERSION);
    hg_out_string(&j, "git", *commit ? commit : NULL);
    hg_out_string(&j, "model", info ? info->name : NULL);
    if (info)
        snprintf(sum, sizeof sum, "%08x", (unsigned)info->weights_crc32c);
    hg_out_string(&j, "weights_crc32c", info ? sum : NULL);
    hg_out_string(&j, "backend", info ? info->backend : o->options.backend);
    hg_out_string(&j, "libmicrohttpd", MHD_get_version());
    hg_out_string(&j, "openapi", "3.1.0");
    hg_out_string(&j, "api", "v1");
    end(&j, a);
}

/* Of a scrape: who runs and waits, and when that was last seen to change. */
static double changed_s(struct hg_ops *o, const struct hg_scheduler_glance *g)
{
    struct timespec now;
    int bits = 0;
    for (int t = 0; t < HG_TASK_COUNT; t++)
        bits |= (g->running[t] > 0) << t | (g->waiting[t] > 0) << (t + HG_TASK_COUNT);
    if (bits != o->adapters || o->adapters_changed_s == 0) {
        clock_gettime(CLOCK_REALTIME, &now);
        o->adapters_changed_s = (double)now.tv_sec + (double)now.tv_nsec / 1e9;
        o->adapters = bits;
    }
    return o->adapters_changed_s;
}

static void answer_metrics(struct hg_ops *o, struct answer *a, const char *accept)
{
    struct hg_scheduler *s = atomic_load(&o->scheduler);
    const struct hg_model_info *info = s ? hg_scheduler_model_info(s) : NULL;
    bool open = hg_metrics_wants_open(accept);
    double left_s;
    struct hg_metrics_facts f = {.model = info ? info->name : "",
                                 .backend = info ? info->backend : o->options.backend,
                                 .version = HG_VERSION,
                                 .ready = s != NULL,
                                 .load_share = s ? 1 : hg_model_load_share(&left_s),
                                 .load_seconds = (double)atomic_load(&o->load_ns) / 1e9,
                                 .n_restarts = o->options.n_restarts};
    if (s)
        hg_scheduler_glance(s, &f.now);
    f.adapters_changed_s = changed_s(o, &f.now);
    a->type = open ? hg_metrics_open_type : hg_metrics_text_type;
    a->status = hg_metrics_write(&f, open, &a->body);
}

/* ---- HTTP ------------------------------------------------------------------------------------ */

/* A connection, with the request that it is at: the library does not tell of the end of every
 * request (server/http/http.c), but of every connection's. */
struct visit {
    struct hg_guarded *guarded;
    struct hg_gate_target target;
    bool seen;
};

static struct visit *visit_of(struct MHD_Connection *connection)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    return info ? info->socket_context : NULL;
}

static struct hg_guarded *guarded_of(struct MHD_Connection *c)
{
    const struct visit *v = visit_of(c);
    return v ? v->guarded : NULL;
}

static enum MHD_Result send_answer(struct MHD_Connection *c, struct answer *a, bool closes)
{
    if (a->status != HG_STATUS_OK) {
        hg_buf_deinit(&a->body);
        return MHD_NO;
    }
    struct MHD_Response *r =
        MHD_create_response_from_buffer(a->body.len, a->body.data, MHD_RESPMEM_MUST_FREE);
    if (!r) {
        hg_buf_deinit(&a->body);
        return MHD_NO;
    }
    MHD_add_response_header(r, "Content-Type", a->type);
    MHD_add_response_header(r, "Cache-Control", "no-store");
    MHD_add_response_header(r, "X-Content-Type-Options", "nosniff");
    if (closes)
        MHD_add_response_header(r, "Connection", "close");
    if (a->http == 405)
        MHD_add_response_header(r, "Allow", "GET, HEAD");
    if (a->http == 401)
        MHD_add_response_header(r, "WWW-Authenticate", "Bearer realm=\"healthgpt\"");
    hg_guard_answer(guarded_of(c), a->body.len);
    enum MHD_Result ok = MHD_queue_response(c, (unsigned)a->http, r);
    MHD_destroy_response(r);
    return ok;
}

static enum MHD_Result send_error(struct MHD_Connection *c, const struct hg_api_error *e)
{
    struct answer a = {.http = e->http, .type = "application/json"};
    a.status = hg_api_write_error(e, &a.body);
    if (a.status == HG_STATUS_OK)
        a.status = hg_buf_append_str(&a.body, "\n");
    return send_answer(c, &a, true);
}

static bool knows_key(struct hg_ops *o, const struct hg_gate_facts *facts, struct hg_api_error *e)
{
    struct hg_tenant who;
    if (!o->options.keys ||
        hg_keys_check(o->options.keys, facts->authorization, true, &who) == HG_KEYS_OK)
        return true;
    hg_api_error_set(e, 401, facts->authorization ? "invalid_api_key" : "missing_api_key",
                     "expected Authorization: Bearer <API key>");
    return false;
}

typedef void ops_fn(struct hg_ops *o, struct answer *a);

static ops_fn *route_of(const char *path)
{
    static const struct {
        const char *path;
        ops_fn *answer;
    } routes[] = {{"/livez", answer_live},
                  {"/readyz", answer_ready},
                  {"/startupz", answer_startup},
                  {"/version", answer_version}};
    for (size_t i = 0; i < sizeof routes / sizeof routes[0]; i++)
        if (strcmp(routes[i].path, path) == 0)
            return routes[i].answer;
    return NULL;
}

/* Who drips or holds connections is cut (server/http/guard.h), so that there is always one left. */
static void on_connection(void *cls, struct MHD_Connection *c, void **context,
                          enum MHD_ConnectionNotificationCode code)
{
    struct hg_ops *o = cls;
    struct visit *v = *context;
    if (code == MHD_CONNECTION_NOTIFY_CLOSED) {
        if (v)
            hg_guard_remove(v->guarded);
        free(v);
        *context = NULL;
        return;
    }
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(c, MHD_CONNECTION_INFO_CONNECTION_FD);
    *context = v = calloc(1, sizeof *v);
    if (v && info)
        v->guarded = hg_guard_add(o->guard, info->connect_fd);
    if (info && (!v || !v->guarded))
        shutdown(info->connect_fd, SHUT_RDWR);
}

static void on_completed(void *cls, struct MHD_Connection *connection, void **con_cls,
                         enum MHD_RequestTerminationCode code)
{
    (void)cls;
    (void)con_cls;
    (void)code;
    hg_guard_idle(guarded_of(connection));
}

static void *on_uri(void *cls, const char *uri, struct MHD_Connection *connection)
{
    struct visit *v = visit_of(connection);
    (void)cls;
    if (v) {
        v->target = hg_http_target(uri);
        v->seen = false;
    }
    return v;
}

static enum MHD_Result on_request(void *cls, struct MHD_Connection *c, const char *path,
                                  const char *method, const char *version, const char *upload,
                                  size_t *upload_size, void **con_cls)
{
    struct hg_ops *o = cls;
    struct visit *v = *con_cls;
    struct hg_gate_facts facts;
    struct hg_api_error e = {0};
    if (!v)
        return MHD_NO;
    (void)upload;
    if (!v->seen) {
        v->seen = true;
        hg_guard_request(guarded_of(c));
        if (!hg_http_gate(c, method, version, &v->target, &o->policy, &facts, &e) ||
            !knows_key(o, &facts, &e))
            return send_error(c, &e);
        if (strcmp(method, "GET") == 0 || strcmp(method, "HEAD") == 0)
            return MHD_YES;
        hg_api_error_set(&e, 405, "method_not_allowed", "this port takes GET and HEAD only");
        return send_error(c, &e);
    }
    if (*upload_size > 0)
        return MHD_NO;
    struct answer a = {.http = 200, .type = "application/json"};
    ops_fn *answer = route_of(path);
    if (answer) {
        answer(o, &a);
    } else if (strcmp(path, "/metrics") == 0) {
        answer_metrics(o, &a, MHD_lookup_connection_value(c, MHD_HEADER_KIND, "Accept"));
    } else {
        hg_api_error_set(&e, 404, "unknown_route",
                         "no such route: see /livez, /readyz, /startupz, /metrics, /version");
        return send_error(c, &e);
    }
    return send_answer(c, &a, false);
}

/* ---- life ------------------------------------------------------------------------------------ */

enum hg_status hg_ops_start(const struct hg_ops_options *options, struct hg_ops **out,
                            struct hg_error *err)
{
    struct hg_ops *o = calloc(1, sizeof *o);
    struct hg_guard_limits limits;
    *out = NULL;
    hg_guard_limits_default(&limits);
    limits.n_connections = MAX_CONNECTIONS;
    limits.header_ns = HEADER_S * second_ns;
    limits.idle_ns = limits.send_ns = IDLE_S * second_ns;
    limits.uncounted = true;
    if (o && hg_guard_create(&limits, NULL, NULL, &o->guard, err) == HG_STATUS_OK &&
        listen(options->socket, SOMAXCONN) == 0) {
        o->options = *options;
        o->policy = (struct hg_gate_policy){.hosts = options->loopback,
                                            .origins = options->loopback && !options->keys,
                                            .allowed = ""};
        o->start_ns = hg_now_ns();
        atomic_init(&o->phase, "weights");
        o->daemon = MHD_start_daemon(
            MHD_USE_POLL_INTERNAL_THREAD | MHD_USE_ERROR_LOG, 0, NULL, NULL, on_request, o,
            MHD_OPTION_EXTERNAL_LOGGER, hg_mhd_log, NULL, MHD_OPTION_LISTEN_SOCKET, options->socket,
            MHD_OPTION_URI_LOG_CALLBACK, on_uri, o, MHD_OPTION_NOTIFY_COMPLETED, on_completed, o,
            MHD_OPTION_NOTIFY_CONNECTION, on_connection, o, MHD_OPTION_STRICT_FOR_CLIENT, 1,
            MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_MEMORY,
            MHD_OPTION_CONNECTION_LIMIT, (unsigned)MAX_CONNECTIONS, MHD_OPTION_CONNECTION_TIMEOUT,
            (unsigned)IDLE_S, MHD_OPTION_END);
    }
    if (o && o->daemon) {
        *out = o;
        return HG_STATUS_OK;
    }
    int e = errno;
    close(options->socket);
    hg_guard_free(o ? o->guard : NULL);
    free(o);
    return hg_fail(err, HG_STATUS_IO, "the operators' port cannot start: %s", strerror(e));
}

void hg_ops_phase(struct hg_ops *o, const char *phase)
{
    if (o)
        atomic_store(&o->phase, phase);
}

void hg_ops_ready(struct hg_ops *o, struct hg_scheduler *s)
{
    if (!o)
        return;
    atomic_store(&o->load_ns, hg_now_ns() - o->start_ns);
    atomic_store(&o->scheduler, s);
}

void hg_ops_drain(struct hg_ops *o)
{
    if (o)
        atomic_store(&o->draining, true);
}

void hg_ops_stop(struct hg_ops *o)
{
    if (!o)
        return;
    MHD_stop_daemon(o->daemon);
    hg_guard_free(o->guard);
    free(o);
}
