/* server/http/guard.c - epoll for clients that leave, a scan of the table for those that are slow.
 *
 * One mutex guards the table. An event carries place and generation of its entry: one that was
 * fetched before its entry was given to another connection is recognised and dropped. */
#include "server/http/guard.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "server/ops/metrics.h"

enum { TICK_MS = 250, MAX_EVENTS = 64, MAX_CUTS = 32, CHUNK = 256 };

static const int64_t second_ns = 1000000000;
static const int64_t body_free_ns = 5000000000; /* before a body's rate is looked at */
static const uint64_t stop_tag = UINT64_MAX;

enum phase { PHASE_FREE, PHASE_HEADER, PHASE_BODY, PHASE_WORK, PHASE_ANSWER };

struct hg_guarded {
    struct hg_guard *guard;
    struct hg_guarded *next_free;
    uint32_t generation;
    int fd; /* a duplicate */
    enum phase phase;
    bool gone, cut;
    struct hg_guarded *older, *newer; /* among those without a whole header; see fresh */
    bool fresh;
    int64_t born_ns;
    uint64_t n_requests;
    int64_t since_ns, deadline_ns;
    size_t n_bytes; /* of the body */
    /* work */
    uint64_t number;
    hg_guard_gone_fn *on_gone; /* NULL once it was called */
    void *ctx;
    const atomic_size_t *waiting;
    hg_guard_nudge_fn *nudge;
    int64_t nudge_every_ns, nudge_ns;
    /* sending: send buffer and acknowledged bytes at the last look; the last times that there was
     * progress, and that not too much was waiting */
    int queued;
    uint64_t acked;
    int64_t moved_ns, roomy_ns;
};

struct hg_guard {
    struct hg_guard_limits limits;
    hg_guard_tick_fn *tick;
    void *ctx;
    int epoll, wake;
    pthread_t thread;
    pthread_mutex_t lock;
    struct hg_guarded *table, *free;    /* [n_connections] */
    struct hg_guarded *oldest, *newest; /* of the fresh ones, n_fresh of them */
    int n_fresh;
    struct hg_guard_stats stats;
};

struct cut {
    uint64_t number; /* 0: no request */
    enum hg_cut why;
    double seconds;
};

const char *hg_cut_name(enum hg_cut c)
{
    static const char *const names[HG_CUT_COUNT] = {
        [HG_CUT_GONE] = "gone",
        [HG_CUT_SLOW_HEADER] = "slow_header",
        [HG_CUT_SLOW_BODY] = "slow_body",
        [HG_CUT_NOT_READING] = "not_reading",
        [HG_CUT_SLOW_READING] = "slow_reading",
        [HG_CUT_REFUSED] = "refused",
        [HG_CUT_CROWDED] = "crowded",
    };
    return names[c];
}

void hg_guard_limits_default(struct hg_guard_limits *l)
{
    *l = (struct hg_guard_limits){.header_ns = 10 * second_ns,
                                  .idle_ns = 75 * second_ns,
                                  .body_ns = 60 * second_ns,
                                  .send_ns = 30 * second_ns,
                                  .n_requests = 1000,
                                  .life_ns = 3600 * second_ns,
                                  .rate = 16 << 10,
                                  .max_unsent = 256 << 10};
}

static void count_cut(const struct hg_guard *g, enum hg_cut why)
{
    if (!g->limits.uncounted)
        hg_metrics_cut(why);
}

static void count_open(const struct hg_guard *g, int change)
{
    if (!g->limits.uncounted)
        hg_metrics_connection(change);
}

/* ---- leaving --------------------------------------------------------------------------------- */

/* The lock is held. */
static void tell_gone(struct hg_guarded *c)
{
    hg_guard_gone_fn *f = c->on_gone;
    c->on_gone = NULL;
    if (f)
        f(c->ctx);
}

/* The lock is held. In other phases than work the server's own read or write meets the end. */
static void client_left(struct hg_guarded *c)
{
    c->gone = true;
    if (c->phase == PHASE_WORK && c->on_gone) {
        c->guard->stats.n_cut[HG_CUT_GONE]++;
        count_cut(c->guard, HG_CUT_GONE);
        tell_gone(c);
    }
}

void hg_guard_event(struct hg_guard *g, uint64_t tag)
{
    struct hg_guarded *c = &g->table[(uint32_t)tag];
    pthread_mutex_lock(&g->lock);
    if (c->phase != PHASE_FREE && c->generation == (uint32_t)(tag >> 32))
        client_left(c);
    pthread_mutex_unlock(&g->lock);
}

/* ---- being slow ------------------------------------------------------------------------------ */

static int64_t time_for(const struct hg_guard *g, size_t n_bytes)
{
    return (int64_t)((double)n_bytes / (double)g->limits.rate * (double)second_ns);
}

static uint64_t acked_bytes(int fd)
{
    struct tcp_info info;
    socklen_t n = sizeof info;
    memset(&info, 0, sizeof info);
    return getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &n) == 0 ? info.tcpi_bytes_acked : 0;
}

/* Bytes that wait for the client, as far as is known here. */
static size_t look_at_sending(struct hg_guarded *c, int64_t now)
{
    int queued = 0;
    if (ioctl(c->fd, SIOCOUTQ, &queued) != 0)
        queued = 0;
    uint64_t acked = acked_bytes(c->fd);
    if (queued == 0 || queued < c->queued || acked != c->acked)
        c->moved_ns = now;
    c->queued = queued;
    c->acked = acked;
    size_t waiting = (size_t)queued + (c->waiting ? atomic_load(c->waiting) : 0);
    if (waiting <= c->guard->limits.max_unsent)
        c->roomy_ns = now;
    return waiting;
}

/* Whether a connection must be cut now. */
static bool is_due(struct hg_guarded *c, int64_t now, enum hg_cut *why)
{
    const struct hg_guard_limits *l = &c->guard->limits;
    int64_t deadline = c->deadline_ns;
    *why = c->phase == PHASE_HEADER ? HG_CUT_SLOW_HEADER
           : c->phase == PHASE_BODY ? HG_CUT_SLOW_BODY
                                    : HG_CUT_SLOW_READING;
    if (c->phase == PHASE_BODY) {
        int64_t allowed = body_free_ns + time_for(c->guard, c->n_bytes);
        deadline = c->since_ns + (allowed < l->body_ns ? allowed : l->body_ns);
    }
    if (c->phase == PHASE_WORK && !c->waiting)
        return false; /* nothing is sent yet: whatever lasts is not the client's doing */
    if (c->phase == PHASE_ANSWER || c->phase == PHASE_WORK) {
        size_t waiting = look_at_sending(c, now);
        if (now - c->moved_ns >= l->send_ns) {
            *why = HG_CUT_NOT_READING;
            return true;
        }
        if (now - c->roomy_ns >= l->send_ns)
            return true;
        if (c->phase == PHASE_WORK && waiting == 0)
            return false;
    }
    return now >= deadline;
}

/* Best effort: what the client has sent and nobody has read makes the kernel drop it again. */
static void send_late(int fd)
{
    static const char body[] = "{\"error\":{\"message\":\"the request came too slowly\",\"type\":"
                               "\"invalid_request_error\",\"code\":\"request_timeout\","
                               "\"param\":null}}\n";
    char text[sizeof body + 160];
    int n = snprintf(text, sizeof text,
                     "HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n"
                     "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
                     sizeof body - 1, body);
    (void)!send(fd, text, (size_t)n, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* The lock is held, so no answer begins meanwhile. */
static void cut(struct hg_guarded *c, enum hg_cut why)
{
    if (c->phase == PHASE_HEADER || c->phase == PHASE_BODY)
        send_late(c->fd);
    c->cut = true;
    c->guard->stats.n_cut[why]++;
    count_cut(c->guard, why);
    tell_gone(c);
    shutdown(c->fd, SHUT_RDWR);
}

static void log_cut(const struct cut *k)
{
    char of[40] = "";
    if (k->number)
        snprintf(of, sizeof of, " of request %llu", (unsigned long long)k->number);
    hg_log(HG_LOG_WARN, "connection%s cut after %.1f s: %s", of, k->seconds, hg_cut_name(k->why));
}

/* Up to CHUNK entries from *at on; the connections that were cut. */
static int scan_chunk(struct hg_guard *g, int *at, int64_t now_ns, struct cut cuts[MAX_CUTS])
{
    int n = 0, end = g->limits.n_connections - *at > CHUNK ? *at + CHUNK : g->limits.n_connections;
    pthread_mutex_lock(&g->lock);
    for (; *at < end && n < MAX_CUTS; ++*at) {
        struct hg_guarded *c = &g->table[*at];
        enum hg_cut why;
        if (c->phase == PHASE_FREE || c->cut)
            continue;
        if (c->nudge && now_ns >= c->nudge_ns) {
            c->nudge_ns = now_ns + c->nudge_every_ns;
            c->nudge(c->ctx);
        }
        if (!is_due(c, now_ns, &why))
            continue;
        cuts[n++] = (struct cut){c->number, why, (double)(now_ns - c->since_ns) / 1e9};
        cut(c, why);
    }
    pthread_mutex_unlock(&g->lock);
    return n;
}

void hg_guard_scan(struct hg_guard *g, int64_t now_ns)
{
    struct cut cuts[MAX_CUTS];
    for (int at = 0; at < g->limits.n_connections;) {
        int n = scan_chunk(g, &at, now_ns, cuts);
        for (int k = 0; k < n; k++)
            log_cut(&cuts[k]); /* without the lock: the log may be a slow pipe */
    }
}

/* ---- what a connection is at ----------------------------------------------------------------- */

/* The lock is held. */
static void enter(struct hg_guarded *c, enum phase phase, int64_t allowed_ns)
{
    int64_t now = hg_now_ns();
    c->phase = phase;
    c->since_ns = c->moved_ns = c->roomy_ns = now;
    c->deadline_ns = now + allowed_ns;
    c->on_gone = NULL;
    c->ctx = NULL;
    c->waiting = NULL;
    c->nudge = NULL;
    c->number = 0;
    c->n_bytes = 0;
    c->queued = 0;
}

/* The lock is held, here and in the next two. */
static void leave_fresh(struct hg_guarded *c)
{
    struct hg_guard *g = c->guard;
    if (!c->fresh)
        return;
    *(c->older ? &c->older->newer : &g->oldest) = c->newer;
    *(c->newer ? &c->newer->older : &g->newest) = c->older;
    c->fresh = false;
    g->n_fresh--;
}

static void enter_fresh(struct hg_guarded *c)
{
    struct hg_guard *g = c->guard;
    c->fresh = true;
    c->older = g->newest;
    c->newer = NULL;
    *(g->newest ? &g->newest->newer : &g->oldest) = c;
    g->newest = c;
    g->n_fresh++;
}

/* Connections that only wait must not take every place. */
static void make_room_for_fresh(struct hg_guard *g)
{
    int most = g->limits.n_connections / 4;
    if (g->n_fresh < (most > 8 ? most : 8))
        return;
    struct hg_guarded *c = g->oldest;
    leave_fresh(c);
    if (!c->cut)
        cut(c, HG_CUT_CROWDED);
}

static bool watch(struct hg_guard *g, int fd, struct hg_guarded *c)
{
    struct epoll_event e = {.events = EPOLLRDHUP | EPOLLHUP | EPOLLERR | EPOLLONESHOT};
    e.data.u64 = (uint64_t)(c - g->table) | (uint64_t)c->generation << 32;
    c->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (c->fd < 0)
        return false;
    if (epoll_ctl(g->epoll, EPOLL_CTL_ADD, c->fd, &e) == 0)
        return true;
    close(c->fd);
    return false;
}

struct hg_guarded *hg_guard_add(struct hg_guard *g, int fd)
{
    int room = g->limits.max_unsent < INT32_MAX ? (int)g->limits.max_unsent : INT32_MAX;
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
    pthread_mutex_lock(&g->lock);
    struct hg_guarded *c = g->free;
    if (c && watch(g, fd, c)) {
        g->free = c->next_free;
        g->stats.n_open++;
        count_open(g, 1);
        c->gone = c->cut = false;
        c->n_requests = 0;
        enter(c, PHASE_HEADER, g->limits.header_ns);
        c->born_ns = c->since_ns;
        make_room_for_fresh(g);
        enter_fresh(c);
    } else {
        g->stats.n_cut[HG_CUT_REFUSED]++;
        count_cut(g, HG_CUT_REFUSED);
        c = NULL;
    }
    pthread_mutex_unlock(&g->lock);
    return c;
}

/* The lock is held. */
static void let_go(struct hg_guarded *c)
{
    leave_fresh(c);
    epoll_ctl(c->guard->epoll, EPOLL_CTL_DEL, c->fd, NULL);
    close(c->fd);
    c->fd = -1;
    c->generation++;
    c->phase = PHASE_FREE;
    c->on_gone = NULL;
    c->next_free = c->guard->free;
    c->guard->free = c;
    c->guard->stats.n_open--;
    count_open(c->guard, -1);
}

/* The lock of c's guard, which is NULL for no connection. */
static struct hg_guard *lock(struct hg_guarded *c)
{
    if (!c)
        return NULL;
    pthread_mutex_lock(&c->guard->lock);
    return c->guard;
}

static void unlock(struct hg_guard *g)
{
    pthread_mutex_unlock(&g->lock);
}

void hg_guard_remove(struct hg_guarded *c)
{
    struct hg_guard *g = lock(c);
    if (!g)
        return;
    let_go(c);
    unlock(g);
}

bool hg_guard_request(struct hg_guarded *c)
{
    struct hg_guard *g = lock(c);
    if (!g)
        return true;
    leave_fresh(c);
    bool last =
        ++c->n_requests >= g->limits.n_requests || hg_now_ns() - c->born_ns >= g->limits.life_ns;
    unlock(g);
    return last;
}

void hg_guard_idle(struct hg_guarded *c)
{
    struct hg_guard *g = lock(c);
    if (!g)
        return;
    enter(c, PHASE_HEADER, g->limits.idle_ns + g->limits.header_ns);
    unlock(g);
}

void hg_guard_body(struct hg_guarded *c)
{
    struct hg_guard *g = lock(c);
    if (!g)
        return;
    enter(c, PHASE_BODY, g->limits.body_ns);
    unlock(g);
}

void hg_guard_received(struct hg_guarded *c, size_t n_bytes)
{
    struct hg_guard *g = lock(c);
    if (!g)
        return;
    c->n_bytes += n_bytes;
    unlock(g);
}

void hg_guard_work(struct hg_guarded *c, uint64_t number, int64_t deadline_ns,
                   hg_guard_gone_fn *gone, void *ctx, const atomic_size_t *waiting)
{
    struct hg_guard *g = lock(c);
    if (!g)
        return;
    enter(c, PHASE_WORK, 0);
    c->deadline_ns = deadline_ns + 2 * g->limits.send_ns;
    c->number = number;
    c->on_gone = gone;
    c->ctx = ctx;
    c->waiting = waiting;
    if (c->gone || c->cut)
        client_left(c);
    unlock(g);
}

void hg_guard_nudge(struct hg_guarded *c, int64_t every_ns, hg_guard_nudge_fn *nudge)
{
    struct hg_guard *g = lock(c);
    if (!g)
        return;
    if (c->phase == PHASE_WORK) {
        c->nudge = nudge;
        c->nudge_every_ns = every_ns;
        c->nudge_ns = hg_now_ns() + every_ns;
    }
    unlock(g);
}

void hg_guard_answer(struct hg_guarded *c, size_t n_bytes)
{
    struct hg_guard *g = lock(c);
    if (!g)
        return;
    uint64_t number = c->number;
    enter(c, PHASE_ANSWER, g->limits.send_ns + time_for(g, n_bytes));
    c->number = number;
    unlock(g);
}

void hg_guard_stats(struct hg_guard *g, struct hg_guard_stats *out)
{
    pthread_mutex_lock(&g->lock);
    *out = g->stats;
    out->n_working = 0;
    for (int i = 0; i < g->limits.n_connections; i++)
        out->n_working += g->table[i].phase == PHASE_WORK;
    pthread_mutex_unlock(&g->lock);
}

/* ---- life ------------------------------------------------------------------------------------ */

static void *guard_main(void *arg)
{
    struct hg_guard *g = arg;
    struct epoll_event events[MAX_EVENTS];
    int64_t next = hg_now_ns();
    prctl(PR_SET_NAME, "hg-guard");
    for (;;) {
        int64_t now = hg_now_ns(), left = (next - now + 999999) / 1000000;
        int n = epoll_wait(g->epoll, events, MAX_EVENTS, left > 0 ? (int)left : 0);
        for (int i = 0; i < n; i++) {
            if (events[i].data.u64 == stop_tag)
                return NULL;
            hg_guard_event(g, events[i].data.u64);
        }
        now = hg_now_ns();
        if (now < next)
            continue;
        next = now + TICK_MS * (second_ns / 1000);
        hg_guard_scan(g, now);
        if (g->tick)
            g->tick(g->ctx, now);
    }
}

static void release(struct hg_guard *g)
{
    for (int i = 0; g->table && i < g->limits.n_connections; i++)
        if (g->table[i].phase != PHASE_FREE)
            let_go(&g->table[i]);
    if (g->epoll >= 0)
        close(g->epoll);
    if (g->wake >= 0)
        close(g->wake);
    pthread_mutex_destroy(&g->lock);
    free(g->table);
    free(g);
}

enum hg_status hg_guard_create(const struct hg_guard_limits *l, hg_guard_tick_fn *tick, void *ctx,
                               struct hg_guard **out, struct hg_error *err)
{
    *out = NULL;
    struct hg_guard *g = calloc(1, sizeof *g);
    if (!g)
        return hg_fail(err, HG_STATUS_NO_MEMORY, "guard: out of memory");
    struct epoll_event stop = {.events = EPOLLIN, .data.u64 = stop_tag};
    g->limits = *l;
    g->tick = tick;
    g->ctx = ctx;
    pthread_mutex_init(&g->lock, NULL);
    g->table = calloc((size_t)l->n_connections, sizeof *g->table);
    for (int i = l->n_connections - 1; g->table && i >= 0; i--) {
        g->table[i] = (struct hg_guarded){.guard = g, .next_free = g->free, .fd = -1};
        g->free = &g->table[i];
    }
    g->epoll = epoll_create1(EPOLL_CLOEXEC);
    g->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (!g->table || g->epoll < 0 || g->wake < 0 ||
        epoll_ctl(g->epoll, EPOLL_CTL_ADD, g->wake, &stop) != 0 ||
        pthread_create(&g->thread, NULL, guard_main, g) != 0) {
        int e = errno;
        release(g);
        return hg_fail(err, HG_STATUS_IO, "guard: cannot start: %s", strerror(e));
    }
    *out = g;
    return HG_STATUS_OK;
}

void hg_guard_free(struct hg_guard *g)
{
    const uint64_t one = 1;
    if (!g)
        return;
    (void)!write(g->wake, &one, sizeof one);
    pthread_join(g->thread, NULL);
    release(g);
}
