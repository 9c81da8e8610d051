/* tools/load/result.h - what a run has measured.
 *
 * Every time counts from when the request was due, not from when it was sent: a generator that
 * waits for a slow server must not hide the waiting (coordinated omission). Rates are counted
 * inside the window: from the end of the warm-up to the last arrival. Latencies are of requests
 * that were due inside it, whenever they ended. Slow readers and those who left are counted apart.
 */
#ifndef HG_TOOLS_LOAD_RESULT_H
#define HG_TOOLS_LOAD_RESULT_H

#include <stdint.h>
#include <stdio.h>

#include "tools/load/plan.h"
#include "tools/load/samples.h"

enum { HG_LOAD_STATUSES = 12, HG_LOAD_CODES = 16 };

struct hg_load_kind_result {
    uint64_t n_due, n_ok, n_good;         /* good: ended within the deadline */
    uint64_t tokens, good_tokens, images; /* inside the window */
    uint64_t n_ok_window, n_good_window;  /* ended inside the window */
    struct hg_samples first, gap, total;  /* ms; streams only, streams only, all */
};

struct hg_load_status_result { /* answers other than 200 */
    int status;
    uint64_t n, n_retry_after;
    struct hg_samples ms;
};

struct hg_load_code_result { /* streams that ended with an error, connections that broke */
    char code[48];
    uint64_t n;
};

struct hg_load_digest { /* of one answer */
    uint64_t number, digest;
    int status, n_tokens;
    enum hg_load_kind kind;
};

struct hg_load_result {
    struct hg_load_kind_result kind[HG_LOAD_KINDS];
    struct hg_load_status_result status[HG_LOAD_STATUSES];
    struct hg_load_code_result code[HG_LOAD_CODES];
    uint64_t n_due, n_left, n_slow; /* left: abandoned; slow: read slowly to the end */
    struct hg_samples late;         /* ms between due and sent: how late this program itself was */
    double window_s, elapsed_s, deadline_ms, first_ms;
    size_t most_open;               /* requests at a time */
    struct hg_load_digest *digests; /* [n_digests], kept when `keep_digests` */
    size_t n_digests, cap_digests;
    bool keep_digests, out_of_memory;
};

void hg_load_result_deinit(struct hg_load_result *r);
void hg_load_result_status(struct hg_load_result *r, int status, double ms, bool retry_after);
void hg_load_result_code(struct hg_load_result *r, const char *code);
void hg_load_result_digest(struct hg_load_result *r, const struct hg_load_digest *d);
uint64_t hg_load_result_errors(const struct hg_load_result *r);  /* sum of all codes */
uint64_t hg_load_result_refused(const struct hg_load_result *r); /* 429 and 503 */

void hg_load_print_table(struct hg_load_result *r, FILE *to);
void hg_load_print_json(struct hg_load_result *r, FILE *to); /* one line */
/* "number kind status tokens digest" per line, by number. */
enum hg_status hg_load_write_digests(struct hg_load_result *r, const char *path,
                                     struct hg_error *err);

#endif
