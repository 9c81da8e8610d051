#include "tools/load/run.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "common/clock.h"
#include "tools/load/conn.h"
#include "tools/load/reply.h"

enum { MAX_EVENTS = 256, TICK_NS = 5000000, SLOW_TICK_NS = 100000000, ALL = 1 << 20 };

/* One client: a connection and, while `busy`, a request. */
struct client {
    struct hg_conn conn;
    struct hg_load_item item;
    struct hg_load_reply reply;
    uint64_t number;
    int64_t due_ns, last_ns; /* last token */
    int64_t read_ns;         /* a slow one reads again */
    bool busy, in_window, watched_out, late_first;
    size_t place; /* in busy[] */
};

struct run {
    const struct hg_load_options *o;
    struct hg_load_result *r;
    struct hg_load_pictures pictures;
    struct client *clients; /* [max_open] */
    size_t *busy, *idle;    /* [max_open] numbers of clients; idle ones have no request */
    size_t n_busy, n_idle;
    int epoll, timer;
    uint64_t next;                                     /* number of the next request */
    int64_t start_ns, due_ns, from_ns, to_ns, tick_ns; /* from, to: the window */
    bool more;                                         /* requests are still due */
};

static double ms_since(int64_t ns, int64_t now)
{
    return (double)(now - ns) / 1e6;
}

static bool inside(const struct run *u, int64_t now)
{
    return now >= u->from_ns && now < u->to_ns;
}

static void add(struct run *u, struct hg_samples *s, double v)
{
    if (hg_samples_add(s, v) != HG_STATUS_OK)
        u->r->out_of_memory = true;
}

/* ---- the end of a request ---------------------------------------------------------------------
 */

/* Move from busy[] to idle[]; a connection that is closed is opened again when it is needed. */
static void release(struct run *u, struct client *c, bool keep, bool reset)
{
    if (!keep)
        hg_conn_close(&c->conn, reset);
    size_t last = u->busy[--u->n_busy];
    u->busy[c->place] = last;
    u->clients[last].place = c->place;
    c->busy = false;
    u->idle[u->n_idle++] = (size_t)(c - u->clients);
}

static void digest(struct run *u, struct client *c)
{
    if (!u->r->keep_digests)
        return;
    struct hg_load_digest d = {.number = c->number,
                               .kind = c->item.kind,
                               .status = c->conn.reader.status,
                               .n_tokens = c->reply.n_tokens};
    d.digest = hg_load_reply_digest(&c->reply);
    hg_load_result_digest(u->r, &d);
}

static void fail(struct run *u, struct client *c, const char *code)
{
    if (c->in_window)
        hg_load_result_code(u->r, code);
    digest(u, c);
    release(u, c, false, false);
}

/* An answer of status 200 came to its end as it should. */
static void count_success(struct run *u, struct client *c, int64_t now)
{
    struct hg_load_kind_result *k = &u->r->kind[c->item.kind];
    double ms = ms_since(c->due_ns, now);
    bool good = !c->late_first && (u->o->deadline_ms <= 0 || ms <= u->o->deadline_ms);
    if (c->item.slow) {
        u->r->n_slow++;
        return;
    }
    if (c->in_window) {
        k->n_ok++;
        k->n_good += good;
        add(u, &k->total, ms);
    }
    if (!inside(u, now))
        return;
    k->n_ok_window++;
    k->images += (uint64_t)c->reply.n_images;
    if (!c->item.stream)
        k->tokens += (uint64_t)c->reply.n_tokens;
    if (good) {
        k->n_good_window++;
        k->good_tokens += (uint64_t)c->reply.n_tokens;
    }
}

static void finish(struct run *u, struct client *c, int64_t now)
{
    struct hg_error err = {0};
    const struct hg_http_reader *h = &c->conn.reader;
    bool lines = c->item.stream && h->status == 200;
    if (!lines && hg_load_reply_document(&c->reply, c->conn.body.data ? c->conn.body.data : "",
                                         c->conn.body.len, &err) != HG_STATUS_OK) {
        fail(u, c, "protocol");
        return;
    }
    if (h->status == 200 && c->reply.done) {
        count_success(u, c, now);
    } else if (h->status == 200) {
        fail(u, c, c->reply.code[0] ? c->reply.code : "incomplete");
        return;
    } else if (c->in_window) {
        hg_load_result_status(u->r, h->status, ms_since(c->due_ns, now), h->retry_after_s >= 0);
    }
    digest(u, c);
    release(u, c, h->keep_alive && !c->item.slow, false);
}

/* ---- events of a connection -------------------------------------------------------------------
 */

static void watch(struct run *u, struct client *c, bool out, bool add_it)
{
    struct epoll_event e = {.events = (out ? EPOLLOUT : 0u) | (c->item.slow ? 0u : EPOLLIN),
                            .data.ptr = c};
    c->watched_out = out;
    epoll_ctl(u->epoll, add_it ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, c->conn.fd, &e);
}

static void token(struct run *u, struct client *c, int64_t now)
{
    struct hg_load_kind_result *k = &u->r->kind[c->item.kind];
    if (inside(u, now) && !c->item.slow)
        k->tokens++;
    if (c->in_window && !c->item.slow)
        add(u, c->last_ns ? &k->gap : &k->first,
            ms_since(c->last_ns ? c->last_ns : c->due_ns, now));
    if (!c->last_ns && u->o->first_ms > 0 && ms_since(c->due_ns, now) > u->o->first_ms)
        c->late_first = true;
    c->last_ns = now;
}

/* Lines that have come; false when the request was ended. */
static bool take_lines(struct run *u, struct client *c, int64_t now)
{
    const char *line;
    size_t n;
    struct hg_error err = {0};
    if (!c->item.stream || c->conn.reader.status != 200)
        return true;
    while (hg_conn_line(&c->conn, &line, &n)) {
        enum hg_load_event event;
        if (hg_load_reply_line(&c->reply, line, n, &event, &err) != HG_STATUS_OK) {
            fail(u, c, "protocol");
            return false;
        }
        if (event == HG_LOAD_EVENT_TOKEN)
            token(u, c, now);
    }
    return true;
}

static void connect_client(struct run *u, struct client *c);

static void on_readable(struct run *u, struct client *c, size_t most)
{
    struct hg_error err = {0};
    bool ended = false;
    enum hg_status status = hg_conn_receive(&c->conn, most, &ended, &err);
    int64_t now = hg_now_ns();
    bool nothing = c->conn.reader.status == 0 && c->conn.reader.line.len == 0;
    if ((status == HG_STATUS_IO || ended) && nothing && c->conn.used_before) {
        hg_conn_close(&c->conn, false); /* it was closed while it was idle: once more */
        connect_client(u, c);
        return;
    }
    if (status != HG_STATUS_OK) {
        fail(u, c, status == HG_STATUS_IO ? "connection" : "protocol");
        return;
    }
    if (!take_lines(u, c, now))
        return;
    if (ended && hg_http_reader_end(&c->conn.reader, &err) != HG_STATUS_OK)
        fail(u, c, "connection");
    else if (c->conn.reader.state == HG_HTTP_DONE)
        finish(u, c, now);
}

static void on_writable(struct run *u, struct client *c)
{
    struct hg_error err = {0};
    if (c->conn.state != HG_CONN_SENDING)
        return;
    if (hg_conn_send(&c->conn, &err) != HG_STATUS_OK) {
        bool again = c->conn.used_before;
        hg_conn_close(&c->conn, false);
        if (again) /* it was closed while it was idle */
            connect_client(u, c);
        else
            fail(u, c, "connection");
    } else if (c->conn.state == HG_CONN_READING && c->watched_out) {
        watch(u, c, false, false);
    }
}

/* A new connection for the request of c, which fails without one. */
static void connect_client(struct run *u, struct client *c)
{
    struct hg_error err = {0};
    hg_http_reader_init(&c->conn.reader);
    hg_buf_clear(&c->conn.body);
    c->conn.at = 0;
    if (hg_conn_open(&c->conn, &u->o->address, u->o->address_len, c->item.slow, &err) !=
        HG_STATUS_OK) {
        fail(u, c, "connection");
        return;
    }
    watch(u, c, true, true);
}

/* ---- arrivals ---------------------------------------------------------------------------------
 */

static enum hg_status send_request(struct run *u, struct client *c, struct hg_error *err)
{
    hg_buf_clear(&c->conn.out);
    HG_TRY(hg_load_request(&u->o->mix, &u->o->target, &u->pictures, &c->item, &c->conn.out, err));
    if (c->conn.state == HG_CONN_CLOSED) {
        connect_client(u, c);
        return HG_STATUS_OK;
    }
    hg_http_reader_init(&c->conn.reader);
    hg_buf_clear(&c->conn.body);
    c->conn.at = c->conn.sent = 0;
    c->conn.used_before = true;
    c->conn.state = HG_CONN_SENDING;
    on_writable(u, c);
    if (c->busy && c->conn.state == HG_CONN_SENDING && !c->watched_out)
        watch(u, c, true, false);
    return HG_STATUS_OK;
}

static enum hg_status arrive(struct run *u, int64_t due_ns, struct hg_error *err)
{
    int64_t now = hg_now_ns();
    struct hg_load_item item;
    hg_load_item(&u->o->mix, u->next, &item);
    bool counts = u->o->count > 0 || inside(u, due_ns);
    u->r->n_due += counts;
    u->r->kind[item.kind].n_due += counts;
    if (u->n_idle == 0) {
        hg_load_result_code(u->r, "too_many_open");
        u->next++;
        return HG_STATUS_OK;
    }
    /* A slow reader takes a connection of its own. */
    size_t number = u->idle[--u->n_idle];
    struct client *c = &u->clients[number];
    if (item.slow)
        hg_conn_close(&c->conn, false);
    c->item = item;
    c->number = u->next++;
    c->due_ns = due_ns;
    c->last_ns = c->read_ns = 0;
    c->late_first = false;
    c->busy = true;
    c->in_window = counts;
    c->place = u->n_busy;
    u->busy[u->n_busy++] = number;
    if (u->n_busy > u->r->most_open)
        u->r->most_open = u->n_busy;
    hg_load_reply_init(&c->reply);
    if (counts)
        add(u, &u->r->late, ms_since(due_ns, now));
    return send_request(u, c, err);
}

/* Send what is due; sets `more` and the time of the next one. */
static enum hg_status arrivals(struct run *u, struct hg_error *err)
{
    const struct hg_load_options *o = u->o;
    bool open = o->mix.rate > 0;
    for (int k = 0; u->more && k < MAX_EVENTS; k++) {
        int64_t now = hg_now_ns();
        if (open ? now < u->due_ns : u->n_busy >= (size_t)o->concurrency)
            break;
        if (!open)
            u->due_ns = now;
        if (o->count > 0 ? u->next >= o->count : u->due_ns >= u->to_ns) {
            u->more = false;
            if (o->count > 0)
                u->to_ns = INT64_MAX;
            break;
        }
        HG_TRY(arrive(u, u->due_ns, err));
        if (open)
            u->due_ns += (int64_t)(hg_load_gap_s(&o->mix, u->next) * 1e9);
    }
    return HG_STATUS_OK;
}

/* ---- time -------------------------------------------------------------------------------------
 */

/* Clients that leave or lose patience, and slow ones that read again. */
static void tick(struct run *u, int64_t now)
{
    for (size_t i = u->n_busy; i-- > 0;) {
        struct client *c = &u->clients[u->busy[i]];
        if (c->item.leave_ns >= 0 && now - c->due_ns >= c->item.leave_ns) {
            u->r->n_left += c->in_window;
            release(u, c, false, c->item.reset);
        } else if (ms_since(c->due_ns, now) > u->o->patience_ms) {
            fail(u, c, "no_answer_in_time");
        } else if (c->item.slow && c->conn.state == HG_CONN_READING && now >= c->read_ns) {
            c->read_ns = now + SLOW_TICK_NS;
            on_readable(u, c, (size_t)u->o->slow_bytes_per_s / 10 + 1);
        }
    }
    u->tick_ns = now + TICK_NS;
}

static void set_timer(struct run *u)
{
    int64_t at = u->tick_ns;
    if (u->more && u->o->mix.rate > 0 && u->due_ns < at)
        at = u->due_ns;
    struct itimerspec t = {.it_value = {at / 1000000000, at % 1000000000}};
    timerfd_settime(u->timer, TFD_TIMER_ABSTIME, &t, NULL);
}

static enum hg_status loop(struct run *u, struct hg_error *err)
{
    struct epoll_event events[MAX_EVENTS];
    while (u->more || u->n_busy > 0) {
        HG_TRY(arrivals(u, err));
        int64_t now = hg_now_ns();
        if (now >= u->tick_ns)
            tick(u, now);
        set_timer(u);
        int n = epoll_wait(u->epoll, events, MAX_EVENTS, u->more || u->n_busy ? -1 : 0);
        if (n < 0 && errno != EINTR)
            return hg_fail(err, HG_STATUS_IO, "epoll: %s", strerror(errno));
        for (int i = 0; i < n; i++) {
            struct client *c = events[i].data.ptr;
            uint64_t ticks;
            if (!c) {
                if (read(u->timer, &ticks, sizeof ticks) < 0 && errno != EAGAIN)
                    return hg_fail(err, HG_STATUS_IO, "timer: %s", strerror(errno));
            } else if (!c->busy) {
                hg_conn_close(&c->conn, false); /* an idle one was closed by the server */
            } else if (c->conn.state == HG_CONN_SENDING) {
                on_writable(u, c);
            } else {
                on_readable(u, c, ALL);
            }
        }
    }
    return HG_STATUS_OK;
}

/* ---- begin and end ----------------------------------------------------------------------------
 */

static void deinit(struct run *u)
{
    for (size_t i = 0; u->clients && i < u->o->max_open; i++)
        hg_conn_deinit(&u->clients[i].conn);
    free(u->clients);
    free(u->busy);
    free(u->idle);
    hg_load_pictures_free(&u->pictures);
    if (u->epoll >= 0)
        close(u->epoll);
    if (u->timer >= 0)
        close(u->timer);
}

static enum hg_status init(struct run *u, struct hg_error *err)
{
    size_t n = u->o->max_open;
    HG_TRY(hg_load_pictures_make(u->o->mix.n_pictures, &u->pictures, err));
    u->clients = calloc(n, sizeof *u->clients);
    u->busy = calloc(n, sizeof *u->busy);
    u->idle = calloc(n, sizeof *u->idle);
    if (!u->clients || !u->busy || !u->idle)
        return hg_fail(err, HG_STATUS_NO_MEMORY, "load: out of memory");
    while (u->n_idle < n) { /* the last one is taken first */
        u->idle[u->n_idle] = n - 1 - u->n_idle;
        u->n_idle++;
    }
    u->epoll = epoll_create1(EPOLL_CLOEXEC);
    u->timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = NULL};
    if (u->epoll < 0 || u->timer < 0 || epoll_ctl(u->epoll, EPOLL_CTL_ADD, u->timer, &e) != 0)
        return hg_fail(err, HG_STATUS_IO, "epoll: %s", strerror(errno));
    u->start_ns = u->due_ns = hg_now_ns();
    u->from_ns = u->start_ns + (int64_t)(u->o->warmup_s * 1e9);
    u->to_ns = u->o->count > 0 ? INT64_MAX : u->start_ns + (int64_t)(u->o->duration_s * 1e9);
    if (u->o->mix.rate > 0)
        u->due_ns += (int64_t)(hg_load_gap_s(&u->o->mix, 0) * 1e9);
    u->more = true;
    return HG_STATUS_OK;
}

enum hg_status hg_load_run(const struct hg_load_options *o, struct hg_load_result *out,
                           struct hg_error *err)
{
    struct run u = {.o = o, .r = out, .epoll = -1, .timer = -1};
    enum hg_status status = init(&u, err);
    if (status == HG_STATUS_OK)
        status = loop(&u, err);
    int64_t now = hg_now_ns();
    out->elapsed_s = (double)(now - u.start_ns) / 1e9;
    out->window_s = (double)((o->count > 0 ? now : u.to_ns) - u.from_ns) / 1e9;
    out->deadline_ms = o->deadline_ms;
    out->first_ms = o->first_ms;
    deinit(&u);
    if (status == HG_STATUS_OK && out->out_of_memory)
        status = hg_fail(err, HG_STATUS_NO_MEMORY, "load: out of memory for the results");
    return status;
}
