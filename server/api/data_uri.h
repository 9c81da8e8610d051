/* server/api/data_uri.h - an image as clients send it in JSON. Pure.
 *
 * Plain base64, or "data:image/<subtype>;base64,<payload>". Any other scheme (http, https, file,
 * ...) is UNSUPPORTED: the server never fetches anything. Decoded bytes are appended to out; more
 * than max_bytes is TOO_LARGE before anything is allocated. */
#ifndef HG_SERVER_DATA_URI_H
#define HG_SERVER_DATA_URI_H

#include <stddef.h>

#include "common/buf.h"
#include "common/status.h"

enum hg_status hg_image_uri_decode(const char *s, size_t n, size_t max_bytes, struct hg_buf *out,
                                   struct hg_error *err);

#endif
