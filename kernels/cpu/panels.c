/* kernels/cpu/panels.c - memory of packed matrices; panels_set.c fills them. */
#include "kernels/cpu/panels.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/half.h"
#include "kernels/quantise.h"

enum cpu_form cpu_form_of(enum hg_dtype type)
{
    static const enum cpu_form forms[] = {
        [HG_DTYPE_F32] = CPU_FORM_F32,   [HG_DTYPE_F16] = CPU_FORM_F16,
        [HG_DTYPE_BF16] = CPU_FORM_BF16, [HG_DTYPE_I8] = CPU_FORM_I8,
        [HG_DTYPE_F8] = CPU_FORM_F8,     [HG_DTYPE_I4] = CPU_FORM_I4,
    };
    return forms[type];
}

/* Whole panels, the odd last one counted once. */
static size_t data_bytes(const struct cpu_panels *p)
{
    size_t n_panels = ((size_t)p->n_out + CPU_LANES - 1) / CPU_LANES;
    return n_panels * (size_t)p->n_k * (size_t)cpu_group_bytes(p->form);
}

static size_t n_scales(const struct cpu_panels *p)
{
    return p->scale ? (size_t)p->n_pairs * CPU_PAIR : 0;
}

static size_t n_group_scales(const struct cpu_panels *p)
{
    return p->group_scale ? (size_t)p->n_pairs * CPU_PAIR * (size_t)hg_i4_groups(p->n_in) : 0;
}

/* Room for what the type keeps beside its panels; false: no memory. */
static bool alloc_scales(struct cpu_panels *p)
{
    size_t n = (size_t)p->n_pairs * CPU_PAIR;
    if (p->type == HG_DTYPE_I4) {
        p->group_scale = calloc(n * (size_t)hg_i4_groups(p->n_in), sizeof *p->group_scale);
        return p->group_scale;
    }
    if (!hg_dtype_is_quantised(p->type))
        return true;
    p->scale = calloc(n, sizeof *p->scale);
    return p->scale;
}

/* Lanes without a row. The others are left to those who set them: who touches a page first should
 * not be one thread for all, and not twice. */
static void set_padding(struct cpu_panels *p)
{
    int zero = p->type == HG_DTYPE_I8 ? 128 : p->type == HG_DTYPE_I4 ? 0x88 : 0;
    size_t at = (size_t)(cpu_pair_at(p, p->n_pairs - 1) - (const char *)p->data);
    if (p->n_out % CPU_LANES)
        memset((char *)p->data + at, zero, data_bytes(p) - at);
}

enum hg_status cpu_panels_init(struct cpu_panels *p, int n_out, int n_in, enum hg_dtype type,
                               struct hg_error *err)
{
    memset(p, 0, sizeof *p);
    /* int32 sums of 127 * 127 * n_in; the other forms have no limit of their own */
    if (n_out <= 0 || n_in <= 0 || n_out > INT_MAX - CPU_PAIR || n_in > INT_MAX - 64 ||
        (type == HG_DTYPE_I8 && n_in > INT_MAX / (127 * 127)))
        return hg_fail(err, HG_STATUS_TOO_LARGE, "%s matrix of %d outputs and %d inputs",
                       hg_dtype_name(type), n_out, n_in);
    p->type = type;
    p->form = cpu_form_of(type);
    p->n_out = n_out;
    p->n_in = n_in;
    p->n_k = (n_in + cpu_group_size(p->form) - 1) / cpu_group_size(p->form);
    p->n_pairs = (n_out + CPU_PAIR - 1) / CPU_PAIR;
    size_t bytes = data_bytes(p);
    p->data = cpu_memory(bytes);
    if (!p->data || !alloc_scales(p)) {
        cpu_panels_deinit(p);
        return hg_fail(err, HG_STATUS_NO_MEMORY, "%zu bytes for a matrix [%d, %d] of %s", bytes,
                       n_out, n_in, hg_dtype_name(type));
    }
    set_padding(p);
    return HG_STATUS_OK;
}

void cpu_panels_deinit(struct cpu_panels *p)
{
    free(p->data);
    free(p->scale);
    free(p->group_scale);
    memset(p, 0, sizeof *p);
}

size_t cpu_panels_bytes(const struct cpu_panels *p)
{
    return p->data ? data_bytes(p) + n_scales(p) * sizeof *p->scale +
                         n_group_scales(p) * sizeof *p->group_scale
                   : 0;
}

float cpu_panels_get(const struct cpu_panels *p, int out, int in)
{
    size_t step;
    const char *row = cpu_panels_row(p, out, &step);
    const uint16_t *half = (const void *)(row + (size_t)in * step);
    const uint16_t *pair = (const void *)(row + (size_t)(in / 2) * step);
    switch (p->type) {
    case HG_DTYPE_F32:
        return *(const float *)(const void *)half;
    case HG_DTYPE_F16:
        return hg_f16_to_f32(*half);
    case HG_DTYPE_BF16:
        return hg_bf16_to_f32(pair[in % 2]);
    case HG_DTYPE_F8:
        return hg_e4m3_to_f32((uint8_t)row[(size_t)in * step]) * (p->scale[out] / 256.0f);
    case HG_DTYPE_I4: {
        int byte = (uint8_t)row[(size_t)(in / 8) * step + (size_t)(in % 4)];
        const uint16_t *scale = cpu_group_scale_at(p, out / CPU_PAIR, in / 8) + out % CPU_PAIR;
        return (float)((byte >> in % 8 / 4 * 4 & 15) - 8) * hg_f16_to_f32(*scale);
    }
    default:
        return (float)((uint8_t)row[(size_t)(in / 4) * step + (size_t)(in % 4)] - 128) *
               p->scale[out];
    }
}
