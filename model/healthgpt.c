/* model/healthgpt.c - load and free the whole model, and say what it is.
 *
 * Order of loading: the files (healthgpt_files.c), limits from shapes, backend reserve, vision
 * tower, language model with plug-ins, projectors, VQGAN, then the caches. Surplus tensors are
 * refused when everything needed was fetched. */
#include "model/healthgpt.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "model/dry_run.h"
#include "model/internal.h"
#include "model/model_path.h"
#include "model/numerics.h"

enum { DEFAULT_SEQS = 16, DEFAULT_BATCH_TOKENS = 1024 };

enum hg_status hg_model_fail_task(const struct hg_model_card *c, int task, struct hg_error *err)
{
    const char *why = c->tasks[task].unpublished;
    return hg_fail(err, HG_STATUS_UNSUPPORTED, "model %s has no %s%s%s", c->name,
                   hg_task_name((enum hg_task)task), why[0] ? ": " : "", why);
}

const char *hg_task_name(enum hg_task t)
{
    return t == HG_TASK_GENERATION ? "generation" : "comprehension";
}

bool hg_model_is_stop(const struct hg_model *m, int32_t id)
{
    for (int i = 0; i < m->llm_config.n_stop; i++)
        if (m->llm_config.stop_ids[i] == id)
            return true;
    return false;
}

static const char *const dtype_names[HG_DTYPE_COUNT] = {"f32",  "f16", "bf16",
                                                        "int8", "fp8", "int4"};

/* weights: the types of base weights, else those of caches and plug-ins. */
static enum hg_status parse_dtype(const char *option, const char *text, enum hg_dtype automatic,
                                  bool weights, enum hg_dtype *out, struct hg_error *err)
{
    *out = automatic;
    if (!text || strcmp(text, "auto") == 0)
        return HG_STATUS_OK;
    for (int i = 0; i <= (weights ? HG_DTYPE_I4 : HG_DTYPE_I8); i++)
        if (strcmp(text, dtype_names[i]) == 0) {
            *out = (enum hg_dtype)i;
            return HG_STATUS_OK;
        }
    return hg_fail(err, HG_STATUS_BAD_REQUEST,
                   "%s: expected auto, f32, f16, bf16%s int8%s, got \"%s\"", option,
                   weights ? "," : " or", weights ? ", fp8 or int4" : "", text);
}

static enum hg_status parse_rope(const char *text, enum hg_rope_mode *out, struct hg_error *err)
{
    static const char *const names[] = {"fp32", "fp16", "bf16"};
    for (int i = 0; i < 3; i++)
        if (strcmp(text, names[i]) == 0) {
            *out = (enum hg_rope_mode)i;
            return HG_STATUS_OK;
        }
    return hg_fail(err, HG_STATUS_BAD_REQUEST,
                   "rope_inv_freq: expected fp32, fp16 or bf16, got \"%s\"", text);
}

/* ---- network
 * -------------------------------------------------------------------------------------- */

static enum hg_dtype stored_type(const struct hg_model_files *f)
{
    const struct hg_tensor *t = hg_weights_find(f->base, "model.embed_tokens.weight");
    if (t && t->type == HG_TENSOR_TYPE_F16)
        return HG_DTYPE_F16;
    return t && t->type == HG_TENSOR_TYPE_BF16 ? HG_DTYPE_BF16 : HG_DTYPE_F32;
}

static enum hg_status reserve(struct hg_model *m, const struct hg_model_files *f,
                              const struct hg_llm_source *source, struct hg_error *err)
{
    struct hg_backend_limits limits;
    memset(&limits, 0, sizeof limits);
    hg_llm_limits(&m->llm_config, source, &limits);
    if (m->card.has_vision)
        hg_vision_limits(&m->vision_config, &limits);
    if (f->vqgan)
        HG_TRY(hg_vqgan_limits(f->vqgan, m->card.vqgan_grid, &limits, err));
    return m->backend->ops->reserve(m->backend, &limits, err);
}

/* A table that is too short for the ids of its task would leave some of them without a row. */
static enum hg_status check_rows(const struct hg_task_profile *p, int t, struct hg_error *err)
{
    if (p->hi <= p->n_rows)
        return HG_STATUS_OK;
    return hg_fail(err, HG_STATUS_BAD_FILE,
                   "tensor model.embed_tokens.weight for %s: expected at least %d rows, got %d%s",
                   hg_task_name((enum hg_task)t), p->hi, p->n_rows,
                   t == HG_TASK_GENERATION ? " (fusion file missing?)" : "");
}

static enum hg_status load_profile(struct hg_model *m, struct hg_model_files *f, int t,
                                   enum hg_dtype small, struct hg_error *err)
{
    const struct hg_task_card *c = &m->card.tasks[t];
    struct hg_task_profile *p = &m->tasks[t];
    bool image = t == HG_TASK_GENERATION;
    if (!c->present)
        return HG_STATUS_OK;
    p->present = true;
    p->slot = c->hlora[0] ? t : -1;
    p->set = t;
    p->start_image = image;
    p->max_new_tokens = c->max_new_tokens;
    p->n_rows = m->llm->sets[t].rows;
    p->lo = image && m->first_index_id >= 0 ? m->first_index_id : 0;
    p->hi = image && m->first_index_id >= 0 ? m->first_index_id + m->n_index : m->n_text;
    HG_TRY(check_rows(p, t, err));
    if (!m->vision || !f->task[t])
        return HG_STATUS_OK;
    p->vision_layer = hg_vision_layer_index(&m->vision_config, c->vision_layer);
    HG_TRY(hg_projector_load(m->backend, f->task[t], m->vision_config.dim, m->llm_config.dim,
                             m->n_image_rows, small, &p->projector, err));
    hg_projector_set_rounding(p->projector, m->rounding);
    return HG_STATUS_OK;
}

static enum hg_status load_vision(struct hg_model *m, struct hg_model_files *f, enum hg_dtype small,
                                  struct hg_error *err)
{
    int max_layer = 0;
    if (!f->vision)
        return HG_STATUS_OK;
    for (int t = 0; t < HG_TASK_COUNT; t++) {
        const struct hg_task_card *c = &m->card.tasks[t];
        int layer = c->present ? hg_vision_layer_index(&m->vision_config, c->vision_layer) : 0;
        if (layer < 0)
            return hg_fail(err, HG_STATUS_BAD_FILE,
                           "healthgpt.json: %s: vision_layer %d: the tower has %d layers",
                           hg_task_name((enum hg_task)t), c->vision_layer,
                           m->vision_config.n_layers);
        max_layer = layer > max_layer ? layer : max_layer;
    }
    HG_TRY(hg_vision_load(m->backend, &m->vision_config, f->vision, max_layer, small, &m->vision,
                          err));
    hg_vision_set_rounding(m->vision, m->rounding);
    return HG_STATUS_OK;
}

enum hg_status hg_model_load_network(struct hg_model *m, struct hg_model_files *f,
                                     const struct hg_model_options *o, const struct hg_kv_desc *kv,
                                     struct hg_error *err)
{
    enum hg_dtype store;
    struct hg_llm_source source = {.base = f->base, .max_tokens = m->max_batch_tokens};
    HG_TRY(parse_dtype("dtype", o->dtype, stored_type(f), true, &store, err));
    HG_TRY(parse_rope(o->rope ? o->rope : m->card.rope_inv_freq, &source.rope, err));
    enum hg_dtype plugin;
    HG_TRY(
        parse_dtype("plugin_dtype", o->plugin_dtype, hg_dtype_beside(store), false, &plugin, err));
    source.store = m->store = store;
    source.plugin = HG_PLUGIN_TYPE(plugin);
    m->plugin_store = plugin;
    source.rounding = m->rounding;
    for (int t = 0; t < HG_TASK_COUNT; t++) {
        source.task[t] = f->task[t];
        source.present[t] = m->card.tasks[t].present;
        source.alpha[t] = m->card.tasks[t].alpha;
    }
    enum hg_dtype small = store == HG_DTYPE_F32 ? HG_DTYPE_F32 : HG_DTYPE_F16;
    HG_TRY(reserve(m, f, &source, err));
    HG_TRY(hg_model_check_memory(m, f, kv, err));
    HG_TRY(load_vision(m, f, small, err));
    if (!hg_dry_run_of(m->backend))
        HG_TRY(
            hg_quant_cache_open(o->quant_cache, store, f->base, o->n_threads, &source.cache, err));
    enum hg_status status = hg_llm_load(m->backend, &m->llm_config, &source, &m->llm, err);
    hg_quant_cache_close(source.cache, status == HG_STATUS_OK);
    HG_TRY(status);
    for (int t = 0; t < HG_TASK_COUNT; t++)
        HG_TRY(load_profile(m, f, t, small, err));
    if (f->vqgan) {
        HG_TRY(hg_vqgan_load(m->backend, f->vqgan, m->card.vqgan_grid, m->card.norm_groups,
                             &m->vqgan, err));
        hg_vqgan_info(m->vqgan, &m->vqgan_info);
    }
    return hg_model_files_check_surplus(f, hg_dry_run_of(m->backend) != NULL, err);
}

/* ---- caches and tables
 * ------------------------------------------------------------------------------ */

/* All of the cache but its size. */
static enum hg_status describe_kv(const struct hg_model *m, const struct hg_model_options *o,
                                  struct hg_kv_desc *out, struct hg_error *err)
{
    const struct hg_llm_config *c = &m->llm_config;
    bool f32 = o->dtype && strcmp(o->dtype, "f32") == 0;
    *out = (struct hg_kv_desc){
        .n_layers = c->n_layers, .n_kv_heads = c->n_kv_heads, .head_dim = c->head_dim};
    return parse_dtype("kv_dtype", o->kv_dtype, f32 ? HG_DTYPE_F32 : HG_DTYPE_F16, false,
                       &out->type, err);
}

static enum hg_status create_features(struct hg_model *m, struct hg_error *err)
{
    struct hg_feature_pool *p = &m->features;
    const struct hg_backend_ops *ops = m->backend->ops;
    size_t act = hg_dtype_bytes(ops->act_type);
    if (!m->vision)
        return HG_STATUS_OK;
    int n_slots = m->max_seqs > HG_MAX_IMAGES ? m->max_seqs : HG_MAX_IMAGES;
    size_t rows = (size_t)m->n_image_rows, all = (size_t)n_slots * rows;
    if (all > HG_MAX_FEATURE_ROWS) /* they are negative token ids */
        return hg_fail(err, HG_STATUS_UNSUPPORTED, "vision: %d image slots of %zu rows", n_slots,
                       rows);
    size_t bytes = (all * (size_t)m->llm_config.dim + rows * (size_t)m->vision_config.dim) * act;
    HG_TRY(hg_feature_cache_init(&p->cache, n_slots, err));
    HG_TRY(ops->alloc(m->backend, all * (size_t)m->llm_config.dim * act, &p->rows, err));
    HG_TRY(ops->alloc(m->backend, rows * (size_t)m->vision_config.dim * act, &p->hidden, err));
    m->workspace_bytes += bytes;
    return HG_STATUS_OK;
}

static enum hg_status create_tables(struct hg_model *m, struct hg_error *err)
{
    struct hg_step_tables *s = &m->step;
    size_t t = (size_t)m->max_batch_tokens, n = (size_t)m->max_seqs;
    int rows =
        m->llm->sets[0].rows > m->llm->sets[1].rows ? m->llm->sets[0].rows : m->llm->sets[1].rows;
    s->max_blocks = hg_kv_cache_blocks_for(m->llm_config.max_positions);
    s->token = calloc(t * 5, sizeof *s->token);
    s->block_table = calloc(n * (size_t)s->max_blocks, sizeof *s->block_table);
    s->out_row = calloc(n * 2, sizeof *s->out_row);
    s->sample = calloc(n, sizeof *s->sample);
    bool complete = s->token && s->block_table && s->out_row && s->sample;
    for (int i = 0; i < HG_STEPS_AHEAD; i++) {
        struct hg_flight *f = &s->flights[i];
        f->items = calloc(n, sizeof *f->items);
        f->out_item = calloc(n, sizeof *f->out_item);
        f->result = calloc(n, sizeof *f->result);
        complete = complete && f->items && f->out_item && f->result;
    }
    if (!complete)
        return hg_fail(err, HG_STATUS_NO_MEMORY, "step tables");
    s->pos = s->token + t;
    s->seq = s->pos + t;
    s->slot = s->seq + t;
    s->table = s->slot + t;
    s->out_table = s->out_row + n;
    s->ld_logits = (rows + 15) / 16 * 16;
    size_t bytes = n * (size_t)s->ld_logits * sizeof(float);
    void *p = NULL;
    HG_TRY(m->backend->ops->alloc(m->backend, bytes, &p, err));
    s->logits = p;
    m->workspace_bytes += bytes;
    return HG_STATUS_OK;
}

/* ---- load and free
 * ------------------------------------------------------------------------------------ */

static enum hg_status set_limits(struct hg_model *m, const struct hg_model_options *o,
                                 struct hg_error *err)
{
    m->forget = o->forget;
    m->max_seqs = o->max_seqs ? o->max_seqs : DEFAULT_SEQS;
    m->max_batch_tokens = o->max_batch_tokens ? o->max_batch_tokens : DEFAULT_BATCH_TOKENS;
    if (m->max_seqs < 1 || m->max_seqs > 1024)
        return hg_fail(err, HG_STATUS_BAD_REQUEST, "max_seqs: expected 1..1024, got %d",
                       m->max_seqs);
    if (m->max_batch_tokens < m->max_seqs || m->max_batch_tokens > 65536)
        return hg_fail(err, HG_STATUS_BAD_REQUEST, "max_batch_tokens: expected %d..65536, got %d",
                       m->max_seqs, m->max_batch_tokens);
    return HG_STATUS_OK;
}

static enum hg_status load_all(struct hg_model *m, struct hg_model_files *f,
                               const struct hg_model_options *asked, struct hg_error *err)
{
    struct hg_model_options with_numerics;
    const struct hg_model_options *o = &with_numerics;
    HG_TRY(hg_numerics_apply(asked, &with_numerics, err));
    HG_TRY(set_limits(m, o, err));
    if (getrandom(m->hash_key, sizeof m->hash_key, 0) != (ssize_t)sizeof m->hash_key)
        return hg_fail(err, HG_STATUS_INTERNAL, "no random numbers for the keys of the cache");
    HG_TRY(hg_model_files_open(m, o, f, err));
    HG_TRY(hg_model_rehearse(m, f, o, 0, NULL, NULL, err));
    struct hg_backend_options backend = {.n_threads = o->n_threads};
    struct hg_load_meter meter;
    struct hg_kv_desc kv;
    HG_TRY(hg_model_utilization(o->gpu_memory_utilization, &backend.memory_utilization, err));
    HG_TRY(describe_kv(m, o, &kv, err));
    m->kv_store = kv.type;
    HG_TRY(hg_backend_open(o->backend ? o->backend : "auto", &backend, &m->backend, err));
    m->rounding = hg_numerics_rounding(o, m->llm_config.arch);
    hg_model_files_set_meter(f, &meter);
    HG_TRY(hg_model_load_network(m, f, o, &kv, err));
    HG_TRY(hg_model_lock_check(f, err));
    m->weights_crc32c = hg_model_files_crc32c(f);
    hg_load_meter_end(&meter, m->weights_crc32c);
    HG_TRY(create_features(m, err));
    HG_TRY(create_tables(m, err));
    HG_TRY(hg_model_create_kv(m, o->kv_tokens, &kv, err));
    hg_model_log_memory(m);
    return HG_STATUS_OK;
}

float hg_model_temperature(const struct hg_model *m, enum hg_task t)
{
    return (unsigned)t < HG_TASK_COUNT ? m->card.tasks[t].temperature : -1;
}

double hg_model_load_share(double *left_s)
{
    return hg_load_meter_share(left_s);
}

int hg_model_kv_free(const struct hg_model *m)
{
    return atomic_load(&m->kv.n_free);
}

int hg_model_kv_quarantined(const struct hg_model *m)
{
    return atomic_load(&m->kv.n_quarantine);
}

void hg_model_trust_all(struct hg_model *m)
{
    hg_kv_cache_trust_all(&m->kv);
}

void hg_model_forget(struct hg_model *m)
{
    hg_kv_cache_forget(&m->kv);
    hg_feature_cache_forget(&m->features.cache);
}

enum hg_status hg_model_load(const struct hg_model_options *o, struct hg_model **out,
                             struct hg_error *err)
{
    struct hg_model_files *files = calloc(1, sizeof *files);
    *out = NULL;
    struct hg_model *m = calloc(1, sizeof *m);
    if (!m || !files) {
        free(m);
        free(files);
        return hg_fail(err, HG_STATUS_NO_MEMORY, "model");
    }
    enum hg_status status = hg_model_explain_memory(m, load_all(m, files, o, err), err);
    hg_model_files_close(files);
    free(files);
    if (status != HG_STATUS_OK) {
        hg_model_free(m);
        return status;
    }
    *out = m;
    return HG_STATUS_OK;
}

void hg_model_free_network(struct hg_model *m)
{
    hg_vision_free(m->vision);
    for (int t = 0; t < HG_TASK_COUNT; t++)
        hg_projector_free(m->tasks[t].projector);
    hg_vqgan_free(m->vqgan);
    hg_llm_free(m->llm);
    m->vision = NULL;
    m->vqgan = NULL;
    m->llm = NULL;
    memset(m->tasks, 0, sizeof m->tasks);
    memset(&m->vqgan_info, 0, sizeof m->vqgan_info);
}

static void free_device(struct hg_model *m)
{
    struct hg_backend *b = m->backend;
    hg_kv_cache_deinit(&m->kv);
    hg_model_free_network(m);
    b->ops->free(b, m->features.rows);
    b->ops->free(b, m->features.hidden);
    b->ops->free(b, m->step.logits);
    hg_backend_close(b);
}

void hg_model_free(struct hg_model *m)
{
    if (!m)
        return;
    if (m->backend)
        free_device(m);
    hg_tokenizer_free(m->tokenizer);
    hg_feature_cache_deinit(&m->features.cache);
    free(m->step.token);
    free(m->step.block_table);
    free(m->step.out_row);
    free(m->step.sample);
    for (int i = 0; i < HG_STEPS_AHEAD; i++) {
        free(m->step.flights[i].items);
        free(m->step.flights[i].out_item);
        free(m->step.flights[i].result);
    }
    free(m);
}

const struct hg_tokenizer *hg_model_tokenizer(const struct hg_model *m)
{
    return m->tokenizer;
}

enum hg_status hg_model_canary_path(const struct hg_model *m, char *out, size_t cap,
                                    struct hg_error *err)
{
    const struct hg_model_place *p = &m->place;
    const char *slash = strrchr(p->card, '/');
    bool folder = strcmp(slash ? slash + 1 : p->card, "healthgpt.json") == 0;
    int n = snprintf(out, cap, "%s/%s%scanary.json", folder ? p->dir : p->root,
                     folder ? "" : m->card.name, folder ? "" : ".");
    if (n >= 0 && (size_t)n < cap)
        return HG_STATUS_OK;
    return hg_fail(err, HG_STATUS_TOO_LARGE, "canary.json: path too long");
}

size_t hg_model_weight_bytes(const struct hg_model *m)
{
    size_t n = m->llm->weight_bytes + m->vqgan_info.weight_bytes;
    for (int t = 0; t < HG_TASK_COUNT; t++)
        n += m->tasks[t].projector ? hg_projector_bytes(m->tasks[t].projector) : 0;
    return m->vision ? n + hg_vision_bytes(m->vision) : n;
}

/* With a pool the workspace is what the backend holds beside weights and cache, to the byte. */
static void put_pool(const struct hg_model *m, struct hg_model_info *out)
{
    struct hg_backend_memory memory;
    m->backend->ops->memory(m->backend, &memory);
    out->card_bytes = memory.card;
    out->card_free_bytes = memory.free_at_open;
    out->pool_bytes = memory.limit;
    out->pool_used_bytes = memory.used;
    out->scratch_bytes = memory.scratch;
    if (memory.used > out->weight_bytes + out->kv_bytes)
        out->workspace_bytes = memory.used - out->weight_bytes - out->kv_bytes;
}

static void put_work(const struct hg_model *m, struct hg_model_info *out)
{
    out->token_work = hg_llm_token_work(&m->llm_config);
    out->render_work = m->vqgan_info.decode_work;
    out->render_op = m->vqgan_info.largest_op;
    for (int t = 0; t < HG_TASK_COUNT; t++) {
        const struct hg_task_profile *p = &m->tasks[t];
        if (!p->projector)
            continue;
        int64_t work = hg_projector_work(p->projector, m->n_image_rows);
        out->vision_op = work > out->vision_op ? work : out->vision_op;
        for (int u = 0; u < hg_vision_n_units(m->vision, p->vision_layer); u++) {
            int64_t op = hg_vision_unit_work(m->vision, p->vision_layer, u);
            out->vision_op = op > out->vision_op ? op : out->vision_op;
            work += op;
        }
        out->vision_work = work > out->vision_work ? work : out->vision_work;
    }
}

void hg_model_info(const struct hg_model *m, struct hg_model_info *out)
{
    memset(out, 0, sizeof *out);
    snprintf(out->name, sizeof out->name, "%s", m->card.name);
    out->arch = m->llm_config.arch;
    out->notice = m->card.notice;
    out->backend = m->backend->ops->describe(m->backend);
    out->dtype = dtype_names[m->store];
    out->plugin_dtype = dtype_names[m->plugin_store];
    out->kv_dtype = dtype_names[m->kv_store];
    for (int t = 0; t < HG_TASK_COUNT; t++) {
        out->has_task[t] = m->tasks[t].present;
        out->can[t] = m->card.tasks[t].can;
        out->unpublished[t] = m->card.tasks[t].unpublished;
        out->max_new_tokens[t] = m->tasks[t].max_new_tokens;
        out->plugin_bytes[t] = m->llm->plugin_bytes[t];
    }
    out->has_image_encoder = m->vqgan_info.has_encoder;
    out->max_context = m->llm_config.max_positions;
    out->image_side = m->vision_config.image_side;
    out->n_image_rows = m->n_image_rows;
    out->grid_h = out->grid_w = m->vqgan_info.grid;
    out->output_side = m->vqgan_info.side;
    for (int t = 0; t < HG_TASK_COUNT; t++)
        if (out->n_vocab < m->llm->sets[t].rows)
            out->n_vocab = m->llm->sets[t].rows;
    out->n_index = m->n_index;
    out->first_index_id = m->first_index_id;
    out->max_seqs = m->max_seqs;
    out->max_batch_tokens = m->max_batch_tokens;
    out->kv_blocks = m->kv.n_blocks;
    out->kv_blocks_free = atomic_load(&m->kv.n_free);
    put_work(m, out);
    out->weight_bytes = hg_model_weight_bytes(m);
    out->weights_crc32c = m->weights_crc32c;
    out->kv_bytes = m->kv.bytes;
    out->workspace_bytes =
        m->workspace_bytes + m->llm->workspace_bytes + m->vqgan_info.workspace_bytes;
    if (m->vision)
        out->workspace_bytes += hg_vision_workspace(m->vision);
    put_pool(m, out);
}
