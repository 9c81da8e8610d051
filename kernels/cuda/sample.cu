/* kernels/cuda/sample.cu - penalty, temperature, top-k, top-p, softmax, draw; log probabilities.
 *
 * logits [n_out, ld] fp32, columns [0, hi - lo) of row i hold the ids [lo, hi) of params[i]; one
 * result per row stays on the device, for embed of the next step; step_end copies it down. One
 * block per row, at most CUDA_SAMPLE_BLOCKS of them; a thread takes groups of 4 neighbouring ids.
 * Rules: kernels/ref/sample.h, definition kernels/ref/sample.c.
 *
 * Exact order. Whatever is added or compared across ids is an integer, so no order of threads and
 * no neighbour in the batch can change a bit: a score is its place in the order of floats, (score,
 * id) is one 64-bit rank, and a probability is a fixed-point number with as many bits as keep the
 * sum of all n ids below 2^62 (44 after the point for 200 000 ids; what rounds to 0 has probability
 * < 1e-13). Weights of a draw come from a double exp, so draws agree with ref; the sum behind log
 * probabilities (fp32 results) from an fp32 exp.
 *
 * No sort. `threshold` finds the score at which top-k or top-p cuts, two bits of the score per
 * pass: 16 passes, each reading the scores once and the weights of the ids still in question.
 * `locate` finds the id at which a running sum over ids passes a target, n, n / warps, ... ids at a
 * time. Bound: passes over the row by one multiprocessor, from its caches: 2 for greedy rows, 4
 * with a temperature, 20 with top-k or top-p, 37 with both; none depends on the data. */
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/cuda_common.cuh"

enum { LEAST_THREADS = 64, MOST_THREADS = 1024, PER_THREAD = 8, MOST_WARPS = 32 };

struct sample_job {
    const struct hg_sample_params *params; /* [n_rows] */
    const float *logits;                   /* [n_rows, ld] */
    int64_t ld;
    int n_rows, cap;                 /* cap: ids of the longest row, a multiple of 4 */
    unsigned char *scratch;          /* per block: weights u64 [cap], scores [cap] */
    struct hg_sample_result *result; /* [n_rows] */
};

/* What a block knows about its row. */
struct row {
    const struct hg_sample_params *p;
    const float *score; /* [n] after the penalty */
    uint64_t *weight;   /* [n] of the draw, 0 for a dropped id */
    uint64_t *exchange; /* shared, [3 * MOST_WARPS] */
    int n;
    float best;          /* the highest score */
    double inverse, one; /* 1 / temperature; fixed-point value of weight 1 */
};

/* ---- device helpers -------------------------------------------------------------------------- */

/* f(id, score) for the ids of this thread. Groups do not depend on the row's alignment. */
template <typename F> DEV void each(const float *score, int n, F f)
{
    bool aligned = (uintptr_t)score % 16 == 0;
    for (int i = (int)threadIdx.x * 4; i < n; i += (int)blockDim.x * 4) {
        if (aligned && i + 4 <= n) {
            float4 v = *reinterpret_cast<const float4 *>(score + i);
            f(i, v.x);
            f(i + 1, v.y);
            f(i + 2, v.z);
            f(i + 3, v.w);
            continue;
        }
        for (int k = i; k < n && k < i + 4; k++)
            f(k, score[k]);
    }
}

/* Higher score first, then lower id; the greatest rank of all says that a score is broken. */
DEV uint64_t rank_of(float score, int id)
{
    return is_finite(score) ? (uint64_t)float_order(score) << 32 | ~(uint32_t)id : ~(uint64_t)0;
}

DEV int id_of(uint64_t rank)
{
    return (int)~(uint32_t)rank;
}

DEV float score_at(uint32_t order)
{
    return float_of(order >> 31 ? order & 0x7fffffffu : ~order);
}

/* The best of this thread's ids worse than `below`, or a broken one; 0 when there is none. */
DEV uint64_t best_below(const float *score, int n, uint64_t below)
{
    uint64_t best = 0;
    each(score, n, [&](int i, float v) {
        uint64_t rank = rank_of(v, i);
        best = rank > best && (rank < below || rank == ~(uint64_t)0) ? rank : best;
    });
    return best;
}

DEV uint64_t weight_of(const struct row &r, float score)
{
    return (uint64_t)(exp(((double)score - (double)r.best) * r.inverse) * r.one);
}

/* Sums of three numbers over the block; exchange: 3 * MOST_WARPS. */
DEV void block_sum3(uint64_t (&v)[3], uint64_t *exchange)
{
    unsigned n_warps = blockDim.x / 32;
    UNROLL for (int k = 0; k < 3; k++)
    {
        v[k] = warp_sum(v[k]);
        if (lane_id() == 0)
            exchange[k * MOST_WARPS + threadIdx.x / 32] = v[k];
    }
    __syncthreads();
    v[0] = v[1] = v[2] = 0;
    for (unsigned w = 0; w < n_warps; w++)
        UNROLL for (int k = 0; k < 3; k++) v[k] += exchange[k * MOST_WARPS + w];
    __syncthreads();
}

/* The lowest place T in the order of scores with keep(mass of all ids above T), and that mass.
 * keep(0) is true, and once false it stays false as the mass grows; so T is the score of an id. */
template <typename Mass, typename Keep>
DEV uint32_t threshold(const struct row &r, Mass mass, Keep keep, uint64_t *above)
{
    uint32_t t = 0;
    uint64_t over = 0;
    for (int shift = 30; shift >= 0; shift -= 2) {
        uint64_t part[3] = {0, 0, 0}; /* mass of the digits 1, 2, 3 that can follow t */
        each(r.score, r.n, [&](int i, float v) {
            uint32_t digit = (float_order(v) - t) >> shift; /* a lower score wraps around */
            if (digit - 1 < 3) {
                uint64_t m = mass(i);
                part[0] += digit == 1 ? m : 0;
                part[1] += digit == 2 ? m : 0;
                part[2] += digit == 3 ? m : 0;
            }
        });
        block_sum3(part, r.exchange);
        uint32_t digit = 3;
        bool more = true;
        UNROLL for (int d = 2; d >= 0; d--)
        {
            more = more && keep(over + part[d]);
            over += more ? part[d] : 0;
            digit -= more;
        }
        t += digit << shift;
    }
    *above = over;
    return t;
}

/* The first id, ascending, at which the running sum of mass exceeds target < sum of all. */
template <typename Mass> DEV int locate(const struct row &r, uint64_t target, Mass mass)
{
    int from = 0, n = r.n, n_warps = (int)blockDim.x / 32, warp = (int)threadIdx.x / 32;
    int lane = (int)lane_id();
    uint64_t before = 0;
    while (n > 32) {
        int piece = (n + n_warps - 1) / n_warps,
            end = n < (warp + 1) * piece ? n : (warp + 1) * piece;
        uint64_t sum = 0;
        for (int i = warp * piece + lane; i < end; i += 32)
            sum += mass(from + i);
        sum = warp_sum(sum);
        if (lane == 0)
            r.exchange[warp] = sum;
        __syncthreads();
        int chosen = 0;
        for (; chosen < n_warps - 1 && before + r.exchange[chosen] <= target; chosen++)
            before += r.exchange[chosen];
        __syncthreads();
        from += chosen * piece;
        n = n - chosen * piece < piece ? n - chosen * piece : piece;
    }
    uint64_t own = lane < n ? mass(from + lane) : 0, sum = own;
    for (int d = 1; d < 32; d *= 2) {
        uint64_t lower = shfl(sum, (unsigned)(lane - d) % 32);
        sum += lane >= d ? lower : 0;
    }
    bool here = before + sum > target && before + sum - own <= target;
    return from + warp_sum(here ? lane : 0);
}

/* The device twin of hg_uniform(seed, position, 0) in common/rng.c: Philox 4x32-10. */
DEV double uniform(uint64_t seed, uint64_t position)
{
    uint32_t key0 = (uint32_t)seed, key1 = (uint32_t)(seed >> 32);
    uint32_t c0 = (uint32_t)position, c1 = (uint32_t)(position >> 32), c2 = 0, c3 = 0;
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xd2511f53u * c0, p1 = (uint64_t)0xcd9e8d57u * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ key0;
        c1 = (uint32_t)p1;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ key1;
        c3 = (uint32_t)p0;
        key0 += 0x9e3779b9u;
        key1 += 0xbb67ae85u;
    }
    return (double)(((uint64_t)c0 << 32 | c1) >> 11) * 0x1p-53;
}

/* ---- the stages of a row --------------------------------------------------------------------- */

/* A history id may come several times; every writer computes the same score from the logit. */
DEV const float *penalised(const struct hg_sample_params *p, const float *logits, float *copy,
                           int n)
{
    if (p->n_history <= 0)
        return logits;
    for (int i = (int)threadIdx.x; i < n; i += (int)blockDim.x)
        copy[i] = logits[i];
    __syncthreads();
    for (int h = (int)threadIdx.x; h < p->n_history; h += (int)blockDim.x) {
        uint32_t i = (uint32_t)p->history[h] - (uint32_t)p->lo;
        if (i < (uint32_t)n) {
            float v = logits[i];
            copy[i] = v < 0 ? v * p->repetition_penalty : v / p->repetition_penalty;
        }
    }
    __syncthreads();
    return copy;
}

/* log of the sum of exp(score). */
DEV double log_sum_exp(const struct row &r)
{
    float one = (float)r.one;
    uint64_t sum[3] = {0, 0, 0};
    each(r.score, r.n, [&](int, float v) { sum[0] += (uint64_t)(expf(v - r.best) * one); });
    block_sum3(sum, r.exchange);
    return (double)r.best + log((double)sum[0] / r.one);
}

/* Fills the weights of the ids that top-k keeps, ties with the k-th included; returns their sum. */
DEV uint64_t set_weights(const struct row &r)
{
    uint64_t k = r.p->top_k > 0 ? (uint64_t)r.p->top_k : 0, above = 0, sum[3] = {0, 0, 0};
    uint32_t lowest = 0;
    if (k > 0 && k < (uint64_t)r.n)
        lowest = threshold(
            r, [](int) { return (uint64_t)1; }, [&](uint64_t count) { return count < k; }, &above);
    each(r.score, r.n, [&](int i, float v) {
        uint64_t w = float_order(v) >= lowest ? weight_of(r, v) : 0;
        r.weight[i] = w;
        sum[0] += w;
    });
    block_sum3(sum, r.exchange);
    return sum[0];
}

/* Top-p keeps the ids above the place `order`, and of those at it the ids up to `last`. */
struct cut {
    uint32_t order;
    int last;
};

/* Finds the cut; *total becomes the weight of what stays. Of m ids with the lowest kept score w,
 * the (j + 1)-th stays when what is better, above + j w, leaves more than (1 - top_p) of the total.
 */
DEV struct cut cut_top_p(const struct row &r, uint64_t *total)
{
    struct cut c = {0, r.n};
    double top_p = r.p->top_p;
    if (!(top_p < 1))
        return c;
    uint64_t all = *total, above = 0;
    double rest = (1 - top_p) * (double)all;
    auto keep = [&](uint64_t better) {
        return better == 0 || (better < all && (double)(all - better) > rest);
    };
    c.order = threshold(
        r, [&](int i) { return r.weight[i]; }, keep, &above);
    uint64_t w = weight_of(r, score_at(c.order));
    int stay = 1, too_many = r.n + 1;
    while (too_many - stay > 1) {
        int middle = stay + (too_many - stay) / 2;
        bool fits = keep(above + (uint64_t)(middle - 1) * w);
        (fits ? stay : too_many) = middle;
    }
    c.last = locate(r, (uint64_t)(stay - 1),
                    [&](int i) { return (uint64_t)(float_order(r.score[i]) == c.order); });
    *total = above + (uint64_t)stay * w;
    return c;
}

DEV int draw(const struct row &r)
{
    uint64_t total = set_weights(r);
    struct cut c = cut_top_p(r, &total);
    uint64_t target = (uint64_t)(uniform(r.p->seed, r.p->position) * (double)total);
    return locate(r, target < total ? target : total - 1, [&](int i) {
        uint32_t order = float_order(r.score[i]);
        return order > c.order || (order == c.order && i <= c.last) ? r.weight[i] : (uint64_t)0;
    });
}

/* mine: the best of this thread's ids. */
DEV void list_top(const struct row &r, uint64_t mine, double log_sum, struct hg_sample_result *out)
{
    int want = r.p->n_top < HG_MAX_TOP ? r.p->n_top : HG_MAX_TOP;
    want = want < r.n ? want : r.n;
    for (int j = 0; j < want; j++) {
        uint64_t winner = block_max(mine, r.exchange);
        if (threadIdx.x == 0) {
            out->top_id[j] = r.p->lo + id_of(winner);
            out->top_logprob[j] = (float)((double)r.score[id_of(winner)] - log_sum);
            out->n_top = j + 1;
        }
        if (mine == winner)
            mine = best_below(r.score, r.n, winner);
    }
}

DEV void sample_row(struct row &r, const float *logits, float *copy, struct hg_sample_result *out)
{
    r.one = 0x1p62;
    for (int n = r.n; n > 0; n /= 2)
        r.one /= 2;
    r.inverse = 1 / (double)r.p->temperature;
    r.score = penalised(r.p, logits, copy, r.n);
    uint64_t mine = best_below(r.score, r.n, ~(uint64_t)0), best = block_max(mine, r.exchange);
    for (unsigned i = threadIdx.x; i < sizeof *out / sizeof(uint32_t); i += blockDim.x)
        reinterpret_cast<uint32_t *>(out)[i] = 0;
    __syncthreads();
    bool finite = best != ~(uint64_t)0;
    int token = 0;
    if (finite) {
        r.best = r.score[id_of(best)];
        double log_sum = log_sum_exp(r);
        token = r.p->temperature > 0 ? draw(r) : id_of(best);
        if (threadIdx.x == 0)
            out->logprob = (float)((double)r.score[token] - log_sum);
        list_top(r, mine, log_sum, out);
    }
    if (threadIdx.x == 0) {
        out->token = r.p->lo + token;
        out->finite = finite;
    }
}

/* ---- kernel ---------------------------------------------------------------------------------- */

static __global__ void __launch_bounds__(MOST_THREADS) sample_kernel(struct sample_job j)
{
    DYN_SMEM(uint64_t, exchange);
    unsigned char *own = j.scratch + (size_t)blockIdx.x * (size_t)j.cap * 12;
    for (int i = (int)blockIdx.x; i < j.n_rows; i += (int)gridDim.x) {
        struct row r = {};
        r.p = j.params + i;
        r.weight = reinterpret_cast<uint64_t *>(own);
        r.exchange = exchange;
        r.n = r.p->hi - r.p->lo;
        sample_row(r, j.logits + i * j.ld, reinterpret_cast<float *>(own + (size_t)j.cap * 8),
                   j.result + i);
        __syncthreads(); /* the next row uses the same working memory */
    }
}

/* ---- launcher -------------------------------------------------------------------------------- */

/* The longest range of a row, or the status of a request that cannot be served. */
static enum hg_status check(const struct cuda_backend *c, const struct hg_sample_args *a,
                            int *longest)
{
    const struct hg_plan *plan = a->plan;
    *longest = 0;
    if (plan != c->host_plan)
        return cuda_refuse("sample: outside of its step");
    if (plan->n_out > c->steps.max_out)
        return cuda_refuse("sample: %d rows, reserved %d", plan->n_out, c->steps.max_out);
    for (int i = 0; i < plan->n_out; i++) {
        const struct hg_sample_params *p = &plan->sample[i];
        if ((int64_t)p->hi - p->lo > a->ld)
            return cuda_refuse("sample: range %d..%d of row %d exceeds ld %lld", p->lo, p->hi, i,
                               (long long)a->ld);
        if (p->lo < 0 || p->hi <= p->lo || !(p->repetition_penalty > 0))
            return HG_STATUS_BAD_REQUEST;
        if (p->hi - p->lo > c->limits.max_out)
            return cuda_refuse("sample: range %d..%d of row %d, reserved %d ids", p->lo, p->hi, i,
                               c->limits.max_out);
        *longest = p->hi - p->lo > *longest ? p->hi - p->lo : *longest;
    }
    return HG_STATUS_OK;
}

extern "C" enum hg_status cuda_sample(struct hg_backend *b, const struct hg_sample_args *a)
{
    struct cuda_backend *c = cuda_of(b);
    int n = a->plan->n_out, longest = 0;
    HG_TRY(check(c, a, &longest));
    if (n == 0)
        return HG_STATUS_OK;
    struct sample_job j = {c->plan.sample,
                           a->logits,
                           a->ld,
                           n,
                           (longest + 3) / 4 * 4,
                           static_cast<unsigned char *>(c->scratch.sample),
                           c->steps.sampled};
    unsigned blocks = (unsigned)(n < CUDA_SAMPLE_BLOCKS ? n : CUDA_SAMPLE_BLOCKS);
    int work = longest / PER_THREAD > LEAST_THREADS ? longest / PER_THREAD : LEAST_THREADS;
    unsigned threads = cuda_threads(work, MOST_THREADS);
    LAUNCH(sample_kernel, blocks, threads, 3 * MOST_WARPS * sizeof(uint64_t), c->stream, j);
    c->steps.n_sampled = n;
    return cuda_status(c, "sample");
}
