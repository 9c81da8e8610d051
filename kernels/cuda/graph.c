/* kernels/cuda/graph.c - CUDA graphs of decode steps: one launch in place of about two hundred.
 *
 * A step whose sequences bring one generated token each is run op by op the first time its key
 * comes, captured the second time and launched from then on. The key has to hold everything that a
 * launch takes from the host, or a replay would use what an older plan said. By op, what launches
 * take from the plan (the arguments of the ops themselves are the same in every step: contract of
 * step_begin):
 *
 *   all        n_tokens, n_seqs, n_out, max_blocks; addresses of the tables   plan
 *   embed      table sets present, any feature row (checked on the host)      tables, features
 *   linear     slots present: which shrink tiles there are                    slots
 *              n_prompt: rows that cuBLASLt takes                             0, else no graph
 *   attention  blocks n_wide, n_narrow; the shape the list was made for       n_*, attention
 *   head       per set: is it there, first and last tile                      lo, hi
 *   sample     the longest row: threads, working memory                       longest
 *
 * Tokens, positions, block tables, slots per row, sampling parameters, histories and the work list
 * are read on the device, from the plan's copy. Addresses of scratch, weights, cache are fixed
 * between two cuda_free; whoever frees drops the graphs. The graph holds neither the plan's copy
 * nor the results' nor the event (steps.c), so it does not depend on the place in the ring. What
 * the ops check of a plan's content, `make_key` checks too: a plan that an op would refuse gets no
 * graph. */
#include <string.h>

#include "common/log.h"
#include "kernels/cuda/cuda.h"

bool cuda_graphs_want(const struct cuda_backend *c, const struct hg_plan *plan)
{
    return !c->graphs.off && plan->n_tokens > 0 && plan->n_tokens <= CUDA_SMALL_ROWS &&
           plan->n_tokens == plan->n_seqs && plan->n_out <= plan->n_tokens && plan->n_prompt == 0;
}

static bool key_tokens(const struct cuda_backend *c, const struct hg_plan *p,
                       struct cuda_graph_key *k)
{
    if (!p->token || !p->pos || !p->seq || !p->slot || !p->table || !p->block_table)
        return false;
    for (int t = 0; t < p->n_tokens; t++) {
        bool feature = p->token[t] < 0 && !HG_TOKEN_IS_SAMPLED(p->token[t]);
        if (p->seq[t] != t || p->pos[t] < 0 || p->pos[t] >= c->limits.max_context ||
            p->slot[t] < -1 || p->slot[t] >= HG_MAX_PLUGINS ||
            (!feature && (p->table[t] < 0 || p->table[t] >= HG_MAX_PLUGINS)))
            return false;
        if (p->slot[t] >= 0)
            k->slots |= 1 << p->slot[t];
        if (feature)
            k->features = 1;
        else
            k->tables |= 1 << p->table[t];
    }
    return true;
}

static bool key_outs(const struct cuda_backend *c, const struct hg_plan *p,
                     struct cuda_graph_key *k)
{
    if (p->n_out > 0 && (!p->out_row || !p->out_table || !p->sample))
        return false;
    for (int i = 0; i < p->n_out; i++) {
        const struct hg_sample_params *s = &p->sample[i];
        int set = p->out_table[i];
        if (set < 0 || set >= HG_MAX_PLUGINS || p->out_row[i] < 0 || p->out_row[i] >= p->n_tokens ||
            s->lo < 0 || s->hi <= s->lo || s->hi - s->lo > c->limits.max_out ||
            !(s->repetition_penalty > 0))
            return false;
        bool first = k->hi[set] == 0;
        k->lo[set] = first || s->lo < k->lo[set] ? s->lo : k->lo[set];
        k->hi[set] = s->hi > k->hi[set] ? s->hi : k->hi[set];
        k->longest = s->hi - s->lo > k->longest ? s->hi - s->lo : k->longest;
    }
    return true;
}

static bool make_key(const struct cuda_backend *c, const struct hg_plan *plan,
                     struct cuda_graph_key *k)
{
    const struct cuda_attention_plan *a = &c->attention;
    memset(k, 0, sizeof *k);
    if (!cuda_graphs_want(c, plan) || a->plan != plan)
        return false;
    memcpy(&k->plan, &c->plan, sizeof k->plan);
    k->work = a->device;
    k->attention = a->shape;
    k->n_wide = a->n_wide;
    k->n_narrow = a->n_narrow;
    return key_tokens(c, plan, k) && key_outs(c, plan, k);
}

/* Two keys; both were zeroed before they were filled, so padding is equal too. */
static bool same(const void *a, const void *b)
{
    return memcmp(a, b, sizeof(struct cuda_graph_key)) == 0;
}

/* The graph of a key, or a new one in the place that was used least recently. */
static struct cuda_graph *find(struct cuda_backend *c, const struct cuda_graph_key *k)
{
    struct cuda_graphs *g = &c->graphs;
    struct cuda_graph *oldest = &g->at[0];
    for (int i = 0; i < CUDA_GRAPHS; i++) {
        struct cuda_graph *at = &g->at[i];
        if (at->used && same(&at->key, k))
            return at;
        if (at->used < oldest->used)
            oldest = at;
    }
    if (oldest->exec) {
        cudaStreamSynchronize(c->stream); /* it may be running */
        cudaGraphExecDestroy(oldest->exec);
    }
    memset(oldest, 0, sizeof *oldest);
    memcpy(&oldest->key, k, sizeof *k);
    return oldest;
}

/* No graphs from now on; a broken device shows at the next call. */
static void switch_off(struct cuda_backend *c, const char *what)
{
    c->graphs.off = true;
    cudaGetLastError();
    hg_log(HG_LOG_WARN, "cuda: steps run without graphs: %s", what);
}

enum hg_status cuda_graphs_begin(struct cuda_backend *c, const struct hg_plan *plan, bool *replayed)
{
    struct cuda_graphs *g = &c->graphs;
    struct cuda_graph_key key;
    *replayed = false;
    if (!make_key(c, plan, &key))
        return HG_STATUS_OK;
    struct cuda_graph *at = find(c, &key);
    bool again = at->used > 0;
    at->used = ++g->clock;
    if (at->exec) {
        HG_TRY(cuda_check(c, cudaGraphLaunch(at->exec, c->stream), "graph"));
        c->steps.n_sampled = at->n_sampled;
        *replayed = true;
        return HG_STATUS_OK;
    }
    if (!again)
        return HG_STATUS_OK;
    cudaError_t e = cudaStreamBeginCapture(c->stream, cudaStreamCaptureModeThreadLocal);
    if (e != cudaSuccess) {
        switch_off(c, cudaGetErrorName(e));
        return HG_STATUS_OK;
    }
    g->capturing = at;
    g->spoiled = NULL;
    return HG_STATUS_OK;
}

enum hg_status cuda_graphs_end(struct cuda_backend *c, bool keep, bool *again)
{
    struct cuda_graphs *g = &c->graphs;
    struct cuda_graph *at = g->capturing;
    cudaGraph_t graph = NULL;
    *again = false;
    if (!at)
        return HG_STATUS_OK;
    g->capturing = NULL;
    if (c->lost)
        return HG_STATUS_DEVICE;
    cudaError_t e = cudaStreamEndCapture(c->stream, &graph);
    if (keep && e == cudaSuccess && !g->spoiled)
        e = cudaGraphInstantiateWithFlags(&at->exec, graph, 0);
    if (graph)
        cudaGraphDestroy(graph);
    if (!keep) {
        cudaGetLastError();
        return HG_STATUS_OK;
    }
    if (e != cudaSuccess || g->spoiled) {
        switch_off(c, g->spoiled ? g->spoiled : cudaGetErrorName(e));
        at->exec = NULL;
        *again = true;
        return HG_STATUS_OK;
    }
    at->n_sampled = c->steps.n_sampled;
    return cuda_check(c, cudaGraphLaunch(at->exec, c->stream), "graph");
}

void cuda_graphs_drop(struct cuda_backend *c)
{
    struct cuda_graphs *g = &c->graphs;
    bool waited = false;
    for (int i = 0; i < CUDA_GRAPHS; i++) {
        if (g->at[i].exec && !c->lost) {
            if (!waited)
                cudaStreamSynchronize(c->stream);
            waited = true;
            cudaGraphExecDestroy(g->at[i].exec);
        }
        g->at[i] = (struct cuda_graph){.exec = NULL};
    }
}

bool cuda_graphs_spoil(struct cuda_backend *c, const char *what)
{
    struct cuda_graphs *g = &c->graphs;
    if (!g->capturing)
        return false;
    if (!g->spoiled)
        g->spoiled = what;
    return true;
}
