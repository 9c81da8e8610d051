/* kernels/cuda/linear_f32.cu - linears of F32 weights: see linear_kernel.cuh. */
#include "kernels/cuda/linear_kernel.cuh"

enum hg_status cuda_product_f32(struct cuda_backend *c, struct Product *p)
{
    return launch_type<HG_DTYPE_F32, HG_DTYPE_F32>(c, *p);
}
