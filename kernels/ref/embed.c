/* kernels/ref/embed.c - token rows from a table (of given ids or of those the step before
 * sampled), image rows from the feature buffer. */
#include <string.h>

#include "kernels/ref/ref.h"

enum hg_status ref_embed(struct hg_backend *b, const struct hg_embed_args *a)
{
    const struct hg_plan *p = a->plan;
    size_t dim = (size_t)a->dim;
    for (int t = 0; t < p->n_tokens; t++) {
        float *y = (float *)a->y + (size_t)t * dim;
        int32_t token = p->token[t];
        HG_TRY(hg_host_steps_token(&ref_of(b)->steps, &token));
        if (token < 0) {
            if (!a->features)
                return ref_refuse("embed: token %d wants feature row %d of none", t, -1 - token);
            memcpy(y, (const float *)a->features + (size_t)(-1 - token) * dim, dim * sizeof *y);
            continue;
        }
        int32_t set = p->table[t];
        if (set < 0 || set >= HG_MAX_PLUGINS || !a->tables[set])
            return ref_refuse("embed: token %d wants table set %d", t, set);
        for (size_t i = 0; i < dim; i++)
            y[i] = ref_decode(a->tables[set], a->table_type, (size_t)token * dim + i);
    }
    return HG_STATUS_OK;
}
