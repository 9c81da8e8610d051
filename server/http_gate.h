/* server/http_gate.h - what libmicrohttpd lets through and we do not.
 *
 * Debian 12 ships 0.9.75, and every version below 1.0.5 accepts requests that two parsers read in
 * two ways (double Content-Length, Transfer-Encoding twice or in HTTP/1.0, several Hosts, any byte
 * in a header name, "%00" in the path). The gate runs before routing on the raw connection. */
#ifndef HG_SERVER_HTTP_GATE_H
#define HG_SERVER_HTTP_GATE_H

#include <microhttpd.h>
#include <stdbool.h>
#include <stdint.h>

#include "server/api.h"

struct hg_gate_facts {
    int64_t content_length; /* -1: none declared */
    bool chunked, expects_continue;
    const char *content_type;             /* NULL: none; valid as long as the request */
    const char *authorization;            /* the same */
    const char *request_id, *traceparent; /* the same; NULL too when there are several */
};

/* `raw_uri` before decoding. `loopback`: only local Host names pass (DNS rebinding). False: *e is
 * filled and the connection must be closed after the answer. */
bool hg_http_gate(struct MHD_Connection *connection, const char *method, const char *version,
                  bool bad_uri, bool loopback, struct hg_gate_facts *facts, struct hg_api_error *e);
/* Longer than 2 KiB, control bytes, or an encoded NUL. */
bool hg_http_uri_is_bad(const char *raw_uri);
bool hg_http_host_is_local(const char *host); /* "localhost:8080", "127.0.0.1", "[::1]:80" */

#endif
