/* server/http/http_raw.h - is what libmicrohttpd read from a header all that was sent?
 *
 * Versions before 1.0 parse in place and with C strings: a NUL ends the target, a name or a value
 * and the rest is dropped, a bare LF ends a line, folded lines are joined. Another reader of the
 * same bytes (a proxy) sees other things, which is what request smuggling needs. The library keeps
 * the header in one piece from the method on, with NULs in the places of separators, and tells its
 * size: so each string it hands out must begin where the last one ended, one separator behind it, a
 * line's end being two bytes, and the last line must end where the header does.
 *
 * What cannot be told apart afterwards is NUL LF from CR LF. No reader takes a NUL and a bare LF as
 * parts of a value, so nothing can be hidden there.
 *
 * From 1.0 on the library refuses all of this by itself (strictness 1), and keeps its bytes in
 * other ways: nothing is looked at. */
#ifndef HG_SERVER_HTTP_RAW_H
#define HG_SERVER_HTTP_RAW_H

#include <microhttpd.h>
#include <stdbool.h>
#include <stddef.h>

struct hg_gate_target;

struct hg_raw_walk {
    const char *at, *end; /* where the next header line begins, where the header ends */
    bool broken, idle;    /* idle: a version that is not looked at */
};

/* The strings are the library's own. The target is as it was before decoding. */
void hg_raw_walk_begin(struct hg_raw_walk *w, struct MHD_Connection *connection, const char *method,
                       const struct hg_gate_target *target, const char *version);
/* Header lines in the order of MHD_get_connection_values. */
void hg_raw_walk_header(struct hg_raw_walk *w, const char *key, const char *value);
bool hg_raw_walk_ends(const struct hg_raw_walk *w); /* nothing is left, nothing was odd */

#endif
