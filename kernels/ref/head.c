/* kernels/ref/head.c - final RMSNorm and the allowed rows [lo, hi) of a head, per out row. */
#include "kernels/ref/ref.h"

static enum hg_status check(const struct ref_backend *r, const struct hg_head_args *a, int i)
{
    int32_t set = a->plan->out_table[i], row = a->plan->out_row[i];
    const struct hg_sample_params *p = &a->plan->sample[i];
    if (set < 0 || set >= HG_MAX_PLUGINS || !a->heads[set] || !a->norms[set])
        return ref_refuse("head: row %d wants head set %d", i, set);
    if (row < 0 || row >= a->plan->n_tokens)
        return ref_refuse("head: token row %d of %d", row, a->plan->n_tokens);
    const struct hg_weight *w = a->heads[set];
    if (p->lo < 0 || p->hi < p->lo || p->hi > w->n_out || p->hi - p->lo > a->ld)
        return ref_refuse("head: ids %d..%d of %d, ld %lld", p->lo, p->hi, w->n_out,
                          (long long)a->ld);
    if (w->n_in > r->limits.max_in || w->n_out > r->limits.max_out)
        return ref_refuse("head: [%d, %d] exceeds the reserved [%d, %d]", w->n_out, w->n_in,
                          r->limits.max_out, r->limits.max_in);
    return HG_STATUS_OK;
}

enum hg_status ref_head(struct hg_backend *b, const struct hg_head_args *a)
{
    struct ref_backend *r = ref_of(b);
    for (int i = 0; i < a->plan->n_out; i++) {
        HG_TRY(check(r, a, i));
        const struct hg_weight *w = a->heads[a->plan->out_table[i]];
        const struct hg_sample_params *p = &a->plan->sample[i];
        const float *x = (const float *)a->x + (int64_t)a->plan->out_row[i] * w->n_in;
        ref_rmsnorm(x, a->norms[a->plan->out_table[i]], a->norm_eps, w->n_in, a->rounding,
                    r->normed);
        if (a->rounding)
            ref_rounded_row(r, w, r->normed, p->lo, p->hi - p->lo, -1, r->sum);
        else
            ref_base_row(r, w, r->normed, p->lo, p->hi - p->lo, r->sum);
        for (int32_t v = 0; v < p->hi - p->lo; v++)
            a->logits[i * a->ld + v] = (float)r->sum[v];
    }
    return HG_STATUS_OK;
}
