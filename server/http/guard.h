/* server/http/guard.h - one thread that watches the sockets of all connections, for what
 * libmicrohttpd does not see: a client that leaves while its connection is suspended, and clients
 * that keep a connection by sending or reading a byte now and then (its time-out is one of
 * inactivity).
 *
 * A connection is added when it is accepted and removed before its socket is closed. The guard
 * keeps a dup() of the descriptor, so that it never touches a socket that got the same number, and
 * is told what the connection is at:
 *
 *   header  until the headers are complete     header_ns; after a request idle_ns + header_ns
 *   body    until the body is complete         body_ns, and free_ns + received / rate
 *   work    a request is computed, its stream  the client must not leave; a stream: reading
 * (below), is sent as it grows                and bytes waiting at the request's deadline + 2
 * send_ns answer  the rest of an answer is sent      reading, and send_ns + its bytes / rate
 *
 * Reading: bytes may not stay in the send buffer for send_ns without one of them being acknowledged
 * (TCP_INFO), nor may more than max_unsent bytes wait for that long, send buffer and unread events
 * together. The send buffer itself is set to max_unsent, so a client cannot make the kernel hold
 * more.
 *
 * A client is gone when its side of the connection is closed, half of it (shutdown(SHUT_WR), FIN)
 * or all: the two look the same to a server that has nothing to send. So a half-closed client's
 * request is cancelled; what was sent already, and the line that says so, can still be read.
 *
 * A cut shuts both directions down, after a 408 when no answer has begun; the server's poll then
 * sees an error and closes. It is counted and logged with its reason (no addresses, no contents). A
 * connection that cannot be guarded (table full, no descriptor) is refused: hg_guard_add is NULL.
 *
 * Everything is thread-safe; a connection's own calls come from one thread at a time. Callbacks run
 * with the guard's lock held: they must be short and must not call back. */
#ifndef HG_SERVER_GUARD_H
#define HG_SERVER_GUARD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/status.h"

struct hg_guard;
struct hg_guarded; /* one connection */

struct hg_guard_limits {
    int n_connections;
    int64_t header_ns, idle_ns, body_ns, send_ns;
    uint64_t n_requests; /* of one connection, and the time from accept on: */
    int64_t life_ns;     /* then hg_guard_request */
    int64_t rate;        /* bytes per second, of a body and of the rest of an answer */
    size_t max_unsent;   /* bytes */
    bool uncounted;      /* not in the metrics of the process, which are the main port's */
};

enum hg_cut {
    HG_CUT_GONE, /* not cut by us: cancelled */
    HG_CUT_SLOW_HEADER,
    HG_CUT_SLOW_BODY,
    HG_CUT_NOT_READING,  /* no progress */
    HG_CUT_SLOW_READING, /* too much has waited for too long, or the answer took too long */
    HG_CUT_REFUSED,      /* could not be guarded */
    HG_CUT_CROWDED,      /* the oldest of too many without a whole header */
    HG_CUT_COUNT
};
const char *hg_cut_name(enum hg_cut c); /* "slow_header" */

struct hg_guard_stats {
    size_t n_open, n_working; /* connections; those of them with a request that is computed */
    uint64_t n_cut[HG_CUT_COUNT];
};

/* 10 s, 75 s, 60 s, 30 s, 1000, 1 h, 16 KiB/s, 256 KiB; n_connections 0. */
void hg_guard_limits_default(struct hg_guard_limits *l);

/* `tick` (may be NULL) is called by the guard's thread about four times a second, no lock held. */
typedef void hg_guard_tick_fn(void *ctx, int64_t now_ns);
enum hg_status hg_guard_create(const struct hg_guard_limits *l, hg_guard_tick_fn *tick, void *ctx,
                               struct hg_guard **out, struct hg_error *err);
/* Ends the thread. Connections that are still there are let go. NULL is fine. */
void hg_guard_free(struct hg_guard *g);

/* A new connection, waiting for headers. NULL: it cannot be watched and must be closed. The
 * functions below do nothing for NULL. At most a quarter of the connections (8 are always good) may
 * be without a whole header since they were accepted: for one more, the oldest of them is cut. */
struct hg_guarded *hg_guard_add(struct hg_guard *g, int fd);
void hg_guard_remove(struct hg_guarded *c);

/* A request's headers are there. True: it is the last one that this connection may send. */
bool hg_guard_request(struct hg_guarded *c);
/* Headers of the next request from now on; afterwards no callback of the last one runs. */
void hg_guard_idle(struct hg_guarded *c);
void hg_guard_body(struct hg_guarded *c);
void hg_guard_received(struct hg_guarded *c, size_t n_bytes); /* of the body */
/* `gone` is called once when the client leaves or is cut, at once if it has left already, never
 * after idle, answer or remove. number: of the request, for the log. `waiting`: bytes that wait to
 * be sent, for a stream; NULL when nothing is sent before the end. */
typedef void hg_guard_gone_fn(void *ctx);
void hg_guard_work(struct hg_guarded *c, uint64_t number, int64_t deadline_ns,
                   hg_guard_gone_fn *gone, void *ctx, const atomic_size_t *waiting);
/* After hg_guard_work: until the end of that phase `nudge` is called with its ctx about every
 * every_ns, so that an idle stream can send something (a proxy cuts what is silent). */
typedef void hg_guard_nudge_fn(void *ctx);
void hg_guard_nudge(struct hg_guarded *c, int64_t every_ns, hg_guard_nudge_fn *nudge);
void hg_guard_answer(struct hg_guarded *c, size_t n_bytes); /* these are the last to send */

void hg_guard_stats(struct hg_guard *g, struct hg_guard_stats *out);

/* What the thread does, public for tests: cut at each tick what is due at now_ns (of hg_now_ns);
 * take an event of the connection at place `tag`, unless that has another generation by now
 * (tag >> 32, counted from 0 on). */
void hg_guard_scan(struct hg_guard *g, int64_t now_ns);
void hg_guard_event(struct hg_guard *g, uint64_t tag);

#endif
