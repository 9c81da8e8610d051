#include "kernels/cuda/cuda.h"
extern "C" enum hg_status cuda_argmax(struct hg_backend *b, const struct hg_argmax_args *a) { (void)b; (void)a; return cuda_refuse("argmax: not there yet"); }
