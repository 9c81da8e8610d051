/* kernels/ref/sample.c - penalty, temperature, top-k, top-p, softmax, draw; and log probabilities.
 *
 * Greedy rows cost one pass for the maximum and one for the softmax denominator. top_k and top_p
 * pop from a heap, O(V + kept * log V). */
#include "kernels/ref/sample.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/rng.h"
#include "kernels/ref/ref.h"

enum hg_status hg_sample_scratch_init(struct hg_sample_scratch *s, int32_t cap,
                                      struct hg_error *err)
{
    memset(s, 0, sizeof *s);
    size_t n = cap > 0 ? (size_t)cap : 1;
    s->score = calloc(n, sizeof *s->score);
    s->weight = calloc(n, sizeof *s->weight);
    s->heap = calloc(n, sizeof *s->heap);
    s->mark = calloc(n, sizeof *s->mark);
    if (!s->score || !s->weight || !s->heap || !s->mark) {
        hg_sample_scratch_deinit(s);
        return hg_fail(err, HG_STATUS_NO_MEMORY, "sampling scratch for %d ids", cap);
    }
    s->cap = (int32_t)n;
    return HG_STATUS_OK;
}

void hg_sample_scratch_deinit(struct hg_sample_scratch *s)
{
    free(s->score);
    free(s->weight);
    free(s->heap);
    free(s->mark);
    memset(s, 0, sizeof *s);
}

static bool load_scores(const float *logits, int32_t n, struct hg_sample_scratch *s)
{
    for (int32_t i = 0; i < n; i++) {
        if (!isfinite(logits[i]))
            return false;
        s->score[i] = logits[i];
    }
    return true;
}

/* Returns false when a score overflowed. */
static bool penalise(const struct hg_sample_params *p, struct hg_sample_scratch *s)
{
    bool finite = true;
    for (int32_t i = 0; i < p->n_history; i++) {
        int32_t id = p->history[i];
        if (id < p->lo || id >= p->hi || s->mark[id - p->lo])
            continue;
        s->mark[id - p->lo] = 1;
        float *v = &s->score[id - p->lo];
        *v = *v < 0 ? *v * p->repetition_penalty : *v / p->repetition_penalty;
        finite = finite && isfinite(*v);
    }
    for (int32_t i = 0; i < p->n_history; i++) {
        int32_t id = p->history[i];
        if (id >= p->lo && id < p->hi)
            s->mark[id - p->lo] = 0;
    }
    return finite;
}

/* true: a comes before b when the best comes first. */
static bool better(const float *score, int32_t a, int32_t b)
{
    return score[a] > score[b] || (score[a] == score[b] && a < b);
}

static void sift_down(const float *score, int32_t *heap, int32_t n, int32_t i)
{
    int32_t moving = heap[i];
    for (;;) {
        int32_t child = 2 * i + 1;
        if (child >= n)
            break;
        if (child + 1 < n && better(score, heap[child + 1], heap[child]))
            child++;
        if (!better(score, heap[child], moving))
            break;
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = moving;
}

static int32_t heap_pop(const float *score, int32_t *heap, int32_t *n)
{
    int32_t top = heap[0];
    heap[0] = heap[--*n];
    if (*n > 0)
        sift_down(score, heap, *n, 0);
    return top;
}

static void heap_order(const float *score, int32_t *heap, int32_t n)
{
    for (int32_t i = n / 2 - 1; i >= 0; i--)
        sift_down(score, heap, n, i);
}

/* Zeroes the weights below the k-th best score. */
static void keep_top_k(struct hg_sample_scratch *s, int32_t n, int32_t k)
{
    if (k <= 0 || k >= n)
        return;
    for (int32_t i = 0; i < n; i++)
        s->heap[i] = i;
    heap_order(s->score, s->heap, n);
    int32_t n_heap = n, last = 0;
    for (int32_t i = 0; i < k; i++)
        last = heap_pop(s->score, s->heap, &n_heap);
    for (int32_t i = 0; i < n; i++)
        if (s->score[i] < s->score[last])
            s->weight[i] = 0;
}

/* The ascending cumulative probability of an id is 1 minus the mass of all better ids, so popping
 * from the best can stop at the first dropped one. */
static void keep_top_p(struct hg_sample_scratch *s, int32_t n, double top_p)
{
    if (!(top_p < 1))
        return;
    int32_t n_heap = 0;
    double total = 0, better_mass = 0;
    for (int32_t i = 0; i < n; i++) {
        total += s->weight[i];
        if (s->weight[i] > 0)
            s->heap[n_heap++] = i;
    }
    heap_order(s->score, s->heap, n_heap);
    int32_t n_kept = 0;
    while (n_heap > 0) {
        int32_t id = s->heap[0];
        if (n_kept > 0 && total - better_mass <= (1 - top_p) * total)
            break;
        heap_pop(s->score, s->heap, &n_heap);
        better_mass += s->weight[id];
        s->mark[id] = 1;
        n_kept++;
    }
    for (int32_t i = 0; i < n; i++) {
        if (!s->mark[i])
            s->weight[i] = 0;
        s->mark[i] = 0;
    }
}

static int32_t draw(const struct hg_sample_params *p, const struct hg_sample_scratch *s, int32_t n)
{
    double total = 0, sum = 0;
    int32_t last = 0;
    for (int32_t i = 0; i < n; i++)
        total += s->weight[i];
    double target = hg_uniform(p->seed, p->position, 0) * total;
    for (int32_t i = 0; i < n; i++) {
        if (!(s->weight[i] > 0))
            continue;
        sum += s->weight[i];
        last = i;
        if (sum > target)
            break;
    }
    return last;
}

static int32_t draw_kept(const struct hg_sample_params *p, struct hg_sample_scratch *s, int32_t n,
                         int32_t best)
{
    double max = s->score[best], t = p->temperature;
    for (int32_t i = 0; i < n; i++)
        s->weight[i] = exp((s->score[i] - max) / t);
    keep_top_k(s, n, p->top_k);
    keep_top_p(s, n, p->top_p);
    return draw(p, s, n);
}

/* Insertion into a short list, best first. */
static void list_top(const struct hg_sample_params *p, const float *score, int32_t n,
                     double log_sum, struct hg_sample_result *out)
{
    int32_t want = p->n_top < HG_MAX_TOP ? p->n_top : HG_MAX_TOP;
    int32_t n_top = 0;
    for (int32_t i = 0; i < n && want > 0; i++) {
        if (n_top == want && !better(score, i, out->top_id[n_top - 1]))
            continue;
        int32_t at = n_top < want ? n_top++ : n_top - 1;
        for (; at > 0 && better(score, i, out->top_id[at - 1]); at--)
            out->top_id[at] = out->top_id[at - 1];
        out->top_id[at] = i;
    }
    for (int32_t i = 0; i < n_top; i++) {
        out->top_logprob[i] = (float)(score[out->top_id[i]] - log_sum);
        out->top_id[i] += p->lo;
    }
    out->n_top = n_top;
}

enum hg_status hg_ref_sample_row(const float *logits, const struct hg_sample_params *p,
                                 struct hg_sample_result *out, struct hg_sample_scratch *s)
{
    memset(out, 0, sizeof *out);
    if (p->lo < 0 || p->hi <= p->lo || !(p->repetition_penalty > 0))
        return HG_STATUS_BAD_REQUEST;
    int32_t n = p->hi - p->lo;
    if (n > s->cap)
        return HG_STATUS_INTERNAL;
    out->token = p->lo;
    if (!load_scores(logits, n, s) || !penalise(p, s))
        return HG_STATUS_OK; /* finite stays false */
    out->finite = true;

    int32_t best = 0;
    for (int32_t i = 1; i < n; i++)
        if (s->score[i] > s->score[best])
            best = i;
    double sum = 0;
    for (int32_t i = 0; i < n; i++)
        sum += exp((double)s->score[i] - s->score[best]);
    double log_sum = s->score[best] + log(sum);

    int32_t chosen = p->temperature > 0 ? draw_kept(p, s, n, best) : best;
    out->token = p->lo + chosen;
    out->logprob = (float)(s->score[chosen] - log_sum);
    list_top(p, s->score, n, log_sum, out);
    return HG_STATUS_OK;
}

enum hg_status ref_sample(struct hg_backend *b, const struct hg_sample_args *a)
{
    struct ref_backend *r = ref_of(b);
    for (int i = 0; i < a->plan->n_out; i++) {
        const struct hg_sample_params *p = &a->plan->sample[i];
        if ((int64_t)p->hi - p->lo > a->ld)
            return ref_refuse("sample: range %d..%d of row %d exceeds ld %lld", p->lo, p->hi, i,
                              (long long)a->ld);
        HG_TRY(hg_ref_sample_row(a->logits + i * a->ld, p, &a->plan->result[i], &r->sample));
    }
    return hg_host_steps_keep(&r->steps, a->plan);
}
