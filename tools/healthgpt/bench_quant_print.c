/* tools/healthgpt/bench_quant_print.c - the table of bench --quant, for people and as JSON. */
#include <math.h>
#include <string.h>

#include "server/json_text.h"
#include "tools/healthgpt/bench_quant.h"
#include "tools/healthgpt/terminal.h"

static const char *const yardsticks[HG_QUANT_YARDSTICKS] = {"bf16", "f32"};

/* 1.5 kB, 12.3 MB, 4.2 GB */
static const char *size_text(double bytes, char out[24])
{
    bool large = bytes >= 1e9, medium = bytes >= 1e6;
    snprintf(out, 24, large || medium ? "%.1f %s" : "%.2f %s",
             bytes / (large    ? 1e9
                      : medium ? 1e6
                               : 1e3),
             large    ? "GB"
             : medium ? "MB"
                      : "kB");
    return out;
}

static void print_memory(const struct hg_quant_report *r)
{
    char a[24], b[24], c[24], d[24];
    printf("\n%-28s %-5s %-8s %-5s %10s %10s %10s %10s\n", "memory", "store", "plug-ins", "KV",
           "linears", "plug-ins", "KV/token", "all");
    for (int i = 0; i < r->n_rows; i++) {
        const struct hg_quant_row *w = &r->rows[i];
        if (w->why[0])
            printf("%-28s did not run: %s\n", w->name, w->why);
        else
            printf("%-28s %-5s %-8s %-5s %10s %10s %10s %10s\n", w->name, w->dtype, w->plugin_dtype,
                   w->kv_dtype, size_text(w->linear_bytes, a), size_text(w->plugin_bytes, b),
                   size_text(w->kv_token_bytes, c), size_text(w->all_bytes, d));
    }
}

static void print_divergence(const struct hg_quant_report *r, int y, int task)
{
    bool any = false;
    for (int i = 0; i < r->n_rows; i++)
        any |= r->rows[i].kl[y][task].n > 0;
    if (!any)
        return;
    printf("\n%-28s %9s %9s %9s %9s %8s\n",
           task == HG_TASK_GENERATION
               ? y == HG_QUANT_BF16 ? "pictures: KL from bf16" : "pictures: KL from f32"
           : y == HG_QUANT_BF16 ? "text: KL from bf16"
                                : "text: KL from f32",
           "mean", "median", "p99", "max", "top-1");
    for (int i = 0; i < r->n_rows; i++) {
        const struct hg_quant_summary *k = &r->rows[i].kl[y][task];
        if (k->n > 0)
            printf("%-28s %9.2e %9.2e %9.2e %9.2e %6.2f %%\n", r->rows[i].name, k->mean, k->median,
                   k->p99, k->max, 100 * k->same);
    }
}

static double percent(size_t part, size_t all)
{
    return all ? 100.0 * (double)part / (double)all : 0;
}

static void print_answers(const struct hg_quant_report *r)
{
    printf("\n%-28s %14s %14s %14s %11s\n", "greedy, against bf16", "answers equal",
           "tokens before", "drawn tokens", "perplexity");
    for (int i = 0; i < r->n_rows; i++) {
        const struct hg_quant_row *w = &r->rows[i];
        char text[24] = "-", drawn[24] = "-";
        if (w->why[0])
            continue;
        if (w->n_text)
            snprintf(text, sizeof text, "%.4f", exp(w->nll));
        if (w->n_drawn)
            snprintf(drawn, sizeof drawn, "%.2f %%", percent(w->n_drawn_equal, w->n_drawn));
        printf("%-28s %6zu of %4zu %12.2f %% %14s %11s\n", w->name, w->n_equal, w->n_answers,
               percent(w->n_leading, w->n_tokens), drawn, text);
    }
}

static void print_accuracy(const struct hg_quant_report *r)
{
    if (r->rows[0].n_known == 0 && r->rows[1].n_known == 0)
        return;
    printf("\n%-28s %9s %10s %8s %8s   %s\n", "known answers", "right", "accuracy", "gained",
           "lost", "difference from bf16 in points, 95 % interval");
    for (int i = 0; i < r->n_rows; i++) {
        const struct hg_quant_row *w = &r->rows[i];
        double low, high;
        if (w->n_known == 0)
            continue;
        hg_quant_paired(w->n_known, w->n_better, w->n_worse, &low, &high);
        printf("%-28s %9zu %8.2f %% %8zu %8zu   %+.2f [%+.2f, %+.2f]\n", w->name, w->n_right,
               percent(w->n_right, w->n_known), w->n_better, w->n_worse,
               percent(w->n_better, w->n_known) - percent(w->n_worse, w->n_known), 100 * low,
               100 * high);
    }
}

void hg_quant_print(const struct hg_quant_report *r)
{
    printf("model %s, backend %s: %zu questions, %zu tokens of text, %zu of pictures\n",
           r->info.name, r->backend, r->n_items, r->n_positions[HG_TASK_COMPREHENSION],
           r->n_positions[HG_TASK_GENERATION]);
    if (r->truncated)
        printf("distributions of more than %d tokens: the %d likeliest were kept and the others as "
               "one, so divergences are lower bounds\n",
               HG_QUANT_FULL, HG_QUANT_TOP);
    print_memory(r);
    for (int y = 0; y < HG_QUANT_YARDSTICKS; y++)
        for (int t = 0; t < HG_TASK_COUNT; t++)
            print_divergence(r, y, t);
    print_answers(r);
    print_accuracy(r);
    hg_terminal_flush();
}

/* ---- JSON ------------------------------------------------------------------------------------ */

static void put_kl(struct hg_json_out *o, const struct hg_quant_row *w)
{
    hg_out_open(o, "kl", '{');
    for (int y = 0; y < HG_QUANT_YARDSTICKS; y++) {
        hg_out_open(o, yardsticks[y], '{');
        for (int t = 0; t < HG_TASK_COUNT; t++) {
            const struct hg_quant_summary *k = &w->kl[y][t];
            if (k->n == 0)
                continue;
            hg_out_open(o, hg_task_name((enum hg_task)t), '{');
            hg_out_uint(o, "positions", k->n);
            hg_out_real(o, "mean", k->mean, 9);
            hg_out_real(o, "median", k->median, 9);
            hg_out_real(o, "p99", k->p99, 9);
            hg_out_real(o, "max", k->max, 9);
            hg_out_real(o, "top1", k->same, 9);
            hg_out_close(o, '}');
        }
        hg_out_close(o, '}');
    }
    hg_out_close(o, '}');
}

static void put_known(struct hg_json_out *o, const struct hg_quant_row *w)
{
    double low, high;
    if (w->n_known == 0)
        return;
    hg_quant_paired(w->n_known, w->n_better, w->n_worse, &low, &high);
    hg_out_open(o, "known", '{');
    hg_out_uint(o, "questions", w->n_known);
    hg_out_uint(o, "right", w->n_right);
    hg_out_uint(o, "gained", w->n_better);
    hg_out_uint(o, "lost", w->n_worse);
    hg_out_real(o, "difference_low", low, 6);
    hg_out_real(o, "difference_high", high, 6);
    hg_out_close(o, '}');
}

static void put_row(struct hg_json_out *o, const struct hg_quant_row *w)
{
    hg_out_open(o, NULL, '{');
    hg_out_string(o, "type", w->name);
    if (w->why[0]) {
        hg_out_string(o, "did_not_run", w->why);
        hg_out_close(o, '}');
        return;
    }
    hg_out_string(o, "dtype", w->dtype);
    hg_out_string(o, "plugin_dtype", w->plugin_dtype);
    hg_out_string(o, "kv_dtype", w->kv_dtype);
    hg_out_int(o, "linear_bytes", (int64_t)w->linear_bytes);
    hg_out_int(o, "plugin_bytes", (int64_t)w->plugin_bytes);
    hg_out_real(o, "kv_bytes_per_token", w->kv_token_bytes, 9);
    hg_out_int(o, "all_bytes", (int64_t)w->all_bytes);
    put_kl(o, w);
    hg_out_uint(o, "answers", w->n_answers);
    hg_out_uint(o, "answers_equal", w->n_equal);
    hg_out_uint(o, "tokens", w->n_tokens);
    hg_out_uint(o, "tokens_before_difference", w->n_leading);
    hg_out_uint(o, "drawn_tokens", w->n_drawn);
    hg_out_uint(o, "drawn_tokens_equal", w->n_drawn_equal);
    if (w->n_text)
        hg_out_real(o, "perplexity", exp(w->nll), 9);
    put_known(o, w);
    hg_out_real(o, "seconds", w->seconds, 4);
    hg_out_close(o, '}');
}

void hg_quant_print_json(const struct hg_quant_report *r)
{
    struct hg_buf line = {0};
    struct hg_json_out o;
    hg_out_begin(&o, &line);
    hg_out_open(&o, NULL, '{');
    hg_out_string(&o, "model", r->info.name);
    hg_out_string(&o, "backend", r->backend);
    hg_out_uint(&o, "questions", r->n_items);
    hg_out_uint(&o, "text_tokens", r->n_positions[HG_TASK_COMPREHENSION]);
    hg_out_uint(&o, "picture_tokens", r->n_positions[HG_TASK_GENERATION]);
    hg_out_bool(&o, "truncated", r->truncated);
    hg_out_open(&o, "types", '[');
    for (int i = 0; i < r->n_rows; i++)
        put_row(&o, &r->rows[i]);
    hg_out_close(&o, ']');
    hg_out_close(&o, '}');
    if (!o.failed)
        hg_terminal_line(stdout, line.data);
    hg_buf_deinit(&line);
    hg_terminal_flush();
}
