/* tools/healthgpt/bench_quant.h - healthgpt bench --quant: what each way to store a model takes and
 * costs. docs/quantisation.md says what the numbers mean.
 *
 * One model is in memory at a time. The first to run is bf16: its greedy answers are the text that
 * all others are held to. Each next one reads the same prompts and is then given those tokens, one
 * by one, whatever it would have said itself (teacher forcing), so that every position has the
 * distributions of both for the same past. Of bf16 and f32 the distributions are kept: all log
 * probabilities of up to HG_QUANT_FULL tokens, else the HG_QUANT_TOP likeliest and the rest as one
 * event, which makes a divergence a lower bound. */
#ifndef HG_TOOLS_BENCH_QUANT_H
#define HG_TOOLS_BENCH_QUANT_H

#include "model/healthgpt.h"
#include "tools/healthgpt/cli.h"

enum { HG_QUANT_FULL = 2048, HG_QUANT_TOP = 512, HG_QUANT_MAX_TYPES = 16, HG_QUANT_IMAGES = 4 };

/* ---- questions (bench_quant_set.c) -------------------------------------------------------------
 */

enum hg_quant_kind { HG_QUANT_ANSWER, HG_QUANT_TEXT };

struct hg_quant_item {
    enum hg_quant_kind kind; /* asked or drawn; or a text that is given, for its perplexity */
    enum hg_task task;
    char *question, *expect; /* expect NULL: no answer is known */
    char *images[HG_QUANT_IMAGES];
    int n_images, max_tokens; /* 0: the model's default */
    int32_t *ids;             /* of the prompt instead of a question, or of a text */
    size_t n_ids;
};

struct hg_quant_set {
    struct hg_quant_item *items;
    size_t n;
};

/* Lines as `healthgpt batch` reads them (task, question, images, max_tokens, "expect"), or
 * "prompt_ids" instead of a question, or "text" or "text_ids". path NULL: selftest.jsonl of the
 * model's folder, or a few questions of our own, and a few drawings. limit > 0: so many of them,
 * chosen by the seed. */
enum hg_status hg_quant_set_read(const char *path, const struct hg_model *m, const char *model_path,
                                 int64_t limit, uint64_t seed, struct hg_quant_set *out,
                                 struct hg_error *err);
void hg_quant_set_deinit(struct hg_quant_set *s);

/* ---- a run (bench_quant_run.c) -----------------------------------------------------------------
 */

struct hg_quant_ids {
    int32_t *at;
    size_t n;
};

/* Position k of an item: own is what the model chose; logits of ids [first, first + n). */
typedef enum hg_status hg_quant_position_fn(void *ctx, size_t item, size_t k, int32_t own,
                                            const float *logits, size_t n, int32_t first,
                                            struct hg_error *err);

struct hg_quant_run {
    struct hg_model *model;
    const struct hg_quant_set *set;
    const bool *only;                  /* [set.n] items to run, NULL: all */
    const struct hg_quant_ids *forced; /* [set.n] tokens to follow, NULL: its own */
    struct hg_quant_ids *own;          /* [set.n] out, freed by the caller; NULL: not wanted */
    hg_quant_position_fn *position;    /* NULL: logits stay where they are */
    void *ctx;
    const char *label; /* for the line that says how far it is */
};
enum hg_status hg_quant_run(const struct hg_quant_run *r, struct hg_error *err);
void hg_quant_ids_free(struct hg_quant_ids *ids, size_t n); /* and the array */

/* ---- distributions (bench_quant_dist.c) --------------------------------------------------------
 */

struct hg_quant_dist {
    int n;       /* kept ones */
    int32_t own; /* the model's choice */
    int32_t *id; /* [n] NULL: ids in order */
    float *logp; /* [n] */
    float rest;  /* log of the mass of the others; -inf: none */
};

/* Natural log of the sum of exp. */
double hg_quant_log_sum(const float *logits, size_t n);
enum hg_status hg_quant_dist_set(struct hg_quant_dist *d, int32_t own, const float *logits,
                                 size_t n);
void hg_quant_dist_deinit(struct hg_quant_dist *d);
/* KL(p || q) in nats, never below 0; q as logits of the same ids, or kept as well. */
double hg_quant_divergence(const struct hg_quant_dist *p, const float *logits, size_t n);
double hg_quant_divergence_kept(const struct hg_quant_dist *p, const struct hg_quant_dist *q);

struct hg_quant_sample { /* of divergences */
    double *v;
    size_t n, cap, n_same; /* same choice */
};
struct hg_quant_summary {
    size_t n;
    double mean, median, p99, max, same; /* same: share of equal choices */
};
enum hg_status hg_quant_sample_add(struct hg_quant_sample *s, double v, bool same);
void hg_quant_summarise(struct hg_quant_sample *s, struct hg_quant_summary *out); /* sorts */

/* Difference of two paired shares, (better - worse) / n, and its 95 % interval: the adjusted Wald
 * interval of Agresti and Min (2005), which is never empty. */
void hg_quant_paired(size_t n, size_t better, size_t worse, double *low, double *high);

/* ---- a row of the table (bench_quant.c) --------------------------------------------------------
 */

enum { HG_QUANT_BF16, HG_QUANT_F32, HG_QUANT_YARDSTICKS };

struct hg_quant_row {
    char name[64]; /* "int8/kv-int8" */
    char dtype[8], kv_dtype[8], plugin_dtype[8];
    char why[200]; /* it did not run; "": it did */
    double seconds;
    double linear_bytes, plugin_bytes, kv_token_bytes, all_bytes;
    struct hg_quant_summary kl[HG_QUANT_YARDSTICKS][HG_TASK_COUNT]; /* n 0: no such yardstick */
    size_t n_answers, n_equal;     /* text answers, those with equal tokens */
    size_t n_tokens, n_leading;    /* of them, before the first difference */
    size_t n_drawn, n_drawn_equal; /* tokens of pictures, drawn freely */
    double nll;                    /* mean over n_text given tokens */
    size_t n_text;
    size_t n_known, n_right, n_better, n_worse; /* questions; against bf16 */
};

struct hg_quant_report {
    struct hg_model_info info; /* of bf16 */
    char backend[128];
    size_t n_items, n_positions[HG_TASK_COUNT];
    bool truncated; /* some distributions were kept in part */
    struct hg_quant_row rows[HG_QUANT_MAX_TYPES];
    int n_rows;
};

void hg_quant_print(const struct hg_quant_report *r);      /* bench_quant_print.c */
void hg_quant_print_json(const struct hg_quant_report *r); /* one object */

enum hg_status hg_bench_quant(const struct hg_cli *cli, struct hg_error *err);

#endif
