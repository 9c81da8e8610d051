/* server/ops/metrics_table.h - the cells that metrics.c fills and metrics_write.c prints. Nobody
 * else includes it. */
#ifndef HG_SERVER_METRICS_TABLE_H
#define HG_SERVER_METRICS_TABLE_H

#include <stdatomic.h>

#include "server/ops/metrics.h"

enum {
    HG_METRICS_ROUTES = 32, /* of the daemon's table; more are counted as "other" */
    HG_METRICS_CODES = 26,
    HG_METRICS_REASONS = 22,
    HG_METRICS_BOUNDS = 22
};

enum hg_bounds {
    HG_BOUNDS_FIRST,
    HG_BOUNDS_TOKEN,
    HG_BOUNDS_REQUEST,
    HG_BOUNDS_TOKENS,
    HG_BOUNDS_STEP,
    HG_BOUNDS_OWN_FIRST,
    HG_BOUNDS_OWN_TOKEN,
    HG_BOUNDS_OWN_REQUEST,
    HG_BOUNDS_COUNT
};

/* X(name in the enum, family, bounds, help); seconds are kept in ns, the others as they are. */
#define HG_METRICS_VLLM(X)                                                                         \
    X(FIRST, "vllm:time_to_first_token_seconds", FIRST, "Time to first token.")                    \
    X(TOKEN, "vllm:inter_token_latency_seconds", TOKEN, "Time between two tokens.")                \
    X(TOTAL, "vllm:e2e_request_latency_seconds", REQUEST, "Request from submission to its end.")   \
    X(QUEUE, "vllm:request_queue_time_seconds", REQUEST, "Time in the queue.")                     \
    X(PREFILL, "vllm:request_prefill_time_seconds", REQUEST, "From the queue to the first token.") \
    X(DECODE, "vllm:request_decode_time_seconds", REQUEST, "From the first token to the end.")     \
    X(INFERENCE, "vllm:request_inference_time_seconds", REQUEST, "From the queue to the end.")     \
    X(PROMPT, "vllm:request_prompt_tokens", TOKENS, "Prompt tokens of a request.")                 \
    X(GENERATED, "vllm:request_generation_tokens", TOKENS, "Generated tokens of a request.")       \
    X(LIMIT, "vllm:request_max_num_generation_tokens", TOKENS, "Most tokens that were asked for.") \
    X(STEP, "vllm:iteration_tokens_total", STEP, "Tokens of an engine step.")

/* The same with a label plugin. */
#define HG_METRICS_OWN(X)                                                                          \
    X(OWN_QUEUE, "healthgpt_queue_seconds", OWN_REQUEST, "Time in the queue.")                     \
    X(OWN_FIRST, "healthgpt_first_token_seconds", OWN_FIRST, "Time to the first token.")           \
    X(OWN_TOKEN, "healthgpt_token_seconds", OWN_TOKEN, "Time between two tokens.")                 \
    X(OWN_TOTAL, "healthgpt_request_seconds", OWN_REQUEST, "Request from submission to its end.")

enum hg_histogram_id {
#define HG_METRICS_ID(id, name, bounds, help) HG_HIST_##id,
    HG_METRICS_VLLM(HG_METRICS_ID) HG_HIST_VLLM_COUNT,
    HG_HIST_OWN_BASE = HG_HIST_VLLM_COUNT - 1,
    HG_METRICS_OWN(HG_METRICS_ID) HG_HIST_IMAGE, /* healthgpt_image_seconds: from the queue on */
    HG_HIST_COUNT
};

struct hg_histogram {
    atomic_uint_fast64_t n[HG_METRICS_BOUNDS + 1]; /* the last: beyond every bound */
    atomic_uint_fast64_t sum;                      /* ns, or tokens */
};

enum hg_token_kind { HG_TOKENS_PROMPT, HG_TOKENS_TEXT, HG_TOKENS_IMAGE, HG_TOKENS_KINDS };
enum hg_end { HG_END_STOP, HG_END_LENGTH, HG_END_ABORT, HG_END_ERROR, HG_END_COUNT };
enum hg_mix { HG_MIX_COMPREHENSION, HG_MIX_GENERATION, HG_MIX_BOTH, HG_MIX_COUNT };

struct hg_metrics {
    _Atomic(const char *) routes[HG_METRICS_ROUTES];
    atomic_uint_fast64_t http[HG_METRICS_ROUTES + 1][HG_METRICS_CODES];
    atomic_uint_fast64_t rejected[HG_METRICS_REASONS];
    struct hg_histogram histograms[HG_HIST_COUNT][HG_TASK_COUNT]; /* vllm:* in [0] only */
    atomic_uint_fast64_t tokens[HG_TASK_COUNT][HG_TOKENS_KINDS];
    atomic_uint_fast64_t ended[HG_TASK_COUNT][HG_END_COUNT];
    atomic_uint_fast64_t found, asked; /* prompt tokens: in the cache, all */
    atomic_uint_fast64_t images_seen, images_drawn, previews;
    atomic_uint_fast64_t steps[HG_MIX_COUNT], sequences[HG_TASK_COUNT];
    atomic_uint_fast64_t cuts[HG_CUT_COUNT];
    atomic_uint_fast64_t audit_lines, audit_lost;
    atomic_bool audit_failing;
    atomic_int_fast64_t connections;
};
extern struct hg_metrics hg_metrics_of_process;

struct hg_metrics_bounds {
    int n;
    double scale; /* of a kept figure to the unit of the bounds */
    double at[HG_METRICS_BOUNDS];
};
extern const struct hg_metrics_bounds hg_metrics_bounds[HG_BOUNDS_COUNT];
extern const enum hg_bounds hg_metrics_bounds_of[HG_HIST_COUNT];
extern const int hg_metrics_codes[HG_METRICS_CODES];             /* the last: 0, others */
extern const char *const hg_metrics_reasons[HG_METRICS_REASONS]; /* the last: "other" */

#endif
