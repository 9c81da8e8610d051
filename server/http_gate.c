/* server/http_gate.c - one walk over the header lines. */
#include "server/http_gate.h"

#include <string.h>
#include <strings.h>

enum { MAX_HEADERS = 64, MAX_HEADER_BYTES = 8192, MAX_URI = 2048 };

struct walk {
    int n, n_host, n_length, n_encoding, n_expect, n_authorization, n_request_id, n_traceparent;
    bool bad_name, too_big, bad_length;
    const char *host, *encoding, *expect;
    struct hg_gate_facts facts;
};

/* RFC 9110 token. */
static bool is_token(const char *s)
{
    static const char marks[] = "!#$%&'*+-.^_`|~";
    if (!*s)
        return false;
    for (; *s; s++) {
        bool alnum =
            (*s >= '0' && *s <= '9') || (*s >= 'A' && *s <= 'Z') || (*s >= 'a' && *s <= 'z');
        if (!alnum && !strchr(marks, *s))
            return false;
    }
    return true;
}

/* Decimal digits only; -1 when not, or above 2^62. */
static int64_t parse_length(const char *s)
{
    int64_t v = 0;
    if (!*s)
        return -1;
    for (; *s; s++) {
        if (*s < '0' || *s > '9' || v > (INT64_MAX >> 1) / 10)
            return -1;
        v = v * 10 + (*s - '0');
    }
    return v;
}

static enum MHD_Result on_header(void *cls, enum MHD_ValueKind kind, const char *key,
                                 const char *value)
{
    struct walk *w = cls;
    (void)kind;
    const char *v = value ? value : "";
    w->n++;
    w->bad_name |= !is_token(key);
    w->too_big |= strlen(key) + strlen(v) > MAX_HEADER_BYTES;
    if (strcasecmp(key, "Host") == 0) {
        w->n_host++;
        w->host = v;
    } else if (strcasecmp(key, "Content-Length") == 0) {
        w->n_length++;
        w->facts.content_length = parse_length(v);
        w->bad_length |= w->facts.content_length < 0;
    } else if (strcasecmp(key, "Transfer-Encoding") == 0) {
        w->n_encoding++;
        w->encoding = v;
    } else if (strcasecmp(key, "Expect") == 0) {
        w->n_expect++;
        w->expect = v;
    } else if (strcasecmp(key, "Content-Type") == 0) {
        w->facts.content_type = v;
    } else if (strcasecmp(key, "X-Request-Id") == 0) {
        w->facts.request_id = w->n_request_id++ == 0 ? v : NULL;
    } else if (strcasecmp(key, "traceparent") == 0) {
        w->facts.traceparent = w->n_traceparent++ == 0 ? v : NULL;
    } else if (strcasecmp(key, "Authorization") == 0) {
        w->n_authorization++;
        w->facts.authorization = v;
    }
    return w->n > MAX_HEADERS ? MHD_NO : MHD_YES;
}

bool hg_http_uri_is_bad(const char *raw_uri)
{
    if (strnlen(raw_uri, MAX_URI + 1) > MAX_URI || strstr(raw_uri, "%00"))
        return true;
    for (; *raw_uri; raw_uri++)
        if ((unsigned char)*raw_uri <= 0x20 || (unsigned char)*raw_uri == 0x7f)
            return true;
    return false;
}

bool hg_http_host_is_local(const char *host)
{
    static const char *const names[] = {"localhost", "127.0.0.1", "[::1]"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        size_t n = strlen(names[i]);
        if (strncasecmp(host, names[i], n) != 0)
            continue;
        const char *rest = host + n;
        if (!*rest || (*rest == ':' && rest[1] && !rest[1 + strspn(rest + 1, "0123456789")]))
            return true;
    }
    return false;
}

static bool refuse(struct hg_api_error *e, int http, const char *text)
{
    hg_api_error_set(e, http, "bad_http_request", text);
    return false;
}

static bool framing_is_clear(const struct walk *w, const char *version, struct hg_api_error *e)
{
    bool http_1_0 = strcmp(version, "HTTP/1.0") == 0;
    if (w->n_host > 1 || (w->n_host == 0 && !http_1_0))
        return refuse(e, 400, "expected exactly one Host header");
    if (w->n_length > 1 || w->bad_length)
        return refuse(e, 400, "expected at most one Content-Length, in digits");
    if (w->n_encoding == 0)
        return true;
    if (w->n_encoding > 1 || w->n_length > 0 || http_1_0 || strcasecmp(w->encoding, "chunked") != 0)
        return refuse(e, 400, "expected one Transfer-Encoding: chunked, without Content-Length");
    return true;
}

bool hg_http_gate(struct MHD_Connection *connection, const char *method, const char *version,
                  bool bad_uri, bool loopback, struct hg_gate_facts *facts, struct hg_api_error *e)
{
    struct walk w = {.facts = {.content_length = -1}};
    MHD_get_connection_values(connection, MHD_HEADER_KIND, on_header, &w);
    w.facts.chunked = w.n_encoding > 0;
    w.facts.expects_continue = w.n_expect > 0;
    *facts = w.facts;
    if (strcmp(version, "HTTP/1.1") != 0 && strcmp(version, "HTTP/1.0") != 0)
        return refuse(e, 505, "expected HTTP/1.1");
    if (bad_uri)
        return refuse(e, 400, "the request target is too long or holds bytes that are not allowed");
    if (w.n > MAX_HEADERS || w.too_big)
        return refuse(e, 431, "too many or too long header lines");
    if (w.bad_name)
        return refuse(e, 400, "a header name holds characters that are not allowed");
    if (!framing_is_clear(&w, version, e))
        return false;
    if (w.n_expect > 0 && (w.n_expect > 1 || strcasecmp(w.expect, "100-continue") != 0))
        return refuse(e, 417, "expected Expect: 100-continue");
    if (w.n_authorization > 1)
        return refuse(e, 400, "expected at most one Authorization header");
    bool has_body = w.facts.chunked || w.facts.content_length > 0;
    if (has_body && (strcmp(method, "GET") == 0 || strcmp(method, "HEAD") == 0))
        return refuse(e, 400, "a GET request has no body here");
    if (loopback && w.n_host && !hg_http_host_is_local(w.host)) {
        hg_api_error_set(e, 403, "host_not_allowed",
                         "this server listens on loopback: use localhost or 127.0.0.1 as Host");
        return false;
    }
    return true;
}
