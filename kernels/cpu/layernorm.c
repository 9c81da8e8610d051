/* kernels/cpu/layernorm.c - y = (x - mean) / sqrt(var + eps) * weight + bias; rows over threads. */
#include "kernels/cpu/cpu.h"

struct job {
    struct cpu_backend *c;
    const struct hg_layernorm_args *a;
};

static void layernorm_member(void *ctx, int member, int n_members)
{
    const struct job *j = ctx;
    const struct hg_layernorm_args *a = j->a;
    int64_t first, end = cpu_share(a->n_rows, member, n_members, &first);
    for (int64_t r = first; r < end; r++)
        j->c->simd.layernorm((const float *)a->x + r * a->dim, a->weight, a->bias, a->eps, a->dim,
                             (float *)a->y + r * a->dim);
}

enum hg_status cpu_layernorm(struct hg_backend *b, const struct hg_layernorm_args *a)
{
    struct job j = {cpu_of(b), a};
    cpu_run(j.c, (int64_t)a->n_rows * a->dim * 4, layernorm_member, &j);
    return HG_STATUS_OK;
}
