/* server/engine/canary.c - the run; comparing and the file are in canary_file.c. */
#include "server/engine/canary.h"

#include <stdlib.h>
#include <string.h>

#include "common/checksum.h"
#include "common/clock.h"
#include "common/log.h"
#include "server/engine/canary_file.h"

enum { PICTURE_SIDE = 64, CHUNK = 256 };

struct hg_canary {
    struct hg_model *model;
    struct hg_model_info info;
    struct hg_heart *heart;
    struct hg_canary_result first, stored, now;
    bool off[HG_CANARY_CASES]; /* the model cannot do it */
    bool has_first, has_stored;
    uint8_t picture[PICTURE_SIDE * PICTURE_SIDE * 3];
    int at; /* case under way; HG_CANARY_CASES: the rendering */
    struct hg_seq *seq;
};

static const char *const questions[HG_CANARY_CASES] = {
    "What is a canary in a coal mine?", "Describe the image.", "Draw a chest X-ray."};

/* ---- one case -------------------------------------------------------------------------------- */

static enum hg_status prepare(struct hg_canary *c, int i, bool with_picture,
                              struct hg_prepared **out, struct hg_error *err)
{
    struct hg_image im = {.width = PICTURE_SIDE, .height = PICTURE_SIDE, .rgb = c->picture};
    struct hg_turn turn = {
        .question = questions[i], .n_question = strlen(questions[i]), .n_images = with_picture};
    struct hg_request_input in = {.task = i == 2 ? HG_TASK_GENERATION : HG_TASK_COMPREHENSION,
                                  .no_plugin = i == 0,
                                  .probe = true,
                                  .turns = &turn,
                                  .n_turns = 1,
                                  .images = &im,
                                  .n_images = with_picture};
    hg_sampling_default(&in.sampling);
    in.sampling.max_tokens = i == 2 ? 0 : HG_CANARY_TOKENS; /* a picture has its own number */
    in.sampling.n_top = HG_CANARY_TOP;
    in.sampling.ignore_stop = true;
    return hg_model_prepare(c->model, &in, out, err);
}

/* *out NULL: this model cannot do it, which is no fault. */
static enum hg_status open_case(struct hg_canary *c, int i, struct hg_seq **out,
                                struct hg_error *err)
{
    struct hg_prepared *p = NULL;
    *out = NULL;
    enum hg_status status = prepare(c, i, i == 1, &p, err);
    if (status == HG_STATUS_UNSUPPORTED && i == 1)
        status = prepare(c, i, false, &p, err);
    if (status == HG_STATUS_OK)
        status = hg_seq_create(c->model, p, out, err);
    if (status != HG_STATUS_OK)
        hg_prepared_free(p);
    bool cannot = status == HG_STATUS_UNSUPPORTED || status == HG_STATUS_TOO_LARGE ||
                  status == HG_STATUS_BAD_REQUEST;
    if (!cannot || c->has_first)
        return status;
    hg_log(HG_LOG_INFO, "canary: no %s: %s", hg_canary_case_name(i), err->text);
    c->off[i] = true;
    return HG_STATUS_OK;
}

static void note(struct hg_canary_case *k, const struct hg_token *t)
{
    k->present = true;
    k->id[k->n] = t->id;
    k->logprob[k->n++] = t->logprob;
    k->sum = hg_crc32c(k->sum, &t->id, sizeof t->id);
    k->sum = hg_crc32c(k->sum, &t->logprob, sizeof t->logprob);
    k->sum = hg_crc32c(k->sum, t->top_id, (size_t)t->n_top * sizeof t->top_id[0]);
    k->sum = hg_crc32c(k->sum, t->top_logprob, (size_t)t->n_top * sizeof t->top_logprob[0]);
}

static enum hg_status check(struct hg_canary *c, int i, struct hg_error *err)
{
    const struct hg_canary_case *got = &c->now.cases[i];
    if (c->has_first)
        return hg_canary_same(&c->first.cases[i], got, i, err);
    return c->has_stored ? hg_canary_like(&c->stored.cases[i], got, i, err) : HG_STATUS_OK;
}

static void close_case(struct hg_canary *c)
{
    hg_seq_free(c->seq);
    c->seq = NULL;
    c->at++;
}

static enum hg_status step(struct hg_canary *c, struct hg_error *err)
{
    struct hg_canary_case *k = &c->now.cases[c->at];
    struct hg_token t = {.id = -1};
    int waiting = hg_seq_n_waiting(c->seq), most = c->info.max_batch_tokens;
    most = most < CHUNK ? most : CHUNK;
    struct hg_step_item item = {c->seq, waiting < most ? (waiting ? waiting : 1) : most};
    hg_heart_beat(c->heart, HG_PIECE_STEP);
    HG_TRY(hg_model_step(c->model, &item, 1, &t, err));
    if (t.finish == HG_FINISH_ERROR)
        return hg_fail(err, HG_STATUS_ENGINE, "canary: %s: token %d: a value is not finite",
                       hg_canary_case_name(c->at), k->n);
    if (t.id < 0)
        return HG_STATUS_OK; /* the prompt is not complete */
    note(k, &t);
    if (k->n < HG_CANARY_TOKENS && t.finish == HG_FINISH_NONE)
        return HG_STATUS_OK;
    HG_TRY(check(c, c->at, err));
    hg_seq_trust(c->seq);
    close_case(c);
    return HG_STATUS_OK;
}

static void note_picture(struct hg_canary_result *r, const struct hg_image *im)
{
    size_t n = (size_t)im->width * (size_t)im->height;
    uint64_t sum[3] = {0};
    for (size_t i = 0; i < 3 * n; i++)
        sum[i % 3] += im->rgb[i];
    for (int k = 0; k < 3; k++)
        r->mean[k] = (double)sum[k] / (double)n;
    r->has_picture = true;
}

static enum hg_status draw(struct hg_canary *c, struct hg_error *err)
{
    int32_t codes[HG_CANARY_TOKENS];
    const struct hg_canary_case *k = &c->now.cases[2];
    struct hg_image im = {0};
    for (int i = 0; i < k->n; i++)
        codes[i] = k->id[i] - c->info.first_index_id;
    hg_heart_beat(c->heart, HG_PIECE_DRAW);
    enum hg_status status = hg_model_render(c->model, codes, (size_t)k->n, &im, err);
    if (status == HG_STATUS_OK) {
        note_picture(&c->now, &im);
        status = c->has_stored ? hg_canary_picture_like(&c->stored, &c->now, err) : status;
    } else if (status == HG_STATUS_NUMERIC) {
        status = hg_fail(err, HG_STATUS_ENGINE, "canary: picture: a value is not finite");
    }
    hg_image_deinit(&im);
    return status;
}

/* ---- a run ----------------------------------------------------------------------------------- */

static enum hg_status piece(struct hg_canary *c, bool *done, struct hg_error *err)
{
    while (!c->seq && c->at < HG_CANARY_CASES) {
        if (!c->off[c->at])
            HG_TRY(open_case(c, c->at, &c->seq, err));
        if (!c->seq)
            c->at++;
    }
    if (c->seq && hg_seq_wants_vision(c->seq)) {
        hg_heart_beat(c->heart, HG_PIECE_VISION);
        return hg_seq_encode_image(c->seq, err);
    }
    if (c->seq)
        return step(c, err);
    if (!c->has_first && c->now.cases[2].present)
        HG_TRY(draw(c, err));
    if (!c->has_first)
        c->first = c->now;
    c->has_first = *done = true;
    return HG_STATUS_OK;
}

enum hg_status hg_canary_piece(struct hg_canary *c, bool *done, struct hg_error *err)
{
    *done = false;
    enum hg_status status = piece(c, done, err);
    if (*done || status != HG_STATUS_OK)
        hg_canary_give_up(c);
    return status;
}

void hg_canary_give_up(struct hg_canary *c)
{
    hg_seq_free(c->seq);
    c->seq = NULL;
    c->at = 0;
    memset(&c->now, 0, sizeof c->now);
}

enum hg_status hg_canary_run(struct hg_canary *c, struct hg_error *err)
{
    bool done = false, first = !c->has_first;
    double begin = hg_now_ms();
    while (!done)
        HG_TRY(hg_canary_piece(c, &done, err));
    if (first && hg_canary_is_blind(c))
        hg_log(HG_LOG_WARN, "canary: blind: this model can do none of the cases");
    else
        hg_log(HG_LOG_INFO, "canary: right%s, %.0f ms",
               first && c->has_stored ? ", as in canary.json" : "", hg_now_ms() - begin);
    return HG_STATUS_OK;
}

enum hg_status hg_canary_start(struct hg_canary *c, bool brief, struct hg_error *err)
{
    bool done = false;
    double begin = hg_now_ms();
    if (!brief)
        return hg_canary_run(c, err);
    while (!done && c->at == 0)
        HG_TRY(hg_canary_piece(c, &done, err));
    hg_log(HG_LOG_INFO, "canary: text right, %.0f ms; the rest as soon as nobody asks",
           hg_now_ms() - begin);
    return HG_STATUS_OK;
}

/* 2^38 multiply-adds take 1 to 2 s on two cores with int8 dot products. */
bool hg_canary_is_long(const struct hg_canary *c)
{
    const int64_t long_work = (int64_t)1 << 38;
    const struct hg_model_info *i = &c->info;
    int64_t n_tokens = i->n_image_rows + (int64_t)HG_CANARY_CASES * HG_CANARY_TOKENS;
    int64_t work = n_tokens * i->token_work + i->vision_work + i->render_work;
    return i->card_bytes == 0 && work > long_work;
}

bool hg_canary_is_complete(const struct hg_canary *c)
{
    return c->has_first;
}

bool hg_canary_is_blind(const struct hg_canary *c)
{
    bool blind = true;
    for (int i = 0; i < HG_CANARY_CASES; i++)
        blind = blind && c->off[i];
    return blind;
}

/* ---- life ------------------------------------------------------------------------------------ */

enum hg_status hg_canary_create(struct hg_model *m, struct hg_heart *heart, struct hg_canary **out,
                                struct hg_error *err)
{
    *out = NULL;
    struct hg_canary *c = calloc(1, sizeof *c);
    if (!c)
        return hg_fail(err, HG_STATUS_NO_MEMORY, "canary: out of memory");
    c->model = m;
    c->heart = heart;
    hg_model_info(m, &c->info);
    for (int i = 0; i < PICTURE_SIDE * PICTURE_SIDE * 3; i++)
        c->picture[i] = (uint8_t)(i * 7 + i / (PICTURE_SIDE * 3) * 5);
    *out = c;
    return HG_STATUS_OK;
}

enum hg_status hg_canary_expect(struct hg_canary *c, bool rounded, struct hg_error *err)
{
    char path[1200];
    HG_TRY(hg_model_canary_path(c->model, path, sizeof path, err));
    HG_TRY(hg_canary_read(path, c->info.weights_crc32c, &c->stored, &c->has_stored, err));
    if (c->has_stored && rounded)
        hg_log(HG_LOG_INFO,
               "canary: canary.json is not for quantised weights or strict numerics: not compared");
    c->has_stored = c->has_stored && !rounded;
    return HG_STATUS_OK;
}

void hg_canary_free(struct hg_canary *c)
{
    if (!c)
        return;
    hg_canary_give_up(c);
    free(c);
}

enum hg_status hg_canary_write(const struct hg_canary *c, struct hg_buf *out)
{
    return hg_canary_print(&c->first, c->info.weights_crc32c, out);
}
