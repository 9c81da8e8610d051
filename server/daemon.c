/* server/daemon.c - see daemon.h. */
#include "server/daemon.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "common/fault.h"
#include "common/log.h"
#include "server/crash.h"
#include "server/http/cors.h"
#include "server/http/http.h"
#include "server/notify.h"
#include "server/ops/ops.h"
#include "server/process.h"

/* EXTEND_S: what a service manager is to wait for more, told every TELL_S while the model loads. */
enum { FLUSH_MS = 2000, REFUSED_MS = 200, TELL_S = 1, EXTEND_S = 30, LOADED_SIGNAL = SIGUSR1 };

static const int64_t second_ns = 1000000000;

/* What the watchdog may touch: the scheduler once there is one. */
struct watched {
    _Atomic(struct hg_scheduler *) scheduler;
};

struct life {
    const struct hg_config *config;
    const sigset_t *signals;
    struct hg_worker self;
    struct hg_listen_address address;
    bool inherited;
    struct hg_heart *heart;
    struct watched *watched;
    struct hg_http_options http_options;
    struct hg_scheduler_options s_options;
    struct hg_notify notify;
    struct hg_ops *ops;
    struct hg_http *http;
    struct hg_watchdog *watchdog;
    struct hg_model *model;
    struct hg_scheduler *scheduler;
    uint64_t fed_beat; /* of the heart, when the service manager's watchdog was last told of it */
    int64_t fed_ns;
};

/* ---- sockets --------------------------------------------------------------------------------- */

static enum hg_status must_be_loopback(const struct hg_config *c, const struct hg_listen_address *a,
                                       struct hg_error *err)
{
    if (hg_listen_is_loopback(a) || c->insecure || c->api_keys[0])
        return HG_STATUS_OK;
    return hg_fail(err, HG_STATUS_BAD_REQUEST,
                   "%s is not loopback and there is no authentication: give --api-keys, put a "
                   "proxy in front, or say --insecure",
                   a->addr);
}

enum hg_status hg_daemon_socket(const struct hg_config *c, struct hg_listen_address *a, int *fd,
                                bool *inherited, struct hg_error *err)
{
    HG_TRY(hg_listen_parse(c->listen, a, err));
    HG_TRY(hg_listen_inherit(a, fd, err));
    *inherited = *fd >= 0;
    HG_TRY(must_be_loopback(c, a, err));
    HG_TRY(hg_cors_check(c->cors_origins, err));
    return *inherited ? HG_STATUS_OK : hg_listen_bind(a, fd, err);
}

/* Names the option, which the messages of server/listen.h do not. */
static enum hg_status ops_failed(struct hg_error *err)
{
    struct hg_error why = *err;
    return hg_fail(err, why.status, "ops_listen: %s", why.text);
}

static enum hg_status start_ops(struct life *l, struct hg_error *err)
{
    const struct hg_config *c = l->config;
    struct hg_listen_address a;
    char url[HG_LISTEN_ADDR_CAP + 24];
    struct hg_ops_options o = {
        .heart = l->heart, .backend = c->backend, .n_restarts = l->http_options.n_restarts};
    if (!c->ops_listen[0])
        return HG_STATUS_OK;
    if (hg_listen_parse(c->ops_listen, &a, err) != HG_STATUS_OK ||
        must_be_loopback(c, &a, err) != HG_STATUS_OK ||
        hg_listen_bind(&a, &o.socket, err) != HG_STATUS_OK)
        return ops_failed(err);
    o.loopback = hg_listen_is_loopback(&a);
    o.keys = o.loopback ? NULL : l->http_options.keys;
    HG_TRY(hg_ops_start(&o, &l->ops, err));
    hg_listen_url(&a, url);
    hg_log(HG_LOG_INFO, "operators' port: %s", url);
    return HG_STATUS_OK;
}

/* One line that scripts wait for, with the port that was chosen. */
static void announce(const struct hg_listen_address *a, const struct hg_model_info *info)
{
    char url[HG_LISTEN_ADDR_CAP + 24];
    hg_listen_url(a, url);
    printf("healthgptd: listening on %s (model %s, backend %s)\n", url, info->name, info->backend);
    fflush(stdout);
}

/* ---- signals --------------------------------------------------------------------------------- */

static void reload_keys(struct hg_keys *keys)
{
    struct hg_error err = {0};
    if (!keys)
        hg_log(HG_LOG_INFO, "SIGHUP: there are no API keys to read again");
    else if (hg_keys_reload(keys, &err) == HG_STATUS_OK)
        hg_log(HG_LOG_INFO, "SIGHUP: %zu API keys", hg_keys_count(keys));
    else
        hg_log(HG_LOG_ERROR, "SIGHUP: the API keys stay as they were: %s", err.text);
}

/* The next signal that ends something, or -1; SIGHUP is done on the way. */
static int next_signal(struct life *l, const sigset_t *signals, int64_t wait_ns)
{
    struct timespec wait = {wait_ns / second_ns, wait_ns % second_ns};
    int sig = sigtimedwait(signals, NULL, &wait);
    if (sig != SIGHUP)
        return sig;
    reload_keys(l->http_options.keys);
    hg_audit_reopen(l->http_options.audit);
    return -1;
}

/* The service manager's watchdog is told only when the engine rests or has come further. */
static void feed_watchdog(struct life *l)
{
    int64_t now = hg_now_ns(), every = l->notify.watchdog_ns / 4;
    if (every == 0 || now - l->fed_ns < every)
        return;
    uint64_t beat = atomic_load(&l->heart->beat);
    if (beat == l->fed_beat && !hg_heart_is_young(l->heart, every, now))
        return;
    l->fed_beat = beat;
    l->fed_ns = now;
    hg_notify(&l->notify, "WATCHDOG=1");
}

/* How long the main thread may wait for signals, if it has nothing else to do. */
static int64_t glance_ns(const struct life *l)
{
    int64_t most = second_ns / 2, wanted = l->notify.watchdog_ns / 8;
    return wanted > 0 && wanted < most ? wanted : most;
}

/* ---- loading --------------------------------------------------------------------------------- */

static void on_hung(void *ctx, const struct hg_error *why)
{
    struct watched *w = ctx;
    struct hg_scheduler *s = atomic_load(&w->scheduler);
    if (!s) /* it was loading: there are no requests */
        hg_process_leave(hg_status_exit_code(why->status));
    hg_scheduler_abandon(s, why);
}

static enum hg_status load_model(const struct hg_config *c, struct hg_model **model,
                                 struct hg_error *err)
{
    struct hg_model_options o = {.path = c->model[0] ? c->model : NULL,
                                 .weights = c->weights,
                                 .system = c->system_prompt,
                                 .backend = c->backend,
                                 .dtype = c->dtype,
                                 .kv_dtype = c->kv_dtype,
                                 .lock = c->lock,
                                 .quant_cache = c->quant_cache,
                                 .plugin_dtype = c->plugin_dtype,
                                 .numerics = c->numerics,
                                 .n_threads = (int)c->threads,
                                 .max_seqs = (int)c->max_batch,
                                 .kv_tokens = c->kv_tokens,
                                 .forget = c->forget,
                                 .any_values = hg_fault(HG_FAULT_ANY_VALUES, NULL),
                                 .gpu_memory_utilization = c->gpu_memory_utilization};
    return hg_model_load(&o, model, err);
}

/* What this process computes now, before anybody asks; and is it what canary.json says? */
static enum hg_status try_canary(const struct hg_config *c, struct hg_model *model,
                                 struct hg_heart *heart, struct hg_canary **out,
                                 struct hg_error *err)
{
    bool rounded = strcmp(c->plugin_dtype, "int8") == 0 || strcmp(c->dtype, "int8") == 0 ||
                   strcmp(c->dtype, "fp8") == 0 || strcmp(c->dtype, "int4") == 0 ||
                   strcmp(c->numerics, "strict") == 0;
    if (c->canary_interval_s == 0)
        return HG_STATUS_OK;
    HG_TRY(hg_canary_create(model, heart, out, err));
    HG_TRY(hg_canary_expect(*out, rounded, err));
    return hg_canary_start(*out, hg_canary_is_long(*out), err);
}

/* In a thread of its own, so that the main thread goes on taking signals. */
struct loading {
    struct life *life;
    pthread_t main;
    enum hg_status status;
    struct hg_error *err;
    atomic_bool done;
};

static enum hg_status load_all(struct life *l, struct hg_error *err)
{
    hg_heart_beat(l->heart, HG_PIECE_LOAD);
    HG_TRY(load_model(l->config, &l->model, err));
    hg_ops_phase(l->ops, "self-test");
    HG_TRY(try_canary(l->config, l->model, l->heart, &l->s_options.canary, err));
    hg_heart_beat(l->heart, HG_PIECE_NONE);
    return HG_STATUS_OK;
}

static void *load_main(void *ctx)
{
    struct loading *w = ctx;
    w->status = load_all(w->life, w->err);
    atomic_store(&w->done, true);
    pthread_kill(w->main, LOADED_SIGNAL);
    return NULL;
}

static void tell_progress(struct life *l)
{
    double left_s, share = hg_model_load_share(&left_s);
    hg_notify(&l->notify, "STATUS=loading: %.0f %%\nEXTEND_TIMEOUT_USEC=%lld", 100 * share,
              (long long)EXTEND_S * 1000000);
    feed_watchdog(l);
}

/* A signal has come while the model loads: nothing was accepted, nobody waits for the loader. */
static _Noreturn void leave_early(struct life *l, int sig)
{
    hg_log(HG_LOG_INFO, "signal %d: the model was still loading", sig);
    hg_notify(&l->notify, "STOPPING=1\nSTATUS=stopped while loading");
    hg_ops_drain(l->ops);
    bool last = l->self.number >= 0 && !l->self.shared;
    hg_http_stop(l->http, REFUSED_MS, l->inherited && !last);
    hg_audit_close(l->http_options.audit);
    hg_process_leave(0);
}

static enum hg_status load_and_wait(struct life *l, struct hg_error *err)
{
    static struct loading w; /* of a thread that is left behind when a signal comes */
    sigset_t signals = *l->signals;
    pthread_t thread;
    w = (struct loading){.life = l, .main = pthread_self(), .err = err};
    sigaddset(&signals, LOADED_SIGNAL);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);
    if (pthread_create(&thread, NULL, load_main, &w) != 0)
        return hg_fail(err, HG_STATUS_INTERNAL, "cannot start the thread that loads");
    while (!atomic_load(&w.done)) {
        tell_progress(l);
        int64_t wait = glance_ns(l);
        int sig = next_signal(l, &signals, wait < TELL_S * second_ns ? wait : TELL_S * second_ns);
        if (sig > 0 && sig != LOADED_SIGNAL)
            leave_early(l, sig);
    }
    pthread_join(thread, NULL);
    return w.status;
}

/* ---- serving --------------------------------------------------------------------------------- */

/* Until a signal or a lost device. The first signal drains; a second one ends the grace. */
static enum hg_status serve(struct life *l, struct hg_error *err)
{
    struct hg_scheduler *s = l->scheduler;
    int sig = -1;
    while (sig <= 0 && !hg_scheduler_trouble(s)) {
        feed_watchdog(l);
        sig = next_signal(l, l->signals, glance_ns(l));
    }
    hg_ops_drain(l->ops);
    hg_http_drain(l->http);
    hg_notify(&l->notify, "STOPPING=1\nSTATUS=draining");
    if (sig > 0)
        hg_log(HG_LOG_INFO, "signal %d: draining for at most %lld s", sig,
               (long long)l->config->drain_s);
    hg_scheduler_drain(s, sig > 0 ? l->config->drain_s * 1000 : 0);
    while (!hg_scheduler_drained(s) && !hg_scheduler_hung(s)) {
        feed_watchdog(l);
        if (next_signal(l, l->signals, second_ns / 50) > 0)
            hg_scheduler_drain(s, 0);
    }
    const char *trouble = hg_scheduler_trouble(s);
    if (!trouble || (sig > 0 && !hg_scheduler_hung(s)))
        return HG_STATUS_OK;
    return hg_fail(err, hg_scheduler_device_lost(s) ? HG_STATUS_DEVICE : HG_STATUS_ENGINE,
                   "%s: to be started again (see the log)", trouble);
}

static void set_options(struct life *l)
{
    const struct hg_config *c = l->config;
    struct hg_guard_limits *g = &l->http_options.limits;
    l->http_options.n_threads = (int)c->http_threads;
    l->http_options.max_connections = (int)c->max_connections;
    l->http_options.max_queue = (int)c->max_queue;
    l->http_options.auth_failures_per_minute = (double)c->auth_failures_per_minute;
    l->http_options.max_connections_per_address = (int)c->max_connections_per_address;
    l->http_options.allowed_hosts = c->allowed_hosts;
    l->http_options.strict = c->strict;
    l->http_options.cors_origins = c->cors_origins;
    l->http_options.no_page = c->no_page;
    l->http_options.ping_ns = c->ping_s * second_ns;
    l->http_options.stall_ns = c->stall_s * second_ns;
    l->http_options.n_restarts = l->self.number > 0 ? l->self.number : 0;
    hg_guard_limits_default(g);
    g->header_ns = c->header_timeout_s * second_ns;
    g->body_ns = c->body_timeout_s * second_ns;
    g->idle_ns = c->idle_timeout_s * second_ns;
    g->n_requests = (uint64_t)c->connection_requests;
    g->life_ns = c->connection_s * second_ns;
    g->send_ns = c->send_timeout_s * second_ns;
    g->rate = c->min_rate;
    g->max_unsent = (size_t)c->max_unsent_kib << 10;
    l->s_options = (struct hg_scheduler_options){.max_batch = (int)c->max_batch,
                                                 .max_queue = (int)c->max_queue,
                                                 .timeout_ms = c->timeout_s * 1000,
                                                 .max_queue_tokens = c->max_queue_tokens,
                                                 .heart = l->heart,
                                                 .canary_interval_ms = c->canary_interval_s * 1000};
}

/* Ports and watchdog: all that is there before the model. */
static enum hg_status open_all(struct life *l, struct hg_error *err)
{
    const struct hg_config *c = l->config;
    if (c->api_keys[0]) {
        HG_TRY(hg_keys_create(c->api_keys, &l->http_options.keys, err));
        hg_log(HG_LOG_INFO, "%zu API keys", hg_keys_count(l->http_options.keys));
    }
    if (c->audit_log[0]) {
        struct hg_audit_options o = {.path = c->audit_log,
                                     .key_file = c->audit_key_file,
                                     .fail_closed = strcmp(c->audit_fail, "closed") == 0};
        HG_TRY(hg_audit_open(&o, &l->http_options.audit, err));
    }
    HG_TRY(hg_daemon_socket(c, &l->address, &l->http_options.socket, &l->inherited, err));
    l->http_options.loopback = hg_listen_is_loopback(&l->address);
    /* Two for each connection (the guard's is a duplicate), and what is open anyway. */
    hg_process_want_files(2 * c->max_connections + 128);
    HG_TRY(start_ops(l, err));
    if (!l->inherited) {
        char url[HG_LISTEN_ADDR_CAP + 24];
        HG_TRY(hg_http_start(&l->http_options, NULL, NULL, &l->http, err));
        hg_listen_url(&l->address, url);
        hg_log(HG_LOG_INFO, "main port: %s, \"loading\" until the model is there", url);
    }
    return hg_watchdog_start(l->heart, (int64_t)(c->step_timeout_s * 1000), on_hung, l->watched,
                             &l->watchdog, err);
}

static enum hg_status load_and_serve(struct life *l, struct hg_error *err)
{
    HG_TRY(load_and_wait(l, err));
    hg_crash_learn_modules();
    hg_fault_arm();
    HG_TRY(hg_scheduler_create(l->model, &l->s_options, &l->scheduler, err));
    atomic_store(&l->watched->scheduler, l->scheduler);
    hg_audit_model(l->http_options.audit, hg_scheduler_model_info(l->scheduler));
    hg_log(HG_LOG_INFO, "memory: at most 24 KiB for each of %lld connections that wait",
           (long long)l->config->max_connections);
    if (l->inherited)
        HG_TRY(hg_http_start(&l->http_options, l->model, l->scheduler, &l->http, err));
    else
        hg_http_serve(l->http, l->model, l->scheduler);
    hg_ops_ready(l->ops, l->scheduler);
    announce(&l->address, hg_scheduler_model_info(l->scheduler));
    hg_notify(&l->notify, "READY=1\nSTATUS=ready");
    return serve(l, err);
}

enum hg_status hg_daemon_run(const struct hg_config *c, const sigset_t *signals,
                             struct hg_worker self, struct hg_error *err)
{
    static struct hg_heart heart;
    static struct watched watched;
    struct life l = {
        .config = c, .signals = signals, .self = self, .heart = &heart, .watched = &watched};
    hg_notify_open(&l.notify);
    set_options(&l);
    enum hg_status status = open_all(&l, err);
    if (status == HG_STATUS_OK)
        status = load_and_serve(&l, err);
    /* Requests end before the daemon stops (a suspended connection must not see that), and the
     * daemon stops before the scheduler that its threads submit to is released. */
    bool last = self.number >= 0 && !self.shared && status == HG_STATUS_OK;
    hg_http_stop(l.http, FLUSH_MS, l.inherited && !last);
    hg_audit_close(l.http_options.audit);
    if (l.scheduler && hg_scheduler_hung(l.scheduler))
        return status; /* its thread is still in there: main leaves without more */
    hg_ops_stop(l.ops);
    hg_scheduler_free(l.scheduler);
    hg_watchdog_stop(l.watchdog);
    hg_canary_free(l.s_options.canary);
    hg_model_free(l.model);
    hg_keys_free(l.http_options.keys);
    hg_notify_close(&l.notify);
    return status;
}
