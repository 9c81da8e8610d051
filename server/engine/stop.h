/* server/engine/stop.h - stop strings: text is let through until one of them is complete. Pure.
 *
 * What may still become a stop string is held back, so that no part of one is ever sent. A string
 * is found where it ends first; it is not part of the answer. */
#ifndef HG_SERVER_STOP_H
#define HG_SERVER_STOP_H

#include <stdbool.h>
#include <stddef.h>

#include "common/buf.h"
#include "common/status.h"

enum { HG_STOP_MAX = 4, HG_STOP_CAP = 65 }; /* strings of 1..64 bytes of UTF-8 */

struct hg_stop_strings {
    int n;
    char text[HG_STOP_MAX][HG_STOP_CAP];
};

/* Zeroed but for `strings`, which must outlive it. */
struct hg_stop {
    const struct hg_stop_strings *strings; /* NULL: none */
    char held[HG_STOP_CAP];
    size_t n_held;
};

/* Appends to out what of text[n], and of what was held, may be sent. *found: out ends where a stop
 * string begins; nothing may be pushed after that. NO_MEMORY. */
enum hg_status hg_stop_push(struct hg_stop *s, const char *text, size_t n, struct hg_buf *out,
                            bool *found);
/* The text has ended: what was held is part of it. */
enum hg_status hg_stop_finish(struct hg_stop *s, struct hg_buf *out);

#endif
