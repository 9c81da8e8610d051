/* kernels/cuda/plan.c - a step's tables go to the device in one copy.
 *
 * They are laid back to back in pinned memory, then copied; the sampling parameters' histories lie
 * behind them and only when a penalty needs them. Nothing is allocated: reserve sized both sides
 * for the largest plan. */
#include <string.h>

#include "kernels/cuda/cuda.h"

struct packer {
    struct cuda_backend *c;
    size_t at;
};

/* Append bytes; their place on the device, or NULL when they do not fit. */
static void *pack(struct packer *p, const void *data, size_t bytes)
{
    size_t at = (p->at + 15) / 16 * 16;
    if (at + bytes > p->c->plan_bytes)
        return NULL;
    if (bytes)
        memcpy((char *)p->c->plan_host + at, data, bytes);
    p->at = at + bytes;
    return (char *)p->c->plan_device + at;
}

static const int32_t *pack_table(struct packer *p, const int32_t *table, int64_t n)
{
    return table ? pack(p, table, (size_t)n * sizeof *table) : NULL;
}

static bool pack_samples(struct packer *p, const struct hg_plan *plan, struct cuda_plan *d)
{
    struct hg_sample_params *host;
    d->sample = NULL;
    if (!plan->sample)
        return true;
    d->sample = pack(p, plan->sample, (size_t)plan->n_out * sizeof *plan->sample);
    if (!d->sample)
        return false;
    host = (struct hg_sample_params *)(void *)((char *)p->c->plan_host +
                                               ((const char *)d->sample -
                                                (const char *)p->c->plan_device));
    for (int i = 0; i < plan->n_out; i++) {
        const struct hg_sample_params *s = &plan->sample[i];
        bool wanted = s->repetition_penalty != 1 && s->n_history > 0;
        host[i].history = wanted ? pack_table(p, s->history, s->n_history) : NULL;
        host[i].n_history = wanted ? s->n_history : 0;
        if (wanted && !host[i].history)
            return false;
    }
    return true;
}

enum hg_status cuda_step_begin(struct hg_backend *b, const struct hg_plan *plan)
{
    struct cuda_backend *c = cuda_of(b);
    struct packer p = {c, 0};
    struct cuda_plan d = {.n_tokens = plan->n_tokens,
                          .n_seqs = plan->n_seqs,
                          .n_out = plan->n_out,
                          .max_blocks = plan->max_blocks};
    if (c->lost)
        return HG_STATUS_DEVICE;
    /* the copy of the step before may still read the pinned side */
    HG_TRY(cuda_sync(b));
    d.token = pack_table(&p, plan->token, plan->n_tokens);
    d.pos = pack_table(&p, plan->pos, plan->n_tokens);
    d.seq = pack_table(&p, plan->seq, plan->n_tokens);
    d.slot = pack_table(&p, plan->slot, plan->n_tokens);
    d.table = pack_table(&p, plan->table, plan->n_tokens);
    d.block_table = pack_table(&p, plan->block_table, (int64_t)plan->n_seqs * plan->max_blocks);
    d.out_row = pack_table(&p, plan->out_row, plan->n_out);
    d.out_table = pack_table(&p, plan->out_table, plan->n_out);
    if ((plan->block_table && !d.block_table) || (plan->out_table && !d.out_table) ||
        !pack_samples(&p, plan, &d))
        return cuda_refuse("plan of %d tokens, %d sequences of %d blocks: reserved %zu bytes",
                           plan->n_tokens, plan->n_seqs, plan->max_blocks, c->plan_bytes);
    c->plan = d;
    c->host_plan = plan;
    c->attention.plan = NULL;
    return cuda_upload(b, c->plan_device, c->plan_host, p.at);
}

enum hg_status cuda_step_end(struct hg_backend *b)
{
    struct cuda_backend *c = cuda_of(b);
    c->host_plan = NULL;
    return c->lost ? HG_STATUS_DEVICE : HG_STATUS_OK;
}

enum hg_status cuda_table(struct cuda_backend *c, const int32_t *host, int n,
                          const int32_t **device)
{
    const struct hg_plan *p = c->host_plan;
    *device = NULL;
    if (!host)
        return HG_STATUS_OK;
    if (p && (host == p->slot || host == p->out_row)) {
        *device = host == p->slot ? c->plan.slot : c->plan.out_row;
        return HG_STATUS_OK;
    }
    if (n > c->limits.max_rows)
        return cuda_refuse("table of %d rows, reserved %d", n, c->limits.max_rows);
    *device = c->scratch.rows;
    return cuda_upload(&c->base, c->scratch.rows, host, (size_t)n * sizeof *host);
}
