/* server/http/http_gate.h - what libmicrohttpd lets through and we do not.
 *
 * Debian 12 ships 0.9.75, and every version below 1.0.5 accepts requests that two parsers read in
 * two ways (double Content-Length, Transfer-Encoding twice or in HTTP/1.0, several Hosts, any byte
 * in a header name, "%00" in the path). Versions before 1.0 also cut values at a NUL and take bare
 * LF and folded lines; they leave the bytes of the header in memory, where http_raw.h looks at
 * them. The gate runs before routing on the raw connection. */
#ifndef HG_SERVER_HTTP_GATE_H
#define HG_SERVER_HTTP_GATE_H

#include <microhttpd.h>
#include <stdbool.h>
#include <stdint.h>

#include "server/api/api.h"

struct hg_gate_facts {
    int64_t content_length; /* -1: none declared */
    bool chunked, expects_continue;
    bool encoded;                         /* Content-Encoding: something */
    const char *content_type;             /* NULL: none; valid as long as the request */
    const char *authorization;            /* the same */
    const char *audit_subject;            /* the same, X-Audit-Subject */
    const char *origin;                   /* the same; of a page that `cors` lists, else NULL */
    bool preflight;                       /* Access-Control-Request-Method is there */
    const char *request_id, *traceparent; /* the same; NULL too when there are several */
};

/* The request target as it was sent, before libmicrohttpd decodes it in place. */
struct hg_gate_target {
    const char *at; /* NULL: none */
    size_t n;
    bool bad;
};

/* Whose names are good in Host, and who may ask from a page of another site. */
struct hg_gate_policy {
    bool hosts;          /* only local names and `allowed` are good in Host (DNS rebinding) */
    bool origins;        /* so it is in Origin, where it is given; else 403 */
    const char *cors;    /* origins that may ask whatever else holds: server/http/cors.h */
    const char *allowed; /* "a.example,b.example": without ports; may be "" */
};

/* False: *e is filled and the connection must be closed after the answer. */
bool hg_http_gate(struct MHD_Connection *connection, const char *method, const char *version,
                  const struct hg_gate_target *target, const struct hg_gate_policy *policy,
                  struct hg_gate_facts *facts, struct hg_api_error *e);
/* What on_uri gets. Bad: longer than 2 KiB, not of the form "/path?query", bytes that a URI cannot
 * hold, a '%' without two hex digits, an encoded control byte. */
struct hg_gate_target hg_http_target(const char *raw_uri);
/* "localhost:8080", "127.0.0.1", "[::1]:80", or a name of the list with or without a port. */
bool hg_http_host_is_good(const char *host, const char *allowed);
bool hg_http_origin_is_good(const char *origin, const char *allowed);

#endif
