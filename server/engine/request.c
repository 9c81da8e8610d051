/* server/engine/request.c - life of a request; the only rule on defaults. */
#include "server/engine/request.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "common/clock.h"
#include "server/ops/metrics.h"

static const float draw_temperature = 0.9F;

static atomic_uint_fast64_t next_number = 1;

void hg_ask_init_dialect(struct hg_ask *a, enum hg_dialect d)
{
    bool draws = d == HG_DIALECT_DRAW || d == HG_DIALECT_IMAGES || d == HG_DIALECT_EDITS;
    *a = (struct hg_ask){
        .dialect = d, .task = draws ? HG_TASK_GENERATION : HG_TASK_COMPREHENSION, .n_choices = 1};
    hg_sampling_default(&a->sampling);
}

void hg_ask_init(struct hg_ask *a, enum hg_task task)
{
    hg_ask_init_dialect(a, task == HG_TASK_GENERATION ? HG_DIALECT_DRAW : HG_DIALECT_VQA);
}

void hg_ask_deinit(struct hg_ask *a)
{
    free(a->question);
    free(a->system);
    for (size_t i = 0; i < a->n_turns; i++) {
        free(a->turns[i].question);
        free(a->turns[i].answer);
    }
    free(a->turns);
    for (size_t i = 0; i < a->n_images; i++)
        hg_image_deinit(&a->images[i]);
    *a = (struct hg_ask){0};
}

/* 53 bits: every JSON reader keeps such a number exact, so that a reported seed can be sent back.
 */
static uint64_t random_seed(void)
{
    uint64_t seed;
    if (getrandom(&seed, sizeof seed, 0) != (ssize_t)sizeof seed)
        seed = (uint64_t)hg_now_ns();
    return seed >> 11;
}

static struct hg_sampling sampling_of(const struct hg_model *m, const struct hg_ask *ask)
{
    struct hg_sampling s = ask->sampling;
    float of_card = hg_model_temperature(m, ask->task);
    bool from_text = ask->task == HG_TASK_GENERATION && ask->n_images == 0;
    if (!ask->has_temperature)
        s.temperature = of_card >= 0 ? of_card : from_text ? draw_temperature : 0;
    if (!ask->has_seed)
        s.seed = s.temperature > 0 ? random_seed() : 0;
    return s;
}

static enum hg_status prepare(const struct hg_model *m, const struct hg_ask *ask,
                              struct hg_request *r, struct hg_error *err)
{
    struct hg_turn turns[HG_REQUEST_MAX_TURNS] = {{.question = ask->question ? ask->question : "",
                                                   .n_question = ask->n_question,
                                                   .n_images = (int)ask->n_images}};
    size_t n_turns = ask->n_turns ? ask->n_turns : 1;
    if (n_turns > HG_REQUEST_MAX_TURNS)
        return hg_fail(err, HG_STATUS_BAD_REQUEST, "at most %d exchanges, got %zu",
                       HG_REQUEST_MAX_TURNS, n_turns);
    for (size_t i = 0; i < ask->n_turns; i++)
        turns[i] = (struct hg_turn){.question = ask->turns[i].question,
                                    .n_question = ask->turns[i].n_question,
                                    .n_images = ask->turns[i].n_images,
                                    .answer = ask->turns[i].answer,
                                    .n_answer = ask->turns[i].n_answer};
    struct hg_request_input in = {.task = ask->task,
                                  .no_plugin = ask->no_plugin,
                                  .tenant = ask->tenant.id,
                                  .system = ask->system,
                                  .turns = turns,
                                  .n_turns = n_turns,
                                  .images = ask->images,
                                  .n_images = ask->n_images,
                                  .sampling = r->sampling};
    return hg_model_prepare(m, &in, &r->prepared, err);
}

static void describe_prompt(struct hg_request *r)
{
    r->n_prompt = hg_prepared_n_prompt(r->prepared);
    r->max_tokens = hg_prepared_max_tokens(r->prepared);
    r->n_images = hg_prepared_n_images(r->prepared);
    for (int i = 0; i < r->n_images; i++)
        r->transform[i] = *hg_prepared_transform(r->prepared, i);
}

static void take_fingerprints(const struct hg_ask *ask, struct hg_audit_input *out)
{
    struct hg_hmac h;
    if (!ask->audit)
        return;
    hg_audit_text_begin(ask->audit, &h);
    hg_audit_text_add(&h, ask->system ? ask->system : "", ask->system ? strlen(ask->system) : 0);
    if (!ask->n_turns)
        hg_audit_text_add(&h, ask->question ? ask->question : "", ask->n_question);
    for (size_t i = 0; i < ask->n_turns; i++) {
        const struct hg_ask_turn *t = &ask->turns[i];
        hg_audit_text_add(&h, t->question, t->n_question);
        if (t->answer)
            hg_audit_text_add(&h, t->answer, t->n_answer);
    }
    hg_audit_text_end(&h, out->text);
    out->has_text = true;
    out->n_images = ask->n_images < HG_AUDIT_MAX_IMAGES ? ask->n_images : HG_AUDIT_MAX_IMAGES;
    for (size_t i = 0; i < out->n_images; i++) {
        out->images[i].width = ask->images[i].width;
        out->images[i].height = ask->images[i].height;
        hg_audit_pixels(ask->audit, &ask->images[i], out->images[i].mac);
    }
}

/* first: another choice of the same ask that has not begun, NULL: this is the first */
static enum hg_status create(const struct hg_model *m, const struct hg_ask *ask,
                             const struct hg_request *first, struct hg_request **out,
                             struct hg_error *err)
{
    *out = NULL;
    struct hg_request *r = calloc(1, sizeof *r);
    if (!r)
        return hg_fail(err, HG_STATUS_NO_MEMORY, "request: out of memory");
    atomic_init(&r->n_refs, 1);
    atomic_init(&r->state, HG_REQUEST_NEW);
    r->number = atomic_fetch_add(&next_number, 1);
    r->task = ask->task;
    r->tenant = ask->tenant;
    if (first)
        r->fingerprints = first->fingerprints;
    else
        take_fingerprints(ask, &r->fingerprints);
    r->timeout_ms = ask->timeout_ms;
    r->n_previews = ask->stream && ask->task == HG_TASK_GENERATION ? ask->previews : 0;
    r->sampling = sampling_of(m, ask);
    r->stop = ask->stop;
    r->no_plugin = ask->no_plugin;
    r->streams = ask->stream;
    enum hg_status status;
    if (first)
        HG_TRY_OUT(hg_prepared_again(first->prepared, r->sampling.seed, &r->prepared, err));
    else
        HG_TRY_OUT(prepare(m, ask, r, err));
    describe_prompt(r);
    /* One event per token and preview, those of the prompt, one flushed text, END. */
    size_t n_events = (size_t)r->max_tokens + (size_t)r->n_previews + HG_REQUEST_MAX_PREFILLS + 4;
    HG_TRY_OUT(hg_stream_init(&r->stream, n_events, r->sampling.n_top, err));
    *out = r;
    return HG_STATUS_OK;
out:
    hg_prepared_free(r->prepared);
    free(r);
    return status;
}

enum hg_status hg_request_create(const struct hg_model *m, const struct hg_ask *ask,
                                 struct hg_request **out, struct hg_error *err)
{
    return create(m, ask, NULL, out, err);
}

enum hg_status hg_request_create_choices(const struct hg_model *m, struct hg_ask *ask,
                                         struct hg_request **out, struct hg_error *err)
{
    ask->sampling = sampling_of(m, ask);
    ask->has_temperature = ask->has_seed = true;
    for (int i = 0; i < ask->n_choices; i++) {
        enum hg_status status = create(m, ask, i > 0 ? out[0] : NULL, &out[i], err);
        if (status != HG_STATUS_OK) {
            while (i > 0)
                hg_request_unref(out[--i]);
            return status;
        }
        ask->sampling.seed++;
    }
    return HG_STATUS_OK;
}

void hg_request_ref(struct hg_request *r)
{
    atomic_fetch_add(&r->n_refs, 1);
}

void hg_request_unref(struct hg_request *r)
{
    if (!r || atomic_fetch_sub(&r->n_refs, 1) != 1)
        return;
    hg_prepared_free(r->prepared);
    hg_stream_deinit(&r->stream);
    hg_image_deinit(&r->result.image);
    free(r->result.codes);
    free(r);
}

void hg_request_cancel(struct hg_request *r)
{
    atomic_store(&r->cancelled, true);
}

void hg_request_end(struct hg_request *r)
{
    enum hg_status s = r->result.error.status;
    r->result.total_ms = (double)(hg_now_ns() - r->submitted_ns) / 1e6;
    atomic_store(&r->state, s == HG_STATUS_OK          ? HG_REQUEST_DONE
                            : s == HG_STATUS_CANCELLED ? HG_REQUEST_CANCELLED
                                                       : HG_REQUEST_FAILED);
    hg_metrics_request_ended(r);
    struct hg_event end = {.type = HG_EVENT_END};
    hg_stream_push(&r->stream, &end, NULL, 0, NULL);
}
