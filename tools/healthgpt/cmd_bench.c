/* tools/healthgpt/cmd_bench.c - prefill and decode speed of a model, without scheduler and HTTP.
 *
 * Prompts are plain token ids and stop tokens are ignored, so that the work is the same on every
 * run. Decode is bound by memory: each step reads all weights once, whatever the batch. */
#include <stdlib.h>

#include "common/clock.h"
#include "server/json_text.h"
#include "tools/healthgpt/run.h"

enum { DEFAULT_PROMPT = 256, DEFAULT_NEW = 64 };

struct plan {
    int n_prompt, n_new, n_seqs;
};

struct speed {
    double prefill_ms, decode_ms;
    int n_prefill, n_decode; /* tokens */
};

static enum hg_status start(struct hg_model *m, const struct hg_model_info *info,
                            const struct plan *p, int which, struct hg_seq **out,
                            struct hg_error *err)
{
    struct hg_request_input in = {.task = HG_TASK_COMPREHENSION};
    struct hg_prepared *prepared = NULL;
    int32_t *ids = calloc((size_t)p->n_prompt, sizeof *ids);
    if (!ids)
        return hg_fail(err, HG_STATUS_NO_MEMORY, "bench: out of memory");
    int text = info->first_index_id > 0 ? info->first_index_id - 1 : info->n_vocab;
    for (int i = 0; i < p->n_prompt; i++)
        ids[i] = (7919 * (i + 1) + 104729 * which) % (text > 2 ? text : 2);
    hg_sampling_default(&in.sampling);
    in.sampling.max_tokens = p->n_new;
    in.sampling.ignore_stop = true;
    enum hg_status status = hg_model_prepare_ids(m, &in, ids, (size_t)p->n_prompt, &prepared, err);
    if (status == HG_STATUS_OK)
        status = hg_seq_create(m, prepared, out, err);
    if (status != HG_STATUS_OK)
        hg_prepared_free(prepared);
    free(ids);
    return status;
}

/* One step over the sequences that are not finished; adds to the figures. */
static enum hg_status step(struct hg_model *m, const struct hg_model_info *info,
                           struct hg_seq **seqs, int n, struct hg_step_item *items,
                           struct hg_token *tokens, struct speed *s, struct hg_error *err)
{
    int n_items = 0, budget = info->max_batch_tokens, n_prefill = 0;
    for (int i = 0; i < n && budget > 0; i++) {
        int waiting = hg_seq_n_waiting(seqs[i]);
        int take = waiting == 0 ? 1 : waiting < budget ? waiting : budget;
        items[n_items++] = (struct hg_step_item){seqs[i], take};
        n_prefill += waiting == 0 ? 0 : take;
        budget -= take;
    }
    int64_t t0 = hg_now_ns();
    HG_TRY(hg_model_step(m, items, (size_t)n_items, tokens, err));
    double ms = (double)(hg_now_ns() - t0) / 1e6;
    if (n_prefill > 0) {
        s->prefill_ms += ms;
        s->n_prefill += n_prefill;
    } else {
        s->decode_ms += ms;
        s->n_decode += n_items;
    }
    return HG_STATUS_OK;
}

static bool waits(struct hg_seq **seqs, int n)
{
    for (int i = 0; i < n; i++)
        if (hg_seq_n_waiting(seqs[i]) > 0)
            return true;
    return false;
}

/* Prompts first, all of them, then decode together. */
static enum hg_status measure(struct hg_model *m, const struct hg_model_info *info,
                              const struct plan *p, struct speed *out, struct hg_error *err)
{
    size_t n = (size_t)p->n_seqs;
    struct hg_seq **seqs = calloc(n, sizeof(struct hg_seq *));
    struct hg_step_item *items = calloc(n, sizeof *items);
    struct hg_token *tokens = calloc(n, sizeof *tokens);
    enum hg_status status = HG_STATUS_OK;
    *out = (struct speed){0};
    if (!seqs || !items || !tokens) {
        status = hg_fail(err, HG_STATUS_NO_MEMORY, "bench: out of memory");
        goto out;
    }
    for (int i = 0; i < p->n_seqs; i++)
        HG_TRY_OUT(start(m, info, p, i, &seqs[i], err));
    for (int i = 0; i < p->n_seqs; i++) /* one by one: a step mixes no prefill with decode */
        while (hg_seq_n_waiting(seqs[i]) > 0)
            HG_TRY_OUT(step(m, info, &seqs[i], 1, items, tokens, out, err));
    for (int k = 1; k < p->n_new && !waits(seqs, p->n_seqs); k++)
        HG_TRY_OUT(step(m, info, seqs, p->n_seqs, items, tokens, out, err));
out:
    for (size_t i = 0; seqs && i < n; i++)
        hg_seq_free(seqs[i]);
    free(seqs);
    free(items);
    free(tokens);
    return status;
}

static double rate(int n, double ms)
{
    return ms > 0 ? n * 1000.0 / ms : 0;
}

static void print(const struct hg_cli *cli, const struct plan *p, const struct speed *s,
                  const struct hg_model_info *info)
{
    double step_ms = s->n_decode ? s->decode_ms * p->n_seqs / s->n_decode : 0;
    /* Bytes that a decode step must read at least: all weights, once. */
    double gbs = step_ms > 0 ? (double)info->weight_bytes / step_ms / 1e6 : 0;
    if (cli->json)
        printf("{\"sequences\":%d,\"prompt_tokens\":%d,\"new_tokens\":%d,"
               "\"prefill_tokens_per_s\":%.2f,\"decode_tokens_per_s\":%.2f,"
               "\"decode_step_ms\":%.4f,\"weight_gb_per_s\":%.3f}\n",
               p->n_seqs, p->n_prompt, p->n_new, rate(s->n_prefill, s->prefill_ms),
               rate(s->n_decode, s->decode_ms), step_ms, gbs);
    else
        printf("%9d %12.1f %12.1f %12.3f %10.2f\n", p->n_seqs, rate(s->n_prefill, s->prefill_ms),
               rate(s->n_decode, s->decode_ms), step_ms, gbs);
}

static void print_head(const struct plan *p, const struct hg_model_info *info)
{
    printf("model %s, backend %s, weights %.1f MB, prompt %d, new %d\n%9s %12s %12s %12s %10s\n",
           info->name, info->backend, (double)info->weight_bytes / 1e6, p->n_prompt, p->n_new,
           "sequences", "prefill t/s", "decode t/s", "step ms", "GB/s");
}

static enum hg_status bench(const struct hg_cli *cli, struct hg_error *err)
{
    struct hg_model *m = NULL;
    struct hg_model_info info;
    struct hg_model_options o = hg_run_options(cli, (int)cli->max_batch);
    struct speed s;
    HG_TRY(hg_model_load(&o, &m, err));
    hg_model_info(m, &info);
    struct plan p = {.n_prompt = cli->prompt_tokens ? (int)cli->prompt_tokens : DEFAULT_PROMPT,
                     .n_new = cli->max_tokens ? (int)cli->max_tokens : DEFAULT_NEW,
                     .n_seqs = 1};
    if (!cli->prompt_tokens && p.n_prompt + p.n_new > info.max_context)
        p.n_prompt = info.max_context > 2 * p.n_new ? info.max_context - p.n_new : p.n_new;
    enum hg_status status = HG_STATUS_OK;
    for (; p.n_seqs <= info.max_seqs; p.n_seqs = info.max_seqs) {
        HG_TRY_OUT(measure(m, &info, &p, &s, err));
        if (p.n_seqs == 1 && !cli->json)
            print_head(&p, &info);
        print(cli, &p, &s, &info);
        if (p.n_seqs == info.max_seqs)
            break;
    }
out:
    hg_model_free(m);
    return status;
}

int hg_cli_bench(const struct hg_cli *cli)
{
    struct hg_error err = {0};
    if (cli->n_args != 0)
        return hg_cli_usage_error("bench", "unexpected argument");
    return bench(cli, &err) == HG_STATUS_OK ? 0 : hg_cli_fail("bench", &err);
}
