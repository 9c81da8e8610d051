/* Pictures seen and drawn in pieces, with steps of a running sequence between them: the bytes of
 * the whole, the work that was announced, nothing left behind when it is dropped. */
#include "common/log.h"
#include "model/healthgpt.h"
#include "tests/parity/model_writer.h"
#include "tests/random_model.h"
#include "tests/test.h"

enum { N_ANSWER = 8, MAX_BEATS = 400, CODES = 16 };

static char folder[256];
static const char *backends[] = {"cpu", "ref", "simt"};

static struct hg_model *load_with(const char *backend, bool forget)
{
    struct hg_model *m = NULL;
    struct hg_error err = {0};
    struct hg_model_options o = {.path = folder,
                                 .backend = backend,
                                 .n_threads = 2,
                                 .max_seqs = 4,
                                 .forget = forget,
                                 .kv_tokens = 2048,
                                 .max_batch_tokens = 256};
    if (hg_model_load(&o, &m, &err) != HG_STATUS_OK &&
        (err.status != HG_STATUS_UNSUPPORTED || hg_test_backend()))
        fail_msg("%s", err.text);
    return m;
}

/* Each run sees its picture again. */
static struct hg_model *load(const char *backend)
{
    return load_with(backend, true);
}

/* look 0: a question without a picture. */
static struct hg_seq *ask(struct hg_model *m, int look, int max_tokens)
{
    struct hg_turn turn = {.question = "What is shown?", .n_question = 14, .n_images = look != 0};
    struct hg_image im = {0};
    struct hg_request_input in = {.task = HG_TASK_COMPREHENSION,
                                  .turns = &turn,
                                  .n_turns = 1,
                                  .images = &im,
                                  .n_images = look != 0};
    struct hg_prepared *p = NULL;
    struct hg_seq *s = NULL;
    struct hg_error err = {0};
    hg_sampling_default(&in.sampling);
    in.sampling.ignore_stop = true;
    in.sampling.max_tokens = max_tokens;
    HG_TEST_OK(hg_image_init(&im, 40, 30, &err), err);
    for (int i = 0; i < 40 * 30 * 3; i++)
        im.rgb[i] = (uint8_t)(i * look + i / 120 * 5);
    HG_TEST_OK(hg_model_prepare(m, &in, &p, &err), err);
    HG_TEST_OK(hg_seq_create(m, p, &s, &err), err);
    hg_image_deinit(&im);
    return s;
}

struct trace {
    int32_t id[MAX_BEATS];
    float logprob[MAX_BEATS];
    int n;
};

static void step(struct hg_model *m, struct hg_seq *s, struct trace *t)
{
    struct hg_token token;
    struct hg_error err = {0};
    int waiting = hg_seq_n_waiting(s);
    HG_TEST_OK(hg_model_step(m, &(struct hg_step_item){s, waiting ? waiting : 1}, 1, &token, &err),
               err);
    t->id[t->n] = token.id;
    t->logprob[t->n++] = token.logprob;
}

static void expect_equal(const struct trace *a, const struct trace *b)
{
    int n = a->n < b->n ? a->n : b->n;
    assert_true(n > 0);
    assert_memory_equal(a->id, b->id, (size_t)n * sizeof *a->id);
    assert_memory_equal(a->logprob, b->logprob, (size_t)n * sizeof *a->logprob);
}

struct outcome {
    struct trace runner, answer;
    struct hg_image im;
    int n_seen, n_drawn;       /* pieces */
    int64_t seen, drawn, most; /* work: of each, of the largest piece */
};

static void spend(struct outcome *o, int64_t budget, int64_t left, int64_t *sum, int *n)
{
    *sum += budget - left;
    *n += 1;
    o->most = budget - left > o->most ? budget - left : o->most;
}

/* A sequence runs; beside it a picture is seen and another one drawn, in pieces of `budget`. */
static void run(struct hg_model *m, int64_t budget, struct outcome *o)
{
    struct hg_error err = {0};
    int32_t codes[CODES];
    bool done = false;
    memset(o, 0, sizeof *o);
    for (int i = 0; i < CODES; i++)
        codes[i] = i * 5 % 64;
    struct hg_seq *runner = ask(m, 0, MAX_BEATS), *asks = ask(m, 3, N_ANSWER);
    step(m, runner, &o->runner);
    HG_TEST_OK(hg_model_render_begin(m, codes, CODES, &err), err);
    while (hg_seq_wants_vision(asks) || !done) {
        int64_t left = budget;
        if (hg_seq_wants_vision(asks)) {
            HG_TEST_OK(hg_seq_encode_piece(asks, &left, &err), err);
            spend(o, budget, left, &o->seen, &o->n_seen);
            assert_ptr_equal(hg_model_encoding(m), hg_seq_wants_vision(asks) ? asks : NULL);
            step(m, runner, &o->runner);
        }
        left = budget;
        if (!done) {
            HG_TEST_OK(hg_model_render_go_on(m, &left, &o->im, &done, &err), err);
            spend(o, budget, left, &o->drawn, &o->n_drawn);
            step(m, runner, &o->runner);
        }
    }
    for (int i = 0; i < N_ANSWER; i++) {
        step(m, asks, &o->answer);
        step(m, runner, &o->runner);
    }
    hg_seq_free(asks);
    hg_seq_free(runner);
}

static void any_size_of_piece_gives_the_bytes_of_the_whole(void **state)
{
    (void)state;
    for (int b = 0; b < (hg_test_backend() ? 1 : 3); b++) {
        struct hg_model *m = load(backends[b]);
        struct hg_model_info info;
        struct outcome whole, o;
        int64_t single = 0;
        if (!m) {
            printf("# %s is not here\n", backends[b]);
            continue;
        }
        hg_model_info(m, &info);
        run(m, INT64_MAX, &whole);
        assert_int_equal(whole.n_seen, 1);
        assert_int_equal(whole.n_drawn, 1);
        const int64_t budgets[] = {1, info.vision_work / 3, info.render_work / 2};
        for (int i = 0; i < 3; i++) {
            run(m, budgets[i], &o);
            printf("# %s: seen in %d pieces, drawn in %d, the largest %lld of %lld + %lld\n",
                   backends[b], o.n_seen, o.n_drawn, (long long)o.most, (long long)o.seen,
                   (long long)o.drawn);
            assert_int_equal(o.seen, info.vision_work);
            assert_int_equal(o.drawn, info.render_work);
            assert_true(o.n_drawn > 1 && (o.n_seen > 1 || budgets[i] >= o.seen));
            if (i == 0) { /* single operations: embedding, half layers, end, projector */
                assert_true(o.n_seen == 1 + 2 * 2 + 1 + 1 && o.n_drawn > 20);
                single = o.most;
            }
            assert_true(o.most <= (budgets[i] > single ? budgets[i] : single));
            expect_equal(&o.answer, &whole.answer);
            expect_equal(&o.runner, &whole.runner);
            assert_int_equal(o.im.width, whole.im.width);
            assert_memory_equal(o.im.rgb, whole.im.rgb,
                                (size_t)o.im.width * (size_t)o.im.height * 3);
            hg_image_deinit(&o.im);
        }
        hg_image_deinit(&whole.im);
        hg_model_free(m);
    }
}

/* How a picture's first pieces can be left: nothing stays under way, and it can be begun again. */
static void a_picture_half_seen_is_dropped_with_its_sequence(void **state)
{
    (void)state;
    struct hg_model *m = load(backends[0]);
    struct hg_error err = {0};
    struct outcome whole;
    struct trace again = {.n = 0};
    int64_t work = 1;
    run(m, INT64_MAX, &whole);
    struct hg_seq *a = ask(m, 3, N_ANSWER), *b = ask(m, 3, N_ANSWER);
    HG_TEST_OK(hg_seq_encode_piece(a, &work, &err), err);
    assert_ptr_equal(hg_model_encoding(m), a);
    HG_TEST_FAILS(hg_seq_encode_image(b, &err), HG_STATUS_INTERNAL, err, "another sequence");
    hg_seq_free(a);
    assert_null(hg_model_encoding(m));
    work = 1;
    HG_TEST_OK(hg_seq_encode_piece(b, &work, &err), err);
    HG_TEST_OK(hg_seq_preempt(b, &err), err);
    assert_null(hg_model_encoding(m));
    HG_TEST_OK(hg_seq_resume(b, &err), err);
    for (work = 1; hg_seq_wants_vision(b); work = 1)
        HG_TEST_OK(hg_seq_encode_piece(b, &work, &err), err);
    HG_TEST_FAILS(hg_seq_encode_piece(b, &work, &err), HG_STATUS_INTERNAL, err, "no image left");
    for (int i = 0; i < N_ANSWER; i++)
        step(m, b, &again);
    expect_equal(&again, &whole.answer);
    hg_seq_free(b);
    struct trace other = {.n = 0}; /* the answer does depend on what is seen */
    b = ask(m, 7, N_ANSWER);
    HG_TEST_OK(hg_seq_encode_image(b, &err), err);
    step(m, b, &other);
    assert_true(other.logprob[0] != again.logprob[0]);
    hg_seq_free(b);
    hg_image_deinit(&whole.im);
    hg_model_free(m);
}

/* Two that ask about one picture: the first begins it and gives way, the second sees it, and the
 * first finds it when it goes on. */
static void a_picture_is_seen_once_by_whoever_is_there(void **state)
{
    (void)state;
    struct hg_model *m = load_with(backends[0], false);
    struct hg_error err = {0};
    struct outcome whole;
    struct trace of_a = {.n = 0}, of_b = {.n = 0};
    int64_t work = 1;
    run(m, INT64_MAX, &whole);
    hg_model_forget(m);
    struct hg_seq *a = ask(m, 3, N_ANSWER), *b = ask(m, 3, N_ANSWER);
    HG_TEST_OK(hg_seq_encode_piece(a, &work, &err), err);
    HG_TEST_OK(hg_seq_preempt(a, &err), err);
    assert_true(hg_seq_wants_vision(b));
    HG_TEST_OK(hg_seq_encode_image(b, &err), err);
    HG_TEST_OK(hg_seq_resume(a, &err), err);
    assert_false(hg_seq_wants_vision(a) || hg_seq_wants_vision(b));
    HG_TEST_FAILS(hg_seq_encode_image(a, &err), HG_STATUS_INTERNAL, err, "no image left");
    for (int k = 0; k < N_ANSWER; k++) {
        step(m, b, &of_b);
        step(m, a, &of_a);
    }
    expect_equal(&of_a, &whole.answer);
    expect_equal(&of_b, &whole.answer);
    hg_seq_free(a);
    hg_seq_free(b);
    hg_image_deinit(&whole.im);
    hg_model_free(m);
}

static void a_picture_half_drawn_can_be_dropped(void **state)
{
    (void)state;
    struct hg_model *m = load(backends[0]);
    struct hg_error err = {0};
    struct hg_image one, two;
    int32_t codes[CODES] = {0};
    int64_t work = 1;
    bool done = true;
    HG_TEST_FAILS(hg_model_render_go_on(m, &work, &one, &done, &err), HG_STATUS_INTERNAL, err,
                  "no picture");
    hg_model_render_drop(m); /* of no effect */
    HG_TEST_OK(hg_model_render(m, codes, CODES, &one, &err), err);
    codes[3] = 63;
    HG_TEST_OK(hg_model_render_begin(m, codes, CODES, &err), err);
    HG_TEST_OK(hg_model_render_go_on(m, &work, &two, &done, &err), err);
    assert_false(done);
    HG_TEST_FAILS(hg_model_render_begin(m, codes, CODES, &err), HG_STATUS_INTERNAL, err,
                  "under way");
    HG_TEST_FAILS(hg_model_render(m, codes, CODES, &two, &err), HG_STATUS_INTERNAL, err,
                  "under way");
    hg_model_render_drop(m);
    codes[3] = 0;
    HG_TEST_OK(hg_model_render(m, codes, CODES, &two, &err), err);
    assert_memory_equal(one.rgb, two.rgb, (size_t)one.width * (size_t)one.height * 3);
    hg_image_deinit(&two);
    for (int i = 3; i < CODES; i++) /* and the picture on its codes */
        codes[i] = 9;
    HG_TEST_OK(hg_model_render(m, codes, CODES, &two, &err), err);
    assert_memory_not_equal(one.rgb, two.rgb, (size_t)one.width * (size_t)one.height * 3);
    hg_image_deinit(&one);
    hg_image_deinit(&two);
    hg_model_free(m);
}

int main(int argc, char **argv)
{
    static const char *const words[] = {
        "1", "64", "128", HG_TEST_VOCAB, "32", "--ranks", "4,8", "--small-pictures", NULL};
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_size_of_piece_gives_the_bytes_of_the_whole),
        cmocka_unit_test(a_picture_half_seen_is_dropped_with_its_sequence),
        cmocka_unit_test(a_picture_is_seen_once_by_whoever_is_there),
        cmocka_unit_test(a_picture_half_drawn_can_be_dropped),
    };
    (void)argc;
    for (int i = 0; i < 3 && hg_test_backend(); i++)
        backends[i] = hg_test_backend();
    hg_log_set(HG_LOG_ERROR, 0);
    hg_test_random_model(argv[0], words, folder);
    int failed = cmocka_run_group_tests_name("parity/pieces", tests, NULL, NULL);
    writer_remove(folder);
    return failed;
}
