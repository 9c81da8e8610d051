/* server/main.c - healthgptd: read the configuration, then be the server (server/daemon.h) or its
 * supervisor.
 *
 * Exit codes: 0 stopped by a signal, 64 usage or configuration, 69 the port is in use, others by
 * hg_status_exit_code. 70 (the engine hangs, or its canary is wrong), 71 (the device is lost) and
 * 75 (out of memory) ask for a new start: server/supervisor.h, deploy/healthgptd.service. */
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/fault.h"
#include "common/log.h"
#include "server/config/config.h"
#include "server/config/options.h"
#include "server/crash.h"
#include "server/daemon.h"
#include "server/http/keys.h"
#include "server/process.h"
#include "server/supervisor.h"

enum { EXIT_PORT_IN_USE = 69 };

static int fail(const struct hg_error *err)
{
    fprintf(stderr, "healthgptd: %s\n", err->text);
    return err->status == HG_STATUS_BUSY ? EXIT_PORT_IN_USE : hg_status_exit_code(err->status);
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
    int code;
    hg_process_init("healthgptd");
    switch (hg_options_read(argc, argv, environ, &config, &code)) {
    case HG_OPTIONS_DONE:
        return code;
    case HG_OPTIONS_KEYGEN:
        return keygen(argc, argv);
    case HG_OPTIONS_SERVE:
        break;
    }
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
    if (hg_daemon_run(&config, &signals, self, &err) == HG_STATUS_OK)
        return 0;
    code = fail(&err);
    if (err.status == HG_STATUS_DEVICE || err.status == HG_STATUS_ENGINE)
        hg_process_leave(code);
    return code;
}
