/* kernels/cpu/embed.c - token rows from a table (of given ids or of those the step before
 * sampled), image rows from the feature buffer. */
#include <string.h>

#include "common/half.h"
#include "kernels/cpu/cpu.h"

static void decode(const struct hg_embed_args *a, const void *table, size_t at, float *y)
{
    const uint16_t *h = (const uint16_t *)table + at;
    if (a->table_type == HG_DTYPE_F32)
        memcpy(y, (const float *)table + at, (size_t)a->dim * sizeof *y);
    else if (a->table_type == HG_DTYPE_F16)
        for (int i = 0; i < a->dim; i++)
            y[i] = hg_f16_to_f32(h[i]);
    else
        for (int i = 0; i < a->dim; i++)
            y[i] = hg_bf16_to_f32(h[i]);
}

enum hg_status cpu_embed(struct hg_backend *b, const struct hg_embed_args *a)
{
    const struct hg_plan *p = a->plan;
    size_t dim = (size_t)a->dim;
    if (hg_dtype_is_quantised(a->table_type))
        return cpu_refuse("embed: table of %s", hg_dtype_name(a->table_type));
    for (int t = 0; t < p->n_tokens; t++) {
        float *y = (float *)a->y + (size_t)t * dim;
        int32_t token = p->token[t], set = p->table[t];
        HG_TRY(hg_host_steps_token(&cpu_of(b)->steps, &token));
        if (token < 0 && !a->features)
            return cpu_refuse("embed: token %d wants feature row %d of none", t, -1 - token);
        if (token >= 0 && (set < 0 || set >= HG_MAX_PLUGINS || !a->tables[set]))
            return cpu_refuse("embed: token %d wants table set %d", t, set);
        if (token < 0)
            memcpy(y, (const float *)a->features + (size_t)(-1 - token) * dim, dim * sizeof *y);
        else
            decode(a, a->tables[set], (size_t)token * dim, y);
    }
    return HG_STATUS_OK;
}
