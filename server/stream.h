/* server/stream.h - the events of one request: written by the engine thread, read by one reader.
 *
 * A request cannot produce more events than its token limit plus a few, so the whole ring is
 * reserved when the request is made: a push never blocks, never drops and (but for long texts)
 * never allocates, and a slow client costs memory that was counted before. The reader keeps its own
 * position.
 *
 * A reader either waits in its thread (hg_stream_wait, the command line) or attaches two callbacks:
 * `suspend` is called with the lock held when it asks and there is nothing, `resume` with the lock
 * held when there is something again. Called under the lock there is no lost wake-up; they must not
 * call back into the stream. `lock` guards every field. */
#ifndef HG_SERVER_STREAM_H
#define HG_SERVER_STREAM_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/status.h"
#include "kernels/backend.h"

enum hg_event_type {
    HG_EVENT_PREFILL,  /* done of total prompt tokens are computed, n_found were in the cache */
    HG_EVENT_TOKEN,    /* text task: id, logprob, text */
    HG_EVENT_PROGRESS, /* image task: done of total index tokens */
    HG_EVENT_PREVIEW, /* image task: the same, text is the picture so far, RGB [height, width, 3] */
    HG_EVENT_END,     /* the last one: the request's result can be read */
    HG_EVENT_LOST     /* only when read: one whose text found no memory */
};

struct hg_top_token {
    int32_t id;
    float logprob;
};

/* Small: a stream reserves one for each token that may come. */
struct hg_event {
    enum hg_event_type type;
    int32_t id;
    float logprob;
    int done, total, n_found;
    uint16_t width, height;
    float seconds_left; /* PROGRESS: at the pace so far, of the tokens; 0 with the first */
    int n_top;
    uint32_t top_at, text_at, n_text; /* places in the stream's own stores */
};

typedef void hg_stream_fn(void *ctx);

struct hg_stream {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct hg_event *events; /* [cap] */
    size_t n, cap;
    struct hg_top_token *tops; /* [n_tops_cap] */
    size_t n_tops, n_tops_cap;
    struct hg_buf text; /* of all events, one after the other: the answer */
    bool ended;
    atomic_size_t waiting; /* bytes of events that a reader has not finished with: it has when it
                              asks for a later one. Read without the lock */
    size_t n_finished;     /* such events */
    hg_stream_fn *suspend, *resume; /* NULL while nobody is attached */
    void *ctx;
    bool suspended, end_only; /* end_only: resume for the last event only */
    bool woken;               /* resumed, and the reader has not looked since */
};

/* n_events: the most that will be pushed (END included), with n_top alternatives each. */
enum hg_status hg_stream_init(struct hg_stream *s, size_t n_events, int n_top,
                              struct hg_error *err);
void hg_stream_deinit(struct hg_stream *s);

/* [engine] `event` without its places; text and tops are copied. After END nothing may be pushed.
 * NO_MEMORY when the text does not fit (the event is then not pushed). */
enum hg_status hg_stream_push(struct hg_stream *s, const struct hg_event *event, const char *text,
                              size_t n_text, const struct hg_top_token *tops);

/* Copy event number `at` with its text (appended) and tops[HG_MAX_TOP]. False when it is not there
 * yet; an attached reader has then been suspended, unless END was read before. After
 * HG_EVENT_LOST the answer cannot be given. */
bool hg_stream_read(struct hg_stream *s, size_t at, struct hg_event *event, struct hg_buf *text,
                    struct hg_top_token *tops);
void hg_stream_wait(struct hg_stream *s, size_t at); /* until event number `at` is there */
int hg_stream_tokens(struct hg_stream *s);           /* generated so far */
bool hg_stream_ended(struct hg_stream *s);           /* suspends an attached reader when false */

void hg_stream_attach(struct hg_stream *s, hg_stream_fn *suspend, hg_stream_fn *resume, void *ctx,
                      bool end_only);
/* Resume a suspended reader, although nothing is there. */
void hg_stream_nudge(struct hg_stream *s);
/* Resume once more a reader that was resumed and has not come: libmicrohttpd forgets to call it
 * when it has no memory at that moment. */
void hg_stream_rewake(struct hg_stream *s);
void hg_stream_detach(struct hg_stream *s); /* afterwards no callback runs any more */

#endif
