/* server/ops/audit.c - the ring, and the thread that writes it to the file. */
#include "server/ops/audit.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "server/ops/audit_chain.h"
#include "server/ops/metrics.h"

enum { DEFAULT_LINES = 4096, RETRY_MS = 500, TELL_S = 60, CLOSE_S = 2 };

struct entry {
    struct hg_audit_record record;
    int64_t wall_ms;
};

struct hg_audit {
    char *path;
    bool fail_closed;

    pthread_mutex_t lock; /* of all up to `thread` */
    pthread_cond_t wake;
    struct entry *ring;           /* [cap] */
    size_t cap, head, n, n_begun; /* n_begun: places kept for lines that will come */
    bool stopping, reopening, finished;
    struct hg_audit_facts facts;
    bool has_model;
    struct hg_audit_stats stats;
    uint64_t untold; /* of n_lost: not yet said in a line */
    pthread_t thread;

    /* the writer's */
    int fd;
    bool is_file;
    struct hg_audit_chain chain;
    struct hg_buf pending; /* bytes from `at` on are to be written before anything else */
    size_t at;
    int64_t told_ns;
};

static atomic_bool blocked;

bool hg_audit_blocks(void)
{
    return atomic_load(&blocked);
}

/* ---- fingerprints: the key never changes ----------------------------------------------------- */

static void begin_keyed(const struct hg_audit *a, const char *what, struct hg_hmac *h)
{
    hg_hmac_init(h, a->chain.key, HG_SHA256_BYTES);
    hg_hmac_update(h, what, strlen(what) + 1);
}

static void add_number(struct hg_hmac *h, uint64_t v)
{
    uint8_t bytes[8];
    for (int i = 0; i < 8; i++)
        bytes[i] = (uint8_t)(v >> (8 * i));
    hg_hmac_update(h, bytes, sizeof bytes);
}

void hg_audit_text_begin(const struct hg_audit *a, struct hg_hmac *h)
{
    begin_keyed(a, "text", h);
}

void hg_audit_text_add(struct hg_hmac *h, const char *s, size_t n)
{
    add_number(h, n);
    hg_hmac_update(h, s, n);
}

void hg_audit_text_end(struct hg_hmac *h, uint8_t out[HG_SHA256_BYTES])
{
    hg_hmac_final(h, out);
    explicit_bzero(h, sizeof *h); /* it was made from the key */
}

void hg_audit_pixels(const struct hg_audit *a, const struct hg_image *im,
                     uint8_t out[HG_SHA256_BYTES])
{
    struct hg_hmac h;
    begin_keyed(a, "pixels", &h);
    add_number(&h, (uint64_t)im->width);
    add_number(&h, (uint64_t)im->height);
    hg_hmac_update(&h, im->rgb, (size_t)im->width * (size_t)im->height * 3);
    hg_audit_text_end(&h, out);
}

bool hg_audit_subject_is_good(const char *s)
{
    size_t n = strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-");
    return n > 0 && n < HG_AUDIT_SUBJECT_CAP && !s[n];
}

/* ---- the file -------------------------------------------------------------------------------- */

static void tell_place(const struct hg_audit_chain *c, const char *what)
{
    char hex[2 * HG_SHA256_BYTES + 1];
    hg_hex(c->last, HG_SHA256_BYTES, hex);
    hg_log(HG_LOG_INFO, "audit log: %s seq %llu, hash %s", what, (unsigned long long)c->seq, hex);
}

/* Opens the path into *fd and looks where its chain ends. A pipe is opened for both directions, so
 * that it can be opened before its reader and outlives one. */
static enum hg_status open_file(struct hg_audit *a, int *fd, bool *is_file,
                                struct hg_audit_chain *end, struct hg_error *err)
{
    struct stat st;
    bool is_pipe = stat(a->path, &st) == 0 && S_ISFIFO(st.st_mode);
    int flags = is_pipe ? O_RDWR | O_NONBLOCK : O_RDWR | O_APPEND | O_CREAT;
    *fd = open(a->path, flags | O_CLOEXEC | O_NOCTTY, 0600);
    if (*fd < 0 || fstat(*fd, &st) != 0) {
        int error = errno;
        if (*fd >= 0)
            close(*fd);
        return hg_fail(err, HG_STATUS_IO, "audit_log %.100s: %s", a->path, strerror(error));
    }
    *is_file = S_ISREG(st.st_mode);
    enum hg_status status = HG_STATUS_OK;
    if (*is_file && (st.st_mode & 077))
        hg_log(HG_LOG_WARN, "audit log: %s can be read by others (mode %o)", a->path,
               (unsigned)st.st_mode & 0777);
    if (*is_file && flock(*fd, LOCK_EX | LOCK_NB) != 0)
        status =
            hg_fail(err, HG_STATUS_BUSY, "audit_log %.100s: another process writes to it", a->path);
    else if (*is_file)
        status = hg_audit_find_end(*fd, a->path, end, err);
    if (status != HG_STATUS_OK)
        close(*fd);
    return status;
}

/* At the start: `pending` begins with the end of a line that was cut off. */
static enum hg_status take_up(struct hg_audit *a, const struct hg_audit_chain *end)
{
    a->chain.seq = end->seq;
    a->chain.torn = end->torn;
    memcpy(a->chain.last, end->last, sizeof end->last);
    return end->torn ? hg_buf_append_str(&a->pending, "\n") : HG_STATUS_OK;
}

/* SIGHUP. The file that was moved away keeps what is in it; a line of which it has a part is
 * written to the new one whole. */
static void reopen(struct hg_audit *a)
{
    struct stat now, old;
    struct hg_audit_chain end = a->chain;
    struct hg_error err = {0};
    bool is_file = false;
    int fd = -1;
    if (stat(a->path, &now) == 0 && fstat(a->fd, &old) == 0 && now.st_dev == old.st_dev &&
        now.st_ino == old.st_ino) {
        tell_place(&a->chain, "SIGHUP: the same file, at");
        return;
    }
    if (open_file(a, &fd, &is_file, &end, &err) != HG_STATUS_OK) {
        hg_log(HG_LOG_ERROR, "SIGHUP: the audit log stays in its old file: %s", err.text);
        return;
    }
    tell_place(&a->chain, "SIGHUP: a new file, after");
    close(a->fd);
    a->fd = fd;
    a->is_file = is_file;
    if (is_file && end.seq > 0) { /* it has a chain of its own: ours has ended */
        hg_buf_clear(&a->pending);
        a->at = 0;
        (void)take_up(a, &end);
    }
    while (a->at > 0 && a->pending.data[a->at - 1] != '\n')
        a->at--;
    (void)hg_audit_put_event(&a->chain, HG_AUDIT_ROTATE, &a->facts, 0, &a->pending);
}

/* ---- the writer ------------------------------------------------------------------------------ */

/* [lock held] */
static void set_failing(struct hg_audit *a, bool failing, int error)
{
    int64_t now = hg_now_ns();
    if (failing && (!a->stats.failing || now - a->told_ns > TELL_S * (int64_t)1000000000)) {
        a->told_ns = now;
        hg_log(HG_LOG_ERROR, "audit log: cannot be written: %s; %s (%llu lines lost)",
               error == EAGAIN ? "the pipe is full" : strerror(error),
               a->fail_closed ? "new requests are refused" : "requests go on without it",
               (unsigned long long)a->stats.n_lost);
    } else if (!failing && a->stats.failing) {
        hg_log(HG_LOG_WARN, "audit log: written again; %llu lines lost",
               (unsigned long long)a->stats.n_lost);
    }
    a->stats.failing = failing;
    atomic_store(&blocked, failing && a->fail_closed);
    hg_metrics_audit(0, 0, failing);
}

/* [lock held, not while it writes] Writes what is pending; false: it could not, the retry has to
 * wait. */
static bool write_pending(struct hg_audit *a)
{
    for (int refused = 0; a->at < a->pending.len;) {
        pthread_mutex_unlock(&a->lock);
        ssize_t n = write(a->fd, a->pending.data + a->at, a->pending.len - a->at);
        int error = errno;
        if (n < 0 && error == EAGAIN) { /* a pipe; its reader has a moment before it counts */
            struct pollfd p = {.fd = a->fd, .events = POLLOUT};
            n = refused++ == 0 && poll(&p, 1, RETRY_MS) == 1 ? 0 : -1;
        } else if (n < 0 && error == EINTR) {
            n = 0;
        }
        pthread_mutex_lock(&a->lock);
        if (n < 0) {
            set_failing(a, true, error);
            return false;
        }
        a->at += (size_t)n;
        refused = n > 0 ? 0 : refused;
    }
    hg_buf_clear(&a->pending);
    a->at = 0;
    set_failing(a, false, 0);
    return true;
}

/* [lock held] */
static void count_lost(struct hg_audit *a)
{
    a->stats.n_lost++;
    a->untold++;
    hg_metrics_audit(0, 1, a->stats.failing);
}

/* [lock held] The next line of the ring into `pending`. */
static void format_next(struct hg_audit *a)
{
    const struct entry *e = &a->ring[a->head];
    if (hg_audit_put_request(&a->chain, &e->record, e->wall_ms, &a->facts, a->untold,
                             &a->pending) == HG_STATUS_OK) {
        a->untold = 0;
        a->stats.n_lines++;
        hg_metrics_audit(1, 0, a->stats.failing);
    } else {
        count_lost(a);
    }
    a->head = (a->head + 1) % a->cap;
    a->n--;
}

/* [lock held] Until there is something to do, or for a while. */
static void wait_for_work(struct hg_audit *a, bool retry)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += RETRY_MS * 1000000L;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    if (retry)
        pthread_cond_timedwait(&a->wake, &a->lock, &until);
    else
        pthread_cond_wait(&a->wake, &a->lock);
}

/* [lock held] One line after the other; what was written together reaches the disk together. */
static bool write_all(struct hg_audit *a)
{
    bool good = write_pending(a);
    bool any = false;
    while (good && a->n > 0 && !a->reopening) {
        format_next(a);
        good = write_pending(a);
        any = true;
    }
    if (any && good && a->is_file && a->n == 0) {
        pthread_mutex_unlock(&a->lock);
        int error = fdatasync(a->fd) == 0 ? 0 : errno;
        pthread_mutex_lock(&a->lock);
        if (error)
            set_failing(a, true, error);
    }
    return good;
}

static void *writer_main(void *ctx)
{
    struct hg_audit *a = ctx;
    int64_t stop_ns = 0;
    pthread_mutex_lock(&a->lock);
    for (;;) {
        bool good = write_all(a);
        if (a->reopening) {
            a->reopening = false;
            pthread_mutex_unlock(&a->lock);
            reopen(a);
            pthread_mutex_lock(&a->lock);
            continue;
        }
        if (a->has_model) {
            a->has_model = false;
            (void)hg_audit_put_event(&a->chain, HG_AUDIT_MODEL, &a->facts, 0, &a->pending);
            continue;
        }
        if (a->stopping && stop_ns == 0) {
            stop_ns = hg_now_ns() + CLOSE_S * (int64_t)1000000000;
            (void)hg_audit_put_event(&a->chain, HG_AUDIT_STOP, &a->facts, a->untold, &a->pending);
            a->untold = 0;
            continue;
        }
        if (a->stopping && (good || hg_now_ns() > stop_ns))
            break;
        if (!good || a->n == 0)
            wait_for_work(a, !good || a->stopping);
    }
    a->finished = true;
    pthread_mutex_unlock(&a->lock);
    return NULL;
}

/* ---- life ------------------------------------------------------------------------------------ */

static enum hg_status make_key(struct hg_audit *a, const char *key_file, struct hg_error *err)
{
    a->chain.has_key_file = key_file && *key_file;
    if (a->chain.has_key_file)
        return hg_audit_read_key(key_file, a->chain.key, err);
    if (getrandom(a->chain.key, HG_SHA256_BYTES, 0) != HG_SHA256_BYTES)
        return hg_fail(err, HG_STATUS_IO, "audit log: no random numbers");
    return HG_STATUS_OK;
}

static void release(struct hg_audit *a)
{
    if (a->fd >= 0)
        close(a->fd);
    hg_buf_deinit(&a->pending);
    pthread_mutex_destroy(&a->lock);
    pthread_cond_destroy(&a->wake);
    explicit_bzero(&a->chain, sizeof a->chain);
    free(a->ring);
    free(a->path);
    free(a);
}

static enum hg_status prepare(struct hg_audit *a, const struct hg_audit_options *o,
                              struct hg_error *err)
{
    struct hg_audit_chain end = {0};
    a->fail_closed = o->fail_closed;
    a->cap = o->n_lines > 0 ? (size_t)o->n_lines : DEFAULT_LINES;
    a->ring = calloc(a->cap, sizeof *a->ring);
    a->path = strdup(o->path);
    if (!a->ring || !a->path)
        return hg_fail(err, HG_STATUS_NO_MEMORY, "audit log: out of memory");
    HG_TRY(make_key(a, o->key_file, err));
    int fd;
    HG_TRY(open_file(a, &fd, &a->is_file, &end, err));
    a->fd = fd;
    if (take_up(a, &end) != HG_STATUS_OK ||
        hg_audit_put_event(&a->chain, HG_AUDIT_START, &a->facts, 0, &a->pending) != HG_STATUS_OK)
        return hg_fail(err, HG_STATUS_NO_MEMORY, "audit log: out of memory");
    tell_place(&end, end.seq ? "goes on after" : "begins at");
    return HG_STATUS_OK;
}

enum hg_status hg_audit_open(const struct hg_audit_options *o, struct hg_audit **out,
                             struct hg_error *err)
{
    *out = NULL;
    struct hg_audit *a = calloc(1, sizeof *a);
    if (!a)
        return hg_fail(err, HG_STATUS_NO_MEMORY, "audit log: out of memory");
    pthread_condattr_t monotonic;
    a->fd = -1;
    pthread_mutex_init(&a->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&a->wake, &monotonic);
    pthread_condattr_destroy(&monotonic);
    enum hg_status status = prepare(a, o, err);
    if (status == HG_STATUS_OK && pthread_create(&a->thread, NULL, writer_main, a) != 0)
        status = hg_fail(err, HG_STATUS_INTERNAL, "audit log: cannot start its thread");
    if (status != HG_STATUS_OK) {
        release(a);
        return status;
    }
    *out = a;
    return HG_STATUS_OK;
}

void hg_audit_close(struct hg_audit *a)
{
    if (!a)
        return;
    pthread_mutex_lock(&a->lock);
    a->stopping = true;
    pthread_cond_signal(&a->wake);
    pthread_mutex_unlock(&a->lock);
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 2 * CLOSE_S;
    if (pthread_timedjoin_np(a->thread, NULL, &until) != 0) {
        hg_log(HG_LOG_ERROR, "audit log: stuck in a write; what waits is lost");
        pthread_detach(a->thread); /* it has the memory */
        return;
    }
    if (a->at < a->pending.len || a->n > 0)
        hg_log(HG_LOG_ERROR, "audit log: %zu lines could not be written", a->n + 1);
    else
        tell_place(&a->chain, "ends with");
    release(a);
}

void hg_audit_reopen(struct hg_audit *a)
{
    if (!a)
        return;
    pthread_mutex_lock(&a->lock);
    a->reopening = true;
    pthread_cond_signal(&a->wake);
    pthread_mutex_unlock(&a->lock);
}

void hg_audit_model(struct hg_audit *a, const struct hg_model_info *info)
{
    if (!a)
        return;
    pthread_mutex_lock(&a->lock);
    snprintf(a->facts.model, sizeof a->facts.model, "%s", info->name);
    a->facts.weights_crc32c = info->weights_crc32c;
    a->has_model = true;
    pthread_cond_signal(&a->wake);
    pthread_mutex_unlock(&a->lock);
}

void hg_audit_stats(struct hg_audit *a, struct hg_audit_stats *out)
{
    *out = (struct hg_audit_stats){0};
    if (!a)
        return;
    pthread_mutex_lock(&a->lock);
    *out = a->stats;
    pthread_mutex_unlock(&a->lock);
}

bool hg_audit_begin(struct hg_audit *a)
{
    if (!a)
        return true;
    pthread_mutex_lock(&a->lock);
    bool good = !a->fail_closed || (!a->stats.failing && a->n + a->n_begun < a->cap);
    a->n_begun += good;
    a->stats.n_refused += !good;
    pthread_mutex_unlock(&a->lock);
    return good;
}

void hg_audit_end(struct hg_audit *a, const struct hg_audit_record *r)
{
    if (!a)
        return;
    pthread_mutex_lock(&a->lock);
    a->n_begun--;
    if (a->n < a->cap) { /* always, when the policy is "closed" */
        struct entry *e = &a->ring[(a->head + a->n) % a->cap];
        e->record = *r;
        e->wall_ms = hg_audit_wall_ms();
        a->n++;
        pthread_cond_signal(&a->wake);
    } else {
        count_lost(a);
    }
    pthread_mutex_unlock(&a->lock);
}
