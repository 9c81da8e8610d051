/* kernels/cuda/linear_bf16.cu - linears of BF16 weights: see linear_kernel.cuh. */
#include "kernels/cuda/linear_kernel.cuh"

enum hg_status cuda_product_bf16(struct cuda_backend *c, struct Product *p)
{
    return launch_type<HG_DTYPE_BF16, HG_DTYPE_BF16>(c, *p);
}
