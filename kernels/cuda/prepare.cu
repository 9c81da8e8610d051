/* kernels/cuda/prepare.cu - rows of a linear: optional RMSNorm, then the rounding of the weight's
 * type.
 *
 *     y = x / sqrt(mean(x^2) + eps) * norm;  prepare.cuh says how y is stored
 *
 * Mapping: one block of 256 threads per row, 8 values per thread and round; three passes over a row
 * that stays in L1. Bound by latency at a few rows, by reading x at many. A row's sums depend on
 * its length alone. Definition: kernels/ref/rmsnorm.c, ref_row_set of kernels/ref/matrix.c. */
#include "kernels/cuda/prepare.cuh"

#include "kernels/cuda/linear.cuh"

enum { ROW_THREADS = 256 };

/* Values of one row of memory, normed. */
struct RowGet {
    const float *x, *norm;
    float inverse;
    int n;
    bool aligned; /* x and norm to 16 bytes */
    __device__ __forceinline__ void eight(int k, float (&v)[8]) const
    {
        if (aligned && k + 8 <= n) {
            UNROLL_FOR (int i = 0; i < 8; i += 4) {
                float4 a = *(const float4 *)(x + k + i);
                v[i] = a.x, v[i + 1] = a.y, v[i + 2] = a.z, v[i + 3] = a.w;
            }
        } else {
            UNROLL_FOR (int i = 0; i < 8; i++)
                v[i] = k + i < n ? x[k + i] : 0;
        }
        if (norm)
            UNROLL_FOR (int i = 0; i < 8; i++)
                v[i] = k + i < n ? v[i] * inverse * norm[k + i] : 0;
    }
};

template <int type>
__global__ void __launch_bounds__(ROW_THREADS) prepare_rows(const RowSource p, const Prepared to)
{
    DYN_SMEM(float, scratch);
    int row = blockIdx.x;
    if (p.set_of && p.set_of[row] != p.set)
        return;
    BlockTeam team = {scratch};
    const float *x = p.x + (p.row_of ? p.row_of[row] : row) * p.ldx;
    RowGet get = {x, nullptr, 1, p.dim, (uintptr_t)x % 16 == 0};
    if (p.norm) {
        float sum = 0;
        for (int k = threadIdx.x * 8; k < p.dim; k += ROW_THREADS * 8) {
            float v[8];
            get.eight(k, v);
            UNROLL_FOR (int i = 0; i < 8; i++)
                sum = fmaf(v[i], v[i], sum);
        }
        sum = block_sum(sum, scratch);
        get.inverse = div_rn(1.0f, sqrtf(div_rn(sum, (float)p.dim) + p.eps));
        get.norm = p.norm;
    }
    prepare_row<type>(get, p.dim, team, to.rows + row * to.pitch,
                      to.scale ? to.scale + row : nullptr, to.scale_pitch);
    if (to.rows16)
        prepare_row<HG_DTYPE_BF16>(get, p.dim, team, to.rows16 + row * to.pitch16, nullptr);
}

/* ---- launcher -------------------------------------------------------------------------------- */

int cuda_padded_rows(int n)
{
    return n <= 8 ? 8 : n <= 16 ? 16 : n <= 32 ? 32 : (n + 63) / 64 * 64;
}

bool cuda_place_rows(struct cuda_backend *c, const struct hg_weight *w, bool adapters, int n,
                     struct Prepared *out)
{
    enum hg_dtype type = w->w.type;
    size_t rows = (size_t)cuda_padded_rows(n);
    out->pitch = (int64_t)w->w.steps * cuda_row_step_bytes(type);
    out->pitch16 = hg_dtype_is_quantised(type) && adapters
                       ? (int64_t)cuda_steps(HG_DTYPE_BF16, w->n_in) * STEP_BYTES
                       : 0;
    out->rows = (char *)c->scratch.x;
    out->rows16 = out->pitch16 ? out->rows + rows * (size_t)out->pitch : NULL;
    out->scale = type == HG_DTYPE_BF16
                     ? NULL
                     : (float *)(out->rows + rows * (size_t)(out->pitch + out->pitch16));
    out->scale_pitch = (int64_t)rows;
    int64_t scales = type == HG_DTYPE_I4 ? w->w.steps : 1;
    return rows * (size_t)(out->pitch + out->pitch16 + scales * (int64_t)sizeof(float)) <=
           c->scratch.x_bytes;
}

enum hg_status cuda_prepare(struct cuda_backend *c, const struct RowSource *from,
                            enum hg_dtype type, const struct Prepared *to)
{
    const RowSource p = *from;
    const Prepared t = *to;
    size_t shared = 32 * sizeof(float);
    switch (type) {
    case HG_DTYPE_BF16:
        LAUNCH(prepare_rows<HG_DTYPE_BF16>, p.n, ROW_THREADS, shared, c->stream, p, t);
        break;
    case HG_DTYPE_I8:
        LAUNCH(prepare_rows<HG_DTYPE_I8>, p.n, ROW_THREADS, shared, c->stream, p, t);
        break;
    case HG_DTYPE_I4:
        LAUNCH(prepare_rows<HG_DTYPE_I4>, p.n, ROW_THREADS, shared, c->stream, p, t);
        break;
    default: /* F16, F32 and F8 alike */
        LAUNCH(prepare_rows<HG_DTYPE_F32>, p.n, ROW_THREADS, shared, c->stream, p, t);
    }
    return cuda_status(c, "prepare");
}
