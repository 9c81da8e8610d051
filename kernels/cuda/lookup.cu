/* kernels/cuda/lookup.cu - VQ codebook rows by index: y[i] = table[index[i]].
 *
 * table [n, D] and y [n_rows, D] fp32. Activations are fp32 here, so it is copy_rows with pitch D.
 * Definition: kernels/ref/lookup.c. */
#include "kernels/cuda/cuda.h"

extern "C" enum hg_status cuda_lookup(struct hg_backend *b, const struct hg_lookup_args *a)
{
    struct hg_copy_rows_args copy = {a->n_rows, a->dim, a->index, a->table, a->dim, a->y, a->dim};
    return cuda_copy_rows(b, &copy);
}
