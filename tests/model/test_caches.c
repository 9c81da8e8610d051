/* Prefix cache, picture cache and preemption on the demo model: what is found, for whom, and that
 * not a bit changes. */
#include "model/healthgpt.h"

#include "tests/test.h"

enum { MAX_IDS = 64, CHUNK = 24 };

static struct hg_model *load(const char *backend, int64_t kv_tokens)
{
    struct hg_model *m = NULL;
    struct hg_error err = {0};
    struct hg_model_options o = {.path = hg_test_file("config/models/demo"),
                                 .backend = backend,
                                 .n_threads = 2,
                                 .max_seqs = 4,
                                 .kv_tokens = kv_tokens};
    if (hg_model_load(&o, &m, &err) != HG_STATUS_OK && err.status != HG_STATUS_UNSUPPORTED)
        fail_msg("%s", err.text);
    return m;
}

/* A picture that differs by `look`. */
static void paint(struct hg_image *im, int look)
{
    struct hg_error err = {0};
    HG_TEST_OK(hg_image_init(im, 64, 64, &err), err);
    for (int i = 0; i < 64 * 64 * 3; i++)
        im->rgb[i] = (uint8_t)(i / 3 % 64 * 3 + i / 192 * look);
}

struct question {
    enum hg_task task;
    const char *text;
    int look; /* 0: no picture */
    uint64_t tenant;
    float temperature;
};

static struct hg_prepared *prepare(struct hg_model *m, const struct question *q, uint64_t seed)
{
    struct hg_turn turn = {.question = q->text, .n_question = strlen(q->text)};
    struct hg_request_input in = {
        .task = q->task, .tenant = q->tenant, .turns = &turn, .n_turns = 1};
    struct hg_image im = {0};
    struct hg_prepared *p = NULL;
    struct hg_error err = {0};
    hg_sampling_default(&in.sampling);
    in.sampling.temperature = q->temperature;
    in.sampling.seed = seed;
    in.sampling.ignore_stop = q->task == HG_TASK_COMPREHENSION;
    in.sampling.max_tokens = q->task == HG_TASK_COMPREHENSION ? 24 : 0;
    if (q->look) {
        paint(&im, q->look);
        turn.n_images = 1;
        in.images = &im;
        in.n_images = 1;
    }
    HG_TEST_OK(hg_model_prepare(m, &in, &p, &err), err);
    hg_image_deinit(&im);
    return p;
}

static struct hg_seq *begin(struct hg_model *m, struct hg_prepared *p)
{
    struct hg_seq *s = NULL;
    struct hg_error err = {0};
    HG_TEST_OK(hg_seq_create(m, p, &s, &err), err);
    return s;
}

static struct hg_seq *ask(struct hg_model *m, const struct question *q)
{
    return begin(m, prepare(m, q, 7));
}

struct answer {
    int32_t id[MAX_IDS];
    float logprob[MAX_IDS];
    int n, n_found, n_encoded;
};

/* One step; false when it was the last. */
static bool step(struct hg_model *m, struct hg_seq *s, struct answer *a)
{
    struct hg_token t;
    struct hg_error err = {0};
    for (; hg_seq_wants_vision(s); a->n_encoded++)
        HG_TEST_OK(hg_seq_encode_image(s, &err), err);
    int waiting = hg_seq_n_waiting(s);
    struct hg_step_item item = {s, waiting == 0 ? 1 : waiting < CHUNK ? waiting : CHUNK};
    HG_TEST_OK(hg_model_step(m, &item, 1, &t, &err), err);
    if (t.id >= 0 && t.finish != HG_FINISH_ERROR) {
        a->id[a->n] = t.id;
        a->logprob[a->n++] = t.logprob;
    }
    return t.finish == HG_FINISH_NONE;
}

/* The answer; preempted before step `at` (-1: never), when `forget` with cold caches after it. */
static struct answer answer(struct hg_model *m, const struct question *q, int at, bool forget)
{
    struct answer a = {.n = 0};
    struct hg_seq *s = ask(m, q);
    struct hg_error err = {0};
    a.n_found = hg_seq_n_found(s);
    for (int i = 0;; i++) {
        if (i == at) {
            HG_TEST_OK(hg_seq_preempt(s, &err), err);
            assert_true(hg_seq_preempted(s));
            if (forget)
                hg_model_forget(m);
            HG_TEST_OK(hg_seq_resume(s, &err), err);
        }
        if (!step(m, s, &a))
            break;
    }
    hg_seq_free(s);
    return a;
}

static void expect_equal(const struct answer *a, const struct answer *b)
{
    assert_int_equal(a->n, b->n);
    assert_memory_equal(a->id, b->id, (size_t)a->n * sizeof *a->id);
    assert_memory_equal(a->logprob, b->logprob, (size_t)a->n * sizeof *a->logprob);
}

static const char *const backends[] = {"cpu", "ref", "simt"};
static const struct question xray = {HG_TASK_COMPREHENSION,
                                     "Is there consolidation in the left lung?", 2, 1, 0};
static const struct question other = {
    HG_TASK_COMPREHENSION, "Is there consolidation in the right lung, and what else?", 2, 1, 0.8f};
static const struct question draw = {HG_TASK_GENERATION, "Draw a chest X-ray.", 0, 1, 0.9f};
static const struct question redraw = {HG_TASK_GENERATION, "Reconstruct the image.", 3, 1, 0};

/* Each of cpu, ref and simt. */
static void for_each_backend(void (*run)(struct hg_model *m))
{
    for (int i = 0; i < 3; i++) {
        struct hg_model *m = load(backends[i], 2048);
        if (!m) {
            printf("# %s is not here\n", backends[i]);
            continue;
        }
        run(m);
        hg_model_free(m);
    }
}

static void warm(struct hg_model *m)
{
    struct answer cold[2] = {answer(m, &xray, -1, false), {.n = 0}};
    assert_int_equal(cold[0].n_found, 0);
    assert_int_equal(cold[0].n_encoded, 1);
    hg_model_forget(m);
    cold[1] = answer(m, &other, -1, false);
    assert_int_equal(cold[1].n_encoded, 1);
    hg_model_forget(m);
    struct answer a = answer(m, &xray, -1, false), b = answer(m, &other, -1, false);
    struct answer again = answer(m, &xray, -1, false);
    assert_int_equal(a.n_found, 0);
    assert_int_equal(b.n_encoded, 0); /* the picture is known, by its rows or its blocks */
    assert_true(b.n_found >= 64);     /* its rows and what stands before */
    assert_true(again.n_found > b.n_found);
    expect_equal(&a, &cold[0]);
    expect_equal(&b, &cold[1]);
    expect_equal(&again, &cold[0]);
}

static void second_question_about_a_picture_finds_the_first_ones_work(void **state)
{
    (void)state;
    for_each_backend(warm);
}

static void a_model_that_forgets_finds_nothing(void **state)
{
    (void)state;
    struct hg_model *m = load("cpu", 2048), *forgets = NULL;
    struct hg_error err = {0};
    struct hg_model_options o = {.path = hg_test_file("config/models/demo"),
                                 .backend = "cpu",
                                 .n_threads = 2,
                                 .max_seqs = 4,
                                 .forget = true};
    HG_TEST_OK(hg_model_load(&o, &forgets, &err), err);
    struct answer want = answer(m, &xray, -1, false);
    for (int i = 0; i < 2; i++) {
        struct answer a = answer(forgets, &xray, i ? 9 : -1, false);
        assert_int_equal(a.n_found, 0);
        assert_int_equal(a.n_encoded, 1 + i); /* once more after it gave way */
        expect_equal(&a, &want);
    }
    hg_model_free(m);
    hg_model_free(forgets);
}

static void nothing_is_found_by_another_tenant_task_or_picture(void **state)
{
    (void)state;
    struct hg_model *m = load("cpu", 2048);
    struct question tenant = xray, picture = xray, task = xray;
    tenant.tenant = 2;
    picture.look = 5;
    task.task = HG_TASK_GENERATION;
    struct answer first = answer(m, &xray, -1, false), a = answer(m, &tenant, -1, false);
    assert_int_equal(a.n_found, 0);
    assert_int_equal(a.n_encoded, 1);
    expect_equal(&a, &first);
    a = answer(m, &picture, -1, false);
    assert_true(a.n_found < 64); /* at most what stands before the picture */
    assert_int_equal(a.n_encoded, 1);
    a = answer(m, &task, -1, false);
    assert_int_equal(a.n_found, 0);
    assert_int_equal(a.n_encoded, 1);
    hg_model_free(m);
}

static void preempted(struct hg_model *m)
{
    static const struct question *const questions[] = {&xray, &other, &draw, &redraw};
    for (int q = 0; q < 4; q++) {
        hg_model_forget(m);
        struct answer want = answer(m, questions[q], -1, false);
        for (int at = 0; at < 30; at += at < 5 ? 1 : 8)
            for (int forget = 0; forget < 2; forget++) {
                hg_model_forget(m);
                struct answer got = answer(m, questions[q], at, forget);
                expect_equal(&got, &want);
            }
    }
}

static void preempted_sequences_go_on_with_the_same_bits(void **state)
{
    (void)state;
    struct hg_model *m = load("cpu", 2048);
    preempted(m);
    hg_model_free(m);
}

/* Few cases: the emulation is slow. Prompt and generated rows go through other kernels there. */
static void preempted_on_the_device(struct hg_model *m)
{
    struct answer want = answer(m, &other, -1, false);
    for (int at = 2; at < 20; at += 15) {
        hg_model_forget(m);
        struct answer got = answer(m, &other, at, true);
        expect_equal(&got, &want);
    }
}

static void preemption_keeps_the_bits_of_every_backend(void **state)
{
    (void)state;
    for_each_backend(preempted_on_the_device);
}

/* Blocks are taken as a sequence grows; the last to come gives way. */
static void a_full_cache_preempts_and_all_finish(void **state)
{
    (void)state;
    enum { N = 4 };
    struct hg_model *m = load("cpu", 128); /* 8 blocks; a drawing needs 5 or 6 */
    struct question q[N];
    struct hg_seq *s[N];
    struct answer want[N], got[N] = {{.n = 0}};
    struct hg_error err = {0};
    bool running[N];
    int n_preempted = 0;
    for (int i = 0; i < N; i++) {
        q[i] = draw;
        q[i].tenant = (uint64_t)i;
        q[i].temperature = 0.5f + 0.1f * (float)i;
        want[i] = answer(m, &q[i], -1, false);
        hg_model_forget(m);
    }
    for (int i = 0; i < N; i++) {
        s[i] = ask(m, &q[i]);
        running[i] = true;
    }
    for (int left = N; left > 0;)
        for (int i = 0; i < N; i++) {
            if (!running[i] || hg_seq_resume(s[i], &err) != HG_STATUS_OK)
                continue;
            int last = N - 1, waiting = hg_seq_n_waiting(s[i]);
            int n = waiting == 0 ? 1 : waiting < CHUNK ? waiting : CHUNK;
            while (hg_seq_reserve(s[i], n, &err) == HG_STATUS_BUSY) {
                while (last > i && (!running[last] || hg_seq_preempted(s[last])))
                    last--;
                if (last <= i)
                    break;
                HG_TEST_OK(hg_seq_preempt(s[last], &err), err);
                n_preempted++;
            }
            if (hg_seq_reserve(s[i], n, &err) != HG_STATUS_OK) {
                HG_TEST_OK(hg_seq_preempt(s[i], &err), err);
                continue;
            }
            if (!step(m, s[i], &got[i])) {
                hg_seq_free(s[i]);
                running[i] = false;
                left--;
            }
        }
    printf("# %d preemptions\n", n_preempted);
    assert_true(n_preempted > 0);
    for (int i = 0; i < N; i++)
        expect_equal(&got[i], &want[i]);
    hg_model_free(m);
}

static struct answer finish(struct hg_model *m, struct hg_prepared *p)
{
    struct answer a = {.n = 0};
    struct hg_seq *s = begin(m, p);
    while (step(m, s, &a))
        continue;
    hg_seq_free(s);
    hg_model_forget(m);
    return a;
}

/* The first of them is given up before the second begins: its picture stays. */
static void choices_share_a_prompt_and_differ_by_their_seed(void **state)
{
    (void)state;
    struct hg_model *m = load("cpu", 2048);
    struct answer seven = finish(m, prepare(m, &other, 7)),
                  eight = finish(m, prepare(m, &other, 8));
    struct hg_prepared *first = prepare(m, &other, 7), *second = NULL, *third = NULL;
    struct hg_error err = {0};
    HG_TEST_OK(hg_prepared_again(first, 8, &second, &err), err);
    HG_TEST_OK(hg_prepared_again(second, 7, &third, &err), err);
    hg_prepared_free(first);
    struct answer a = finish(m, second), b = finish(m, third);
    expect_equal(&a, &eight);
    expect_equal(&b, &seven);
    assert_memory_not_equal(seven.id, eight.id, sizeof seven.id);
    hg_model_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(second_question_about_a_picture_finds_the_first_ones_work),
        cmocka_unit_test(a_model_that_forgets_finds_nothing),
        cmocka_unit_test(nothing_is_found_by_another_tenant_task_or_picture),
        cmocka_unit_test(preempted_sequences_go_on_with_the_same_bits),
        cmocka_unit_test(preemption_keeps_the_bits_of_every_backend),
        cmocka_unit_test(a_full_cache_preempts_and_all_finish),
        cmocka_unit_test(choices_share_a_prompt_and_differ_by_their_seed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
