/* kernels/cuda/linear_bf16_i8.cu - linears of BF16 weights with adapters of I8: see
 * linear_kernel.cuh. */
#include "kernels/cuda/linear_kernel.cuh"

enum hg_status cuda_product_bf16_i8(struct cuda_backend *c, struct Product *p)
{
    return launch_type<HG_DTYPE_BF16, HG_DTYPE_I8>(c, *p);
}
