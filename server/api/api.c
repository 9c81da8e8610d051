/* server/api/api.c - JSON and form bodies through the table of fields; error bodies. */
#include "server/api/api.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/utf8.h"
#include "server/api/api_fields.h"
#include "server/api/body.h"
#include "server/api/data_uri.h"
#include "server/json_text.h"

/* ---- errors ---------------------------------------------------------------------------------- */

static const char *const codes[HG_STATUS_COUNT] = {
    [HG_STATUS_BAD_REQUEST] = "invalid_request",
    [HG_STATUS_BAD_IMAGE] = "invalid_image",
    [HG_STATUS_BAD_FILE] = "bad_model_file",
    [HG_STATUS_NOT_FOUND] = "not_found",
    [HG_STATUS_TOO_LARGE] = "too_large",
    [HG_STATUS_UNSUPPORTED] = "unsupported",
    [HG_STATUS_BUSY] = "queue_full",
    [HG_STATUS_QUOTA] = "rate_limit_exceeded",
    [HG_STATUS_TIMEOUT] = "deadline_exceeded",
    [HG_STATUS_CANCELLED] = "cancelled",
    [HG_STATUS_NUMERIC] = "numeric_fault",
    [HG_STATUS_NO_MEMORY] = "out_of_memory",
    [HG_STATUS_IO] = "io_error",
    [HG_STATUS_DEVICE] = "device_error",
    [HG_STATUS_ENGINE] = "engine_broken",
    [HG_STATUS_INTERNAL] = "internal_error",
};

void hg_api_error_of(struct hg_api_error *e, const struct hg_error *err)
{
    bool known = (unsigned)err->status < HG_STATUS_COUNT && codes[err->status];
    *e = (struct hg_api_error){.status = err->status, .http = hg_status_http(err->status)};
    snprintf(e->code, sizeof e->code, "%s", known ? codes[err->status] : "internal_error");
    snprintf(e->text, sizeof e->text, "%s", err->text[0] ? err->text : hg_status_text(err->status));
    /* A client that reads this has not left, so it was the server that gave up. */
    if (err->status == HG_STATUS_CANCELLED) {
        e->http = 503;
        snprintf(e->code, sizeof e->code, "shutting_down");
    }
}

void hg_api_error_set(struct hg_api_error *e, int http, const char *code, const char *text)
{
    hg_api_refuse(e, http, code, "", "%s", text);
}

static const char *type_of(int http)
{
    if (http == 503)
        return "overloaded_error";
    if (http == 429)
        return "rate_limit_error";
    return http >= 500 ? "server_error" : "invalid_request_error";
}

void hg_api_put_error(struct hg_json_out *o, const struct hg_api_error *e)
{
    hg_out_open(o, "error", '{');
    hg_out_string(o, "message", e->text);
    hg_out_string(o, "type", type_of(e->http));
    hg_out_string(o, "code", e->code);
    hg_out_string(o, "param", e->param[0] ? e->param : NULL);
    hg_out_close(o, '}');
}

enum hg_status hg_api_write_error(const struct hg_api_error *e, struct hg_buf *out)
{
    struct hg_json_out o;
    hg_out_begin(&o, out);
    hg_out_open(&o, NULL, '{');
    hg_api_put_error(&o, e);
    hg_out_close(&o, '}');
    return o.failed ? HG_STATUS_NO_MEMORY : HG_STATUS_OK;
}

static bool refuse_unknown(struct hg_api_error *e, const char *name, size_t n)
{
    /* A name is echoed only when it looks like one. */
    bool plain =
        n > 0 && n < 33 &&
        strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.") >= n;
    char shown[40] = "";
    if (plain)
        memcpy(shown, name, n);
    return hg_api_refuse(e, 400, "unknown_parameter", shown, "unknown field%s%s", plain ? ": " : "",
                         shown);
}

/* ---- JSON ------------------------------------------------------------------------------------ */

/* The text of an image: a string, or as chat parts and edits wrap it. */
static const json_t *unwrap_image(const json_t *v)
{
    if (json_is_object(v) && json_object_get(v, "image_url"))
        v = json_object_get(v, "image_url");
    return json_is_object(v) ? json_object_get(v, "url") : v;
}

bool hg_ask_add_image_text(struct hg_ask *ask, const json_t *v, struct hg_api_error *e)
{
    v = unwrap_image(v);
    if (!json_is_string(v))
        return hg_api_refuse_type(e, "image", "a base64 string or data URI");
    const struct hg_image_bytes *lifted =
        hg_body_image(ask->body, json_string_value(v), json_string_length(v));
    if (lifted)
        return hg_ask_add_image(ask, lifted->n ? (const char *)lifted->data : "", lifted->n, e);
    struct hg_buf bytes = {0};
    struct hg_error err = {0};
    enum hg_status s = hg_image_uri_decode(json_string_value(v), json_string_length(v),
                                           HG_API_MAX_IMAGE_BYTES, &bytes, &err);
    bool ok = s == HG_STATUS_OK;
    if (ok) {
        ok = hg_ask_add_image(ask, bytes.data, bytes.len, e);
    } else {
        hg_api_error_of(e, &err);
        snprintf(e->param, sizeof e->param, "images[%zu]", ask->n_images);
        if (s == HG_STATUS_UNSUPPORTED) {
            e->http = 400;
            snprintf(e->code, sizeof e->code, "remote_url_disabled");
        }
    }
    hg_buf_deinit(&bytes);
    return ok;
}

static bool add_images_json(struct hg_ask *ask, const json_t *v, struct hg_api_error *e)
{
    if (!json_is_array(v))
        return hg_ask_add_image_text(ask, v, e);
    for (size_t i = 0; i < json_array_size(v); i++)
        if (!hg_ask_add_image_text(ask, json_array_get(v, i), e))
            return false;
    return true;
}

static bool set_text_json(struct hg_ask *ask, const struct hg_field *f, const json_t *v,
                          struct hg_api_error *e)
{
    struct hg_field_value value = {.text = json_string_value(v), .n = json_string_length(v)};
    if (!value.text || hg_body_image(ask->body, value.text, value.n))
        return hg_api_refuse_type(e, f->name, "a string");
    return hg_field_set(f, &value, ask, e);
}

static bool set_texts_json(struct hg_ask *ask, const struct hg_field *f, const json_t *v,
                           struct hg_api_error *e)
{
    if (!json_is_array(v))
        return set_text_json(ask, f, v, e);
    for (size_t i = 0; i < json_array_size(v); i++)
        if (!set_text_json(ask, f, json_array_get(v, i), e))
            return false;
    return true;
}

static bool parse_fields(struct hg_ask *ask, const char *object, const json_t *v,
                         const char *const *skip, struct hg_api_error *e);

/* Only what asks for nothing passes. */
static bool check_refused(const struct hg_field *f, const json_t *v, struct hg_api_error *e)
{
    bool empty = (json_is_array(v) && json_array_size(v) == 0) ||
                 (json_is_object(v) && json_object_size(v) == 0);
    return empty ||
           hg_api_refuse(e, 400, "unsupported_parameter", f->name, "%s: not supported", f->name);
}

static bool check_zero(const struct hg_field *f, const json_t *v, struct hg_api_error *e)
{
    if (!json_is_number(v))
        return hg_api_refuse_type(e, f->name, "a number");
    return json_number_value(v) == 0 ||
           hg_api_refuse(e, 400, "unsupported_value", f->name, "%s: only 0 is supported", f->name);
}

static bool set_from_json(struct hg_ask *ask, const struct hg_field *f, const json_t *v,
                          struct hg_api_error *e)
{
    struct hg_field_value value = {0};
    if (json_is_null(v)) /* clients that serialise their unset options */
        return true;
    switch (f->kind) {
    case HG_FIELD_TEXT:
        return set_text_json(ask, f, v, e);
    case HG_FIELD_TEXTS:
        return set_texts_json(ask, f, v, e);
    case HG_FIELD_REAL:
        if (!json_is_number(v))
            return hg_api_refuse_type(e, f->name, "a number");
        value.real = json_number_value(v);
        break;
    case HG_FIELD_INT:
        if (!json_is_integer(v))
            return hg_api_refuse_type(e, f->name, "a whole number");
        value.integer = json_integer_value(v);
        break;
    case HG_FIELD_BOOL:
        if (!json_is_boolean(v))
            return hg_api_refuse_type(e, f->name, "true or false");
        value.flag = json_is_true(v);
        break;
    case HG_FIELD_IMAGE:
        return add_images_json(ask, v, e);
    case HG_FIELD_MESSAGES:
        return hg_ask_add_messages(ask, v, e);
    case HG_FIELD_OBJECT:
        return parse_fields(ask, f->name, v, NULL, e);
    case HG_FIELD_REFUSED:
        return check_refused(f, v, e);
    case HG_FIELD_ZERO:
        return check_zero(f, v, e);
    case HG_FIELD_IGNORED:
        return true;
    }
    return hg_field_set(f, &value, ask, e);
}

static bool listed(const char *const *list, const char *key)
{
    for (; list && *list; list++)
        if (strcmp(*list, key) == 0)
            return true;
    return false;
}

static bool refuses_unknown(const struct hg_ask *ask)
{
    return ask->strict || ask->dialect == HG_DIALECT_VQA || ask->dialect == HG_DIALECT_DRAW;
}

/* The fields of a body (object NULL), or of an object in it. */
static bool parse_fields(struct hg_ask *ask, const char *object, const json_t *v,
                         const char *const *skip, struct hg_api_error *e)
{
    /* jansson iterates through a non-const pointer and changes nothing. */
    union {
        const json_t *in;
        json_t *out;
    } root = {.in = v};
    const char *key;
    json_t *value;
    if (!json_is_object(v))
        return hg_api_refuse_type(e, object ? object : "body", "one JSON object");
    json_object_foreach(root.out, key, value)
    {
        char name[96];
        int n = snprintf(name, sizeof name, "%s%s%s", object ? object : "", object ? "." : "", key);
        const struct hg_field *f = NULL;
        if (listed(skip, key))
            continue;
        if (n > 0 && (size_t)n < sizeof name && (object || !strchr(key, '.')))
            f = hg_field_find(name, (size_t)n, ask->dialect);
        if (!f && refuses_unknown(ask))
            return refuse_unknown(e, key, strlen(key));
        if (f && !set_from_json(ask, f, value, e))
            return false;
    }
    return true;
}

bool hg_api_parse_object(const void *json_object, const char *const *skip, struct hg_ask *ask,
                         struct hg_api_error *e)
{
    return parse_fields(ask, NULL, json_object, skip, e);
}

/* What no single field can say; the field that lacks is named. */
static bool is_complete(const struct hg_ask *ask, struct hg_api_error *e)
{
    const char *name = ask->dialect == HG_DIALECT_CHAT  ? "messages"
                       : ask->dialect == HG_DIALECT_VQA ? "question"
                                                        : "prompt";
    if (ask->n_question == 0 && ask->n_turns == 0)
        return hg_api_refuse(e, 400, "missing_text", name, "%s: expected some text", name);
    if (ask->dialect == HG_DIALECT_EDITS && ask->n_images == 0)
        return hg_api_refuse(e, 400, "missing_image", "image", "image: expected one to begin with");
    if (ask->dialect == HG_DIALECT_CHAT && ask->sampling.n_top > 0 && !ask->wants_logprobs)
        return hg_api_refuse(e, 400, "invalid_value", "top_logprobs",
                             "top_logprobs: expected \"logprobs\": true with it");
    return true;
}

/* The task that the name asks for, or HG_TASK_COUNT: none; -1: it is no name of the model. */
static int task_of_model(const char *wanted, const char *name)
{
    size_t n = strlen(name);
    if (strncmp(wanted, name, n) != 0 || (wanted[n] && wanted[n] != ':'))
        return -1;
    if (!wanted[n])
        return HG_TASK_COUNT;
    for (int t = 0; t < HG_TASK_COUNT; t++)
        if (strcmp(wanted + n + 1, hg_task_name((enum hg_task)t)) == 0)
            return t;
    return -1;
}

bool hg_api_choose_model(struct hg_ask *ask, const char *name, struct hg_api_error *e)
{
    bool talks = ask->dialect == HG_DIALECT_CHAT || ask->dialect == HG_DIALECT_COMPLETION;
    int task = ask->model[0] ? task_of_model(ask->model, name) : HG_TASK_COUNT;
    if (task < 0)
        return hg_api_refuse(e, 404, "model_not_found", "model",
                             "model: there is no \"%.64s\" here, but \"%s\"", ask->model, name);
    if (task < HG_TASK_COUNT && !talks && task != (int)ask->task)
        return hg_api_refuse(e, 400, "unsupported_value", "model",
                             "model: %s is not for this route", ask->model);
    if (task == HG_TASK_GENERATION)
        ask->task = HG_TASK_GENERATION;
    /* A chat's limit is meant for text; a picture has the tokens that it has. */
    if (talks && ask->task == HG_TASK_GENERATION)
        ask->sampling.max_tokens = 0;
    return true;
}

bool hg_api_parse_json(const struct hg_body *body, struct hg_ask *ask, struct hg_api_error *e)
{
    json_t *root = NULL;
    struct hg_error err = {0};
    bool ok = hg_json_body_parse(body->text.data ? body->text.data : "", body->text.len, &root,
                                 &err) == HG_STATUS_OK;
    if (!ok) {
        hg_api_error_of(e, &err);
        if (err.status == HG_STATUS_BAD_REQUEST)
            snprintf(e->code, sizeof e->code, "invalid_json");
        return false;
    }
    ask->body = body;
    ok = parse_fields(ask, NULL, root, NULL, e);
    ask->body = NULL;
    json_decref(root);
    return ok && is_complete(ask, e);
}

/* ---- forms ----------------------------------------------------------------------------------- */

/* A short form value as a C string; false when it is too long to be a number. */
static bool short_text(const char *data, size_t n, char out[64])
{
    if (n == 0 || n >= 64 || memchr(data, '\0', n))
        return false;
    memcpy(out, data, n);
    out[n] = '\0';
    return true;
}

/* As JSON writes them: strtod and strtoll also read blanks, '+', hexadecimal and "inf". */
static bool looks_like_number(const char *s)
{
    return (*s == '-' || (*s >= '0' && *s <= '9')) && !s[strspn(s, "0123456789.eE+-")];
}

static bool set_from_part(struct hg_ask *ask, const struct hg_field *f, const struct hg_body *body,
                          const struct hg_body_part *p, struct hg_api_error *e)
{
    const char *data = body->text.data ? body->text.data + p->at : "";
    struct hg_field_value value = {.text = data, .n = p->n};
    char text[64], *end = text;
    const struct hg_image_bytes *im = p->image >= 0 ? &body->images.items[p->image] : NULL;
    if (f->kind == HG_FIELD_IMAGE && im)
        return hg_ask_add_image(ask, im->n ? (const char *)im->data : "", im->n, e);
    if (f->kind == HG_FIELD_IGNORED)
        return true;
    if (f->kind == HG_FIELD_REFUSED || f->kind == HG_FIELD_OBJECT || f->kind == HG_FIELD_MESSAGES ||
        f->kind == HG_FIELD_ZERO)
        return hg_api_refuse(e, 400, "unsupported_parameter", f->name,
                             "%s: not supported in a form", f->name);
    if (f->kind == HG_FIELD_IMAGE || im)
        return hg_api_refuse_type(e, f->name, im ? "text" : "a picture");
    if (f->kind == HG_FIELD_TEXT || f->kind == HG_FIELD_TEXTS) {
        if (!hg_utf8_valid(data, p->n))
            return hg_api_refuse(e, 400, "invalid_value", f->name, "%s: not valid UTF-8", f->name);
        return hg_field_set(f, &value, ask, e);
    }
    bool is_short = short_text(data, p->n, text);
    errno = 0;
    if (f->kind == HG_FIELD_REAL) {
        is_short = is_short && looks_like_number(text);
        value.real = is_short ? strtod(text, &end) : 0;
        if (!is_short || end == text || *end || errno)
            return hg_api_refuse_type(e, f->name, "a number");
    } else if (f->kind == HG_FIELD_INT) {
        is_short = is_short && looks_like_number(text);
        value.integer = is_short ? strtoll(text, &end, 10) : 0;
        if (!is_short || end == text || *end || errno)
            return hg_api_refuse_type(e, f->name, "a whole number");
    } else {
        value.flag = is_short && (strcmp(text, "true") == 0 || strcmp(text, "1") == 0);
        if (!value.flag && !(is_short && (strcmp(text, "false") == 0 || strcmp(text, "0") == 0)))
            return hg_api_refuse_type(e, f->name, "true or false");
    }
    return hg_field_set(f, &value, ask, e);
}

bool hg_api_parse_form(const struct hg_body *body, struct hg_ask *ask, struct hg_api_error *e)
{
    for (size_t i = 0; i < body->n_parts; i++) {
        const struct hg_body_part *p = &body->parts[i];
        size_t name = strlen(p->name);
        if (name > 2 && strcmp(p->name + name - 2, "[]") == 0) /* image[] */
            name -= 2;
        const struct hg_field *f = hg_field_find(p->name, name, ask->dialect);
        if (!f && refuses_unknown(ask))
            return refuse_unknown(e, p->name, name);
        if (f && !set_from_part(ask, f, body, p, e))
            return false;
    }
    return is_complete(ask, e);
}
