/* kernels/host_steps.c - see host_steps.h. */
#include "kernels/host_steps.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/check.h"

enum hg_status hg_host_steps_init(struct hg_host_steps *s, int cap, struct hg_error *err)
{
    hg_host_steps_deinit(s);
    cap = cap > 0 ? cap : 1;
    s->sampled = calloc((size_t)cap, sizeof *s->sampled);
    if (!s->sampled)
        return hg_fail(err, HG_STATUS_NO_MEMORY, "sampled ids of %d rows", cap);
    s->cap = cap;
    return HG_STATUS_OK;
}

void hg_host_steps_deinit(struct hg_host_steps *s)
{
    free(s->sampled);
    memset(s, 0, sizeof *s);
}

void hg_host_steps_begin(struct hg_host_steps *s, bool *replayed)
{
    s->n++;
    s->n_before = s->n_sampled;
    s->n_sampled = 0;
    if (replayed)
        *replayed = false;
}

void hg_host_steps_end(struct hg_host_steps *s, int64_t *step)
{
    if (step)
        *step = s->n;
    else
        s->n_sampled = 0; /* given up: nothing to go on with */
}

enum hg_status hg_host_steps_wait(const struct hg_host_steps *s, int64_t step)
{
    if (step < 1 || step > s->n)
        return hg_refuse("steps", "wait for step %lld of %lld", (long long)step, (long long)s->n);
    return HG_STATUS_OK;
}

enum hg_status hg_host_steps_keep(struct hg_host_steps *s, const struct hg_plan *plan)
{
    if (plan->n_out > s->cap)
        return hg_refuse("steps", "sample: %d rows, reserved %d", plan->n_out, s->cap);
    for (int i = 0; i < plan->n_out; i++)
        s->sampled[i] = plan->result[i].token;
    s->n_sampled = plan->n_out;
    return HG_STATUS_OK;
}

enum hg_status hg_host_steps_token(const struct hg_host_steps *s, int32_t *token)
{
    if (!HG_TOKEN_IS_SAMPLED(*token))
        return HG_STATUS_OK;
    int j = HG_TOKEN_OUT_ROW(*token);
    if (j >= s->n_before)
        return hg_refuse("steps", "embed: sampled row %d, the step before has %d", j, s->n_before);
    *token = s->sampled[j];
    return HG_STATUS_OK;
}
