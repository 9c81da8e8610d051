#include "kernels/cuda/cuda.h"
extern "C" enum hg_status cuda_layernorm(struct hg_backend *b, const struct hg_layernorm_args *a) { (void)b; (void)a; return cuda_refuse("layernorm: not there yet"); }
