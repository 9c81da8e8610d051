/* tools/healthgpt/doctor_memory.c - memory from the shapes in the headers: weights as the loader
 * stores them, the KV cache, and the workspace that the model allocates on the cpu backend. */
#include <stdio.h>
#include <string.h>

#include "kernels/backend.h"
#include "model/internal.h"
#include "model/load/weights.h"
#include "model/vqgan_net.h"
#include "tools/healthgpt/cards.h"
#include "tools/healthgpt/doctor_model.h"
#include "tools/healthgpt/estimate.h"

/* As model/healthgpt.c and model/healthgpt_memory.c have them. */
enum { BATCH_TOKENS = 1024, ACT = 4 };

struct need {
    int64_t kv, kv_context, kv_tokens, workspace;
    int64_t scratch; /* more, on a card */
};

/* ---- workspace ------------------------------------------------------------------------------- */

static int64_t most(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static int64_t llm_workspace(const struct hg_llm_config *c)
{
    int64_t width = (int64_t)c->n_heads * c->head_dim;
    return ACT * (int64_t)BATCH_TOKENS * (c->dim + 2 * width + c->ffn_dim);
}

static int64_t vision_workspace(const struct hg_doctor_model *m, int64_t n_seqs)
{
    const struct hg_vision_config *v = &m->vision;
    int64_t side = v->image_side / v->patch, n = side * side, rows = n + 1;
    int64_t patch = n * v->patch * v->patch * v->n_channels;
    int64_t slots = most(n_seqs, HG_MAX_IMAGES);
    int64_t own = rows * v->dim * 5 + most(rows * v->ffn_dim, patch) + patch;
    return ACT * (own + slots * n * m->llm.dim + n * v->dim);
}

static int64_t vqgan_workspace(const struct hg_doctor_model *m)
{
    static struct hg_vqgan_net net;
    char path[HG_DOCTOR_PATH];
    struct hg_weights *w = NULL;
    int64_t bytes = 0;
    if (m->card.has_vqgan && hg_doctor_path(m, m->card.vqgan_path, path) &&
        hg_weights_create(&w, NULL) == HG_STATUS_OK &&
        hg_weights_add_file(w, path, NULL) == HG_STATUS_OK &&
        hg_vqgan_net_derive(w, m->card.vqgan_grid, &net, NULL) == HG_STATUS_OK)
        bytes = 3 * ACT * hg_vqgan_net_activation(&net) + (int64_t)net.side * net.side * 3 * ACT;
    hg_weights_free(w);
    return bytes;
}

/* ---- cache ----------------------------------------------------------------------------------- */

static int64_t kv_bytes(const struct hg_doctor_model *m, int64_t tokens)
{
    const char *type = m->d->config.kv_dtype;
    struct hg_kv_desc k = {.n_layers = m->llm.n_layers,
                           .n_kv_heads = m->llm.n_kv_heads,
                           .head_dim = m->llm.head_dim,
                           .n_blocks = (int)((tokens + HG_BLOCK_TOKENS - 1) / HG_BLOCK_TOKENS),
                           .type = HG_DTYPE_F16};
    if (strcmp(type, "int8") == 0)
        k.type = HG_DTYPE_I8;
    else if (strcmp(type, "f32") == 0 ||
             (strcmp(type, "auto") == 0 && strcmp(m->d->config.dtype, "f32") == 0))
        k.type = HG_DTYPE_F32;
    return (int64_t)hg_kv_desc_bytes(&k);
}

/* An allowance for the scratch of the cuda backend, which sizes it when it is there. On the
 * emulated card it took 70 MB for the demo model (workspace 7), 699 at M3's widths (313), 705 at
 * L14's (454).
 */
static int64_t card_scratch(int64_t workspace)
{
    const int64_t least = 64000000, most_seen = 768000000;
    int64_t bytes = least + workspace / 4 * 9;
    return bytes < most_seen ? bytes : most_seen;
}

static struct need need_of(const struct hg_doctor_model *m)
{
    const struct hg_config *c = &m->d->config;
    struct need n;
    n.kv_tokens = c->kv_tokens
                      ? c->kv_tokens
                      : hg_model_default_kv_tokens(c->max_batch, m->llm.max_positions, 0, 0);
    n.kv = kv_bytes(m, n.kv_tokens);
    n.kv_context = kv_bytes(m, m->llm.max_positions);
    int64_t rows = m->llm.vocab;
    if (m->part.fusion.n_rows > 0) /* of its head */
        rows = most(rows, m->part.fusion.n_rows);
    n.workspace = llm_workspace(&m->llm) + c->max_batch * ((rows + 15) / 16 * 16) * ACT;
    if (m->has_vision)
        n.workspace += vision_workspace(m, c->max_batch);
    n.workspace += vqgan_workspace(m);
    n.scratch = card_scratch(n.workspace);
    return n;
}

/* ---- against what there is ------------------------------------------------------------------- */

static const char *const types[] = {"f32", "bf16", "int8", "fp8", "int4"};
enum { N_TYPES = 5 };

/* One context must fit beside weights and workspace: what is left is more cache. */
static int64_t card_need(const struct hg_doctor_model *m, const struct need *n, const char *dtype)
{
    return hg_inspect_model_bytes(&m->part, dtype) + n->workspace + n->kv_context + n->scratch;
}

static void put_type(const struct hg_doctor_model *m, const struct need *n, const char *dtype,
                     char fits[HG_CARDS_TEXT])
{
    struct hg_json_out *o = m->d->o;
    int64_t weights = hg_inspect_model_bytes(&m->part, dtype), need = card_need(m, n, dtype);
    double share = m->d->config.gpu_memory_utilization;
    hg_out_open(o, dtype, '{');
    hg_out_int(o, "weights_bytes", weights);
    hg_out_int(o, "total_bytes", weights + n->workspace + n->kv);
    hg_out_int(o, "card_bytes", need);
    hg_cards_put(o, need, share);
    hg_cards_text(need, share, fits);
    hg_out_close(o, '}');
}

static void say_type(const struct hg_doctor_model *m, const struct need *n, const char *dtype,
                     const char *fits)
{
    char weights[32], kv[32], workspace[32], all[32];
    int64_t w = hg_inspect_model_bytes(&m->part, dtype);
    hg_doctor_size_text(w, weights);
    hg_doctor_size_text(n->kv, kv);
    hg_doctor_size_text(n->workspace, workspace);
    hg_doctor_size_text(w + n->kv + n->workspace, all);
    HG_DOCTOR_OK_NOTE(
        m->d, "needs",
        "--dtype %s: %s (weights %s, KV cache of %lld tokens %s, workspace %s); cards "
        "that it fits, in GB: %s",
        dtype, all, weights, (long long)n->kv_tokens, kv, workspace,
        fits[0] ? fits : "none up to 141");
}

/* What stands beside the language model's weights, whatever their type (but f32). */
static void put_parts(const struct hg_doctor_model *m, const struct need *n)
{
    const struct hg_inspect_parts *p = &m->part;
    const struct {
        const char *key, *name;
        int64_t bytes;
    } rows[] = {
        {"plugin_bytes", "plug-ins and projectors", hg_inspect_side_bytes(&p->plugins, "bf16")},
        {"fusion_bytes", "fusion tables", hg_inspect_bytes_as(&p->fusion, "bf16")},
        {"vision_bytes", "vision tower", hg_inspect_side_bytes(&p->vision, "bf16")},
        {"vqgan_bytes", "VQGAN (f32)", hg_inspect_vqgan_bytes(&p->vqgan)}};
    char text[256], size[32], context[32];
    size_t at = 0;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        hg_out_int(m->d->o, rows[i].key, rows[i].bytes);
        hg_doctor_size_text(rows[i].bytes, size);
        at += (size_t)snprintf(text + at, sizeof text - at, "%s%s %s", at ? ", " : "", rows[i].name,
                               size);
    }
    hg_doctor_size_text(n->kv_context, context);
    HG_DOCTOR_OK_NOTE(m->d, "parts",
                      "with each type: %s; KV cache: %lld bytes a token, %s a full context of %d, "
                      "one for each question or drawing that runs",
                      text, (long long)kv_bytes(m, HG_BLOCK_TOKENS) / HG_BLOCK_TOKENS, context,
                      m->llm.max_positions);
}

/* The type that this configuration stores: "auto" is as in the files. */
static const char *chosen_type(const struct hg_doctor_model *m)
{
    const char *dtype = m->d->config.dtype;
    const int64_t *n = m->part.llm.by_type;
    if (strcmp(dtype, "auto") != 0)
        return dtype;
    return n[HG_TENSOR_TYPE_F32] > n[HG_TENSOR_TYPE_F16] + n[HG_TENSOR_TYPE_BF16] ? "f32" : "bf16";
}

/* Is the model to run on a card? */
static bool on_card(const struct hg_doctor *d)
{
    return d->has_card &&
           (strcmp(d->config.backend, "auto") == 0 || strcmp(d->config.backend, "cuda") == 0);
}

/* Weights of that type, workspace and cache on this machine. A cache of no given size takes what
 * memory has left. */
static int64_t host_need(const struct hg_doctor_model *m, const struct need *n, const char *dtype,
                         int64_t left)
{
    const struct hg_config *c = &m->d->config;
    int64_t rest = hg_inspect_model_bytes(&m->part, dtype) + n->workspace;
    if (c->kv_tokens != 0)
        return rest + n->kv;
    size_t token = (size_t)(kv_bytes(m, HG_BLOCK_TOKENS) / HG_BLOCK_TOKENS);
    uint64_t free_then = left > rest ? (uint64_t)(left - rest) : 1;
    return rest + kv_bytes(m, hg_model_default_kv_tokens(c->max_batch, m->llm.max_positions, token,
                                                         free_then));
}

static int64_t need_with(const struct hg_doctor_model *m, const struct need *n, const char *dtype,
                         int64_t left)
{
    return on_card(m->d) ? card_need(m, n, dtype) : host_need(m, n, dtype, left);
}

static void judge(const struct hg_doctor_model *m, const struct need *n)
{
    struct hg_doctor *d = m->d;
    const char *dtype = chosen_type(m), *best = NULL;
    bool card = on_card(d);
    int64_t there = (int64_t)hg_machine_memory(&d->machine);
    int64_t left = (int64_t)hg_machine_memory_free(&d->machine);
    if (card)
        there = left = (int64_t)((double)d->card_free * d->config.gpu_memory_utilization);
    int64_t all = need_with(m, n, dtype, left);
    for (int i = 1; i < N_TYPES && !best; i++) /* nobody is told to take f32 */
        if (need_with(m, n, types[i], left) <= left)
            best = types[i];
    char next[96] = "a smaller --kv-tokens, or a machine with more", want[32], has[32], now[32];
    if (best && strcmp(best, dtype) != 0)
        snprintf(next, sizeof next, "--dtype %s fits", best);
    const char *where = card ? "the card" : "this machine";
    hg_doctor_size_text(all, want);
    hg_doctor_size_text(there, has);
    hg_doctor_size_text(left, now);
    if (there == 0)
        HG_DOCTOR_WARN_NOTE(d, "memory_fits", "%s wanted with %s; how much there is: not known",
                            want, dtype);
    else if (all > there)
        HG_DOCTOR_FAIL_NOTE(d, HG_STATUS_NO_MEMORY, "memory_fits",
                            "%s wanted with %s, %s has %s\n%s", want, dtype, where, has, next);
    else if (all > left)
        HG_DOCTOR_WARN_NOTE(d, "memory_fits",
                            "%s wanted with %s, %s has %s, of which %s are free\n"
                            "end what else is running, or: %s",
                            want, dtype, where, has, now, next);
    else
        HG_DOCTOR_OK_NOTE(d, "memory_fits", "%s wanted with %s, %s has %s free", want, dtype, where,
                          now);
}

void hg_doctor_memory(struct hg_doctor_model *m)
{
    struct hg_doctor *d = m->d;
    char fits[HG_CARDS_TEXT];
    bool whole = m->has_llm && m->part.llm.n_elements > 0 && m->n_bad == 0 && !m->late;
    if (!whole && !hg_estimate(&m->card, &m->part, &m->llm, &m->vision)) {
        hg_out_string(d->o, "needs", NULL);
        return; /* sums of half a model mislead */
    }
    if (!whole) {
        m->has_llm = true;
        m->has_vision = m->vision.dim > 0;
        HG_DOCTOR_OK_NOTE(
            d, "estimate",
            "not all files are there: what follows is counted from the constants in the "
            "card of %.63s",
            m->card.name);
    }
    struct need n = need_of(m);
    hg_out_open(d->o, "needs", '{');
    hg_out_bool(d->o, "estimated", !whole);
    put_parts(m, &n);
    hg_out_int(d->o, "kv_tokens", n.kv_tokens);
    hg_out_int(d->o, "kv_bytes", n.kv);
    hg_out_int(d->o, "kv_context_bytes", n.kv_context);
    hg_out_int(d->o, "workspace_bytes", n.workspace);
    hg_out_int(d->o, "card_scratch_bytes", n.scratch);
    for (int i = 0; i < N_TYPES; i++) {
        put_type(m, &n, types[i], fits);
        say_type(m, &n, types[i], fits);
    }
    hg_out_close(d->o, '}');
    judge(m, &n);
}
