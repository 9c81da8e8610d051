/* server/api/lifter.c - four modes, one byte at a time; runs of text and of base64 go faster. */
#include "server/api/lifter.h"

#include <string.h>
#include <strings.h>

#include "server/api/api_fields.h"

enum { OUTSIDE, HEAD, REST, PICTURE };
enum { NOT_BASE64 = 0x80, PAD = 0x40 };

/* value | 0x80 for what is no base64, so that four can be looked up and judged at once. */
#define B NOT_BASE64
#define ROW16 B, B, B, B, B, B, B, B, B, B, B, B, B, B, B, B
static const uint8_t value_of[256] = {
    ROW16, ROW16, B,     B,     B,     B,     B,     B,     B,     B,    B,  B,  B,  62, B,  B,
    B,     63,    52,    53,    54,    55,    56,    57,    58,    59,   60, 61, B,  B,  B,  B,
    B,     B,     B,     0,     1,     2,     3,     4,     5,     6,    7,  8,  9,  10, 11, 12,
    13,    14,    15,    16,    17,    18,    19,    20,    21,    22,   23, 24, 25, B,  B,  B,
    B,     B,     B,     26,    27,    28,    29,    30,    31,    32,   33, 34, 35, 36, 37, 38,
    39,    40,    41,    42,    43,    44,    45,    46,    47,    48,   49, 50, 51, B,  B,  B,
    B,     B,     ROW16, ROW16, ROW16, ROW16, ROW16, ROW16, ROW16, ROW16};
#undef ROW16
#undef B

void hg_lifter_begin(struct hg_lifter *l, struct hg_buf *text, struct hg_image_list *images,
                     size_t max_text)
{
    *l = (struct hg_lifter){
        .text = text, .images = images, .max_text = max_text, .mode = OUTSIDE, .n_nodes = 1};
}

static bool put(struct hg_lifter *l, const char *s, size_t n, struct hg_api_error *e)
{
    if (n > l->max_text - l->text->len)
        return hg_api_refuse(e, 413, "body_too_large", "",
                             "the JSON text beside its images is larger than %zu bytes",
                             l->max_text);
    return hg_buf_append(l->text, s, n) == HG_STATUS_OK || hg_api_refuse_memory(e);
}

/* ---- structure ------------------------------------------------------------------------------- */

static bool open_level(struct hg_lifter *l, bool array, struct hg_api_error *e)
{
    if (l->depth == HG_JSON_MAX_DEPTH)
        return hg_api_refuse(e, 400, "invalid_json", "", "JSON: nested deeper than %d levels",
                             HG_JSON_MAX_DEPTH);
    bool image_key = array && l->level[l->depth].image_key;
    l->level[++l->depth] = (struct hg_lifter_level){.array = array, .image_key = image_key};
    l->key_next = !array;
    return true;
}

/* A byte outside strings that means something; *opens: a string begins. */
static bool structure(struct hg_lifter *l, char c, bool *opens, struct hg_api_error *e)
{
    struct hg_lifter_level *top = &l->level[l->depth];
    *opens = c == '"';
    if (c == '{' || c == '[' || c == ',')
        l->n_nodes++;
    if (l->n_nodes > HG_JSON_MAX_NODES)
        return hg_api_refuse(e, 400, "invalid_json", "", "JSON: more than %d values",
                             HG_JSON_MAX_NODES);
    if (c == '{' || c == '[')
        return open_level(l, c == '[', e);
    if (c == '}' || c == ']') {
        l->depth -= l->depth > 0;
        l->key_next = false;
    } else if (c == ',') {
        top->index++;
        l->key_next = l->depth > 0 && !top->array;
    } else if (c == ':') {
        l->key_next = false;
    } else if (c == '"') {
        l->mode = HEAD;
        l->is_key = l->key_next;
        l->escape = false;
        l->is_base64 = true;
        l->n_hex = 0;
        l->n_head = l->n_raw = 0;
    }
    return true;
}

/* Keys are compared after their escapes are undone, as jansson will see them. */
static void take_key(struct hg_lifter *l, bool whole)
{
    static const char *const keys[] = {"image", "images", "b64_json", "data"};
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_";
    struct hg_lifter_level *top = &l->level[l->depth];
    size_t n = l->n_head < sizeof top->key - 1 ? l->n_head : sizeof top->key - 1;
    memcpy(top->key, l->head, n);
    top->key[n] = '\0';
    top->image_key = false;
    for (size_t i = 0; whole && i < sizeof keys / sizeof keys[0]; i++)
        if (strlen(keys[i]) == l->n_head && memcmp(keys[i], l->head, l->n_head) == 0)
            top->image_key = true;
    if (strspn(top->key, plain) != n) /* echoed only when it looks like a name */
        memcpy(top->key, "?", 2);
}

/* "messages[0].content[1].image_url.url" */
static void path_of(const struct hg_lifter *l, char *out, size_t cap)
{
    size_t at = 0;
    out[0] = '\0';
    for (int i = 1; i <= l->depth && at < cap; i++) {
        const struct hg_lifter_level *v = &l->level[i];
        int n = v->array ? snprintf(out + at, cap - at, "[%u]", (unsigned)v->index)
                         : snprintf(out + at, cap - at, "%s%s", at ? "." : "", v->key);
        at += n > 0 ? (size_t)n : 0;
    }
}

/* ---- pictures -------------------------------------------------------------------------------- */

static bool refuse_base64(struct hg_lifter *l, const char *what, struct hg_api_error *e)
{
    const char *where = l->images->items[l->images->n - 1].where;
    return hg_api_refuse(e, 400, "invalid_request", where, "%s: base64: %s at offset %zu", where,
                         what, l->n_chars);
}

/* The last quantum: n bytes, whose unused bits must be zero. */
static bool end_quantum(struct hg_lifter *l, struct hg_api_error *e)
{
    int n = 3 - l->n_pad;
    uint32_t acc = l->quantum << 6 * l->n_pad;
    if (acc & ((1U << 8 * l->n_pad) - 1))
        return refuse_base64(l, "invalid bits", e);
    unsigned char bytes[3] = {(unsigned char)(acc >> 16), (unsigned char)(acc >> 8),
                              (unsigned char)acc};
    l->quantum = 0;
    l->n_quantum = 0;
    return hg_image_list_append(l->images, bytes, (size_t)n, e);
}

static bool picture_char(struct hg_lifter *l, unsigned code, struct hg_api_error *e)
{
    bool pad = code == '=';
    bool ended = l->n_pad > 0 && l->n_quantum == 0;
    if (ended ||
        (pad ? l->n_quantum < 2 : l->n_pad > 0 || code > 0xff || value_of[code] == NOT_BASE64))
        return refuse_base64(l, "invalid character", e);
    l->n_pad += pad;
    if (!pad)
        l->quantum = l->quantum << 6 | value_of[code];
    if (++l->n_quantum == 4 && !end_quantum(l, e))
        return false;
    l->n_chars++;
    return true;
}

static bool end_picture(struct hg_lifter *l, struct hg_api_error *e)
{
    if (l->n_quantum)
        return refuse_base64(l, "expected a length that is a multiple of 4, it ends", e);
    l->mode = OUTSIDE;
    return put(l, "\"", 1, e);
}

/* As many whole quanta as stand here in plain base64; *used characters were taken. */
static bool picture_run(struct hg_lifter *l, const char *s, size_t n, size_t *used,
                        struct hg_api_error *e)
{
    struct hg_image_bytes *im = &l->images->items[l->images->n - 1];
    size_t n_quanta = n / 4, room = (l->images->max_bytes - im->n) / 3;
    const unsigned char *u = (const unsigned char *)s;
    *used = 0;
    if (l->escape || l->n_hex || l->n_quantum || l->n_pad)
        return true;
    n_quanta = n_quanta < room ? n_quanta : room;
    if (n_quanta == 0)
        return true;
    if (!hg_image_list_reserve(l->images, 3 * n_quanta, e))
        return false;
    unsigned char *out = im->data + im->n;
    size_t i = 0;
    for (; i < n_quanta; i++, u += 4, out += 3) {
        unsigned a = value_of[u[0]], b = value_of[u[1]], c = value_of[u[2]], d = value_of[u[3]];
        if ((a | b | c | d) & NOT_BASE64)
            break;
        uint32_t acc = a << 18 | b << 12 | c << 6 | d;
        out[0] = (unsigned char)(acc >> 16);
        out[1] = (unsigned char)(acc >> 8);
        out[2] = (unsigned char)acc;
    }
    im->n += 3 * i;
    l->n_chars += 4 * i;
    *used = 4 * i;
    return true;
}

static bool begin_picture(struct hg_lifter *l, bool from_head, struct hg_api_error *e)
{
    char where[64], mark[24];
    path_of(l, where, sizeof where);
    if (!hg_image_list_open(l->images, where[0] ? where : "body", e))
        return false;
    int n = snprintf(mark, sizeof mark, "\\u%04x%zu", HG_LIFTER_MARK, l->images->n - 1);
    l->mode = PICTURE;
    l->quantum = 0;
    l->n_quantum = l->n_pad = 0;
    l->n_chars = 0;
    if (!put(l, mark, (size_t)n, e))
        return false;
    for (size_t i = 0; from_head && i < l->n_head; i++)
        if (!picture_char(l, (unsigned char)l->head[i], e))
            return false;
    return true;
}

/* ---- strings --------------------------------------------------------------------------------- */

static bool leave_head(struct hg_lifter *l, int mode, struct hg_api_error *e)
{
    if (l->is_key)
        take_key(l, mode == OUTSIDE);
    l->mode = mode;
    return put(l, l->raw, l->n_raw, e);
}

/* One more character of the head: is it a picture, can it still become one? */
static bool head_char(struct hg_lifter *l, unsigned code, struct hg_api_error *e)
{
    static const char prefix[] = "data:image/";
    size_t k = sizeof prefix - 1;
    if (l->n_head == 0 && code == HG_LIFTER_MARK)
        return hg_api_refuse(e, 400, "invalid_json", "",
                             "JSON: a string begins with the control character U+0001");
    l->head[l->n_head++] = (char)(code < 0x80 ? code : 0x7f);
    if (l->is_key)
        return l->n_head < HG_LIFTER_KEY || leave_head(l, REST, e);
    l->is_base64 = l->is_base64 && code < 0x80 && value_of[code] != NOT_BASE64;
    if (strncasecmp(l->head, prefix, l->n_head < k ? l->n_head : k) == 0) {
        if (code == ',' && l->n_head > k + 7 &&
            strncasecmp(l->head + l->n_head - 8, ";base64", 7) == 0)
            return begin_picture(l, false, e);
        /* What may be no JSON (control bytes, broken UTF-8) is left for its parser to refuse. */
        bool header = code != ',' && code >= 0x20 && code < 0x7f;
        return (header && l->n_head < HG_LIFTER_HEAD) || leave_head(l, REST, e);
    }
    if (!l->is_base64 || !l->level[l->depth].image_key)
        return leave_head(l, REST, e);
    return l->n_head < HG_LIFTER_HEAD || begin_picture(l, true, e);
}

static int hex_of(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

enum step { MORE, CHARACTER, QUOTE, BROKEN };

/* One byte of a string whose escapes are undone; a CHARACTER is in l->code. */
static enum step unescape(struct hg_lifter *l, char c)
{
    static const char names[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
    if (l->n_hex) {
        int v = hex_of(c);
        if (v < 0)
            return BROKEN;
        l->code = l->code << 4 | (unsigned)v;
        return --l->n_hex ? MORE : CHARACTER;
    }
    if (l->escape) {
        const char *at = c ? strchr(names, c) : NULL;
        l->escape = false;
        l->code = at ? (unsigned char)values[at - names] : 0;
        l->n_hex = c == 'u' ? 4 : 0;
        return at ? CHARACTER : c == 'u' ? MORE : BROKEN;
    }
    l->escape = c == '\\';
    l->code = (unsigned char)c;
    return l->escape ? MORE : c == '"' ? QUOTE : CHARACTER;
}

static bool head_byte(struct hg_lifter *l, char c, struct hg_api_error *e)
{
    enum step step = unescape(l, c);
    if (step == QUOTE)
        return leave_head(l, OUTSIDE, e) && put(l, "\"", 1, e);
    l->raw[l->n_raw++] = c;
    if (step == BROKEN) /* no JSON: copied, and refused by who parses it */
        return leave_head(l, REST, e);
    return step == MORE || head_char(l, l->code, e);
}

static bool picture_byte(struct hg_lifter *l, char c, struct hg_api_error *e)
{
    enum step step = unescape(l, c);
    if (step == QUOTE)
        return end_picture(l, e);
    if (step == BROKEN)
        return refuse_base64(l, "invalid escape", e);
    return step == MORE || picture_char(l, l->code, e);
}

/* Up to the closing quote; returns how many bytes were looked at. */
static size_t rest_run(struct hg_lifter *l, const char *s, size_t n)
{
    size_t i = 0;
    for (; i < n; i++) {
        if (l->escape) {
            l->escape = false;
        } else if (s[i] == '\\') {
            l->escape = true;
        } else if (s[i] == '"') {
            l->mode = OUTSIDE;
            return i + 1;
        }
    }
    return i;
}

/* Up to the opening quote of a string, with it. */
static bool outside_run(struct hg_lifter *l, const char *s, size_t n, size_t *used,
                        struct hg_api_error *e)
{
    bool opens = false;
    size_t i = 0;
    while (i < n && !opens)
        if (!structure(l, s[i++], &opens, e))
            return false;
    *used = i;
    return true;
}

bool hg_lifter_feed(struct hg_lifter *l, const char *s, size_t n, struct hg_api_error *e)
{
    for (size_t i = 0; i < n;) {
        size_t used = 1;
        bool ok = true;
        if (l->mode == OUTSIDE) {
            ok = outside_run(l, s + i, n - i, &used, e) && put(l, s + i, used, e);
        } else if (l->mode == REST) {
            used = rest_run(l, s + i, n - i);
            ok = put(l, s + i, used, e);
        } else if (l->mode == HEAD) {
            ok = head_byte(l, s[i], e);
        } else {
            ok = picture_run(l, s + i, n - i, &used, e);
            if (ok && used == 0) {
                used = 1;
                ok = picture_byte(l, s[i], e);
            }
        }
        if (!ok)
            return false;
        i += used;
    }
    return true;
}

bool hg_lifter_end(struct hg_lifter *l, struct hg_api_error *e)
{
    return l->mode != HEAD || leave_head(l, REST, e);
}
