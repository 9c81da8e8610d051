/* kernels/cuda/linear_i8_i8.cu - linears of I8 weights with adapters of I8: see linear_kernel.cuh.
 */
#include "kernels/cuda/linear_kernel.cuh"

enum hg_status cuda_product_i8_i8(struct cuda_backend *c, struct Product *p)
{
    return launch_type<HG_DTYPE_I8, HG_DTYPE_I8>(c, *p);
}
