/* server/ops/audit.h - who asked what kind of thing, when, of which model, and how it ended: one
 * line of JSON for each request, in a file of its own, without any text, pixel, file name or key.
 *
 * Lines form a chain: "seq" counts from 1 and "prev" is the SHA-256 of the line before (its bytes
 * without the newline), over restarts and rotated files. What a chain alone cannot show (lines cut
 * off at the end; all of it written anew) shows against the places that the daemon notes in its
 * own log ("seq 17, hash ..."), and, with a key file, by the "mac" of every line.
 * Inputs and outputs are there as HMAC-SHA-256 under the key: equal ones can be found, guesses not
 * be tried without it. Formats: docs/audit.md.
 *
 * A thread of its own writes, from a ring that was reserved: a disk that is stuck stops neither
 * engine nor HTTP threads. When lines cannot be written requests go on and lines may be lost, which
 * is counted, told in the log and said in a later line ("open"); or new requests are refused until
 * it works again, and no accepted one is without its line ("closed"). Thread-safe. */
#ifndef HG_SERVER_AUDIT_H
#define HG_SERVER_AUDIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/image_io.h"
#include "common/sha256.h"
#include "common/status.h"
#include "model/healthgpt.h"
#include "server/engine/tenant.h"

enum {
    HG_AUDIT_SUBJECT_CAP = 65,
    HG_AUDIT_ID_CAP = 65,
    HG_AUDIT_MAX_IMAGES = 4,
    HG_AUDIT_MAX_OUTPUTS = 4
};

struct hg_audit;

struct hg_audit_options {
    const char *path;     /* a file, appended to and made with mode 0600, or a named pipe */
    const char *key_file; /* 32 bytes or more; "": a random key for this process */
    bool fail_closed;
    int n_lines; /* that may wait; 0: 4096 */
};

/* Begins with a line "start". BAD_REQUEST: the key file. BAD_FILE: the file does not end in a
 * chain. BUSY: another process writes to it. IO: it cannot be opened; one that cannot be written is
 * no error here. */
enum hg_status hg_audit_open(const struct hg_audit_options *o, struct hg_audit **out,
                             struct hg_error *err);
/* A last line, and up to 2 s to write what waits. NULL is fine, here and below. */
void hg_audit_close(struct hg_audit *a);
/* The file was moved away: go on in a new one, which takes up the chain. Done by the writer. */
void hg_audit_reopen(struct hg_audit *a);
/* Known once it is loaded: a line "model". */
void hg_audit_model(struct hg_audit *a, const struct hg_model_info *info);
/* Whether the key file can be used; for --check-config. */
enum hg_status hg_audit_check_key(const char *path, struct hg_error *err);

/* Of this process: new requests are refused now. No lock. */
bool hg_audit_blocks(void);

struct hg_audit_stats {
    uint64_t n_lines, n_lost, n_refused; /* of requests; n_lines: given to the file */
    bool failing;
};
void hg_audit_stats(struct hg_audit *a, struct hg_audit_stats *out);

/* ---- a request ------------------------------------------------------------------------------- */

/* What was put in; zeroed: unknown. */
struct hg_audit_input {
    bool has_text;
    uint8_t text[HG_SHA256_BYTES];
    size_t n_images;
    struct {
        int width, height;
        uint8_t mac[HG_SHA256_BYTES];
    } images[HG_AUDIT_MAX_IMAGES];
};

/* Fingerprints. Texts are several pieces, each with its length before it, so that no two inputs run
 * into each other; begin, add, ..., end. Pixels: of what was decoded, so that the same picture is
 * the same however it was packed, as input and as output. */
void hg_audit_text_begin(const struct hg_audit *a, struct hg_hmac *h);
void hg_audit_text_add(struct hg_hmac *h, const char *s, size_t n);
void hg_audit_text_end(struct hg_hmac *h, uint8_t out[HG_SHA256_BYTES]);
void hg_audit_pixels(const struct hg_audit *a, const struct hg_image *im,
                     uint8_t out[HG_SHA256_BYTES]);

enum hg_audit_outcome { HG_AUDIT_DONE, HG_AUDIT_FAILED, HG_AUDIT_CANCELLED };

struct hg_audit_record {
    char id[HG_AUDIT_ID_CAP];           /* of the request */
    char key[HG_TENANT_NAME_CAP];       /* name of the API key, "" without */
    char subject[HG_AUDIT_SUBJECT_CAP]; /* opaque, from the client; "" without */
    const char *route;                  /* a string that stays; NULL: none of ours */
    enum hg_task task;                  /* HG_TASK_COUNT: none */
    bool no_plugin;
    enum hg_audit_outcome outcome;
    char code[48];  /* of an error */
    int http;       /* status, 0: no answer had begun */
    bool delivered; /* the client has taken the whole answer */
    bool replayed;  /* an answer of before, kept for its Idempotency-Key: nothing was computed */
    int n_prompt, n_generated;
    struct hg_audit_input input;
    size_t n_outputs; /* of an answer with several choices as many */
    uint8_t outputs[HG_AUDIT_MAX_OUTPUTS][HG_SHA256_BYTES];
};

/* [A-Za-z0-9._-]{1,64} */
bool hg_audit_subject_is_good(const char *s);

/* Before a request is looked at: reserves the place of its line. false: it must be refused (503
 * audit_unavailable), and has no line. */
bool hg_audit_begin(struct hg_audit *a);
/* Once for each that has begun. */
void hg_audit_end(struct hg_audit *a, const struct hg_audit_record *r);

/* ---- checking -------------------------------------------------------------------------------- */

struct hg_audit_check {
    /* wanted: */
    uint8_t key[HG_SHA256_BYTES]; /* hg_audit_check_use_key */
    bool has_key;
    uint64_t anchor_seq; /* 0: none. This line must be there with this hash */
    uint8_t anchor[HG_SHA256_BYTES];
    /* found, so far: */
    uint64_t n_lines, n_torn, n_chains, first_seq, last_seq;
    uint8_t last[HG_SHA256_BYTES];      /* hash of the last line */
    bool begun, torn, cut, anchor_seen; /* cut: the file before ends within a line */
};

enum hg_status hg_audit_check_use_key(struct hg_audit_check *c, const char *path,
                                      struct hg_error *err);
/* One file after the other, oldest first, with the same zeroed struct. BAD_FILE names the first
 * line that is wrong, and why. */
enum hg_status hg_audit_check_file(struct hg_audit_check *c, const char *path,
                                   struct hg_error *err);
enum hg_status hg_audit_check_end(const struct hg_audit_check *c, struct hg_error *err);

#endif
