/* server/main.c - healthgptd: read the configuration, load, serve, stop in the right order.
 *
 * Exit codes: 0 stopped by a signal, 64 usage or configuration, 69 the port is in use, others by
 * hg_status_exit_code. 70 (the engine hangs, or its canary is wrong), 71 (the device is lost) and
 * 75 (out of memory) ask for a new start: server/supervisor.h, deploy/healthgptd.service. */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/fault.h"
#include "common/log.h"
#include "server/config.h"
#include "server/crash.h"
#include "server/http.h"
#include "server/listen.h"
#include "server/process.h"
#include "server/supervisor.h"
#include "server/version.h"

static const int64_t second_ns = 1000000000;
enum { FLUSH_MS = 2000, EXIT_PORT_IN_USE = 69 };

static int usage(FILE *to)
{
    struct hg_buf flags = {0};
    hg_config_help(&flags);
    fprintf(
        to,
        "usage: healthgptd [--config FILE] [options]\n"
        "       healthgptd keygen [NAME]   a fresh API key, and its line for --api-keys\n"
        "Serves HealthGPT over HTTP: image questions and image generation. Not for clinical "
        "use.\n\n"
        "  --config FILE            JSON with comments (see config/default.json); flags win\n"
        "%s"
        "  --help                   this text\n"
        "  --version                version\n\n"
        "routes: GET /health  GET /v1/models  POST /v1/vqa  POST /v1/images/generations\n"
        "try:    curl -F image=@x.png -F question='Is there pneumonia?' "
        "http://127.0.0.1:8080/v1/vqa\n"
        "        with -F stream=true (curl -N) the answer comes as lines of JSON\n\n"
        "SIGTERM or SIGINT drains; a second one stops at once. SIGHUP reads the API keys again.\n",
        flags.data ? flags.data : "");
    hg_buf_deinit(&flags);
    return to == stdout ? 0 : hg_status_exit_code(HG_STATUS_BAD_REQUEST);
}

static int fail(const struct hg_error *err)
{
    fprintf(stderr, "healthgptd: %s\n", err->text);
    return err->status == HG_STATUS_BUSY ? EXIT_PORT_IN_USE : hg_status_exit_code(err->status);
}

/* Split "--name=value" or "--name value" at argv[*i]; advances *i past the value. */
static enum hg_status next_option(int argc, char **argv, int *i, char *name, size_t cap,
                                  const char **value, struct hg_error *err)
{
    const char *arg = argv[*i];
    const char *eq = strchr(arg, '=');
    size_t n = eq ? (size_t)(eq - arg) : strlen(arg);
    *value = eq ? eq + 1 : NULL;
    if (strncmp(arg, "--", 2) != 0 || n < 3 || n - 2 >= cap)
        return hg_fail(err, HG_STATUS_BAD_REQUEST, "unexpected argument \"%.64s\": see --help",
                       arg);
    memcpy(name, arg + 2, n - 2);
    name[n - 2] = '\0';
    int takes = strcmp(name, "config") == 0 ? 1 : hg_config_flag_takes_value(name);
    if (takes < 0)
        return hg_fail(err, HG_STATUS_BAD_REQUEST, "unknown option --%s: see --help", name);
    bool wants = takes == 1;
    if (!*value && wants && *i + 1 < argc)
        *value = argv[++*i];
    if (!*value && wants)
        return hg_fail(err, HG_STATUS_BAD_REQUEST, "option --%s: expected a value", name);
    return HG_STATUS_OK;
}

/* Two passes, so that a flag wins over the file wherever it stands. */
static enum hg_status read_options(int argc, char **argv, struct hg_config *c, struct hg_error *err)
{
    hg_config_default(c);
    for (int pass = 0; pass < 2; pass++) {
        for (int i = 1; i < argc; i++) {
            char name[64];
            const char *value;
            HG_TRY(next_option(argc, argv, &i, name, sizeof name, &value, err));
            bool is_file = strcmp(name, "config") == 0;
            if (pass == 0 && is_file)
                HG_TRY(hg_config_read(c, value, err));
            else if (pass == 1 && !is_file)
                HG_TRY(hg_config_set(c, name, value, err));
        }
    }
    return HG_STATUS_OK;
}

/* *inherited: it listens already, and somebody else has it too. */
static enum hg_status open_socket(const struct hg_config *c, struct hg_listen_address *a, int *fd,
                                  bool *inherited, struct hg_error *err)
{
    HG_TRY(hg_listen_parse(c->listen, a, err));
    HG_TRY(hg_listen_inherit(a, fd, err));
    *inherited = *fd >= 0;
    if (!hg_listen_is_loopback(a) && !c->insecure && !c->api_keys[0])
        return hg_fail(err, HG_STATUS_BAD_REQUEST,
                       "%s is not loopback and there is no authentication: give --api-keys, put a "
                       "proxy in front, or say --insecure",
                       a->addr);
    return *inherited ? HG_STATUS_OK : hg_listen_bind(a, fd, err);
}

static enum hg_status load_model(const struct hg_config *c, struct hg_model **model,
                                 struct hg_error *err)
{
    struct hg_model_options o = {.path = c->model[0] ? c->model : NULL,
                                 .backend = c->backend,
                                 .dtype = c->dtype,
                                 .kv_dtype = c->kv_dtype,
                                 .n_threads = (int)c->threads,
                                 .max_seqs = (int)c->max_batch,
                                 .kv_tokens = c->kv_tokens,
                                 .forget = c->forget,
                                 .gpu_memory_utilization = c->gpu_memory_utilization};
    return hg_model_load(&o, model, err);
}

/* One line that scripts wait for, with the port that was chosen. */
static void announce(const struct hg_listen_address *a, const struct hg_model_info *info)
{
    char url[HG_LISTEN_ADDR_CAP + 24];
    hg_listen_url(a, url);
    printf("healthgptd: listening on %s (model %s, backend %s)\n", url, info->name, info->backend);
    fflush(stdout);
}

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

/* The next signal that ends something; SIGHUP is done on the way. */
static int next_signal(const sigset_t *signals, const struct timespec *wait, struct hg_keys *keys)
{
    int sig = sigtimedwait(signals, NULL, wait);
    if (sig != SIGHUP)
        return sig;
    reload_keys(keys);
    return -1;
}

/* Until a signal or a lost device. The first signal drains; a second one ends the grace. Signals
 * are blocked in every thread and taken here only. */
static enum hg_status serve(const sigset_t *signals, const struct hg_config *c,
                            struct hg_http *http, struct hg_scheduler *scheduler,
                            struct hg_keys *keys, struct hg_error *err)
{
    const struct timespec slice = {0, 20000000}, glance = {0, 500000000};
    int sig = -1;
    while (sig <= 0 && !hg_scheduler_trouble(scheduler))
        sig = next_signal(signals, &glance, keys);
    if (sig > 0)
        hg_log(HG_LOG_INFO, "signal %d: draining for at most %lld s", sig, (long long)c->drain_s);
    hg_http_drain(http);
    hg_scheduler_drain(scheduler, sig > 0 ? c->drain_s * 1000 : 0);
    while (!hg_scheduler_drained(scheduler) && !hg_scheduler_hung(scheduler))
        if (next_signal(signals, &slice, keys) > 0)
            hg_scheduler_drain(scheduler, 0);
    const char *trouble = hg_scheduler_trouble(scheduler);
    if (!trouble || (sig > 0 && !hg_scheduler_hung(scheduler)))
        return HG_STATUS_OK;
    return hg_fail(err, hg_scheduler_device_lost(scheduler) ? HG_STATUS_DEVICE : HG_STATUS_ENGINE,
                   "%s: to be started again (see the log)", trouble);
}

static void set_limits(const struct hg_config *c, struct hg_guard_limits *l)
{
    hg_guard_limits_default(l);
    l->header_ns = c->header_timeout_s * second_ns;
    l->body_ns = c->body_timeout_s * second_ns;
    l->idle_ns = c->idle_timeout_s * second_ns;
    l->n_requests = (uint64_t)c->connection_requests;
    l->life_ns = c->connection_s * second_ns;
    l->send_ns = c->send_timeout_s * second_ns;
    l->rate = c->min_rate;
    l->max_unsent = (size_t)c->max_unsent_kib << 10;
}

/* What the watchdog may touch: the scheduler once there is one. */
struct watched {
    _Atomic(struct hg_scheduler *) scheduler;
};

static void on_hung(void *ctx, const struct hg_error *why)
{
    struct watched *w = ctx;
    struct hg_scheduler *s = atomic_load(&w->scheduler);
    if (!s) /* it was loading: there are no requests */
        hg_process_leave(hg_status_exit_code(why->status));
    hg_scheduler_abandon(s, why);
}

/* What this process computes now, before anybody asks; and is it what canary.json says? */
static enum hg_status try_canary(const struct hg_config *c, struct hg_model *model,
                                 struct hg_heart *heart, struct hg_canary **out,
                                 struct hg_error *err)
{
    bool quantised = strcmp(c->dtype, "int8") == 0 || strcmp(c->dtype, "fp8") == 0 ||
                     strcmp(c->dtype, "int4") == 0;
    if (c->canary_interval_s == 0)
        return HG_STATUS_OK;
    HG_TRY(hg_canary_create(model, heart, out, err));
    HG_TRY(hg_canary_expect(*out, quantised, err));
    return hg_canary_run(*out, err);
}

static enum hg_status run(const struct hg_config *c, const sigset_t *signals, struct hg_worker self,
                          struct hg_error *err)
{
    static struct hg_heart heart;
    static struct watched watched;
    struct hg_listen_address address;
    struct hg_http_options http_options = {.n_threads = (int)c->http_threads,
                                           .max_connections = (int)c->max_connections,
                                           .max_connections_per_address =
                                               (int)c->max_connections_per_address,
                                           .allowed_hosts = c->allowed_hosts,
                                           .max_queue = (int)c->max_queue,
                                           .strict = c->strict,
                                           .ping_ns = c->ping_s * second_ns,
                                           .stall_ns = c->stall_s * second_ns,
                                           .n_restarts = self.number > 0 ? self.number : 0};
    struct hg_scheduler_options s_options = {.max_batch = (int)c->max_batch,
                                             .max_queue = (int)c->max_queue,
                                             .timeout_ms = c->timeout_s * 1000,
                                             .max_queue_tokens = c->max_queue_tokens,
                                             .heart = &heart,
                                             .canary_interval_ms = c->canary_interval_s * 1000};
    struct hg_model *model = NULL;
    struct hg_watchdog *watchdog = NULL;
    bool inherited = false, last;
    struct hg_scheduler *scheduler = NULL;
    struct hg_http *http = NULL;
    enum hg_status status = HG_STATUS_OK;
    if (c->api_keys[0]) {
        HG_TRY_OUT(hg_keys_create(c->api_keys, &http_options.keys, err));
        hg_log(HG_LOG_INFO, "%zu API keys", hg_keys_count(http_options.keys));
    }
    HG_TRY_OUT(open_socket(c, &address, &http_options.socket, &inherited, err));
    set_limits(c, &http_options.limits);
    http_options.loopback = hg_listen_is_loopback(&address);
    HG_TRY_OUT(hg_watchdog_start(&heart, (int64_t)(c->step_timeout_s * 1000), on_hung, &watched,
                                 &watchdog, err));
    hg_heart_beat(&heart, HG_PIECE_LOAD);
    HG_TRY_OUT(load_model(c, &model, err));
    HG_TRY_OUT(try_canary(c, model, &heart, &s_options.canary, err));
    hg_heart_beat(&heart, HG_PIECE_NONE);
    hg_fault_arm();
    HG_TRY_OUT(hg_scheduler_create(model, &s_options, &scheduler, err));
    atomic_store(&watched.scheduler, scheduler);
    hg_log(HG_LOG_INFO, "memory: at most 64 KiB for each of %lld connections",
           (long long)c->max_connections);
    /* Two for each connection (the guard's is a duplicate), and what is open anyway. */
    hg_process_want_files(2 * c->max_connections + 64);
    hg_crash_learn_modules();
    HG_TRY_OUT(hg_http_start(&http_options, model, scheduler, &http, err));
    announce(&address, hg_scheduler_model_info(scheduler));
    status = serve(signals, c, http, scheduler, http_options.keys, err);
out:
    /* Requests end before the daemon stops (a suspended connection must not see that), and the
     * daemon stops before the scheduler that its threads submit to is released. */
    last = self.number >= 0 && !self.shared && status == HG_STATUS_OK;
    hg_http_stop(http, FLUSH_MS, inherited && !last);
    if (scheduler && hg_scheduler_hung(scheduler))
        return status; /* its thread is still in there: main leaves without more */
    hg_scheduler_free(scheduler);
    hg_watchdog_stop(watchdog);
    hg_canary_free(s_options.canary);
    hg_model_free(model);
    hg_keys_free(http_options.keys);
    return status;
}

static int keygen(int argc, char **argv)
{
    struct hg_buf text = {0};
    struct hg_error err = {.status = HG_STATUS_BAD_REQUEST, .text = "keygen: expected one NAME"};
    if (argc > 3 || hg_keys_generate(argc == 3 ? argv[2] : "client", &text, &err) != HG_STATUS_OK)
        return fail(&err);
    bool written = fputs(text.data, stdout) >= 0 && fflush(stdout) == 0;
    hg_buf_deinit(&text);
    return written ? 0 : hg_status_exit_code(HG_STATUS_IO);
}

/* The parent of the server: it holds the socket. */
static int supervise(const struct hg_config *c, char **argv)
{
    struct hg_listen_address address;
    struct hg_error err = {0};
    bool inherited;
    int fd;
    if (open_socket(c, &address, &fd, &inherited, &err) != HG_STATUS_OK)
        return fail(&err);
    if (!inherited && listen(fd, SOMAXCONN) != 0) {
        hg_fail(&err, HG_STATUS_IO, "cannot listen on %s", c->listen);
        return fail(&err);
    }
    return hg_supervise(fd, inherited, (int)c->max_restarts, argv);
}

int main(int argc, char **argv)
{
    static struct hg_config config;
    struct hg_error err = {0};
    hg_process_init("healthgptd");
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
            return usage(stdout);
        if (strcmp(argv[i], "--version") == 0) {
            puts("healthgptd " HG_VERSION);
            return 0;
        }
    }
    if (argc > 1 && strcmp(argv[1], "keygen") == 0)
        return keygen(argc, argv);
    if (read_options(argc, argv, &config, &err) != HG_STATUS_OK)
        return fail(&err);
    hg_log_set(HG_LOG_INFO, config.log_json);
    hg_crash_install(config.core_dumps, config.log_json);
    struct hg_worker self = hg_worker_self();
    if (hg_fault_plant(self.number > 0 ? self.number : 0, &err) != HG_STATUS_OK)
        return fail(&err);
    if (config.supervise && self.number < 0)
        return supervise(&config, argv);
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);
    if (run(&config, &signals, self, &err) == HG_STATUS_OK)
        return 0;
    int code = fail(&err);
    if (err.status == HG_STATUS_DEVICE || err.status == HG_STATUS_ENGINE)
        hg_process_leave(code);
    return code;
}
