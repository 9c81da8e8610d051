/* common/base64.h - RFC 4648 section 4 (A-Z a-z 0-9 + /), padding required, nothing else accepted.
 */
#ifndef HG_COMMON_BASE64_H
#define HG_COMMON_BASE64_H

#include <stddef.h>

#include "common/buf.h"
#include "common/status.h"

/* Append the decoded bytes to out. BAD_REQUEST (with the offset) for a length that is no multiple
 * of 4, a foreign byte (white space too), misplaced padding, or non-zero bits under the padding;
 * TOO_LARGE when the result would exceed max_bytes, found before anything is allocated. A failure
 * leaves out as it was. */
enum hg_status hg_base64_decode(const char *s, size_t n, size_t max_bytes, struct hg_buf *out,
                                struct hg_error *err);

/* Append the text of n bytes, padded, without line breaks. */
enum hg_status hg_base64_encode(const void *data, size_t n, struct hg_buf *out);

#endif
