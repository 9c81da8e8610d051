/* model/sampler.c - sampling parameters: checks and defaults. */
#include "model/sampler.h"

#include <math.h>
#include <string.h>

void hg_sampling_default(struct hg_sampling *s)
{
    memset(s, 0, sizeof *s);
    s->top_p = 1.0f;
}

static enum hg_status check_range(const char *field, double v, double lo, double hi,
                                  struct hg_error *err)
{
    if (isfinite(v) && v >= lo && v <= hi)
        return HG_STATUS_OK;
    return hg_fail(err, HG_STATUS_BAD_REQUEST, "%s: expected %g..%g, got %g", field, lo, hi, v);
}

enum hg_status hg_sampling_check(const struct hg_sampling *s, struct hg_error *err)
{
    HG_TRY(check_range("temperature", (double)s->temperature, 0, 2, err));
    HG_TRY(check_range("top_k", s->top_k, 0, 1000000, err));
    HG_TRY(check_range("top_p", (double)s->top_p, (double)0.0001F, 1, err));
    HG_TRY(check_range("max_tokens", s->max_tokens, 0, 1000000, err));
    HG_TRY(check_range("top_logprobs", s->n_top, 0, HG_MAX_TOP, err));
    if (s->repetition_penalty != 0.0f)
        HG_TRY(check_range("repetition_penalty", (double)s->repetition_penalty, 0.1, 10, err));
    return HG_STATUS_OK;
}

void hg_sampling_params(const struct hg_sampling *s, float default_penalty, int32_t lo, int32_t hi,
                        const int32_t *history, size_t n_history, struct hg_sample_params *out)
{
    *out = (struct hg_sample_params){
        .lo = lo,
        .hi = hi,
        .temperature = s->temperature,
        .top_k = s->top_k,
        .top_p = s->top_p,
        .repetition_penalty =
            s->repetition_penalty != 0.0f ? s->repetition_penalty : default_penalty,
        .history = history,
        .n_history = (int32_t)n_history,
        .seed = s->seed,
        .position = n_history,
        .n_top = s->n_top,
    };
}
