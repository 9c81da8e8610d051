#include "kernels/cuda/cuda.h"
extern "C" enum hg_status cuda_lookup(struct hg_backend *b, const struct hg_lookup_args *a) { (void)b; (void)a; return cuda_refuse("lookup: not there yet"); }
