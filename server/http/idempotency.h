/* server/http/idempotency.h - answers kept for a while under the client's Idempotency-Key, so that
 * a request that is sent again is answered and not computed again (IETF httpapi draft
 * idempotency-key-header; the codes 409 and 422 are its).
 *
 * In memory only, bounded in number and bytes. A key belongs to a tenant; what is kept is its
 * SHA-256, the digest of what was asked, and the answer. An entry is RUNNING from begin until
 * finish (then its answer is kept for keep_ns) or abandon (then the key is as new: failures are not
 * kept). The oldest answers make room for new keys, running ones never do. Thread-safe; the clock
 * is the caller's. */
#ifndef HG_SERVER_IDEMPOTENCY_H
#define HG_SERVER_IDEMPOTENCY_H

#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/sha256.h"
#include "common/status.h"

enum { HG_IDEMPOTENCY_MAX_KEY = 255 }; /* characters */

struct hg_idempotency;

struct hg_idempotency_limits {
    size_t n_entries, n_bytes; /* keys; of all answers together */
    int64_t keep_ns;           /* an answer, from finish on */
};

enum hg_idempotency_verdict {
    HG_IDEMPOTENCY_NEW,      /* *ticket is for finish or abandon */
    HG_IDEMPOTENCY_RUNNING,  /* the same is being computed */
    HG_IDEMPOTENCY_OTHER,    /* the key was used for something else */
    HG_IDEMPOTENCY_DONE,     /* the answer was appended */
    HG_IDEMPOTENCY_FULL,     /* all places run */
    HG_IDEMPOTENCY_NO_MEMORY /* for the copy */
};

/* 256 keys, 64 MiB, 10 minutes. */
void hg_idempotency_limits_default(struct hg_idempotency_limits *l);
enum hg_status hg_idempotency_create(const struct hg_idempotency_limits *l,
                                     struct hg_idempotency **out, struct hg_error *err);
void hg_idempotency_free(struct hg_idempotency *t); /* NULL is fine */

/* `digest` is of everything that was asked. */
enum hg_idempotency_verdict hg_idempotency_begin(struct hg_idempotency *t, uint64_t tenant,
                                                 const char *key,
                                                 const uint8_t digest[HG_SHA256_BYTES],
                                                 int64_t now_ns, uint64_t *ticket,
                                                 struct hg_buf *answer);
/* The bytes are copied; an answer that finds no room or memory is not kept: the key is as new. */
void hg_idempotency_finish(struct hg_idempotency *t, uint64_t ticket, const void *answer, size_t n,
                           int64_t now_ns);
void hg_idempotency_abandon(struct hg_idempotency *t, uint64_t ticket);

struct hg_idempotency_stats {
    size_t n_running, n_done, n_bytes;
};
void hg_idempotency_stats(struct hg_idempotency *t, struct hg_idempotency_stats *out);

#endif
