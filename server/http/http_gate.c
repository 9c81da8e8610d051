/* server/http/http_gate.c - one walk over the header lines. */
#include "server/http/http_gate.h"

#include "server/http/cors.h"

#include <string.h>
#include <strings.h>

#include "common/fault.h"
#include "server/http/http_raw.h"

enum { MAX_HEADERS = 64, MAX_HEADER_BYTES = 8192, MAX_URI = 2048 };

struct walk {
    int n, n_host, n_length, n_encoding, n_expect, n_authorization, n_origin, n_type, n_request_id,
        n_traceparent;
    bool bad_name, bad_value, too_big, bad_length;
    const char *host, *encoding, *expect, *origin;
    struct hg_gate_facts facts;
    struct hg_raw_walk raw;
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

/* No control bytes but tabs (RFC 9110 5.5; a bare CR is one). */
static bool is_field_value(const char *s)
{
    for (; *s; s++)
        if (((unsigned char)*s < 0x20 && *s != '\t') || *s == 0x7f)
            return false;
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
    hg_raw_walk_header(&w->raw, key, v);
    w->bad_name |= !is_token(key);
    w->bad_value |= !is_field_value(v);
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
        w->n_type++;
        w->facts.content_type = v;
    } else if (strcasecmp(key, "Content-Encoding") == 0) {
        w->facts.encoded |= strcasecmp(v, "identity") != 0;
    } else if (strcasecmp(key, "Access-Control-Request-Method") == 0) {
        w->facts.preflight = true;
    } else if (strcasecmp(key, "X-Request-Id") == 0) {
        w->facts.request_id = w->n_request_id++ == 0 ? v : NULL;
    } else if (strcasecmp(key, "traceparent") == 0) {
        w->facts.traceparent = w->n_traceparent++ == 0 ? v : NULL;
    } else if (strcasecmp(key, "Authorization") == 0) {
        w->n_authorization++;
        w->facts.authorization = v;
    } else if (strcasecmp(key, "X-Audit-Subject") == 0) {
        w->facts.audit_subject = v;
    } else if (strcasecmp(key, "Origin") == 0) {
        w->n_origin++;
        w->origin = v;
    }
    return w->n > MAX_HEADERS ? MHD_NO : MHD_YES;
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* One byte, or one "%xx", of a target; 0: not allowed. */
static size_t good_bytes(const char *s)
{
    static const char never[] = "\"#<>\\^`{|}";
    unsigned char c = (unsigned char)*s;
    if (c != '%')
        return c <= 0x20 || c >= 0x7f || strchr(never, c) ? 0 : 1;
    int hi = hex_digit(s[1]), lo = hi < 0 ? -1 : hex_digit(s[2]), v = hi * 16 + lo;
    return lo < 0 || v < 0x20 || v == 0x7f ? 0 : 3;
}

struct hg_gate_target hg_http_target(const char *raw_uri)
{
    struct hg_gate_target t = {.at = raw_uri, .bad = true};
    if (!raw_uri)
        return t;
    t.n = strlen(raw_uri);
    size_t step = 1;
    for (size_t i = 0; t.n <= MAX_URI && i < t.n && step > 0; i += step)
        step = good_bytes(raw_uri + i);
    t.bad = t.n > MAX_URI || *raw_uri != '/' || step == 0;
    return t;
}

/* What stands behind a host name: nothing, or a port. */
static bool ends_host(const char *rest)
{
    size_t n = *rest == ':' ? strspn(rest + 1, "0123456789") : 0;
    return !*rest || (n >= 1 && n <= 5 && !rest[1 + n]);
}

bool hg_http_host_is_good(const char *host, const char *allowed)
{
    static const char *const names[] = {"localhost", "127.0.0.1", "[::1]"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        size_t n = strlen(names[i]);
        if (strncasecmp(host, names[i], n) == 0 && ends_host(host + n))
            return true;
    }
    while (*allowed) {
        allowed += strspn(allowed, ", ");
        size_t n = strcspn(allowed, ", ");
        if (n > 0 && strncasecmp(host, allowed, n) == 0 && ends_host(host + n))
            return true;
        allowed += n;
    }
    return false;
}

bool hg_http_origin_is_good(const char *origin, const char *allowed)
{
    static const char *const schemes[] = {"http://", "https://"};
    for (size_t i = 0; i < sizeof schemes / sizeof schemes[0]; i++) {
        size_t n = strlen(schemes[i]);
        if (strncasecmp(origin, schemes[i], n) == 0)
            return hg_http_host_is_good(origin + n, allowed);
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

static bool lines_are_clear(const struct walk *w, const struct hg_gate_target *target,
                            struct hg_api_error *e)
{
    if (target->bad && target->n > MAX_URI)
        return refuse(e, 414, "the request target is longer than 2 KiB");
    if (target->bad)
        return refuse(e, 400, "expected a request target of the form /path?query");
    if (w->n > MAX_HEADERS || w->too_big)
        return refuse(e, 431, "too many or too long header lines");
    if (w->bad_name)
        return refuse(e, 400, "a header name holds characters that are not allowed");
    if (w->bad_value)
        return refuse(e, 400, "a header value holds characters that are not allowed");
    if (!hg_raw_walk_ends(&w->raw))
        return refuse(e, 400, "expected header lines that end in CR LF, without NUL or folding");
    return true;
}

static bool sender_is_good(const struct walk *w, const struct hg_gate_policy *p,
                           struct hg_api_error *e)
{
    if (p->hosts && w->n_host && !hg_http_host_is_good(w->host, p->allowed)) {
        hg_api_error_set(e, 403, "host_not_allowed",
                         "Host is no name of this server: use localhost, 127.0.0.1 or one of "
                         "allowed_hosts");
        return false;
    }
    if (w->facts.origin)
        return true;
    if (p->origins && w->n_origin && w->origin &&
        (w->n_origin > 1 || !hg_http_origin_is_good(w->origin, p->allowed))) {
        hg_api_error_set(e, 403, "origin_not_allowed",
                         "without API keys, pages of other sites may not ask: see cors_origins");
        return false;
    }
    return true;
}

bool hg_http_gate(struct MHD_Connection *connection, const char *method, const char *version,
                  const struct hg_gate_target *target, const struct hg_gate_policy *policy,
                  struct hg_gate_facts *facts, struct hg_api_error *e)
{
    struct walk w = {.facts = {.content_length = -1}};
    hg_raw_walk_begin(&w.raw, connection, method, target, version);
    MHD_get_connection_values(connection, MHD_HEADER_KIND, on_header, &w);
    w.facts.chunked = w.n_encoding > 0;
    if (w.n_origin == 1 && hg_cors_allows(policy->cors, w.origin))
        w.facts.origin = w.origin;
    w.facts.expects_continue = w.n_expect > 0;
    *facts = w.facts;
    if (hg_fault(HG_FAULT_OPEN_GATE, NULL))
        return true;
    if (strcmp(version, "HTTP/1.1") != 0 && strcmp(version, "HTTP/1.0") != 0)
        return refuse(e, 505, "expected HTTP/1.1");
    if (!is_token(method))
        return refuse(e, 400, "the method holds characters that are not allowed");
    if (!lines_are_clear(&w, target, e) || !framing_is_clear(&w, version, e))
        return false;
    if (w.n_expect > 0 && (w.n_expect > 1 || strcasecmp(w.expect, "100-continue") != 0))
        return refuse(e, 417, "expected Expect: 100-continue");
    if (w.n_authorization > 1 || w.n_type > 1)
        return refuse(e, 400, "expected at most one Authorization and one Content-Type header");
    bool has_body = w.facts.chunked || w.facts.content_length > 0;
    if (has_body && (strcmp(method, "GET") == 0 || strcmp(method, "HEAD") == 0))
        return refuse(e, 400, "a GET request has no body here");
    return sender_is_good(&w, policy, e);
}
