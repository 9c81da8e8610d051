/* tools/healthgpt/bench_quant_dist.c - distributions kept, divergences, their summary. */
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tools/healthgpt/bench_quant.h"

double hg_quant_log_sum(const float *logits, size_t n)
{
    double max = -INFINITY, sum = 0;
    for (size_t i = 0; i < n; i++)
        max = (double)logits[i] > max ? (double)logits[i] : max;
    for (size_t i = 0; i < n; i++)
        sum += exp((double)logits[i] - max);
    return max + log(sum);
}

struct pick {
    float logp;
    int32_t id;
};

/* Likeliest first, ties by lowest id. */
static int by_logp(const void *a, const void *b)
{
    const struct pick *x = a, *y = b;
    if (x->logp != y->logp)
        return x->logp < y->logp ? 1 : -1;
    return (x->id > y->id) - (x->id < y->id);
}

static int by_id(const void *a, const void *b)
{
    const struct pick *x = a, *y = b;
    return (x->id > y->id) - (x->id < y->id);
}

void hg_quant_dist_deinit(struct hg_quant_dist *d)
{
    free(d->id);
    free(d->logp);
    *d = (struct hg_quant_dist){0};
}

/* The likeliest of n, by ascending id. */
static enum hg_status keep_top(struct hg_quant_dist *d, size_t n)
{
    struct pick *all = malloc(n * sizeof *all);
    int32_t *id = malloc(HG_QUANT_TOP * sizeof *id);
    float *logp = malloc(HG_QUANT_TOP * sizeof *logp);
    if (!all || !id || !logp) {
        free(all);
        free(id);
        free(logp);
        return HG_STATUS_NO_MEMORY;
    }
    for (size_t i = 0; i < n; i++)
        all[i] = (struct pick){d->logp[i], (int32_t)i};
    qsort(all, n, sizeof *all, by_logp);
    double rest = 0;
    for (size_t i = n; i-- > HG_QUANT_TOP;)
        rest += exp((double)all[i].logp);
    qsort(all, HG_QUANT_TOP, sizeof *all, by_id);
    for (int i = 0; i < HG_QUANT_TOP; i++) {
        id[i] = all[i].id;
        logp[i] = all[i].logp;
    }
    free(all);
    free(d->logp);
    d->logp = logp;
    d->id = id;
    d->n = HG_QUANT_TOP;
    d->rest = (float)log(rest);
    return HG_STATUS_OK;
}

enum hg_status hg_quant_dist_set(struct hg_quant_dist *d, int32_t own, const float *logits,
                                 size_t n)
{
    double sum = hg_quant_log_sum(logits, n);
    hg_quant_dist_deinit(d);
    d->own = own;
    d->rest = -INFINITY;
    d->logp = malloc(n * sizeof *d->logp);
    if (!d->logp)
        return HG_STATUS_NO_MEMORY;
    d->n = (int)n;
    for (size_t i = 0; i < n; i++)
        d->logp[i] = (float)((double)logits[i] - sum);
    return n > HG_QUANT_FULL ? keep_top(d, n) : HG_STATUS_OK;
}

/* p log(p / q) of log probabilities; an event that q holds for impossible costs what the smallest
 * float would. */
static double term(double p, double q)
{
    const double least = log((double)FLT_TRUE_MIN);
    return p == -INFINITY ? 0 : exp(p) * (p - (q > least ? q : least));
}

static double log_of(double mass)
{
    return mass > 0 ? log(mass) : -INFINITY;
}

double hg_quant_divergence(const struct hg_quant_dist *p, const float *logits, size_t n)
{
    double sum = hg_quant_log_sum(logits, n), kl = 0, covered = 0;
    for (int i = 0; i < p->n; i++) {
        size_t at = p->id ? (size_t)p->id[i] : (size_t)i;
        double q = at < n ? (double)logits[at] - sum : -INFINITY;
        kl += term((double)p->logp[i], q);
        covered += exp(q);
    }
    if (p->rest != -INFINITY)
        kl += term((double)p->rest, log_of(1 - covered));
    return kl > 0 ? kl : 0;
}

/* Over the ids that both keep; all others are one event. */
double hg_quant_divergence_kept(const struct hg_quant_dist *p, const struct hg_quant_dist *q)
{
    double kl = 0, p_left = 1, q_left = 1;
    int shared = 0;
    for (int i = 0, j = 0; i < p->n && j < q->n;) {
        int32_t a = p->id ? p->id[i] : i, b = q->id ? q->id[j] : j;
        if (a == b) {
            kl += term((double)p->logp[i], (double)q->logp[j]);
            p_left -= exp((double)p->logp[i]);
            q_left -= exp((double)q->logp[j]);
            shared++;
        }
        i += a <= b;
        j += b <= a;
    }
    bool whole = !p->id && !q->id && shared == p->n;
    if (!whole)
        kl += term(log_of(p_left), log_of(q_left));
    return kl > 0 ? kl : 0;
}

/* ---- summaries ------------------------------------------------------------------------------- */

enum hg_status hg_quant_sample_add(struct hg_quant_sample *s, double v, bool same)
{
    if (s->n == s->cap) {
        size_t cap = s->cap ? 2 * s->cap : 256;
        double *more = realloc(s->v, cap * sizeof *more);
        if (!more)
            return HG_STATUS_NO_MEMORY;
        s->v = more;
        s->cap = cap;
    }
    s->v[s->n++] = v;
    s->n_same += same;
    return HG_STATUS_OK;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Nearest rank of n sorted values. */
static double quantile(const double *v, size_t n, double share)
{
    size_t rank = (size_t)ceil(share * (double)n);
    return v[rank > 0 ? rank - 1 : 0];
}

void hg_quant_summarise(struct hg_quant_sample *s, struct hg_quant_summary *out)
{
    double sum = 0;
    *out = (struct hg_quant_summary){.n = s->n};
    if (s->n == 0)
        return;
    for (size_t i = 0; i < s->n; i++)
        sum += s->v[i];
    qsort(s->v, s->n, sizeof *s->v, compare);
    out->mean = sum / (double)s->n;
    out->median = quantile(s->v, s->n, 0.5);
    out->p99 = quantile(s->v, s->n, 0.99);
    out->max = s->v[s->n - 1];
    out->same = (double)s->n_same / (double)s->n;
}

void hg_quant_paired(size_t n, size_t better, size_t worse, double *low, double *high)
{
    double b = (double)better + 0.5, c = (double)worse + 0.5, total = (double)n + 2;
    double diff = (b - c) / total;
    double error = 1.959964 * sqrt(b + c - (b - c) * (b - c) / total) / total;
    *low = diff - error > -1 ? diff - error : -1;
    *high = diff + error < 1 ? diff + error : 1;
}
