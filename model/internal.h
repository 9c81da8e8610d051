/* model/internal.h - the insides of struct hg_model, shared by the healthgpt*.c files only. */
#ifndef HG_MODEL_INTERNAL_H
#define HG_MODEL_INTERNAL_H

#include <stdatomic.h>

#include "model/feature_cache.h"
#include "model/healthgpt.h"
#include "model/kv_cache.h"
#include "model/llm.h"
#include "model/load/model_source.h"
#include "model/preprocess.h"
#include "model/task.h"
#include "model/vision.h"
#include "model/vqgan.h"

enum { HG_MAX_IMAGES = 4 }; /* pictures per request */

struct hg_seq {
    struct hg_model *m;
    struct hg_prepared *p;
    const struct hg_task_profile *task;
    int32_t *blocks;            /* room for prompt + max_tokens */
    int n_blocks;               /* owned */
    int n_cached;               /* positions in the KV cache, or on their way in a step */
    int n_found;                /* of these, positions that were there when it began (or resumed) */
    int n_published;            /* blocks of the prompt that others may find */
    struct hg_hash128 last_key; /* of block n_published - 1 */
    int image_slot[HG_MAX_IMAGES]; /* feature slots, -1: not needed (any more) */
    int vision_unit;               /* of the first that is not in its slot: units that have run */
    bool preempted;
    int32_t *generated; /* [max_tokens] */
    size_t n_generated; /* known ones */
    int n_ahead;        /* sampled in steps that are still in flight */
    int64_t last_step;  /* that it was begun in last (hg_step_tables.n_begun), 0: none */
    int last_out;       /* its out row there */
    enum hg_finish finish;
};

/* One step in flight. */
struct hg_flight {
    int64_t number; /* of the backend */
    int n_items, n_out;
    struct hg_step_item *items;      /* [max_seqs] seq NULL: freed meanwhile */
    int32_t *out_item;               /* [max_seqs] */
    struct hg_sample_result *result; /* [max_seqs] */
};

/* Integer tables of one step, sized at load; nothing is allocated per token. */
struct hg_step_tables {
    int32_t *token, *pos, *seq, *slot, *table; /* [max_batch_tokens] */
    int32_t *block_table;                      /* [max_seqs, max_blocks] */
    int32_t *out_row, *out_table;              /* [max_seqs] */
    struct hg_sample_params *sample;           /* [max_seqs] */
    int max_blocks;
    int n_out;                                /* of the last step */
    int64_t n_begun;                          /* steps */
    int n_flights;                            /* in flight, the newest is step n_begun */
    struct hg_flight flights[HG_STEPS_AHEAD]; /* step i is at i % HG_STEPS_AHEAD */
    float *logits;                            /* (dev) [max_seqs, ld_logits] */
    int64_t ld_logits;
};

/* Projector rows of pictures: a pool of equal slots. */
struct hg_feature_pool {
    void *rows;   /* (dev) [n_slots * n_image_rows, D] */
    void *hidden; /* (dev) [n_image_rows, vision dim]: tower output before the projector */
    struct hg_seq
        *encoding; /* whose picture is begun: the tower's workspace and `hidden` are its */
    struct hg_feature_cache cache;
};

struct hg_model {
    struct hg_model_place place;
    struct hg_model_card card;
    struct hg_llm_config llm_config;
    struct hg_vision_config vision_config;
    struct hg_preprocess_config preprocess;
    struct hg_backend *backend;
    enum hg_rounding rounding;
    struct hg_tokenizer *tokenizer; /* NULL: the folder has none; ids only */
    struct hg_llm *llm;
    struct hg_vision *vision; /* NULL: text only */
    struct hg_vqgan *vqgan;   /* NULL: cannot draw */
    struct hg_vqgan_info vqgan_info;
    struct hg_task_profile tasks[HG_TASK_COUNT];
    struct hg_kv_cache kv;
    struct hg_feature_pool features;
    struct hg_step_tables step;
    enum hg_dtype store, plugin_store, kv_store;
    int n_text;             /* ids before the image tokens */
    int32_t first_index_id; /* <idx_0>, -1 */
    int n_index;
    int n_image_rows;
    int max_seqs, max_batch_tokens;
    size_t workspace_bytes;
    bool forget;          /* no prefix and no picture is kept */
    uint8_t hash_key[16]; /* of prefix.h, random */
    uint32_t weights_crc32c;
};

/* Pixels of a prompt's images; the choices of one request share them. */
struct hg_pixels {
    _Atomic int n_refs;
    float at[]; /* [n_images, 3, side, side] */
};

struct hg_prepared {
    enum hg_task task;
    bool no_plugin;
    bool probe;
    uint64_t tenant;
    struct hg_sampling sampling;
    int32_t *tokens; /* [n_prompt] id, or -1 - (image * n_image_rows + row) */
    int n_prompt;
    int n_images;
    struct hg_pixels *pixels;                 /* NULL without images */
    struct hg_hash128 picture[HG_MAX_IMAGES]; /* see prefix.h */
    int image_end[HG_MAX_IMAGES];             /* position after its last row */
    struct hg_image_transform transform[HG_MAX_IMAGES];
    int max_tokens;
};

/* Weight files, mapped; alive only while loading. */
struct hg_model_files {
    char paths[HG_PART_COUNT][HG_PLACE_CAP]; /* where each piece was found; "": the card has none */
    struct hg_weights *base, *vision, *vqgan; /* vision, vqgan: NULL when the card has none */
    struct hg_weights *task[HG_TASK_COUNT];   /* plug-in and fusion file; NULL: neither */
    bool locked;                              /* model.lock is there and holds so far */
};

/* Read card, configs and tokenizer (which settles the ids of the image tokens) into m and map all
 * weight files. After a failure too, f must be closed. */
enum hg_status hg_model_files_open(struct hg_model *m, const struct hg_model_options *o,
                                   struct hg_model_files *f, struct hg_error *err);
void hg_model_files_close(struct hg_model_files *f);
void hg_model_files_set_meter(struct hg_model_files *f, struct hg_load_meter *m);
uint32_t hg_model_files_crc32c(const struct hg_model_files *f);
/* BAD_FILE naming the first tensor that nobody fetched or ignored; in a plug-in's files what is no
 * adapter is a warning in the log, when `tell`. */
enum hg_status hg_model_files_check_surplus(const struct hg_model_files *f, bool tell,
                                            struct hg_error *err);

/* The features of its images are in the cache (or it ends): others may have their slots. */
void hg_seq_release_features(struct hg_seq *s);
/* A fault was in it: its blocks go into quarantine, its prompt and pictures are not found again. */
void hg_seq_distrust(struct hg_seq *s);
/* Exactly grid_h * grid_w index tokens and nothing else. */
bool hg_seq_is_image(const struct hg_seq *s);
/* Positions whose token is known, or on its way in a step. */
int hg_seq_n_known(const struct hg_seq *s);
/* A sequence that is freed leaves the steps in flight. */
void hg_flights_forget(struct hg_model *m, const struct hg_seq *s);
bool hg_flights_hold(const struct hg_model *m, const struct hg_seq *s);

/* ---- healthgpt.c ---- */
/* Weights of all parts onto m->backend; what was made is m's also after a failure. */
enum hg_status hg_model_load_network(struct hg_model *m, struct hg_model_files *f,
                                     const struct hg_model_options *o, const struct hg_kv_desc *kv,
                                     struct hg_error *err);
void hg_model_free_network(struct hg_model *m);
/* "healthgpt-l14 has no generation: <the card's reason>". */
enum hg_status hg_model_fail_task(const struct hg_model_card *c, int task, struct hg_error *err);

/* ---- healthgpt_check.c ---- */
/* Do the files belong together, and to what the card expects? Then the load itself, rehearsed
 * (dry_run.h). deadline_ns and fn as in hg_model_check; fn NULL: warnings go to the log. */
enum hg_status hg_model_rehearse(struct hg_model *m, struct hg_model_files *f,
                                 const struct hg_model_options *o, int64_t deadline_ns,
                                 hg_model_finding_fn *fn, void *ctx, struct hg_error *err);

/* ---- healthgpt_lock.c ---- */
/* model.lock, as the option says: whether the opened files are those it lists. From then on the
 * checksums of what is read are compared (hg_weights_lock). */
enum hg_status hg_model_lock_apply(struct hg_model *m, struct hg_model_files *f,
                                   const struct hg_model_options *o, struct hg_error *err);
/* After everything was read: BAD_FILE naming the first tensor that is another one. Says in the log
 * how many were verified. */
enum hg_status hg_model_lock_check(const struct hg_model_files *f, struct hg_error *err);

/* ---- healthgpt_memory.c ---- */
/* The option, or the environment's, or 0.90; BAD_REQUEST outside 0.01..1. */
enum hg_status hg_model_utilization(double option, double *out, struct hg_error *err);
/* NO_MEMORY with the numbers when not even the layers fit beside what is reserved: before minutes
 * are spent on reading them. */
enum hg_status hg_model_check_memory(const struct hg_model *m, const struct hg_model_files *f,
                                     const struct hg_kv_desc *kv, struct hg_error *err);
/* Adds the state of the pool and what to change to a NO_MEMORY that does not say so yet. */
enum hg_status hg_model_explain_memory(const struct hg_model *m, enum hg_status status,
                                       struct hg_error *err);
/* The cache of `tokens`, 0: see hg_model_options. desc: all but n_blocks. Last of all allocations,
 * because it takes what is left. */
enum hg_status hg_model_create_kv(struct hg_model *m, int64_t tokens, struct hg_kv_desc *desc,
                                  struct hg_error *err);
size_t hg_model_weight_bytes(const struct hg_model *m);
void hg_model_log_memory(const struct hg_model *m);

/* Is this id one that ends an answer? */
bool hg_model_is_stop(const struct hg_model *m, int32_t id);

#endif
