/* server/ops/ops.h - the operators' port: a second HTTP daemon with one thread of its own, so that
 * it answers while the model loads, at full load, and when the main port has no connection left.
 *
 *   GET /livez     200 while the process is worth keeping
 *   GET /readyz    200 when requests may be sent here; 503 names the first condition that fails:
 *                  loading, device_lost, engine_hung, canary_failed, draining, engine_stalled,
 *                  audit_unavailable, queue_full (nine tenths of it are)
 *   GET /startupz  200 once the model is loaded
 *   GET /metrics   server/ops/metrics.h
 *   GET /version   what runs here
 *
 * Documents are JSON but for the metrics. It takes no lock that the engine takes. A guard of its
 * own (server/http/guard.h) cuts who drips or holds its 64 connections. With `keys` every route
 * wants one, of any role. */
#ifndef HG_SERVER_OPS_H
#define HG_SERVER_OPS_H

#include <stdbool.h>

#include "common/status.h"
#include "server/engine/scheduler.h"
#include "server/engine/watchdog.h"
#include "server/http/keys.h"

struct hg_ops;

struct hg_ops_options {
    int socket;           /* bound */
    bool loopback;        /* only local names are good in Host */
    struct hg_keys *keys; /* NULL: everybody may ask */
    const struct hg_heart *heart;
    const char *backend; /* as it was asked for; until the model is loaded */
    int n_restarts;
};

/* Takes the socket, also when it fails. */
enum hg_status hg_ops_start(const struct hg_ops_options *o, struct hg_ops **out,
                            struct hg_error *err);
/* What is done before it is ready: a string that stays. The first is "weights". NULL is fine, here
 * and below. */
void hg_ops_phase(struct hg_ops *o, const char *phase);
/* The model is there; `s` outlives the hg_ops. */
void hg_ops_ready(struct hg_ops *o, struct hg_scheduler *s);
void hg_ops_drain(struct hg_ops *o);
void hg_ops_stop(struct hg_ops *o);

/* The commit this program was built from, "" when that is not known. */
const char *hg_ops_commit(void);

#endif
