/* server/engine/watchdog.h - the engine's heartbeat, and a thread that sees it stop.
 *
 * The engine says at the beginning of every piece of work which one it is (hg_heart_beat), and NONE
 * when it rests. A piece that lasts longer than its limit is condemned: from then on the engine
 * thread is parked at its next beat, so that the thread that condemned it may end the requests
 * (hg_scheduler_abandon) without a lock. The process then ends with 70 and is started again.
 *
 * The limit of a piece is limit_ns, five times the longest piece of its kind so far if that is
 * more, ten times limit_ns for the first FIRST pieces of a kind (plans, graphs and page faults come
 * with them), thirty times for loading. Age is counted in looks, each worth two periods at most, so
 * a process that was stopped or a machine that slept is not taken for a piece that hangs. */
#ifndef HG_SERVER_WATCHDOG_H
#define HG_SERVER_WATCHDOG_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/status.h"

enum hg_piece {
    HG_PIECE_NONE,
    HG_PIECE_TURN, /* everything between the others: admission, blocks, events */
    HG_PIECE_LOAD,
    HG_PIECE_STEP, /* its plan and its launch; on the cpu backend all of it */
    HG_PIECE_VISION,
    HG_PIECE_DRAW,
    HG_PIECE_WAIT, /* for the end of a step */
    HG_PIECE_COUNT
};

/* Zeroed is at rest. Written by the engine thread; the watchdog reads, and may condemn. */
struct hg_heart {
    atomic_uint_fast64_t beat; /* number of the beat, its lowest bits the piece; CONDEMNED */
    uint64_t n_beats;
    atomic_int_fast64_t since_ns; /* of the piece under way */
    atomic_int_fast64_t longest_ns[HG_PIECE_COUNT];
    atomic_uint_fast64_t n[HG_PIECE_COUNT]; /* that ended */
};

/* [engine] The piece before ends, this one begins. Never returns once condemned. NULL is fine. */
void hg_heart_beat(struct hg_heart *h, enum hg_piece piece);
/* The same at a time; false: condemned. */
bool hg_heart_beat_at(struct hg_heart *h, enum hg_piece piece, int64_t now_ns);
const char *hg_piece_name(enum hg_piece piece);
/* [any] At rest, or the piece under way has not passed the limit that limit_ns gives it (below). */
bool hg_heart_is_young(const struct hg_heart *h, int64_t limit_ns, int64_t now_ns);

/* What the watchdog knows between two looks. */
struct hg_watch {
    struct hg_heart *heart;
    int64_t limit_ns, period_ns;
    int64_t looked_ns;
    uint64_t beat;
    int64_t age_ns; /* of that beat, as far as it was watched */
};
int64_t hg_watch_limit(const struct hg_heart *h, enum hg_piece piece, int64_t limit_ns);
/* The piece that was just condemned, else NONE. */
enum hg_piece hg_watch_look(struct hg_watch *w, int64_t now_ns);

struct hg_watchdog;
/* `on_hung` runs on the watchdog's thread; if the process has not ended GRACE seconds later, the
 * watchdog ends it with 70. */
typedef void hg_watchdog_fn(void *ctx, const struct hg_error *why);
enum hg_status hg_watchdog_start(struct hg_heart *h, int64_t limit_ms, hg_watchdog_fn *on_hung,
                                 void *ctx, struct hg_watchdog **out, struct hg_error *err);
void hg_watchdog_stop(struct hg_watchdog *w); /* NULL is fine */

#endif
