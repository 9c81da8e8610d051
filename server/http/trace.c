/* server/http/trace.c - see trace.h. */
#include "server/http/trace.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "common/clock.h"
#include "common/log.h"
#include "server/json_text.h"

enum { CLIENT_CLOSED = 499 };

/* ---- names ----------------------------------------------------------------------------------- */

bool hg_trace_id_is_good(const char *s)
{
    size_t n = strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-");
    return n > 0 && n <= 64 && s[n] == '\0';
}

/* n lower-case hex digits, not all of them 0. */
static bool is_id(const char *s, size_t n)
{
    return strspn(s, "0123456789abcdef") >= n && strspn(s, "0") < n;
}

bool hg_trace_parse(const char *s, char trace_id[33], char parent_id[17])
{
    enum { VERSION = 0, TRACE = 3, PARENT = 36, FLAGS = 53, END = 55 };
    size_t len = strnlen(s, 512);
    trace_id[0] = parent_id[0] = '\0';
    if (len < END || strspn(s, "0123456789abcdef") != 2 || s[2] != '-' || s[35] != '-' ||
        s[52] != '-' || strspn(s + FLAGS, "0123456789abcdef") != 2)
        return false;
    if (memcmp(s, "ff", 2) == 0 || !is_id(s + TRACE, 32) || !is_id(s + PARENT, 16))
        return false;
    /* Later versions may say more after another dash. */
    if (len > END && (memcmp(s, "00", 2) == 0 || s[END] != '-'))
        return false;
    memcpy(trace_id, s + TRACE, 32);
    memcpy(parent_id, s + PARENT, 16);
    trace_id[32] = parent_id[16] = '\0';
    return true;
}

/* Different for every request of this process, and for other processes as good as surely. */
static uint64_t next_number(void)
{
    static atomic_uint_fast64_t at;
    uint64_t before = atomic_load(&at), seed = 0;
    if (before == 0) {
        if (getrandom(&seed, sizeof seed, GRND_NONBLOCK) != (ssize_t)sizeof seed)
            seed = (uint64_t)hg_now_ns();
        atomic_compare_exchange_strong(&at, &before, seed | 1);
    }
    uint64_t z = atomic_fetch_add(&at, 0x9e3779b97f4a7c15u); /* splitmix64: a permutation */
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

void hg_trace_begin(struct hg_trace *t, const char *request_id, const char *traceparent)
{
    *t = (struct hg_trace){.start_ns = hg_now_ns()};
    if (request_id && hg_trace_id_is_good(request_id))
        memcpy(t->request_id, request_id, strlen(request_id) + 1);
    else
        snprintf(t->request_id, sizeof t->request_id, "req-%016llx",
                 (unsigned long long)next_number());
    if (traceparent)
        hg_trace_parse(traceparent, t->trace_id, t->parent_id);
}

/* ---- the line -------------------------------------------------------------------------------- */

struct sums {
    int prompt, cached, generated;
    double queue_ms, first_ms, total_ms;
    const char *finish;
};

static double larger(double a, double b)
{
    return a > b ? a : b;
}

static bool has_ended(const struct hg_request *r)
{
    return atomic_load(&r->state) >= HG_REQUEST_DONE;
}

/* Tokens so far of a request that the engine may still be writing. */
static int n_so_far(struct hg_request *r)
{
    int n = 0;
    pthread_mutex_lock(&r->stream.lock);
    for (size_t i = 0; i < r->stream.n; i++) {
        const struct hg_event *e = &r->stream.events[i];
        if (e->type == HG_EVENT_TOKEN)
            n += e->id >= 0;
        else if (e->type == HG_EVENT_PROGRESS)
            n = e->done;
    }
    pthread_mutex_unlock(&r->stream.lock);
    return n;
}

static const char *finish_of(const struct hg_result *u)
{
    if (u->error.status == HG_STATUS_CANCELLED)
        return "cancelled";
    if (u->error.status != HG_STATUS_OK)
        return "error";
    return u->finish == HG_FINISH_LENGTH ? "length" : "stop";
}

static void add(struct sums *s, struct hg_request *r)
{
    const struct hg_result *u = &r->result;
    s->prompt += r->n_prompt;
    if (!has_ended(r)) {
        s->generated += n_so_far(r);
        s->finish = "cancelled";
        return;
    }
    s->cached += u->n_found;
    s->generated += u->n_generated;
    s->queue_ms = larger(s->queue_ms, u->queue_ms);
    s->first_ms = larger(s->first_ms, u->first_token_ms);
    s->total_ms = larger(s->total_ms, u->total_ms);
    /* of several choices: what went wrong, else the first */
    if (!s->finish || u->error.status != HG_STATUS_OK)
        s->finish = finish_of(u);
}

static void put_size(struct hg_json_out *o, const char *key, int width, int height)
{
    hg_out_open(o, key, '[');
    hg_out_int(o, NULL, width);
    hg_out_int(o, NULL, height);
    hg_out_close(o, ']');
}

static void put_work(struct hg_json_out *o, const struct hg_trace_end *e)
{
    struct sums s = {0};
    const struct hg_request *first = e->requests[0];
    for (int i = 0; i < e->n_requests; i++)
        add(&s, e->requests[i]);
    hg_out_string(o, "plugin", hg_task_name(first->task));
    hg_out_bool(o, "stream", e->stream);
    hg_out_int(o, "choices", e->n_requests);
    hg_out_int(o, "prompt_tokens", s.prompt);
    hg_out_int(o, "cached_tokens", s.cached);
    hg_out_int(o, "completion_tokens", s.generated);
    hg_out_int(o, "images", first->n_images);
    hg_out_open(o, "image_sizes", '[');
    for (int i = 0; i < first->n_images; i++)
        put_size(o, NULL, first->transform[i].width, first->transform[i].height);
    hg_out_close(o, ']');
    if (has_ended(first) && first->result.image.rgb)
        put_size(o, "drawn", first->result.image.width, first->result.image.height);
    hg_out_real(o, "queue_ms", s.queue_ms, 3);
    hg_out_real(o, "first_token_ms", s.first_ms, 3);
    hg_out_string(o, "finish_reason", s.finish);
}

static const char *or_null(const char *s)
{
    return s && *s ? s : NULL;
}

void hg_trace_end(const struct hg_trace *t, const struct hg_trace_end *e)
{
    struct hg_buf line = {0};
    struct hg_json_out o;
    int status = e->status ? e->status : CLIENT_CLOSED;
    if (!hg_log_is_json())
        return;
    hg_out_begin(&o, &line);
    hg_out_string(&o, "event", "request");
    hg_out_string(&o, "request_id", t->request_id);
    if (t->trace_id[0]) {
        hg_out_string(&o, "trace_id", t->trace_id);
        hg_out_string(&o, "parent_id", t->parent_id);
    }
    hg_out_string(&o, "route", or_null(e->route));
    hg_out_int(&o, "status", status);
    hg_out_string(&o, "key", or_null(e->key));
    hg_out_string(&o, "model", or_null(e->model));
    if (e->n_requests > 0)
        put_work(&o, e);
    hg_out_real(&o, "total_ms", (double)(hg_now_ns() - t->start_ns) / 1e6, 3);
    hg_out_string(&o, "error", or_null(e->error));
    if (!o.failed)
        hg_log_members(status >= CLIENT_CLOSED ? HG_LOG_WARN : HG_LOG_INFO, line.data, line.len);
    hg_buf_deinit(&line);
}
