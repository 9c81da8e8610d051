/* server/ops/audit_chain.h - the lines of an audit log and their order (inside server/ops/audit*.c
 * only).
 */
#ifndef HG_SERVER_AUDIT_CHAIN_H
#define HG_SERVER_AUDIT_CHAIN_H

#include <stdio.h>

#include "common/buf.h"
#include "server/ops/audit.h"

enum { HG_AUDIT_MIN_KEY = 32, HG_AUDIT_MAX_KEY = 4096, HG_AUDIT_LINE_CAP = 4096 };

/* Where a chain is. The key is the SHA-256 of the key file. */
struct hg_audit_chain {
    uint64_t seq; /* of the last line, 0: none */
    uint8_t last[HG_SHA256_BYTES];
    bool torn; /* the last line was cut off; the next one says so */
    uint8_t key[HG_SHA256_BYTES];
    bool has_key_file;
};

struct hg_audit_facts { /* of the model, "" until it is loaded */
    char model[64];
    uint32_t weights_crc32c;
};

enum hg_audit_event { HG_AUDIT_START, HG_AUDIT_MODEL, HG_AUDIT_ROTATE, HG_AUDIT_STOP };

/* Append the next line with its newline to `out` and step the chain. lost: lines before it that
 * could not be written. NO_MEMORY: nothing has changed. */
enum hg_status hg_audit_put_event(struct hg_audit_chain *c, enum hg_audit_event e,
                                  const struct hg_audit_facts *f, uint64_t lost,
                                  struct hg_buf *out);
enum hg_status hg_audit_put_request(struct hg_audit_chain *c, const struct hg_audit_record *r,
                                    int64_t wall_ms, const struct hg_audit_facts *f, uint64_t lost,
                                    struct hg_buf *out);

enum hg_status hg_audit_read_key(const char *path, uint8_t key[HG_SHA256_BYTES],
                                 struct hg_error *err);

/* A line taken apart, without its newline. */
struct hg_audit_line {
    uint64_t seq;
    uint8_t prev[HG_SHA256_BYTES];
    bool torn, is_rotate;
};
bool hg_audit_parse(const char *s, size_t n,
                    struct hg_audit_line *out); /* false: not one of ours */
/* Its "mac" is that of the key, and stands where it must. */
bool hg_audit_mac_is_right(const char *s, size_t n, const uint8_t key[HG_SHA256_BYTES]);

/* Where the chain of an open file ends. A piece of a line at the end counts as a line (torn). */
enum hg_status hg_audit_find_end(int fd, const char *path, struct hg_audit_chain *c,
                                 struct hg_error *err);

int64_t hg_audit_wall_ms(void);

#endif
