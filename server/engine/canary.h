/* server/engine/canary.h - fixed requests whose results are known: does this process still compute
 * what it computed when it started, and what was stored beside the model?
 *
 * A run tries each task that the model has, in pieces (a vision pass, a chunk of a prompt, a step)
 * that an engine can do one at a time: text without plug-in, a question about a drawn picture, the
 * first tokens of a picture; the first run also renders one. Greedy, CANARY_TOKENS tokens each, as
 * probes (hg_request_input.probe): nothing of it stays in a cache, and suspect KV blocks are tried.
 *
 * The first run that is right is what later ones must equal in every bit: ids, log probabilities
 * and those of the alternatives. It is compared itself with DIR/canary.json, if there is one:
 *   {"format": 1, "weights_crc32c": N, "text": {"ids": [..], "logprobs": [..]}, "comprehension":
 *    {..}, "generation": {..}, "picture": [mean red, green, blue, 0..255]}
 * Ids must be equal, log probabilities and means to a tolerance (backends add in other orders); not
 * with quantised weights, which are other weights, or strict numerics. `healthgpt canary` prints
 * such a file.
 *
 * It sees what its requests touch: every layer, plug-in and head, not every row of a table.
 *
 * Engine thread only. */
#ifndef HG_SERVER_CANARY_H
#define HG_SERVER_CANARY_H

#include "common/buf.h"
#include "model/healthgpt.h"
#include "server/engine/watchdog.h"

enum { HG_CANARY_CASES = 3, HG_CANARY_TOKENS = 4, HG_CANARY_TOP = 5 };

struct hg_canary_case {
    bool present; /* false: the model cannot do it */
    int n;
    int32_t id[HG_CANARY_TOKENS];
    float logprob[HG_CANARY_TOKENS];
    uint32_t sum; /* CRC-32C of all that was sampled, alternatives included */
};

struct hg_canary_result {
    struct hg_canary_case cases[HG_CANARY_CASES]; /* text, comprehension, generation */
    bool has_picture;
    double mean[3]; /* of its pixels' red, green, blue */
};

/* ENGINE, and the text names case, token, what was expected and what was found. `same`: every bit.
 * `like`: ids, log probabilities to the tolerance; cases that one of them lacks are passed over. */
enum hg_status hg_canary_same(const struct hg_canary_case *want, const struct hg_canary_case *got,
                              int index, struct hg_error *err);
enum hg_status hg_canary_like(const struct hg_canary_case *want, const struct hg_canary_case *got,
                              int index, struct hg_error *err);
enum hg_status hg_canary_picture_like(const struct hg_canary_result *want,
                                      const struct hg_canary_result *got, struct hg_error *err);

struct hg_canary;

/* heart may be NULL. */
enum hg_status hg_canary_create(struct hg_model *m, struct hg_heart *heart, struct hg_canary **out,
                                struct hg_error *err);
/* Before the first run: what canary.json of the model's folder says; not having one is fine.
 * BAD_FILE: it cannot be read, or the weights have another sum. rounded: see above. */
enum hg_status hg_canary_expect(struct hg_canary *c, bool rounded, struct hg_error *err);
void hg_canary_free(struct hg_canary *c); /* NULL is fine; before the model */

/* One piece; no step may be in flight. *done: the run is complete and was right. ENGINE: it is
 * wrong. BUSY: no KV blocks or slots, try later. Others: as the model says. After a failure the run
 * is given up. */
enum hg_status hg_canary_piece(struct hg_canary *c, bool *done, struct hg_error *err);
void hg_canary_give_up(struct hg_canary *c); /* the run under way, if there is one */
/* A whole run, with a line in the log. */
enum hg_status hg_canary_run(struct hg_canary *c, struct hg_error *err);
/* The run before the first request: whole, or its text case only when `brief`. The pieces that
 * follow go on from there; the first run is complete when these have been. */
enum hg_status hg_canary_start(struct hg_canary *c, bool brief, struct hg_error *err);
/* Would a whole run keep a processor busy for seconds? By the work of the model's shapes, on
 * backends without a card: the same on a fast and on a busy machine. */
bool hg_canary_is_long(const struct hg_canary *c);
bool hg_canary_is_complete(const struct hg_canary *c); /* there has been a whole run */
/* No case could be tried (said in the log of the first run). */
bool hg_canary_is_blind(const struct hg_canary *c);

/* canary.json of the first run. */
enum hg_status hg_canary_write(const struct hg_canary *c, struct hg_buf *out);

#endif
