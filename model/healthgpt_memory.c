/* model/healthgpt_memory.c - what of the model fits into the backend's memory: the share of a card
 * that is asked for, the size of the KV cache, refusals with numbers, the line in the log. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/machine.h"
#include "model/internal.h"

enum { MAX_DEFAULT_KV_TOKENS = 65536, MAX_KV_TOKENS = 1 << 30 };

static const double default_utilization = 0.90;

enum hg_status hg_model_utilization(double option, double *out, struct hg_error *err)
{
    const char *text = getenv("HEALTHGPT_GPU_MEMORY_UTILIZATION");
    char *end = NULL;
    *out = option != 0 ? option : default_utilization;
    if (option == 0 && text && *text) {
        errno = 0;
        *out = strtod(text, &end);
        if (errno || *end)
            *out = NAN;
    }
    if (*out >= 0.01 && *out <= 1)
        return HG_STATUS_OK;
    return hg_fail(err, HG_STATUS_BAD_REQUEST,
                   "gpu_memory_utilization: expected a share in 0.01..1, got %.20s",
                   option == 0 && text ? text : "another number");
}

static double mb(size_t bytes)
{
    return (double)bytes / 1e6;
}

static struct hg_backend_memory memory_of(const struct hg_model *m)
{
    struct hg_backend_memory memory;
    m->backend->ops->memory(m->backend, &memory);
    return memory;
}

/* KV of one sequence as long as the context. */
static size_t context_bytes(const struct hg_kv_desc *desc, int max_positions)
{
    struct hg_kv_desc one = *desc;
    one.n_blocks = hg_kv_cache_blocks_for(max_positions);
    return hg_kv_desc_bytes(&one);
}

/* bound: "" or "at least ", when the weights are not all counted */
static enum hg_status refuse(const struct hg_model *m, const char *bound, size_t weights,
                             size_t workspace, size_t cache, const char *cache_is,
                             struct hg_error *err)
{
    struct hg_backend_memory have = memory_of(m);
    return hg_fail(
        err, HG_STATUS_NO_MEMORY,
        "device memory: %s%.1f MB wanted (weights %.1f, workspace %.1f, KV cache of %s %.1f), the "
        "pool has %.1f MB: %.2f of %.1f MB that were free of the card's %.1f MB. Raise "
        "--gpu-memory-utilization, or lower --dtype, --max-batch, --kv-dtype",
        bound, mb(weights + workspace + cache), mb(weights), mb(workspace), cache_is, mb(cache),
        mb(have.limit), (double)have.limit / (double)have.free_at_open, mb(have.free_at_open),
        mb(have.card));
}

/* ---- before the weights are read ---------------------------------------------------------------
 */

static bool starts_with(const char *s, const char *prefix)
{
    return strncmp(s, prefix, strlen(prefix)) == 0;
}

/* The matrices of the layers, which are all kept: a bound from below. A type that packs more than
 * one value into a byte is taken as half a byte. */
static size_t layers_at_least(const struct hg_weights *w, enum hg_dtype store)
{
    bool whole = store == HG_DTYPE_F32 || store == HG_DTYPE_F16 || store == HG_DTYPE_BF16 ||
                 store == HG_DTYPE_I8;
    size_t n = 0;
    for (size_t i = 0; w && i < hg_weights_count(w); i++) {
        const struct hg_tensor *t = hg_weights_at(w, i, NULL);
        if (t->n_dims == 2 && starts_with(t->name, "model.layers."))
            n += (size_t)hg_tensor_count(t);
    }
    return whole ? n * hg_dtype_bytes(store) : n / 2;
}

enum hg_status hg_model_check_memory(const struct hg_model *m, const struct hg_model_files *f,
                                     const struct hg_kv_desc *kv, struct hg_error *err)
{
    struct hg_backend_memory have = memory_of(m);
    size_t cache = context_bytes(kv, m->llm_config.max_positions);
    size_t weights = layers_at_least(f->base, m->store);
    for (int t = 0; t < HG_TASK_COUNT; t++)
        weights += layers_at_least(f->task[t], m->plugin_store);
    if (have.limit == 0 || have.used + weights <= have.limit)
        return HG_STATUS_OK;
    return refuse(m, "at least ", weights, have.used, cache, "one context", err);
}

enum hg_status hg_model_explain_memory(const struct hg_model *m, enum hg_status status,
                                       struct hg_error *err)
{
    struct hg_backend_memory have = {0};
    struct hg_error why = err ? *err : (struct hg_error){0};
    if (m->backend)
        have = memory_of(m);
    if (status != HG_STATUS_NO_MEMORY || have.limit == 0 || !strstr(why.text, "device memory") ||
        strstr(why.text, "Raise"))
        return status;
    return hg_fail(err, status,
                   "%.120s (%.1f MB of the pool's %.1f MB are in use; the card has %.1f MB, %.1f "
                   "were free). Raise --gpu-memory-utilization, or lower --dtype, --max-batch",
                   why.text, mb(have.used), mb(have.limit), mb(have.card), mb(have.free_at_open));
}

/* ---- the cache ---------------------------------------------------------------------------------
 */

int64_t hg_model_default_kv_tokens(int64_t max_seqs, int64_t context, size_t token_bytes,
                                   uint64_t memory_free)
{
    int64_t tokens = max_seqs * context;
    tokens = tokens < MAX_DEFAULT_KV_TOKENS ? tokens : MAX_DEFAULT_KV_TOKENS;
    int64_t half = (int64_t)(memory_free / 2 / (token_bytes ? token_bytes : 1));
    if (memory_free != 0 && half < tokens)
        tokens = half;
    return tokens > context ? tokens : context;
}

/* On a backend without a pool. */
static int64_t default_tokens(const struct hg_model *m, const struct hg_kv_desc *desc)
{
    struct hg_kv_desc one = *desc;
    struct hg_machine machine;
    one.n_blocks = 1;
    hg_machine_read("", &machine);
    uint64_t memory_free = hg_machine_memory_free(&machine);
    int64_t context = m->llm_config.max_positions;
    size_t token = hg_kv_desc_bytes(&one) / HG_BLOCK_TOKENS;
    int64_t tokens = hg_model_default_kv_tokens(m->max_seqs, context, token, memory_free);
    int64_t most = hg_model_default_kv_tokens(m->max_seqs, context, token, 0);
    if (tokens < most)
        hg_log(HG_LOG_INFO,
               "memory: %.1f MB are free, so the KV cache has %lld tokens, not %lld (--kv-tokens)",
               mb(memory_free), (long long)tokens, (long long)most);
    return tokens;
}

/* Blocks for `tokens`, which were asked for, or as many as the memory allows up to one context per
 * sequence. */
static enum hg_status count_blocks(const struct hg_model *m, int64_t tokens,
                                   const struct hg_kv_desc *desc, int *n_blocks,
                                   struct hg_error *err)
{
    struct hg_backend_memory have = memory_of(m);
    int64_t context = m->llm_config.max_positions, all = (int64_t)m->max_seqs * context;
    if (tokens == 0 && have.limit == 0)
        tokens = default_tokens(m, desc);
    if (tokens != 0) {
        if (tokens < HG_BLOCK_TOKENS || tokens > MAX_KV_TOKENS)
            return hg_fail(err, HG_STATUS_BAD_REQUEST, "kv_tokens: expected %d..%d, got %lld",
                           HG_BLOCK_TOKENS, MAX_KV_TOKENS, (long long)tokens);
        *n_blocks = hg_kv_cache_blocks_for((int)tokens);
        return HG_STATUS_OK;
    }
    struct hg_kv_desc one = *desc;
    one.n_blocks = 1;
    size_t block = hg_kv_desc_bytes(&one), spare = have.limit / 256, need;
    int64_t fit =
        have.largest > spare ? (int64_t)((have.largest - spare) / (block ? block : 1)) : 0;
    int64_t most =
        ((all < MAX_KV_TOKENS ? all : MAX_KV_TOKENS) + HG_BLOCK_TOKENS - 1) / HG_BLOCK_TOKENS;
    need = context_bytes(desc, (int)context);
    if (fit < hg_kv_cache_blocks_for((int)context)) {
        size_t weights = hg_model_weight_bytes(m);
        return refuse(m, "", weights, have.used - weights + spare, need, "one context", err);
    }
    *n_blocks = (int)(fit < most ? fit : most);
    return HG_STATUS_OK;
}

enum hg_status hg_model_create_kv(struct hg_model *m, int64_t tokens, struct hg_kv_desc *desc,
                                  struct hg_error *err)
{
    char asked[32];
    HG_TRY(count_blocks(m, tokens, desc, &desc->n_blocks, err));
    enum hg_status status = hg_kv_cache_init(&m->kv, m->backend, desc, err);
    struct hg_backend_memory have = memory_of(m);
    if (status != HG_STATUS_NO_MEMORY || have.limit == 0)
        return status;
    size_t weights = hg_model_weight_bytes(m);
    snprintf(asked, sizeof asked, "%lld tokens", (long long)desc->n_blocks * HG_BLOCK_TOKENS);
    return refuse(m, "", weights, have.used - weights, hg_kv_desc_bytes(desc), asked, err);
}

/* ---- what it came to ---------------------------------------------------------------------------
 */

void hg_model_log_memory(const struct hg_model *m)
{
    struct hg_model_info i;
    hg_model_info(m, &i);
    hg_log(HG_LOG_INFO, "storage: weights %s, plug-ins %s, KV cache %s", i.dtype, i.plugin_dtype,
           i.kv_dtype);
    size_t plugins = i.plugin_bytes[HG_TASK_COMPREHENSION] + i.plugin_bytes[HG_TASK_GENERATION];
    hg_log(HG_LOG_INFO,
           "memory: weights %.1f MB + plug-ins %.1f MB (%.1f comprehension, %.1f generation) + KV "
           "cache %.1f MB (%lld tokens) + workspace %.1f MB = %.1f MB",
           mb(i.weight_bytes - plugins), mb(plugins), mb(i.plugin_bytes[HG_TASK_COMPREHENSION]),
           mb(i.plugin_bytes[HG_TASK_GENERATION]), mb(i.kv_bytes),
           (long long)i.kv_blocks * HG_BLOCK_TOKENS, mb(i.workspace_bytes),
           mb(i.weight_bytes + i.kv_bytes + i.workspace_bytes));
    if (i.scratch_bytes)
        hg_log(HG_LOG_INFO, "memory: and %.1f MB for the backend's own work", mb(i.scratch_bytes));
    if (i.pool_bytes)
        hg_log(HG_LOG_INFO,
               "memory: pool %.1f MB (%.2f of the card's free %.1f of %.1f MB), %.1f MB used, %.1f "
               "MB free",
               mb(i.pool_bytes), (double)i.pool_bytes / (double)i.card_free_bytes,
               mb(i.card_free_bytes), mb(i.card_bytes), mb(i.pool_used_bytes),
               mb(i.pool_bytes - i.pool_used_bytes));
}
