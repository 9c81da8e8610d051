/* tests/parity/run_seq.c - a scheduler of a few lines. */
#include "tests/parity/run_seq.h"

#include "tests/test.h"

enum { MAX_TOGETHER = 64 };

struct runner {
    struct hg_seq *seq;
    struct run_result *r;
    size_t max;
    int join;
};

void run_result_free(struct run_result *r)
{
    free(r->ids);
    free(r->logits);
    memset(r, 0, sizeof *r);
}

static void keep(struct hg_model *m, struct runner *u, const struct hg_token *t, size_t row)
{
    struct run_result *r = u->r;
    struct hg_model_info info;
    struct hg_error err = {0};
    int32_t first;
    size_t n;
    hg_model_info(m, &info);
    size_t cap = (size_t)info.n_vocab;
    if (!r->logits)
        r->logits = malloc(u->max * cap * sizeof *r->logits);
    float *dst = r->logits + r->n_ids * (r->n_logits ? r->n_logits : cap);
    HG_TEST_OK(hg_model_last_logits(m, row, dst, cap, &n, &first, &err), err);
    r->n_logits = n;
    r->ids[r->n_ids++] = t->id;
    r->finish = t->finish;
}

static void step_all(struct hg_model *m, struct runner *u, size_t n, int chunk, int step)
{
    struct hg_step_item items[MAX_TOGETHER];
    struct hg_token tokens[MAX_TOGETHER];
    struct runner *who[MAX_TOGETHER];
    struct hg_error err = {0};
    size_t k = 0, row = 0;
    for (size_t i = 0; i < n; i++) {
        if (u[i].r->finish != HG_FINISH_NONE || step < u[i].join)
            continue;
        while (hg_seq_wants_vision(u[i].seq))
            HG_TEST_OK(hg_seq_encode_image(u[i].seq, &err), err);
        int waiting = hg_seq_n_waiting(u[i].seq);
        int take = waiting == 0 ? 1 : waiting < chunk ? waiting : chunk;
        who[k] = &u[i];
        items[k++] = (struct hg_step_item){u[i].seq, take};
    }
    if (k == 0)
        return;
    HG_TEST_OK(hg_model_step(m, items, k, tokens, &err), err);
    for (size_t i = 0; i < k; i++)
        if (tokens[i].id >= 0)
            keep(m, who[i], &tokens[i], row++);
}

void run_together(struct hg_model *m, struct hg_prepared **p, size_t n, int chunk, int stagger,
                  struct run_result *results)
{
    struct runner u[MAX_TOGETHER];
    struct hg_error err = {0};
    assert_true(n <= MAX_TOGETHER);
    memset(results, 0, n * sizeof *results);
    for (size_t i = 0; i < n; i++) {
        u[i] = (struct runner){.r = &results[i], .join = (int)i * stagger};
        u[i].max = (size_t)hg_prepared_max_tokens(p[i]);
        results[i].ids = malloc(u[i].max * sizeof *results[i].ids);
        HG_TEST_OK(hg_seq_create(m, p[i], &u[i].seq, &err), err);
    }
    size_t done = 0;
    for (int step = 0; done < n; step++) {
        step_all(m, u, n, chunk, step);
        done = 0;
        for (size_t i = 0; i < n; i++)
            done += results[i].finish != HG_FINISH_NONE;
    }
    for (size_t i = 0; i < n; i++)
        hg_seq_free(u[i].seq);
}
