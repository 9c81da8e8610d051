/* tools/healthgpt/cmd_bench.c - prefill and decode speed of a model, without scheduler and HTTP.
 *
 * Prompts are plain token ids and stop tokens are ignored, so that the work is the same on every
 * run. Decode is bound by memory: each step reads all weights once, whatever the batch. */
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "server/json_text.h"
#include "tools/healthgpt/bench_floor.h"
#include "tools/healthgpt/bench_plot.h"
#include "tools/healthgpt/bench_quant.h"
#include "tools/healthgpt/run.h"
#include "tools/healthgpt/terminal.h"

enum {
    DEFAULT_PROMPT = 256,
    DEFAULT_NEW = 64,
    MAX_BATCHES = 16,
    IMAGE_ROUNDS = 9,
    N_TASKS = HG_TASK_COUNT
};

/* What --plugins can name; a mixed batch has the tasks in turns. */
enum plugin { PLUGIN_NONE, PLUGIN_COMPREHENSION, PLUGIN_GENERATION, PLUGIN_MIXED, N_PLUGINS };
static const char *const plugin_names[N_PLUGINS] = {"none", "comprehension", "generation", "mixed"};

struct plan {
    int n_prompt, n_new, n_seqs;
    enum plugin plugin;
};

struct speed {
    double prefill_ms, decode_ms;
    int n_prefill, n_decode; /* tokens */
    double *step;            /* [n_steps] ms of every decode step */
    int n_steps;
};

/* Generation samples from the index tokens alone when it decodes one whole picture. */
static bool draws(const struct hg_model_info *info, const struct plan *p)
{
    return info->first_index_id >= 0 && info->grid_h > 0 && p->n_new == info->grid_h * info->grid_w;
}

static enum hg_status start(struct hg_model *m, const struct hg_model_info *info,
                            const struct plan *p, int which, struct hg_seq **out,
                            struct hg_error *err)
{
    bool generation =
        p->plugin == PLUGIN_GENERATION || (p->plugin == PLUGIN_MIXED && which % 2 == 1);
    struct hg_request_input in = {.task = generation ? HG_TASK_GENERATION : HG_TASK_COMPREHENSION,
                                  .no_plugin = p->plugin == PLUGIN_NONE};
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
    in.sampling.unconstrained_image = !draws(info, p);
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
        s->step[s->n_steps++] = ms;
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
    *out = (struct speed){.step = calloc((size_t)p->n_new, sizeof *out->step)};
    if (!seqs || !items || !tokens || !out->step) {
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

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double percentile(const double *sorted, int n, int percent)
{
    return n > 0 ? sorted[(n - 1) * percent / 100] : 0;
}

static double rate(int n, double ms)
{
    return ms > 0 ? n * 1000.0 / ms : 0;
}

/* What a run of bench shares: the rate of the floors, and the bars for --plot. */
struct figures {
    double read_rate; /* bytes per second, 0: not known */
    struct hg_bench_bar bars[MAX_BATCHES * N_PLUGINS];
    size_t n_bars;
};

static double step_bytes(const struct hg_model *m, const struct hg_model_info *info,
                         const struct plan *p)
{
    bool mixed = p->plugin == PLUGIN_MIXED, generation = p->plugin == PLUGIN_GENERATION;
    const bool tasks[N_TASKS] = {mixed || !generation, mixed || generation};
    return hg_bench_step_bytes(m, tasks, p->plugin != PLUGIN_NONE, draws(info, p), p->n_seqs,
                               p->n_prompt + p->n_new / 2.0);
}

static void print(const struct hg_cli *cli, const struct hg_model *m,
                  const struct hg_model_info *info, const struct plan *p, const struct speed *s,
                  struct figures *f)
{
    double step_ms = s->n_decode ? s->decode_ms * p->n_seqs / s->n_decode : 0;
    double median = percentile(s->step, s->n_steps, 50), bytes = step_bytes(m, info, p);
    double floor_ms = f->read_rate > 0 ? bytes / f->read_rate * 1e3 : 0;
    double share = median > 0 ? floor_ms / median : 0;
    if (cli->json)
        printf("{\"plugin\":\"%s\",\"sequences\":%d,\"prompt_tokens\":%d,\"new_tokens\":%d,"
               "\"dtype\":\"%s\",\"kv_dtype\":\"%s\",\"prefill_ms\":%.4f,\"total_ms\":%.4f,"
               "\"prefill_tokens_per_s\":%.2f,\"decode_tokens_per_s\":%.2f,"
               "\"decode_step_ms\":%.4f,\"step_ms_p10\":%.4f,\"step_ms_p50\":%.4f,"
               "\"step_ms_p90\":%.4f,\"step_bytes\":%.0f,\"read_bytes_per_s\":%.0f,"
               "\"floor_ms\":%.4f}\n",
               plugin_names[p->plugin], p->n_seqs, p->n_prompt, p->n_new, cli->dtype, cli->kv_dtype,
               s->prefill_ms, s->prefill_ms + s->decode_ms, rate(s->n_prefill, s->prefill_ms),
               rate(s->n_decode, s->decode_ms), step_ms, percentile(s->step, s->n_steps, 10),
               median, percentile(s->step, s->n_steps, 90), bytes, f->read_rate, floor_ms);
    else
        printf("%-13s %9d %12.1f %12.1f %12.3f %10.2f", plugin_names[p->plugin], p->n_seqs,
               rate(s->n_prefill, s->prefill_ms), rate(s->n_decode, s->decode_ms), median,
               median > 0 ? bytes / median / 1e6 : 0);
    if (!cli->json && share > 0)
        printf(" %9.0f %%\n", 100 * share);
    else if (!cli->json)
        printf("           -\n");
    struct hg_bench_bar *b = &f->bars[f->n_bars++];
    b->share = share;
    snprintf(b->label, sizeof b->label, "%s, batch %d", plugin_names[p->plugin], p->n_seqs);
    snprintf(b->value, sizeof b->value, "%.3f ms", median);
}

static void print_head(const struct plan *p, const struct hg_model_info *info, double read_rate)
{
    printf("model %s, backend %s, weights %.1f MB, prompt %d, new %d, ", info->name, info->backend,
           (double)info->weight_bytes / 1e6, p->n_prompt, p->n_new);
    printf(read_rate > 0 ? "memory read at %.1f GB/s\n" : "no floor: memory was not measured\n",
           read_rate / 1e9);
    printf("%-13s %9s %12s %12s %12s %10s %11s\n", "plug-in", "sequences", "prefill t/s",
           "decode t/s", "step ms", "GB/s", "of floor");
}

/* ---- pictures -----------------------------------------------------------------------------------
 */

/* Milliseconds of the vision tower on a grey picture. */
static enum hg_status time_vision(struct hg_model *m, double *ms, struct hg_error *err)
{
    struct hg_image im = {0};
    struct hg_prepared *p = NULL;
    struct hg_seq *seq = NULL;
    const int32_t ids[] = {HG_IMAGE_ID, 1};
    struct hg_request_input in = {.task = HG_TASK_COMPREHENSION, .images = &im, .n_images = 1};
    enum hg_status status = HG_STATUS_OK;
    hg_sampling_default(&in.sampling);
    in.sampling.max_tokens = 1;
    HG_TRY(hg_image_init(&im, 64, 64, err));
    for (size_t i = 0; i < 3 * 64 * 64; i++)
        im.rgb[i] = (uint8_t)(i * 2654435761u >> 24);
    HG_TRY_OUT(hg_model_prepare_ids(m, &in, ids, 2, &p, err));
    HG_TRY_OUT(hg_seq_create(m, p, &seq, err));
    p = NULL;
    int64_t start = hg_now_ns();
    HG_TRY_OUT(hg_seq_encode_image(seq, err));
    HG_TRY_OUT(hg_bench_wait(m));
    *ms = (double)(hg_now_ns() - start) / 1e6;
out:
    hg_prepared_free(p);
    hg_seq_free(seq);
    hg_image_deinit(&im);
    return status;
}

/* Milliseconds of the VQGAN decoder, pixels on the host included. */
static enum hg_status time_render(struct hg_model *m, const struct hg_model_info *info, double *ms,
                                  struct hg_error *err)
{
    struct hg_image im = {0};
    size_t n = (size_t)info->grid_h * (size_t)info->grid_w;
    int32_t *codes = calloc(n, sizeof *codes);
    if (!codes)
        return hg_fail(err, HG_STATUS_NO_MEMORY, "bench: out of memory");
    for (size_t i = 0; i < n; i++)
        codes[i] = (int32_t)(i * 7919 % (size_t)info->n_index);
    int64_t start = hg_now_ns();
    enum hg_status status = hg_model_render(m, codes, n, &im, err);
    *ms = (double)(hg_now_ns() - start) / 1e6;
    hg_image_deinit(&im);
    free(codes);
    return status;
}

static enum hg_status bench_images(const struct hg_cli *cli, struct hg_model *m,
                                   const struct hg_model_info *info, struct hg_error *err)
{
    double ms[2][IMAGE_ROUNDS] = {0};
    for (int r = -1; r < IMAGE_ROUNDS; r++) { /* the first warms up */
        int at = r < 0 ? 0 : r;
        if (info->image_side > 0)
            HG_TRY(time_vision(m, &ms[0][at], err));
        if (info->grid_h > 0)
            HG_TRY(time_render(m, info, &ms[1][at], err));
    }
    for (int i = 0; i < 2; i++)
        qsort(ms[i], IMAGE_ROUNDS, sizeof ms[i][0], compare);
    printf(cli->json
               ? "{\"vision_side\":%d,\"vision_ms\":%.4f,\"drawn_side\":%d,\"draw_ms\":%.4f}\n"
               : "picture of %d pixels seen: %.3f ms; of %d pixels drawn: %.3f ms\n",
           info->image_side, ms[0][IMAGE_ROUNDS / 2], info->output_side, ms[1][IMAGE_ROUNDS / 2]);
    return HG_STATUS_OK;
}

/* ---- the command --------------------------------------------------------------------------------
 */

/* "1,8,32": ascending sizes of a batch. Without a list: 1 and max-batch. */
static enum hg_status read_batches(const struct hg_cli *cli, int out[MAX_BATCHES], int *n,
                                   struct hg_error *err)
{
    const char *at = cli->batches;
    *n = 0;
    if (!at) {
        out[(*n)++] = 1;
        if (cli->max_batch > 1)
            out[(*n)++] = (int)cli->max_batch;
        return HG_STATUS_OK;
    }
    for (;;) {
        char *end;
        long v = strtol(at, &end, 10);
        if (end == at || v < 1 || v > 1024 || (*end && *end != ',') || *n == MAX_BATCHES ||
            (*n > 0 && v <= out[*n - 1]))
            return hg_fail(err, HG_STATUS_BAD_REQUEST,
                           "--batches: expected ascending numbers in 1..1024, as in 1,8,32");
        out[(*n)++] = (int)v;
        if (!*end)
            return HG_STATUS_OK;
        at = end + 1;
    }
}

static enum hg_status read_plugins(const struct hg_cli *cli, bool wanted[N_PLUGINS],
                                   struct hg_error *err)
{
    for (const char *at = cli->plugins ? cli->plugins : "comprehension"; at;) {
        size_t n = strcspn(at, ",");
        int i = 0;
        while (i < N_PLUGINS &&
               (strlen(plugin_names[i]) != n || memcmp(at, plugin_names[i], n) != 0))
            i++;
        if (i == N_PLUGINS)
            return hg_fail(err, HG_STATUS_BAD_REQUEST,
                           "--plugins: expected none, comprehension, generation, mixed");
        wanted[i] = true;
        at = at[n] ? at + n + 1 : NULL;
    }
    return HG_STATUS_OK;
}

/* show: print the figures, under a head the first time (*head). */
static enum hg_status bench_one(const struct hg_cli *cli, struct hg_model *m,
                                const struct hg_model_info *info, const struct plan *p, bool show,
                                bool *head, struct figures *f, struct hg_error *err)
{
    struct speed s = {0};
    enum hg_status status = measure(m, info, p, &s, err);
    if (status == HG_STATUS_OK && show) {
        qsort(s.step, (size_t)s.n_steps, sizeof *s.step, compare);
        if (*head)
            print_head(p, info, f->read_rate);
        *head = false;
        print(cli, m, info, p, &s, f);
        hg_terminal_flush(); /* a sweep that is cut off keeps what it has */
    }
    free(s.step);
    return status;
}

/* Every plug-in with every batch. */
static enum hg_status sweep(const struct hg_cli *cli, struct hg_model *m, struct plan *p,
                            const bool *plugins, const int *batches, int n_batches,
                            struct figures *f, struct hg_error *err)
{
    struct hg_model_info info;
    bool head = !cli->json;
    hg_model_info(m, &info);
    for (int i = 0; i < N_PLUGINS; i++)
        for (int k = 0; plugins[i] && k < n_batches; k++) {
            p->plugin = (enum plugin)i;
            p->n_seqs = batches[k];
            if (i == PLUGIN_MIXED && p->n_seqs == 1)
                continue;               /* nothing to mix */
            if (cli->batches && k == 0) /* a device loads its kernels when they first run */
                HG_TRY(bench_one(cli, m, &info, p, false, &head, f, err));
            HG_TRY(bench_one(cli, m, &info, p, true, &head, f, err));
        }
    return cli->bench_images ? bench_images(cli, m, &info, err) : HG_STATUS_OK;
}

static enum hg_status bench(const struct hg_cli *cli, struct hg_error *err)
{
    struct hg_model *m = NULL;
    struct hg_model_info info;
    struct figures f = {0};
    int batches[MAX_BATCHES] = {1}, n_batches = 1;
    bool plugins[N_PLUGINS] = {false};
    HG_TRY(read_batches(cli, batches, &n_batches, err));
    HG_TRY(read_plugins(cli, plugins, err));
    struct hg_model_options o = hg_run_options(cli, batches[n_batches - 1]);
    o.forget = true; /* every round pays for its prompt and its picture */
    HG_TRY(hg_model_load(&o, &m, err));
    hg_model_info(m, &info);
    struct plan p = {.n_prompt = cli->prompt_tokens ? (int)cli->prompt_tokens : DEFAULT_PROMPT,
                     .n_new = cli->max_tokens ? (int)cli->max_tokens : DEFAULT_NEW};
    if (!cli->prompt_tokens && p.n_prompt + p.n_new > info.max_context)
        p.n_prompt = info.max_context > 2 * p.n_new ? info.max_context - p.n_new : p.n_new;
    f.read_rate = hg_bench_read_rate(m, (int)cli->threads);
    enum hg_status status = sweep(cli, m, &p, plugins, batches, n_batches, &f, err);
    if (status == HG_STATUS_OK && cli->plot) {
        char title[256];
        snprintf(title, sizeof title, "%s on %s: decode step, share of %s (%.1f GB/s)", info.name,
                 info.backend, f.read_rate > 0 ? "the memory floor" : "a floor that is not known",
                 f.read_rate / 1e9);
        status = hg_bench_plot(cli->plot, title, f.bars, f.n_bars, err);
    }
    hg_model_free(m);
    return status;
}

int hg_cli_bench(const struct hg_cli *cli)
{
    struct hg_error err = {0};
    if (cli->n_args != 0)
        return hg_cli_usage_error("bench", "unexpected argument");
    if (!cli->quant && (cli->questions || cli->types || cli->limit))
        return hg_cli_usage_error("bench", "--questions, --types and --limit go with --quant");
    if (cli->quant)
        return hg_bench_quant(cli, &err) == HG_STATUS_OK ? 0 : hg_cli_fail("bench", &err);
    return bench(cli, &err) == HG_STATUS_OK ? 0 : hg_cli_fail("bench", &err);
}
