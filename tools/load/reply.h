/* tools/load/reply.h - what an answer says: lines of a stream, or one document.
 *
 * Lines are recognised by their first member ({"type":"token",...), which the server writes first,
 * so that a load of many tokens costs little; only the last line and documents are parsed. The
 * digest covers what must be equal in every run of the same request: token lines (id, logprob,
 * text), text, the PNG, the reason of the end; no times, no ids of requests. */
#ifndef HG_TOOLS_LOAD_REPLY_H
#define HG_TOOLS_LOAD_REPLY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/siphash.h"
#include "common/status.h"

enum hg_load_event {
    HG_LOAD_EVENT_OTHER, /* queued, prefill, ... */
    HG_LOAD_EVENT_TOKEN, /* a token of text or of a picture */
    HG_LOAD_EVENT_IMAGE,
    HG_LOAD_EVENT_PREVIEW,
    HG_LOAD_EVENT_DONE,
    HG_LOAD_EVENT_ERROR
};

struct hg_load_reply {
    int n_tokens; /* seen; at the end what the answer says */
    int n_images, n_previews;
    bool done;     /* complete, as it should be */
    char code[48]; /* of an error; "" without */
    struct hg_siphash digest;
};

void hg_load_reply_init(struct hg_load_reply *r);
/* One line without its LF. BAD_FILE: it is not what the server documents. */
enum hg_status hg_load_reply_line(struct hg_load_reply *r, const char *line, size_t n,
                                  enum hg_load_event *event, struct hg_error *err);
/* A whole answer that was not streamed, or the body of an error. */
enum hg_status hg_load_reply_document(struct hg_load_reply *r, const char *body, size_t n,
                                      struct hg_error *err);
uint64_t hg_load_reply_digest(struct hg_load_reply *r); /* once, at the end */

#endif
