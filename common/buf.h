/* common/buf.h - growable byte buffer, owned by its user, NUL-terminated for convenience.
 * After a failed append the buffer is unchanged. A zeroed struct is a valid empty buffer. */
#ifndef HG_COMMON_BUF_H
#define HG_COMMON_BUF_H

#include <stddef.h>

#include "common/status.h"

struct hg_buf {
    char *data; /* len bytes, then a NUL; NULL while empty */
    size_t len;
    size_t cap;
};

void hg_buf_deinit(struct hg_buf *b);
void hg_buf_clear(struct hg_buf *b); /* keeps the memory */
/* Make room for n more bytes (and the NUL) without changing len: appends of up to n cannot fail. */
enum hg_status hg_buf_reserve(struct hg_buf *b, size_t n);
/* `data` and `s` must not point into the buffer itself. */
enum hg_status hg_buf_append(struct hg_buf *b, const void *data, size_t n);
enum hg_status hg_buf_append_str(struct hg_buf *b, const char *s);
enum hg_status hg_buf_printf(struct hg_buf *b, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#endif
