/* Steps in flight: ids that never leave the device, results that come with their step, more shapes
 * of steps than there are graphs. */
#include "tests/kernels/attention_case.h"

enum { V = 24, D = 40, MOST = 64 };

/* A table, logits of MOST rows that a step can sample, and what a step needs. */
struct bed {
    struct hg_backend *b;
    float *table; /* (host) [V, D] */
    void *dev_table, *features, *y;
    void *logits[3]; /* [MOST, V]; the best id of row i in set k is (5 i + 7 k + 1) % V */
    int32_t zero[MOST], none[MOST], row[MOST];
    int32_t token[MOST], pos[MOST], blocks[MOST * 2];
    struct hg_sample_params greedy[MOST];
};

static int best_id(int row, int which)
{
    return (5 * row + 7 * which + 1) % V;
}

static void open_bed(struct bed *t, struct hg_backend *b)
{
    float *x = calloc(MOST * V, sizeof *x);
    memset(t, 0, sizeof *t);
    t->b = b;
    t->table = kt_random(V * D, 1, 1);
    t->dev_table = kt_upload(b, t->table, V * D * sizeof(float));
    t->features = kt_upload_act(b, t->table, 3 * D);
    t->y = kt_alloc_act(b, MOST * D);
    for (int k = 0; k < 3; k++) {
        memset(x, 0, MOST * V * sizeof *x);
        for (int i = 0; i < MOST; i++)
            x[i * V + best_id(i, k)] = 1;
        t->logits[k] = kt_upload(b, x, MOST * V * sizeof *x);
    }
    for (int i = 0; i < MOST; i++) {
        t->none[i] = -1;
        t->row[i] = i;
        t->greedy[i] = (struct hg_sample_params){.hi = V, .top_p = 1, .repetition_penalty = 1};
    }
    free(x);
}

static void close_bed(struct bed *t)
{
    t->b->ops->free(t->b, t->dev_table);
    t->b->ops->free(t->b, t->features);
    t->b->ops->free(t->b, t->y);
    for (int k = 0; k < 3; k++)
        t->b->ops->free(t->b, t->logits[k]);
    free(t->table);
}

/* n sequences of one token. */
static struct hg_plan plan_of(struct bed *t, int n, int n_out, struct hg_sample_result *r)
{
    return (struct hg_plan){.n_tokens = n,
                            .n_seqs = n,
                            .n_out = n_out,
                            .max_blocks = 1,
                            .token = t->token,
                            .pos = t->pos,
                            .seq = t->row,
                            .slot = t->none,
                            .table = t->zero,
                            .block_table = t->blocks,
                            .out_row = t->row,
                            .out_table = t->zero,
                            .sample = t->greedy,
                            .result = r};
}

/* The ops of a step: rows of the table, then the ids of one set of logits. */
static void issue(struct bed *t, const struct hg_plan *p, int which)
{
    struct hg_embed_args e = {p, {t->dev_table}, HG_DTYPE_F32, t->features, D, t->y};
    struct hg_sample_args s = {p, t->logits[which], V};
    assert_int_equal(t->b->ops->embed(t->b, &e), HG_STATUS_OK);
    assert_int_equal(t->b->ops->sample(t->b, &s), HG_STATUS_OK);
}

static int64_t run(struct bed *t, const struct hg_plan *p, int which)
{
    int64_t step = 0;
    assert_int_equal(t->b->ops->step_begin(t->b, p, NULL), HG_STATUS_OK);
    issue(t, p, which);
    assert_int_equal(t->b->ops->step_end(t->b, &step), HG_STATUS_OK);
    assert_true(step > 0);
    return step;
}

static void expect_rows(struct bed *t, const int *id, int n)
{
    static float y[MOST * D];
    kt_download_act(t->b, y, t->y, (size_t)(n * D));
    for (int i = 0; i < n; i++)
        assert_memory_equal(y + i * D, t->table + id[i] * D, D * sizeof(float));
}

static void a_step_begins_with_ids_that_the_step_before_sampled(void **state)
{
    struct kt_targets *ts = *state;
    struct bed t;
    struct hg_sample_result r[8];
    for (int i = 0; i < ts->n; i++) {
        open_bed(&t, ts->at[i].b);
        struct hg_plan sampled = plan_of(&t, 4, 4, r), feeds = plan_of(&t, 5, 2, r + 4);
        int64_t first = run(&t, &sampled, 1);
        const int32_t token[5] = {HG_TOKEN_SAMPLED(2), 9, -1 - 1, HG_TOKEN_SAMPLED(0),
                                  HG_TOKEN_SAMPLED(2)};
        memcpy(t.token, token, sizeof token);
        int64_t second = run(&t, &feeds, 2); /* nobody has waited for the first */
        memset(t.token, 0, sizeof t.token);
        const int want[5] = {best_id(2, 1), 9, 1, best_id(0, 1), best_id(2, 1)};
        expect_rows(&t, want, 5);
        assert_int_equal(t.b->ops->step_wait(t.b, second), HG_STATUS_OK);
        assert_int_equal(t.b->ops->step_wait(t.b, first), HG_STATUS_OK);
        for (int k = 0; k < 6; k++)
            assert_int_equal(r[k].token, k < 4 ? best_id(k, 1) : best_id(k - 4, 2));
        close_bed(&t);
    }
}

static void refuse(struct bed *t, const struct hg_plan *p)
{
    struct hg_embed_args e = {p, {t->dev_table}, HG_DTYPE_F32, t->features, D, t->y};
    enum hg_status status = t->b->ops->step_begin(t->b, p, NULL);
    if (status == HG_STATUS_OK) { /* a backend may look at the plan in begin or in embed */
        status = t->b->ops->embed(t->b, &e);
        assert_int_equal(t->b->ops->step_end(t->b, NULL), HG_STATUS_OK);
    }
    assert_int_equal(status, HG_STATUS_INTERNAL);
}

static void a_row_that_was_not_sampled_is_refused(void **state)
{
    struct kt_targets *ts = *state;
    struct bed t;
    struct hg_sample_result r[4];
    for (int i = 0; i < ts->n; i++) {
        open_bed(&t, ts->at[i].b);
        struct hg_plan sampled = plan_of(&t, 4, 3, r), feeds = plan_of(&t, 4, 0, r);
        assert_int_equal(t.b->ops->step_wait(t.b, run(&t, &sampled, 0)), HG_STATUS_OK);
        t.token[1] = HG_TOKEN_SAMPLED(3); /* rows 0, 1, 2 were */
        refuse(&t, &feeds);
        t.token[1] = 0;
        assert_int_equal(t.b->ops->step_wait(t.b, run(&t, &sampled, 0)), HG_STATUS_OK);
        assert_int_equal(t.b->ops->step_begin(t.b, &feeds, NULL), HG_STATUS_OK);
        assert_int_equal(t.b->ops->step_end(t.b, NULL), HG_STATUS_OK);
        t.token[1] = HG_TOKEN_SAMPLED(0); /* the step before sampled nothing */
        refuse(&t, &feeds);
        assert_int_equal(t.b->ops->step_wait(t.b, 0), HG_STATUS_INTERNAL);
        assert_int_equal(t.b->ops->step_wait(t.b, -1), HG_STATUS_INTERNAL);
        assert_int_equal(t.b->ops->step_wait(t.b, INT64_MAX), HG_STATUS_INTERNAL);
        close_bed(&t);
    }
}

/* More steps than may be in flight; the tables are overwritten as soon as a step has them. */
static void results_come_with_their_step_when_the_ring_goes_round(void **state)
{
    enum { STEPS = 3 * HG_STEPS_AHEAD + 1, N = 7 };
    struct kt_targets *ts = *state;
    struct bed t;
    static struct hg_sample_result r[STEPS][N];
    for (int i = 0; i < ts->n; i++) {
        int64_t step[STEPS];
        open_bed(&t, ts->at[i].b);
        memset(r, 0xff, sizeof r);
        for (int k = 0; k < STEPS; k++) {
            int n = 1 + k % N;
            for (int s = 0; s < MOST; s++)
                t.token[s] = t.greedy[s].lo = 0;
            struct hg_plan p = plan_of(&t, N, n, r[k]);
            step[k] = run(&t, &p, k % 3);
            for (int s = 0; s < MOST; s++) {
                t.token[s] = V + 1000; /* nobody may read these any more */
                t.greedy[s].lo = V - 1;
            }
            if (k == 5)
                assert_int_equal(t.b->ops->step_wait(t.b, step[4]), HG_STATUS_OK);
        }
        for (int k = STEPS - 1; k >= 0; k--) { /* those from the ring's last rounds are there too */
            assert_int_equal(t.b->ops->step_wait(t.b, step[k]), HG_STATUS_OK);
            assert_int_equal(step[k], step[0] + k);
            for (int s = 0; s <= k % N; s++)
                assert_int_equal(r[k][s].token, best_id(s, k % 3));
        }
        close_bed(&t);
    }
}

/* Steps that are larger than a place of the ring, between small ones; nobody waits for them. */
static void large_plans_take_turns(void **state)
{
    enum { LARGE = 200, STEPS = 6 };
    struct kt_targets *ts = *state;
    struct bed t;
    static struct hg_sample_result r[STEPS][3];
    static int32_t token[LARGE], pos[LARGE], one[LARGE], none[LARGE];
    static float y[LARGE * D];
    for (int i = 0; i < ts->n; i++) {
        void *wide[STEPS];
        open_bed(&t, ts->at[i].b);
        for (int k = 0; k < STEPS; k++)
            wide[k] = kt_alloc_act(t.b, LARGE * D);
        for (int k = 0; k < STEPS; k++) {
            struct hg_plan p = plan_of(&t, 3, 3, r[k]), large = plan_of(&t, LARGE, 0, NULL);
            for (int s = 0; s < LARGE; s++) {
                token[s] = (s + k) % V;
                pos[s] = s;
                none[s] = -1;
            }
            large.n_seqs = 1;
            large.token = token;
            large.pos = pos;
            large.seq = large.table = one;
            large.slot = none;
            struct hg_embed_args e = {&large, {t.dev_table}, HG_DTYPE_F32, t.features, D, wide[k]};
            assert_int_equal(t.b->ops->step_begin(t.b, &large, NULL), HG_STATUS_OK);
            assert_int_equal(t.b->ops->embed(t.b, &e), HG_STATUS_OK);
            assert_int_equal(t.b->ops->step_end(t.b, NULL), HG_STATUS_OK);
            int64_t small = run(&t, &p, 0);
            if (k == STEPS - 1)
                assert_int_equal(t.b->ops->step_wait(t.b, small), HG_STATUS_OK);
        }
        for (int k = 0; k < STEPS; k++) {
            kt_download_act(t.b, y, wide[k], LARGE * D);
            for (int s = 0; s < LARGE; s++)
                assert_memory_equal(y + s * D, t.table + (s + k) % V * D, D * sizeof *y);
            t.b->ops->free(t.b, wide[k]);
        }
        close_bed(&t);
    }
}

/* A graph's shape needs to have seen an attention. */
static void show_attention(struct hg_backend *b)
{
    static const struct kt_attention_case c = {.n_heads = 2,
                                               .n_kv_heads = 2,
                                               .head_dim = 32,
                                               .type = HG_DTYPE_F32,
                                               .n_seqs = 1,
                                               .len = {5},
                                               .n_query = {2}};
    struct kt_attention a;
    float y[2 * 64];
    kt_attention_init(&a, &c, 3);
    kt_attention_once(&a, b, y);
    kt_attention_deinit(&a);
}

/* 128 shapes, each four times, twice: graphs are made, replayed, given up and made again. */
static void more_shapes_than_graphs_give_the_right_rows(void **state)
{
    struct kt_targets *ts = *state;
    struct bed t;
    static struct hg_sample_result r[MOST];
    int id[MOST], n_replayed = 0;
    for (int i = 0; i < ts->n; i++) {
        show_attention(ts->at[i].b);
        open_bed(&t, ts->at[i].b);
        n_replayed = 0;
        for (int k = 0; k < 2 * 128 * 4; k++) {
            int n = 1 + k / 8 % 64;
            bool replayed = false;
            int64_t step = 0;
            for (int s = 0; s < n; s++)
                t.token[s] = id[s] = (s * 3 + k) % V;
            struct hg_plan p = plan_of(&t, n, 1 + k % 2 * (n / 2), r);
            assert_int_equal(t.b->ops->step_begin(t.b, &p, &replayed), HG_STATUS_OK);
            if (!replayed)
                issue(&t, &p, 0);
            assert_int_equal(t.b->ops->step_end(t.b, &step), HG_STATUS_OK);
            if (k % 5 == 0)
                expect_rows(&t, id, n);
            if (k % 5 == 0 || k == 2 * 128 * 4 - 1) {
                assert_int_equal(t.b->ops->step_wait(t.b, step), HG_STATUS_OK);
                assert_int_equal(r[0].token, best_id(0, 0));
                assert_int_equal(r[p.n_out - 1].token, best_id(p.n_out - 1, 0));
            }
            n_replayed += replayed;
        }
        printf("  %s: %d of 1024 steps replayed\n", ts->at[i].name, n_replayed);
        assert_true(kt_is_cuda(&ts->at[i]) ? n_replayed >= 4 * 128 : n_replayed == 0);
        close_bed(&t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_step_begins_with_ids_that_the_step_before_sampled),
        cmocka_unit_test(a_row_that_was_not_sampled_is_refused),
        cmocka_unit_test(results_come_with_their_step_when_the_ring_goes_round),
        cmocka_unit_test(large_plans_take_turns),
        cmocka_unit_test(more_shapes_than_graphs_give_the_right_rows),
    };
    return cmocka_run_group_tests(tests, kt_setup, kt_teardown);
}
