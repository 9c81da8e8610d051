/* server/main.c - healthgptd: read the configuration, then be the server (server/daemon.h) or its
 * supervisor.
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
#include "server/daemon.h"
#include "server/keys.h"
#include "server/process.h"
#include "server/supervisor.h"
#include "server/version.h"

enum { EXIT_PORT_IN_USE = 69 };

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
    if (hg_daemon_socket(c, &address, &fd, &inherited, &err) != HG_STATUS_OK)
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
    if (hg_daemon_run(&config, &signals, self, &err) == HG_STATUS_OK)
        return 0;
    int code = fail(&err);
    if (err.status == HG_STATUS_DEVICE || err.status == HG_STATUS_ENGINE)
        hg_process_leave(code);
    return code;
}
