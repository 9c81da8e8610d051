/* server/api/reply_parts.c - pieces of JSON that several dialects share. */
#include "server/api/reply_parts.h"

const char *hg_finish_name(enum hg_finish f)
{
    return f == HG_FINISH_LENGTH ? "length" : f == HG_FINISH_ERROR ? "error" : "stop";
}

struct hg_synthetic hg_reply_mark(const struct hg_reply_context *c, const struct hg_request *r)
{
    return (struct hg_synthetic){.model = c->model,
                                 .plugin = r->no_plugin ? "none" : hg_task_name(r->task),
                                 .weights_crc32c = c->weights_crc32c,
                                 .seed = r->sampling.seed};
}

enum hg_status hg_out_status(const struct hg_json_out *o)
{
    return o->failed ? HG_STATUS_NO_MEMORY : HG_STATUS_OK;
}

void hg_line_open(struct hg_json_out *o, struct hg_buf *out, const char *type)
{
    hg_out_begin(o, out);
    hg_out_open(o, NULL, '{');
    hg_out_string(o, "type", type);
}

enum hg_status hg_line_close(struct hg_json_out *o)
{
    hg_out_close(o, '}');
    if (!o->failed && hg_buf_append_str(o->buf, "\n") != HG_STATUS_OK)
        o->failed = true;
    return hg_out_status(o);
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

void hg_put_usage(struct hg_json_out *o, const struct hg_request *r)
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
}

void hg_put_timings(struct hg_json_out *o, const struct hg_request *r)
{
    const struct hg_result *u = &r->result;
    hg_out_open(o, "timings", '{');
    hg_out_real(o, "queue_ms", u->queue_ms, 3);
    hg_out_real(o, "first_token_ms", u->first_token_ms, 3);
    hg_out_real(o, "total_ms", u->total_ms, 3);
    hg_out_close(o, '}');
}

void hg_put_transforms(struct hg_json_out *o, const struct hg_request *r)
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

void hg_put_png(struct hg_json_out *o, const struct hg_reply_context *c, const struct hg_request *r,
                const struct hg_image *im, bool preview)
{
    struct hg_buf png = {0};
    struct hg_synthetic mark = hg_reply_mark(c, r);
    if (hg_synthetic_png(im, &mark, preview, &png, NULL) != HG_STATUS_OK)
        o->failed = true;
    hg_out_base64(o, "b64_json", png.data, png.len);
    hg_buf_deinit(&png);
}

void hg_put_image_facts(struct hg_json_out *o, const struct hg_image *im)
{
    char size[32];
    snprintf(size, sizeof size, "%dx%d", im->width, im->height);
    hg_out_string(o, "output_format", "png");
    hg_out_string(o, "size", size);
}

void hg_reply_error_of(const struct hg_request *r, struct hg_api_error *e)
{
    hg_api_error_of(e, &r->result.error);
    if (e->status == HG_STATUS_CANCELLED && atomic_load(&r->cancelled)) {
        e->http = 499;
        snprintf(e->code, sizeof e->code, "client_closed");
    }
}

enum hg_status hg_sse_open(struct hg_answer *a, struct hg_buf *out)
{
    (void)a;
    return hg_buf_append_str(out, ": ok\n\n");
}

enum hg_status hg_sse_error(const struct hg_request *r, struct hg_buf *out)
{
    struct hg_api_error e;
    hg_reply_error_of(r, &e);
    HG_TRY(hg_buf_append_str(out, "data: "));
    HG_TRY(hg_api_write_error(&e, out));
    return hg_buf_append_str(out, "\n\n");
}

void hg_put_ours(struct hg_json_out *o, const struct hg_reply_context *c,
                 const struct hg_request *r)
{
    hg_out_string(o, "plugin", hg_reply_mark(c, r).plugin);
    hg_out_real(o, "temperature", (double)r->sampling.temperature, 4);
    hg_out_uint(o, "seed", r->sampling.seed);
    hg_out_int(o, "queue_position", r->position);
    hg_put_timings(o, r);
    hg_put_transforms(o, r);
    if (r->task == HG_TASK_GENERATION)
        hg_out_bool(o, "synthetic", true);
    hg_out_string(o, "notice", c->notice);
}
