/* server/api/answer_chat.c - OpenAI's chat completions and text completions (openai-openapi 2.3.0:
 * CreateChatCompletionResponse, CreateChatCompletionStreamResponse, CreateCompletionResponse). */
#include <string.h>

#include "server/api/answer.h"
#include "server/api/reply_parts.h"

static bool is_chat(const struct hg_answer *a)
{
    return a->dialect == HG_DIALECT_CHAT;
}

/* ---- pieces ---------------------------------------------------------------------------------- */

/* A token's own text, as it stands inside a text. */
static enum hg_status token_text(const struct hg_answer *a, int32_t id, struct hg_buf *out)
{
    struct hg_detok d;
    hg_detok_init(&d, a->context->tokenizer, true);
    d.started = true;
    HG_TRY(hg_detok_push(&d, id, out));
    return hg_detok_finish(&d, out);
}

/* Part of a character has no text of its own, and then the bytes are not told. */
static void put_bytes(struct hg_json_out *o, const struct hg_buf *text)
{
    if (!text->data || text->len == 0 || memmem(text->data, text->len, "\xef\xbf\xbd", 3)) {
        hg_out_raw(o, "bytes", "null");
        return;
    }
    hg_out_open(o, "bytes", '[');
    for (size_t i = 0; i < text->len; i++)
        hg_out_int(o, NULL, (unsigned char)text->data[i]);
    hg_out_close(o, ']');
}

static void put_token(struct hg_json_out *o, const struct hg_answer *a, int32_t id, float logprob)
{
    struct hg_buf text = {0};
    if (token_text(a, id, &text) != HG_STATUS_OK)
        o->failed = true;
    hg_out_string_n(o, "token", text.data ? text.data : "", text.len);
    hg_out_real(o, "logprob", (double)logprob, 6);
    put_bytes(o, &text);
    hg_buf_deinit(&text);
}

/* An element of logprobs.content. */
static void put_logprob(struct hg_json_out *o, const struct hg_answer *a, const struct hg_event *e,
                        const struct hg_top_token *tops)
{
    hg_out_open(o, NULL, '{');
    put_token(o, a, e->id, e->logprob);
    hg_out_open(o, "top_logprobs", '[');
    for (int i = 0; i < e->n_top; i++) {
        hg_out_open(o, NULL, '{');
        put_token(o, a, tops[i].id, tops[i].logprob);
        hg_out_close(o, '}');
    }
    hg_out_close(o, ']');
    hg_out_close(o, '}');
}

/* The older form of completions: parallel arrays. One token at a time keeps them easy: `which`
 * says which array. */
static void put_old_logprob(struct hg_json_out *o, const struct hg_answer *a,
                            const struct hg_event *e, const struct hg_top_token *tops, int which,
                            size_t offset)
{
    struct hg_buf text = {0};
    if (which == 0) {
        if (token_text(a, e->id, &text) != HG_STATUS_OK)
            o->failed = true;
        hg_out_string_n(o, NULL, text.data ? text.data : "", text.len);
    } else if (which == 1) {
        hg_out_real(o, NULL, (double)e->logprob, 6);
    } else if (which == 2) {
        hg_out_open(o, NULL, '{');
        for (int i = 0; i < e->n_top; i++) {
            hg_buf_clear(&text);
            if (token_text(a, tops[i].id, &text) != HG_STATUS_OK ||
                hg_buf_append(&text, "", 1) != HG_STATUS_OK)
                o->failed = true;
            else
                hg_out_real(o, text.data, (double)tops[i].logprob, 6);
        }
        hg_out_close(o, '}');
    } else {
        hg_out_uint(o, NULL, offset);
    }
    hg_buf_deinit(&text);
}

static const char *const old_names[] = {"tokens", "token_logprobs", "top_logprobs", "text_offset"};
enum { N_OLD = 4 };

static void put_usage_of_all(struct hg_json_out *o, const struct hg_answer *a)
{
    const struct hg_request *first = a->requests[0];
    int64_t n_generated = 0;
    for (int i = 0; i < a->n_requests; i++)
        n_generated += a->requests[i]->result.n_generated;
    int64_t n_image = (int64_t)first->n_images * a->context->n_image_rows;
    hg_out_open(o, "usage", '{');
    hg_out_int(o, "prompt_tokens", first->n_prompt);
    hg_out_int(o, "completion_tokens", n_generated);
    hg_out_int(o, "total_tokens", first->n_prompt + n_generated);
    hg_out_open(o, "prompt_tokens_details", '{');
    hg_out_int(o, "cached_tokens", first->result.n_found);
    hg_out_int(o, "image_tokens", n_image);
    hg_out_int(o, "text_tokens", first->n_prompt - n_image);
    hg_out_close(o, '}');
    hg_out_close(o, '}');
}

/* What we know beyond OpenAI's form: of one choice. */
static void put_ours(struct hg_json_out *o, const struct hg_answer *a, const struct hg_request *r)
{
    hg_out_open(o, "healthgpt", '{');
    hg_put_ours(o, a->context, r);
    hg_out_close(o, '}');
}

/* [{"type":"image_url","image_url":{"url":"data:image/png;base64,..."}}] (OpenRouter's form). */
static void put_images(struct hg_json_out *o, const struct hg_answer *a, const struct hg_request *r)
{
    static const char head[] = "data:image/png;base64,";
    struct hg_buf png = {0};
    struct hg_synthetic mark = hg_reply_mark(a->context, r);
    if (hg_synthetic_png(&r->result.image, &mark, false, &png, NULL) != HG_STATUS_OK)
        o->failed = true;
    hg_out_open(o, "images", '[');
    hg_out_open(o, NULL, '{');
    hg_out_string(o, "type", "image_url");
    hg_out_open(o, "image_url", '{');
    hg_out_base64_after(o, "url", head, png.data, png.len);
    hg_out_close(o, '}');
    hg_out_close(o, '}');
    hg_out_close(o, ']');
    hg_buf_deinit(&png);
}

/* ---- envelopes ------------------------------------------------------------------------------- */

static void open_envelope(struct hg_json_out *o, struct hg_buf *out, const struct hg_answer *a,
                          bool chunk)
{
    const char *object = !is_chat(a) ? "text_completion"
                         : chunk     ? "chat.completion.chunk"
                                     : "chat.completion";
    hg_out_begin(o, out);
    hg_out_open(o, NULL, '{');
    hg_out_string(o, "id", a->id);
    hg_out_string(o, "object", object);
    hg_out_int(o, "created", a->created);
    hg_out_string(o, "model", a->context->model);
    hg_out_string(o, "system_fingerprint", a->context->fingerprint);
}

/* Filled up to a multiple of 256 bytes: the text's length shows less. */
static void put_obfuscation(struct hg_json_out *o, size_t n_chunk)
{
    enum { STEP = 256, FRAME = 20 };
    char fill[STEP + 1];
    size_t n = (STEP - (n_chunk + FRAME) % STEP) % STEP;
    memset(fill, 'x', n);
    hg_out_string_n(o, "obfuscation", fill, n);
}

static enum hg_status begin_chunk(struct hg_json_out *o, struct hg_buf *out,
                                  const struct hg_answer *a)
{
    HG_TRY(hg_buf_append_str(out, "data: "));
    open_envelope(o, out, a, true);
    return HG_STATUS_OK;
}

static enum hg_status end_chunk(struct hg_json_out *o, struct hg_buf *out,
                                const struct hg_answer *a, size_t start)
{
    if (a->obfuscation)
        put_obfuscation(o, out->len - start);
    hg_out_close(o, '}');
    HG_TRY(hg_out_status(o));
    return hg_buf_append_str(out, "\n\n");
}

/* A chunk of the current choice; `e` NULL: no token, its end. */
static enum hg_status put_chunk(struct hg_answer *a, const struct hg_event *e,
                                const struct hg_buf *text, const struct hg_top_token *tops,
                                const char *finish, struct hg_buf *out)
{
    const struct hg_request *r = a->requests[a->choice];
    struct hg_json_out o;
    size_t start = out->len;
    HG_TRY(begin_chunk(&o, out, a));
    hg_out_open(&o, "choices", '[');
    hg_out_open(&o, NULL, '{');
    hg_out_int(&o, "index", a->choice);
    if (is_chat(a)) {
        hg_out_open(&o, "delta", '{');
        if (!a->began)
            hg_out_string(&o, "role", "assistant");
        if (e || !a->began)
            hg_out_string_n(&o, "content", e ? text->data : "", e ? text->len : 0);
        if (finish && r->result.image.rgb)
            put_images(&o, a, r);
        hg_out_close(&o, '}');
    } else {
        hg_out_string_n(&o, "text", e ? text->data : "", e ? text->len : 0);
    }
    bool told = a->logprobs && e && e->id >= 0;
    if (told && is_chat(a)) {
        hg_out_open(&o, "logprobs", '{');
        hg_out_open(&o, "content", '[');
        put_logprob(&o, a, e, tops);
        hg_out_close(&o, ']');
        hg_out_close(&o, '}');
    } else if (told) {
        hg_out_open(&o, "logprobs", '{');
        for (int k = 0; k < N_OLD; k++) {
            hg_out_open(&o, old_names[k], '[');
            put_old_logprob(&o, a, e, tops, k, e->text_at);
            hg_out_close(&o, ']');
        }
        hg_out_close(&o, '}');
    } else {
        hg_out_raw(&o, "logprobs", "null");
    }
    hg_out_string(&o, "finish_reason", finish);
    hg_out_close(&o, '}');
    hg_out_close(&o, ']');
    if (a->usage)
        hg_out_raw(&o, "usage", "null");
    if (finish)
        put_ours(&o, a, r);
    a->began = true;
    return end_chunk(&o, out, a, start);
}

/* Ours: a picture while it grows, for those who asked. */
static enum hg_status put_preview(struct hg_answer *a, const struct hg_event *e,
                                  const struct hg_buf *text, struct hg_buf *out)
{
    struct hg_image im = {.width = e->width, .height = e->height, .rgb = (uint8_t *)text->data};
    struct hg_json_out o;
    size_t start = out->len;
    HG_TRY(begin_chunk(&o, out, a));
    hg_out_open(&o, "choices", '[');
    hg_out_open(&o, NULL, '{');
    hg_out_int(&o, "index", a->choice);
    hg_out_open(&o, "delta", '{');
    hg_out_close(&o, '}');
    hg_out_string(&o, "finish_reason", NULL);
    hg_out_close(&o, '}');
    hg_out_close(&o, ']');
    hg_out_open(&o, "healthgpt", '{');
    hg_out_open(&o, "preview", '{');
    hg_out_int(&o, "done", e->done);
    hg_out_int(&o, "total", e->total);
    hg_put_png(&o, a->context, a->requests[a->choice], &im, true);
    hg_put_image_facts(&o, &im);
    hg_out_close(&o, '}');
    hg_out_close(&o, '}');
    return end_chunk(&o, out, a, start);
}

/* ---- the stream ------------------------------------------------------------------------------ */

static enum hg_status stream_event(struct hg_answer *a, const struct hg_event *e,
                                   const struct hg_buf *text, const struct hg_top_token *tops,
                                   struct hg_buf *out)
{
    if (e->type == HG_EVENT_PREVIEW && is_chat(a))
        return put_preview(a, e, text, out);
    /* An incomplete character has no text yet; its chunk is for its log probability. */
    bool says = e->type == HG_EVENT_TOKEN && (text->len > 0 || a->logprobs);
    return says ? put_chunk(a, e, text, tops, NULL, out) : HG_STATUS_OK;
}

static enum hg_status stream_end(struct hg_answer *a, struct hg_buf *out)
{
    const struct hg_request *r = a->requests[a->choice];
    if (r->result.error.status != HG_STATUS_OK)
        return hg_sse_error(r, out);
    HG_TRY(put_chunk(a, NULL, NULL, NULL, hg_finish_name(r->result.finish), out));
    a->began = false;
    return HG_STATUS_OK;
}

static enum hg_status stream_close(struct hg_answer *a, struct hg_buf *out)
{
    if (a->usage) {
        struct hg_json_out o;
        size_t start = out->len;
        HG_TRY(begin_chunk(&o, out, a));
        hg_out_open(&o, "choices", '[');
        hg_out_close(&o, ']');
        put_usage_of_all(&o, a);
        HG_TRY(end_chunk(&o, out, a, start));
    }
    return hg_buf_append_str(out, "data: [DONE]\n\n");
}

/* ---- the whole answer ------------------------------------------------------------------------ */

/* The text of a request, and in `o` what `which` says of each token (-1: nothing, N_OLD: a chat's
 * logprobs). */
static void walk(struct hg_json_out *o, const struct hg_answer *a, struct hg_request *r, int which,
                 struct hg_buf *text)
{
    struct hg_event e = {0};
    struct hg_top_token tops[HG_MAX_TOP];
    hg_buf_clear(text);
    for (size_t i = 0;; i++) {
        size_t before = text->len;
        if (!hg_stream_read(&r->stream, i, &e, text, tops))
            return;
        o->failed |= e.type == HG_EVENT_LOST;
        if (e.type != HG_EVENT_TOKEN)
            text->len = before; /* a preview's pixels */
        else if (e.id >= 0 && which == N_OLD)
            put_logprob(o, a, &e, tops);
        else if (e.id >= 0 && which >= 0)
            put_old_logprob(o, a, &e, tops, which, before);
    }
}

static void put_whole_logprobs(struct hg_json_out *o, const struct hg_answer *a,
                               struct hg_request *r, struct hg_buf *text)
{
    if (!a->logprobs) {
        hg_out_raw(o, "logprobs", "null");
        return;
    }
    hg_out_open(o, "logprobs", '{');
    for (int k = is_chat(a) ? N_OLD : 0; k < (is_chat(a) ? N_OLD + 1 : N_OLD); k++) {
        hg_out_open(o, k == N_OLD ? "content" : old_names[k], '[');
        walk(o, a, r, k, text);
        hg_out_close(o, ']');
    }
    if (is_chat(a))
        hg_out_raw(o, "refusal", "null");
    hg_out_close(o, '}');
}

static void put_choice(struct hg_json_out *o, const struct hg_answer *a, int i)
{
    struct hg_request *r = a->requests[i];
    struct hg_buf text = {0};
    walk(o, a, r, -1, &text);
    hg_out_open(o, NULL, '{');
    hg_out_int(o, "index", i);
    if (is_chat(a)) {
        hg_out_open(o, "message", '{');
        hg_out_string(o, "role", "assistant");
        hg_out_string_n(o, "content", text.data ? text.data : "", text.len);
        hg_out_raw(o, "refusal", "null");
        if (r->result.image.rgb)
            put_images(o, a, r);
        hg_out_close(o, '}');
    } else {
        hg_out_string_n(o, "text", text.data ? text.data : "", text.len);
    }
    put_whole_logprobs(o, a, r, &text);
    hg_out_string(o, "finish_reason", hg_finish_name(r->result.finish));
    hg_out_close(o, '}');
    hg_buf_deinit(&text);
}

static enum hg_status whole(struct hg_answer *a, struct hg_buf *out)
{
    struct hg_json_out o;
    open_envelope(&o, out, a, false);
    hg_out_open(&o, "choices", '[');
    for (int i = 0; i < a->n_requests; i++)
        put_choice(&o, a, i);
    hg_out_close(&o, ']');
    put_usage_of_all(&o, a);
    put_ours(&o, a, a->requests[0]);
    hg_out_close(&o, '}');
    HG_TRY(hg_out_status(&o));
    return hg_buf_append_str(out, "\n");
}

const struct hg_answer_form hg_answer_chat = {.stream_type = HG_SSE_TYPE,
                                              .ping = ": ping\n\n",
                                              .open = hg_sse_open,
                                              .event = stream_event,
                                              .end = stream_end,
                                              .close = stream_close,
                                              .whole = whole};
