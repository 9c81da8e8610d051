/* A step that a backend replays gives the bits of the same step op by op, whatever differs between
 * the plans: slots, table and head sets, ranges of ids, contexts, sampling, histories. The plans
 * come in turns, so that a graph made for one is tried on the next when the key of graph.c lacks
 * what tells them apart. */
#include "tests/kernels/attention_case.h"

enum {
    N = 3,
    HEADS = 2,
    DIM = 32,
    D = HEADS * DIM,
    V = 70,
    RANK = 8,
    LONGEST = 640,
    BLOCKS = LONGEST / HG_BLOCK_TOKENS,
    LD = 80
};

/* What tells a plan from the first one; what is left out stays as there. */
struct variant {
    const char *name;
    int32_t slot[N], table[N], out_table[N], pos[N], lo[N], hi[N], token[N];
    float temperature, penalty;
    int top_k, n_out;
};

static const struct variant variants[] = {
    {.name = "first", .pos = {600, 300, 5}},
    {.name = "slot 1", .slot = {1, 1, 1}, .pos = {600, 300, 5}},
    {.name = "slots 0, 1, none", .slot = {0, 1, -1}, .pos = {600, 300, 5}},
    {.name = "no slot", .slot = {-1, -1, -1}, .pos = {600, 300, 5}},
    {.name = "tables", .table = {1, 0, 1}, .pos = {600, 300, 5}},
    {.name = "head set 1", .out_table = {1, 1, 1}, .pos = {600, 300, 5}},
    {.name = "head sets 0, 1", .out_table = {0, 1, 0}, .pos = {600, 300, 5}},
    {.name = "first ids", .hi = {16, 9, 16}, .pos = {600, 300, 5}},
    {.name = "one id at each end", .lo = {0, 69, 30}, .hi = {1, 70, 34}, .pos = {600, 300, 5}},
    {.name = "a shorter row", .lo = {0, 40, 0}, .hi = {30, 70, 30}, .pos = {600, 300, 5}},
    {.name = "last ids, as long", .lo = {40, 48, 55}, .pos = {600, 300, 5}},
    {.name = "five pieces and an idle one", .pos = {600, 6, 5}},
    {.name = "short contexts", .pos = {20, 7, 0}},
    {.name = "four pieces", .pos = {255, 256, 1}},
    {.name = "long contexts", .pos = {639, 620, 530}},
    {.name = "a feature row", .token = {-2, 4, -1}, .pos = {600, 300, 5}},
    {.name = "other tokens", .token = {9, 17, 3}, .pos = {600, 300, 5}},
    {.name = "sampling", .temperature = 20, .top_k = 40, .pos = {600, 300, 5}},
    {.name = "histories", .penalty = 1.7f, .temperature = 20, .pos = {600, 300, 5}},
    {.name = "one out row", .n_out = 1, .pos = {600, 300, 5}},
};

enum { N_VARIANTS = sizeof variants / sizeof *variants };

struct outputs {
    float q[N * D], y[N * D], logits[N * LD];
    struct hg_sample_result result[N];
};

struct bed {
    struct hg_backend *b;
    struct kt_cache cache;
    struct hg_weight *linear, *heads[2];
    float *norm; /* (dev) */
    void *tables[2], *features, *x, *q, *y, *logits;
    int32_t blocks[N * BLOCKS];
};

static struct hg_host_tensor tensor(const float *x)
{
    return (struct hg_host_tensor){.data = x, .type = HG_DTYPE_F32};
}

static void create_weights(struct bed *t)
{
    struct hg_error err = {0};
    float *w = kt_random(V * D, 5, 0.3f), *a = kt_random(RANK * D, 6, 0.3f),
          *b = kt_random(D * RANK, 7, 0.3f), *route = kt_random(2 * D, 8, 0.3f);
    struct hg_weight_desc d = {.name = "q", .n_in = D, .n_parts = 1, .store = HG_DTYPE_BF16};
    d.parts[0] = (struct hg_weight_part){.w = tensor(w), .n_out = D};
    for (int s = 0; s < 2; s++)
        d.parts[0].adapters[s] = (struct hg_adapter){.a = tensor(a),
                                                     .b = tensor(b),
                                                     .route = tensor(route),
                                                     .rank = RANK,
                                                     .n_experts = 2,
                                                     .scaling = s ? 0.7f : 2.0f};
    HG_TEST_OK(t->b->ops->weight_create(t->b, &d, &t->linear, &err), err);
    for (int s = 0; s < 2; s++) {
        float *h = kt_random(V * D, 11 + (uint64_t)s, 1);
        d = (struct hg_weight_desc){.name = "head", .n_in = D, .n_parts = 1, .store = HG_DTYPE_F16};
        d.parts[0] = (struct hg_weight_part){.w = tensor(h), .n_out = V};
        HG_TEST_OK(t->b->ops->weight_create(t->b, &d, &t->heads[s], &err), err);
        free(h);
    }
    free(w);
    free(a);
    free(b);
    free(route);
}

static void open_bed(struct bed *t, struct hg_backend *b)
{
    memset(t, 0, sizeof *t);
    t->b = b;
    kt_cache_open(&t->cache, b, HEADS, HEADS, DIM, HG_DTYPE_F16, 1, N * BLOCKS, NULL);
    for (int i = 0; i < N * BLOCKS; i++)
        t->blocks[i] = (i * 7 + 3) % (N * BLOCKS); /* 120 and 7 have no common factor */
    for (int s = 0; s < N; s++) {
        float *qkv = kt_random(LONGEST * 3 * D, 20 + (uint64_t)s, 1);
        kt_cache_append(&t->cache, 0, t->blocks + s * BLOCKS, BLOCKS, 0, LONGEST, qkv, NULL);
        free(qkv);
    }
    create_weights(t);
    float *x = kt_random(V * D, 30, 1);
    t->tables[0] = kt_upload(b, x, V * D * sizeof *x);
    t->tables[1] = kt_upload(b, x + D, (V - 1) * D * sizeof *x);
    t->features = kt_upload_act(b, x + 5, 4 * D);
    t->norm = kt_upload(b, x, D * sizeof *x);
    free(x);
    t->x = kt_alloc_act(b, N * D);
    t->q = kt_alloc_act(b, N * D);
    t->y = kt_alloc_act(b, N * D);
    float zero[N * LD] = {0};
    t->logits = kt_upload(b, zero, sizeof zero);
}

static void close_bed(struct bed *t)
{
    void *all[] = {t->tables[0], t->tables[1], t->features, t->norm, t->x, t->q, t->y, t->logits};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        t->b->ops->free(t->b, all[i]);
    t->b->ops->weight_free(t->b, t->linear);
    t->b->ops->weight_free(t->b, t->heads[0]);
    t->b->ops->weight_free(t->b, t->heads[1]);
    kt_cache_close(&t->cache);
}

static void issue(struct bed *t, const struct hg_plan *p)
{
    const struct hg_backend_ops *ops = t->b->ops;
    struct hg_embed_args e = {p, {t->tables[0], t->tables[1]}, HG_DTYPE_F32, t->features, D, t->x};
    struct hg_linear_args l = {
        .w = t->linear, .n_rows = N, .x = t->x, .ldx = D, .slot = p->slot, .y = t->q, .ldy = D};
    struct hg_attention_args a = {.plan = p,
                                  .kv = t->cache.kv,
                                  .n_heads = HEADS,
                                  .n_kv_heads = HEADS,
                                  .head_dim = DIM,
                                  .scale = 0.2f,
                                  .q = t->q,
                                  .y = t->y};
    struct hg_head_args h = {
        p,         t->y, {t->norm, t->norm}, 1e-5f, HG_ROUND_NEVER, {t->heads[0], t->heads[1]},
        t->logits, LD};
    struct hg_sample_args s = {p, t->logits, LD};
    assert_int_equal(ops->embed(t->b, &e), HG_STATUS_OK);
    assert_int_equal(ops->linear(t->b, &l), HG_STATUS_OK);
    assert_int_equal(ops->attention(t->b, &a), HG_STATUS_OK);
    assert_int_equal(ops->head(t->b, &h), HG_STATUS_OK);
    assert_int_equal(ops->sample(t->b, &s), HG_STATUS_OK);
}

/* The plan of a variant; `sample` gets its parameters. */
static struct hg_plan plan_of(struct bed *t, const struct variant *v,
                              struct hg_sample_params sample[N], struct outputs *out)
{
    static const int32_t seq[N] = {0, 1, 2}, history[5] = {3, 3, 60, 8, 41};
    for (int i = 0; i < N; i++)
        sample[i] = (struct hg_sample_params){.lo = v->lo[i],
                                              .hi = v->hi[i] ? v->hi[i] : V,
                                              .temperature = v->temperature,
                                              .top_k = v->top_k,
                                              .top_p = 1,
                                              .repetition_penalty = v->penalty ? v->penalty : 1,
                                              .history = history,
                                              .n_history = 2 + i,
                                              .seed = 9,
                                              .position = (uint64_t)i};
    return (struct hg_plan){.n_tokens = N,
                            .n_seqs = N,
                            .n_out = v->n_out ? v->n_out : N,
                            .max_blocks = BLOCKS,
                            .token = v->token,
                            .pos = v->pos,
                            .seq = seq,
                            .slot = v->slot,
                            .table = v->table,
                            .block_table = t->blocks,
                            .out_row = seq,
                            .out_table = v->out_table,
                            .sample = sample,
                            .result = out->result};
}

/* The step of a variant, from poisoned buffers; may_replay: the backend may know it already.
 * Returns whether it did. */
static bool run(struct bed *t, const struct variant *v, bool may_replay, struct outputs *out)
{
    struct hg_sample_params sample[N];
    struct hg_plan p = plan_of(t, v, sample, out);
    bool replayed = false;
    int64_t step = 0;
    memset(out, 0xff, sizeof *out);
    assert_int_equal(t->b->ops->upload(t->b, t->logits, out->logits, sizeof out->logits),
                     HG_STATUS_OK);
    assert_int_equal(t->b->ops->upload_act(t->b, t->q, out->q, N * D), HG_STATUS_OK);
    assert_int_equal(t->b->ops->upload_act(t->b, t->y, out->y, N * D), HG_STATUS_OK);
    assert_int_equal(t->b->ops->step_begin(t->b, &p, may_replay ? &replayed : NULL), HG_STATUS_OK);
    if (!replayed)
        issue(t, &p);
    assert_int_equal(t->b->ops->step_end(t->b, &step), HG_STATUS_OK);
    assert_int_equal(t->b->ops->step_wait(t->b, step), HG_STATUS_OK);
    kt_download_act(t->b, out->q, t->q, N * D);
    kt_download_act(t->b, out->y, t->y, N * D);
    assert_int_equal(t->b->ops->download(t->b, out->logits, t->logits, sizeof out->logits),
                     HG_STATUS_OK);
    assert_int_equal(t->b->ops->sync(t->b), HG_STATUS_OK);
    return replayed;
}

static void a_replayed_step_has_the_bits_of_the_same_step_op_by_op(void **state)
{
    enum { ROUNDS = 4 };
    struct kt_targets *ts = *state;
    static struct outputs want[N_VARIANTS], got;
    for (int i = 0; i < ts->n; i++) {
        struct bed t;
        int n_replayed = 0;
        open_bed(&t, ts->at[i].b);
        for (int v = 0; v < N_VARIANTS; v++) {
            run(&t, &variants[v], false, &want[v]);
            for (int k = 0; k < v; k++) /* the variants do differ */
                if (memcmp(&want[v], &want[k], sizeof want[v]) == 0)
                    fail_msg("\"%s\" is \"%s\"", variants[v].name, variants[k].name);
        }
        for (int k = 0; k < ROUNDS * N_VARIANTS; k++) {
            int v = k % N_VARIANTS;
            n_replayed += run(&t, &variants[v], true, &got);
            if (memcmp(&got, &want[v], sizeof got) != 0)
                fail_msg("%s: \"%s\" differs in round %d", ts->at[i].name, variants[v].name,
                         k / N_VARIANTS);
        }
        printf("  %s: %d of %d steps replayed\n", ts->at[i].name, n_replayed, ROUNDS * N_VARIANTS);
        assert_true(kt_is_cuda(&ts->at[i]) ? n_replayed >= (ROUNDS - 2) * N_VARIANTS
                                           : n_replayed == 0);
        close_bed(&t);
    }
}

/* ---- captures that come to nothing ----------------------------------------------------------- */

/* A backend of its own, because graphs may be off afterwards; NULL: none that has graphs. */
static struct hg_backend *open_own(struct bed *t)
{
    struct hg_backend *b = NULL;
    struct hg_error err = {0};
    const char *name = hg_test_backend() ? hg_test_backend() : "simt";
    if (hg_backend_open(name, NULL, &b, &err) != HG_STATUS_OK ||
        strcmp(b->ops->name, "cuda") != 0) {
        hg_backend_close(b);
        return NULL;
    }
    HG_TEST_OK(b->ops->reserve(b, &kt_limits, &err), err);
    open_bed(t, b);
    return b;
}

/* Results of a step that may be replayed; it begins once more when step_end says so. */
static void expect_step(struct bed *t, const struct outputs *want, bool expect_replay)
{
    struct outputs got;
    bool replayed = run(t, &variants[0], true, &got);
    assert_int_equal(replayed, expect_replay);
    assert_memory_equal(&got, want, sizeof got);
}

static void a_step_that_cannot_be_captured_is_begun_once_more(void **state)
{
    (void)state;
    struct bed t;
    struct outputs want, got;
    float x[D] = {0};
    bool replayed = true;
    int64_t step = -1;
    if (!open_own(&t))
        HG_TEST_SKIP("captures: libhealthgpt_simt.so is not found");
    struct hg_sample_params sample[N];
    struct hg_plan p = plan_of(&t, &variants[0], sample, &got);
    run(&t, &variants[0], false, &want);
    expect_step(&t, &want, false);
    assert_int_equal(t.b->ops->step_begin(t.b, &p, &replayed), HG_STATUS_OK);
    assert_false(replayed);
    issue(&t, &p);
    assert_int_equal(t.b->ops->upload(t.b, t.x, x, sizeof x), HG_STATUS_OK); /* no op of a graph */
    assert_int_equal(t.b->ops->step_end(t.b, &step), HG_STATUS_OK);
    assert_int_equal(step, 0);
    for (int i = 0; i < 3; i++)
        expect_step(&t, &want, false); /* it is not tried again */
    close_bed(&t);
    hg_backend_close(t.b);
}

static void a_step_given_up_in_a_capture_leaves_nothing_behind(void **state)
{
    (void)state;
    struct bed t;
    struct outputs want, got;
    bool replayed = true;
    if (!open_own(&t))
        HG_TEST_SKIP("captures: libhealthgpt_simt.so is not found");
    struct hg_sample_params sample[N];
    struct hg_plan p = plan_of(&t, &variants[0], sample, &got);
    struct hg_embed_args e = {&p, {t.tables[0]}, HG_DTYPE_I8, t.features, D, t.x};
    run(&t, &variants[0], false, &want);
    expect_step(&t, &want, false);
    assert_int_equal(t.b->ops->step_begin(t.b, &p, &replayed), HG_STATUS_OK);
    assert_int_equal(t.b->ops->embed(t.b, &e), HG_STATUS_INTERNAL); /* a table of int8 */
    assert_int_equal(t.b->ops->step_end(t.b, NULL), HG_STATUS_OK);
    expect_step(&t, &want, false); /* captured now */
    expect_step(&t, &want, true);
    close_bed(&t);
    hg_backend_close(t.b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_step_that_cannot_be_captured_is_begun_once_more),
        cmocka_unit_test(a_step_given_up_in_a_capture_leaves_nothing_behind),
        cmocka_unit_test(a_replayed_step_has_the_bits_of_the_same_step_op_by_op),
    };
    return cmocka_run_group_tests(tests, kt_setup, kt_teardown);
}
