/* server/http/rate.c - a table of levels; searched in order, because there are few and they are
 * read with requests, not with tokens. */
#include "server/http/rate.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

struct bucket {
    double level;
    int64_t at_ns; /* of which the level is */
};

struct hg_buckets {
    pthread_mutex_t lock;
    size_t n, cap;
    uint64_t *ids;          /* [cap] */
    struct bucket *buckets; /* [cap] */
};

enum hg_status hg_buckets_create(size_t cap, struct hg_buckets **out, struct hg_error *err)
{
    *out = NULL;
    struct hg_buckets *b = calloc(1, sizeof *b);
    uint64_t *ids = calloc(cap, sizeof *ids);
    struct bucket *buckets = calloc(cap, sizeof *buckets);
    if (!b || !ids || !buckets) {
        free(b);
        free(ids);
        free(buckets);
        return hg_fail(err, HG_STATUS_NO_MEMORY, "rates: out of memory");
    }
    pthread_mutex_init(&b->lock, NULL);
    b->cap = cap;
    b->ids = ids;
    b->buckets = buckets;
    *out = b;
    return HG_STATUS_OK;
}

void hg_buckets_free(struct hg_buckets *b)
{
    if (!b)
        return;
    pthread_mutex_destroy(&b->lock);
    free(b->ids);
    free(b->buckets);
    free(b);
}

static struct bucket *find(struct hg_buckets *b, uint64_t id, const struct hg_rate *rate,
                           int64_t now_ns)
{
    size_t at = 0;
    while (at < b->n && b->ids[at] != id)
        at++;
    if (at < b->n)
        return &b->buckets[at];
    if (b->n < b->cap) {
        b->n++;
    } else {
        at = 0;
        for (size_t i = 1; i < b->n; i++)
            if (b->buckets[i].at_ns < b->buckets[at].at_ns)
                at = i;
    }
    b->ids[at] = id;
    b->buckets[at] = (struct bucket){.level = rate->burst, .at_ns = now_ns};
    return &b->buckets[at];
}

bool hg_buckets_take(struct hg_buckets *b, uint64_t id, const struct hg_rate *rate, double need,
                     double n, int64_t now_ns, struct hg_rate_state *out)
{
    double per_s = rate->per_minute / 60;
    pthread_mutex_lock(&b->lock);
    struct bucket *k = find(b, id, rate, now_ns);
    if (now_ns > k->at_ns) {
        k->level += (double)(now_ns - k->at_ns) / 1e9 * per_s;
        k->at_ns = now_ns;
    }
    k->level = fmin(k->level, rate->burst);
    /* What a rounding lacks of a whole one is there. */
    bool good = k->level + 1e-9 >= need;
    if (good)
        k->level = fmin(k->level - n, rate->burst);
    if (out)
        *out = (struct hg_rate_state){.level = k->level,
                                      .wait_s = fmax(need - k->level, 0) / per_s,
                                      .full_s = (rate->burst - k->level) / per_s};
    pthread_mutex_unlock(&b->lock);
    return good;
}

void hg_rate_duration(double s, char out[24])
{
    if (!(s > 0))
        snprintf(out, 24, "0s");
    else if (s < 1)
        snprintf(out, 24, "%dms", (int)ceil(s * 1000));
    else if (s < 60)
        snprintf(out, 24, "%.2fs", s);
    else
        snprintf(out, 24, "%.0fm%ds", floor(fmin(ceil(s), 1e9) / 60),
                 (int)fmod(fmin(ceil(s), 1e9), 60));
}
