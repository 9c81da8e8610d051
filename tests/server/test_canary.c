/* tests/server/test_canary.c - the self-test with the demo model: it repeats itself bit for bit,
 * leaves nothing behind wherever it is given up, and says what differs. */
#include "server/engine/canary.h"

#include <time.h>

#include "common/log.h"
#include "server/engine/canary_file.h"
#include "server/engine/scheduler.h"
#include "tests/test.h"

static struct hg_model *load(const char *backend, int64_t kv_tokens)
{
    struct hg_model *m = NULL;
    struct hg_error err = {0};
    struct hg_model_options o = {.path = hg_test_file("config/models/demo"),
                                 .backend = backend,
                                 .n_threads = 1,
                                 .max_seqs = 4,
                                 .kv_tokens = kv_tokens};
    HG_TEST_OK(hg_model_load(&o, &m, &err), err);
    return m;
}

static void it_is_right_on_every_backend(void **state)
{
    (void)state;
    static const char *const backends[] = {"ref", "cpu"};
    for (size_t i = 0; i < sizeof backends / sizeof *backends; i++) {
        struct hg_model *m = load(backends[i], 0);
        struct hg_canary *c = NULL;
        struct hg_error err = {0};
        int n_free = hg_model_kv_free(m);
        HG_TEST_OK(hg_canary_create(m, NULL, &c, &err), err);
        HG_TEST_OK(hg_canary_expect(c, false, &err), err);
        for (int k = 0; k < 2; k++) /* as the file says, then as the first time */
            HG_TEST_OK(hg_canary_run(c, &err), err);
        assert_false(hg_canary_is_blind(c));
        assert_int_equal(hg_model_kv_free(m), n_free);
        hg_canary_free(c);
        hg_model_free(m);
    }
}

static void it_can_be_given_up_after_every_piece(void **state)
{
    (void)state;
    struct hg_model *m = load("cpu", 512);
    struct hg_canary *c = NULL;
    struct hg_error err = {0};
    bool done = false;
    int n_free = hg_model_kv_free(m), n_pieces = 0;
    HG_TEST_OK(hg_canary_create(m, NULL, &c, &err), err);
    HG_TEST_OK(hg_canary_run(c, &err), err);
    for (int most = 1; !done; most++) {
        for (n_pieces = 0; n_pieces < most && !done; n_pieces++)
            HG_TEST_OK(hg_canary_piece(c, &done, &err), err);
        hg_canary_give_up(c);
        assert_int_equal(hg_model_kv_free(m), n_free);
    }
    assert_true(n_pieces > 3 * HG_CANARY_TOKENS);
    hg_canary_free(c);
    hg_model_free(m);
}

/* Its prompts and its picture are computed again each time, and by whoever asks the same. */
static void nothing_of_it_is_found_in_a_cache(void **state)
{
    (void)state;
    static const char question[] = "What is a canary in a coal mine?";
    struct hg_model *m = load("cpu", 0);
    struct hg_canary *c = NULL;
    struct hg_prepared *p = NULL;
    struct hg_seq *s = NULL;
    struct hg_error err = {0};
    struct hg_turn turn = {.question = question, .n_question = sizeof question - 1};
    struct hg_request_input in = {
        .task = HG_TASK_COMPREHENSION, .no_plugin = true, .turns = &turn, .n_turns = 1};
    hg_sampling_default(&in.sampling);
    HG_TEST_OK(hg_canary_create(m, NULL, &c, &err), err);
    HG_TEST_OK(hg_canary_run(c, &err), err);
    HG_TEST_OK(hg_model_prepare(m, &in, &p, &err), err);
    HG_TEST_OK(hg_seq_create(m, p, &s, &err), err);
    assert_int_equal(hg_seq_n_found(s), 0);
    hg_seq_free(s);
    hg_canary_free(c);
    hg_model_free(m);
}

static void a_cache_that_is_too_small_makes_it_blind_not_wrong(void **state)
{
    (void)state;
    struct hg_model *m = load("cpu", 16);
    struct hg_canary *c = NULL;
    struct hg_error err = {0};
    HG_TEST_OK(hg_canary_create(m, NULL, &c, &err), err);
    HG_TEST_OK(hg_canary_run(c, &err), err);
    HG_TEST_OK(hg_canary_run(c, &err), err);
    assert_true(hg_canary_is_blind(c));
    hg_canary_free(c);
    hg_model_free(m);
}

static const struct hg_canary_case sample = {
    .present = true, .n = 3, .id = {5, 6, 7}, .logprob = {-0.5F, -1.0F, -0.25F}, .sum = 99};

static void what_differs_is_named(void **state)
{
    (void)state;
    struct hg_canary_case other = sample;
    struct hg_error err = {0};
    HG_TEST_OK(hg_canary_same(&sample, &other, 0, &err), err);
    HG_TEST_OK(hg_canary_like(&sample, &other, 0, &err), err);
    other.id[2] = 8;
    HG_TEST_FAILS(hg_canary_same(&sample, &other, 1, &err), HG_STATUS_ENGINE, err,
                  "comprehension: token 2: expected id 7 (log probability -0.250000), got 8");
    HG_TEST_FAILS(hg_canary_like(&sample, &other, 2, &err), HG_STATUS_ENGINE, err,
                  "generation: token 2: expected id 7");
    other = sample;
    other.sum++;
    HG_TEST_FAILS(hg_canary_same(&sample, &other, 0, &err), HG_STATUS_ENGINE, err, "text: the");
    HG_TEST_OK(hg_canary_like(&sample, &other, 0, &err), err);
    other = sample;
    other.logprob[0] += 1e-7F * 8; /* the last bits */
    HG_TEST_FAILS(hg_canary_same(&sample, &other, 0, &err), HG_STATUS_ENGINE, err, "token 0");
    HG_TEST_OK(hg_canary_like(&sample, &other, 0, &err), err);
    other.logprob[0] = sample.logprob[0] + 0.06F;
    HG_TEST_FAILS(hg_canary_like(&sample, &other, 0, &err), HG_STATUS_ENGINE, err, "token 0");
    other.logprob[0] = 0.0F / 0.0F;
    HG_TEST_FAILS(hg_canary_like(&sample, &other, 0, &err), HG_STATUS_ENGINE, err, "token 0");
    other = sample;
    other.n = 2;
    HG_TEST_FAILS(hg_canary_same(&sample, &other, 0, &err), HG_STATUS_ENGINE, err,
                  "expected 3 tokens, got 2");
    struct hg_canary_result a = {.has_picture = true, .mean = {10, 20, 30}}, b = a;
    HG_TEST_OK(hg_canary_picture_like(&a, &b, &err), err);
    b.mean[1] += 2;
    HG_TEST_FAILS(hg_canary_picture_like(&a, &b, &err), HG_STATUS_ENGINE, err, "channel 1");
}

static void the_file_holds_what_was_printed(void **state)
{
    (void)state;
    char dir[] = "/tmp/hg_canaryXXXXXX", path[64];
    struct hg_canary_result want = {.cases = {sample, {.n = 0}, sample}}, got;
    struct hg_buf text = {0};
    struct hg_error err = {0};
    bool found;
    want.has_picture = true;
    want.mean[2] = 12.5;
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/canary.json", dir);
    HG_TEST_OK(hg_canary_read(path, 7, &got, &found, &err), err);
    assert_false(found);
    assert_int_equal(hg_canary_print(&want, 7, &text), HG_STATUS_OK);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text.data, f);
    fclose(f);
    HG_TEST_OK(hg_canary_read(path, 7, &got, &found, &err), err);
    assert_true(found);
    assert_false(got.cases[1].present);
    HG_TEST_OK(hg_canary_like(&want.cases[0], &got.cases[0], 0, &err), err);
    assert_int_equal(got.cases[2].n, 3);
    assert_true(got.mean[2] == 12.5);
    HG_TEST_FAILS(hg_canary_read(path, 8, &got, &found, &err), HG_STATUS_BAD_FILE, err, "CRC-32C");
    f = fopen(path, "w");
    assert_non_null(f);
    fputs("{\"format\":1,\"text\":{\"ids\":[1,2,3,4,5],\"logprobs\":[0,0,0,0,0]}}", f);
    fclose(f);
    HG_TEST_FAILS(hg_canary_read(path, 7, &got, &found, &err), HG_STATUS_BAD_FILE, err, "ids");
    hg_buf_deinit(&text);
    remove(path);
    remove(dir);
}

/* ---- in an engine ---------------------------------------------------------------------------- */

static struct hg_request *ask(struct hg_model *m, struct hg_scheduler *s, uint64_t seed)
{
    struct hg_ask a;
    struct hg_request *r = NULL;
    struct hg_error err = {0};
    hg_ask_init(&a, seed % 2 ? HG_TASK_GENERATION : HG_TASK_COMPREHENSION);
    a.question = strdup(seed % 2 ? "Draw a chest X-ray." : "Are you a medical device?");
    a.n_question = strlen(a.question);
    a.sampling.seed = seed;
    a.sampling.temperature = 0.8F;
    a.has_seed = a.has_temperature = true;
    HG_TEST_OK(hg_request_create(m, &a, &r, &err), err);
    hg_ask_deinit(&a);
    HG_TEST_OK(hg_scheduler_submit(s, r, &err), err);
    hg_stream_wait(&r->stream, SIZE_MAX);
    assert_int_equal(r->result.error.status, HG_STATUS_OK);
    return r;
}

/* Requests with its runs between them, and without. */
static void requests_do_not_notice_it(void **state)
{
    (void)state;
    enum { N = 6 };
    struct hg_request *rs[2][N];
    struct hg_error err = {0};
    for (int with = 0; with < 2; with++) {
        struct hg_model *m = load("cpu", 0);
        struct hg_canary *c = NULL;
        struct hg_scheduler *s = NULL;
        struct hg_scheduler_stats stats = {0};
        struct hg_scheduler_options o = {
            .max_batch = 4, .max_queue = 4, .timeout_ms = 600000, .canary_interval_ms = with};
        if (with) {
            HG_TEST_OK(hg_canary_create(m, NULL, &c, &err), err);
            HG_TEST_OK(hg_canary_run(c, &err), err);
            o.canary = c;
        }
        HG_TEST_OK(hg_scheduler_create(m, &o, &s, &err), err);
        for (int i = 0; i < N; i++) {
            rs[with][i] = ask(m, s, (uint64_t)i);
            uint64_t before = stats.n_canaries;
            do { /* it comes a moment after the engine has become idle */
                nanosleep(&(struct timespec){0, 1000000}, NULL);
                hg_scheduler_stats(s, &stats);
            } while (with && stats.n_canaries < before + 1);
        }
        assert_null(hg_scheduler_trouble(s));
        hg_scheduler_free(s);
        hg_canary_free(c);
        hg_model_free(m);
    }
    for (int i = 0; i < N; i++) {
        const struct hg_request *a = rs[0][i], *b = rs[1][i];
        assert_int_equal(a->result.n_found, b->result.n_found);
        assert_int_equal(a->stream.text.len, b->stream.text.len);
        if (a->stream.text.len)
            assert_memory_equal(a->stream.text.data, b->stream.text.data, a->stream.text.len);
        assert_int_equal(a->result.n_codes, b->result.n_codes);
        if (a->result.n_codes)
            assert_memory_equal(a->result.codes, b->result.codes,
                                a->result.n_codes * sizeof *a->result.codes);
        hg_request_unref(rs[0][i]);
        hg_request_unref(rs[1][i]);
    }
}

static void print(struct hg_canary *c, struct hg_buf *out)
{
    assert_true(hg_canary_is_complete(c));
    assert_int_equal(hg_canary_write(c, out), HG_STATUS_OK);
    hg_canary_free(c);
}

/* What a brief start leaves comes as soon as the engine is idle, and it is the same run. */
static void a_brief_start_is_completed_when_nobody_asks(void **state)
{
    (void)state;
    struct hg_model *m = load("cpu", 0);
    struct hg_canary *whole = NULL, *brief = NULL;
    struct hg_scheduler *s = NULL;
    struct hg_scheduler_stats stats = {0};
    struct hg_scheduler_options o = {.max_batch = 4, .max_queue = 4, .timeout_ms = 600000};
    struct hg_buf want = {0}, got = {0};
    struct hg_error err = {0};
    HG_TEST_OK(hg_canary_create(m, NULL, &whole, &err), err);
    assert_false(hg_canary_is_long(whole));
    HG_TEST_OK(hg_canary_start(whole, false, &err), err);
    print(whole, &want);
    HG_TEST_OK(hg_canary_create(m, NULL, &brief, &err), err);
    HG_TEST_OK(hg_canary_start(brief, true, &err), err);
    assert_false(hg_canary_is_complete(brief));
    o.canary = brief;
    HG_TEST_OK(hg_scheduler_create(m, &o, &s, &err), err);
    while (stats.n_canaries < 1) {
        nanosleep(&(struct timespec){0, 1000000}, NULL);
        hg_scheduler_stats(s, &stats);
    }
    hg_scheduler_free(s);
    print(brief, &got);
    assert_int_equal(got.len, want.len);
    assert_memory_equal(got.data, want.data, want.len);
    hg_buf_deinit(&want);
    hg_buf_deinit(&got);
    hg_model_free(m);
}

int main(void)
{
    hg_log_set(HG_LOG_ERROR, 0);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_is_right_on_every_backend),
        cmocka_unit_test(it_can_be_given_up_after_every_piece),
        cmocka_unit_test(nothing_of_it_is_found_in_a_cache),
        cmocka_unit_test(a_cache_that_is_too_small_makes_it_blind_not_wrong),
        cmocka_unit_test(what_differs_is_named),
        cmocka_unit_test(the_file_holds_what_was_printed),
        cmocka_unit_test(requests_do_not_notice_it),
        cmocka_unit_test(a_brief_start_is_completed_when_nobody_asks),
    };
    return cmocka_run_group_tests_name("server/engine/canary", tests, NULL, NULL);
}
