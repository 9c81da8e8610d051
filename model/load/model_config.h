/* model/load/model_config.h - the JSON files of a model folder as checked structs.
 *
 * Every field has been checked against its range and against the others, so that the network can
 * allocate from it. What this server does not compute (rope scaling, other activations, ...) is
 * UNSUPPORTED rather than ignored. Messages read "config.json: key: expected ..., got ...". */
#ifndef HG_MODEL_LOAD_MODEL_CONFIG_H
#define HG_MODEL_LOAD_MODEL_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "common/json.h"
#include "common/status.h"

enum { HG_MAX_STOP_IDS = 16, HG_CARD_TASKS = 2, HG_MAX_EXPECT = 64, HG_MAX_EXPECTED = 4 };

struct hg_llm_config {
    char arch[16]; /* "phi3", "qwen2" or "llama" */
    int dim;
    int n_layers;
    int n_heads;
    int n_kv_heads;
    int head_dim; /* even; n_heads * head_dim == dim */
    int ffn_dim;
    int vocab; /* rows of the base tables */
    float norm_eps;
    double rope_theta;
    int max_positions;
    int sliding_window; /* keys a query sees, itself included; 0: all. Phi-3's config says one less
                         */
    bool qkv_bias;      /* qwen2 */
    bool fused;         /* phi3: qkv_proj and gate_up_proj */
    bool tie_embeddings;
    int stop_ids[HG_MAX_STOP_IDS];
    int n_stop;
    float repetition_penalty; /* 1: off */
    int bos, eos, pad;        /* -1: none */
};

struct hg_vision_config {
    int dim;
    int n_layers;
    int n_heads;
    int ffn_dim;
    int image_side; /* pixels, a multiple of patch */
    int patch;
    int n_channels; /* 3 */
    float norm_eps;
};

/* p (0..255) -> (float(p * rescale) - mean[c]) / std[c], after a bicubic resize to side x side. */
struct hg_preprocess_config {
    int side;
    float mean[3], std[3];
    double rescale;
};

/* Where a piece comes from: names and pages, nothing is fetched (model/load/model_source.h). */
enum hg_source_role {
    HG_SOURCE_LLM,
    HG_SOURCE_VISION,
    HG_SOURCE_VQGAN,
    HG_SOURCE_PLUGINS,
    HG_SOURCE_COUNT
};

enum { HG_REPOSITORY_CAP = 128, HG_MAX_PLACES = 4 };

struct hg_source {
    char repository[HG_REPOSITORY_CAP]; /* of Hugging Face, "owner/name"; "": none */
    char page[200];                     /* "": that of the repository */
    char alternatives[HG_MAX_PLACES][HG_REPOSITORY_CAP]; /* repositories that hold the same */
    char names[HG_MAX_PLACES][HG_REPOSITORY_CAP];        /* further plain names */
    int n_alternatives, n_names;
};

/* A constant of the published model (reference.md 1, 7): a cross-check that warns, see expect.h. */
struct hg_expectation {
    char file[24], key[32]; /* "config.json", "hidden_size" */
    double value[HG_MAX_EXPECTED];
    int n;
};

struct hg_task_card {
    bool present;
    char hlora[256];  /* path below the card's folder; "": no plug-in weights */
    char fusion[256]; /* "": the base tables */
    float alpha;      /* H-LoRA; 0 without plug-in weights */
    int vision_layer; /* -2: the last but one hidden state */
    int max_new_tokens;
    float temperature;     /* of requests that bring none; -1: not said */
    char can[256];         /* what its published weights can do, in a sentence; "": not said */
    char unpublished[200]; /* "": they are published. Else why not: the task is present when its
                              plug-in file is found, and absent without an error when it is not */
};

/* healthgpt.json, or a card file of another name. `system` points into the struct itself: read it
 * in place, do not copy the struct. */
struct hg_model_card {
    char name[64];
    char llm[256], vision[256], vqgan_path[256]; /* plain names, see model_source.h */
    bool has_vision, has_vqgan;
    int norm_groups;        /* GroupNorm of the VQGAN; 32 */
    int vqgan_grid;         /* index tokens per side; 32 */
    int n_image_tokens;     /* index codes; 0: as many as the VQGAN has */
    char template_name[32]; /* "phi3_instruct", ... */
    char rope_inv_freq[8];  /* "fp32", "fp16" or "bf16" */
    const char *system;     /* NULL: the template's own */
    char license[512], notice[512];
    struct hg_task_card tasks[HG_CARD_TASKS]; /* comprehension, generation (enum hg_task) */
    char system_text[2048];
    struct hg_source sources[HG_SOURCE_COUNT];
    struct hg_expectation expect[HG_MAX_EXPECT];
    int n_expect;
};

/* Read dir/config.json with dir/generation_config.json (optional), dir/config.json,
 * dir/preprocessor_config.json, and a card: a file, or a folder with healthgpt.json. On failure
 * *out is undefined. */
enum hg_status hg_llm_config_read(const char *dir, struct hg_llm_config *out, struct hg_error *err);
enum hg_status hg_vision_config_read(const char *dir, struct hg_vision_config *out,
                                     struct hg_error *err);
enum hg_status hg_preprocess_config_read(const char *dir, struct hg_preprocess_config *out,
                                         struct hg_error *err);
enum hg_status hg_model_card_read(const char *path, struct hg_model_card *out,
                                  struct hg_error *err);

/* The same from parsed documents; generation may be NULL. */
enum hg_status hg_llm_config_parse(const json_t *config, const json_t *generation,
                                   struct hg_llm_config *out, struct hg_error *err);
enum hg_status hg_vision_config_parse(const json_t *config, struct hg_vision_config *out,
                                      struct hg_error *err);
enum hg_status hg_preprocess_config_parse(const json_t *config, struct hg_preprocess_config *out,
                                          struct hg_error *err);
enum hg_status hg_model_card_parse(const json_t *card, struct hg_model_card *out,
                                   struct hg_error *err);

#endif
