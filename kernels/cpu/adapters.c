/* kernels/cpu/adapters.c - H-LoRA before the expansion: z = gate * scaling * A x, gate = softmax(R
 * x).
 *
 * The rows of a chunk are sorted by slot, so each slot's [A; R] panels meet exactly its own rows
 * and no rank is padded to another's. Adapters in int8 meet x and z in int8, one scale a row. The
 * expansion B z is added while gemm.c walks the pairs of the base weight. */
#include <math.h>
#include <string.h>

#include "kernels/cpu/cpu.h"

struct unit { /* one pair of [A; R] panels of one slot and part */
    const struct cpu_adapter *a;
    int pair, row0, row1;
};

/* The u-th unit, false when there are fewer. */
static bool find_unit(const struct cpu_gemm *g, int64_t u, struct unit *out)
{
    for (int s = 0; s < HG_MAX_PLUGINS; s++) {
        if (g->slot_at[s] == g->slot_at[s + 1] || !g->w->has_adapters[s])
            continue;
        for (int p = 0; p < g->w->n_parts; p++) {
            const struct cpu_adapter *a = &g->w->parts[p].adapters[s];
            if (u < a->down.n_pairs) {
                *out = (struct unit){a, (int)u, g->slot_at[s], g->slot_at[s + 1]};
                return true;
            }
            u -= a->down.n_pairs;
        }
    }
    return false;
}

static int64_t count_units(const struct cpu_gemm *g, int64_t *n_rows)
{
    int64_t n = 0;
    *n_rows = 0;
    for (int s = 0; s < HG_MAX_PLUGINS; s++) {
        int rows = g->slot_at[s + 1] - g->slot_at[s];
        if (!rows || !g->w->has_adapters[s])
            continue;
        *n_rows += rows;
        for (int p = 0; p < g->w->n_parts; p++)
            n += g->w->parts[p].adapters[s].down.n_pairs;
    }
    return n;
}

static const float no_bias[CPU_PAIR];

/* z[row][z_at + 32 * pair ...] = [A; R] x */
static void shrink_member(void *ctx, int member, int n_members)
{
    const struct cpu_gemm *g = ctx;
    const struct cpu_backend *c = g->c;
    int64_t n_rows, first, end = cpu_share(count_units(g, &n_rows), member, n_members, &first);
    struct unit u;
    for (int64_t i = first; i < end && find_unit(g, i, &u); i++) {
        const struct cpu_panels *p = &u.a->down;
        int width = cpu_pair_width(p, u.pair);
        struct cpu_tile t = {.w = cpu_pair_at(p, u.pair),
                             .w_step = (int64_t)width * cpu_group_bytes(p->form),
                             .x = (const char *)g->xa + u.row0 * g->ldxa,
                             .ldx = g->ldxa,
                             .acc = c->z + u.row0 * c->ld_z + u.a->z_at + u.pair * CPU_PAIR,
                             .ld_acc = c->ld_z,
                             .n_k = p->n_k,
                             .n_rows = u.row1 - u.row0,
                             .width = width,
                             .first = true};
        c->simd.tile[p->form](&t);
        for (int r = u.row0; p->form == CPU_FORM_I8 && r < u.row1; r++) {
            struct cpu_finish f = {.acc = t.acc + (r - u.row0) * t.ld_acc,
                                   .n_rows = 1,
                                   .width = width,
                                   .bias = no_bias,
                                   .w_scale = p->scale + u.pair * CPU_PAIR,
                                   .x_scale = g->xa_scale + r,
                                   .x_sum = g->xa_sum + r};
            c->simd.finish(&f);
        }
    }
}

/* In place: z holds A x then R x on entry, gate * scaling * A x on return. */
static void gate(const struct cpu_adapter *a, float *z)
{
    const float *route = z + a->rank;
    int per_expert = a->rank / a->n_experts;
    double max = -INFINITY, sum = 0;
    for (int e = 0; e < a->n_experts; e++)
        max = (double)route[e] > max ? (double)route[e] : max;
    for (int e = 0; e < a->n_experts; e++)
        sum += exp((double)route[e] - max);
    for (int e = 0; e < a->n_experts; e++) {
        double factor = exp((double)route[e] - max) / sum * (double)a->scaling;
        for (int j = e * per_expert; j < (e + 1) * per_expert; j++)
            z[j] = (float)(factor * (double)z[j]);
    }
}

static void gate_member(void *ctx, int member, int n_members)
{
    const struct cpu_gemm *g = ctx;
    const struct cpu_backend *c = g->c;
    int64_t first, end = cpu_share(g->n_rows - g->slot_at[0], member, n_members, &first);
    for (int64_t i = first + g->slot_at[0]; i < end + g->slot_at[0]; i++) {
        int s = 0;
        while (i >= g->slot_at[s + 1])
            s++;
        for (int p = 0; p < g->w->n_parts; p++) {
            const struct cpu_adapter *a = &g->w->parts[p].adapters[s];
            float *z = c->z + i * c->ld_z + a->z_at, *act = c->z_act + i * c->ld_z + a->z_at;
            if (!a->rank)
                continue;
            gate(a, z);
            if (g->w->adapter_form == CPU_FORM_I8) {
                int64_t at = (int64_t)p * c->chunk + i;
                memset(act, 0, (size_t)(a->rank + 3) / 4 * sizeof *act);
                c->z_scale[at] = c->simd.quantise(z, a->rank, (int8_t *)(void *)act, &c->z_sum[at]);
            } else if (g->w->adapter_form == CPU_FORM_BF16) {
                memset(act, 0, (size_t)(a->rank + 1) / 2 * sizeof *act);
                c->simd.to_bf16(z, a->rank, (uint16_t *)(void *)act);
            } else {
                memcpy(act, z, (size_t)a->rank * sizeof *act);
            }
        }
    }
}

void cpu_adapters_run(struct cpu_gemm *g)
{
    int64_t n_rows, n_units = count_units(g, &n_rows);
    if (!n_units)
        return;
    cpu_run(g->c, n_units * CPU_PAIR * g->w->n_in * n_rows, shrink_member, g);
    cpu_run(g->c, n_rows * 1000, gate_member, g);
}

void cpu_adapters_add(const struct cpu_gemm *g, int part, int pair, int first, int end,
                      float *block, float *up)
{
    const struct cpu_backend *c = g->c;
    for (int s = 0; s < HG_MAX_PLUGINS; s++) {
        const struct cpu_adapter *a = &g->w->parts[part].adapters[s];
        int row0 = g->slot_at[s] > first ? g->slot_at[s] : first;
        int row1 = g->slot_at[s + 1] < end ? g->slot_at[s + 1] : end;
        if (!a->rank || row0 >= row1)
            continue;
        int width = cpu_pair_width(&a->up, pair);
        int64_t scales = (int64_t)part * c->chunk + row0;
        struct cpu_tile t = {.w = cpu_pair_at(&a->up, pair),
                             .w_step = (int64_t)width * cpu_group_bytes(a->up.form),
                             .x = c->z_act + row0 * c->ld_z + a->z_at,
                             .ldx = c->ld_z * (int64_t)sizeof(float),
                             .acc = up,
                             .ld_acc = CPU_PAIR,
                             .n_k = a->up.n_k,
                             .n_rows = row1 - row0,
                             .width = width,
                             .first = true};
        struct cpu_finish f = {.acc = up,
                               .n_rows = row1 - row0,
                               .width = width,
                               .bias = no_bias,
                               .w_scale = a->up.scale + pair * CPU_PAIR,
                               .x_scale = c->z_scale + scales,
                               .x_sum = c->z_sum + scales};
        c->simd.tile[a->up.form](&t);
        if (a->up.form == CPU_FORM_I8)
            c->simd.finish(&f);
        c->simd.add(block + (row0 - first) * CPU_PAIR, up, (row1 - row0) * CPU_PAIR);
    }
}
