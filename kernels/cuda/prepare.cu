/* kernels/cuda/prepare.cu - rows of a linear in a launch of their own, for shapes whose product
 * does not prepare them itself: prepare_source of prepare.cuh, one block of 256 threads per row.
 * Bound by reading x. */
#include "kernels/cuda/prepare.cuh"

template <int type>
__global__ void __launch_bounds__(ROW_THREADS) prepare_rows(const RowSource p, const Prepared to)
{
    DYN_SMEM(float, scratch);
    prepare_source<type>(p, to, blockIdx.x, scratch);
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
    bool bytes = w->plugin == HG_DTYPE_I8, own = adapters && w->plugin != type;
    out->pitch2 = own ? (int64_t)cuda_steps(w->plugin, w->n_in) * STEP_BYTES : 0;
    out->rows = (char *)c->scratch.x;
    out->rows2 = own ? out->rows + rows * (size_t)out->pitch : NULL;
    out->scale = type == HG_DTYPE_BF16
                     ? NULL
                     : (float *)(out->rows + rows * (size_t)(out->pitch + out->pitch2));
    out->scale_pitch = (int64_t)rows;
    size_t scales = type == HG_DTYPE_I4 ? (size_t)w->w.steps : 1;
    float *after = (float *)(out->rows + rows * (size_t)(out->pitch + out->pitch2)) + rows * scales;
    out->scale2 = own && bytes ? after : NULL;
    return (size_t)((char *)(after + rows) - out->rows) <= c->scratch.x_bytes;
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
