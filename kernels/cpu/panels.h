/* kernels/cpu/panels.h - a matrix [n_out, n_in] packed for the tiles of simd.h.
 *
 * 16 output rows form a panel (one vector lane each), two panels a pair: in every k group the 16
 * lanes of the first are followed by those of the second, so a thread reads one sequential stream
 * and has two independent chains. An odd last panel stands alone. n_out and n_in are padded with
 * zero weights. */
#ifndef HG_KERNELS_CPU_PANELS_H
#define HG_KERNELS_CPU_PANELS_H

#include "kernels/backend.h"
#include "kernels/cpu/simd.h"

enum { CPU_PAIR = 2 * CPU_LANES };

struct cpu_panels {
    enum hg_dtype type;
    enum cpu_form form;
    int n_out, n_in;
    int n_k;               /* k groups of one panel */
    int n_pairs;           /* the last may be a single panel */
    void *data;            /* 64-byte aligned */
    float *scale;          /* I8, F8 (times 2^8): [n_pairs * 32] per output row, 0 in the padding */
    uint16_t *group_scale; /* I4: binary16 [n_pairs][groups of 128 inputs][32 or 16] */
};

/* 64-byte aligned, in huge pages where the system gives them: a panel of the cache is as small as
 * a page of 4 KiB and would cost a page walk each. NULL when there is none; free with free(). */
void *cpu_memory(size_t bytes);

/* Panels whose rows are to be set, all of them; a panels struct of zeros is a valid empty one. */
enum hg_status cpu_panels_init(struct cpu_panels *p, int n_out, int n_in, enum hg_dtype type,
                               struct hg_error *err);
void cpu_panels_deinit(struct cpu_panels *p);
size_t cpu_panels_bytes(const struct cpu_panels *p);

/* Rows [row0, row0 + n_rows) from the rows `first` on of a host tensor [., n_in] (panels_set.c);
 * scratch: cpu_panels_scratch() bytes, aligned to 64. Rows of different pairs may be set by
 * different threads. */
void cpu_panels_set(struct cpu_panels *p, int row0, int n_rows, const struct hg_host_tensor *t,
                    int first, void *scratch);
size_t cpu_panels_scratch(int n_in); /* a multiple of 64 */
/* The stored value of one element (quantised: q * scale). */
float cpu_panels_get(const struct cpu_panels *p, int out, int in);

/* Columns of a pair (32, or 16 for an odd last panel), its first byte, the bytes of a k group. */
static inline int cpu_pair_width(const struct cpu_panels *p, int pair)
{
    return p->n_out - pair * CPU_PAIR > CPU_LANES ? 2 : 1;
}

static inline int cpu_group_bytes(enum cpu_form form) /* of one panel */
{
    return form == CPU_FORM_I8_FLAT || form == CPU_FORM_F8      ? 16
           : form == CPU_FORM_F16 || form == CPU_FORM_BF16_FLAT ? 32
                                                                : 64;
}

static inline int cpu_group_size(enum cpu_form form) /* inputs per k group */
{
    return form == CPU_FORM_BF16 ? 2 : form == CPU_FORM_I8 ? 4 : form == CPU_FORM_I4 ? 8 : 1;
}

static inline int cpu_group_x_bytes(enum cpu_form form) /* of one row of activations */
{
    return form == CPU_FORM_I4 ? 8 : 4;
}

static inline const char *cpu_pair_at(const struct cpu_panels *p, int pair)
{
    int64_t bytes = (int64_t)p->n_k * 2 * cpu_group_bytes(p->form);
    return (const char *)p->data + pair * bytes;
}

/* Where element (out, 0) lies, and how far apart the k groups of its pair are. */
static inline char *cpu_panels_row(const struct cpu_panels *p, int out, size_t *step)
{
    int pair = out / CPU_PAIR, lane = out % CPU_PAIR, group = cpu_group_bytes(p->form);
    *step = (size_t)group * (size_t)cpu_pair_width(p, pair);
    return (char *)(uintptr_t)cpu_pair_at(p, pair) + (size_t)lane * (size_t)(group / CPU_LANES);
}

/* The binary16 scales of I4 from k group `k` of a pair on. */
static inline const uint16_t *cpu_group_scale_at(const struct cpu_panels *p, int pair, int k)
{
    int64_t groups = (p->n_k + CPU_I4_STEPS - 1) / CPU_I4_STEPS;
    int64_t width = (int64_t)cpu_pair_width(p, pair) * CPU_LANES;
    return p->group_scale + pair * groups * CPU_PAIR + k / CPU_I4_STEPS * width;
}

enum cpu_form cpu_form_of(enum hg_dtype type);

#endif
