/* server/daemon.h - the life of the server: open the ports, load, serve, drain, stop in the right
 * order.
 *
 * The operators' port answers from the start. So does the main port, with 503 "loading", when this
 * process has bound it; a socket that was handed over is not touched before the model is there, and
 * clients wait in its backlog. "listening on" is printed when it is ready.
 *
 * SIGTERM or SIGINT: not ready any more, requests for work are refused, running ones finish within
 * drain_s, the others end with an error; a second one ends the grace. While the model loads nothing
 * is accepted, and the process leaves at once. SIGHUP reads the API keys again. */
#ifndef HG_SERVER_DAEMON_H
#define HG_SERVER_DAEMON_H

#include <signal.h>
#include <stdbool.h>

#include "common/status.h"
#include "server/config/config.h"
#include "server/listen.h"
#include "server/supervisor.h"

/* The main port's socket. *inherited: it listens already, and somebody else has it too. */
enum hg_status hg_daemon_socket(const struct hg_config *c, struct hg_listen_address *a, int *fd,
                                bool *inherited, struct hg_error *err);

/* Until a signal (OK) or a failure. `signals`: SIGTERM, SIGINT and SIGHUP, blocked in every thread
 * and taken here only. After DEVICE and ENGINE the process has to leave without more
 * (hg_process_leave). */
enum hg_status hg_daemon_run(const struct hg_config *c, const sigset_t *signals,
                             struct hg_worker self, struct hg_error *err);

#endif
