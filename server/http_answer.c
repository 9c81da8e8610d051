/* server/http_answer.c - what an exchange answers: documents, errors, and the events of a request
 * as a stream or as one reply. A waiting exchange is suspended and called once more when resumed.
 */
#include "server/http_exchange.h"

#include <string.h>

#include "common/clock.h"

enum { STREAM_BLOCK = 16 << 10 };

/* ---- answers --------------------------------------------------------------------------------- */

static bool add_common_headers(struct MHD_Response *r, const char *type)
{
    return MHD_add_response_header(r, "Content-Type", type) == MHD_YES &&
           MHD_add_response_header(r, "X-Content-Type-Options", "nosniff") == MHD_YES &&
           MHD_add_response_header(r, "Cache-Control", "no-store") == MHD_YES;
}

static const char *allowed(const struct route *r)
{
    return strcmp(r->method, "GET") == 0 ? "GET, HEAD" : r->method;
}

/* Spread by a half to both sides, so that those who were refused together do not come together. */
static void add_retry_after(struct exchange *x, struct MHD_Response *r)
{
    char seconds[24];
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
    if (add_common_headers(r, "application/json")) {
        if (http >= 400)
            add_refusal_headers(x, r);
        else if (x->request && x->request->task == HG_TASK_GENERATION)
            MHD_add_response_header(r, "X-Synthetic-Image", "true");
        ok = MHD_queue_response(x->connection, (unsigned)http, r);
    }
    MHD_destroy_response(r);
    return ok;
}

enum MHD_Result hg_http_send_error(struct exchange *x)
{
    struct hg_buf b = {0};
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

/* ---- POST /v1/vqa, /v1/draw, /v1/images/generations ------------------------------------------ */

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
    hg_request_cancel(ctx);
}

/* The next bytes of a stream: lines that are ready, or 0 with the connection suspended. */
static ssize_t read_stream(void *cls, uint64_t pos, char *buf, size_t max)
{
    struct exchange *x = cls;
    (void)pos;
    while (x->sent == x->out.len) {
        struct hg_event event;
        struct hg_top_token tops[HG_MAX_TOP];
        struct hg_buf text = {0};
        if (x->end_written)
            return MHD_CONTENT_READER_END_OF_STREAM;
        hg_buf_clear(&x->out);
        x->sent = 0;
        if (!hg_stream_read(&x->request->stream, x->at, &event, &text, tops))
            return 0;
        x->at++;
        x->end_written = event.type == HG_EVENT_END;
        enum hg_status s = x->end_written
                               ? hg_reply_end(&x->http->reply, x->request, &x->out)
                               : hg_reply_event(&x->http->reply, &event, &text, tops, &x->out);
        hg_buf_deinit(&text);
        if (s != HG_STATUS_OK)
            return MHD_CONTENT_READER_END_WITH_ERROR;
        if (x->end_written)
            hg_guard_answer(x->guarded, x->out.len);
    }
    size_t n = x->out.len - x->sent < max ? x->out.len - x->sent : max;
    memcpy(buf, x->out.data + x->sent, n);
    x->sent += n;
    return (ssize_t)n;
}

static enum MHD_Result start_stream(struct exchange *x)
{
    if (hg_reply_queued(x->request, &x->out) != HG_STATUS_OK)
        return MHD_NO;
    struct MHD_Response *r =
        MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, STREAM_BLOCK, read_stream, x, NULL);
    if (!r)
        return MHD_NO;
    enum MHD_Result ok = MHD_NO;
    if (add_common_headers(r, "application/x-ndjson") &&
        MHD_add_response_header(r, "X-Accel-Buffering", "no") == MHD_YES) {
        if (x->request->task == HG_TASK_GENERATION)
            MHD_add_response_header(r, "X-Synthetic-Image", "true");
        hg_stream_attach(&x->request->stream, suspend_connection, resume_connection, x->connection,
                         false);
        ok = MHD_queue_response(x->connection, 200, r);
    }
    MHD_destroy_response(r);
    return ok;
}

/* The plain answer once END is there; until then the connection sleeps. */
enum MHD_Result hg_http_answer_when_ended(struct exchange *x)
{
    struct hg_request *r = x->request;
    struct hg_buf b = {0};
    if (!hg_stream_ended(&r->stream))
        return MHD_YES;
    if (r->result.error.status != HG_STATUS_OK) {
        hg_reply_error_of(r, &x->error);
        return hg_http_send_error(x);
    }
    enum hg_status s = x->route->images_api ? hg_reply_images_answer(&x->http->reply, r, &b)
                                            : hg_reply_answer(&x->http->reply, r, &b);
    if (s == HG_STATUS_OK)
        s = hg_buf_append_str(&b, "\n");
    return send_document(x, 200, s, &b);
}

static bool parse_body(struct exchange *x, struct hg_ask *ask)
{
    return x->is_form
               ? hg_api_parse_form(x->facts.content_type, x->body.data, x->body.len, ask, &x->error)
               : hg_api_parse_json(x->body.data ? x->body.data : "", x->body.len, ask, &x->error);
}

enum MHD_Result hg_http_answer_task(struct exchange *x)
{
    struct hg_ask ask;
    struct hg_error err = {0};
    if (hg_scheduler_has_room(x->http->scheduler, &x->who, x->route->task, &err) != HG_STATUS_OK) {
        hg_buf_deinit(&x->body); /* no room: nothing is decoded for the refusal */
        return send_failure(x, &err);
    }
    hg_ask_init(&ask, x->route->task);
    ask.tenant = x->who;
    ask.audit = x->http->audit;
    bool parsed = parse_body(x, &ask), wants_stream = ask.stream;
    hg_buf_deinit(&x->body); /* the images are decoded: the body is not needed any more */
    enum hg_status status = HG_STATUS_OK;
    if (parsed)
        status = hg_request_create(x->http->model, &ask, &x->request, &err);
    hg_ask_deinit(&ask);
    if (!parsed)
        return hg_http_send_error(x);
    if (status == HG_STATUS_OK)
        status = hg_scheduler_submit(x->http->scheduler, x->request, &err);
    if (status != HG_STATUS_OK)
        return send_failure(x, &err);
    hg_guard_work(x->guarded, x->request->number, x->request->deadline_ns, client_gone, x->request,
                  wants_stream ? &x->request->stream.waiting : NULL);
    if (wants_stream)
        return start_stream(x);
    hg_stream_attach(&x->request->stream, suspend_connection, resume_connection, x->connection,
                     true);
    return hg_http_answer_when_ended(x);
}
