/* server/http/http_answer.c - what an exchange answers: documents, errors, and the events of a
 * request as a stream or as one reply. A waiting exchange is suspended and called once more when
 * resumed.
 */
#include "server/http/http_exchange.h"

#include <math.h>
#include <string.h>

#include "common/clock.h"
#include "server/api/openapi.h"

static const int64_t REWAKE_NS = 1000000000;

enum { STREAM_BLOCK = 2 << 10 };

/* ---- answers --------------------------------------------------------------------------------- */

static bool add_common_headers(const struct exchange *x, struct MHD_Response *r, const char *type)
{
    return MHD_add_response_header(r, "X-Request-Id", x->trace.request_id) == MHD_YES &&
           MHD_add_response_header(r, "Content-Type", type) == MHD_YES &&
           MHD_add_response_header(r, "X-Content-Type-Options", "nosniff") == MHD_YES &&
           MHD_add_response_header(r, "Cache-Control", "no-store") == MHD_YES;
}

static const char *allowed(const struct hg_route *r)
{
    return strcmp(r->method, "GET") == 0 ? "GET, HEAD" : r->method;
}

/* Spread by a half to both sides, so that those who were refused together do not come together. */
static void add_retry_after(struct exchange *x, struct MHD_Response *r)
{
    char seconds[24];
    if (x->retry_s > 0) { /* it is known exactly */
        snprintf(seconds, sizeof seconds, "%.0f", ceil(x->retry_s));
        MHD_add_response_header(r, "Retry-After", seconds);
        return;
    }
    if (!atomic_load(&x->http->serving)) {
        double left_s;
        hg_model_load_share(&left_s);
        snprintf(seconds, sizeof seconds, "%d", left_s < 119 ? (int)left_s + 1 : 120);
        MHD_add_response_header(r, "Retry-After", seconds);
        return;
    }
    enum hg_task task = x->route ? x->route->task : HG_TASK_COMPREHENSION;
    double s = hg_scheduler_retry_s(x->http->scheduler, &x->who, task);
    double spread = (double)((uint64_t)hg_now_ns() * 0x9e3779b97f4a7c15u >> 40) / (1 << 24);
    snprintf(seconds, sizeof seconds, "%d", (int)(s * (0.5 + spread) + 0.5));
    MHD_add_response_header(r, "Retry-After", seconds);
}

/* Every answer goes this way. */
static void add_cors_headers(const struct exchange *x, struct MHD_Response *r)
{
    if (*x->http->policy.cors)
        MHD_add_response_header(r, "Vary", "Origin");
    if (!x->facts.origin)
        return;
    MHD_add_response_header(r, "Access-Control-Allow-Origin", x->facts.origin);
    MHD_add_response_header(r, "Access-Control-Expose-Headers",
                            "X-Request-Id, Retry-After, X-Synthetic-Image");
}

enum MHD_Result hg_http_queue(struct exchange *x, unsigned http, struct MHD_Response *r)
{
    if (x->last && !MHD_get_response_header(r, "Connection"))
        MHD_add_response_header(r, "Connection", "close");
    hg_http_rate_headers(x, r);
    add_cors_headers(x, r);
    return MHD_queue_response(x->connection, http, r);
}

static void add_refusal_headers(struct exchange *x, struct MHD_Response *r)
{
    if (x->error.http == 405 && x->route)
        MHD_add_response_header(r, "Allow", allowed(x->route));
    if (x->error.http == 503 || x->error.http == 429)
        add_retry_after(x, r);
    if (x->error.http == 401)
        MHD_add_response_header(r, "WWW-Authenticate", "Bearer realm=\"healthgpt\"");
    if ((x->refused && !x->may_stay) || atomic_load(&x->http->draining))
        MHD_add_response_header(r, "Connection", "close");
}

static void mark_synthetic(const struct exchange *x, struct MHD_Response *r)
{
    if (x->replayed)
        MHD_add_response_header(r, "Idempotent-Replayed", "true");
    if (x->replayed ||
        (x->answer.n_requests > 0 && x->answer.requests[0]->task == HG_TASK_GENERATION))
        MHD_add_response_header(r, "X-Synthetic-Image", "true");
}

/* Takes the buffer. */
static enum MHD_Result send_buffer(struct exchange *x, int http, struct hg_buf *b)
{
    struct MHD_Response *r =
        MHD_create_response_from_buffer(b->len, b->data, MHD_RESPMEM_MUST_FREE);
    if (!r) {
        hg_buf_deinit(b);
        return MHD_NO;
    }
    hg_guard_answer(x->guarded, b->len);
    *b = (struct hg_buf){0};
    enum MHD_Result ok = MHD_NO;
    if (add_common_headers(x, r, "application/json")) {
        if (http >= 400)
            add_refusal_headers(x, r);
        else
            mark_synthetic(x, r);
        ok = hg_http_queue(x, (unsigned)http, r);
    }
    MHD_destroy_response(r);
    return ok;
}

enum MHD_Result hg_http_send_error(struct exchange *x)
{
    struct hg_buf b = {0};
    hg_http_idempotency_abandon(x);
    if (hg_api_write_error(&x->error, &b) != HG_STATUS_OK ||
        hg_buf_append_str(&b, "\n") != HG_STATUS_OK) {
        hg_buf_deinit(&b);
        return MHD_NO;
    }
    return send_buffer(x, x->error.http, &b);
}

static enum MHD_Result send_failure(struct exchange *x, const struct hg_error *err)
{
    hg_api_error_of(&x->error, err);
    return hg_http_send_error(x);
}

static enum MHD_Result send_out_of_memory(struct exchange *x)
{
    struct hg_error err = {.status = HG_STATUS_NO_MEMORY};
    return send_failure(x, &err);
}

/* ---- GET /health, GET /v1/models ------------------------------------------------------------- */

static enum MHD_Result send_document(struct exchange *x, int http, enum hg_status status,
                                     struct hg_buf *b)
{
    if (status == HG_STATUS_OK)
        return send_buffer(x, http, b);
    hg_buf_deinit(b);
    return send_out_of_memory(x);
}

/* Readiness: 200 while this is "ok", else 503, so that a balancer sends its requests elsewhere. */
static const char *state_of(struct hg_http *h)
{
    const char *trouble = hg_scheduler_trouble(h->scheduler);
    if (trouble)
        return trouble;
    return atomic_load(&h->draining) ? "draining" : "ok";
}

enum MHD_Result hg_http_answer_health(struct exchange *x)
{
    struct hg_http *h = x->http;
    struct hg_scheduler_stats stats;
    struct hg_guard_stats guard;
    struct hg_buf b = {0};
    hg_scheduler_stats(h->scheduler, &stats);
    hg_guard_stats(h->guard, &guard);
    const char *state = state_of(h);
    enum hg_status s =
        hg_reply_health(&h->reply, &h->info, &stats, &guard, h->max_queue, state, &b);
    return send_document(x, strcmp(state, "ok") == 0 ? 200 : 503, s, &b);
}

enum MHD_Result hg_http_answer_models(struct exchange *x)
{
    struct hg_buf b = {0};
    return send_document(x, 200, hg_reply_models(&x->http->reply, &x->http->info, &b), &b);
}

static enum MHD_Result send_model(struct exchange *x,
                                  enum hg_status (*write)(const struct hg_reply_context *,
                                                          const struct hg_model_info *,
                                                          const char *, struct hg_buf *))
{
    struct hg_buf b = {0};
    enum hg_status status = write(&x->http->reply, &x->http->info, x->id, &b);
    if (status != HG_STATUS_NOT_FOUND)
        return send_document(x, 200, status, &b);
    hg_api_error_set(&x->error, 404, "model_not_found", "no such model: see GET /v1/models");
    snprintf(x->error.param, sizeof x->error.param, "model");
    return hg_http_send_error(x);
}

enum MHD_Result hg_http_answer_model(struct exchange *x)
{
    return send_model(x, hg_reply_model);
}

enum MHD_Result hg_http_answer_card(struct exchange *x)
{
    return send_model(x, hg_reply_card);
}

enum MHD_Result hg_http_answer_openapi(struct exchange *x)
{
    struct hg_buf b = {0};
    return send_document(x, 200, hg_openapi_write(&x->http->info, &b), &b);
}

enum MHD_Result hg_http_answer_preflight(struct exchange *x)
{
    struct MHD_Response *r = MHD_create_response_from_buffer(0, NULL, MHD_RESPMEM_PERSISTENT);
    if (!r)
        return MHD_NO;
    MHD_add_response_header(r, "Access-Control-Allow-Methods",
                            strcmp(x->route->method, "GET") == 0 ? "GET, HEAD" : "POST");
    MHD_add_response_header(r, "Access-Control-Allow-Headers",
                            "Authorization, Content-Type, Idempotency-Key, X-Request-Id, "
                            "traceparent");
    MHD_add_response_header(r, "Access-Control-Max-Age", "600");
    hg_guard_answer(x->guarded, 0);
    enum MHD_Result ok = hg_http_queue(x, 204, r);
    MHD_destroy_response(r);
    return ok;
}

/* ---- POST: a question, a drawing ------------------------------------------------------------- */

static void suspend_connection(void *ctx)
{
    MHD_suspend_connection(ctx);
}

static void resume_connection(void *ctx)
{
    MHD_resume_connection(ctx);
}

static void client_gone(void *ctx)
{
    struct hg_answer *a = ctx;
    for (int i = 0; i < a->n_requests; i++)
        hg_request_cancel(a->requests[i]);
}

/* The reader looks whether a ping is due. */
static void nudge(void *ctx)
{
    struct hg_answer *a = ctx;
    for (int i = 0; i < a->n_requests; i++)
        hg_stream_nudge(&a->requests[i]->stream);
}

/* A reader that was forgotten comes (hg_stream_rewake). */
static void rewake(void *ctx)
{
    struct hg_answer *a = ctx;
    for (int i = 0; i < a->n_requests; i++)
        hg_stream_rewake(&a->requests[i]->stream);
}

void hg_http_leave(struct exchange *x)
{
    struct hg_answer *a = &x->answer;
    for (int i = 0; i < a->n_requests; i++) {
        hg_stream_detach(&a->requests[i]->stream);
        hg_request_cancel(a->requests[i]); /* of no effect when it has ended */
        hg_request_unref(a->requests[i]);
    }
    a->n_requests = 0;
}

/* END of a choice was read: what it says, then the next one, or the end of the stream. */
static enum hg_status write_end(struct exchange *x)
{
    struct hg_answer *a = &x->answer;
    bool failed = a->requests[a->choice]->result.error.status != HG_STATUS_OK;
    HG_TRY(x->form->end(a, &x->out));
    x->at = 0;
    if (!failed && ++a->choice < a->n_requests)
        return HG_STATUS_OK;
    x->end_written = true;
    HG_TRY(failed || !x->form->close ? HG_STATUS_OK : x->form->close(a, &x->out));
    hg_guard_answer(x->guarded, x->out.len);
    return HG_STATUS_OK;
}

/* One event, or a ping, into x->out; false: there is none yet, and the connection is suspended. */
static bool write_next(struct exchange *x, enum hg_status *status)
{
    struct hg_answer *a = &x->answer;
    struct hg_event event;
    struct hg_top_token tops[HG_MAX_TOP];
    struct hg_buf text = {0};
    if (x->form->ping && hg_now_ns() - x->sent_ns >= x->http->ping_ns) {
        *status = hg_buf_append_str(&x->out, x->form->ping);
        return true;
    }
    if (!hg_stream_read(&a->requests[a->choice]->stream, x->at, &event, &text, tops))
        return false;
    x->at++;
    if (event.type == HG_EVENT_LOST)
        *status = HG_STATUS_NO_MEMORY;
    else if (event.type == HG_EVENT_END)
        *status = write_end(x);
    else
        *status = x->form->event(a, &event, &text, tops, &x->out);
    hg_buf_deinit(&text);
    return true;
}

/* The next bytes of a stream: what is ready, or 0 with the connection suspended. */
static ssize_t read_stream(void *cls, uint64_t pos, char *buf, size_t max)
{
    struct exchange *x = cls;
    (void)pos;
    while (x->sent == x->out.len) {
        enum hg_status status = HG_STATUS_OK;
        if (x->end_written)
            return MHD_CONTENT_READER_END_OF_STREAM;
        hg_buf_clear(&x->out);
        x->sent = 0;
        if (!write_next(x, &status))
            return 0;
        if (status != HG_STATUS_OK)
            return MHD_CONTENT_READER_END_WITH_ERROR;
    }
    size_t n = x->out.len - x->sent < max ? x->out.len - x->sent : max;
    memcpy(buf, x->out.data + x->sent, n);
    x->sent += n;
    x->sent_ns = hg_now_ns();
    return (ssize_t)n;
}

static void attach(struct exchange *x, bool end_only)
{
    for (int i = 0; i < x->answer.n_requests; i++)
        hg_stream_attach(&x->answer.requests[i]->stream, suspend_connection, resume_connection,
                         x->connection, end_only);
}

static enum MHD_Result start_stream(struct exchange *x)
{
    if (x->form->open(&x->answer, &x->out) != HG_STATUS_OK)
        return MHD_NO;
    struct MHD_Response *r =
        MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, STREAM_BLOCK, read_stream, x, NULL);
    if (!r)
        return MHD_NO;
    enum MHD_Result ok = MHD_NO;
    if (add_common_headers(x, r, x->form->stream_type) &&
        MHD_add_response_header(r, "X-Accel-Buffering", "no") == MHD_YES) {
        mark_synthetic(x, r);
        attach(x, false);
        x->sent_ns = hg_now_ns();
        if (x->form->ping)
            hg_guard_nudge(x->guarded, x->http->ping_ns, nudge);
        else
            hg_guard_nudge(x->guarded, REWAKE_NS, rewake);
        ok = hg_http_queue(x, 200, r);
    }
    MHD_destroy_response(r);
    return ok;
}

/* The plain answer once END of every choice is there; until then the connection sleeps. */
enum MHD_Result hg_http_answer_when_ended(struct exchange *x)
{
    struct hg_answer *a = &x->answer;
    struct hg_buf b = {0};
    for (; a->choice < a->n_requests; a->choice++) {
        struct hg_request *r = a->requests[a->choice];
        if (!hg_stream_ended(&r->stream))
            return MHD_YES;
        if (r->result.error.status != HG_STATUS_OK) {
            hg_reply_error_of(r, &x->error);
            return hg_http_send_error(x);
        }
    }
    a->choice = 0;
    enum hg_status status = x->form->whole(a, &b);
    if (status == HG_STATUS_OK)
        hg_http_idempotency_finish(x, &b);
    return send_document(x, 200, status, &b);
}

static bool parse_body(struct exchange *x, struct hg_ask *ask)
{
    bool parsed = x->body->kind == HG_BODY_FORM ? hg_api_parse_form(x->body, ask, &x->error)
                                                : hg_api_parse_json(x->body, ask, &x->error);
    return parsed && hg_api_choose_model(ask, x->http->info.name, &x->error);
}

/* All choices are accepted, or none. */
static enum hg_status submit(struct exchange *x, struct hg_ask *ask, struct hg_error *err)
{
    struct hg_answer *a = &x->answer;
    hg_answer_init(a, &x->http->reply, ask);
    HG_TRY(hg_request_create_choices(x->http->model, ask, a->requests, err));
    a->n_requests = ask->n_choices;
    snprintf(a->id, sizeof a->id, "%s-%016llx-%llu",
             ask->dialect == HG_DIALECT_CHAT ? "chatcmpl" : "cmpl",
             (unsigned long long)x->http->nonce, (unsigned long long)a->requests[0]->number);
    for (int i = 0; i < a->n_requests; i++) {
        enum hg_status status = hg_scheduler_submit(x->http->scheduler, a->requests[i], err);
        if (status != HG_STATUS_OK) {
            hg_http_leave(x);
            return status;
        }
    }
    hg_http_rate_reserve(x);
    return HG_STATUS_OK;
}

/* OpenAI's clients know a prompt that is too long by this code. */
static enum MHD_Result send_refusal(struct exchange *x, const struct hg_error *err)
{
    hg_api_error_of(&x->error, err);
    if (err->status == HG_STATUS_TOO_LARGE && x->route->dialect >= HG_DIALECT_CHAT) {
        x->error.http = 400;
        snprintf(x->error.code, sizeof x->error.code, "context_length_exceeded");
    }
    return hg_http_send_error(x);
}

enum MHD_Result hg_http_answer_task(struct exchange *x)
{
    struct hg_ask ask;
    struct hg_error err = {0};
    if (hg_scheduler_has_room(x->http->scheduler, &x->who, x->route->task, &err) != HG_STATUS_OK) {
        hg_http_drop_body(x); /* no room: nothing is decoded for the refusal */
        return send_failure(x, &err);
    }
    hg_ask_init_dialect(&ask, x->route->dialect);
    ask.tenant = x->who;
    ask.audit = x->http->audit;
    ask.strict = x->http->strict;
    struct hg_buf kept = {0};
    bool parsed = parse_body(x, &ask), wants_stream = ask.stream;
    parsed = parsed && hg_http_idempotency_begin(x, wants_stream, &kept);
    hg_http_drop_body(x); /* the images are decoded: the body is not needed any more */
    hg_http_audit_subject(x, &ask);
    x->replayed = kept.len > 0;
    enum hg_status status = parsed && !x->replayed ? submit(x, &ask, &err) : HG_STATUS_OK;
    hg_ask_deinit(&ask);
    if (!parsed)
        return hg_http_send_error(x);
    if (x->replayed)
        return send_buffer(x, 200, &kept);
    if (status != HG_STATUS_OK)
        return send_refusal(x, &err);
    const struct hg_request *r = x->answer.requests[0];
    x->form = hg_answer_form(x->route->dialect);
    hg_guard_work(x->guarded, r->number, r->deadline_ns, client_gone, &x->answer,
                  wants_stream ? &r->stream.waiting : NULL);
    if (wants_stream)
        return start_stream(x);
    attach(x, true);
    hg_guard_nudge(x->guarded, REWAKE_NS, rewake);
    return hg_http_answer_when_ended(x);
}
