/* server/supervisor.h - a small parent that keeps the listening socket and starts the server again
 * when it fails.
 *
 * The parent never loads a model or touches a device: it binds, listens, starts the worker (the
 * same program and arguments; the socket goes along as with systemd, see hg_listen_inherit) and
 * waits. While a worker loads, clients wait in the backlog instead of being refused. SIGTERM and
 * SIGINT go to the worker, which has a process group of its own, so that a terminal does not send
 * them twice; when the parent dies, the worker drains.
 *
 * The worker is started again when it was killed by a signal or ended with 70 (engine broken), 71
 * (device lost) or 75 (out of memory), at first at once, then after 1, 2, 5, 10, 30 s. After
 * max_restarts within ten minutes the parent gives up with 70. Any other end is the parent's end,
 * with the same code (0 drained, 64 options, 65 and 66 model files, 69 port or backend). */
#ifndef HG_SERVER_SUPERVISOR_H
#define HG_SERVER_SUPERVISOR_H

#include <stdbool.h>
#include <stdint.h>

#include "common/status.h"

enum { HG_MAX_RESTARTS = 100 };

struct hg_restarts {
    int64_t at_ns[HG_MAX_RESTARTS]; /* the last n of the window */
    int n, most;
};
/* A worker has ended: milliseconds until the next one begins, -1: no more. */
int64_t hg_restarts_next(struct hg_restarts *r, int64_t now_ns);
/* Of a status of waitpid: should it be started again? */
bool hg_restart_helps(int wait_status);
/* Its exit code, or 128 + the signal. */
int hg_exit_code_of(int wait_status);

/* What a worker is told. */
struct hg_worker {
    int number;  /* of starts before this one; -1: this process is no worker */
    bool shared; /* the socket is a service manager's too: it goes on after the supervisor's end */
};
/* Takes the variable out of the environment: before there are threads. */
struct hg_worker hg_worker_self(void);

/* Runs until the end; returns the exit code. `socket` is listening; argv as main got it. */
int hg_supervise(int socket, bool shared, int max_restarts, char **argv);

#endif
