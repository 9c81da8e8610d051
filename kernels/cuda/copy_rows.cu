#include "kernels/cuda/cuda.h"
extern "C" enum hg_status cuda_copy_rows(struct hg_backend *b, const struct hg_copy_rows_args *a) { (void)b; (void)a; return cuda_refuse("copy_rows: not there yet"); }
