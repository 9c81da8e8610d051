/* tests/http/mutate.c - see mutate.h. */
#include "tests/http/mutate.h"

#include <dirent.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- chance ---------------------------------------------------------------------------------- */

uint64_t random_next(struct random *r) /* splitmix64 */
{
    uint64_t z = r->state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

struct random random_of(uint64_t seed, uint64_t number)
{
    struct random r = {seed * 0xd1342543de82ef95u + number};
    random_next(&r);
    return r;
}

size_t random_below(struct random *r, size_t n)
{
    return n ? (size_t)(random_next(r) % n) : 0;
}

static bool one_in(struct random *r, size_t n)
{
    return random_below(r, n) == 0;
}

/* ---- seeds ----------------------------------------------------------------------------------- */

/* A grey picture of 8 x 8. */
static const unsigned char png[] = {
    0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a, 0x00, 0x00, 0x00, 0x0d, 0x49, 0x48, 0x44,
    0x52, 0x00, 0x00, 0x00, 0x08, 0x00, 0x00, 0x00, 0x08, 0x08, 0x00, 0x00, 0x00, 0x00, 0xe1,
    0x64, 0xe1, 0x57, 0x00, 0x00, 0x00, 0x0e, 0x49, 0x44, 0x41, 0x54, 0x78, 0x9c, 0x63, 0x68,
    0x80, 0x02, 0x06, 0xca, 0x18, 0x00, 0x80, 0x84, 0x20, 0x01, 0x0d, 0x80, 0x24, 0x61, 0x00,
    0x00, 0x00, 0x00, 0x49, 0x45, 0x4e, 0x44, 0xae, 0x42, 0x60, 0x82};

static size_t to_base64(const unsigned char *in, size_t n, char *out)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    size_t k = 0;
    for (size_t i = 0; i < n; i += 3) {
        uint32_t v = (uint32_t)in[i] << 16;
        v |= i + 1 < n ? (uint32_t)in[i + 1] << 8 : 0;
        v |= i + 2 < n ? (uint32_t)in[i + 2] : 0;
        out[k++] = digits[v >> 18];
        out[k++] = digits[v >> 12 & 63];
        out[k++] = i + 1 < n ? digits[v >> 6 & 63] : '=';
        out[k++] = i + 2 < n ? digits[v & 63] : '=';
    }
    return k;
}

static bool put(struct bytes *b, const void *data, size_t n)
{
    char *grown = realloc(b->data, b->n + n + 1);
    if (!grown)
        return false;
    memcpy(grown + b->n, data, n);
    grown[b->n + n] = '\0';
    b->data = grown;
    b->n += n;
    return true;
}

static bool expand(const char *text, struct bytes *b)
{
    char base64[2 * sizeof png];
    for (const char *p = text; *p;) {
        bool ok;
        if (strncmp(p, "{png}", 5) == 0) {
            ok = put(b, png, sizeof png);
            p += 5;
        } else if (strncmp(p, "{png64}", 7) == 0) {
            ok = put(b, base64, to_base64(png, sizeof png, base64));
            p += 7;
        } else if (*p == '\n') {
            ok = put(b, "\r\n", 2);
            p++;
        } else {
            ok = put(b, p++, 1);
        }
        if (!ok)
            return false;
    }
    return true;
}

/* Head and body of a request; the body is empty where there is none. */
static const char *body_of(const struct bytes *b)
{
    const char *end = memmem(b->data, b->n, "\r\n\r\n", 4);
    return end ? end + 4 : b->data + b->n;
}

static bool read_seed(const char *path, struct bytes *out)
{
    static const char mark[] = "{length}";
    static char text[1 << 16];
    struct bytes b = {0};
    FILE *f = fopen(path, "rb");
    size_t n = f ? fread(text, 1, sizeof text - 1, f) : 0;
    text[n] = '\0';
    if (f)
        fclose(f);
    if (n == 0 || !expand(text, &b)) {
        free(b.data);
        return false;
    }
    char *at = memmem(b.data, b.n, mark, sizeof mark - 1);
    if (at) {
        const char *body = body_of(&b);
        char digits[16]; /* blanks may stand before a number, not behind it */
        snprintf(digits, sizeof digits, "%8zu", (size_t)(b.data + b.n - body));
        memcpy(at, digits, sizeof mark - 1);
    }
    *out = b;
    return true;
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

bool seeds_read(const char *folder, struct seeds *s)
{
    struct dirent **names = NULL;
    int n = scandir(folder, &names, NULL, by_name);
    *s = (struct seeds){0};
    for (int i = 0; i < n; i++) {
        char path[1024];
        const char *dot = strrchr(names[i]->d_name, '.');
        snprintf(path, sizeof path, "%s/%s", folder, names[i]->d_name);
        if (dot && strcmp(dot, ".http") == 0 && s->n < MUTATE_MAX_SEEDS &&
            read_seed(path, &s->of[s->n]))
            s->n++;
        free(names[i]);
    }
    free(names);
    return s->n > 0;
}

void seeds_free(struct seeds *s)
{
    for (int i = 0; i < s->n; i++)
        free(s->of[i].data);
    s->n = 0;
}

/* ---- a mutant in its buffer ------------------------------------------------------------------ */

struct mutant {
    struct random r;
    char *data; /* [MUTANT_CAP] */
    size_t n;
};

/* Replace `cut` bytes at `at` by n others. */
static void splice(struct mutant *m, size_t at, size_t cut, const char *with, size_t n)
{
    if (at > m->n)
        at = m->n;
    if (cut > m->n - at)
        cut = m->n - at;
    if (m->n - cut + n > MUTANT_CAP)
        return;
    memmove(m->data + at + n, m->data + at + cut, m->n - at - cut);
    memcpy(m->data + at, with, n);
    m->n = m->n - cut + n;
}

static size_t anywhere(struct mutant *m)
{
    return random_below(&m->r, m->n);
}

static const char *const tokens[] = {"\r\n",
                                     "\n",
                                     "\r",
                                     "\r\n\r\n",
                                     " ",
                                     "\t",
                                     ":",
                                     "\x01",
                                     "\xff",
                                     "\xc0\x80",
                                     "\xed\xa0\x80",
                                     "%00",
                                     "%0d%0a",
                                     "%2e%2e%2f",
                                     "../",
                                     "?",
                                     "&a=b",
                                     "#",
                                     "\\",
                                     "HTTP/1.0",
                                     "HTTP/1.1",
                                     "HTTP/1.2",
                                     "HTTP/2.0",
                                     "GET ",
                                     "POST ",
                                     "HEAD ",
                                     "PUT ",
                                     "OPTIONS * ",
                                     "PRI * HTTP/2.0\r\n",
                                     "Host: localhost\r\n",
                                     "Host: evil.example\r\n",
                                     "Content-Length: 0\r\n",
                                     "Content-Length: 5\r\n",
                                     "Content-Length: -1\r\n",
                                     "Content-Length: 18446744073709551615\r\n",
                                     "Content-Length: 9223372036854775808\r\n",
                                     "Transfer-Encoding: chunked\r\n",
                                     "Transfer-Encoding: gzip\r\n",
                                     "Expect: 100-continue\r\n",
                                     "Connection: close\r\n",
                                     "Connection: keep-alive, upgrade\r\n",
                                     "Upgrade: websocket\r\n",
                                     "Authorization: Bearer x\r\n",
                                     "Content-Type: application/json\r\n",
                                     "Content-Type: multipart/form-data; boundary=B\r\n",
                                     "Content-Type: multipart/form-data\r\n",
                                     "Content-Type: multipart/form-data; boundary=\"\"\r\n",
                                     "Content-Encoding: gzip\r\n",
                                     "Cookie: a=b; c\r\n",
                                     "X-Request-Id: 1\r\n",
                                     "traceparent: 00-0-0-00\r\n",
                                     "Idempotency-Key: k\r\n",
                                     "0\r\n\r\n",
                                     "1\r\nx\r\n",
                                     "ffffffffffffffff\r\n",
                                     "5;a=b\r\n",
                                     "--B\r\n",
                                     "--B--\r\n",
                                     "--B--",
                                     "\r\n--B",
                                     "Content-Disposition: form-data; name=\"image\"\r\n",
                                     "filename=\"x.png\"",
                                     "name=\"\"",
                                     "name=question",
                                     "Content-Transfer-Encoding: base64\r\n",
                                     "{",
                                     "}",
                                     "[",
                                     "]",
                                     "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
                                     "{\"a\":{\"a\":{\"a\":{\"a\":",
                                     "\"",
                                     ",",
                                     "null",
                                     "true",
                                     "false",
                                     "-1",
                                     "0",
                                     "1e308",
                                     "1e-308",
                                     "1e999",
                                     "-0.0",
                                     "9223372036854775807",
                                     "9223372036854775808",
                                     "18446744073709551616",
                                     "0.1e1",
                                     "NaN",
                                     "Infinity",
                                     "\\u0000",
                                     "\\u0001",
                                     "\\ud800",
                                     "\\udc00\\ud800",
                                     "\\x",
                                     "\"\\u00010\"",
                                     "\"stream\":true,",
                                     "\"n\":4,",
                                     "\"stop\":[\"a\",\"b\"],",
                                     "\"max_tokens\":1,",
                                     "\"image\":\"AAAA\",",
                                     "\"images\":[],",
                                     "\"image\":\"data:image/png;base64,iVBORw0KGgo=\",",
                                     "data:image/png;base64,",
                                     "data:image/jpeg;base64,/9j/4AAQSkZJRg",
                                     "data:,",
                                     "data:;base64,",
                                     "http://127.0.0.1:1/x.png",
                                     "file:///etc/hostname",
                                     "iVBORw0KGgoAAAANSUhEUgAA",
                                     "====",
                                     "<|end|>",
                                     "<|user|>",
                                     "<image>",
                                     "<s>",
                                     "\xf0\x9f\x92\xa9",
                                     "\xe2\x80\xae",
                                     "A",
                                     "AAAAAAAA"};

static void insert_token(struct mutant *m, size_t at, size_t cut)
{
    const char *t = tokens[random_below(&m->r, sizeof tokens / sizeof tokens[0])];
    splice(m, at, cut, t, strlen(t));
}

static void flip_bits(struct mutant *m)
{
    for (size_t k = 1 + random_below(&m->r, 4); k > 0 && m->n > 0; k--)
        m->data[anywhere(m)] ^= (char)(1 << random_below(&m->r, 8));
}

static void set_byte(struct mutant *m)
{
    static const unsigned char odd[] = {0, '\r', '\n', '\t', ' ', 0x7f, 0x80, 0xff, '"', '%', ':'};
    char c =
        one_in(&m->r, 2) ? (char)odd[random_below(&m->r, sizeof odd)] : (char)random_next(&m->r);
    splice(m, anywhere(m), random_below(&m->r, 2), &c, 1);
}

static size_t short_range(struct mutant *m, size_t at)
{
    size_t most = one_in(&m->r, 8) ? m->n - at : 24;
    size_t n = 1 + random_below(&m->r, most ? most : 1);
    return n < m->n - at ? n : m->n - at;
}

static void delete_range(struct mutant *m)
{
    size_t at = anywhere(m);
    splice(m, at, short_range(m, at), "", 0);
}

/* Somewhere else, several times at times. */
static void copy_range(struct mutant *m)
{
    static char copy[MUTANT_CAP];
    size_t from = anywhere(m), n = short_range(m, from), to = anywhere(m);
    size_t times = one_in(&m->r, 6) ? 1 + random_below(&m->r, 300) : 1;
    memcpy(copy, m->data + from, n);
    for (size_t k = 0; k < times; k++)
        splice(m, to, 0, copy, n);
}

static void cut_end(struct mutant *m)
{
    m->n = anywhere(m);
}

/* ---- lines of the head ----------------------------------------------------------------------- */

struct line {
    size_t at, n; /* with its end */
};

static size_t head_end(const struct mutant *m)
{
    const char *end = memmem(m->data, m->n, "\r\n\r\n", 4);
    return end ? (size_t)(end - m->data) + 2 : m->n;
}

/* A line of the head other than the first; n 0: there is none. */
static struct line some_line(struct mutant *m)
{
    struct line found[80], l = {0};
    size_t n = 0, end = head_end(m);
    for (size_t at = 0; at < end && n < 80;) {
        const char *eol = memchr(m->data + at, '\n', end - at);
        size_t next = eol ? (size_t)(eol - m->data) + 1 : end;
        if (at > 0)
            found[n++] = (struct line){at, next - at};
        at = next;
    }
    if (n > 0)
        l = found[random_below(&m->r, n)];
    return l;
}

static void move_line(struct mutant *m)
{
    char copy[4096];
    struct line a = some_line(m), b = some_line(m);
    if (a.n == 0 || a.n > sizeof copy)
        return;
    memcpy(copy, m->data + a.at, a.n);
    if (one_in(&m->r, 3)) /* twice */
        splice(m, b.at, 0, copy, a.n);
    else if (one_in(&m->r, 2)) /* away */
        splice(m, a.at, a.n, "", 0);
    else
        splice(m, b.at, b.n, copy, a.n);
}

static void bend_line(struct mutant *m)
{
    struct line l = some_line(m);
    const char *colon = l.n ? memchr(m->data + l.at, ':', l.n) : NULL;
    if (!colon)
        return;
    size_t at = (size_t)(colon - m->data);
    switch (random_below(&m->r, 5)) {
    case 0: /* other letters */
        for (size_t i = l.at; i < at; i++)
            m->data[i] ^= one_in(&m->r, 2) ? 0x20 : 0;
        break;
    case 1: /* a long value */
        for (size_t k = 4 + random_below(&m->r, 9); k > 0; k--)
            splice(m, at + 1, 0, m->data, at < 900 ? at : 900);
        break;
    case 2: /* folded */
        splice(m, at + 1, 0, "\r\n ", 3);
        break;
    case 3: /* blank before the colon */
        splice(m, at, 0, one_in(&m->r, 2) ? " " : "\t", 1);
        break;
    default: /* another value */
        insert_token(m, at + 1, l.at + l.n - at - 3);
    }
}

/* ---- JSON ------------------------------------------------------------------------------------ */

static void add(char *out, size_t cap, const char *format, ...)
{
    va_list args;
    size_t n = strlen(out);
    va_start(args, format);
    vsnprintf(out + n, cap - n, format, args);
    va_end(args);
}

static void any_json(struct random *r, int depth, char *out, size_t cap)
{
    static const char *const keys[] = {"question",  "prompt",    "image",      "images", "stream",
                                       "messages",  "role",      "content",    "type",   "text",
                                       "url",       "image_url", "max_tokens", "n",      "model",
                                       "healthgpt", "seed",      "a",          "",       "stop"};
    static const char *const atoms[] = {"null",
                                        "true",
                                        "false",
                                        "0",
                                        "-1",
                                        "1",
                                        "2",
                                        "1.5",
                                        "1e308",
                                        "-1e-7",
                                        "2147483648",
                                        "9007199254740993",
                                        "9223372036854775808",
                                        "\"\"",
                                        "\"x\"",
                                        "\"\\u0000\"",
                                        "\"\\ud83d\"",
                                        "\"user\"",
                                        "\"system\"",
                                        "\"assistant\"",
                                        "\"image_url\"",
                                        "\"data:image/png;base64,AA==\"",
                                        "\"http://localhost/\"",
                                        "\"<|end|>\"",
                                        "\"b64_json\"",
                                        "\"256x256\"",
                                        "\"auto\""};
    size_t kind = random_below(r, 5), n = random_below(r, 4);
    if (depth == 0 || kind < 3) {
        add(out, cap, "%s", atoms[random_below(r, sizeof atoms / sizeof atoms[0])]);
        return;
    }
    add(out, cap, kind == 3 ? "[" : "{");
    for (size_t i = 0; i < n; i++) {
        add(out, cap, i ? "," : "");
        if (kind == 4)
            add(out, cap, "\"%s\":", keys[random_below(r, sizeof keys / sizeof keys[0])]);
        any_json(r, depth - 1, out, cap);
    }
    add(out, cap, kind == 3 ? "]" : "}");
}

/* The value behind some colon or bracket of the body becomes another one, or its member is
 * doubled. */
static void bend_json(struct mutant *m)
{
    char value[2048] = "";
    size_t places[128], n = 0, from = head_end(m);
    for (size_t i = from; i < m->n && n < 128; i++)
        if (m->data[i] == ':' || m->data[i] == '[' || m->data[i] == ',')
            places[n++] = i;
    if (n == 0)
        return;
    size_t at = places[random_below(&m->r, n)] + 1, end = at;
    int depth = 0;
    bool in_text = false;
    for (; end < m->n; end++) {
        char c = m->data[end];
        in_text ^= c == '"' && m->data[end - 1] != '\\';
        depth += in_text ? 0 : (c == '{' || c == '[') - (c == '}' || c == ']');
        if (!in_text && (depth < 0 || (depth == 0 && c == ',')))
            break;
    }
    any_json(&m->r, 4, value, sizeof value);
    splice(m, at, one_in(&m->r, 4) ? 0 : end - at, value, strlen(value));
    if (one_in(&m->r, 4))
        splice(m, at, 0, "1,\"a\":", 6);
}

/* ---- together -------------------------------------------------------------------------------- */

/* Content-Length says what is there. */
static void fit_length(struct mutant *m)
{
    static const char name[] = "Content-Length:";
    char text[32];
    size_t end = head_end(m);
    char *at = memmem(m->data, end, name, sizeof name - 1);
    if (!at || end + 2 > m->n)
        return;
    size_t from = (size_t)(at - m->data) + sizeof name - 1;
    const char *eol = memchr(m->data + from, '\r', end - from);
    if (!eol)
        return;
    snprintf(text, sizeof text, " %zu", m->n - end - 2);
    splice(m, from, (size_t)(eol - m->data) - from, text, strlen(text));
}

/* The beginning of this one and the end of another. */
static void cross(struct mutant *m, const struct seeds *s)
{
    const struct bytes *b = &s->of[random_below(&m->r, (size_t)s->n)];
    size_t from = random_below(&m->r, b->n), at = anywhere(m);
    splice(m, at, m->n - at, b->data + from, b->n - from);
}

static void mutate_once(struct mutant *m, const struct seeds *s)
{
    size_t body = head_end(m), at;
    switch (random_below(&m->r, 12)) {
    case 0:
        flip_bits(m);
        break;
    case 1:
        set_byte(m);
        break;
    case 2:
        delete_range(m);
        break;
    case 3:
        copy_range(m);
        break;
    case 4:
        cross(m, s);
        break;
    case 5:
        move_line(m);
        break;
    case 6:
        bend_line(m);
        break;
    case 7:
    case 8:
        bend_json(m);
        break;
    case 9: /* in the body */
        at = body + random_below(&m->r, m->n - body);
        insert_token(m, at, random_below(&m->r, 3));
        break;
    case 10:
        insert_token(m, anywhere(m), random_below(&m->r, 8));
        break;
    default:
        if (one_in(&m->r, 3))
            cut_end(m);
        else
            insert_token(m, random_below(&m->r, body), 0);
    }
}

size_t mutant_make(const struct seeds *s, uint64_t seed, uint64_t number, char *out)
{
    struct mutant m = {.r = random_of(seed, number), .data = out};
    const struct bytes *b = &s->of[random_below(&m.r, (size_t)s->n)];
    if (b->n > MUTANT_CAP)
        return 0;
    memcpy(out, b->data, b->n);
    m.n = b->n;
    for (size_t k = random_below(&m.r, 5); k > 0 && m.n > 0; k--)
        mutate_once(&m, s);
    if (random_below(&m.r, 10) < 7)
        fit_length(&m);
    return m.n;
}
