/* kernels/cpu/attention_full.c - every row of a group attends to all rows of the group.
 *
 * A unit of work is 48 query rows of one group and head; 64 keys and values at a time are packed
 * into the panels of attend.c (2 of 48 parts of the arithmetic). */
#include <string.h>

#include "kernels/cpu/cpu.h"

enum { N_PANELS = CPU_KEYS / CPU_LANES };

/* keys [4][P][16] and values [4][Pp / 16][16 keys][16] of rows [0, n); absent keys are zero */
static void pack(const float *k, const float *v, int64_t ld, int n, const struct cpu_attend *s)
{
    int dim = s->dim, dim_pad = s->dim_pad;
    for (int j = 0; j < CPU_KEYS; j++) {
        float *to = s->t->keys + (int64_t)(j / CPU_LANES) * dim * CPU_LANES + j % CPU_LANES;
        for (int i = 0; i < dim; i++)
            to[i * CPU_LANES] = j < n ? k[j * ld + i] : 0;
    }
    for (int j = 0; j < n; j++) {
        float *to = s->t->values + (int64_t)(j / CPU_LANES) * dim_pad * CPU_LANES;
        for (int i = 0; i < dim_pad; i += CPU_LANES) {
            int m = dim - i < CPU_LANES ? dim - i : CPU_LANES;
            float *row = to + i * CPU_LANES + (j % CPU_LANES) * CPU_LANES;
            memset(row, 0, CPU_LANES * sizeof *row);
            memcpy(row, v + j * ld + i, (size_t)m * sizeof *row);
        }
    }
}

static void attend(const struct hg_attention_full_args *a, int64_t group, int head, int row0,
                   struct cpu_attend *s)
{
    int64_t at = (int64_t)head * a->head_dim, row = group * a->n_rows;
    const float *q = (const float *)a->q + (row + row0) * a->ld + at;
    const float *k = (const float *)a->k + row * a->ld + at;
    const float *v = (const float *)a->v + row * a->ld + at;
    float *y = (float *)a->y + (row + row0) * a->n_heads * a->head_dim + at;
    const void *keys[N_PANELS], *values[N_PANELS];
    s->n_rows = a->n_rows - row0 < CPU_QUERIES ? a->n_rows - row0 : CPU_QUERIES;
    for (int r = 0; r < s->n_rows; r++)
        memcpy(s->t->q + r * s->dim, q + r * a->ld, (size_t)s->dim * sizeof *q);
    cpu_attend_begin(s);
    for (int j = 0; j < a->n_rows; j += CPU_KEYS) {
        int n = a->n_rows - j < CPU_KEYS ? a->n_rows - j : CPU_KEYS;
        pack(k + j * a->ld, v + j * a->ld, a->ld, n, s);
        for (int r = 0; r < s->n_rows; r++) {
            s->lo[r] = 0;
            s->hi[r] = n;
        }
        for (int p = 0; p < N_PANELS; p++) {
            bool used = p * CPU_LANES < n;
            keys[p] = used ? s->t->keys + (int64_t)p * s->dim * CPU_LANES : NULL;
            values[p] = used ? s->t->values + (int64_t)p * s->dim_pad * CPU_LANES : NULL;
        }
        cpu_attend_keys(s, keys, values, NULL);
    }
    cpu_attend_end(s);
    for (int r = 0; r < s->n_rows; r++)
        memcpy(y + (int64_t)r * a->n_heads * a->head_dim, s->t->out + r * s->dim_pad,
               (size_t)s->dim * sizeof *y);
}

struct job {
    struct cpu_backend *c;
    const struct hg_attention_full_args *a;
};

static void full_member(void *ctx, int member, int n_members)
{
    const struct job *j = ctx;
    const struct hg_attention_full_args *a = j->a;
    struct cpu_attend s = {.simd = &j->c->simd,
                           .t = &j->c->threads[member],
                           .dim = a->head_dim,
                           .dim_pad = (int)cpu_round_up(a->head_dim, CPU_LANES),
                           .scale = a->scale,
                           .form = CPU_FORM_F32};
    int64_t tiles = (a->n_rows + CPU_QUERIES - 1) / CPU_QUERIES;
    int64_t first, end = cpu_share(a->n_batch * a->n_heads * tiles, member, n_members, &first);
    for (int64_t u = first; u < end; u++)
        attend(a, u / tiles / a->n_heads, (int)(u / tiles % a->n_heads),
               (int)(u % tiles) * CPU_QUERIES, &s);
}

enum hg_status cpu_attention_full(struct hg_backend *b, const struct hg_attention_full_args *a)
{
    struct job j = {.c = cpu_of(b), .a = a};
    if (a->head_dim > CPU_MAX_HEAD_DIM || !j.c->threads)
        return cpu_refuse("attention_full: head dim %d, largest %d", a->head_dim, CPU_MAX_HEAD_DIM);
    int64_t work = (int64_t)a->n_batch * a->n_rows * a->n_rows * a->n_heads * a->head_dim;
    cpu_run(j.c, work, full_member, &j);
    return HG_STATUS_OK;
}
