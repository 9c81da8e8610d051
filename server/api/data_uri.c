/* server/api/data_uri.c - accept inline bytes, refuse everything that would need a fetch. */
#include "server/api/data_uri.h"

#include <stdbool.h>
#include <string.h>
#include <strings.h>

#include "common/base64.h"

static bool has_prefix(const char *s, size_t n, const char *prefix)
{
    size_t k = strlen(prefix);
    return n >= k && strncasecmp(s, prefix, k) == 0;
}

/* "<scheme>:" at the start; base64 holds no ':', so this cannot misread a plain payload. */
static bool has_scheme(const char *s, size_t n)
{
    size_t cap = n < 16 ? n : 16;
    return memchr(s, ':', cap) != NULL;
}

enum hg_status hg_image_uri_decode(const char *s, size_t n, size_t max_bytes, struct hg_buf *out,
                                   struct hg_error *err)
{
    if (!has_scheme(s, n))
        return hg_base64_decode(s, n, max_bytes, out, err);
    if (!has_prefix(s, n, "data:"))
        return hg_fail(err, HG_STATUS_UNSUPPORTED,
                       "remote images are not fetched: send the bytes as base64 or a data: URI");
    /* The header of a data URI is short; looking further would scan the payload. */
    const char *comma = memchr(s, ',', n < 256 ? n : 256);
    if (!comma || !has_prefix(s, n, "data:image/"))
        return hg_fail(err, HG_STATUS_BAD_REQUEST,
                       "data URI: expected data:image/<type>;base64,<payload>");
    size_t head = (size_t)(comma - s);
    if (head < 7 || strncasecmp(comma - 7, ";base64", 7) != 0)
        return hg_fail(err, HG_STATUS_BAD_REQUEST, "data URI: only ;base64 payloads are read");
    return hg_base64_decode(comma + 1, n - head - 1, max_bytes, out, err);
}
