/* kernels/cuda/linear_i4.cu - linears of I4 weights: see linear_kernel.cuh. */
#include "kernels/cuda/linear_kernel.cuh"

enum hg_status cuda_product_i4(struct cuda_backend *c, struct Product *p)
{
    return launch_type<HG_DTYPE_I4, HG_DTYPE_BF16>(c, *p);
}
