/* server/engine/watchdog.c - see watchdog.h. */
#include "server/engine/watchdog.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/fault.h"
#include "common/log.h"
#include "server/process.h"

enum { FIRST = 8, FIRST_SCALE = 10, LOAD_SCALE = 30, LONGEST_SCALE = 5, GRACE_S = 5 };
#define CONDEMNED UINT64_MAX

const char *hg_piece_name(enum hg_piece piece)
{
    static const char *const names[HG_PIECE_COUNT] = {"rest",   "turn", "load", "step",
                                                      "vision", "draw", "wait"};
    return (unsigned)piece < HG_PIECE_COUNT ? names[piece] : "?";
}

/* ---- the engine's side ----------------------------------------------------------------------- */

static enum hg_piece piece_of(uint64_t beat)
{
    return (enum hg_piece)(beat & 7);
}

bool hg_heart_beat_at(struct hg_heart *h, enum hg_piece piece, int64_t now_ns)
{
    uint64_t before = atomic_load(&h->beat);
    if (before != CONDEMNED) {
        enum hg_piece ended = piece_of(before);
        int64_t took = now_ns - (int64_t)atomic_load(&h->since_ns);
        if (ended != HG_PIECE_NONE && took > atomic_load(&h->longest_ns[ended]))
            atomic_store(&h->longest_ns[ended], took);
        atomic_fetch_add(&h->n[ended], 1);
        atomic_store(&h->since_ns, now_ns);
        h->n_beats++;
    }
    return before != CONDEMNED &&
           atomic_compare_exchange_strong(&h->beat, &before, h->n_beats << 3 | (uint64_t)piece);
}

void hg_heart_beat(struct hg_heart *h, enum hg_piece piece)
{
    int64_t ms = 0;
    if (!h)
        return;
    while (!hg_heart_beat_at(h, piece, hg_now_ns()))
        pause(); /* the requests are somebody else's now, and the process is about to end */
    if (piece == HG_PIECE_STEP && hg_fault(HG_FAULT_SLOW_STEP, &ms))
        nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000}, NULL);
    while (hg_fault_at(HG_FAULT_STEP_HANG, piece))
        pause();
}

/* ---- the watchdog's side --------------------------------------------------------------------- */

static int64_t max(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

int64_t hg_watch_limit(const struct hg_heart *h, enum hg_piece piece, int64_t limit_ns)
{
    if (piece == HG_PIECE_LOAD)
        return LOAD_SCALE * limit_ns;
    int64_t longest = LONGEST_SCALE * (int64_t)atomic_load(&h->longest_ns[piece]);
    bool first = piece != HG_PIECE_TURN && atomic_load(&h->n[piece]) < FIRST;
    return max((first ? FIRST_SCALE : 1) * limit_ns, longest);
}

bool hg_heart_is_young(const struct hg_heart *h, int64_t limit_ns, int64_t now_ns)
{
    /* The beat first: one that comes between the two only makes the piece look younger. */
    uint64_t beat = atomic_load(&h->beat);
    int64_t since = (int64_t)atomic_load(&h->since_ns);
    enum hg_piece piece = piece_of(beat);
    if (beat == CONDEMNED)
        return false;
    return piece == HG_PIECE_NONE || now_ns - since < hg_watch_limit(h, piece, limit_ns);
}

enum hg_piece hg_watch_look(struct hg_watch *w, int64_t now_ns)
{
    uint64_t beat = atomic_load(&w->heart->beat);
    int64_t passed = now_ns - w->looked_ns;
    enum hg_piece piece = piece_of(beat);
    w->looked_ns = now_ns;
    if (beat != w->beat) {
        w->beat = beat;
        w->age_ns = 0;
        return HG_PIECE_NONE;
    }
    if (beat == CONDEMNED || piece == HG_PIECE_NONE)
        return HG_PIECE_NONE;
    w->age_ns += passed < 2 * w->period_ns ? passed : 2 * w->period_ns;
    if (w->age_ns < hg_watch_limit(w->heart, piece, w->limit_ns))
        return HG_PIECE_NONE;
    return atomic_compare_exchange_strong(&w->heart->beat, &beat, CONDEMNED) ? piece
                                                                             : HG_PIECE_NONE;
}

struct hg_watchdog {
    struct hg_watch watch;
    hg_watchdog_fn *on_hung;
    void *ctx;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t stopped;
    bool stop; /* [lock] */
};

/* False: stop. */
static bool wait_for(struct hg_watchdog *d, int64_t ns)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    int64_t at = until.tv_nsec + ns;
    until.tv_sec += at / 1000000000;
    until.tv_nsec = at % 1000000000;
    pthread_mutex_lock(&d->lock);
    int late = 0;
    while (!d->stop && late == 0)
        late = pthread_cond_timedwait(&d->stopped, &d->lock, &until);
    bool stop = d->stop;
    pthread_mutex_unlock(&d->lock);
    return !stop;
}

static void *watchdog_main(void *ctx)
{
    struct hg_watchdog *d = ctx;
    prctl(PR_SET_NAME, "hg-watchdog");
    while (wait_for(d, d->watch.period_ns)) {
        enum hg_piece hung = hg_watch_look(&d->watch, hg_now_ns());
        if (hung == HG_PIECE_NONE)
            continue;
        struct hg_error why = {0};
        hg_fail(&why, HG_STATUS_ENGINE,
                "the engine hangs: a piece of work (%s) takes longer than "
                "%.1f s",
                hg_piece_name(hung), (double)d->watch.age_ns / 1e9);
        hg_log(HG_LOG_ERROR, "watchdog: %s", why.text);
        d->on_hung(d->ctx, &why);
        if (wait_for(d, (int64_t)GRACE_S * 1000000000))
            hg_process_leave(hg_status_exit_code(HG_STATUS_ENGINE));
        break;
    }
    return NULL;
}

enum hg_status hg_watchdog_start(struct hg_heart *h, int64_t limit_ms, hg_watchdog_fn *on_hung,
                                 void *ctx, struct hg_watchdog **out, struct hg_error *err)
{
    enum { LOOKS = 16, MAX_PERIOD_NS = 500000000, MIN_PERIOD_NS = 1000000 };
    *out = NULL;
    if (limit_ms <= 0)
        return HG_STATUS_OK;
    struct hg_watchdog *d = calloc(1, sizeof *d);
    if (!d)
        return hg_fail(err, HG_STATUS_NO_MEMORY, "watchdog: out of memory");
    int64_t period = limit_ms * 1000000 / LOOKS;
    period = period > MAX_PERIOD_NS ? MAX_PERIOD_NS : max(period, MIN_PERIOD_NS);
    d->watch = (struct hg_watch){
        .heart = h, .limit_ns = limit_ms * 1000000, .period_ns = period, .looked_ns = hg_now_ns()};
    d->on_hung = on_hung;
    d->ctx = ctx;
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&d->lock, NULL);
    pthread_cond_init(&d->stopped, &monotonic);
    pthread_condattr_destroy(&monotonic);
    if (pthread_create(&d->thread, NULL, watchdog_main, d) != 0) {
        free(d);
        return hg_fail(err, HG_STATUS_INTERNAL, "watchdog: cannot start its thread");
    }
    *out = d;
    return HG_STATUS_OK;
}

void hg_watchdog_stop(struct hg_watchdog *d)
{
    if (!d)
        return;
    pthread_mutex_lock(&d->lock);
    d->stop = true;
    pthread_cond_signal(&d->stopped);
    pthread_mutex_unlock(&d->lock);
    pthread_join(d->thread, NULL);
    pthread_cond_destroy(&d->stopped);
    pthread_mutex_destroy(&d->lock);
    free(d);
}
