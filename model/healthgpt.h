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
    const char *path; /* folder with healthgpt.json, or a card file; NULL: the demo model */
    const char
        *weights; /* where the card's pieces are (load/model_source.h); NULL, "": its folder */
    const char *system;  /* instead of the card's system prompt; NULL, "": the card's */
    const char *backend; /* "auto", see hg_backend_open */
    const char *dtype;   /* base weights: "auto" (as stored), "f32", "f16", "bf16", "int8", "fp8",
                            "int4" */
    const char *lock; /* model.lock: NULL, "auto" (verified when it is there), "require", "off" */
    const char *quant_cache; /* folder of quantised base weights (load/quant_cache.h); NULL: none */
    const char *rope;        /* NULL (the card decides), "fp32", "fp16", "bf16" */
    const char *kv_dtype;    /* "auto" (f16; f32 with dtype f32), "f32", "f16", "bf16", "int8" */
    const char *plugin_dtype; /* H-LoRA adapters: "auto" (bf16 beside int8, fp8 and int4, else as
                                 dtype), "f32", "f16", "bf16", "int8". UNSUPPORTED where the backend
                                 cannot: cuda has auto and int8 */
    const char *numerics;     /* NULL or "default"; "strict": see model/numerics.h */
    int n_threads;            /* 0: all */
    int max_seqs;             /* sequences resident at once; 0: 16 */
    bool forget;              /* keep nothing of a sequence for those that come after it */
    bool any_values;          /* tests: weights that are NaN or Inf are loaded too */
    int max_batch_tokens;     /* tokens of one step; 0: 1024, or less when the context is smaller */
    int64_t kv_tokens; /* KV cache size in tokens; 0: hg_model_default_kv_tokens, or on a card as
                          many of max_seqs contexts as the memory takes */
    double gpu_memory_utilization; /* share of the card's free memory that is taken; 0:
                                      $HEALTHGPT_GPU_MEMORY_UTILIZATION, or 0.90 */
};

struct hg_model_info {
    char name[64];
    const char *arch;                            /* "phi3", "qwen2", "llama" */
    const char *notice;                          /* "not for clinical use" text of the card */
    const char *backend;                         /* describe() of the backend */
    const char *dtype, *plugin_dtype, *kv_dtype; /* what is stored: "int8", never "auto" */
    bool has_task[HG_TASK_COUNT];
    const char *can[HG_TASK_COUNT];         /* what the card says the task's weights can do; "" */
    const char *unpublished[HG_TASK_COUNT]; /* why it has no weights that are published; "" */
    bool has_image_encoder;                 /* VQGAN encoder present */
    int max_context;                        /* positions */
    int image_side;                         /* pixels the vision tower sees */
    int n_image_rows;                       /* embedding rows per image (576; demo 64) */
    int grid_h, grid_w;                     /* index tokens of a drawn image; 0 without a VQGAN */
    int output_side;                        /* pixels of a drawn image */
    int n_vocab;                            /* rows of the larger embedding table */
    int n_index;
    int32_t first_index_id; /* id of <idx_0>, -1 without */
    int max_new_tokens[HG_TASK_COUNT];
    int max_seqs, max_batch_tokens;
    int64_t kv_blocks, kv_blocks_free;
    /* Multiply-adds, from the shapes alone: of a prompt token, of a picture's way through the
     * vision tower and the projector (of the task where it is most), of drawing one (0: none) */
    int64_t token_work, vision_work, render_work;
    int64_t vision_op, render_op; /* the largest operation in them: pieces are not smaller */
    size_t weight_bytes;          /* all of them, plug-ins included */
    size_t plugin_bytes[HG_TASK_COUNT], kv_bytes, workspace_bytes;
    /* of a card; pool_bytes 0: the backend has no pool, card_bytes 0: it has no card */
    size_t pool_bytes, pool_used_bytes, card_bytes, card_free_bytes;
    size_t scratch_bytes;    /* of the cpu backend's ops, beside workspace_bytes */
    uint32_t weights_crc32c; /* over every tensor that was read: see hg_weights_crc32c; the order of
                                the sets is base, vision, VQGAN, comprehension, generation */
};

/* Reads everything, tells the progress and the sizes through the log. NO_MEMORY with the numbers
 * and what to change when it does not fit. */
enum hg_status hg_model_load(const struct hg_model_options *o, struct hg_model **out,
                             struct hg_error *err);
/* All that a load looks at before it packs a weight, without a backend: files, names, shapes, what
 * is surplus, whether pieces belong together, the card's expectations, values (dry_run.h; none
 * after deadline_ns, 0: no deadline). `fn` gets a line for each finding: wrong ones keep a load
 * from working, the others are warnings. The failure is the first that is wrong. */
typedef void hg_model_finding_fn(void *ctx, bool wrong, const char *line);
enum hg_status hg_model_check(const struct hg_model_options *o, int64_t deadline_ns,
                              hg_model_finding_fn *fn, void *ctx, struct hg_error *err);
/* UNSUPPORTED with the card's reason when the card has no such task; reads the card alone. */
enum hg_status hg_model_check_task(const struct hg_model_options *o, enum hg_task t,
                                   struct hg_error *err);
/* ---- model.lock (model/load/lock.h) ---- */
struct hg_model_lock_report {
    char path[1280]; /* of the lock, which may not exist */
    bool exists;
    size_t n_files, n_tensors; /* written */
    uint64_t bytes;
    double seconds;
};
/* Opens the model's files (path, weights), reads every tensor and writes the lock beside them. */
enum hg_status hg_model_lock_write(const struct hg_model_options *o,
                                   struct hg_model_lock_report *out, struct hg_error *err);
/* OK: it holds, or does not exist; BAD_FILE says what is another one. Without `contents` names,
 * sizes, types, shapes and the small files. */
enum hg_status hg_model_lock_verify(const struct hg_model_options *o, bool contents,
                                    struct hg_model_lock_report *out, struct hg_error *err);

/* [any] KV tokens where none are asked for: max_seqs contexts, at most 65536 tokens and half of the
 * memory that is free (bytes; 0: not known) beside the weights, but one context at least. */
int64_t hg_model_default_kv_tokens(int64_t max_seqs, int64_t context, size_t token_bytes,
                                   uint64_t memory_free);
/* [any] How far the load of this process has come, 0..1 of the bytes of its weights; *left_s:
 * seconds at the pace so far, 0 when not known. */
double hg_model_load_share(double *left_s);
void hg_model_free(struct hg_model *m);                                  /* NULL is fine */
void hg_model_info(const struct hg_model *m, struct hg_model_info *out); /* [any] */
const struct hg_tokenizer *hg_model_tokenizer(const struct hg_model *m); /* [any] */
/* [any] What the self-test is compared with, if it is there: canary.json in the model folder, or
 * <card's name>.canary.json among the weights of a card file. */
enum hg_status hg_model_canary_path(const struct hg_model *m, char *out, size_t cap,
                                    struct hg_error *err);
/* [any] The card's temperature for requests that bring none; -1: it has none. */
float hg_model_temperature(const struct hg_model *m, enum hg_task t);
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
    bool no_plugin; /* run without the task's H-LoRA (tests) */
    bool probe; /* a canary: computes everything, leaves nothing, tries suspect KV blocks first */
    uint64_t tenant;    /* what is cached of a request serves requests of the same tenant only */
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
/* [any] The same request with another seed, as long as p has not begun; it shares p's pixels. */
enum hg_status hg_prepared_again(const struct hg_prepared *p, uint64_t seed,
                                 struct hg_prepared **out, struct hg_error *err);
void hg_prepared_free(struct hg_prepared *p);

/* What became of a picture on its way to the vision tower (reference.md 8.1): laid in the middle of
 * a square of its longer side, the rest in pad_rgb, resized (bicubic) to side x side. Its point
 * (x, y) is seen at ((x + left) * scale, (y + top) * scale). */
struct hg_image_transform {
    int width, height;            /* as it came */
    int left, top, right, bottom; /* padding, in its own pixels */
    uint8_t pad_rgb[3];
    int side; /* pixels that the tower sees */
    double scale;
};
int hg_prepared_n_images(const struct hg_prepared *p);
const struct hg_image_transform *hg_prepared_transform(const struct hg_prepared *p, int image);
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

/* Takes over the KV blocks of an equal beginning of a prompt that the tenant sent before, reserves
 * those of the rest of the prompt, and slots for pictures; BUSY when there are not enough (try
 * later). TOO_LARGE: prompt + max_tokens can never fit. Takes ownership of `p` only on success. */
enum hg_status hg_seq_create(struct hg_model *m, struct hg_prepared *p, struct hg_seq **out,
                             struct hg_error *err);
void hg_seq_free(struct hg_seq *s);
/* Blocks for n_tokens more; BUSY (and nothing taken) when there are not enough: preempt somebody.
 * A step does it by itself. */
enum hg_status hg_seq_reserve(struct hg_seq *s, int n_tokens, struct hg_error *err);
/* Give all blocks and slots back; what was generated stays. After resume (BUSY: try later) the
 * sequence computes it once more, with the same bits: prompt and generated tokens are waiting, and
 * images that are not in the cache. INTERNAL: it is in a step in flight. */
enum hg_status hg_seq_preempt(struct hg_seq *s, struct hg_error *err);
enum hg_status hg_seq_resume(struct hg_seq *s, struct hg_error *err);
bool hg_seq_preempted(const struct hg_seq *s);
int hg_model_kv_free(const struct hg_model *m); /* [any] blocks of HG_BLOCK_TOKENS positions */
/* Blocks that a numeric fault was in are zeroed and wait for a probe whose results were right:
 * hg_seq_trust before it is freed. trust_all: there is none, being zeroed has to do. */
int hg_model_kv_quarantined(const struct hg_model *m); /* [any] */
void hg_seq_trust(struct hg_seq *s);
void hg_model_trust_all(struct hg_model *m);
/* Forget all prefixes and pictures that no sequence is using: zeroed. */
void hg_model_forget(struct hg_model *m);

/* Vision tower + projector for the next not yet encoded image of the sequence; a unit of work of
 * its own, so that a scheduler can put it between token steps. */
bool hg_seq_wants_vision(const struct hg_seq *s);
enum hg_status hg_seq_encode_image(struct hg_seq *s, struct hg_error *err);
/* The same in pieces, steps and everything else between them: at least one operation, then as many
 * as fit into *work, which is lowered by the multiply-adds of what was done. One picture at a time:
 * INTERNAL while that of another sequence is begun (hg_model_encoding; NULL: none is). A sequence
 * that is freed or gives way drops it. What one has encoded, those that wanted the same picture
 * (tenant, task, pixels) at that time want no more; a model with `forget` encodes it for each. */
enum hg_status hg_seq_encode_piece(struct hg_seq *s, int64_t *work, struct hg_error *err);
const struct hg_seq *hg_model_encoding(const struct hg_model *m);

/* Positions to compute before the next token: of the prompt, or, after preemption, then of the
 * generated tokens; 0 = decoding, one token a step. */
int hg_seq_n_waiting(const struct hg_seq *s);
int hg_seq_n_prefilled(const struct hg_seq *s); /* prompt positions that are computed, or found */
int hg_seq_n_found(const struct hg_seq *s); /* prompt positions that were in the cache already */

struct hg_step_item {
    struct hg_seq *seq; /* each sequence at most once; no vision outstanding */
    int n_tokens;       /* positions to process (<= n_waiting); 1 when decoding */
};

struct hg_token {
    struct hg_seq *seq; /* whose; NULL: freed while the step was in flight */
    int32_t id;         /* -1: prefill not finished, nothing sampled */
    float logprob;
    int n_top;
    int32_t top_id[HG_MAX_TOP];
    float top_logprob[HG_MAX_TOP];
    enum hg_finish finish; /* STOP: `id` is a stop id and not part of the answer; ERROR: numeric */
};

/* One forward pass over all items (any mix of tasks, prefill and decode), one sampled token for
 * each item whose prompt is complete, tokens[i] of item i. A failure leaves no item advanced. No
 * step may be in flight. */
enum hg_status hg_model_step(struct hg_model *m, const struct hg_step_item *items, size_t n,
                             struct hg_token *tokens, struct hg_error *err);

/* The same in two halves, so that the device need not wait for the host between steps. begin puts a
 * step behind those in flight; end waits for the OLDEST one (and for no other) and hands out its
 * tokens. Steps end in the order they began, at most HG_STEPS_AHEAD are in flight: one more is
 * INTERNAL.
 *
 * An item whose token of the step before is not known yet may be begun again when
 *   - hg_seq_runs_ahead: nothing on the host depends on its tokens (a constrained image, or
 *     ignore_stop; no repetition penalty),
 *   - it was in the step that was begun last, so that its token is at hand on the device,
 *   - hg_seq_n_left > 0: not all of its tokens are on their way.
 * Else begin is INTERNAL and nothing has changed. A sequence may join or stay away between any two
 * steps; one that stays away has to wait until its steps have ended. The ids are the same as with
 * hg_model_step.
 *
 * Between begin and end everything else may be called: encode, render, create, free. A sequence
 * that is freed leaves the steps in flight; its blocks are zeroed behind them. A sequence that ends
 * with ERROR gets no tokens from later steps.
 *
 * hg_model_step_end: tokens [max_seqs of the options], *n of them in the order of the items. When
 * it fails (DEVICE) all steps in flight are gone and none of their items has advanced. INTERNAL:
 * nothing is in flight. */
enum hg_status hg_model_step_begin(struct hg_model *m, const struct hg_step_item *items, size_t n,
                                   struct hg_error *err);
enum hg_status hg_model_step_end(struct hg_model *m, struct hg_token *tokens, size_t *n,
                                 struct hg_error *err);
int hg_model_steps_in_flight(const struct hg_model *m);
bool hg_seq_runs_ahead(const struct hg_seq *s);
/* Tokens that may still be begun: max_tokens less what is known and what is in flight. */
int hg_seq_n_left(const struct hg_seq *s);

/* Logits of the step begun last, none may be in flight: row i of the items that sampled, fp32, [hi
 * - lo] columns. For parity. */
enum hg_status hg_model_last_logits(struct hg_model *m, size_t row, float *dst, size_t cap,
                                    size_t *n, int32_t *first_id, struct hg_error *err);

/* The last known token becomes `id`, and the next step goes on from it: a given text is followed
 * whatever the model would have said (teacher forcing, for measurements). INTERNAL: there is none,
 * or a step is in flight; BAD_REQUEST: not an id of the task's table. */
enum hg_status hg_seq_force(struct hg_seq *s, int32_t id, struct hg_error *err);

size_t hg_seq_n_generated(const struct hg_seq *s); /* known ones */
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

/* The same in pieces, steps and everything else between them: begin, then go on until *done, when
 * the picture is in *out. `work` as in hg_seq_encode_piece. One at a time: while one is under way
 * begin, hg_model_render and hg_model_encode are INTERNAL. After a failure, or drop, nothing is
 * under way. [engine] */
enum hg_status hg_model_render_begin(struct hg_model *m, const int32_t *codes, size_t n_codes,
                                     struct hg_error *err);
enum hg_status hg_model_render_go_on(struct hg_model *m, int64_t *work, struct hg_image *out,
                                     bool *done, struct hg_error *err);
void hg_model_render_drop(struct hg_model *m); /* no picture under way: of no effect */

/* Pixels -> codes by the deterministic VQGAN encoder (argmax): grid_h * grid_w of them. The image
 * is resized to output_side with Lanczos as the reference does (10.6). [engine] */
enum hg_status hg_model_encode(struct hg_model *m, const struct hg_image *im, int32_t *codes,
                               size_t cap, struct hg_error *err);

#endif
