/* kernels/cuda/plan.c - a step's tables go to the device in one copy.
 *
 * They are laid back to back in pinned memory: tables, attention list, sampling parameters, and
 * behind them the histories of those that have a penalty. A table's place depends on the counts
 * before it, never on the histories, so steps of one shape have equal addresses (graph.c). Nothing
 * is allocated: reserve sized both sides for the largest plan. */
#include <string.h>

#include "kernels/cuda/cuda.h"

size_t cuda_plan_bytes(const struct cuda_backend *c, int64_t n_tokens, int64_t n_histories)
{
    size_t rows = (size_t)n_tokens,
           context = (size_t)(c->limits.max_context > 0 ? c->limits.max_context : 1);
    size_t histories = (size_t)(n_histories < n_tokens ? n_histories : n_tokens);
    size_t ints = rows * (8 + context / HG_BLOCK_TOKENS + 1) + histories * context;
    return ints * sizeof(int32_t) + rows * sizeof(struct hg_sample_params) + 16 * (rows + 16);
}

/* Append bytes; their place on the device, or NULL when they do not fit. */
static void *pack(struct cuda_backend *c, const void *data, size_t bytes)
{
    size_t at = (c->plan_at + 15) / 16 * 16;
    if (at + bytes > c->plan_room)
        return NULL;
    if (bytes)
        memcpy((char *)c->plan_host + at, data, bytes);
    c->plan_at = at + bytes;
    return (char *)c->plan_device + at;
}

static const int32_t *pack_table(struct cuda_backend *c, const int32_t *table, int64_t n)
{
    return table ? pack(c, table, (size_t)n * sizeof *table) : NULL;
}

static bool pack_samples(struct cuda_backend *c, const struct hg_plan *plan, struct cuda_plan *d)
{
    if (!plan->sample)
        return true;
    d->sample = pack(c, plan->sample, (size_t)plan->n_out * sizeof *plan->sample);
    if (!d->sample)
        return false;
    ptrdiff_t at = (const char *)d->sample - (const char *)c->plan_device;
    struct hg_sample_params *host = (void *)((char *)c->plan_host + at);
    for (int i = 0; i < plan->n_out; i++) {
        const struct hg_sample_params *s = &plan->sample[i];
        bool wanted = s->repetition_penalty != 1 && s->n_history > 0;
        host[i].history = wanted ? pack_table(c, s->history, s->n_history) : NULL;
        host[i].n_history = wanted ? s->n_history : 0;
        if (wanted && !host[i].history)
            return false;
    }
    return true;
}

bool cuda_plan_pack(struct cuda_backend *c, const struct hg_plan *plan, void *host, size_t room,
                    bool list)
{
    struct cuda_plan d;
    memset(&d, 0, sizeof d); /* graph.c compares bytes */
    d.n_tokens = plan->n_tokens;
    d.n_seqs = plan->n_seqs;
    d.n_out = plan->n_out;
    d.max_blocks = plan->max_blocks;
    c->plan_host = host;
    c->plan_room = room;
    c->plan_at = 0;
    c->attention.plan = NULL;
    c->attention.late = false;
    d.token = pack_table(c, plan->token, plan->n_tokens);
    d.pos = pack_table(c, plan->pos, plan->n_tokens);
    d.seq = pack_table(c, plan->seq, plan->n_tokens);
    d.slot = pack_table(c, plan->slot, plan->n_tokens);
    d.table = pack_table(c, plan->table, plan->n_tokens);
    d.block_table = pack_table(c, plan->block_table, (int64_t)plan->n_seqs * plan->max_blocks);
    d.out_row = pack_table(c, plan->out_row, plan->n_out);
    d.out_table = pack_table(c, plan->out_table, plan->n_out);
    if ((plan->block_table && !d.block_table) || (plan->out_table && !d.out_table))
        return false;
    if (list)
        cuda_pack_attention(c, plan);
    if (!pack_samples(c, plan, &d))
        return false;
    memcpy(&c->plan, &d, sizeof d);
    return true;
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
