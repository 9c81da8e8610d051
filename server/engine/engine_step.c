/* server/engine/engine_step.c - steps of the engine thread: room for them, what is in them, who
 * gets what.
 */
#include <string.h>

#include "common/log.h"
#include "server/engine/engine.h"
#include "server/ops/metrics.h"

static bool in_step(const struct hg_slot *slot)
{
    return slot->seq && !hg_seq_preempted(slot->seq) && !hg_seq_wants_vision(slot->seq);
}

/* Every sequence that could be in a step draws: its tokens need not be known to go on. */
static bool all_run_ahead(const struct hg_scheduler *s)
{
    for (int i = 0; i < s->n_slots; i++) {
        const struct hg_slot *slot = &s->slots[i];
        if (in_step(slot) && (hg_seq_n_waiting(slot->seq) > 0 || !hg_seq_runs_ahead(slot->seq)))
            return false;
    }
    return true;
}

/* The youngest of slots [from, n) that owns blocks, or -1; a picture, if slot `from` is none. */
static int youngest(const struct hg_scheduler *s, int from)
{
    int found = -1;
    bool asks = s->slots[from].req->job.cls == HG_CLASS_INTERACTIVE;
    for (int i = s->n_slots - 1; i >= from; i--) {
        if (!s->slots[i].seq || hg_seq_preempted(s->slots[i].seq))
            continue;
        if (!asks || s->slots[i].req->job.cls == HG_CLASS_BULK)
            return i;
        found = found < 0 ? i : found;
    }
    return found;
}

/* Blocks for n_tokens more of slot i, taken from younger ones if need be; else it gives way itself.
 * Nobody can give way while steps are in flight: then false, and they have to end first. */
static bool make_room(struct hg_scheduler *s, int i, int n_tokens)
{
    struct hg_error err = {0};
    while (hg_seq_reserve(s->slots[i].seq, n_tokens, &err) == HG_STATUS_BUSY) {
        int victim = youngest(s, i);
        if (hg_model_steps_in_flight(s->model) > 0 ||
            hg_seq_preempt(s->slots[victim].seq, &err) != HG_STATUS_OK)
            return false;
        atomic_fetch_add(&s->n_preempted, 1);
        if (victim == i)
            break;
    }
    return true;
}

/* For the next step of everyone, the oldest first. */
static bool make_room_for_all(struct hg_scheduler *s)
{
    for (int i = 0; i < s->n_slots; i++) {
        struct hg_seq *seq = s->slots[i].seq;
        if (!in_step(&s->slots[i]) || hg_seq_n_left(seq) == 0 || hg_seq_n_waiting(seq) > 0)
            continue; /* what waits was reserved by create or resume */
        if (!make_room(s, i, 1))
            return false;
    }
    return true;
}

/* Fill items[]; returns their number. */
static int plan_step(struct hg_scheduler *s)
{
    int n = 0, budget = s->info.max_batch_tokens;
    memset(s->n_items_of, 0, sizeof s->n_items_of);
    for (int i = 0; i < s->n_slots && budget > 0; i++) {
        struct hg_seq *seq = s->slots[i].seq;
        if (!in_step(&s->slots[i]) || hg_seq_n_waiting(seq) > 0 || hg_seq_n_left(seq) == 0)
            continue;
        s->items[n++] = (struct hg_step_item){seq, 1};
        s->n_items_of[s->slots[i].req->task]++;
        budget--;
    }
    if (n > 0 && budget > HG_SHARED_PREFILL)
        budget = HG_SHARED_PREFILL;
    for (int i = 0; i < s->n_slots && budget > 0; i++) {
        int waiting = in_step(&s->slots[i]) ? hg_seq_n_waiting(s->slots[i].seq) : 0;
        if (waiting == 0)
            continue;
        int take = waiting < budget ? waiting : budget;
        s->items[n++] = (struct hg_step_item){s->slots[i].seq, take};
        s->n_items_of[s->slots[i].req->task]++;
        budget -= take;
    }
    return n;
}

/* The token of a sequence among the n of a step, or NULL. */
static const struct hg_token *token_of(const struct hg_scheduler *s, size_t n,
                                       const struct hg_seq *seq)
{
    for (size_t k = 0; k < n && seq; k++)
        if (s->tokens[k].seq == seq)
            return &s->tokens[k];
    return NULL;
}

/* Backwards, because a slot that closes moves the later ones. */
static void deliver(struct hg_scheduler *s, size_t n)
{
    for (int i = s->n_slots - 1; i >= 0; i--) {
        const struct hg_token *t = token_of(s, n, s->slots[i].seq);
        struct hg_error err = {0};
        if (!t)
            continue;                                             /* not in this step */
        bool sampled = t->id >= 0 || t->finish != HG_FINISH_NONE; /* its prompt is complete */
        enum hg_status status = hg_slot_prefill(&s->slots[i], &err);
        if (status == HG_STATUS_OK && sampled)
            status = hg_slot_deliver(s, &s->slots[i], t, &err);
        if (status != HG_STATUS_OK)
            hg_slot_fail(s, i, &err);
        else if (sampled && s->slots[i].req->result.finish != HG_FINISH_NONE && s->slots[i].seq)
            hg_slot_close(s,
                          i); /* an image's slot stays: it has no sequence but is to be rendered */
    }
}

static bool is_item(const struct hg_scheduler *s, int n, const struct hg_seq *seq)
{
    for (int k = 0; k < n; k++)
        if (s->items[k].seq == seq)
            return true;
    return false;
}

/* Of the n items that could not be begun; n < 0: of all steps in flight, so of every sequence. */
static void fail_step(struct hg_scheduler *s, int n, const struct hg_error *err)
{
    hg_log(HG_LOG_ERROR, "a step failed: %s", err->text);
    for (int i = s->n_slots - 1; i >= 0; i--)
        if (n < 0 ? in_step(&s->slots[i]) : is_item(s, n, s->slots[i].seq))
            hg_slot_fail(s, i, err);
}

/* Begin a step, and while all sequences run ahead as many as may be in flight. */
static void begin_steps(struct hg_scheduler *s)
{
    bool ahead = true;
    if ((s->hold_steps || s->canary.forced) && hg_model_steps_in_flight(s->model) > 0)
        return;
    while (ahead && hg_model_steps_in_flight(s->model) < HG_STEPS_AHEAD) {
        struct hg_error err = {0};
        ahead = all_run_ahead(s);
        if (!ahead && hg_model_steps_in_flight(s->model) > 0)
            return; /* the tokens in flight first */
        if (!make_room_for_all(s))
            return;
        int n = plan_step(s);
        if (n == 0)
            return;
        atomic_fetch_add(&s->n_steps, 1);
        atomic_fetch_add(&s->n_ahead, hg_model_steps_in_flight(s->model) > 0);
        int64_t before = s->n_worked;
        for (int k = 0; k < n; k++)
            s->n_worked += s->items[k].n_tokens;
        hg_metrics_step(s->n_items_of, s->n_worked - before);
        if (hg_model_step_begin(s->model, s->items, (size_t)n, &err) != HG_STATUS_OK)
            fail_step(s, n, &err);
    }
}

void hg_engine_step(struct hg_scheduler *s)
{
    struct hg_error err = {0};
    size_t n = 0;
    hg_heart_beat(s->options.heart, HG_PIECE_STEP);
    begin_steps(s);
    if (hg_model_steps_in_flight(s->model) == 0)
        return;
    hg_heart_beat(s->options.heart, HG_PIECE_WAIT);
    enum hg_status status = hg_model_step_end(s->model, s->tokens, &n, &err);
    hg_heart_beat(s->options.heart, HG_PIECE_TURN);
    if (status == HG_STATUS_OK)
        deliver(s, n);
    else
        fail_step(s, -1, &err);
}
