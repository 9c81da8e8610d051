/* model/load/model_config.c - config.json, generation_config.json, preprocessor_config.json. */
#include "model/load/model_config.h"

#include <stdio.h>
#include <string.h>

#include "common/file.h"

enum { PATH_CAP = 4096, MAX_FILE_BYTES = 1 << 20, MAX_DIM = 65536, MAX_LAYERS = 512 };

static const double eps_min = 1e-12, eps_max = 0.1;

static enum hg_status load(const char *dir, const char *name, json_t **doc, struct hg_error *err)
{
    char path[PATH_CAP];
    *doc = NULL;
    if (hg_path_join(path, sizeof path, dir, name) != HG_STATUS_OK)
        return hg_fail(err, HG_STATUS_BAD_FILE, "%.100s: path is too long", dir);
    return hg_json_load(path, MAX_FILE_BYTES, doc, err);
}

/* ---- language model -----------------------------------------------------------------------------
 */

static enum hg_status read_arch(const struct hg_json_view *v, struct hg_llm_config *c,
                                struct hg_error *err)
{
    const char *type = NULL;
    HG_TRY(hg_json_string(v, "model_type", HG_JSON_REQUIRED, 64, &type, err));
    if (strcmp(type, "phi3") != 0 && strcmp(type, "qwen2") != 0 && strcmp(type, "llama") != 0)
        return hg_fail(err, HG_STATUS_UNSUPPORTED,
                       "%s: model_type: expected phi3, qwen2 or llama, got \"%.40s\"", v->where,
                       type);
    snprintf(c->arch, sizeof c->arch, "%s", type);
    c->fused = strcmp(type, "phi3") == 0;
    c->qkv_bias = strcmp(type, "qwen2") == 0;
    return HG_STATUS_OK;
}

static enum hg_status read_sizes(const struct hg_json_view *v, struct hg_llm_config *c,
                                 struct hg_error *err)
{
    const enum hg_json_need must = HG_JSON_REQUIRED, may = HG_JSON_OPTIONAL;
    HG_TRY(hg_json_int(v, "hidden_size", must, 2, MAX_DIM, &c->dim, err));
    HG_TRY(hg_json_int(v, "num_hidden_layers", must, 1, MAX_LAYERS, &c->n_layers, err));
    HG_TRY(hg_json_int(v, "num_attention_heads", must, 1, 1024, &c->n_heads, err));
    c->n_kv_heads = c->n_heads;
    HG_TRY(hg_json_int(v, "num_key_value_heads", may, 1, 1024, &c->n_kv_heads, err));
    HG_TRY(hg_json_int(v, "intermediate_size", must, 1, 4 * MAX_DIM, &c->ffn_dim, err));
    HG_TRY(hg_json_int(v, "vocab_size", must, 1, 1 << 22, &c->vocab, err));
    HG_TRY(hg_json_int(v, "max_position_embeddings", must, 1, 1 << 24, &c->max_positions, err));
    c->head_dim = c->dim / c->n_heads;
    HG_TRY(hg_json_int(v, "head_dim", may, 2, 1024, &c->head_dim, err));
    if (c->dim % c->n_heads || c->head_dim != c->dim / c->n_heads)
        return hg_fail(err, HG_STATUS_BAD_FILE,
                       "%s: hidden_size: expected heads x head_dim (%d x %d), got %d", v->where,
                       c->n_heads, c->head_dim, c->dim);
    if (c->head_dim % 2)
        return hg_fail(err, HG_STATUS_BAD_FILE, "%s: head_dim: expected an even number, got %d",
                       v->where, c->head_dim);
    if (c->n_heads % c->n_kv_heads)
        return hg_fail(err, HG_STATUS_BAD_FILE,
                       "%s: num_key_value_heads: expected a divisor of %d, got %d", v->where,
                       c->n_heads, c->n_kv_heads);
    return HG_STATUS_OK;
}

/* Newer writers keep theta inside rope_parameters; every scaled variant is refused. */
static enum hg_status read_rope(const struct hg_json_view *v, struct hg_llm_config *c,
                                struct hg_error *err)
{
    const json_t *scaling = json_object_get(v->obj, "rope_scaling");
    struct hg_json_view p = {0};
    const char *type = "default";
    double rotary = 1;
    c->rope_theta = 10000;
    if (scaling && !json_is_null(scaling))
        return hg_fail(err, HG_STATUS_UNSUPPORTED, "%s: rope_scaling: expected null", v->where);
    HG_TRY(hg_json_real(v, "rope_theta", HG_JSON_OPTIONAL, 1, 1e12, &c->rope_theta, err));
    HG_TRY(hg_json_real(v, "partial_rotary_factor", HG_JSON_OPTIONAL, 0, 1, &rotary, err));
    HG_TRY(hg_json_object(v, "rope_parameters", HG_JSON_OPTIONAL, &p, err));
    if (p.obj) {
        HG_TRY(hg_json_string(&p, "rope_type", HG_JSON_OPTIONAL, 64, &type, err));
        HG_TRY(hg_json_real(&p, "rope_theta", HG_JSON_OPTIONAL, 1, 1e12, &c->rope_theta, err));
        HG_TRY(hg_json_real(&p, "partial_rotary_factor", HG_JSON_OPTIONAL, 0, 1, &rotary, err));
    }
    if (strcmp(type, "default") != 0)
        return hg_fail(err, HG_STATUS_UNSUPPORTED, "%s: rope_type: expected default, got \"%.40s\"",
                       p.where, type);
    if (rotary != 1)
        return hg_fail(err, HG_STATUS_UNSUPPORTED, "%s: partial_rotary_factor: expected 1, got %g",
                       v->where, rotary);
    return HG_STATUS_OK;
}

/* The pinned Phi-3 lets query i see key j iff j >= i - w, which is w + 1 keys (reference.md 5.5).
 * Qwen2 keeps the layers below max_window_layers (28 when absent) without a window. */
static enum hg_status read_window(const struct hg_json_view *v, struct hg_llm_config *c,
                                  struct hg_error *err)
{
    int w = 0, from_layer = 28;
    bool use = c->fused;
    HG_TRY(hg_json_int(v, "sliding_window", HG_JSON_OPTIONAL, 1, 1 << 24, &w, err));
    if (c->qkv_bias) {
        HG_TRY(hg_json_bool(v, "use_sliding_window", HG_JSON_OPTIONAL, &use, err));
        HG_TRY(
            hg_json_int(v, "max_window_layers", HG_JSON_OPTIONAL, 0, MAX_LAYERS, &from_layer, err));
        if (use && w > 0 && from_layer > 0 && from_layer < c->n_layers)
            return hg_fail(err, HG_STATUS_UNSUPPORTED,
                           "%s: max_window_layers: expected 0 or all %d layers, got %d", v->where,
                           c->n_layers, from_layer);
        use = use && from_layer < c->n_layers;
    }
    if (use && w > 0)
        c->sliding_window = c->fused ? w + 1 : w;
    return HG_STATUS_OK;
}

static enum hg_status expect_false(const struct hg_json_view *v, const char *key,
                                   struct hg_error *err)
{
    bool value = false;
    HG_TRY(hg_json_bool(v, key, HG_JSON_OPTIONAL, &value, err));
    if (value)
        return hg_fail(err, HG_STATUS_UNSUPPORTED, "%s: %s: expected false, got true", v->where,
                       key);
    return HG_STATUS_OK;
}

static enum hg_status expect_text(const struct hg_json_view *v, const char *key, const char *want,
                                  struct hg_error *err)
{
    const char *text = want;
    HG_TRY(hg_json_string(v, key, HG_JSON_OPTIONAL, 64, &text, err));
    if (strcmp(text, want) != 0)
        return hg_fail(err, HG_STATUS_UNSUPPORTED, "%s: %s: expected %s, got \"%.40s\"", v->where,
                       key, want, text);
    return HG_STATUS_OK;
}

static enum hg_status read_rest(const struct hg_json_view *v, struct hg_llm_config *c,
                                struct hg_error *err)
{
    double eps = c->fused ? 1e-5 : 1e-6;
    HG_TRY(hg_json_real(v, "rms_norm_eps", HG_JSON_OPTIONAL, eps_min, eps_max, &eps, err));
    c->norm_eps = (float)eps;
    HG_TRY(expect_text(v, "hidden_act", "silu", err));
    if (!c->qkv_bias)
        HG_TRY(expect_false(v, "attention_bias", err));
    HG_TRY(expect_false(v, "mlp_bias", err));
    return hg_json_bool(v, "tie_word_embeddings", HG_JSON_OPTIONAL, &c->tie_embeddings, err);
}

/* A token id or, for eos_token_id, a list of ids. */
static enum hg_status read_ids(const struct hg_json_view *v, struct hg_llm_config *c,
                               struct hg_error *err)
{
    int top = c->vocab - 1;
    size_t n = 0;
    HG_TRY(hg_json_int(v, "bos_token_id", HG_JSON_OPTIONAL, 0, top, &c->bos, err));
    HG_TRY(hg_json_int(v, "pad_token_id", HG_JSON_OPTIONAL, -1, top, &c->pad, err));
    if (json_is_array(json_object_get(v->obj, "eos_token_id"))) {
        HG_TRY(hg_json_ints(v, "eos_token_id", HG_JSON_OPTIONAL, 0, top, c->stop_ids,
                            HG_MAX_STOP_IDS, &n, err));
        c->n_stop = (int)n;
    } else {
        int id = -1;
        HG_TRY(hg_json_int(v, "eos_token_id", HG_JSON_OPTIONAL, 0, top, &id, err));
        if (id >= 0) {
            c->stop_ids[0] = id;
            c->n_stop = 1;
        }
    }
    c->eos = c->n_stop ? c->stop_ids[0] : -1;
    return HG_STATUS_OK;
}

enum hg_status hg_llm_config_parse(const json_t *config, const json_t *generation,
                                   struct hg_llm_config *out, struct hg_error *err)
{
    struct hg_json_view v = hg_json_view_of(config, "config.json");
    *out = (struct hg_llm_config){.bos = -1, .eos = -1, .pad = -1, .repetition_penalty = 1};
    HG_TRY(read_arch(&v, out, err));
    HG_TRY(read_sizes(&v, out, err));
    HG_TRY(read_rope(&v, out, err));
    HG_TRY(read_window(&v, out, err));
    HG_TRY(read_rest(&v, out, err));
    HG_TRY(read_ids(&v, out, err));
    if (!generation)
        return HG_STATUS_OK;
    struct hg_json_view g = hg_json_view_of(generation, "generation_config.json");
    double penalty = 1;
    HG_TRY(read_ids(&g, out, err));
    HG_TRY(hg_json_real(&g, "repetition_penalty", HG_JSON_OPTIONAL, 0.01, 100, &penalty, err));
    out->repetition_penalty = (float)penalty;
    return HG_STATUS_OK;
}

enum hg_status hg_llm_config_read(const char *dir, struct hg_llm_config *out, struct hg_error *err)
{
    json_t *config = NULL, *generation = NULL;
    struct hg_error why;
    enum hg_status status = load(dir, "config.json", &config, err);
    if (status != HG_STATUS_OK)
        return status;
    status = load(dir, "generation_config.json", &generation, &why);
    if (status == HG_STATUS_OK || status == HG_STATUS_NOT_FOUND)
        status = hg_llm_config_parse(config, generation, out, err);
    else
        hg_fail(err, status, "%s", why.text);
    json_decref(config);
    json_decref(generation);
    return status;
}

/* ---- vision tower -------------------------------------------------------------------------------
 */

enum hg_status hg_vision_config_parse(const json_t *config, struct hg_vision_config *out,
                                      struct hg_error *err)
{
    const enum hg_json_need must = HG_JSON_REQUIRED;
    struct hg_json_view v = hg_json_view_of(config, "config.json");
    const char *type = NULL;
    double eps = 1e-5;
    *out = (struct hg_vision_config){.n_channels = 3};
    HG_TRY(hg_json_string(&v, "model_type", must, 64, &type, err));
    if (strcmp(type, "clip") == 0) {
        struct hg_json_view nested;
        HG_TRY(hg_json_object(&v, "vision_config", must, &nested, err));
        v = nested;
    } else if (strcmp(type, "clip_vision_model") != 0) {
        return hg_fail(err, HG_STATUS_UNSUPPORTED,
                       "%s: model_type: expected clip_vision_model or clip, got \"%.40s\"", v.where,
                       type);
    }
    HG_TRY(hg_json_int(&v, "hidden_size", must, 1, MAX_DIM, &out->dim, err));
    HG_TRY(hg_json_int(&v, "num_hidden_layers", must, 1, MAX_LAYERS, &out->n_layers, err));
    HG_TRY(hg_json_int(&v, "num_attention_heads", must, 1, 1024, &out->n_heads, err));
    HG_TRY(hg_json_int(&v, "intermediate_size", must, 1, 4 * MAX_DIM, &out->ffn_dim, err));
    HG_TRY(hg_json_int(&v, "image_size", must, 1, 4096, &out->image_side, err));
    HG_TRY(hg_json_int(&v, "patch_size", must, 1, 256, &out->patch, err));
    HG_TRY(hg_json_int(&v, "num_channels", HG_JSON_OPTIONAL, 3, 3, &out->n_channels, err));
    HG_TRY(hg_json_real(&v, "layer_norm_eps", HG_JSON_OPTIONAL, eps_min, eps_max, &eps, err));
    out->norm_eps = (float)eps;
    HG_TRY(expect_text(&v, "hidden_act", "quick_gelu", err));
    if (out->dim % out->n_heads)
        return hg_fail(err, HG_STATUS_BAD_FILE,
                       "%s: hidden_size: expected a multiple of %d heads, got %d", v.where,
                       out->n_heads, out->dim);
    if (out->image_side % out->patch)
        return hg_fail(err, HG_STATUS_BAD_FILE,
                       "%s: image_size: expected a multiple of patch_size %d, got %d", v.where,
                       out->patch, out->image_side);
    return HG_STATUS_OK;
}

enum hg_status hg_vision_config_read(const char *dir, struct hg_vision_config *out,
                                     struct hg_error *err)
{
    json_t *config;
    HG_TRY(load(dir, "config.json", &config, err));
    enum hg_status status = hg_vision_config_parse(config, out, err);
    json_decref(config);
    return status;
}

/* ---- preprocessing ------------------------------------------------------------------------------
 */

/* A number, {"shortest_edge": n} or {"height": n, "width": n}; 0 when the key is absent. */
static enum hg_status read_side(const struct hg_json_view *v, const char *key, int *side,
                                struct hg_error *err)
{
    struct hg_json_view size;
    int other = 0;
    *side = 0;
    if (!json_is_object(json_object_get(v->obj, key)))
        return hg_json_int(v, key, HG_JSON_OPTIONAL, 1, 4096, side, err);
    HG_TRY(hg_json_object(v, key, HG_JSON_REQUIRED, &size, err));
    if (json_object_get(size.obj, "shortest_edge"))
        return hg_json_int(&size, "shortest_edge", HG_JSON_REQUIRED, 1, 4096, side, err);
    HG_TRY(hg_json_int(&size, "height", HG_JSON_REQUIRED, 1, 4096, side, err));
    HG_TRY(hg_json_int(&size, "width", HG_JSON_REQUIRED, 1, 4096, &other, err));
    if (other != *side)
        return hg_fail(err, HG_STATUS_UNSUPPORTED, "%s: expected a square, got %d x %d", size.where,
                       *side, other);
    return HG_STATUS_OK;
}

static enum hg_status read_three(const struct hg_json_view *v, const char *key, double min,
                                 float out[3], struct hg_error *err)
{
    const json_t *list = json_object_get(v->obj, key);
    if (json_array_size(list) != 3)
        return hg_fail(err, HG_STATUS_BAD_FILE, "%s: %s: expected three numbers", v->where, key);
    for (size_t i = 0; i < 3; i++) {
        const json_t *x = json_array_get(list, i);
        double d = json_is_number(x) ? json_number_value(x) : -1e9;
        if (!(d >= min && d <= 1000))
            return hg_fail(err, HG_STATUS_BAD_FILE, "%s: %s[%zu]: expected a number %g to 1000",
                           v->where, key, i, min);
        out[i] = (float)d;
    }
    return HG_STATUS_OK;
}

static enum hg_status expect_true(const struct hg_json_view *v, const char *key,
                                  struct hg_error *err)
{
    bool value = true;
    HG_TRY(hg_json_bool(v, key, HG_JSON_OPTIONAL, &value, err));
    if (!value)
        return hg_fail(err, HG_STATUS_UNSUPPORTED, "%s: %s: expected true, got false", v->where,
                       key);
    return HG_STATUS_OK;
}

enum hg_status hg_preprocess_config_parse(const json_t *config, struct hg_preprocess_config *out,
                                          struct hg_error *err)
{
    static const char *const steps[] = {"do_resize", "do_center_crop", "do_normalize", "do_rescale",
                                        "do_convert_rgb"};
    struct hg_json_view v = hg_json_view_of(config, "preprocessor_config.json");
    int resample = 3, crop = 0;
    *out = (struct hg_preprocess_config){.rescale = 1.0 / 255};
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++)
        HG_TRY(expect_true(&v, steps[i], err));
    HG_TRY(hg_json_int(&v, "resample", HG_JSON_OPTIONAL, 0, 5, &resample, err));
    if (resample != 3)
        return hg_fail(err, HG_STATUS_UNSUPPORTED, "%s: resample: expected 3 (bicubic), got %d",
                       v.where, resample);
    HG_TRY(read_side(&v, "size", &out->side, err));
    HG_TRY(read_side(&v, "crop_size", &crop, err));
    if (out->side == 0)
        return hg_fail(err, HG_STATUS_BAD_FILE, "%s: size: expected a number or an object",
                       v.where);
    if (crop && crop != out->side)
        return hg_fail(err, HG_STATUS_UNSUPPORTED, "%s: crop_size: expected the size %d, got %d",
                       v.where, out->side, crop);
    HG_TRY(read_three(&v, "image_mean", -1000, out->mean, err));
    HG_TRY(read_three(&v, "image_std", 1e-6, out->std, err));
    return hg_json_real(&v, "rescale_factor", HG_JSON_OPTIONAL, 1e-9, 1000, &out->rescale, err);
}

enum hg_status hg_preprocess_config_read(const char *dir, struct hg_preprocess_config *out,
                                         struct hg_error *err)
{
    json_t *config;
    HG_TRY(load(dir, "preprocessor_config.json", &config, err));
    enum hg_status status = hg_preprocess_config_parse(config, out, err);
    json_decref(config);
    return status;
}
