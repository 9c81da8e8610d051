/* model/healthgpt.h - the whole model behind one header: what server/ and tools/ include.
 *
 * A model is one frozen language model, a vision tower, a VQGAN and one profile per task; both
 * plug-ins stay resident and sequences of both tasks share every step. A sequence is one request's
 * timeline: its prompt, its KV blocks, its sampler position.
 *
 * Threads: hg_model_load/free and everything marked [engine] belong to one thread at a time;
 * hg_model_info and everything marked [any] only read and are thread-safe. */
#ifndef HG_MODEL_HEALTHGPT_H
#define HG_MODEL_HEALTHGPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/image_io.h"
#include "common/status.h"
#include "kernels/backend.h"
#include "model/text/prompt.h"

struct hg_model;
struct hg_seq;

enum hg_task { HG_TASK_COMPREHENSION, HG_TASK_GENERATION, HG_TASK_COUNT };

struct hg_model_options {
    const char *path;     /* folder with healthgpt.json; NULL: the demo model that was built in */
    const char *backend;  /* "auto", see hg_backend_open */
    const char *dtype;    /* base weights: "auto" (as stored), "f32", "f16", "bf16", "int8" */
    const char *rope;     /* NULL (the card decides), "fp32", "fp16", "bf16" */
    const char *kv_dtype; /* "auto" (f16; f32 with dtype f32), "f32", "f16", "bf16", "int8" */
    int n_threads;        /* 0: all */
    int max_seqs;         /* sequences resident at once; 0: 16 */
    int max_batch_tokens; /* tokens of one step; 0: 1024, or less when the context is smaller */
    int64_t kv_tokens;    /* KV cache size in tokens; 0: max_seqs contexts, at most 65536 tokens */
};

struct hg_model_info {
    char name[64];
    const char *arch;    /* "phi3", "qwen2", "llama" */
    const char *notice;  /* "not for clinical use" text of the card */
    const char *backend; /* describe() of the backend */
    bool has_task[HG_TASK_COUNT];
    bool has_image_encoder; /* VQGAN encoder present */
    int max_context;        /* positions */
    int image_side;         /* pixels the vision tower sees */
    int n_image_rows;       /* embedding rows per image (576; demo 64) */
    int grid_h, grid_w;     /* index tokens of a drawn image; 0 without a VQGAN */
    int output_side;        /* pixels of a drawn image */
    int n_vocab;            /* rows of the larger embedding table */
    int n_index;
    int32_t first_index_id; /* id of <idx_0>, -1 without */
    int max_new_tokens[HG_TASK_COUNT];
    int max_seqs, max_batch_tokens;
    int64_t kv_blocks, kv_blocks_free;
    size_t weight_bytes, plugin_bytes[HG_TASK_COUNT], kv_bytes, workspace_bytes;
};

enum hg_status hg_model_load(const struct hg_model_options *o, struct hg_model **out,
                             struct hg_error *err);
void hg_model_free(struct hg_model *m);                                  /* NULL is fine */
void hg_model_info(const struct hg_model *m, struct hg_model_info *out); /* [any] */
const struct hg_tokenizer *hg_model_tokenizer(const struct hg_model *m); /* [any] */
const char *hg_task_name(enum hg_task t); /* "comprehension", "generation" */

/* ---- a request --------------------------------------------------------------------------------
 */

struct hg_sampling {
    float temperature;        /* 0 = greedy */
    int top_k;                /* 0 = off */
    float top_p;              /* 1 = off */
    float repetition_penalty; /* 1 = off; 0 = the model's own default */
    uint64_t seed;
    int max_tokens;           /* 0: the task's default, cut to the context */
    int n_top;                /* top_logprobs, 0..HG_MAX_TOP */
    bool unconstrained_image; /* generation: let any token be sampled, parse and check the count */
    bool ignore_stop;         /* benchmarks and parity: only max_tokens ends it */
};
void hg_sampling_default(struct hg_sampling *s); /* greedy, all filters off */

/* A request made ready for the engine: token ids, preprocessed pixels, checked limits. */
struct hg_request_input {
    enum hg_task task;
    bool no_plugin;     /* run without the task's H-LoRA (tests) */
    const char *system; /* NULL: the card's */
    const struct hg_turn *turns;
    size_t n_turns;
    const struct hg_image *images; /* in prompt order */
    size_t n_images;
    struct hg_sampling sampling;
};
struct hg_prepared;

/* [any] Template, tokenizer and preprocessing. BAD_REQUEST: empty question, bad sampling value, too
 * many images; TOO_LARGE: prompt + max_tokens over the context (numbers in the text); UNSUPPORTED:
 * the model has no such task. Images may be freed afterwards. */
enum hg_status hg_model_prepare(const struct hg_model *m, const struct hg_request_input *in,
                                struct hg_prepared **out, struct hg_error *err);
/* [any] The same from explicit ids (HG_IMAGE_ID = an image), for parity tests. */
enum hg_status hg_model_prepare_ids(const struct hg_model *m, const struct hg_request_input *in,
                                    const int32_t *ids, size_t n_ids, struct hg_prepared **out,
                                    struct hg_error *err);
void hg_prepared_free(struct hg_prepared *p);
int hg_prepared_n_prompt(const struct hg_prepared *p); /* positions, images expanded */
int hg_prepared_max_tokens(const struct hg_prepared *p);

/* ---- sequences and steps [engine] ---------------------------------------------------------------
 */

enum hg_finish {
    HG_FINISH_NONE,
    HG_FINISH_STOP,
    HG_FINISH_LENGTH,
    HG_FINISH_IMAGE,
    HG_FINISH_ERROR
};

/* Reserves the KV blocks of prompt + max_tokens; BUSY when there are not enough (try later). Takes
 * ownership of `p` only on success. */
enum hg_status hg_seq_create(struct hg_model *m, struct hg_prepared *p, struct hg_seq **out,
                             struct hg_error *err);
void hg_seq_free(struct hg_seq *s); /* zeroes and returns its blocks */

/* Vision tower + projector for the next not yet encoded image of the sequence; a unit of work of
 * its own, so that a scheduler can put it between token steps. */
bool hg_seq_wants_vision(const struct hg_seq *s);
enum hg_status hg_seq_encode_image(struct hg_seq *s, struct hg_error *err);

int hg_seq_n_waiting(
    const struct hg_seq *s); /* prompt positions not yet in the cache; 0 = decoding */

struct hg_step_item {
    struct hg_seq *seq; /* each sequence at most once; no vision outstanding */
    int n_tokens;       /* prompt positions to process (<= n_waiting); 1 when decoding */
};

struct hg_token {
    int32_t id; /* -1: prefill not finished, nothing sampled */
    float logprob;
    int n_top;
    int32_t top_id[HG_MAX_TOP];
    float top_logprob[HG_MAX_TOP];
    enum hg_finish finish; /* STOP: `id` is a stop id and not part of the answer; ERROR: numeric */
};

/* One forward pass over all items (any mix of tasks, prefill and decode), one sampled token for
 * each item whose prompt is complete. A failure leaves no item advanced. */
enum hg_status hg_model_step(struct hg_model *m, const struct hg_step_item *items, size_t n,
                             struct hg_token *tokens, struct hg_error *err);

/* Logits of the last step: row i of the items that sampled, fp32, [hi - lo] columns. For parity. */
enum hg_status hg_model_last_logits(struct hg_model *m, size_t row, float *dst, size_t cap,
                                    size_t *n, int32_t *first_id, struct hg_error *err);

size_t hg_seq_n_generated(const struct hg_seq *s);
const int32_t *hg_seq_generated(const struct hg_seq *s);
enum hg_task hg_seq_task(const struct hg_seq *s);

/* ---- images
 * --------------------------------------------------------------------------------------- */

/* Index tokens of a finished generation -> codes 0..n_index-1, exactly grid_h * grid_w of them;
 * else BAD_REQUEST with count and reason ("expected 64 image tokens, got 12: stopped early"). [any]
 */
enum hg_status hg_model_image_codes(const struct hg_model *m, const int32_t *ids, size_t n_ids,
                                    int32_t *codes, size_t cap, size_t *n_codes,
                                    struct hg_error *err);

/* Codes -> pixels. Fewer than grid_h * grid_w codes (a preview): the missing ones repeat the last
 * code. [engine] */
enum hg_status hg_model_render(struct hg_model *m, const int32_t *codes, size_t n_codes,
                               struct hg_image *out, struct hg_error *err);

/* Pixels -> codes by the deterministic VQGAN encoder (argmax): grid_h * grid_w of them. The image
 * is resized to output_side with Lanczos as the reference does (10.6). [engine] */
enum hg_status hg_model_encode(struct hg_model *m, const struct hg_image *im, int32_t *codes,
                               size_t cap, struct hg_error *err);

#endif
