/* kernels/ref/sample.h - the sampler of one row; `cpu` calls it too, so both draw the same token.
 */
#ifndef HG_KERNELS_REF_SAMPLE_H
#define HG_KERNELS_REF_SAMPLE_H

#include <stdint.h>

#include "kernels/backend.h"

/* Working memory of one caller (one per thread). A zeroed struct is a valid empty scratch. */
struct hg_sample_scratch {
    float *score;   /* [cap] logits after the repetition penalty */
    double *weight; /* [cap] exp((score - max) / temperature), 0 for a dropped id */
    int32_t *heap;  /* [cap] ids relative to lo, best on top */
    uint8_t *mark;  /* [cap] all zero between calls */
    int32_t cap;    /* longest range [lo, hi) */
};

enum hg_status hg_sample_scratch_init(struct hg_sample_scratch *s, int32_t cap,
                                      struct hg_error *err);
void hg_sample_scratch_deinit(struct hg_sample_scratch *s);

/* logits[v - p->lo] for v in [lo, hi). Pure function of its inputs (all but scratch), no
 * allocation. Rules (reference.md section 11, order of the transformers library): penalty every
 * distinct id of history inside [lo, hi): s < 0 ? s * p : s / p greedy       temperature <= 0 (or
 * NaN): highest score, lowest id on ties top_k        keeps every score >= the k-th best one, so
 * ties with it stay top_p        in ascending order drops the ids whose cumulative probability is
 * <= 1 - top_p; the best id always stays; among equal scores the higher id goes first draw first
 * id, ascending, whose cumulative weight exceeds u * total BAD_REQUEST for an empty range or a
 * penalty that is not positive, INTERNAL when the range is longer than the scratch; *out is then
 * zeroed. */
enum hg_status hg_ref_sample_row(const float *logits, const struct hg_sample_params *p,
                                 struct hg_sample_result *out, struct hg_sample_scratch *s);

#endif
