/* server/http/rate.h - token buckets: so much per minute, and a burst after a rest.
 *
 * A bucket holds up to `burst` and is filled at an even rate; who takes more than is there has to
 * wait. A level may be taken below zero by what is known only afterwards, and then keeps its owner
 * waiting for longer. The clock is the caller's, so that tests run in virtual time. Thread-safe. */
#ifndef HG_SERVER_RATE_H
#define HG_SERVER_RATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/status.h"

struct hg_rate {
    double per_minute; /* above 0 */
    double burst;      /* above 0 */
};

/* What is left, and how long until something. */
struct hg_rate_state {
    double level, wait_s, full_s; /* wait_s: until `need` is there; full_s: until it is full */
};

/* Buckets by a number. A new one is full. Of more than `cap` the one that was not used for longest
 * is forgotten. */
struct hg_buckets;
enum hg_status hg_buckets_create(size_t cap, struct hg_buckets **out, struct hg_error *err);
void hg_buckets_free(struct hg_buckets *b); /* NULL is fine */

/* If `need` is there, take `n` (below 0: give back); false: nothing was taken. A rate that has
 * changed holds from now on. now_ns never goes back by more than threads differ. out may be NULL.
 */
bool hg_buckets_take(struct hg_buckets *b, uint64_t id, const struct hg_rate *rate, double need,
                     double n, int64_t now_ns, struct hg_rate_state *out);

/* "7.66s", "120ms", "6m0s": as OpenAI's x-ratelimit-reset-* headers say it. */
void hg_rate_duration(double s, char out[24]);

#endif
