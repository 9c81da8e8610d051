/* server/reply.c - the JSON that clients read. */
#include "server/reply.h"

#include <time.h>

#include "server/version.h"

const char *hg_finish_name(enum hg_finish f)
{
    return f == HG_FINISH_LENGTH ? "length" : f == HG_FINISH_ERROR ? "error" : "stop";
}

struct hg_synthetic hg_reply_mark(const struct hg_reply_context *c, const struct hg_request *r)
{
    return (struct hg_synthetic){.model = c->model,
                                 .plugin = hg_task_name(r->task),
                                 .weights_crc32c = c->weights_crc32c,
                                 .seed = r->sampling.seed};
}

static enum hg_status status_of(const struct hg_json_out *o)
{
    return o->failed ? HG_STATUS_NO_MEMORY : HG_STATUS_OK;
}

static void open_line(struct hg_json_out *o, struct hg_buf *out, const char *type)
{
    hg_out_begin(o, out);
    hg_out_open(o, NULL, '{');
    hg_out_string(o, "type", type);
}

static enum hg_status close_line(struct hg_json_out *o)
{
    hg_out_close(o, '}');
    if (!o->failed && hg_buf_append_str(o->buf, "\n") != HG_STATUS_OK)
        o->failed = true;
    return status_of(o);
}

static void put_id(struct hg_json_out *o, const struct hg_request *r)
{
    char id[40];
    snprintf(id, sizeof id, "req-%llu", (unsigned long long)r->number);
    hg_out_string(o, "id", id);
}

void hg_reply_tops(struct hg_json_out *o, const char *key, const struct hg_tokenizer *t,
                   const struct hg_top_token *tops, int n)
{
    hg_out_open(o, key, '[');
    for (int i = 0; i < n; i++) {
        hg_out_open(o, NULL, '{');
        hg_out_int(o, "id", tops[i].id);
        hg_out_string(o, "token", hg_tokenizer_token(t, tops[i].id));
        hg_out_real(o, "logprob", (double)tops[i].logprob, 6);
        hg_out_close(o, '}');
    }
    hg_out_close(o, ']');
}

static void put_usage(struct hg_json_out *o, const struct hg_request *r)
{
    const struct hg_result *u = &r->result;
    hg_out_open(o, "usage", '{');
    hg_out_int(o, "prompt_tokens", u->n_prompt);
    hg_out_int(o, "completion_tokens", u->n_generated);
    hg_out_int(o, "total_tokens", (int64_t)u->n_prompt + u->n_generated);
    hg_out_open(o, "prompt_tokens_details", '{');
    hg_out_int(o, "cached_tokens", u->n_found);
    hg_out_close(o, '}');
    hg_out_close(o, '}');
    hg_out_open(o, "timings", '{');
    hg_out_real(o, "queue_ms", u->queue_ms, 3);
    hg_out_real(o, "first_token_ms", u->first_token_ms, 3);
    hg_out_real(o, "total_ms", u->total_ms, 3);
    hg_out_close(o, '}');
}

/* One object per picture of the request, in its order. */
static void put_transforms(struct hg_json_out *o, const struct hg_request *r)
{
    hg_out_open(o, "image_transform", '[');
    for (int i = 0; i < r->n_images; i++) {
        const struct hg_image_transform *t = &r->transform[i];
        hg_out_open(o, NULL, '{');
        hg_out_int(o, "width", t->width);
        hg_out_int(o, "height", t->height);
        hg_out_open(o, "pad", '{');
        hg_out_int(o, "left", t->left);
        hg_out_int(o, "top", t->top);
        hg_out_int(o, "right", t->right);
        hg_out_int(o, "bottom", t->bottom);
        hg_out_close(o, '}');
        hg_out_open(o, "pad_rgb", '[');
        for (int k = 0; k < 3; k++)
            hg_out_int(o, NULL, t->pad_rgb[k]);
        hg_out_close(o, ']');
        hg_out_real(o, "scale", t->scale, 9);
        hg_out_string(o, "resample", "bicubic");
        hg_out_int(o, "side", t->side);
        hg_out_close(o, '}');
    }
    hg_out_close(o, ']');
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
    put_usage(o, r);
    put_transforms(o, r);
    if (r->task == HG_TASK_GENERATION)
        hg_out_bool(o, "synthetic", true);
    hg_out_string(o, "notice", c->notice);
}

static void put_png(struct hg_json_out *o, const struct hg_reply_context *c,
                    const struct hg_request *r, const struct hg_image *im, bool preview)
{
    struct hg_buf png = {0};
    struct hg_synthetic mark = hg_reply_mark(c, r);
    if (hg_synthetic_png(im, &mark, preview, &png, NULL) != HG_STATUS_OK)
        o->failed = true;
    hg_out_base64(o, "b64_json", png.data, png.len);
    hg_buf_deinit(&png);
}

static void put_image_facts(struct hg_json_out *o, const struct hg_image *im)
{
    char size[32];
    snprintf(size, sizeof size, "%dx%d", im->width, im->height);
    hg_out_string(o, "output_format", "png");
    hg_out_string(o, "size", size);
}

enum hg_status hg_reply_queued(const struct hg_request *r, struct hg_buf *out)
{
    struct hg_json_out o;
    open_line(&o, out, "queued");
    put_id(&o, r);
    hg_out_string(&o, "task", hg_task_name(r->task));
    hg_out_int(&o, "position", r->position);
    hg_out_int(&o, "prompt_tokens", r->n_prompt);
    return close_line(&o);
}

enum hg_status hg_reply_event(const struct hg_reply_context *c, const struct hg_request *r,
                              const struct hg_event *e, const struct hg_buf *text,
                              const struct hg_top_token *tops, struct hg_buf *out)
{
    struct hg_json_out o;
    if (e->type == HG_EVENT_PREFILL) {
        open_line(&o, out, "prefill");
        hg_out_int(&o, "done", e->done);
        hg_out_int(&o, "total", e->total);
        hg_out_int(&o, "cached", e->n_found);
        return close_line(&o);
    }
    if (e->type == HG_EVENT_PROGRESS) {
        open_line(&o, out, "progress");
        hg_out_int(&o, "done", e->done);
        hg_out_int(&o, "total", e->total);
        if (e->done > 1)
            hg_out_real(&o, "seconds_left", e->seconds_left, 3);
        return close_line(&o);
    }
    if (e->type == HG_EVENT_PREVIEW) {
        struct hg_image im = {.width = e->width, .height = e->height, .rgb = (uint8_t *)text->data};
        open_line(&o, out, "preview");
        hg_out_int(&o, "done", e->done);
        hg_out_int(&o, "total", e->total);
        put_png(&o, c, r, &im, true);
        put_image_facts(&o, &im);
        return close_line(&o);
    }
    open_line(&o, out, "token");
    if (e->id >= 0) {
        hg_out_int(&o, "id", e->id);
        hg_out_real(&o, "logprob", (double)e->logprob, 6);
    }
    hg_out_string_n(&o, "text", text->data, text->len);
    if (e->n_top > 0)
        hg_reply_tops(&o, "top_logprobs", c->tokenizer, tops, e->n_top);
    return close_line(&o);
}

void hg_reply_error_of(const struct hg_request *r, struct hg_api_error *e)
{
    hg_api_error_of(e, &r->result.error);
    if (e->status == HG_STATUS_CANCELLED && atomic_load(&r->cancelled)) {
        e->http = 499;
        snprintf(e->code, sizeof e->code, "client_closed");
    }
}

enum hg_status hg_reply_end(const struct hg_reply_context *c, const struct hg_request *r,
                            struct hg_buf *out)
{
    struct hg_json_out o;
    if (r->result.error.status != HG_STATUS_OK) {
        struct hg_api_error e;
        hg_reply_error_of(r, &e);
        open_line(&o, out, "error");
        put_id(&o, r);
        hg_api_put_error(&o, &e);
        return close_line(&o);
    }
    if (r->result.image.rgb) {
        open_line(&o, out, "image");
        put_png(&o, c, r, &r->result.image, false);
        put_image_facts(&o, &r->result.image);
        HG_TRY(close_line(&o));
    }
    open_line(&o, out, "done");
    put_facts(&o, c, r);
    return close_line(&o);
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
    for (size_t i = 0; hg_stream_read(&r->stream, i, &e, &text, tops); i++)
        if (want && e.type == HG_EVENT_TOKEN && e.id >= 0)
            hg_reply_tops(o, NULL, c->tokenizer, tops, e.n_top);
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
        put_png(&o, c, r, &r->result.image, false);
        put_image_facts(&o, &r->result.image);
        hg_out_close(&o, '}');
    } else {
        put_text(&o, c, r);
    }
    put_facts(&o, c, r);
    hg_out_close(&o, '}');
    return status_of(&o);
}

enum hg_status hg_reply_images_answer(const struct hg_reply_context *c, const struct hg_request *r,
                                      struct hg_buf *out)
{
    struct hg_json_out o;
    hg_out_begin(&o, out);
    hg_out_open(&o, NULL, '{');
    hg_out_int(&o, "created", (int64_t)time(NULL));
    hg_out_open(&o, "data", '[');
    hg_out_open(&o, NULL, '{');
    put_png(&o, c, r, &r->result.image, false);
    hg_out_close(&o, '}');
    hg_out_close(&o, ']');
    put_image_facts(&o, &r->result.image);
    put_facts(&o, c, r);
    hg_out_close(&o, '}');
    return status_of(&o);
}

/* ---- what the server says about itself ------------------------------------------------------- */

static void put_tasks(struct hg_json_out *o, const struct hg_model_info *info)
{
    hg_out_open(o, "tasks", '[');
    for (int t = 0; t < HG_TASK_COUNT; t++)
        if (info->has_task[t])
            hg_out_string(o, NULL, hg_task_name((enum hg_task)t));
    hg_out_close(o, ']');
}

/* What is held now, and what was cut; all of "open" is 0 on an idle server but for the asker. */
static void put_guard(struct hg_json_out *o, const struct hg_scheduler_stats *stats,
                      const struct hg_guard_stats *guard)
{
    hg_out_open(o, "open", '{');
    hg_out_uint(o, "requests", stats->requests.n_open);
    hg_out_uint(o, "working", guard->n_working);
    hg_out_uint(o, "connections", guard->n_open);
    hg_out_close(o, '}');
    hg_out_open(o, "ledger", '{');
    hg_out_uint(o, "accepted", stats->requests.n_accepted);
    hg_out_uint(o, "ended", stats->requests.n_ended);
    hg_out_uint(o, "stalled", stats->requests.n_stalled);
    hg_out_uint(o, "ended_twice", stats->requests.n_ended_twice);
    hg_out_close(o, '}');
    hg_out_open(o, "kv", '{');
    hg_out_uint(o, "blocks", stats->kv_blocks);
    hg_out_uint(o, "free", stats->kv_free);
    hg_out_close(o, '}');
    hg_out_open(o, "cut", '{');
    for (int c = 0; c < HG_CUT_COUNT; c++)
        hg_out_uint(o, hg_cut_name((enum hg_cut)c), guard->n_cut[c]);
    hg_out_close(o, '}');
}

enum hg_status hg_reply_health(const struct hg_reply_context *c, const struct hg_model_info *info,
                               const struct hg_scheduler_stats *stats,
                               const struct hg_guard_stats *guard, int max_queue, const char *state,
                               struct hg_buf *out)
{
    struct hg_json_out o;
    hg_out_begin(&o, out);
    hg_out_open(&o, NULL, '{');
    hg_out_string(&o, "status", state);
    hg_out_string(&o, "version", HG_VERSION);
    hg_out_string(&o, "model", c->model);
    hg_out_string(&o, "arch", info->arch);
    hg_out_string(&o, "backend", info->backend);
    put_tasks(&o, info);
    hg_out_open(&o, "queue", '{');
    hg_out_uint(&o, "depth", stats->queued);
    hg_out_int(&o, "max", max_queue);
    hg_out_int(&o, "tokens", stats->queued_tokens);
    hg_out_int(&o, "max_tokens", stats->max_queued_tokens);
    hg_out_uint(&o, "running", stats->running);
    hg_out_close(&o, '}');
    hg_out_open(&o, "requests", '{');
    hg_out_uint(&o, "done", stats->n_done);
    hg_out_uint(&o, "failed", stats->n_failed);
    hg_out_uint(&o, "cancelled", stats->n_cancelled);
    hg_out_close(&o, '}');
    put_guard(&o, stats, guard);
    hg_out_open(&o, "engine", '{');
    hg_out_uint(&o, "steps", stats->n_steps);
    hg_out_uint(&o, "tokens", stats->n_tokens);
    hg_out_uint(&o, "cached_tokens", stats->n_found);
    hg_out_uint(&o, "preempted", stats->n_preempted);
    hg_out_uint(&o, "canaries", stats->n_canaries);
    hg_out_uint(&o, "numeric_faults", stats->n_numeric);
    hg_out_int(&o, "quarantined_blocks", stats->n_quarantined);
    hg_out_int(&o, "restarts", c->n_restarts);
    hg_out_close(&o, '}');
    hg_out_string(&o, "notice", c->notice);
    return close_line(&o);
}

enum hg_status hg_reply_models(const struct hg_reply_context *c, const struct hg_model_info *info,
                               struct hg_buf *out)
{
    struct hg_json_out o;
    hg_out_begin(&o, out);
    hg_out_open(&o, NULL, '{');
    hg_out_string(&o, "object", "list");
    hg_out_open(&o, "data", '[');
    hg_out_open(&o, NULL, '{');
    hg_out_string(&o, "id", c->model);
    hg_out_string(&o, "object", "model");
    hg_out_int(&o, "created", 0);
    hg_out_string(&o, "owned_by", "healthgpt");
    put_tasks(&o, info);
    hg_out_int(&o, "max_context", info->max_context);
    hg_out_int(&o, "image_side", info->image_side);
    hg_out_int(&o, "output_side", info->output_side);
    hg_out_string(&o, "notice", c->notice);
    hg_out_close(&o, '}');
    hg_out_close(&o, ']');
    return close_line(&o);
}
