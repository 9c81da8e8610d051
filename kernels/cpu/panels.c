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
    /* the offset of the integers is their zero */
    memset(p->data, type == HG_DTYPE_I8 ? 128 : type == HG_DTYPE_I4 ? 0x88 : 0, bytes);
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

/* Where element (out, 0) lies, and how far apart the k groups of its pair are. */
static char *row_at(const struct cpu_panels *p, int out, size_t *step)
{
    int pair = out / CPU_PAIR, lane = out % CPU_PAIR;
    int group = cpu_group_bytes(p->form);
    *step = (size_t)group * (size_t)cpu_pair_width(p, pair);
    size_t in_group = (size_t)(lane / CPU_LANES) * (size_t)group +
                      (size_t)(lane % CPU_LANES) * (size_t)(group / CPU_LANES);
    return (char *)(uintptr_t)cpu_pair_at(p, pair) + in_group;
}

static void decode_row(const struct hg_host_tensor *t, size_t at, int n, float *row)
{
    const uint16_t *h = (const uint16_t *)t->data + at;
    switch (t->type) {
    case HG_DTYPE_F16:
        for (int i = 0; i < n; i++)
            row[i] = hg_f16_to_f32(h[i]);
        break;
    case HG_DTYPE_BF16:
        for (int i = 0; i < n; i++)
            row[i] = hg_bf16_to_f32(h[i]);
        break;
    default:
        memcpy(row, (const float *)t->data + at, (size_t)n * sizeof *row);
    }
}

/* Codes go through a buffer of one group. */
static void set_row_i4(struct cpu_panels *p, int out, const float *row)
{
    int8_t q[HG_I4_GROUP];
    size_t step;
    int pair = out / CPU_PAIR, lane = out % CPU_PAIR;
    uint8_t *to = (uint8_t *)row_at(p, out, &step);
    for (int i = 0; i < p->n_in; i += HG_I4_GROUP) {
        int n = p->n_in - i < HG_I4_GROUP ? p->n_in - i : HG_I4_GROUP;
        uint16_t *scale = (uint16_t *)(uintptr_t)cpu_group_scale_at(p, pair, i / 8) + lane;
        *scale = hg_quantise_i4(row + i, n, q);
        for (int j = 0; j < n; j++) {
            uint8_t *byte = to + (size_t)((i + j) / 8) * step + (size_t)(j % 4);
            int shift = j % 8 / 4 * 4;
            *byte = (uint8_t)((*byte & ~(15 << shift)) | (q[j] + 8) << shift);
        }
    }
}

/* The codes are written to the front of `row`, which they fit, then spread. */
static void set_row_8(struct cpu_panels *p, int out, float *row)
{
    size_t step;
    uint8_t *to = (uint8_t *)row_at(p, out, &step), *code = (uint8_t *)(void *)row;
    if (p->type == HG_DTYPE_I8) {
        p->scale[out] = hg_quantise_i8(row, p->n_in, (int8_t *)(void *)code);
        for (int i = 0; i < p->n_in; i++)
            to[(size_t)(i / 4) * step + (size_t)(i % 4)] = (uint8_t)(code[i] ^ 0x80u);
    } else {
        p->scale[out] = hg_quantise_f8(row, p->n_in, code) * 256.0f;
        for (int i = 0; i < p->n_in; i++)
            to[(size_t)i * step] = code[i];
    }
}

static void set_row(struct cpu_panels *p, int out, float *row)
{
    size_t step;
    char *to = row_at(p, out, &step);
    switch (p->type) {
    case HG_DTYPE_F32:
        for (int i = 0; i < p->n_in; i++)
            memcpy(to + (size_t)i * step, row + i, sizeof *row);
        break;
    case HG_DTYPE_F16:
        for (int i = 0; i < p->n_in; i++)
            *(uint16_t *)(void *)(to + (size_t)i * step) = hg_f32_to_f16(row[i]);
        break;
    case HG_DTYPE_BF16:
        for (int i = 0; i < p->n_in; i++)
            ((uint16_t *)(void *)(to + (size_t)(i / 2) * step))[i % 2] = hg_f32_to_bf16(row[i]);
        break;
    case HG_DTYPE_I4:
        set_row_i4(p, out, row);
        break;
    default:
        set_row_8(p, out, row);
    }
}

void cpu_panels_set(struct cpu_panels *p, int row0, int n_rows, const struct hg_host_tensor *t,
                    int first, float *row)
{
    for (int r = 0; r < n_rows; r++) {
        decode_row(t, (size_t)(first + r) * (size_t)p->n_in, p->n_in, row);
        set_row(p, row0 + r, row);
    }
}

float cpu_panels_get(const struct cpu_panels *p, int out, int in)
{
    size_t step;
    const char *row = row_at(p, out, &step);
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
