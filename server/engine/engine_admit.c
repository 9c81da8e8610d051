/* server/engine/engine_admit.c - from the queue to a slot, and who gives way for it.
 *
 * Whose turn it is, is the policy's to say (server/engine/policy.h); whether there is a place and
 * KV blocks is looked at here. A request that does not fit leaves everybody behind it waiting, so
 * that a large one is not passed for ever. Blocks are there when what the running ones are expected
 * to take still fits beside them.
 *
 * A question that does not fit makes the youngest picture give way, within the policy's limits. The
 * picture keeps its slot, owns nothing, and is computed again to the same bits; it goes on before
 * any other picture begins. Questions that gave way to older ones go on before anybody begins. */
#include "server/engine/engine.h"

static struct hg_request *request_of(struct hg_job *job)
{
    return HG_LIST_ENTRY(job, struct hg_request, job);
}

static bool is_bulk(const struct hg_request *r)
{
    return r->job.cls == HG_CLASS_BULK;
}

static bool has_given_way(const struct hg_slot *slot)
{
    return slot->seq && hg_seq_preempted(slot->seq);
}

static int n_running(const struct hg_scheduler *s)
{
    int n = 0;
    for (int i = 0; i < s->n_slots; i++)
        n += !has_given_way(&s->slots[i]);
    return n;
}

/* *parked: the slot of the oldest picture that has given way, or -1. */
static struct hg_policy_bulk bulk_of(const struct hg_scheduler *s, int *parked)
{
    struct hg_policy_bulk b = {0};
    *parked = -1;
    for (int i = 0; i < s->n_slots; i++) {
        if (!is_bulk(s->slots[i].req))
            continue;
        b.n_held++;
        b.n_running += !has_given_way(&s->slots[i]);
        if (*parked < 0 && has_given_way(&s->slots[i])) {
            *parked = i;
            b.parked = hg_seq_n_left(s->slots[i].seq) + 1;
        }
    }
    return b;
}

/* ---- blocks ---------------------------------------------------------------------------------- */

/* Blocks that n_tokens more of a request are expected to take. */
static int blocks_to_come(const struct hg_request *r, int n_tokens)
{
    int n = is_bulk(r) || n_tokens < HG_EXPECTED_ANSWER ? n_tokens : HG_EXPECTED_ANSWER;
    return n / HG_BLOCK_TOKENS + 1;
}

/* Blocks that a sequence owns or, having given way, will own again. */
static int blocks_of(const struct hg_slot *slot)
{
    return (slot->req->n_prompt + (int)hg_seq_n_generated(slot->seq)) / HG_BLOCK_TOKENS;
}

/* Whether n_blocks are free beside what the running ones are expected to take. */
static bool there_is_room(const struct hg_scheduler *s, int n_blocks)
{
    int need = n_blocks;
    for (int i = 0; i < s->n_slots; i++)
        if (s->slots[i].seq && !has_given_way(&s->slots[i]))
            need += blocks_to_come(s->slots[i].req, hg_seq_n_left(s->slots[i].seq));
    return n_running(s) == 0 || need <= hg_model_kv_free(s->model);
}

static int blocks_for(const struct hg_request *r)
{
    return r->n_prompt / HG_BLOCK_TOKENS + blocks_to_come(r, r->max_tokens);
}

/* ---- those that gave way --------------------------------------------------------------------- */

/* False while it has to wait. What fails leaves its slot. */
static bool resume(struct hg_scheduler *s, int i)
{
    struct hg_error err = {0};
    enum hg_status status = hg_seq_resume(s->slots[i].seq, &err);
    if (status != HG_STATUS_OK && status != HG_STATUS_BUSY)
        hg_slot_fail(s, i, &err);
    return status != HG_STATUS_BUSY;
}

/* The oldest question that has given way; -1: none. */
static int parked_question(const struct hg_scheduler *s)
{
    for (int i = 0; i < s->n_slots; i++)
        if (has_given_way(&s->slots[i]) && !is_bulk(s->slots[i].req))
            return i;
    return -1;
}

static bool unpark(struct hg_scheduler *s, int i)
{
    const struct hg_slot *slot = &s->slots[i];
    int blocks = blocks_of(slot) + blocks_to_come(slot->req, hg_seq_n_left(slot->seq));
    if (n_running(s) >= s->options.max_batch || !there_is_room(s, blocks) || !resume(s, i))
        return false;
    hg_queue_resumed(&s->queue);
    return true;
}

/* Whether a question fits when all pictures that may give way have done so. */
static bool giving_way_helps(const struct hg_scheduler *s, const struct hg_request *r)
{
    int64_t blocks = hg_model_kv_free(s->model);
    for (int i = 0; i < s->n_slots; i++)
        if (!s->places[i].parked && s->places[i].cls == HG_CLASS_BULK &&
            s->places[i].n_yields < HG_POLICY_MAX_YIELDS)
            blocks += blocks_of(&s->slots[i]);
    return blocks >= blocks_for(r);
}

/* For a question that finds no place or no blocks; true: somebody gave way, look again. With steps
 * in flight nobody can: then no more are begun until they have ended. */
static bool make_way(struct hg_scheduler *s, const struct hg_request *r)
{
    struct hg_error err = {0};
    if (is_bulk(r))
        return false;
    for (int i = 0; i < s->n_slots; i++)
        s->places[i] = (struct hg_policy_place){
            .cls = s->slots[i].req->job.cls,
            .parked = !s->slots[i].seq || has_given_way(&s->slots[i]),
            .n_yields = s->slots[i].n_yields,
        };
    int victim = hg_policy_victim(s->places, s->n_slots, s->options.max_batch);
    if (victim < 0 || !giving_way_helps(s, r))
        return false;
    if (hg_model_steps_in_flight(s->model) > 0) {
        s->hold_steps = true;
        return false;
    }
    if (hg_seq_preempt(s->slots[victim].seq, &err) != HG_STATUS_OK)
        return false;
    s->slots[victim].n_yields++;
    atomic_fetch_add(&s->n_preempted, 1);
    return true;
}

/* ---- those that wait ------------------------------------------------------------------------- */

/* False while it has to wait. */
static bool begin(struct hg_scheduler *s, struct hg_request *r)
{
    struct hg_error err = {0};
    struct hg_seq *seq = NULL;
    bool alone = n_running(s) == 0;
    if (n_running(s) >= s->options.max_batch || !there_is_room(s, blocks_for(r)))
        return make_way(s, r);
    enum hg_status status = hg_seq_create(s->model, r->prepared, &seq, &err);
    if (status == HG_STATUS_BUSY && (!alone || hg_engine_want_quarantine(s)))
        return make_way(s, r); /* blocks also come back when a neighbour ends, or from the canary */
    hg_queue_take(&s->queue, &r->job);
    if (status == HG_STATUS_OK) {
        hg_slot_open(s, r, seq);
        return true;
    }
    if (status == HG_STATUS_BUSY) /* on an empty machine: it can never fit */
        err.status = HG_STATUS_TOO_LARGE;
    r->result.error = err;
    hg_engine_end(s, r);
    return true;
}

void hg_engine_admit(struct hg_scheduler *s)
{
    int i;
    s->hold_steps = false;
    while ((i = parked_question(s)) >= 0)
        if (n_running(s) >= s->options.max_batch || !resume(s, i))
            return;
    for (bool more = true; more;) {
        struct hg_policy_bulk bulk = bulk_of(s, &i);
        struct hg_policy_turn turn = hg_queue_next(&s->queue, &bulk);
        more = turn.parked ? unpark(s, i) : turn.job && begin(s, request_of(turn.job));
    }
}
