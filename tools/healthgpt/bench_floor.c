#include "tools/healthgpt/bench_floor.h"

#include <stdlib.h>
#include <string.h>

#include "common/pool.h"
#include "model/internal.h"
#include "tools/bench/peak.h"

enum { READ_BYTES = 256 << 20 };

double hg_bench_read_rate(struct hg_model *m, int n_threads)
{
    const struct hg_backend_ops *ops = m->backend->ops;
    struct hg_error err = {0};
    struct hg_pool *pool = NULL;
    double rate = 0;
    if (ops->read_rate)
        return ops->read_rate(m->backend);
    if (strcmp(ops->name, "cpu") != 0)
        return 0;
    void *data = malloc(READ_BYTES);
    if (data && hg_pool_create(n_threads, &pool, &err) == HG_STATUS_OK) {
        memset(data, 1, READ_BYTES);
        rate = peak_read(pool, data, READ_BYTES);
    }
    hg_pool_destroy(pool);
    free(data);
    return rate;
}

double hg_bench_linear_bytes(const struct hg_model *m)
{
    const struct hg_backend_ops *ops = m->backend->ops;
    double bytes = 0;
    for (int i = 0; i < m->llm->config.n_layers; i++) {
        const struct hg_llm_layer *l = &m->llm->layers[i];
        bytes += (double)ops->weight_bytes(l->qkv, -1) + (double)ops->weight_bytes(l->o, -1) +
                 (double)ops->weight_bytes(l->gate_up, -1) + (double)ops->weight_bytes(l->down, -1);
    }
    for (int t = 0; t < HG_TASK_COUNT; t++)
        bytes -= (double)m->llm->plugin_bytes[t];
    return bytes;
}

/* Rows of the head that a task's tokens may be: a drawing is index tokens and the end. */
static double head_share(const struct hg_model *m, enum hg_task t)
{
    const struct hg_llm_set *set = &m->llm->sets[t];
    bool drawn = t == HG_TASK_GENERATION && m->first_index_id >= 0 && m->n_index > 0;
    return drawn && set->rows > m->n_index + 1 ? (m->n_index + 1.0) / set->rows : 1;
}

double hg_bench_step_bytes(const struct hg_model *m, const bool tasks[HG_TASK_COUNT], bool plugins,
                           bool constrained, int n_seqs, double n_positions)
{
    const struct hg_weight *seen = NULL;
    double bytes = hg_bench_linear_bytes(m);
    for (int t = 0; t < HG_TASK_COUNT; t++) {
        const struct hg_weight *head = m->llm->sets[t].head;
        if (!tasks[t])
            continue;
        if (plugins)
            bytes += (double)m->llm->plugin_bytes[t];
        if (head && head != seen)
            bytes += (double)m->backend->ops->weight_bytes(head, -1) *
                     (constrained ? head_share(m, (enum hg_task)t) : 1);
        seen = head;
    }
    double positions = (double)m->kv.n_blocks * HG_BLOCK_TOKENS;
    return bytes + (positions > 0 ? (double)m->kv.bytes / positions * n_seqs * n_positions : 0);
}

enum hg_status hg_bench_wait(struct hg_model *m)
{
    return m->backend->ops->sync(m->backend);
}
