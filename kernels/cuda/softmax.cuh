/* kernels/cuda/softmax.cuh - the softmax of a row whose scores arrive in pieces.
 *
 * A state stands for some keys: max = their largest score, sum = sum of exp(scale (score - max));
 * beside it the caller keeps output = sum of exp(scale (score - max)) value. Two states merge into
 * that of both sets of keys; the empty state merges without changing a bit, so that a row does not
 * notice pieces in which it sees nothing. Scores are in units that `scale` > 0 turns into powers of
 * two. A NaN score makes sum and output NaN and leaves max alone. */
#ifndef HG_KERNELS_CUDA_SOFTMAX_CUH
#define HG_KERNELS_CUDA_SOFTMAX_CUH

#include "kernels/cuda/cuda_common.cuh"

struct softmax_state {
    float max, sum;
};

/* What a merge does to the outputs. */
struct softmax_mix {
    float first, second;
    bool keep, take; /* the second is empty; the first is */
};

DEV softmax_state softmax_empty()
{
    softmax_state s = {-INFINITY, 0};
    return s;
}

DEV bool softmax_is_empty(softmax_state s)
{
    return s.max == -INFINITY && s.sum == 0;
}

/* exp of a score, 2 ulp on the GPU. */
DEV float softmax_exp(float score, float max, float scale)
{
    return exp2f((score - max) * scale);
}

/* The factor of what was summed under an older maximum. */
DEV float softmax_rescale(float old_max, float max, float scale)
{
    return old_max == -INFINITY ? 0.0f : softmax_exp(old_max, max, scale);
}

/* a = a and b. */
DEV softmax_mix softmax_merge(softmax_state &a, softmax_state b, float scale)
{
    float max = fmaxf(a.max, b.max);
    softmax_mix w = {softmax_rescale(a.max, max, scale), softmax_rescale(b.max, max, scale),
                     softmax_is_empty(b), softmax_is_empty(a)};
    softmax_state both = {max, fmaf(a.sum, w.first, b.sum * w.second)};
    a = w.keep ? a : w.take ? b : both;
    return w;
}

DEV float softmax_output(softmax_mix w, float a, float b)
{
    return w.keep ? a : w.take ? b : fmaf(a, w.first, b * w.second);
}

#endif
