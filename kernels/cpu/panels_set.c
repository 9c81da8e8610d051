/* kernels/cpu/panels_set.c - rows of host tensors into panels.
 *
 * A row is first brought into the bytes that the panels hold, in its own order; a tensor of the
 * stored type needs no step for that. Then the rows of a pair are interleaved together, a few k
 * groups at a time, so that what is read and what is written stays in the first cache. */
#include <string.h>

#include "common/half.h"
#include "kernels/cpu/panels.h"
#include "kernels/quantise.h"

enum { K_BLOCK = 16 }; /* k groups of a row that are spread at a time: 64 bytes */

/* One row as the panels hold it, but for the offset of I8. */
struct scratch {
    float *values;  /* [n_in] */
    uint8_t *codes; /* [CPU_PAIR][row_bytes] */
    size_t row_bytes;
};

static size_t round_up_64(size_t n)
{
    return (n + 63) / 64 * 64;
}

size_t cpu_panels_scratch(int n_in)
{
    size_t row = round_up_64(((size_t)n_in + 8) * sizeof(float));
    return (1 + CPU_PAIR) * row;
}

static void decode_row(const struct hg_host_tensor *t, size_t at, int n, float *row)
{
    const uint16_t *h = (const uint16_t *)t->data + at;
    switch (t->type) {
    case HG_DTYPE_F16:
        hg_f16_to_f32_n(h, row, (size_t)n);
        break;
    case HG_DTYPE_BF16:
        for (int i = 0; i < n; i++)
            row[i] = hg_bf16_to_f32(h[i]);
        break;
    default:
        memcpy(row, (const float *)t->data + at, (size_t)n * sizeof *row);
    }
}

static void set_scales(struct cpu_panels *p, int out, const void *scale)
{
    if (p->type == HG_DTYPE_I4)
        for (int g = 0; g < hg_i4_groups(p->n_in); g++) {
            const uint16_t *at = cpu_group_scale_at(p, out / CPU_PAIR, g * CPU_I4_STEPS);
            ((uint16_t *)(uintptr_t)at)[out % CPU_PAIR] = ((const uint16_t *)scale)[g];
        }
    else
        p->scale[out] = *(const float *)scale * (p->type == HG_DTYPE_F8 ? 256.0f : 1.0f);
}

/* fp32 values -> the stored type; room for the scales of a row behind the codes. */
static void encode_row(struct cpu_panels *p, int out, float *values, uint8_t *codes)
{
    uint16_t *half = (uint16_t *)(void *)codes;
    size_t n = (size_t)p->n_in;
    switch (p->type) {
    case HG_DTYPE_F32:
        memcpy(codes, values, n * sizeof *values);
        break;
    case HG_DTYPE_F16:
        hg_f32_to_f16_n(values, half, n);
        break;
    case HG_DTYPE_BF16:
        for (size_t i = 0; i < n; i++)
            half[i] = hg_f32_to_bf16(values[i]);
        break;
    default: {
        uint8_t *scale = codes + (hg_code_bytes(p->type, p->n_in) + 7) / 8 * 8;
        hg_quantise_row(p->type, values, p->n_in, codes, scale);
        set_scales(p, out, scale);
    }
    }
}

/* Row `out` of the panels from row `from` of t, as bytes; the k groups are whole where it lies in
 * the scratch, and the last may lack some where it lies in t. */
static const uint8_t *row_codes(struct cpu_panels *p, int out, const struct hg_host_tensor *t,
                                size_t from, const struct scratch *s, int lane)
{
    uint8_t *codes = s->codes + (size_t)lane * s->row_bytes;
    size_t unit = (size_t)(cpu_group_bytes(p->form) / CPU_LANES), bytes;
    const uint8_t *row;
    if (t->type != p->type) {
        memset(codes + ((size_t)p->n_k - 1) * unit, 0, unit);
        decode_row(t, from * (size_t)p->n_in, p->n_in, s->values);
        encode_row(p, out, s->values, codes);
        return codes;
    }
    if (hg_dtype_is_quantised(t->type)) {
        bytes = hg_code_bytes(t->type, p->n_in);
        set_scales(p, out, (const uint8_t *)t->scale + from * hg_scale_bytes(t->type, p->n_in));
    } else {
        bytes = (size_t)p->n_in * hg_dtype_bytes(t->type);
    }
    row = (const uint8_t *)t->data + from * bytes;
    if (bytes == (size_t)p->n_k * unit)
        return row;
    memset(codes + ((size_t)p->n_k - 1) * unit, 0, unit);
    memcpy(codes, row, bytes);
    return codes;
}

/* Word k of row i goes to to[k * step + i * unit]; `flip` changes the sign bit of int8, which the
 * panels keep with an offset. */
static void spread_4(const uint8_t *const *rows, int n_rows, size_t n_k, uint32_t flip, char *to,
                     size_t step)
{
    for (size_t k0 = 0; k0 < n_k; k0 += K_BLOCK) {
        size_t n = n_k - k0 < K_BLOCK ? n_k - k0 : K_BLOCK;
        for (int i = 0; i < n_rows; i++) {
            const uint8_t *from = rows[i] + k0 * 4;
            char *at = to + k0 * step + (size_t)i * 4;
            for (size_t k = 0; k < n; k++) {
                uint32_t word;
                memcpy(&word, from + k * 4, 4);
                word ^= flip;
                memcpy(at + k * step, &word, 4);
            }
        }
    }
}

static void spread_2(const uint8_t *const *rows, int n_rows, size_t n_k, char *to, size_t step)
{
    for (size_t k0 = 0; k0 < n_k; k0 += 2 * K_BLOCK) {
        size_t n = n_k - k0 < 2 * K_BLOCK ? n_k - k0 : 2 * K_BLOCK;
        for (int i = 0; i < n_rows; i++)
            for (size_t k = 0; k < n; k++)
                memcpy(to + (k0 + k) * step + (size_t)i * 2, rows[i] + (k0 + k) * 2, 2);
    }
}

static void spread_1(const uint8_t *const *rows, int n_rows, size_t n_k, char *to, size_t step)
{
    for (size_t k0 = 0; k0 < n_k; k0 += 4 * K_BLOCK) {
        size_t n = n_k - k0 < 4 * K_BLOCK ? n_k - k0 : 4 * K_BLOCK;
        for (int i = 0; i < n_rows; i++)
            for (size_t k = 0; k < n; k++)
                to[(k0 + k) * step + (size_t)i] = (char)rows[i][k0 + k];
    }
}

/* Rows of one pair. */
static void set_rows(struct cpu_panels *p, int row0, int n_rows, const struct hg_host_tensor *t,
                     size_t first, const struct scratch *s)
{
    const uint8_t *rows[CPU_PAIR];
    size_t step, n_k = (size_t)p->n_k;
    char *to = cpu_panels_row(p, row0, &step);
    for (int i = 0; i < n_rows; i++)
        rows[i] = row_codes(p, row0 + i, t, first + (size_t)i, s, i);
    switch (cpu_group_bytes(p->form) / CPU_LANES) {
    case 1:
        spread_1(rows, n_rows, n_k, to, step);
        break;
    case 2:
        spread_2(rows, n_rows, n_k, to, step);
        break;
    default:
        spread_4(rows, n_rows, n_k, p->type == HG_DTYPE_I8 ? 0x80808080u : 0, to, step);
    }
}

void cpu_panels_set(struct cpu_panels *p, int row0, int n_rows, const struct hg_host_tensor *t,
                    int first, void *scratch)
{
    struct scratch s = {.values = scratch,
                        .row_bytes = cpu_panels_scratch(p->n_in) / (1 + CPU_PAIR)};
    s.codes = (uint8_t *)scratch + s.row_bytes;
    for (int r = 0; r < n_rows;) {
        int n = CPU_PAIR - (row0 + r) % CPU_PAIR;
        n = n < n_rows - r ? n : n_rows - r;
        set_rows(p, row0 + r, n, t, (size_t)first + (size_t)r, &s);
        r += n;
    }
}
