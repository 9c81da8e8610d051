/* kernels/cpu/weight.c - a linear's weight: parts stacked along the outputs, each packed on its
 * own, with its adapters as further panels. */
#include <limits.h>
#include <stdlib.h>

#include "common/half.h"
#include "kernels/check.h"
#include "kernels/cpu/cpu.h"

/* ---- packing, one share of the row pairs per thread
 * ---------------------------------------------- */

struct pack_job {
    struct cpu_panels *to;
    const struct hg_host_tensor *top, *bottom; /* rows [0, n_top) and the rest */
    int n_top;
    char *scratch; /* [n_threads][scratch_bytes] */
    size_t scratch_bytes;
};

static void pack_member(void *ctx, int member, int n_members)
{
    const struct pack_job *j = ctx;
    int64_t first, end = cpu_share(j->to->n_pairs, member, n_members, &first);
    int row0 = (int)first * CPU_PAIR, row1 = (int)end * CPU_PAIR;
    void *scratch = j->scratch + (size_t)member * j->scratch_bytes;
    if (row1 > j->to->n_out)
        row1 = j->to->n_out;
    int n = row1 < j->n_top ? row1 - row0 : j->n_top - row0;
    if (n > 0)
        cpu_panels_set(j->to, row0, n, j->top, row0, scratch);
    int from = row0 > j->n_top ? row0 : j->n_top;
    if (from < row1)
        cpu_panels_set(j->to, from, row1 - from, j->bottom, from - j->n_top, scratch);
}

static enum hg_status pack(struct cpu_backend *c, struct cpu_panels *to, int n_in,
                           enum hg_dtype type, const struct hg_host_tensor *top, int n_top,
                           const struct hg_host_tensor *bottom, int n_bottom, struct hg_error *err)
{
    struct pack_job job = {.to = to, .top = top, .bottom = bottom, .n_top = n_top};
    HG_TRY(cpu_panels_init(to, n_top + n_bottom, n_in, type, err));
    job.scratch_bytes = cpu_panels_scratch(n_in);
    job.scratch = aligned_alloc(64, (size_t)c->n_threads * job.scratch_bytes);
    if (!job.scratch)
        return hg_fail(err, HG_STATUS_NO_MEMORY, "packing rows of %d inputs", n_in);
    cpu_run(c, (int64_t)to->n_out * n_in, pack_member, &job);
    free(job.scratch);
    return HG_STATUS_OK;
}

static enum hg_status set_adapter(struct cpu_backend *c, struct hg_weight *w, int part, int slot,
                                  const struct hg_adapter *from, enum hg_dtype type,
                                  struct hg_error *err)
{
    struct cpu_adapter *to = &w->parts[part].adapters[slot];
    if (from->rank == 0)
        return HG_STATUS_OK;
    if (from->rank > INT_MAX / 4 || from->n_experts > INT_MAX / 4)
        return hg_fail(err, HG_STATUS_TOO_LARGE, "adapter of rank %d", from->rank);
    to->rank = from->rank;
    to->n_experts = from->n_experts;
    to->scaling = from->scaling;
    to->z_at = w->z_len[slot];
    HG_TRY(pack(c, &to->down, w->n_in, type, &from->a, from->rank, &from->route, from->n_experts,
                err));
    HG_TRY(pack(c, &to->up, from->rank, type, &from->b, w->parts[part].n_out, NULL, 0, err));
    w->z_len[slot] += to->down.n_pairs * CPU_PAIR;
    w->has_adapters[slot] = true;
    return HG_STATUS_OK;
}

static enum hg_status set_bias(struct cpu_part *p, const struct hg_host_tensor *bias,
                               struct hg_error *err)
{
    HG_TRY(cpu_scratch(&p->bias, (int64_t)p->w.n_pairs * CPU_PAIR, sizeof *p->bias, err));
    for (int i = 0; bias->data && i < p->n_out; i++) {
        uint16_t half = bias->type == HG_DTYPE_F32 ? 0 : ((const uint16_t *)bias->data)[i];
        p->bias[i] = bias->type == HG_DTYPE_F32   ? ((const float *)bias->data)[i]
                     : bias->type == HG_DTYPE_F16 ? hg_f16_to_f32(half)
                                                  : hg_bf16_to_f32(half);
    }
    return HG_STATUS_OK;
}

static enum hg_status set_part(struct cpu_backend *c, struct hg_weight *w, int i,
                               const struct hg_weight_desc *d, struct hg_error *err)
{
    const struct hg_weight_part *from = &d->parts[i];
    struct cpu_part *to = &w->parts[i];
    enum hg_dtype adapter_type = hg_plugin_dtype(d->plugin, d->store);
    to->row0 = w->n_out;
    to->pair0 = w->n_pairs;
    to->n_out = from->n_out;
    HG_TRY(pack(c, &to->w, d->n_in, d->store, &from->w, from->n_out, NULL, 0, err));
    HG_TRY(set_bias(to, &from->bias, err));
    w->n_out += to->n_out;
    w->n_pairs += to->w.n_pairs;
    for (int s = 0; s < HG_MAX_PLUGINS; s++)
        HG_TRY(set_adapter(c, w, i, s, &from->adapters[s], adapter_type, err));
    return HG_STATUS_OK;
}

enum hg_status cpu_weight_create(struct hg_backend *b, const struct hg_weight_desc *desc,
                                 struct hg_weight **out, struct hg_error *err)
{
    enum hg_status status = HG_STATUS_OK;
    int n_out = 0;
    *out = NULL;
    HG_TRY(hg_weight_desc_check(desc, HG_MAX_PARTS * CPU_PAIR, &n_out, err));
    struct hg_weight *w = calloc(1, sizeof *w);
    if (!w)
        return hg_fail(err, HG_STATUS_NO_MEMORY, "weight %s", desc->name);
    w->n_in = desc->n_in;
    w->n_parts = desc->n_parts;
    w->form = cpu_form_of(desc->store);
    w->adapter_form = cpu_form_of(hg_plugin_dtype(desc->plugin, desc->store));
    for (int i = 0; i < desc->n_parts; i++)
        HG_TRY_OUT(set_part(cpu_of(b), w, i, desc, err));
    *out = w;
    w = NULL;
out:
    cpu_weight_free(b, w);
    return status;
}

void cpu_weight_free(struct hg_backend *b, struct hg_weight *w)
{
    (void)b;
    if (!w)
        return;
    for (int i = 0; i < HG_MAX_PARTS; i++) {
        cpu_panels_deinit(&w->parts[i].w);
        free(w->parts[i].bias);
        for (int s = 0; s < HG_MAX_PLUGINS; s++) {
            cpu_panels_deinit(&w->parts[i].adapters[s].down);
            cpu_panels_deinit(&w->parts[i].adapters[s].up);
        }
    }
    free(w);
}

size_t cpu_weight_bytes(const struct hg_weight *w, int slot)
{
    size_t n = 0;
    for (int i = 0; i < w->n_parts; i++) {
        const struct cpu_part *p = &w->parts[i];
        if (slot < 0)
            n += cpu_panels_bytes(&p->w) + (size_t)p->w.n_pairs * CPU_PAIR * sizeof *p->bias;
        for (int s = 0; s < HG_MAX_PLUGINS; s++)
            if (slot < 0 || slot == s)
                n += cpu_panels_bytes(&p->adapters[s].down) + cpu_panels_bytes(&p->adapters[s].up);
    }
    return n;
}
