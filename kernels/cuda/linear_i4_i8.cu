/* kernels/cuda/linear_i4_i8.cu - linears of I4 weights with adapters of I8: see linear_kernel.cuh.
 */
#include "kernels/cuda/linear_kernel.cuh"

enum hg_status cuda_product_i4_i8(struct cuda_backend *c, struct Product *p)
{
    return launch_type<HG_DTYPE_I4, HG_DTYPE_I8>(c, *p);
}
