/* kernels/cpu/sample.c - the sampler of kernels/ref, rows over threads. */
#include "kernels/ref/sample.h"

#include "kernels/cpu/cpu.h"

struct job {
    struct cpu_backend *c;
    const struct hg_sample_args *a;
};

static enum hg_status sample_row(const struct job *j, int i, int member)
{
    return hg_ref_sample_row(j->a->logits + i * j->a->ld, &j->a->plan->sample[i],
                             &j->a->plan->result[i], &j->c->threads[member].sample);
}

static void sample_member(void *ctx, int member, int n_members)
{
    const struct job *j = ctx;
    int64_t first, end = cpu_share(j->a->plan->n_out, member, n_members, &first);
    for (int64_t i = first; i < end; i++)
        sample_row(j, (int)i, member);
}

/* What hg_ref_sample_row would refuse, before any thread starts. */
static enum hg_status check(const struct job *j)
{
    for (int i = 0; i < j->a->plan->n_out; i++) {
        const struct hg_sample_params *p = &j->a->plan->sample[i];
        if (p->lo < 0 || p->hi <= p->lo || !(p->repetition_penalty > 0))
            return HG_STATUS_BAD_REQUEST;
        if ((int64_t)p->hi - p->lo > j->a->ld || !j->c->threads ||
            p->hi - p->lo > j->c->threads[0].sample.cap)
            return cpu_refuse("sample: range %d..%d of row %d exceeds ld %lld or the scratch",
                              p->lo, p->hi, i, (long long)j->a->ld);
    }
    return HG_STATUS_OK;
}

enum hg_status cpu_sample(struct hg_backend *b, const struct hg_sample_args *a)
{
    struct job j = {cpu_of(b), a};
    enum hg_status status = check(&j);
    if (status != HG_STATUS_OK)
        return status;
    cpu_run(j.c, a->plan->n_out > 1 ? a->plan->n_out * a->ld * 8 : 0, sample_member, &j);
    return hg_host_steps_keep(&j.c->steps, a->plan);
}
