#include "tools/load/samples.h"

#include <math.h>
#include <stdlib.h>

void hg_samples_deinit(struct hg_samples *s)
{
    free(s->v);
    *s = (struct hg_samples){0};
}

enum hg_status hg_samples_add(struct hg_samples *s, double value)
{
    if (s->n == s->cap) {
        size_t cap = s->cap ? 2 * s->cap : 256;
        double *v = cap > (size_t)-1 / sizeof *v ? NULL : realloc(s->v, cap * sizeof *v);
        if (!v)
            return HG_STATUS_NO_MEMORY;
        s->v = v;
        s->cap = cap;
    }
    s->v[s->n++] = value;
    s->sorted = false;
    return HG_STATUS_OK;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double hg_samples_percentile(struct hg_samples *s, double percent)
{
    if (s->n == 0)
        return 0;
    if (!s->sorted)
        qsort(s->v, s->n, sizeof *s->v, compare);
    s->sorted = true;
    double rank = ceil(percent * (double)s->n / 100);
    return rank < 1 ? s->v[0] : s->v[rank >= (double)s->n ? s->n - 1 : (size_t)rank - 1];
}

double hg_samples_mean(const struct hg_samples *s)
{
    double sum = 0;
    for (size_t i = 0; i < s->n; i++)
        sum += s->v[i];
    return s->n ? sum / (double)s->n : 0;
}
