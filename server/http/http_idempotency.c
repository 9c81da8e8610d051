/* server/http/http_idempotency.c - the header Idempotency-Key of requests for pictures. */
#include <string.h>

#include "common/clock.h"
#include "server/api/api_fields.h"
#include "server/http/http_exchange.h"

static bool refuse(struct exchange *x, int http, const char *code, const char *text)
{
    hg_api_error_set(&x->error, http, code, text);
    return false;
}

/* What a client may choose: visible characters and spaces, as a header has them. */
static bool is_key(const char *s)
{
    size_t n = 0;
    while (n <= HG_IDEMPOTENCY_MAX_KEY && s[n] >= 0x20 && s[n] < 0x7f)
        n++;
    return n > 0 && n <= HG_IDEMPOTENCY_MAX_KEY && s[n] == '\0';
}

static bool judge(struct exchange *x, const char *key, struct hg_buf *kept)
{
    uint8_t digest[HG_SHA256_BYTES];
    hg_body_digest(x->body, x->route->path, digest);
    switch (hg_idempotency_begin(x->http->idempotency, x->who.id, key, digest, hg_now_ns(),
                                 &x->idempotency, kept)) {
    case HG_IDEMPOTENCY_NEW:
    case HG_IDEMPOTENCY_DONE:
        return true;
    case HG_IDEMPOTENCY_RUNNING:
        return refuse(x, 409, "idempotency_key_in_use",
                      "the request with this Idempotency-Key is still running: try again");
    case HG_IDEMPOTENCY_OTHER:
        return refuse(x, 422, "idempotency_key_reused",
                      "this Idempotency-Key was used for another request");
    case HG_IDEMPOTENCY_NO_MEMORY:
        return hg_api_refuse_memory(&x->error);
    case HG_IDEMPOTENCY_FULL:
        break;
    }
    return refuse(x, 503, "idempotency_full", "no place is left to keep this Idempotency-Key");
}

bool hg_http_idempotency_begin(struct exchange *x, bool stream, struct hg_buf *kept)
{
    const char *key =
        MHD_lookup_connection_value(x->connection, MHD_HEADER_KIND, "Idempotency-Key");
    if (!key || x->route->task != HG_TASK_GENERATION)
        return true;
    if (stream)
        return refuse(x, 400, "idempotency_with_stream",
                      "Idempotency-Key: a stream cannot be kept; leave out the key or stream");
    if (!is_key(key))
        return refuse(x, 400, "invalid_idempotency_key",
                      "Idempotency-Key: expected 1 to 255 visible characters");
    return judge(x, key, kept);
}

void hg_http_idempotency_finish(struct exchange *x, const struct hg_buf *answer)
{
    if (x->idempotency)
        hg_idempotency_finish(x->http->idempotency, x->idempotency, answer->data, answer->len,
                              hg_now_ns());
    x->idempotency = 0;
}

void hg_http_idempotency_abandon(struct exchange *x)
{
    if (x->idempotency)
        hg_idempotency_abandon(x->http->idempotency, x->idempotency);
    x->idempotency = 0;
}
