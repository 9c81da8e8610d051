/* tests/parity/run_seq.h - drive sequences through hg_model_step the way a scheduler does. */
#ifndef HG_TESTS_PARITY_RUN_SEQ_H
#define HG_TESTS_PARITY_RUN_SEQ_H

#include "model/healthgpt.h"

/* What one sequence produced. logits rows are kept for every generated token. */
struct run_result {
    int32_t *ids;
    size_t n_ids;
    float *logits; /* [n_ids, n_logits] */
    size_t n_logits;
    enum hg_finish finish;
};

void run_result_free(struct run_result *r);

/* Run prepared requests together: prefill in chunks of at most `chunk` tokens each per step, decode
 * as soon as a prompt is done; sequence i joins at step i * stagger. Takes ownership of the
 * prepared. */
void run_together(struct hg_model *m, struct hg_prepared **p, size_t n, int chunk, int stagger,
                  struct run_result *results);

#endif
