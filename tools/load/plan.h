/* tools/load/plan.h - what request number i of a load is: a pure function of (options, i).
 *
 * Two runs with the same options send the same bytes in the same order, whatever the answers are;
 * arrival times do not depend on the server either (open loop), so a slow server cannot slow down
 * the load that measures it. */
#ifndef HG_TOOLS_LOAD_PLAN_H
#define HG_TOOLS_LOAD_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/status.h"

enum hg_load_kind {
    HG_LOAD_ASK,  /* a question about a picture */
    HG_LOAD_TEXT, /* a question without one */
    HG_LOAD_DRAW, /* a picture from text */
    HG_LOAD_EDIT, /* a picture from a picture */
    HG_LOAD_KINDS
};
extern const char *const hg_load_kind_names[HG_LOAD_KINDS];

struct hg_load_mix {
    uint64_t seed;
    double rate;                 /* arrivals per second; 0: closed loop, no arrival times */
    double share[HG_LOAD_KINDS]; /* need not sum to 1 */
    int words_min, words_max;    /* of a question, between them evenly on a logarithmic scale */
    int tokens_min, tokens_max;  /* max_tokens of an answer, likewise */
    int n_pictures;              /* different ones, picked evenly */
    uint64_t n_distinct;         /* request i has the content of i % n_distinct; 0: all differ */
    double streamed;             /* share that streams */
    double sampled, temperature; /* share that is sampled at it; the others are greedy */
    double abandon, abandon_ms;  /* share of clients that leave, after this mean time */
    double slow;                 /* share that reads slowly */
    size_t n_keys;
    int timeout_ms; /* asked of the server; 0: its own */
    int previews;   /* of a streamed picture */
};

struct hg_load_item {
    enum hg_load_kind kind;
    int n_words, max_tokens, picture;
    uint64_t content;                  /* number that the words and the seed come from */
    bool stream, sampled, slow, reset; /* reset: a client that leaves does so by RST */
    int64_t leave_ns;                  /* after the arrival; -1: it stays */
    size_t key;                        /* which of the API keys; 0 without */
};

/* Seconds between arrivals i-1 and i: exponential with mean 1/rate (a Poisson process). */
double hg_load_gap_s(const struct hg_load_mix *m, uint64_t i);
void hg_load_item(const struct hg_load_mix *m, uint64_t i, struct hg_load_item *out);

/* Pictures as base64 of PNG, 64 x 64, deterministic. */
struct hg_load_pictures {
    struct hg_buf *b64; /* [n] */
    int n;
};
enum hg_status hg_load_pictures_make(int n, struct hg_load_pictures *out, struct hg_error *err);
void hg_load_pictures_free(struct hg_load_pictures *p);

struct hg_load_target {
    const char *host;        /* of the Host header */
    const char *draw_path;   /* the routes differ between versions; a question goes to /v1/vqa */
    const char *const *keys; /* [n_keys] sent as Authorization: Bearer */
};

/* Append head and body of the request. */
enum hg_status hg_load_request(const struct hg_load_mix *m, const struct hg_load_target *t,
                               const struct hg_load_pictures *p, const struct hg_load_item *item,
                               struct hg_buf *out, struct hg_error *err);

#endif
