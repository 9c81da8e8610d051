/* model/healthgpt_image.c - index tokens <-> codes <-> pixels. */
#include <stdlib.h>
#include <string.h>

#include "model/internal.h"

enum hg_status hg_model_image_codes(const struct hg_model *m, const int32_t *ids, size_t n_ids,
                                    int32_t *codes, size_t cap, size_t *n_codes,
                                    struct hg_error *err)
{
    size_t need = (size_t)m->vqgan_info.grid * (size_t)m->vqgan_info.grid, n = 0;
    size_t stray = 0, first_stray = 0;
    for (size_t i = 0; i < n_ids; i++) {
        int32_t code = ids[i] - m->first_index_id;
        if (code >= 0 && code < m->n_index) {
            if (n < cap)
                codes[n] = code;
            n++;
        } else if (n < need && stray++ == 0) {
            first_stray = i;
        }
    }
    *n_codes = n;
    if (stray > 0)
        return hg_fail(err, HG_STATUS_BAD_REQUEST,
                       "expected %zu image tokens, got %zu: stray token %d at step %zu", need, n,
                       ids[first_stray], first_stray);
    if (n != need || n > cap)
        return hg_fail(err, HG_STATUS_BAD_REQUEST, "expected %zu image tokens, got %zu: %s", need,
                       n, n < need ? "stopped early" : "too many");
    return HG_STATUS_OK;
}

static enum hg_status need_vqgan(const struct hg_model *m, struct hg_error *err)
{
    if (m->vqgan)
        return HG_STATUS_OK;
    return hg_fail(err, HG_STATUS_UNSUPPORTED, "model %s has no VQGAN", m->card.name);
}

enum hg_status hg_model_render_begin(struct hg_model *m, const int32_t *codes, size_t n_codes,
                                     struct hg_error *err)
{
    HG_TRY(need_vqgan(m, err));
    size_t need = (size_t)m->vqgan_info.grid * (size_t)m->vqgan_info.grid;
    if (n_codes == 0 || n_codes > need)
        return hg_fail(err, HG_STATUS_BAD_REQUEST, "image: expected 1..%zu codes, got %zu", need,
                       n_codes);
    int32_t *full = malloc(need * sizeof *full);
    if (!full)
        return hg_fail(err, HG_STATUS_NO_MEMORY, "%zu codes", need);
    for (size_t i = 0; i < need; i++)
        full[i] = codes[i < n_codes ? i : n_codes - 1];
    enum hg_status status = hg_vqgan_decode_begin(m->vqgan, full, err);
    free(full);
    return status;
}

enum hg_status hg_model_render_go_on(struct hg_model *m, int64_t *work, struct hg_image *out,
                                     bool *done, struct hg_error *err)
{
    HG_TRY(need_vqgan(m, err));
    return hg_vqgan_decode_go_on(m->vqgan, work, out, done, err);
}

void hg_model_render_drop(struct hg_model *m)
{
    if (m->vqgan)
        hg_vqgan_decode_drop(m->vqgan);
}

enum hg_status hg_model_render(struct hg_model *m, const int32_t *codes, size_t n_codes,
                               struct hg_image *out, struct hg_error *err)
{
    int64_t work = INT64_MAX;
    bool done;
    HG_TRY(hg_model_render_begin(m, codes, n_codes, err));
    return hg_model_render_go_on(m, &work, out, &done, err);
}

enum hg_status hg_model_encode(struct hg_model *m, const struct hg_image *im, int32_t *codes,
                               size_t cap, struct hg_error *err)
{
    HG_TRY(need_vqgan(m, err));
    struct hg_vqgan_info *v = &m->vqgan_info;
    if (!v->has_encoder)
        return hg_fail(err, HG_STATUS_UNSUPPORTED, "model %s has no image encoder", m->card.name);
    if (cap < (size_t)v->grid * (size_t)v->grid)
        return hg_fail(err, HG_STATUS_TOO_LARGE, "codes: %d needed, room for %zu",
                       v->grid * v->grid, cap);
    struct hg_image resized = {0};
    HG_TRY(hg_image_resize(im, v->side, v->side, HG_RESAMPLE_LANCZOS, &resized, err));
    enum hg_status status = hg_vqgan_encode(m->vqgan, &resized, codes, err);
    hg_image_deinit(&resized);
    return status;
}
