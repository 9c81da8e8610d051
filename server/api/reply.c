/* server/api/reply.c - answers and streams of our own routes: docs/streaming.md. */
#include "server/api/answer.h"
#include "server/api/reply_parts.h"

#include <time.h>

static void put_id(struct hg_json_out *o, const struct hg_request *r)
{
    char id[40];
    snprintf(id, sizeof id, "req-%llu", (unsigned long long)r->number);
    hg_out_string(o, "id", id);
}

/* What a plain answer and the "done" line share. */
static void put_facts(struct hg_json_out *o, const struct hg_reply_context *c,
                      const struct hg_request *r)
{
    put_id(o, r);
    hg_out_string(o, "model", c->model);
    hg_out_string(o, "finish_reason", hg_finish_name(r->result.finish));
    hg_out_real(o, "temperature", (double)r->sampling.temperature, 4);
    hg_out_uint(o, "seed", r->sampling.seed);
    hg_put_usage(o, r);
    hg_put_timings(o, r);
    hg_put_transforms(o, r);
    if (r->task == HG_TASK_GENERATION)
        hg_out_bool(o, "synthetic", true);
    hg_out_string(o, "notice", c->notice);
}

enum hg_status hg_reply_queued(const struct hg_request *r, struct hg_buf *out)
{
    struct hg_json_out o;
    hg_line_open(&o, out, "queued");
    put_id(&o, r);
    hg_out_string(&o, "task", hg_task_name(r->task));
    hg_out_int(&o, "position", r->position);
    hg_out_int(&o, "prompt_tokens", r->n_prompt);
    return hg_line_close(&o);
}

enum hg_status hg_reply_event(const struct hg_reply_context *c, const struct hg_request *r,
                              const struct hg_event *e, const struct hg_buf *text,
                              const struct hg_top_token *tops, struct hg_buf *out)
{
    struct hg_json_out o;
    if (e->type == HG_EVENT_PREFILL) {
        hg_line_open(&o, out, "prefill");
        hg_out_int(&o, "done", e->done);
        hg_out_int(&o, "total", e->total);
        hg_out_int(&o, "cached", e->n_found);
        return hg_line_close(&o);
    }
    if (e->type == HG_EVENT_PROGRESS) {
        hg_line_open(&o, out, "progress");
        hg_out_int(&o, "done", e->done);
        hg_out_int(&o, "total", e->total);
        if (e->done > 1)
            hg_out_real(&o, "seconds_left", (double)e->seconds_left, 3);
        return hg_line_close(&o);
    }
    if (e->type == HG_EVENT_PREVIEW) {
        struct hg_image im = {.width = e->width, .height = e->height, .rgb = (uint8_t *)text->data};
        hg_line_open(&o, out, "preview");
        hg_out_int(&o, "done", e->done);
        hg_out_int(&o, "total", e->total);
        hg_put_png(&o, c, r, &im, true);
        hg_put_image_facts(&o, &im);
        return hg_line_close(&o);
    }
    hg_line_open(&o, out, "token");
    if (e->id >= 0) {
        hg_out_int(&o, "id", e->id);
        hg_out_real(&o, "logprob", (double)e->logprob, 6);
    }
    hg_out_string_n(&o, "text", text->data, text->len);
    if (e->n_top > 0)
        hg_reply_tops(&o, "top_logprobs", c->tokenizer, tops, e->n_top);
    return hg_line_close(&o);
}

enum hg_status hg_reply_end(const struct hg_reply_context *c, const struct hg_request *r,
                            struct hg_buf *out)
{
    struct hg_json_out o;
    if (r->result.error.status != HG_STATUS_OK) {
        struct hg_api_error e;
        hg_reply_error_of(r, &e);
        hg_line_open(&o, out, "error");
        put_id(&o, r);
        hg_api_put_error(&o, &e);
        return hg_line_close(&o);
    }
    if (r->result.image.rgb) {
        hg_line_open(&o, out, "image");
        hg_put_png(&o, c, r, &r->result.image, false);
        hg_put_image_facts(&o, &r->result.image);
        HG_TRY(hg_line_close(&o));
    }
    hg_line_open(&o, out, "done");
    put_facts(&o, c, r);
    return hg_line_close(&o);
}

/* "text", and the alternatives of each token when they were asked for. */
static void put_text(struct hg_json_out *o, const struct hg_reply_context *c, struct hg_request *r)
{
    struct hg_buf text = {0};
    struct hg_event e = {0};
    struct hg_top_token tops[HG_MAX_TOP];
    bool want = r->sampling.n_top > 0;
    if (want)
        hg_out_open(o, "top_logprobs", '[');
    for (size_t i = 0; hg_stream_read(&r->stream, i, &e, &text, tops); i++) {
        o->failed |= e.type == HG_EVENT_LOST;
        if (want && e.type == HG_EVENT_TOKEN && e.id >= 0)
            hg_reply_tops(o, NULL, c->tokenizer, tops, e.n_top);
    }
    if (want)
        hg_out_close(o, ']');
    hg_out_string_n(o, "text", text.data, text.len);
    hg_buf_deinit(&text);
}

enum hg_status hg_reply_answer(const struct hg_reply_context *c, struct hg_request *r,
                               struct hg_buf *out)
{
    struct hg_json_out o;
    hg_out_begin(&o, out);
    hg_out_open(&o, NULL, '{');
    hg_out_int(&o, "created", (int64_t)time(NULL));
    if (r->task == HG_TASK_GENERATION) {
        hg_out_open(&o, "image", '{');
        hg_put_png(&o, c, r, &r->result.image, false);
        hg_put_image_facts(&o, &r->result.image);
        hg_out_close(&o, '}');
    } else {
        put_text(&o, c, r);
    }
    put_facts(&o, c, r);
    hg_out_close(&o, '}');
    return hg_out_status(&o);
}

/* ---- as a form of answers -------------------------------------------------------------------- */

static enum hg_status lines_open(struct hg_answer *a, struct hg_buf *out)
{
    return hg_reply_queued(a->requests[0], out);
}

static enum hg_status lines_event(struct hg_answer *a, const struct hg_event *e,
                                  const struct hg_buf *text, const struct hg_top_token *tops,
                                  struct hg_buf *out)
{
    return hg_reply_event(a->context, a->requests[a->choice], e, text, tops, out);
}

static enum hg_status lines_end(struct hg_answer *a, struct hg_buf *out)
{
    return hg_reply_end(a->context, a->requests[a->choice], out);
}

static enum hg_status lines_whole(struct hg_answer *a, struct hg_buf *out)
{
    HG_TRY(hg_reply_answer(a->context, a->requests[0], out));
    return hg_buf_append_str(out, "\n");
}

const struct hg_answer_form hg_answer_lines = {.stream_type = "application/x-ndjson",
                                               .open = lines_open,
                                               .event = lines_event,
                                               .end = lines_end,
                                               .whole = lines_whole};
