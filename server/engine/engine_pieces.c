/* server/engine/engine_pieces.c - pictures between the steps: each turn one piece of one picture.
 *
 * A piece is a quarter of the arithmetic of the chunk of a prompt that a step may carry (counted
 * from the model's shapes, so that a run does not depend on the clock), or one operation: half a
 * layer of the vision tower, or a convolution. The tower and the VQGAN hold one picture each.
 * To see comes before to draw, because a first token waits for it, and so does the step that may
 * bring one; a picture to be drawn lets at most SEEN_FIRST such turns pass. */
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "server/engine/engine.h"
#include "server/ops/metrics.h"

/* Pieces aim at a part of what one may cost: a question that comes meanwhile waits for it. */
enum { PIECE_PART = 4, SEEN_FIRST = 4, UNDRAWN = 0x80 /* grey */ };

int64_t hg_engine_piece_work(const struct hg_scheduler *s)
{
    int tokens = s->info.max_batch_tokens;
    return s->info.token_work * (tokens < HG_SHARED_PREFILL ? tokens : HG_SHARED_PREFILL);
}

void hg_pieces_tell(const struct hg_scheduler *s)
{
    const struct hg_model_info *i = &s->info;
    double piece = (double)hg_engine_piece_work(s);
    double seen = (double)i->vision_op * HG_SEEN_COST / piece;
    double drawn = (double)i->render_op * HG_DRAWN_COST / piece;
    hg_log(HG_LOG_DEBUG, "a picture is seen in %.1f pieces of work, drawn in %.1f",
           (double)i->vision_work * HG_SEEN_COST / piece,
           (double)i->render_work * HG_DRAWN_COST / piece);
    if (seen > 1 || drawn > 1)
        hg_log(
            HG_LOG_WARN,
            "pictures are large beside the language model: streams wait up to %.1f times the chunk "
            "of a prompt for one operation of them",
            seen > drawn ? seen : drawn);
}

/* ---- to see ------------------------------------------------------------------------------------
 */

/* The one that is begun; else the oldest question, then the oldest picture; -1: none. Others that
 * want the same picture want it no more when it is done, and begin it when its sequence leaves. */
static int to_see(const struct hg_scheduler *s)
{
    const struct hg_seq *begun = hg_model_encoding(s->model);
    int best = -1;
    for (int i = 0; i < s->n_slots; i++) {
        const struct hg_slot *slot = &s->slots[i];
        if (!slot->seq || hg_seq_preempted(slot->seq) || !hg_seq_wants_vision(slot->seq))
            continue;
        if (slot->seq == begun)
            return i;
        bool question = slot->req->task != HG_TASK_GENERATION;
        if (best < 0 || (question && s->slots[best].req->task == HG_TASK_GENERATION))
            best = i;
    }
    return best;
}

static void see(struct hg_scheduler *s, int i)
{
    struct hg_error err = {0};
    int64_t work = hg_engine_piece_work(s) / PIECE_PART / HG_SEEN_COST;
    hg_heart_beat(s->options.heart, HG_PIECE_VISION);
    if (hg_seq_encode_piece(s->slots[i].seq, &work, &err) != HG_STATUS_OK)
        hg_slot_fail(s, i, &err);
    else if (!hg_model_encoding(s->model))
        atomic_fetch_add(&s->n_encoded, 1);
}

/* ---- to draw -----------------------------------------------------------------------------------
 */

/* The one that is begun; else the oldest that has all its tokens, then the oldest preview. */
static int to_draw(const struct hg_scheduler *s)
{
    int best = -1;
    for (int i = 0; i < s->n_slots; i++) {
        const struct hg_slot *slot = &s->slots[i];
        if (s->pieces.drawn == slot->req)
            return i;
        if ((!slot->seq && (best < 0 || s->slots[best].seq)) || (slot->preview && best < 0))
            best = i;
    }
    return best;
}

/* The codes of a sequence as far as they are known; returns how many. */
static int codes_so_far(const struct hg_scheduler *s, const struct hg_seq *seq, int32_t *codes)
{
    int total = s->info.grid_h * s->info.grid_w, done = (int)hg_seq_n_generated(seq), n = 0;
    const int32_t *ids = hg_seq_generated(seq);
    while (n < done && n < total && ids[n] >= s->info.first_index_id &&
           ids[n] < s->info.first_index_id + s->info.n_index) {
        codes[n] = ids[n] - s->info.first_index_id;
        n++;
    }
    return n;
}

/* The whole picture if its tokens are there (a preview that is still due would come too late). */
static enum hg_status begin(struct hg_scheduler *s, struct hg_slot *slot, struct hg_error *err)
{
    size_t total = (size_t)s->info.grid_h * (size_t)s->info.grid_w;
    struct hg_pieces *p = &s->pieces;
    p->drawn = slot->req;
    p->preview = slot->seq != NULL;
    slot->preview = false;
    if (!p->preview)
        return hg_model_render_begin(s->model, slot->codes, slot->n_codes, err);
    int32_t *codes = calloc(total ? total : 1, sizeof *codes);
    if (!codes)
        return hg_fail(err, HG_STATUS_NO_MEMORY, "preview: out of memory");
    p->n_codes = codes_so_far(s, slot->seq, codes);
    enum hg_status status = hg_model_render_begin(s->model, codes, (size_t)p->n_codes, err);
    free(codes);
    return status;
}

/* Its whole rows of tokens; what is not drawn yet is grey. */
static enum hg_status push_preview(const struct hg_scheduler *s, struct hg_slot *slot,
                                   struct hg_image *im, struct hg_error *err)
{
    size_t row = (size_t)im->width * 3;
    int rows = s->pieces.n_codes / s->info.grid_w;
    size_t drawn = (size_t)(im->height * rows / s->info.grid_h);
    memset(im->rgb + drawn * row, UNDRAWN, ((size_t)im->height - drawn) * row);
    struct hg_event e = {.type = HG_EVENT_PREVIEW,
                         .done = s->pieces.n_codes,
                         .total = s->info.grid_h * s->info.grid_w,
                         .width = (uint16_t)im->width,
                         .height = (uint16_t)im->height};
    hg_metrics_preview();
    enum hg_status status = hg_stream_push(&slot->req->stream, &e, (const char *)im->rgb,
                                           (size_t)im->height * row, NULL);
    return status == HG_STATUS_OK ? status : hg_fail(err, status, "preview: out of memory");
}

/* The picture is the result: the request is done. */
static void finish(struct hg_scheduler *s, int i, struct hg_image *im)
{
    struct hg_slot *slot = &s->slots[i];
    struct hg_result *result = &slot->req->result;
    result->image = *im;
    result->codes = slot->codes;
    result->n_codes = slot->n_codes;
    slot->codes = NULL;
    hg_slot_close(s, i);
}

static void draw(struct hg_scheduler *s, int i)
{
    struct hg_slot *slot = &s->slots[i];
    struct hg_image im = {0};
    struct hg_error err = {0};
    enum hg_status status = HG_STATUS_OK;
    int64_t work = hg_engine_piece_work(s) / PIECE_PART / HG_DRAWN_COST;
    bool done = false;
    hg_heart_beat(s->options.heart, HG_PIECE_DRAW);
    if (s->pieces.drawn != slot->req)
        status = begin(s, slot, &err);
    if (status == HG_STATUS_OK)
        status = hg_model_render_go_on(s->model, &work, &im, &done, &err);
    if (status == HG_STATUS_OK && !done)
        return;
    s->pieces.drawn = NULL;
    if (status == HG_STATUS_OK && !s->pieces.preview) {
        finish(s, i, &im);
        return;
    }
    if (status == HG_STATUS_OK)
        status = push_preview(s, slot, &im, &err);
    hg_image_deinit(&im);
    if (status != HG_STATUS_OK)
        hg_slot_fail(s, i, &err);
}

void hg_pieces_forget(struct hg_scheduler *s, const struct hg_slot *slot)
{
    if (s->pieces.drawn != slot->req)
        return;
    hg_model_render_drop(s->model);
    s->pieces.drawn = NULL;
}

/* A question that the next step may answer for the first time. */
static bool first_token_waits(const struct hg_scheduler *s)
{
    for (int i = 0; i < s->n_slots; i++) {
        const struct hg_slot *slot = &s->slots[i];
        if (slot->seq && slot->req->task != HG_TASK_GENERATION && !hg_seq_preempted(slot->seq) &&
            slot->req->result.first_token_ms == 0)
            return true;
    }
    return false;
}

void hg_engine_piece(struct hg_scheduler *s)
{
    int seen = to_see(s), drawn = to_draw(s);
    if (seen < 0 && drawn < 0)
        return;
    if (seen < 0 && s->pieces.n_seen < SEEN_FIRST && first_token_waits(s)) {
        s->pieces.n_seen++;
        return;
    }
    atomic_fetch_add(&s->n_pieces, 1);
    if (seen >= 0 && (drawn < 0 || s->pieces.n_seen < SEEN_FIRST)) {
        s->pieces.n_seen = drawn < 0 ? 0 : s->pieces.n_seen + 1;
        see(s, seen);
    } else {
        s->pieces.n_seen = 0;
        draw(s, drawn);
    }
}
