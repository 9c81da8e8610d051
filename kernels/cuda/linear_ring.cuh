/* kernels/cuda/linear_ring.cuh - how a block of linear_kernel.cuh gets its weights: through a ring
 * in shared memory that is filled ahead of the products, also from one tile into the next.
 *
 * Each warp has a ring of its own and each lane reads the 16 bytes that it copied itself, so that a
 * wait is for the lane's own copies and no barrier is needed. */
#ifndef HG_KERNELS_CUDA_LINEAR_RING_CUH
#define HG_KERNELS_CUDA_LINEAR_RING_CUH

#include "kernels/cuda/tile_dot.cuh"

/* How a block of 8 NT tokens works. tiles: of W at a time, because every tile reads all rows. */
template <int type, int NT> struct Few {
    typedef Sliced<NT> Sums;
    enum {
        tokens = 8 * NT,
        tiles = NT >= 4 && Dot<type>::row == 1 ? 2 : 1,
        step_bytes = tiles * (Dot<type>::weight * 512 + (type == HG_DTYPE_I4 ? 32 : 0)),
        ring_bytes = (NT == 8 ? 48 : 64) * 1024,
        fits = ring_bytes / (SLICES * step_bytes),
        depth = fits < 16 ? fits : 16, /* steps in flight per warp */
        buffers = NT <= 2 ? 2 : 1, /* so that a product need not wait until sums have been read */
        waiting = NT == 8 ? 2 : 3, /* tiles that may wait for z */
        tile_floats = tokens * TILE_ROWS,
        floats = SLICES * depth * step_bytes / 4 + buffers * Sums::floats + waiting * tile_floats,
        least = NT * Dot<type>::row <= 2 ? 2 : 1 /* blocks that fit a multiprocessor of 227 KiB */
    };
};

/* A warp's steps of tiles of a matrix, `depth` steps ahead through shared memory, from one unit of
 * tiles into the next. A lane reads only what it copied itself, but for scales of I4. */
template <int type, int NT, int MT, int depth> struct Ring {
    enum {
        W = Dot<type>::weight,
        X = Dot<type>::row,
        plain = MT * W * 512,
        step_bytes = plain + (type == HG_DTYPE_I4 ? MT * 32 : 0),
        batch = NT * X >= 4 ? 1 : 4 / (NT * X), /* steps whose rows are read together, */
        ahead = NT * X <= 8                     /* one batch before they are needed */
    };
    static_assert(depth >= batch, "a batch is in flight");
    struct Batch {
        uint4 x[batch][NT][X];
        float2 scale[batch][NT]; /* of I4 */
    };
    typedef typename Dot<type>::sum sum_t;
    const cuda_matrix &matrix;
    Rows<type> rows;
    char *slots, *read, *write;    /* [depth][step_bytes] of this warp, from this lane's bytes on */
    int begin, n;                  /* this warp's steps */
    int tile, stride, end;         /* whose steps are asked for; the last lies before end */
    int left;                      /* its steps that have not been asked for */
    const char *from, *scale_from; /* the next of them */
    int64_t second;                /* bytes to the same step of the other of two tiles */
    Batch now;

    MEMBER Ring(const cuda_matrix &m, float *shared)
        : matrix(m), rows(nullptr, 0, 0, 1),
          slots((char *)shared + threadIdx.x / 32 * (depth * step_bytes) + lane_id() * 16),
          read(slots), write(slots)
    {
        int slice = (m.steps + SLICES - 1) / SLICES;
        begin = (int)threadIdx.x / 32 * slice;
        n = m.steps - begin < slice ? m.steps - begin : slice;
        n = n < 0 ? 0 : n;
    }
    MEMBER static void advance(char *&slot, char *first)
    {
        slot += step_bytes;
        slot = slot == first + depth * step_bytes ? first : slot;
    }
    /* Of two tiles that go past the end the last is read twice. */
    MEMBER void aim(int at)
    {
        int64_t step = (int64_t)at * matrix.steps + begin;
        tile = at;
        left = n;
        from = (const char *)matrix.data + step * (W * 512) + lane_id() * 16;
        second = at + 1 < end ? (int64_t)matrix.steps * (W * 512) : 0;
        if (type == HG_DTYPE_I4)
            scale_from = (const char *)(matrix.group_scale + step * 8) + lane_id() * 16;
    }
    MEMBER void ask_one()
    {
        UNROLL_FOR (int m = 0; m < MT; m++) {
            UNROLL_FOR (int i = 0; i < W; i++)
                cp_async16(write + (m * W + i) * 512, from + m * second + i * 512, true);
            if (type == HG_DTYPE_I4 && lane_id() < 2)
                cp_async16(write + plain + m * 32, scale_from + m * (second / (W * 512) * 32),
                           true);
        }
        cp_async_commit();
        from += W * 512;
        if (type == HG_DTYPE_I4)
            scale_from += 32;
        left--;
        advance(write, slots);
    }
    /* One more step in flight, if there is one. */
    MEMBER void ask()
    {
        if (left == 0 && tile + stride < end)
            aim(tile + stride);
        if (left > 0)
            ask_one();
        else
            cp_async_commit();
    }
    /* Tiles first, first + stride, ... before end are asked for from now on. */
    MEMBER void fill(int first, int stride_, int end_)
    {
        stride = stride_, end = end_;
        aim(first);
        ROLLED_FOR (int d = 0; d < depth; d++)
            ask();
    }
    MEMBER void set_rows(const Rows<type> &r)
    {
        rows = r;
        load_rows(now, 0);
    }
    /* Rows of steps at .. at + batch - 1; past the last of them nothing. */
    MEMBER void load_rows(Batch &to, int at)
    {
        UNROLL_FOR (int u = 0; u < batch; u++)
            UNROLL_FOR (int t = 0; t < NT; t++) {
                if (at + u >= n)
                    continue;
                UNROLL_FOR (int i = 0; i < X; i++)
                    to.x[u][t][i] = rows.load(begin + at + u, t, i);
                if constexpr (type == HG_DTYPE_I4)
                    to.scale[u][t] = rows.scales(begin + at + u, t);
            }
    }
    MEMBER void multiply(sum_t (&sum)[MT][NT][4], const uint4 (&x)[NT][X], const float2 (&s_x)[NT])
    {
        uint4 w[MT][W];
        uint32_t s_w[MT];
        UNROLL_FOR (int m = 0; m < MT; m++) {
            UNROLL_FOR (int i = 0; i < W; i++)
                w[m][i] = *(const uint4 *)(read + (m * W + i) * 512);
            if constexpr (type == HG_DTYPE_I4)
                s_w[m] =
                    *(const uint32_t *)(read - lane_id() * 16 + plain + m * 32 + lane_id() / 4 * 4);
        }
        UNROLL_FOR (int t = 0; t < NT; t++)
            UNROLL_FOR (int m = 0; m < MT; m++) {
                if constexpr (type == HG_DTYPE_I4)
                    dot_group(sum[m][t], w[m], x[t], s_w[m], s_x[t]);
                else
                    dot_step<type>(sum[m][t], w[m], x[t]);
            }
        advance(read, slots);
    }
    /* sum += the MT tiles that are next. */
    MEMBER void run(sum_t (&sum)[MT][NT][4])
    {
        ROLLED_FOR (int at = 0; at < n; at += batch) {
            Batch later;
            if (ahead)
                load_rows(later, at + batch < n ? at + batch : 0);
            else
                load_rows(now, at);
            cp_async_wait<depth - batch>();
            if (type == HG_DTYPE_I4)
                __syncwarp();
            if (left == 0 && tile + stride < end)
                aim(tile + stride);
            if (at + batch <= n && (left >= batch || left == 0)) { /* not step by step */
                UNROLL_FOR (int u = 0; u < batch; u++)
                    multiply(sum, now.x[u], now.scale[u]);
                if (type == HG_DTYPE_I4)
                    __syncwarp(); /* all have read the scales that two lanes copy */
                if (left)
                    UNROLL_FOR (int u = 0; u < batch; u++)
                        ask_one();
                else
                    UNROLL_FOR (int u = 0; u < batch; u++)
                        cp_async_commit();
            } else {
                UNROLL_FOR (int u = 0; u < batch; u++)
                    if (at + u < n) {
                        multiply(sum, now.x[u], now.scale[u]);
                        if (type == HG_DTYPE_I4)
                            __syncwarp();
                        ask();
                    }
            }
            if (ahead)
                now = later;
        }
    }
};

#endif
