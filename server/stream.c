/* server/stream.c - one mutex, one condition, one append-only ring that never has to wrap. */
#include "server/stream.h"

#include <stdlib.h>

/* Reserved: a token has 3 to 4 on average, so that an answer hardly ever makes the buffer grow. */
enum { BYTES_PER_TOKEN = 8 };

enum hg_status hg_stream_init(struct hg_stream *s, size_t n_events, int n_top, struct hg_error *err)
{
    *s = (struct hg_stream){.cap = n_events};
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->changed, NULL);
    size_t n_tops = 0;
    if (__builtin_mul_overflow(n_events, (size_t)n_top, &n_tops) || n_tops > UINT32_MAX)
        return hg_fail(err, HG_STATUS_TOO_LARGE, "stream: %zu events are too many", n_events);
    s->n_tops_cap = n_tops;
    s->events = calloc(n_events, sizeof *s->events);
    s->tops = n_tops ? calloc(n_tops, sizeof *s->tops) : NULL;
    if (!s->events || (n_tops && !s->tops) ||
        hg_buf_reserve(&s->text, n_events * BYTES_PER_TOKEN) != HG_STATUS_OK) {
        hg_stream_deinit(s);
        return hg_fail(err, HG_STATUS_NO_MEMORY, "stream: out of memory");
    }
    return HG_STATUS_OK;
}

void hg_stream_deinit(struct hg_stream *s)
{
    free(s->events);
    free(s->tops);
    hg_buf_deinit(&s->text);
    pthread_cond_destroy(&s->changed);
    pthread_mutex_destroy(&s->lock);
    s->events = NULL;
    s->tops = NULL;
}

/* What an event costs as a line, about. */
static size_t cost(const struct hg_event *e)
{
    enum { LINE = 64 };
    return LINE + e->n_text + (size_t)e->n_top * LINE;
}

/* The lock is held. */
static void resume_reader(struct hg_stream *s)
{
    s->suspended = false;
    s->woken = true;
    s->resume(s->ctx);
}

enum hg_status hg_stream_push(struct hg_stream *s, const struct hg_event *event, const char *text,
                              size_t n_text, const struct hg_top_token *tops)
{
    enum hg_status status = HG_STATUS_INTERNAL;
    pthread_mutex_lock(&s->lock);
    size_t n_top = (size_t)event->n_top;
    /* One place is kept for END, so that a request can always be ended. */
    bool end = event->type == HG_EVENT_END;
    if (s->ended || s->n + (end ? 0 : 1) >= s->cap || n_top > s->n_tops_cap - s->n_tops)
        goto out;
    size_t text_at = s->text.len;
    if (n_text > UINT32_MAX - text_at) {
        status = HG_STATUS_TOO_LARGE;
        goto out;
    }
    HG_TRY_OUT(n_text ? hg_buf_append(&s->text, text, n_text) : HG_STATUS_OK);
    struct hg_event *e = &s->events[s->n++];
    *e = *event;
    e->text_at = (uint32_t)text_at;
    e->n_text = (uint32_t)n_text;
    e->top_at = (uint32_t)s->n_tops;
    for (size_t i = 0; i < n_top; i++)
        s->tops[s->n_tops++] = tops[i];
    s->ended = end;
    atomic_fetch_add(&s->waiting, cost(e));
    pthread_cond_broadcast(&s->changed);
    if (s->suspended && (end || !s->end_only))
        resume_reader(s);
    status = HG_STATUS_OK;
out:
    pthread_mutex_unlock(&s->lock);
    return status;
}

/* The lock is held. */
static void suspend_reader(struct hg_stream *s)
{
    if (s->ended || !s->suspend || s->suspended)
        return;
    s->suspended = true;
    s->suspend(s->ctx);
}

bool hg_stream_read(struct hg_stream *s, size_t at, struct hg_event *event, struct hg_buf *text,
                    struct hg_top_token *tops)
{
    pthread_mutex_lock(&s->lock);
    s->woken = false;
    bool there = at < s->n;
    for (; s->n_finished < at && s->n_finished < s->n; s->n_finished++)
        atomic_fetch_sub(&s->waiting, cost(&s->events[s->n_finished]));
    if (there) {
        *event = s->events[at];
        if (event->n_text &&
            hg_buf_append(text, s->text.data + event->text_at, event->n_text) != HG_STATUS_OK)
            event->type = HG_EVENT_LOST;
        for (int i = 0; i < event->n_top; i++)
            tops[i] = s->tops[event->top_at + (size_t)i];
    } else {
        suspend_reader(s);
    }
    pthread_mutex_unlock(&s->lock);
    return there;
}

void hg_stream_wait(struct hg_stream *s, size_t at)
{
    pthread_mutex_lock(&s->lock);
    while (at >= s->n && !s->ended)
        pthread_cond_wait(&s->changed, &s->lock);
    pthread_mutex_unlock(&s->lock);
}

int hg_stream_tokens(struct hg_stream *s)
{
    int n = 0;
    pthread_mutex_lock(&s->lock);
    for (size_t i = 0; i < s->n; i++) {
        const struct hg_event *e = &s->events[i];
        n = e->type == HG_EVENT_PROGRESS ? e->done : n + (e->type == HG_EVENT_TOKEN && e->id >= 0);
    }
    pthread_mutex_unlock(&s->lock);
    return n;
}

bool hg_stream_ended(struct hg_stream *s)
{
    pthread_mutex_lock(&s->lock);
    bool ended = s->ended;
    s->woken = false;
    if (!ended)
        suspend_reader(s);
    pthread_mutex_unlock(&s->lock);
    return ended;
}

void hg_stream_attach(struct hg_stream *s, hg_stream_fn *suspend, hg_stream_fn *resume, void *ctx,
                      bool end_only)
{
    pthread_mutex_lock(&s->lock);
    s->suspend = suspend;
    s->resume = resume;
    s->ctx = ctx;
    s->end_only = end_only;
    pthread_mutex_unlock(&s->lock);
}

void hg_stream_nudge(struct hg_stream *s)
{
    pthread_mutex_lock(&s->lock);
    if (s->resume && (s->suspended || s->woken))
        resume_reader(s);
    pthread_mutex_unlock(&s->lock);
}

void hg_stream_rewake(struct hg_stream *s)
{
    pthread_mutex_lock(&s->lock);
    if (s->resume && s->woken)
        resume_reader(s);
    pthread_mutex_unlock(&s->lock);
}

void hg_stream_detach(struct hg_stream *s)
{
    pthread_mutex_lock(&s->lock);
    s->suspend = s->resume = NULL;
    s->suspended = s->woken = false;
    pthread_mutex_unlock(&s->lock);
}
