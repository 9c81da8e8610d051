/* model/sampler.h - what a request asks of the sampler, checked and turned into the op's
 * parameters.
 *
 * The arithmetic is the backend's sample op (kernels/backend.h); here are ranges, defaults and the
 * counter of the draw: hg_uniform(seed, number of tokens generated so far, 0). Pure functions. */
#ifndef HG_MODEL_SAMPLER_H
#define HG_MODEL_SAMPLER_H

#include "kernels/backend.h"
#include "model/healthgpt.h"

/* BAD_REQUEST naming the field, the allowed range and the value found. */
enum hg_status hg_sampling_check(const struct hg_sampling *s, struct hg_error *err);

/* [lo, hi): ids that the task allows. history: ids generated so far. */
void hg_sampling_params(const struct hg_sampling *s, float default_penalty, int32_t lo, int32_t hi,
                        const int32_t *history, size_t n_history, struct hg_sample_params *out);

#endif
