/* server/api/answer_images.c - OpenAI's images API (openai-openapi 2.3.0: ImagesResponse,
 * ImageGenPartialImageEvent, ImageGenCompletedEvent, ImageEdit...Event). */
#include "server/api/answer.h"
#include "server/api/reply_parts.h"

static void put_counts(struct hg_json_out *o, const struct hg_answer *a, int from, int to)
{
    int64_t n_in = 0, n_out = 0, n_image = 0;
    for (int i = from; i < to; i++) {
        n_in += a->requests[i]->n_prompt;
        n_image += (int64_t)a->requests[i]->n_images * a->context->n_image_rows;
        n_out += a->requests[i]->result.n_generated;
    }
    hg_out_open(o, "usage", '{');
    hg_out_int(o, "total_tokens", n_in + n_out);
    hg_out_int(o, "input_tokens", n_in);
    hg_out_int(o, "output_tokens", n_out);
    hg_out_open(o, "input_tokens_details", '{');
    hg_out_int(o, "text_tokens", n_in - n_image);
    hg_out_int(o, "image_tokens", n_image);
    hg_out_close(o, '}');
    hg_out_close(o, '}');
}

static void put_kind(struct hg_json_out *o, const struct hg_image *im)
{
    hg_out_string(o, "background", "opaque");
    hg_put_image_facts(o, im);
    hg_out_string(o, "quality", "auto");
}

static void put_ours(struct hg_json_out *o, const struct hg_answer *a, const struct hg_request *r)
{
    hg_out_open(o, "healthgpt", '{');
    hg_out_string(o, "model", a->context->model);
    hg_out_string(o, "fingerprint", a->context->fingerprint);
    hg_put_ours(o, a->context, r);
    hg_out_close(o, '}');
}

/* event: NAME, then one line of data whose type is NAME. */
static enum hg_status open_event(struct hg_json_out *o, const struct hg_answer *a, const char *what,
                                 struct hg_buf *out)
{
    char type[48];
    snprintf(type, sizeof type, "%s.%s",
             a->dialect == HG_DIALECT_EDITS ? "image_edit" : "image_generation", what);
    HG_TRY(hg_buf_printf(out, "event: %s\ndata: ", type));
    hg_out_begin(o, out);
    hg_out_open(o, NULL, '{');
    hg_out_string(o, "type", type);
    hg_out_int(o, "created_at", a->created);
    return HG_STATUS_OK;
}

static enum hg_status close_event(struct hg_json_out *o, struct hg_buf *out)
{
    hg_out_close(o, '}');
    HG_TRY(hg_out_status(o));
    return hg_buf_append_str(out, "\n\n");
}

static enum hg_status stream_event(struct hg_answer *a, const struct hg_event *e,
                                   const struct hg_buf *text, const struct hg_top_token *tops,
                                   struct hg_buf *out)
{
    struct hg_image im = {.width = e->width, .height = e->height, .rgb = (uint8_t *)text->data};
    struct hg_json_out o;
    (void)tops;
    if (e->type != HG_EVENT_PREVIEW)
        return HG_STATUS_OK;
    HG_TRY(open_event(&o, a, "partial_image", out));
    hg_out_int(&o, "partial_image_index", a->n_previews++);
    hg_put_png(&o, a->context, a->requests[a->choice], &im, true);
    put_kind(&o, &im);
    return close_event(&o, out);
}

static enum hg_status stream_end(struct hg_answer *a, struct hg_buf *out)
{
    const struct hg_request *r = a->requests[a->choice];
    struct hg_json_out o;
    if (r->result.error.status != HG_STATUS_OK)
        return hg_sse_error(r, out);
    HG_TRY(open_event(&o, a, "completed", out));
    hg_put_png(&o, a->context, r, &r->result.image, false);
    put_kind(&o, &r->result.image);
    put_counts(&o, a, a->choice, a->choice + 1);
    put_ours(&o, a, r);
    a->n_previews = 0;
    return close_event(&o, out);
}

static enum hg_status whole(struct hg_answer *a, struct hg_buf *out)
{
    struct hg_json_out o;
    hg_out_begin(&o, out);
    hg_out_open(&o, NULL, '{');
    hg_out_int(&o, "created", a->created);
    hg_out_open(&o, "data", '[');
    for (int i = 0; i < a->n_requests; i++) {
        hg_out_open(&o, NULL, '{');
        hg_put_png(&o, a->context, a->requests[i], &a->requests[i]->result.image, false);
        hg_out_close(&o, '}');
    }
    hg_out_close(&o, ']');
    put_kind(&o, &a->requests[0]->result.image);
    put_counts(&o, a, 0, a->n_requests);
    put_ours(&o, a, a->requests[0]);
    hg_out_close(&o, '}');
    HG_TRY(hg_out_status(&o));
    return hg_buf_append_str(out, "\n");
}

const struct hg_answer_form hg_answer_images = {.stream_type = HG_SSE_TYPE,
                                                .ping = ": ping\n\n",
                                                .open = hg_sse_open,
                                                .event = stream_event,
                                                .end = stream_end,
                                                .whole = whole};
