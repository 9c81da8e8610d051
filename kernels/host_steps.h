/* kernels/host_steps.h - steps of a backend that computes at once (ref, cpu): numbers, and the ids
 * that the step before sampled. Nothing is in flight after an op, so waiting only checks. */
#ifndef HG_KERNELS_HOST_STEPS_H
#define HG_KERNELS_HOST_STEPS_H

#include "kernels/backend.h"

struct hg_host_steps {
    int64_t n;               /* steps begun */
    int32_t *sampled;        /* [cap] ids of the newest sample op */
    int cap;                 /* largest n_out */
    int n_sampled, n_before; /* rows sampled by this step and by the one before */
};

enum hg_status hg_host_steps_init(struct hg_host_steps *s, int cap, struct hg_error *err);
void hg_host_steps_deinit(struct hg_host_steps *s);

void hg_host_steps_begin(struct hg_host_steps *s, bool *replayed);
void hg_host_steps_end(struct hg_host_steps *s, int64_t *step);
enum hg_status hg_host_steps_wait(const struct hg_host_steps *s, int64_t step);

/* After a sample op: keep the ids of plan.result. INTERNAL when there are more than `cap`. */
enum hg_status hg_host_steps_keep(struct hg_host_steps *s, const struct hg_plan *plan);
/* HG_TOKEN_SAMPLED(j) becomes its id, others stay. INTERNAL: the step before sampled no row j. */
enum hg_status hg_host_steps_token(const struct hg_host_steps *s, int32_t *token);

#endif
