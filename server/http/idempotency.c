/* server/http/idempotency.c - a table of a few hundred places, looked through from end to end. */
#include "server/http/idempotency.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum state { FREE, RUNNING, DONE };

struct entry {
    enum state state;
    uint8_t name[HG_SHA256_BYTES], digest[HG_SHA256_BYTES]; /* of tenant and key; of the question */
    uint64_t ticket;
    int64_t done_ns;
    char *answer; /* [n] */
    size_t n;
};

struct hg_idempotency {
    pthread_mutex_t lock;
    struct hg_idempotency_limits limits;
    uint64_t n_tickets;
    size_t n_bytes;
    struct entry entries[];
};

void hg_idempotency_limits_default(struct hg_idempotency_limits *l)
{
    *l = (struct hg_idempotency_limits){
        .n_entries = 256, .n_bytes = 64 << 20, .keep_ns = 600 * (int64_t)1000000000};
}

enum hg_status hg_idempotency_create(const struct hg_idempotency_limits *l,
                                     struct hg_idempotency **out, struct hg_error *err)
{
    struct hg_idempotency *t = calloc(1, sizeof *t + l->n_entries * sizeof t->entries[0]);
    *out = t;
    if (!t)
        return hg_fail(err, HG_STATUS_NO_MEMORY, "idempotency: out of memory");
    t->limits = *l;
    pthread_mutex_init(&t->lock, NULL);
    return HG_STATUS_OK;
}

/* Answers are about patients: zeroed. */
static void empty(struct hg_idempotency *t, struct entry *e)
{
    if (e->answer)
        explicit_bzero(e->answer, e->n);
    free(e->answer);
    t->n_bytes -= e->n;
    *e = (struct entry){.state = FREE};
}

void hg_idempotency_free(struct hg_idempotency *t)
{
    if (!t)
        return;
    for (size_t i = 0; i < t->limits.n_entries; i++)
        empty(t, &t->entries[i]);
    pthread_mutex_destroy(&t->lock);
    free(t);
}

static struct entry *oldest_answer(struct hg_idempotency *t)
{
    struct entry *oldest = NULL;
    for (size_t i = 0; i < t->limits.n_entries; i++) {
        struct entry *e = &t->entries[i];
        if (e->state == DONE && (!oldest || e->done_ns < oldest->done_ns))
            oldest = e;
    }
    return oldest;
}

/* The entry of this name; else NULL, and *place for a new one or NULL. What is too old is emptied
 * on the way. */
static struct entry *find(struct hg_idempotency *t, const uint8_t name[HG_SHA256_BYTES],
                          int64_t now_ns, struct entry **place)
{
    struct entry *found = NULL;
    *place = NULL;
    for (size_t i = 0; i < t->limits.n_entries; i++) {
        struct entry *e = &t->entries[i];
        if (e->state == DONE && now_ns - e->done_ns >= t->limits.keep_ns)
            empty(t, e);
        if (e->state == FREE)
            *place = *place ? *place : e;
        else if (memcmp(e->name, name, HG_SHA256_BYTES) == 0)
            found = e;
    }
    if (found || *place)
        return found;
    *place = oldest_answer(t);
    if (*place)
        empty(t, *place);
    return NULL;
}

static enum hg_idempotency_verdict judge(const struct entry *e, const uint8_t *digest,
                                         struct hg_buf *answer)
{
    if (memcmp(e->digest, digest, HG_SHA256_BYTES) != 0)
        return HG_IDEMPOTENCY_OTHER;
    if (e->state == RUNNING)
        return HG_IDEMPOTENCY_RUNNING;
    return hg_buf_append(answer, e->answer, e->n) == HG_STATUS_OK ? HG_IDEMPOTENCY_DONE
                                                                  : HG_IDEMPOTENCY_NO_MEMORY;
}

enum hg_idempotency_verdict hg_idempotency_begin(struct hg_idempotency *t, uint64_t tenant,
                                                 const char *key,
                                                 const uint8_t digest[HG_SHA256_BYTES],
                                                 int64_t now_ns, uint64_t *ticket,
                                                 struct hg_buf *answer)
{
    struct hg_sha256 s;
    uint8_t name[HG_SHA256_BYTES];
    struct entry *place;
    enum hg_idempotency_verdict verdict = HG_IDEMPOTENCY_FULL;
    hg_sha256_init(&s);
    hg_sha256_update(&s, &tenant, sizeof tenant);
    hg_sha256_update(&s, key, strlen(key));
    hg_sha256_final(&s, name);
    pthread_mutex_lock(&t->lock);
    const struct entry *e = find(t, name, now_ns, &place);
    if (e) {
        verdict = judge(e, digest, answer);
    } else if (place) {
        place->state = RUNNING;
        memcpy(place->name, name, sizeof place->name);
        memcpy(place->digest, digest, sizeof place->digest);
        *ticket = place->ticket = ++t->n_tickets;
        verdict = HG_IDEMPOTENCY_NEW;
    }
    pthread_mutex_unlock(&t->lock);
    return verdict;
}

static struct entry *of_ticket(struct hg_idempotency *t, uint64_t ticket)
{
    for (size_t i = 0; i < t->limits.n_entries; i++)
        if (t->entries[i].state == RUNNING && t->entries[i].ticket == ticket)
            return &t->entries[i];
    return NULL;
}

void hg_idempotency_finish(struct hg_idempotency *t, uint64_t ticket, const void *answer, size_t n,
                           int64_t now_ns)
{
    pthread_mutex_lock(&t->lock);
    struct entry *e = of_ticket(t, ticket), *old;
    while (e && n <= t->limits.n_bytes && n > t->limits.n_bytes - t->n_bytes &&
           (old = oldest_answer(t)))
        empty(t, old);
    char *copy = e && n <= t->limits.n_bytes - t->n_bytes ? malloc(n ? n : 1) : NULL;
    if (e && !copy)
        empty(t, e);
    if (copy) {
        if (n)
            memcpy(copy, answer, n);
        e->state = DONE;
        e->done_ns = now_ns;
        e->answer = copy;
        e->n = n;
        t->n_bytes += n;
    }
    pthread_mutex_unlock(&t->lock);
}

void hg_idempotency_abandon(struct hg_idempotency *t, uint64_t ticket)
{
    pthread_mutex_lock(&t->lock);
    struct entry *e = of_ticket(t, ticket);
    if (e)
        empty(t, e);
    pthread_mutex_unlock(&t->lock);
}

void hg_idempotency_stats(struct hg_idempotency *t, struct hg_idempotency_stats *out)
{
    *out = (struct hg_idempotency_stats){0};
    pthread_mutex_lock(&t->lock);
    for (size_t i = 0; i < t->limits.n_entries; i++) {
        out->n_running += t->entries[i].state == RUNNING;
        out->n_done += t->entries[i].state == DONE;
    }
    out->n_bytes = t->n_bytes;
    pthread_mutex_unlock(&t->lock);
}
