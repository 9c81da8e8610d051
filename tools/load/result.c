#include "tools/load/result.h"

#include <stdlib.h>
#include <string.h>

void hg_load_result_deinit(struct hg_load_result *r)
{
    for (int k = 0; k < HG_LOAD_KINDS; k++) {
        hg_samples_deinit(&r->kind[k].first);
        hg_samples_deinit(&r->kind[k].gap);
        hg_samples_deinit(&r->kind[k].total);
    }
    for (int i = 0; i < HG_LOAD_STATUSES; i++)
        hg_samples_deinit(&r->status[i].ms);
    hg_samples_deinit(&r->late);
    free(r->digests);
    *r = (struct hg_load_result){0};
}

void hg_load_result_status(struct hg_load_result *r, int status, double ms, bool retry_after)
{
    struct hg_load_status_result *s = r->status;
    while (s < r->status + HG_LOAD_STATUSES - 1 && s->n > 0 && s->status != status)
        s++; /* the last row takes what is left */
    s->status = status;
    s->n++;
    s->n_retry_after += retry_after;
    if (hg_samples_add(&s->ms, ms) != HG_STATUS_OK)
        r->out_of_memory = true;
}

void hg_load_result_code(struct hg_load_result *r, const char *code)
{
    struct hg_load_code_result *c = r->code;
    while (c < r->code + HG_LOAD_CODES - 1 && c->n > 0 && strcmp(c->code, code) != 0)
        c++;
    snprintf(c->code, sizeof c->code, "%s", code);
    c->n++;
}

void hg_load_result_digest(struct hg_load_result *r, const struct hg_load_digest *d)
{
    if (r->n_digests == r->cap_digests) {
        size_t cap = r->cap_digests ? 2 * r->cap_digests : 1024;
        struct hg_load_digest *v = realloc(r->digests, cap * sizeof *v);
        if (!v) {
            r->out_of_memory = true;
            return;
        }
        r->digests = v;
        r->cap_digests = cap;
    }
    r->digests[r->n_digests++] = *d;
}

uint64_t hg_load_result_errors(const struct hg_load_result *r)
{
    uint64_t n = 0;
    for (int i = 0; i < HG_LOAD_CODES; i++)
        n += r->code[i].n;
    return n;
}

static bool is_refusal(int status)
{
    return status == 429 || status == 503;
}

uint64_t hg_load_result_refused(const struct hg_load_result *r)
{
    uint64_t n = 0;
    for (int i = 0; i < HG_LOAD_STATUSES; i++)
        n += is_refusal(r->status[i].status) ? r->status[i].n : 0;
    return n;
}

/* ---- table ------------------------------------------------------------------------------------
 */

static const double percents[] = {50, 90, 99};
enum { N_PERCENTS = sizeof percents / sizeof percents[0] };

static void print_row(FILE *to, const char *name, const char *what, struct hg_samples *s)
{
    if (s->n == 0)
        return;
    fprintf(to, "%-6s %-18s %9zu %9.2f", name, what, s->n, hg_samples_mean(s));
    for (int i = 0; i < N_PERCENTS; i++)
        fprintf(to, " %9.2f", hg_samples_percentile(s, percents[i]));
    fprintf(to, " %9.2f\n", hg_samples_percentile(s, 100));
}

static double rate(uint64_t n, double seconds)
{
    return seconds > 0 ? (double)n / seconds : 0;
}

static void print_rates(const struct hg_load_result *r, FILE *to)
{
    struct hg_load_kind_result sum = {0};
    for (int k = 0; k < HG_LOAD_KINDS; k++) {
        const struct hg_load_kind_result *x = &r->kind[k];
        sum.n_ok += x->n_ok;
        sum.n_ok_window += x->n_ok_window;
        sum.n_good_window += x->n_good_window;
        sum.tokens += x->tokens;
        sum.good_tokens += x->good_tokens;
        sum.images += x->images;
    }
    fprintf(to,
            "%.1f s, %llu requests due, %llu answered, %llu refused, %llu errors, %llu left, "
            "%llu read slowly, at most %zu open\n",
            r->window_s, (unsigned long long)r->n_due, (unsigned long long)sum.n_ok,
            (unsigned long long)hg_load_result_refused(r),
            (unsigned long long)hg_load_result_errors(r), (unsigned long long)r->n_left,
            (unsigned long long)r->n_slow, r->most_open);
    fprintf(to, "per second: %.1f requests, %.1f tokens, %.2f images",
            rate(sum.n_ok_window, r->window_s), rate(sum.tokens, r->window_s),
            rate(sum.images, r->window_s));
    if (r->deadline_ms > 0 || r->first_ms > 0)
        fprintf(to, "; good (within %.0f ms%s): %.1f requests, %.1f tokens", r->deadline_ms,
                r->first_ms > 0 ? ", first token in time" : "",
                rate(sum.n_good_window, r->window_s), rate(sum.good_tokens, r->window_s));
    fputc('\n', to);
}

void hg_load_print_table(struct hg_load_result *r, FILE *to)
{
    print_rates(r, to);
    fprintf(to, "\n%-6s %-18s %9s %9s %9s %9s %9s %9s\n", "", "ms", "n", "mean", "p50", "p90",
            "p99", "most");
    for (int k = 0; k < HG_LOAD_KINDS; k++) {
        print_row(to, hg_load_kind_names[k], "first token", &r->kind[k].first);
        print_row(to, hg_load_kind_names[k], "between tokens", &r->kind[k].gap);
        print_row(to, hg_load_kind_names[k], "end to end", &r->kind[k].total);
    }
    for (int i = 0; i < HG_LOAD_STATUSES; i++) {
        char name[24];
        snprintf(name, sizeof name, "%d", r->status[i].status);
        print_row(to, name, is_refusal(r->status[i].status) ? "refused after" : "answered after",
                  &r->status[i].ms);
        if (r->status[i].n > r->status[i].n_retry_after && is_refusal(r->status[i].status))
            fprintf(to, "       %llu of them without Retry-After\n",
                    (unsigned long long)(r->status[i].n - r->status[i].n_retry_after));
    }
    for (int i = 0; i < HG_LOAD_CODES; i++)
        if (r->code[i].n > 0)
            fprintf(to, "error  %-18s %9llu\n", r->code[i].code, (unsigned long long)r->code[i].n);
    print_row(to, "", "sent late by", &r->late);
}

/* ---- JSON -------------------------------------------------------------------------------------
 */

static void put_samples(FILE *to, const char *key, struct hg_samples *s)
{
    fprintf(to, "\"%s\":{\"n\":%zu,\"mean\":%.4f", key, s->n, hg_samples_mean(s));
    for (int i = 0; i < N_PERCENTS; i++)
        fprintf(to, ",\"p%.0f\":%.4f", percents[i], hg_samples_percentile(s, percents[i]));
    fprintf(to, ",\"max\":%.4f}", hg_samples_percentile(s, 100));
}

static void put_kind(FILE *to, const char *name, struct hg_load_kind_result *k, double window_s)
{
    fprintf(to,
            "\"%s\":{\"due\":%llu,\"ok\":%llu,\"good\":%llu,\"requests_per_s\":%.4f,"
            "\"good_requests_per_s\":%.4f,\"tokens_per_s\":%.4f,\"good_tokens_per_s\":%.4f,"
            "\"images_per_s\":%.4f,",
            name, (unsigned long long)k->n_due, (unsigned long long)k->n_ok,
            (unsigned long long)k->n_good, rate(k->n_ok_window, window_s),
            rate(k->n_good_window, window_s), rate(k->tokens, window_s),
            rate(k->good_tokens, window_s), rate(k->images, window_s));
    put_samples(to, "first_token_ms", &k->first);
    fputc(',', to);
    put_samples(to, "between_tokens_ms", &k->gap);
    fputc(',', to);
    put_samples(to, "total_ms", &k->total);
    fputc('}', to);
}

void hg_load_print_json(struct hg_load_result *r, FILE *to)
{
    fprintf(to,
            "{\"window_s\":%.4f,\"elapsed_s\":%.4f,\"deadline_ms\":%.3f,\"due\":%llu,"
            "\"refused\":%llu,\"errors\":%llu,\"left\":%llu,\"slow\":%llu,\"most_open\":%zu,"
            "\"kinds\":{",
            r->window_s, r->elapsed_s, r->deadline_ms, (unsigned long long)r->n_due,
            (unsigned long long)hg_load_result_refused(r),
            (unsigned long long)hg_load_result_errors(r), (unsigned long long)r->n_left,
            (unsigned long long)r->n_slow, r->most_open);
    for (int k = 0; k < HG_LOAD_KINDS; k++) {
        fputs(k ? "," : "", to);
        put_kind(to, hg_load_kind_names[k], &r->kind[k], r->window_s);
    }
    fputs("},\"statuses\":{", to);
    for (int i = 0, n = 0; i < HG_LOAD_STATUSES; i++) {
        if (r->status[i].n == 0)
            continue;
        fprintf(to, "%s\"%d\":{\"retry_after\":%llu,", n++ ? "," : "", r->status[i].status,
                (unsigned long long)r->status[i].n_retry_after);
        put_samples(to, "ms", &r->status[i].ms);
        fputc('}', to);
    }
    fputs("},\"codes\":{", to);
    for (int i = 0, n = 0; i < HG_LOAD_CODES; i++)
        if (r->code[i].n > 0)
            fprintf(to, "%s\"%s\":%llu", n++ ? "," : "", r->code[i].code,
                    (unsigned long long)r->code[i].n);
    fputs("},", to);
    put_samples(to, "late_ms", &r->late);
    fputs("}\n", to);
}

/* ---- digests ----------------------------------------------------------------------------------
 */

static int by_number(const void *a, const void *b)
{
    uint64_t x = ((const struct hg_load_digest *)a)->number;
    uint64_t y = ((const struct hg_load_digest *)b)->number;
    return (x > y) - (x < y);
}

enum hg_status hg_load_write_digests(struct hg_load_result *r, const char *path,
                                     struct hg_error *err)
{
    FILE *f = fopen(path, "w");
    if (!f)
        return hg_fail(err, HG_STATUS_IO, "%.200s: cannot be written", path);
    if (r->n_digests > 0)
        qsort(r->digests, r->n_digests, sizeof *r->digests, by_number);
    for (size_t i = 0; i < r->n_digests; i++) {
        const struct hg_load_digest *d = &r->digests[i];
        fprintf(f, "%llu %s %d %d %016llx\n", (unsigned long long)d->number,
                hg_load_kind_names[d->kind], d->status, d->n_tokens, (unsigned long long)d->digest);
    }
    bool failed = ferror(f) != 0;
    if (fclose(f) != 0 || failed)
        return hg_fail(err, HG_STATUS_IO, "%.200s: cannot be written", path);
    return HG_STATUS_OK;
}
