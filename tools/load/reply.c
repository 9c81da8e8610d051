#include "tools/load/reply.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

static const uint8_t KEY[16] = "healthgpt-load  ";

void hg_load_reply_init(struct hg_load_reply *r)
{
    *r = (struct hg_load_reply){0};
    hg_siphash_init(&r->digest, KEY);
}

static void add_text(struct hg_load_reply *r, const char *s)
{
    if (s)
        hg_siphash_update(&r->digest, s, strlen(s) + 1);
}

static void set_code(struct hg_load_reply *r, const json_t *root)
{
    const char *code = json_string_value(json_object_get(json_object_get(root, "error"), "code"));
    snprintf(r->code, sizeof r->code, "%s", code ? code : "no_code");
}

/* "done" lines and answers that were not streamed have these in common. */
static enum hg_status read_end(struct hg_load_reply *r, const json_t *root, struct hg_error *err)
{
    const json_t *usage = json_object_get(root, "usage");
    const json_t *n = json_object_get(usage, "completion_tokens");
    const char *reason = json_string_value(json_object_get(root, "finish_reason"));
    if (!json_is_integer(n) || !reason)
        return hg_fail(err, HG_STATUS_BAD_FILE, "answer: no usage or no finish_reason");
    r->n_tokens = (int)json_integer_value(n);
    add_text(r, reason);
    r->done = true;
    return HG_STATUS_OK;
}

static enum hg_status parse(const char *s, size_t n, json_t **out, struct hg_error *err)
{
    *out = json_loadb(s, n, 0, NULL);
    return json_is_object(*out) ? HG_STATUS_OK
                                : hg_fail(err, HG_STATUS_BAD_FILE, "answer: no JSON object");
}

static bool starts(const char *line, size_t n, const char *with)
{
    size_t k = strlen(with);
    return n >= k && memcmp(line, with, k) == 0;
}

static enum hg_status read_last(struct hg_load_reply *r, const char *line, size_t n,
                                enum hg_load_event event, struct hg_error *err)
{
    json_t *root = NULL;
    enum hg_status status = parse(line, n, &root, err);
    if (status == HG_STATUS_OK && event == HG_LOAD_EVENT_ERROR)
        set_code(r, root);
    else if (status == HG_STATUS_OK)
        status = read_end(r, root, err);
    json_decref(root);
    return status;
}

enum hg_status hg_load_reply_line(struct hg_load_reply *r, const char *line, size_t n,
                                  enum hg_load_event *event, struct hg_error *err)
{
    *event = HG_LOAD_EVENT_OTHER;
    if (starts(line, n, "{\"type\":\"token\",\"id\":")) {
        *event = HG_LOAD_EVENT_TOKEN;
        r->n_tokens++;
        hg_siphash_update(&r->digest, line, n);
    } else if (starts(line, n, "{\"type\":\"token\",")) { /* the rest of the text */
        hg_siphash_update(&r->digest, line, n);
    } else if (starts(line, n, "{\"type\":\"progress\",")) {
        *event = HG_LOAD_EVENT_TOKEN;
        r->n_tokens++;
    } else if (starts(line, n, "{\"type\":\"preview\",")) {
        *event = HG_LOAD_EVENT_PREVIEW;
        r->n_previews++; /* how much it shows depends on when it was drawn */
    } else if (starts(line, n, "{\"type\":\"image\",")) {
        *event = HG_LOAD_EVENT_IMAGE;
        r->n_images++;
        hg_siphash_update(&r->digest, line, n);
    } else if (starts(line, n, "{\"type\":\"done\",")) {
        *event = HG_LOAD_EVENT_DONE;
        return read_last(r, line, n, *event, err);
    } else if (starts(line, n, "{\"type\":\"error\",")) {
        *event = HG_LOAD_EVENT_ERROR;
        return read_last(r, line, n, *event, err);
    } else if (!starts(line, n, "{\"type\":\"")) {
        return hg_fail(err, HG_STATUS_BAD_FILE, "stream: a line that is no event");
    }
    return HG_STATUS_OK;
}

enum hg_status hg_load_reply_document(struct hg_load_reply *r, const char *body, size_t n,
                                      struct hg_error *err)
{
    json_t *root = NULL;
    enum hg_status status = parse(body, n, &root, err);
    HG_TRY_OUT(status);
    if (json_object_get(root, "error")) {
        set_code(r, root);
        goto out;
    }
    const char *png = json_string_value(
        json_object_get(json_array_get(json_object_get(root, "data"), 0), "b64_json"));
    add_text(r, json_string_value(json_object_get(root, "text")));
    add_text(r, png);
    r->n_images += png != NULL;
    status = read_end(r, root, err);
out:
    json_decref(root);
    return status;
}

uint64_t hg_load_reply_digest(struct hg_load_reply *r)
{
    return hg_siphash_final(&r->digest).lo;
}
