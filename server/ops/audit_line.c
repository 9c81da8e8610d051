/* server/ops/audit_line.c - one line of the audit log: made, and taken apart again. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/file.h"
#include "server/json_text.h"
#include "server/ops/audit_chain.h"
#include "server/version.h"

enum { HEX = 2 * HG_SHA256_BYTES, TAIL = 2 * HG_AUDIT_LINE_CAP };

/* Keys of an HMAC are told apart by what they are for. */
static void keyed(const uint8_t key[HG_SHA256_BYTES], const char *what, const void *data, size_t n,
                  uint8_t out[HG_SHA256_BYTES])
{
    struct hg_hmac h;
    hg_hmac_init(&h, key, HG_SHA256_BYTES);
    hg_hmac_update(&h, what, strlen(what) + 1);
    hg_hmac_update(&h, data, n);
    hg_hmac_final(&h, out);
}

int64_t hg_audit_wall_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void put_time(struct hg_json_out *o, int64_t wall_ms)
{
    char text[40], all[48];
    time_t s = (time_t)(wall_ms / 1000);
    struct tm tm;
    gmtime_r(&s, &tm);
    strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(all, sizeof all, "%s.%03dZ", text, (int)(wall_ms % 1000));
    hg_out_string(o, "ts", all);
}

static void put_hex(struct hg_json_out *o, const char *key, const uint8_t digest[HG_SHA256_BYTES])
{
    char hex[HEX + 1];
    hg_hex(digest, HG_SHA256_BYTES, hex);
    hg_out_string(o, key, hex);
}

static void put_text_or_null(struct hg_json_out *o, const char *key, const char *s)
{
    hg_out_string(o, key, *s ? s : NULL);
}

static void put_model(struct hg_json_out *o, const struct hg_audit_facts *f)
{
    char crc[16];
    snprintf(crc, sizeof crc, "%08x", (unsigned)f->weights_crc32c);
    put_text_or_null(o, "model", f->model);
    hg_out_string(o, "weights_crc32c", f->model[0] ? crc : NULL);
}

static void begin_line(struct hg_json_out *o, const struct hg_audit_chain *c, const char *event,
                       int64_t wall_ms, uint64_t lost)
{
    hg_out_open(o, NULL, '{');
    hg_out_uint(o, "seq", c->seq + 1);
    put_time(o, wall_ms);
    hg_out_string(o, "event", event);
    if (c->torn)
        hg_out_bool(o, "torn", true);
    if (lost)
        hg_out_uint(o, "lost", lost);
}

/* "prev", "mac" over all before it, newline; then the chain stands at this line. */
static enum hg_status end_line(struct hg_json_out *o, size_t from, struct hg_audit_chain *c)
{
    uint8_t mac[HG_SHA256_BYTES];
    put_hex(o, "prev", c->last);
    if (c->has_key_file && !o->failed) {
        keyed(c->key, "line", o->buf->data + from, o->buf->len - from, mac);
        put_hex(o, "mac", mac);
    }
    hg_out_close(o, '}');
    size_t end = o->buf->len;
    if (o->failed || hg_buf_append_str(o->buf, "\n") != HG_STATUS_OK) {
        if (o->buf->data) {
            o->buf->len = from;
            o->buf->data[from] = '\0';
        }
        return HG_STATUS_NO_MEMORY;
    }
    hg_sha256(o->buf->data + from, end - from, c->last);
    c->seq++;
    c->torn = false;
    return HG_STATUS_OK;
}

enum hg_status hg_audit_put_event(struct hg_audit_chain *c, enum hg_audit_event e,
                                  const struct hg_audit_facts *f, uint64_t lost, struct hg_buf *out)
{
    static const char *const names[] = {"start", "model", "rotate", "stop"};
    struct hg_json_out o;
    size_t from = out->len;
    uint8_t id[HG_SHA256_BYTES];
    char hex[HEX + 1];
    hg_out_begin(&o, out);
    begin_line(&o, c, names[e], hg_audit_wall_ms(), lost);
    if (e == HG_AUDIT_START) {
        hg_out_string(&o, "version", HG_VERSION);
        hg_out_string(&o, "fingerprint_key", c->has_key_file ? "file" : "random");
        keyed(c->key, "id", "", 0, id); /* to see under which key fingerprints are */
        hg_hex(id, 8, hex);
        hg_out_string(&o, "key_id", hex);
    } else if (e == HG_AUDIT_MODEL) {
        put_model(&o, f);
    }
    return end_line(&o, from, c);
}

static void put_images(struct hg_json_out *o, const struct hg_audit_input *in)
{
    hg_out_open(o, "images", '[');
    for (size_t i = 0; i < in->n_images; i++) {
        hg_out_open(o, NULL, '{');
        hg_out_int(o, "width", in->images[i].width);
        hg_out_int(o, "height", in->images[i].height);
        put_hex(o, "hmac", in->images[i].mac);
        hg_out_close(o, '}');
    }
    hg_out_close(o, ']');
}

enum hg_status hg_audit_put_request(struct hg_audit_chain *c, const struct hg_audit_record *r,
                                    int64_t wall_ms, const struct hg_audit_facts *f, uint64_t lost,
                                    struct hg_buf *out)
{
    static const char *const outcomes[] = {"done", "error", "cancelled"};
    struct hg_json_out o;
    size_t from = out->len;
    bool has_task = r->task < HG_TASK_COUNT;
    hg_out_begin(&o, out);
    begin_line(&o, c, "request", wall_ms, lost);
    put_text_or_null(&o, "id", r->id);
    put_text_or_null(&o, "key", r->key);
    put_text_or_null(&o, "subject", r->subject);
    hg_out_string(&o, "route", r->route);
    hg_out_string(&o, "task", has_task ? hg_task_name(r->task) : NULL);
    put_model(&o, f);
    hg_out_string(&o, "plugin", !has_task ? NULL : r->no_plugin ? "none" : hg_task_name(r->task));
    hg_out_string(&o, "outcome", outcomes[r->outcome]);
    put_text_or_null(&o, "code", r->code);
    hg_out_int(&o, "status", r->http);
    hg_out_bool(&o, "delivered", r->delivered);
    if (r->replayed)
        hg_out_bool(&o, "replayed", true);
    hg_out_int(&o, "prompt_tokens", r->n_prompt);
    hg_out_int(&o, "completion_tokens", r->n_generated);
    put_images(&o, &r->input);
    if (r->input.has_text)
        put_hex(&o, "text_hmac", r->input.text);
    hg_out_open(&o, "output_hmac", '[');
    for (size_t i = 0; i < r->n_outputs; i++)
        put_hex(&o, NULL, r->outputs[i]);
    hg_out_close(&o, ']');
    return end_line(&o, from, c);
}

/* ---- taken apart ----------------------------------------------------------------------------- */

static bool read_hex(const char *s, uint8_t out[HG_SHA256_BYTES])
{
    if (!s || strlen(s) != HEX || strspn(s, "0123456789abcdef") != HEX)
        return false;
    for (size_t i = 0; i < HG_SHA256_BYTES; i++) {
        char pair[3] = {s[2 * i], s[2 * i + 1], '\0'};
        out[i] = (uint8_t)strtoul(pair, NULL, 16);
    }
    return true;
}

bool hg_audit_parse(const char *s, size_t n, struct hg_audit_line *out)
{
    if (n == 0 || n > HG_AUDIT_LINE_CAP || hg_json_check_caps(s, n, NULL) != HG_STATUS_OK)
        return false;
    json_t *root = json_loadb(s, n, JSON_REJECT_DUPLICATES, NULL);
    json_t *seq = json_object_get(root, "seq");
    const char *event = json_string_value(json_object_get(root, "event"));
    bool good = json_is_integer(seq) && json_integer_value(seq) > 0 && event &&
                read_hex(json_string_value(json_object_get(root, "prev")), out->prev);
    if (good) {
        out->seq = (uint64_t)json_integer_value(seq);
        out->torn = json_is_true(json_object_get(root, "torn"));
        out->is_rotate = strcmp(event, "rotate") == 0;
    }
    json_decref(root);
    return good;
}

bool hg_audit_mac_is_right(const char *s, size_t n, const uint8_t key[HG_SHA256_BYTES])
{
    /* ,"mac":"<64 digits>"} */
    static const char before[] = ",\"mac\":\"", after[] = "\"}";
    enum { BEFORE = sizeof before - 1, AFTER = sizeof after - 1 };
    uint8_t mac[HG_SHA256_BYTES];
    char hex[HEX + 1];
    if (n < BEFORE + HEX + AFTER)
        return false;
    const char *at = s + n - (BEFORE + HEX + AFTER);
    keyed(key, "line", s, (size_t)(at - s), mac);
    hg_hex(mac, sizeof mac, hex);
    return memcmp(at, before, BEFORE) == 0 && memcmp(at + BEFORE, hex, HEX) == 0 &&
           memcmp(at + BEFORE + HEX, after, AFTER) == 0;
}

enum hg_status hg_audit_read_key(const char *path, uint8_t key[HG_SHA256_BYTES],
                                 struct hg_error *err)
{
    struct hg_buf text = {0};
    struct hg_error why = {0};
    enum hg_status status = hg_file_read(path, HG_AUDIT_MAX_KEY, &text, &why);
    if (status != HG_STATUS_OK)
        status = hg_fail(err, HG_STATUS_BAD_REQUEST, "audit_key_file: %s", why.text);
    else if (text.len < HG_AUDIT_MIN_KEY)
        status = hg_fail(err, HG_STATUS_BAD_REQUEST,
                         "audit_key_file %.100s: expected at least %d random bytes, got %zu", path,
                         HG_AUDIT_MIN_KEY, text.len);
    else
        hg_sha256(text.data, text.len, key);
    if (text.data)
        explicit_bzero(text.data, text.len);
    hg_buf_deinit(&text);
    return status;
}

enum hg_status hg_audit_check_key(const char *path, struct hg_error *err)
{
    uint8_t key[HG_SHA256_BYTES];
    enum hg_status status = hg_audit_read_key(path, key, err);
    explicit_bzero(key, sizeof key);
    return status;
}

/* ---- the end of a file ----------------------------------------------------------------------- */

/* The last TAIL bytes; *n of them. */
static bool read_tail(int fd, char *out, size_t *n, bool *whole)
{
    off_t end = lseek(fd, 0, SEEK_END);
    off_t from = end > TAIL ? end - TAIL : 0;
    *n = 0;
    *whole = from == 0;
    while (end >= 0 && *n < (size_t)(end - from)) {
        ssize_t got = pread(fd, out + *n, (size_t)(end - from) - *n, from + (off_t)*n);
        if (got <= 0)
            return false;
        *n += (size_t)got;
    }
    return end >= 0;
}

enum hg_status hg_audit_find_end(int fd, const char *path, struct hg_audit_chain *c,
                                 struct hg_error *err)
{
    char text[TAIL];
    size_t n;
    bool whole;
    if (!read_tail(fd, text, &n, &whole))
        return hg_fail(err, HG_STATUS_IO, "audit_log %.100s: cannot read its end", path);
    c->seq = 0;
    c->torn = false;
    memset(c->last, 0, sizeof c->last);
    if (n == 0)
        return HG_STATUS_OK;
    const char *newline = memrchr(text, '\n', n);
    size_t piece = newline ? (size_t)(text + n - newline) - 1 : n; /* after the last newline */
    if (newline) {
        const char *before = newline > text ? memrchr(text, '\n', (size_t)(newline - text)) : NULL;
        const char *line = before ? before + 1 : text;
        struct hg_audit_line last;
        if ((!before && !whole) || !hg_audit_parse(line, (size_t)(newline - line), &last))
            return hg_fail(err, HG_STATUS_BAD_FILE,
                           "audit_log %.100s: its last line is none of an audit log: move the file "
                           "away, or see healthgpt audit verify",
                           path);
        c->seq = last.seq;
        hg_sha256(line, (size_t)(newline - line), c->last);
    }
    if (piece > 0 && (newline || whole)) {
        c->seq++;
        c->torn = true;
        hg_sha256(text + n - piece, piece, c->last);
    } else if (piece > 0) {
        return hg_fail(err, HG_STATUS_BAD_FILE, "audit_log %.100s: a line without end", path);
    }
    return HG_STATUS_OK;
}
