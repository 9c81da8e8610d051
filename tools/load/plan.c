#include "tools/load/plan.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/base64.h"
#include "common/image_io.h"
#include "common/rng.h"

const char *const hg_load_kind_names[HG_LOAD_KINDS] = {"ask", "text", "draw", "edit"};

/* One lane of random numbers for each thing that is drawn. */
enum lane {
    LANE_GAP = 1,
    LANE_KIND,
    LANE_WORDS,
    LANE_TOKENS,
    LANE_PICTURE,
    LANE_STREAM,
    LANE_SAMPLED,
    LANE_ABANDON,
    LANE_LEAVE,
    LANE_RESET,
    LANE_SLOW,
    LANE_KEY,
    LANE_TEXT
};

enum { PICTURE_SIDE = 64 };

static const char *const words[] = {
    "the",   "image", "shows", "a",    "chest", "brain", "left",  "right", "lung",  "heart",
    "clear", "dark",  "small", "area", "is",    "there", "any",   "sign",  "of",    "please",
    "what",  "which", "side",  "and",  "with",  "in",    "count", "shape", "organ", "patient"};
enum { N_WORDS = sizeof words / sizeof words[0] };

static const char *const openings[HG_LOAD_KINDS] = {
    "What is shown in this image?", "What can you do?", "Draw a chest X-ray with pneumonia.",
    "Reconstruct the image."};

double hg_load_gap_s(const struct hg_load_mix *m, uint64_t i)
{
    return -log(1 - hg_uniform(m->seed, i, LANE_GAP)) / m->rate;
}

static int log_even(int min, int max, double u)
{
    double lo = log(min), hi = log(max + 1.0);
    int v = (int)exp(lo + u * (hi - lo));
    return v < min ? min : v > max ? max : v;
}

static enum hg_load_kind pick_kind(const double *share, double u)
{
    double sum = 0;
    for (int k = 0; k < HG_LOAD_KINDS; k++)
        sum += share[k];
    enum hg_load_kind last = HG_LOAD_ASK;
    for (int k = 0; k < HG_LOAD_KINDS; k++) {
        if (share[k] <= 0)
            continue;
        last = (enum hg_load_kind)k;
        u -= share[k] / sum;
        if (u < 0)
            break;
    }
    return last;
}

void hg_load_item(const struct hg_load_mix *m, uint64_t i, struct hg_load_item *out)
{
    uint64_t c = m->n_distinct ? i % m->n_distinct : i; /* what is asked */
    *out = (struct hg_load_item){.content = c, .leave_ns = -1};
    out->kind = pick_kind(m->share, hg_uniform(m->seed, c, LANE_KIND));
    out->n_words = log_even(m->words_min, m->words_max, hg_uniform(m->seed, c, LANE_WORDS));
    out->max_tokens = log_even(m->tokens_min, m->tokens_max, hg_uniform(m->seed, c, LANE_TOKENS));
    out->picture = (int)(hg_uniform(m->seed, c, LANE_PICTURE) * m->n_pictures);
    out->stream = hg_uniform(m->seed, c, LANE_STREAM) < m->streamed;
    out->sampled = hg_uniform(m->seed, c, LANE_SAMPLED) < m->sampled;
    /* and how the client behaves */
    out->slow = hg_uniform(m->seed, i, LANE_SLOW) < m->slow;
    out->reset = hg_uniform(m->seed, i, LANE_RESET) < 0.5;
    if (hg_uniform(m->seed, i, LANE_ABANDON) < m->abandon)
        out->leave_ns =
            (int64_t)(-log(1 - hg_uniform(m->seed, i, LANE_LEAVE)) * m->abandon_ms * 1e6);
    if (m->n_keys > 0)
        out->key = (size_t)(hg_uniform(m->seed, i, LANE_KEY) * (double)m->n_keys);
}

/* ---- pictures ------------------------------------------------------------------------------- */

void hg_load_pictures_free(struct hg_load_pictures *p)
{
    for (int i = 0; p->b64 && i < p->n; i++)
        hg_buf_deinit(&p->b64[i]);
    free(p->b64);
    *p = (struct hg_load_pictures){0};
}

static enum hg_status make_picture(int number, struct hg_buf *b64, struct hg_error *err)
{
    struct hg_image im = {0};
    struct hg_buf png = {0};
    enum hg_status status = hg_image_init(&im, PICTURE_SIDE, PICTURE_SIDE, err);
    HG_TRY_OUT(status);
    for (int y = 0; y < PICTURE_SIDE; y++)
        for (int x = 0; x < PICTURE_SIDE; x++)
            for (int k = 0; k < 3; k++)
                im.rgb[(y * PICTURE_SIDE + x) * 3 + k] =
                    (uint8_t)(x * 3 + y * 5 + number * 37 + ((x * y * (number + 1)) >> 6));
    HG_TRY_OUT(hg_image_encode_png(&im, NULL, &png, err));
    HG_TRY_OUT(hg_base64_encode(png.data, png.len, b64));
out:
    hg_image_deinit(&im);
    hg_buf_deinit(&png);
    return status;
}

enum hg_status hg_load_pictures_make(int n, struct hg_load_pictures *out, struct hg_error *err)
{
    *out = (struct hg_load_pictures){.b64 = calloc((size_t)n, sizeof *out->b64), .n = n};
    if (!out->b64)
        return hg_fail(err, HG_STATUS_NO_MEMORY, "pictures: out of memory");
    for (int i = 0; i < n; i++)
        if (make_picture(i, &out->b64[i], err) != HG_STATUS_OK) {
            hg_load_pictures_free(out);
            return hg_fail(err, HG_STATUS_NO_MEMORY, "pictures: out of memory");
        }
    return HG_STATUS_OK;
}

/* ---- the bytes ------------------------------------------------------------------------------ */

static enum hg_status put_text(const struct hg_load_mix *m, const struct hg_load_item *item,
                               struct hg_buf *b)
{
    HG_TRY(hg_buf_append_str(b, openings[item->kind]));
    for (int k = 0; k < item->n_words; k++) {
        uint32_t r[4];
        hg_philox(m->seed ^ item->content, (uint64_t)k, LANE_TEXT, r);
        HG_TRY(hg_buf_printf(b, " %s", words[r[0] % N_WORDS]));
    }
    return HG_STATUS_OK;
}

static enum hg_status put_body(const struct hg_load_mix *m, const struct hg_load_pictures *p,
                               const struct hg_load_item *item, struct hg_buf *b)
{
    bool draws = item->kind == HG_LOAD_DRAW || item->kind == HG_LOAD_EDIT;
    HG_TRY(hg_buf_printf(b, "{\"%s\":\"", draws ? "prompt" : "question"));
    HG_TRY(put_text(m, item, b));
    HG_TRY(hg_buf_printf(b, "\",\"seed\":%llu,\"temperature\":%.4g",
                         (unsigned long long)item->content, item->sampled ? m->temperature : 0));
    if (!draws)
        HG_TRY(hg_buf_printf(b, ",\"max_tokens\":%d", item->max_tokens));
    if (item->stream)
        HG_TRY(hg_buf_append_str(b, ",\"stream\":true"));
    if (item->stream && draws && m->previews > 0)
        HG_TRY(hg_buf_printf(b, ",\"previews\":%d", m->previews));
    if (m->timeout_ms > 0)
        HG_TRY(hg_buf_printf(b, ",\"timeout_ms\":%d", m->timeout_ms));
    if (item->kind == HG_LOAD_ASK || item->kind == HG_LOAD_EDIT) {
        const struct hg_buf *b64 = &p->b64[item->picture];
        HG_TRY(hg_buf_append_str(b, ",\"image\":\""));
        HG_TRY(hg_buf_append(b, b64->data, b64->len));
        HG_TRY(hg_buf_append_str(b, "\""));
    }
    return hg_buf_append_str(b, "}");
}

enum hg_status hg_load_request(const struct hg_load_mix *m, const struct hg_load_target *t,
                               const struct hg_load_pictures *p, const struct hg_load_item *item,
                               struct hg_buf *out, struct hg_error *err)
{
    struct hg_buf body = {0};
    bool draws = item->kind == HG_LOAD_DRAW || item->kind == HG_LOAD_EDIT;
    enum hg_status status = put_body(m, p, item, &body);
    HG_TRY_OUT(status);
    HG_TRY_OUT(hg_buf_printf(out, "POST %s HTTP/1.1\r\nHost: %s\r\n",
                             draws ? t->draw_path : "/v1/vqa", t->host));
    if (m->n_keys > 0)
        HG_TRY_OUT(hg_buf_printf(out, "Authorization: Bearer %s\r\n", t->keys[item->key]));
    HG_TRY_OUT(hg_buf_printf(out, "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n",
                             body.len));
    HG_TRY_OUT(hg_buf_append(out, body.data, body.len));
out:
    hg_buf_deinit(&body);
    return status == HG_STATUS_OK ? status : hg_fail(err, status, "request: out of memory");
}
