/* kernels/cuda/head.cu - logits of the plan's out rows: final RMSNorm and head of the row's set,
 * ids [lo, hi) only.
 *
 *     logits[i][v - lo_i] = head_{set_i}[v] . norm_{set_i}(x[out_row_i])
 *
 * Mapping: per set that is present one launch prepares its rows (gathered by out_row) and
 * multiplies them with the tiles that hold any id asked of the set; a row is stored where it
 * belongs to the set and the id to its range. Rows of other sets ride along unused: they cost
 * nothing while the weight is the bound. Bound by the stream of the head. An id's logit has the
 * same bits in every range: tiles are cut by the weight. Definition: kernels/ref/head.c. */
#include "kernels/cuda/linear.cuh"

/* Row i is sound; widens the range of tiles asked of its set. */
static enum hg_status check(const struct cuda_backend *c, const struct hg_head_args *a, int i,
                            int *lo, int *hi)
{
    int32_t set = a->plan->out_table[i], row = a->plan->out_row[i];
    const struct hg_sample_params *p = &a->plan->sample[i];
    if (set < 0 || set >= HG_MAX_PLUGINS || !a->heads[set] || !a->norms[set])
        return cuda_refuse("head: row %d wants head set %d", i, set);
    if (row < 0 || row >= a->plan->n_tokens)
        return cuda_refuse("head: token row %d of %d", row, a->plan->n_tokens);
    const struct hg_weight *w = a->heads[set];
    if (p->lo < 0 || p->hi < p->lo || p->hi > w->n_out || p->hi - p->lo > a->ld)
        return cuda_refuse("head: ids %d..%d of %d, ld %lld", p->lo, p->hi, w->n_out,
                           (long long)a->ld);
    if (w->n_in > c->limits.max_in || w->n_out > c->limits.max_out)
        return cuda_refuse("head: [%d, %d] exceeds the reserved [%d, %d]", w->n_out, w->n_in,
                           c->limits.max_out, c->limits.max_in);
    if (w->pair)
        return cuda_refuse("head: weight packed in pairs of %d", w->pair);
    if (p->hi > p->lo) {
        lo[set] = p->lo < lo[set] ? p->lo : lo[set];
        hi[set] = p->hi > hi[set] ? p->hi : hi[set];
    }
    return HG_STATUS_OK;
}

/* Rows of one set, ids [lo, hi). */
static enum hg_status run_set(struct cuda_backend *c, const struct hg_head_args *a, int set, int lo,
                              int hi)
{
    const struct hg_weight *w = a->heads[set];
    int n = a->plan->n_out;
    Product p = {};
    if (!cuda_place_rows(c, w, false, n, &p.x))
        return cuda_refuse("head: %d rows of %d do not fit %zu bytes", n, w->n_in,
                           c->scratch.x_bytes);
    p.from = {(const float *)a->x, w->n_in,           n,  w->n_in, a->norms[set], a->norm_eps,
              c->plan.out_row,     c->plan.out_table, set};
    p.w = w->w;
    p.n_tokens = n;
    p.first_tile = lo / TILE_ROWS;
    p.n_tiles = (hi + TILE_ROWS - 1) / TILE_ROWS - p.first_tile;
    p.finish.kind = FINISH_HEAD;
    p.finish.n_out = w->n_out;
    p.finish.bias = w->bias;
    p.finish.y = a->logits;
    p.finish.ldy = a->ld;
    p.finish.sample = c->plan.sample;
    p.finish.set_of = c->plan.out_table;
    p.finish.set = set;
    return cuda_product(c, &p);
}

extern "C" enum hg_status cuda_head(struct hg_backend *b, const struct hg_head_args *a)
{
    struct cuda_backend *c = cuda_of(b);
    int lo[HG_MAX_PLUGINS], hi[HG_MAX_PLUGINS];
    for (int s = 0; s < HG_MAX_PLUGINS; s++) {
        lo[s] = INT32_MAX;
        hi[s] = 0;
    }
    if (a->plan != c->host_plan)
        return cuda_refuse("head: the plan is not that of step_begin");
    for (int i = 0; i < a->plan->n_out; i++)
        HG_TRY(check(c, a, i, lo, hi));
    for (int s = 0; s < HG_MAX_PLUGINS; s++)
        if (hi[s] > 0)
            HG_TRY(run_set(c, a, s, lo[s], hi[s]));
    return HG_STATUS_OK;
}
