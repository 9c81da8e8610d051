/* kernels/cuda/conv.cu - GroupNorm, swish, nearest upsampling, zero padding and convolution of one
 * NHWC image.
 *
 *     y[oy, ox, n] = bias[n] + sum over (ky, kx, c) of w[n, (ky, kx, c)] * u[oy * stride + ky -
 * pad_lo, ..., c]
 *
 * u is x after GroupNorm and swish, upsampled by repeating pixels, zero outside. Two ways, chosen
 * by shape: implicit  3x3 of 32 n channels, not quantised. One block per group finds mean and
 * deviation; every pixel is prepared once (prepare.cuh, one scale for the whole image, from a bound
 * of |u|); the product then reads for each tap the row of the shifted pixel, or zeros. Bound by
 * mma. windows the rest: 1x1, odd channel counts, quantised weights (scales are those of the
 * gathered row). The K values of each output pixel are gathered and prepared as a row, then
 * linear.cu's product; as many pixels at a time as scratch.x holds. Bound by the gather for 3x3, as
 * a linear for 1x1. Sums of a group run in double: its order is fixed by the image's shape.
 * Definition: kernels/ref/conv.c. */
#include "kernels/cuda/finish.cuh"
#include "kernels/cuda/linear.cuh"
#include "kernels/cuda/prepare.cuh"
#include "kernels/cuda/tile_dot.cuh"

enum { GROUP_THREADS = 1024, MAX_NORM_GROUPS = 2048, PEAK_BLOCKS = 128 };

/* The input after its prologue. */
struct Image {
    const float *x; /* [height * width, channels] */
    int height, width, channels;
    int groups, per_group; /* channels per group; groups 0: no norm */
    const float *norm_weight, *norm_bias;
    float eps;
    bool swish;
    float *stats; /* [groups] mean, [groups] 1 / deviation, [groups or PEAK_BLOCKS] bound of |u| */
    MEMBER float value(int64_t pixel, int channel) const
    {
        float v = x[pixel * channels + channel];
        if (groups) {
            int g = channel / per_group;
            v = fmaf((v - stats[g]) * stats[groups + g], norm_weight[channel], norm_bias[channel]);
        }
        return swish ? v * sigmoid(v) : v;
    }
};

struct Geometry {
    int kernel, stride, pad_lo, upsample, out_w, n_pixels; /* of the output */
};

/* Row of the input pixel that tap (ky, kx) of output pixel (oy, ox) reads, or -1. */
DEV int source_pixel(const Image &m, const Geometry &g, int oy, int ox, int ky, int kx)
{
    int y = oy * g.stride + ky - g.pad_lo, x = ox * g.stride + kx - g.pad_lo;
    bool inside = y >= 0 && x >= 0 && y < m.height * g.upsample && x < m.width * g.upsample;
    return inside ? y / g.upsample * m.width + x / g.upsample : -1;
}

/* ---- statistics ------------------------------------------------------------------------------ */

/* Block g: mean, 1 / deviation and a bound of |u| of group g. Threads take pixels. */
__global__ void __launch_bounds__(GROUP_THREADS) group_stats(const Image m)
{
    DYN_SMEM(double, scratch);
    int group = blockIdx.x, c0 = group * m.per_group;
    int64_t pixels = (int64_t)m.height * m.width;
    double n = (double)(pixels * m.per_group), sum = 0, square = 0;
    float peak = 0, bound = 0;
    for (int64_t i = threadIdx.x; i < pixels; i += GROUP_THREADS)
        for (int c = c0; c < c0 + m.per_group; c++)
            sum += m.x[i * m.channels + c];
    double mean = block_sum(sum, scratch) / n;
    for (int64_t i = threadIdx.x; i < pixels; i += GROUP_THREADS)
        for (int c = c0; c < c0 + m.per_group; c++) {
            double d = m.x[i * m.channels + c] - mean;
            square += d * d;
            peak = fmaxf(peak, is_finite((float)d) ? fabsf((float)d) : 0);
        }
    double inverse = 1 / sqrt(block_sum(square, scratch) / n + m.eps);
    peak = block_max(peak, (float *)scratch) * (float)inverse;
    for (int c = c0 + (int)threadIdx.x; c < c0 + m.per_group; c += GROUP_THREADS)
        bound = fmaxf(bound, fmaf(peak, fabsf(m.norm_weight[c]), fabsf(m.norm_bias[c])));
    bound = block_max(bound, (float *)scratch);
    if (threadIdx.x == 0) {
        m.stats[group] = (float)mean;
        m.stats[m.groups + group] = (float)inverse;
        m.stats[2 * m.groups + group] = bound;
    }
}

/* Block b of PEAK_BLOCKS: largest finite |x| of its share; |swish(x)| is not larger. */
__global__ void __launch_bounds__(BLOCK_THREADS) image_peak(const Image m)
{
    DYN_SMEM(float, scratch);
    int64_t n = (int64_t)m.height * m.width * m.channels;
    float peak = 0;
    for (int64_t i = blockIdx.x * BLOCK_THREADS + threadIdx.x; i < n;
         i += PEAK_BLOCKS * BLOCK_THREADS)
        peak = fmaxf(peak, is_finite(m.x[i]) ? fabsf(m.x[i]) : 0);
    peak = block_max(peak, scratch);
    if (threadIdx.x == 0)
        m.stats[blockIdx.x] = peak;
}

/* ---- implicit -------------------------------------------------------------------------------- */

/* A warp per input pixel, 8 channels per lane and round. */
template <int type>
__global__ void __launch_bounds__(BLOCK_THREADS) prepare_pixels(const Image m, const Prepared to)
{
    DYN_SMEM(float, scratch);
    float bound = 0, down = 1, scale = 1;
    int n_bounds = m.groups ? m.groups : (int)PEAK_BLOCKS;
    for (int i = threadIdx.x; i < n_bounds && type != HG_DTYPE_BF16; i += BLOCK_THREADS)
        bound = fmaxf(bound, m.stats[2 * m.groups + i]);
    if (type != HG_DTYPE_BF16) {
        bound = block_max(bound, scratch);
        scale = split_scale(bound, &down);
        if (blockIdx.x == 0 && threadIdx.x == 0)
            *to.scale = scale;
    }
    int64_t pixel = (int64_t)blockIdx.x * (BLOCK_THREADS / 32) + threadIdx.x / 32;
    if (pixel >= (int64_t)m.height * m.width)
        return;
    char *row = to.rows + pixel * to.pitch;
    for (int c = lane_id() * 8; c < m.channels; c += 256) {
        float v[8];
        UNROLL_FOR (int i = 0; i < 8; i++)
            v[i] = m.value(pixel, c + i);
        if constexpr (type == HG_DTYPE_BF16)
            store_bf16(row + c * 2, v);
        else
            store_split(row + c / 32 * (2 * STEP_BYTES) + c % 32 * 2, v, down);
    }
}

/* As Rows of tile_dot.cuh: token = output pixel, the row changes with the tap. */
template <int type, int NT> struct Window {
    const Image &image;
    const Geometry &geometry;
    const char *rows; /* with this lane's 16 bytes */
    int64_t pitch;
    int per_tap, next, first; /* steps of a tap; where the next begins; where this one began */
    int oy[NT], ox[NT], from[NT];
    MEMBER Window(const Image &m, const Geometry &g, const Prepared &x, int token0)
        : image(m), geometry(g), rows(x.rows + lane_id() % 4 * 16), pitch(x.pitch),
          per_tap(m.channels / 32), next(0), first(0)
    {
        UNROLL_FOR (int t = 0; t < NT; t++) {
            int token = token0 + t * 8 + (int)lane_id() / 4;
            oy[t] = token < g.n_pixels ? token / g.out_w : -1;
            ox[t] = token % g.out_w;
            from[t] = -1;
        }
    }
    MEMBER void seek(int step)
    {
        if (step < next)
            return;
        int tap = step / per_tap;
        first = tap * per_tap;
        next = first + per_tap;
        UNROLL_FOR (int t = 0; t < NT; t++)
            from[t] = oy[t] < 0 ? -1
                                : source_pixel(image, geometry, oy[t], ox[t], tap / geometry.kernel,
                                               tap % geometry.kernel);
    }
    MEMBER uint4 load(int step, int t, int plane) const
    {
        if (from[t] < 0)
            return {0, 0, 0, 0};
        return *(const uint4 *)(rows + from[t] * pitch +
                                (int64_t)(step - first) * (STEP_BYTES * Dot<type>::row) +
                                plane * STEP_BYTES);
    }
};

template <int type, class Team, int NT>
__global__ void __launch_bounds__(BLOCK_THREADS, (Blocks<type, Team>::least))
    conv_tiles(const cuda_matrix w, const Image m, const Geometry g, const Prepared x,
               const Finish f, int token_tiles)
{
    DYN_SMEM(float, shared);
    int token0 = blockIdx.x % token_tiles * Team::tokens;
    Team team(shared, blockIdx.x / token_tiles * Team::tiles, token0);
    team.template product<type>(w, 0, Window<type, NT>(m, g, x, token0),
                                Columns{x.scale, 0, nullptr, 0, g.n_pixels});
    team.each_pair([&](int tile, int r, int token, float v0, float v1) {
        if (tile < w.tiles && token < g.n_pixels)
            finish(f, tile, r, token, v0, v1);
    });
}

/* ---- windows --------------------------------------------------------------------------------- */

/* The gathered row of one output pixel. */
struct WindowGet {
    const Image &image;
    const Geometry &geometry;
    int oy, ox, n;
    __device__ __forceinline__ void eight(int k, float (&v)[8]) const
    {
        if (geometry.kernel == 1) {
            int from = source_pixel(image, geometry, oy, ox, 0, 0);
            UNROLL_FOR (int i = 0; i < 8; i++)
                v[i] = from >= 0 && k + i < n ? image.value(from, k + i) : 0;
            return;
        }
        UNROLL_FOR (int i = 0; i < 8; i++) {
            int tap = (k + i) / image.channels, from = -1;
            if (k + i < n)
                from = source_pixel(image, geometry, oy, ox, tap / 3, tap % 3);
            v[i] = from >= 0 ? image.value(from, k + i - tap * image.channels) : 0;
        }
    }
};

/* A warp per output pixel of [first, first + n). */
template <int type>
__global__ void __launch_bounds__(BLOCK_THREADS)
    prepare_windows(const Image m, const Geometry g, const Prepared to, int first, int n)
{
    int row = blockIdx.x * (BLOCK_THREADS / 32) + threadIdx.x / 32;
    if (row >= n)
        return;
    WindowGet get = {m, g, (first + row) / g.out_w, (first + row) % g.out_w,
                     g.kernel * g.kernel * m.channels};
    prepare_row<type>(get, get.n, WarpTeam(), to.rows + row * to.pitch,
                      to.scale ? to.scale + row : nullptr, to.scale_pitch);
}

/* ---- launchers ------------------------------------------------------------------------------- */

template <int type, class Team, int NT>
static enum hg_status launch_tiles(struct cuda_backend *c, const cuda_matrix &w, const Image &image,
                                   const Geometry &geometry, const Prepared &rows,
                                   const Finish &finish)
{
    const cuda_matrix weight = w;
    const Image m = image;
    const Geometry g = geometry;
    const Prepared x = rows;
    const Finish f = finish;
    int token_tiles = (g.n_pixels + Team::tokens - 1) / Team::tokens;
    int64_t blocks = (int64_t)token_tiles * ((w.tiles + Team::tiles - 1) / Team::tiles);
    LAUNCH((conv_tiles<type, Team, NT>), (unsigned)blocks, BLOCK_THREADS,
           Team::shared_floats * sizeof(float), c->stream, weight, m, g, x, f, token_tiles);
    return cuda_status(c, "conv");
}

template <int type, int NT>
static enum hg_status run_implicit(struct cuda_backend *c, const struct hg_weight *w,
                                   const Image &image, const Geometry &g, const Finish &f)
{
    int64_t pixels = (int64_t)image.height * image.width;
    const Image m = image;
    Prepared x = {};
    x.rows = (char *)c->scratch.x;
    x.pitch = (int64_t)(m.channels / 32) * cuda_row_step_bytes((enum hg_dtype)type);
    size_t bytes = (size_t)(pixels * x.pitch);
    x.scale = type == HG_DTYPE_BF16 ? NULL : (float *)(x.rows + bytes);
    if (bytes + sizeof(float) > c->scratch.x_bytes)
        return cuda_refuse("conv: %zu bytes of pixels, reserved %zu", bytes, c->scratch.x_bytes);
    if (!m.groups && type != HG_DTYPE_BF16) {
        LAUNCH(image_peak, PEAK_BLOCKS, BLOCK_THREADS, 32 * sizeof(float), c->stream, m);
        HG_TRY(cuda_status(c, "conv peak"));
    }
    const Prepared to = x;
    LAUNCH(prepare_pixels<type>, (unsigned)((pixels + 7) / 8), BLOCK_THREADS, 32 * sizeof(float),
           c->stream, m, to);
    HG_TRY(cuda_status(c, "conv prepare"));
    int64_t grid = (int64_t)((g.n_pixels + 8 * NT - 1) / (8 * NT)) * ((w->w.tiles + 15) / 16);
    if (w->w.tiles < 5)
        return launch_tiles<type, Stream<NT>, NT>(c, w->w, m, g, x, f);
    if (grid < c->n_sms)
        return launch_tiles<type, Grid<1, NT>, NT>(c, w->w, m, g, x, f);
    return launch_tiles<type, Grid<2, NT>, NT>(c, w->w, m, g, x, f);
}

/* Most rows whose padded, prepared form fits scratch.x. */
static int rows_at_once(struct cuda_backend *c, const struct hg_weight *w, int n)
{
    Prepared x = {};
    static const int sizes[] = {64, 32, 16, 8};
    int64_t scales = w->w.type == HG_DTYPE_I4 ? w->w.steps : 1;
    int64_t row =
        (int64_t)w->w.steps * cuda_row_step_bytes(w->w.type) + scales * (int64_t)sizeof(float);
    int64_t most = (int64_t)c->scratch.x_bytes / row / 64 * 64;
    if (cuda_place_rows(c, w, false, n, &x))
        return n;
    if (most)
        return (int)most;
    for (int size : sizes)
        if (row * size <= (int64_t)c->scratch.x_bytes)
            return size;
    return 0;
}

static enum hg_status run_windows(struct cuda_backend *c, const struct hg_weight *w,
                                  const Image &image, const Geometry &geometry,
                                  const Finish &finish)
{
    const Image m = image;
    const Geometry g = geometry;
    int at_once = rows_at_once(c, w, g.n_pixels);
    if (!at_once)
        return cuda_refuse("conv: rows of %d do not fit %zu bytes", w->n_in, c->scratch.x_bytes);
    for (int first = 0; first < g.n_pixels; first += at_once) {
        int n = g.n_pixels - first < at_once ? g.n_pixels - first : at_once;
        unsigned blocks = (unsigned)(n + 7) / 8;
        Product p = {};
        cuda_place_rows(c, w, false, n, &p.x);
        const Prepared x = p.x;
        if (w->w.type == HG_DTYPE_BF16)
            LAUNCH(prepare_windows<HG_DTYPE_BF16>, blocks, BLOCK_THREADS, 0, c->stream, m, g, x,
                   first, n);
        else if (w->w.type == HG_DTYPE_I8)
            LAUNCH(prepare_windows<HG_DTYPE_I8>, blocks, BLOCK_THREADS, 0, c->stream, m, g, x,
                   first, n);
        else if (w->w.type == HG_DTYPE_I4)
            LAUNCH(prepare_windows<HG_DTYPE_I4>, blocks, BLOCK_THREADS, 0, c->stream, m, g, x,
                   first, n);
        else
            LAUNCH(prepare_windows<HG_DTYPE_F32>, blocks, BLOCK_THREADS, 0, c->stream, m, g, x,
                   first, n);
        HG_TRY(cuda_status(c, "conv windows"));
        p.w = w->w;
        p.n_tokens = n;
        p.n_tiles = w->w.tiles;
        p.finish = finish;
        p.finish.y += first * finish.ldy;
        p.finish.residual = finish.residual ? finish.residual + first * finish.ld_residual : NULL;
        HG_TRY(cuda_product(c, &p));
    }
    return HG_STATUS_OK;
}

static enum hg_status check(const struct cuda_backend *c, const struct hg_conv_args *a)
{
    int64_t k = (int64_t)a->kernel * a->kernel * a->channels;
    int64_t size = k * a->height * a->width * a->upsample * a->upsample;
    if ((a->kernel != 1 && a->kernel != 3) || (a->upsample != 1 && a->upsample != 2) ||
        a->stride < 1 || a->w->n_in != k)
        return cuda_refuse("conv: kernel %d, stride %d, upsample %d, %d channels, weight K %d",
                           a->kernel, a->stride, a->upsample, a->channels, a->w->n_in);
    if (a->norm_groups < 0 || a->norm_groups > MAX_NORM_GROUPS ||
        (a->norm_groups && a->channels % a->norm_groups))
        return cuda_refuse("conv: %d channels in %d groups", a->channels, a->norm_groups);
    if (size > c->limits.max_conv)
        return cuda_refuse("conv: %lld inputs, reserved %lld", (long long)size,
                           (long long)c->limits.max_conv);
    return HG_STATUS_OK;
}

extern "C" enum hg_status cuda_conv(struct hg_backend *b, const struct hg_conv_args *a)
{
    struct cuda_backend *c = cuda_of(b);
    HG_TRY(check(c, a));
    int pad = a->pad_lo + a->pad_hi - a->kernel, n = a->w->n_out;
    int out_h = (a->height * a->upsample + pad) / a->stride + 1,
        out_w = (a->width * a->upsample + pad) / a->stride + 1;
    if (a->height * a->upsample + pad < 0 || a->width * a->upsample + pad < 0)
        return HG_STATUS_OK; /* no output pixel */
    const Image m = {(const float *)a->x,
                     a->height,
                     a->width,
                     a->channels,
                     a->norm_groups,
                     a->norm_groups ? a->channels / a->norm_groups : 0,
                     a->norm_weight,
                     a->norm_bias,
                     a->norm_eps,
                     a->swish,
                     c->scratch.stats};
    Geometry g = {a->kernel, a->stride, a->pad_lo, a->upsample, out_w, out_h * out_w};
    Finish f = {};
    f.kind = a->residual ? HG_EPILOGUE_RESIDUAL : HG_EPILOGUE_NONE;
    f.n_out = n;
    f.pair = a->w->pair;
    f.bias = a->w->bias;
    f.residual = (const float *)a->residual;
    f.ld_residual = f.ldy = n;
    f.y = (float *)a->y;
    if (m.groups) {
        LAUNCH(group_stats, m.groups, GROUP_THREADS, 32 * sizeof(double), c->stream, m);
        HG_TRY(cuda_status(c, "conv statistics"));
    }
    bool implicit = a->kernel == 3 && a->channels % 32 == 0;
    if (implicit && a->w->w.type == HG_DTYPE_F32)
        return run_implicit<HG_DTYPE_F32, 4>(c, a->w, m, g, f);
    if (implicit && a->w->w.type == HG_DTYPE_F16)
        return run_implicit<HG_DTYPE_F16, 4>(c, a->w, m, g, f);
    if (implicit && a->w->w.type == HG_DTYPE_BF16)
        return run_implicit<HG_DTYPE_BF16, 8>(c, a->w, m, g, f);
    return run_windows(c, a->w, m, g, f);
}
