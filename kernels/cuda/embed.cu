/* kernels/cuda/embed.cu - token rows from a table, image rows from the feature buffer.
 *
 * y[t] = table[set[t]][id] as fp32, id = token[t] or what the step before sampled (its results lie
 * on the device: nothing goes through the host), or features[-1 - token[t]]. Tables [V, D] of F32,
 * F16 or BF16, features [n, D] and y [T, D] fp32. A block takes one token and 8 * THREADS columns,
 * a thread 8 neighbours: 16 bytes of a 16-bit table in, two 16-byte stores out; rows that are not a
 * multiple of 16 bytes go element by element. Bound by bytes: 2 D or 4 D read and 4 D written per
 * token. Exact, there is no arithmetic. Definition: kernels/ref/embed.c. */
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/cuda_common.cuh"

enum { THREADS = 128, PER_THREAD = 8 };

struct embed_job {
    const int32_t *token, *set; /* [T] */
    const void *tables[HG_MAX_PLUGINS];
    const float *features;
    const struct hg_sample_result *sampled; /* of the step before */
    float *y;                               /* [T, D] */
    int dim;
};

/* ---- device helpers -------------------------------------------------------------------------- */

template <enum hg_dtype type> DEV float element(const void *table, int64_t i)
{
    if (type == HG_DTYPE_F32)
        return static_cast<const float *>(table)[i];
    uint16_t v = static_cast<const uint16_t *>(table)[i];
    return type == HG_DTYPE_F16 ? f16_to_f32(v) : bf16_to_f32(v);
}

template <enum hg_dtype type> DEV void copy8(const void *from, int64_t i, float *y)
{
    if (type == HG_DTYPE_F32) {
        const float4 *x = reinterpret_cast<const float4 *>(static_cast<const float *>(from) + i);
        float4 low = x[0], high = x[1];
        reinterpret_cast<float4 *>(y)[0] = low;
        reinterpret_cast<float4 *>(y)[1] = high;
        return;
    }
    uint4 bits = *reinterpret_cast<const uint4 *>(static_cast<const uint16_t *>(from) + i);
    uint32_t word[4] = {bits.x, bits.y, bits.z, bits.w};
    UNROLL for (int half = 0; half < 2; half++)
    {
        float v[4];
        UNROLL for (int k = 0; k < 4; k++)
        {
            uint16_t h = (uint16_t)(word[half * 2 + k / 2] >> k % 2 * 16);
            v[k] = type == HG_DTYPE_F16 ? f16_to_f32(h) : bf16_to_f32(h);
        }
        reinterpret_cast<float4 *>(y)[half] = {v[0], v[1], v[2], v[3]};
    }
}

template <enum hg_dtype type, bool vector>
DEV void copy_columns(const void *from, int64_t row, int dim, int column, float *y)
{
    if constexpr (vector)
        copy8<type>(from, row * dim + column, y + column);
    else
        for (int i = column; i < dim && i < column + PER_THREAD; i++)
            y[i] = element<type>(from, row * dim + i);
}

/* ---- kernel ---------------------------------------------------------------------------------- */

template <enum hg_dtype type, bool vector>
static __global__ void __launch_bounds__(THREADS) embed_kernel(struct embed_job j)
{
    int64_t t = blockIdx.x;
    int column = (int)(blockIdx.y * THREADS + threadIdx.x) * PER_THREAD;
    int32_t token = j.token[t];
    float *y = j.y + t * j.dim;
    if (column >= j.dim)
        return;
    if (HG_TOKEN_IS_SAMPLED(token))
        token = j.sampled[HG_TOKEN_OUT_ROW(token)].token;
    if (token < 0) {
        copy_columns<HG_DTYPE_F32, vector>(j.features, -1 - (int64_t)token, j.dim, column, y);
        return;
    }
    int32_t set = j.set[t]; /* as an index it would copy the arguments to local memory */
    const void *table = set == 0   ? j.tables[0]
                        : set == 1 ? j.tables[1]
                        : set == 2 ? j.tables[2]
                                   : j.tables[3];
    static_assert(HG_MAX_PLUGINS == 4, "one case per table");
    copy_columns<type, vector>(table, token, j.dim, column, y);
}

/* ---- launcher -------------------------------------------------------------------------------- */

template <enum hg_dtype type>
static void launch(struct cuda_backend *c, const struct embed_job &j, int n_tokens)
{
    dim3 grid((unsigned)n_tokens, (unsigned)(j.dim / (THREADS * PER_THREAD) + 1));
    bool vector = j.dim % PER_THREAD == 0 && cuda_aligned(j.features) && cuda_aligned(j.y);
    for (int i = 0; i < HG_MAX_PLUGINS; i++)
        vector = vector && cuda_aligned(j.tables[i]);
    if (vector)
        LAUNCH((embed_kernel<type, true>), grid, THREADS, 0, c->stream, j);
    else
        LAUNCH((embed_kernel<type, false>), grid, THREADS, 0, c->stream, j);
}

static enum hg_status check(const struct cuda_backend *c, const struct hg_embed_args *a)
{
    const struct hg_plan *p = a->plan;
    if (p != c->host_plan)
        return cuda_refuse("embed: outside of its step");
    for (int t = 0; t < p->n_tokens; t++) {
        int32_t token = p->token[t], set = p->table[t];
        bool feature = token < 0 && !HG_TOKEN_IS_SAMPLED(token);
        if (feature && !a->features)
            return cuda_refuse("embed: token %d wants feature row %d of none", t, -1 - token);
        if (!feature && (set < 0 || set >= HG_MAX_PLUGINS || !a->tables[set]))
            return cuda_refuse("embed: token %d wants table set %d", t, set);
    }
    return HG_STATUS_OK;
}

extern "C" enum hg_status cuda_embed(struct hg_backend *b, const struct hg_embed_args *a)
{
    struct cuda_backend *c = cuda_of(b);
    struct embed_job j = {c->plan.token, c->plan.table,    {},
                          NULL,          c->steps.sampled, static_cast<float *>(a->y),
                          a->dim};
    HG_TRY(check(c, a));
    if (a->plan->n_tokens == 0 || a->dim == 0)
        return HG_STATUS_OK;
    memcpy(j.tables, a->tables, sizeof j.tables);
    j.features = static_cast<const float *>(a->features);
    if (a->table_type == HG_DTYPE_F32)
        launch<HG_DTYPE_F32>(c, j, a->plan->n_tokens);
    else if (a->table_type == HG_DTYPE_F16)
        launch<HG_DTYPE_F16>(c, j, a->plan->n_tokens);
    else if (a->table_type == HG_DTYPE_BF16)
        launch<HG_DTYPE_BF16>(c, j, a->plan->n_tokens);
    else
        return cuda_refuse("embed: table of type %s", hg_dtype_name(a->table_type));
    return cuda_status(c, "embed");
}
