/* server/supervisor.c - see supervisor.h. One thread, signals are waited for. */
#include "server/supervisor.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"

enum { WINDOW_S = 600, WORKER_FD = 3 };
static const char worker_variable[] = "HG_WORKER"; /* "<pid> <number> <shared>" */

/* ---- the rule -------------------------------------------------------------------------------- */

int64_t hg_restarts_next(struct hg_restarts *r, int64_t now_ns)
{
    static const int64_t wait_ms[] = {0, 1000, 2000, 5000, 10000, 30000};
    enum { N_WAITS = sizeof wait_ms / sizeof wait_ms[0] };
    int old = 0;
    while (old < r->n && now_ns - r->at_ns[old] > (int64_t)WINDOW_S * 1000000000)
        old++;
    r->n -= old;
    memmove(r->at_ns, r->at_ns + old, (size_t)r->n * sizeof r->at_ns[0]);
    if (r->n >= r->most || r->n >= HG_MAX_RESTARTS)
        return -1;
    r->at_ns[r->n] = now_ns;
    int64_t wait = wait_ms[r->n < N_WAITS ? r->n : N_WAITS - 1];
    r->n++;
    return wait;
}

bool hg_restart_helps(int wait_status)
{
    if (WIFSIGNALED(wait_status))
        return true;
    int code = WEXITSTATUS(wait_status);
    return code == hg_status_exit_code(HG_STATUS_ENGINE) ||
           code == hg_status_exit_code(HG_STATUS_DEVICE) ||
           code == hg_status_exit_code(HG_STATUS_NO_MEMORY);
}

int hg_exit_code_of(int wait_status)
{
    return WIFSIGNALED(wait_status) ? 128 + WTERMSIG(wait_status) : WEXITSTATUS(wait_status);
}

/* ---- the worker ------------------------------------------------------------------------------ */

struct hg_worker hg_worker_self(void)
{
    const char *text = getenv(worker_variable);
    long pid = 0;
    int number = 0, shared = 0;
    bool is_one = text && sscanf(text, "%ld %d %d", &pid, &number, &shared) == 3 &&
                  pid == (long)getpid() && number >= 0;
    unsetenv(worker_variable);
    return (struct hg_worker){.number = is_one ? number : -1, .shared = is_one && shared};
}

/* In the child; only returns when it cannot. */
static void become_worker(int socket, const struct hg_worker *w, pid_t parent, const sigset_t *mask,
                          char **argv)
{
    char pid[24], worker[48];
    snprintf(pid, sizeof pid, "%ld", (long)getpid());
    snprintf(worker, sizeof worker, "%s %d %d", pid, w->number, w->shared);
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent)
        _exit(0); /* it has died already */
    if (socket != WORKER_FD ? dup2(socket, WORKER_FD) < 0 : fcntl(socket, F_SETFD, 0) != 0)
        return;
    if (setenv("LISTEN_FDS", "1", 1) != 0 || setenv("LISTEN_PID", pid, 1) != 0 ||
        setenv(worker_variable, worker, 1) != 0)
        return;
    sigprocmask(SIG_SETMASK, mask, NULL);
    execv("/proc/self/exe", argv);
}

static pid_t start_worker(int socket, const struct hg_worker *w, const sigset_t *mask, char **argv)
{
    pid_t parent = getpid(), child = fork();
    if (child != 0)
        return child;
    become_worker(socket, w, parent, mask, argv);
    fprintf(stderr, "healthgptd: cannot start the worker: %s\n", strerror(errno));
    _exit(hg_status_exit_code(HG_STATUS_IO));
}

/* ---- the parent ------------------------------------------------------------------------------ */

/* Until the child has ended; *stopping: a signal was passed on to it. */
static int wait_for(pid_t child, const sigset_t *signals, bool *stopping)
{
    for (;;) {
        int status, sig = sigwaitinfo(signals, NULL);
        if (sig == SIGTERM || sig == SIGINT) {
            *stopping = true;
            kill(child, sig);
        } else if (sig == SIGHUP) { /* for the worker: its API keys */
            kill(child, sig);
        }
        if (waitpid(child, &status, WNOHANG) == child)
            return status;
    }
}

/* False: a signal says to stop. */
static bool pause_for(int64_t ms, const sigset_t *stops)
{
    const struct timespec time = {ms / 1000, ms % 1000 * 1000000};
    int sig;
    do
        sig = sigtimedwait(stops, NULL, &time);
    while (sig < 0 && errno == EINTR);
    return sig < 0;
}

int hg_supervise(int socket, bool shared, int max_restarts, char **argv)
{
    struct hg_worker worker = {.shared = shared};
    struct hg_restarts restarts = {.most = max_restarts};
    sigset_t signals, stops, before;
    signal(SIGCHLD, SIG_DFL); /* ignored by who started us: nobody would be waited for */
    sigemptyset(&stops);
    sigaddset(&stops, SIGTERM);
    sigaddset(&stops, SIGINT);
    signals = stops;
    sigaddset(&signals, SIGCHLD);
    sigaddset(&signals, SIGHUP);
    sigprocmask(SIG_BLOCK, &signals, &before);
    sigaddset(&before, SIGHUP); /* until the worker takes it itself */
    for (;; worker.number++) {
        bool stopping = false;
        pid_t child = start_worker(socket, &worker, &before, argv);
        if (child < 0) {
            fprintf(stderr, "healthgptd: cannot start the worker: %s\n", strerror(errno));
            return hg_status_exit_code(HG_STATUS_IO);
        }
        int status = wait_for(child, &signals, &stopping), code = hg_exit_code_of(status);
        if (stopping || !hg_restart_helps(status))
            return code;
        int64_t ms = hg_restarts_next(&restarts, hg_now_ns());
        hg_log(HG_LOG_ERROR,
               "supervisor: the worker ended with %d: %s (%d of at most %d restarts "
               "in %d s)",
               code, ms < 0 ? "given up" : "it is started again", restarts.n, max_restarts,
               WINDOW_S);
        if (ms < 0)
            return hg_status_exit_code(HG_STATUS_ENGINE);
        if (!pause_for(ms, &stops))
            return 0;
    }
}
