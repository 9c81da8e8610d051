/* tests/server/test_scheduler.c - the engine thread with the demo model: defaults, batch, refusal,
 * cancellation, deadline, drain. */
#include "server/engine/scheduler.h"

#include "common/log.h"
#include "server/api/reply.h"
#include "tests/server/gate.h"
#include "tests/test.h"

struct bench {
    struct hg_model *model;
    struct hg_scheduler *scheduler;
};

static void open_bench_with(struct bench *b, int max_batch, int max_queue, int64_t timeout_ms,
                            int64_t kv_tokens)
{
    struct hg_error err = {0};
    const char *path = hg_test_file("config/models/demo");
    struct hg_model_options o = {.path = path,
                                 .backend = "cpu",
                                 .dtype = "auto",
                                 .kv_dtype = "auto",
                                 .n_threads = 1,
                                 .max_seqs = max_batch,
                                 .kv_tokens = kv_tokens};
    struct hg_scheduler_options s = {
        .max_batch = max_batch, .max_queue = max_queue, .timeout_ms = timeout_ms};
    HG_TEST_OK(hg_model_load(&o, &b->model, &err), err);
    gate_put(b->model);
    HG_TEST_OK(hg_scheduler_create(b->model, &s, &b->scheduler, &err), err);
}

static void open_bench(struct bench *b, int max_batch, int max_queue, int64_t timeout_ms)
{
    open_bench_with(b, max_batch, max_queue, timeout_ms, 0);
}

static void close_bench(struct bench *b)
{
    hg_scheduler_free(b->scheduler);
    gate_remove(b->model);
    hg_model_free(b->model);
}

static struct hg_request *request(struct bench *b, enum hg_task task, int max_tokens, uint64_t seed)
{
    struct hg_ask a;
    struct hg_request *r = NULL;
    struct hg_error err = {0};
    hg_ask_init(&a, task);
    a.question = strdup(task == HG_TASK_GENERATION ? "Draw a chest X-ray." : "Hello?");
    a.n_question = strlen(a.question);
    a.sampling.max_tokens = max_tokens;
    a.sampling.seed = seed;
    a.has_seed = true;
    HG_TEST_OK(hg_request_create(b->model, &a, &r, &err), err);
    hg_ask_deinit(&a);
    return r;
}

static enum hg_status submit(struct bench *b, struct hg_request *r)
{
    struct hg_error err = {0};
    return hg_scheduler_submit(b->scheduler, r, &err);
}

/* It stands before the end of its first step, and the engine with it until gate_open. */
static void hold_in_first_step(struct bench *b, struct hg_request *r)
{
    gate_close();
    assert_int_equal(submit(b, r), HG_STATUS_OK);
    gate_await();
}

/* The closed gate lets steps pass until all of them run. */
static void step_until_running(struct hg_request *const *rs, int n)
{
    for (int i = 0; i < n; i++) {
        while (atomic_load(&rs[i]->state) == HG_REQUEST_QUEUED)
            gate_step();
        assert_int_equal(atomic_load(&rs[i]->state), HG_REQUEST_RUNNING);
    }
}

static void wait_end(struct hg_request *r)
{
    hg_stream_wait(&r->stream, SIZE_MAX);
}

static void drawing_from_text_is_sampled_and_answers_are_greedy(void **state)
{
    (void)state;
    struct bench b;
    open_bench(&b, 1, 4, 60000);
    struct hg_request *ask = request(&b, HG_TASK_COMPREHENSION, 2, 7);
    struct hg_request *draw = request(&b, HG_TASK_GENERATION, 0, 7);
    assert_true(ask->sampling.temperature == 0.0F);
    assert_true(draw->sampling.temperature == 0.9F);
    assert_true(draw->sampling.seed == 7);
    assert_int_equal(atomic_load(&ask->state), HG_REQUEST_NEW);
    hg_request_unref(ask);
    hg_request_unref(draw);
    close_bench(&b);
}

static void a_picture_is_the_same_alone_and_in_a_batch(void **state)
{
    (void)state;
    struct bench b;
    struct hg_request *rs[5], *alone;
    open_bench(&b, 4, 8, 600000);
    alone = request(&b, HG_TASK_GENERATION, 0, 3);
    assert_int_equal(submit(&b, alone), HG_STATUS_OK);
    wait_end(alone);
    for (int i = 0; i < 5; i++) {
        rs[i] = request(&b, i % 2 ? HG_TASK_COMPREHENSION : HG_TASK_GENERATION, i % 2 ? 20 : 0,
                        (uint64_t)i + 1);
        if (i == 0)
            hold_in_first_step(&b, rs[i]);
        else
            assert_int_equal(submit(&b, rs[i]), HG_STATUS_OK);
    }
    gate_open();
    for (int i = 0; i < 5; i++) {
        wait_end(rs[i]);
        assert_int_equal(rs[i]->result.error.status, HG_STATUS_OK);
        assert_int_equal(atomic_load(&rs[i]->state), HG_REQUEST_DONE);
    }
    struct hg_image *x = &alone->result.image, *y = &rs[2]->result.image; /* seed 3 as well */
    assert_int_equal(x->width, y->width);
    assert_memory_equal(x->rgb, y->rgb, (size_t)x->width * (size_t)x->height * 3);
    for (int i = 0; i < 5; i++)
        hg_request_unref(rs[i]);
    hg_request_unref(alone);
    close_bench(&b);
}

enum { MANY = 7 };

/* Long answers and pictures together; texts and pictures into `out`. */
static struct hg_scheduler_stats run_many(int64_t kv_tokens, struct hg_request **rs)
{
    struct bench b;
    struct hg_scheduler_stats stats;
    open_bench_with(&b, 4, MANY, 600000, kv_tokens);
    for (int i = 0; i < MANY; i++) {
        struct hg_ask a;
        struct hg_error err = {0};
        hg_ask_init(&a, i % 3 == 2 ? HG_TASK_GENERATION : HG_TASK_COMPREHENSION);
        a.question = strdup(i % 3 == 2 ? "Draw a chest X-ray." : "Is there an opacity?");
        a.n_question = strlen(a.question);
        a.sampling.temperature = 0.8F;
        a.has_temperature = a.has_seed = true;
        a.sampling.seed = (uint64_t)i;
        a.sampling.ignore_stop = i % 3 != 2;
        a.sampling.max_tokens = i % 3 == 2 ? 0 : 120;
        HG_TEST_OK(hg_request_create(b.model, &a, &rs[i], &err), err);
        hg_ask_deinit(&a);
    }
    hold_in_first_step(&b, rs[0]);
    for (int i = 1; i < MANY; i++)
        assert_int_equal(submit(&b, rs[i]), HG_STATUS_OK);
    gate_open();
    for (int i = 0; i < MANY; i++) {
        wait_end(rs[i]);
        assert_int_equal(rs[i]->result.error.status, HG_STATUS_OK);
    }
    hg_scheduler_stats(b.scheduler, &stats);
    assert_int_equal(stats.requests.n_accepted, MANY);
    assert_int_equal(stats.requests.n_ended, MANY);
    assert_int_equal(stats.requests.n_ended_twice, 0);
    assert_int_equal(hg_scheduler_check(b.scheduler, INT64_MAX, 0), 0); /* none is open */
    close_bench(&b);
    return stats;
}

/* What is reported of a prompt goes up to its end, also when it was computed twice. */
static void expect_prefill_goes_up(struct hg_request *r)
{
    struct hg_event e;
    struct hg_top_token tops[HG_MAX_TOP];
    struct hg_buf text = {0};
    int done = -1;
    for (size_t at = 0; hg_stream_read(&r->stream, at, &e, &text, tops); at++) {
        if (e.type != HG_EVENT_PREFILL)
            continue;
        assert_true(e.done > done);
        done = e.done;
    }
    assert_int_equal(done, r->n_prompt);
    hg_buf_deinit(&text);
}

/* The cache holds little more than one of them: nobody fails, and no byte changes. */
static void a_small_cache_makes_requests_give_way_and_fails_none(void **state)
{
    (void)state;
    struct hg_request *large[MANY], *small[MANY];
    assert_int_equal(run_many(0, large).n_preempted, 0);
    struct hg_scheduler_stats stats = run_many(208, small);
    printf("# %llu gave way\n", (unsigned long long)stats.n_preempted);
    assert_true(stats.n_preempted > 0);
    for (int i = 0; i < MANY; i++) {
        const struct hg_result *a = &large[i]->result, *b = &small[i]->result;
        assert_int_equal(a->n_generated, b->n_generated);
        assert_int_equal(large[i]->stream.text.len, small[i]->stream.text.len);
        assert_memory_equal(large[i]->stream.text.data, small[i]->stream.text.data,
                            large[i]->stream.text.len);
        assert_int_equal(a->n_codes, b->n_codes);
        if (a->n_codes)
            assert_memory_equal(a->codes, b->codes, a->n_codes * sizeof *a->codes);
        expect_prefill_goes_up(small[i]);
        hg_request_unref(large[i]);
        hg_request_unref(small[i]);
    }
}

static int64_t ended_at(const struct hg_request *r)
{
    return r->submitted_ns + (int64_t)(r->result.total_ms * 1e6);
}

/* Eight pictures wait for three places; a question that comes last is answered before most. */
static void a_question_does_not_wait_behind_pictures(void **state)
{
    (void)state;
    struct bench b;
    struct hg_request *draw[8], *ask;
    int n_later = 0;
    open_bench(&b, 4, 16, 600000);
    for (int i = 0; i < 8; i++)
        draw[i] = request(&b, HG_TASK_GENERATION, 0, (uint64_t)i);
    hold_in_first_step(&b, draw[0]);
    for (int i = 1; i < 8; i++)
        assert_int_equal(submit(&b, draw[i]), HG_STATUS_OK);
    step_until_running(draw, 3);
    assert_int_equal(atomic_load(&draw[3]->state), HG_REQUEST_QUEUED);
    ask = request(&b, HG_TASK_COMPREHENSION, 4, 1);
    assert_int_equal(submit(&b, ask), HG_STATUS_OK);
    gate_open();
    wait_end(ask);
    for (int i = 0; i < 8; i++) {
        wait_end(draw[i]);
        assert_int_equal(draw[i]->result.error.status, HG_STATUS_OK);
        n_later += ended_at(draw[i]) > ended_at(ask);
        hg_request_unref(draw[i]);
    }
    assert_true(n_later >= 5); /* at most the three that were running */
    hg_request_unref(ask);
    close_bench(&b);
}

/* One place, many questions before it and after it: its turn comes. */
static void a_picture_is_not_starved_by_questions(void **state)
{
    (void)state;
    struct bench b;
    struct hg_request *ask[24], *draw = NULL;
    int n_later = 0;
    open_bench(&b, 1, 32, 600000);
    for (int i = 0; i < 24; i++) {
        ask[i] = request(&b, HG_TASK_COMPREHENSION, 8, (uint64_t)i);
        if (i == 0)
            hold_in_first_step(&b, ask[i]);
        else
            assert_int_equal(submit(&b, ask[i]), HG_STATUS_OK);
        if (i == 3) {
            draw = request(&b, HG_TASK_GENERATION, 0, 1);
            assert_int_equal(submit(&b, draw), HG_STATUS_OK);
        }
    }
    gate_open();
    wait_end(draw);
    for (int i = 0; i < 24; i++) {
        wait_end(ask[i]);
        n_later += ended_at(ask[i]) > ended_at(draw);
        hg_request_unref(ask[i]);
    }
    assert_true(n_later >= 24 - 12);
    hg_request_unref(draw);
    close_bench(&b);
}

enum { DRAWN = 3, ASKED = 4 };

/* Three pictures hold their places when four long questions come for the one that is left. */
static void draw_and_ask(struct bench *b, struct hg_request **draw)
{
    struct hg_request *ask[ASKED];
    for (int i = 0; i < DRAWN; i++)
        draw[i] = request(b, HG_TASK_GENERATION, 0, (uint64_t)i);
    for (int i = 0; i < ASKED; i++)
        ask[i] = request(b, HG_TASK_COMPREHENSION, 100, 1);
    hold_in_first_step(b, draw[0]);
    for (int i = 1; i < DRAWN; i++)
        assert_int_equal(submit(b, draw[i]), HG_STATUS_OK);
    step_until_running(draw, DRAWN);
    for (int i = 0; i < ASKED; i++)
        assert_int_equal(submit(b, ask[i]), HG_STATUS_OK);
    gate_open();
    for (int i = 0; i < ASKED; i++) {
        wait_end(ask[i]);
        assert_int_equal(ask[i]->result.error.status, HG_STATUS_OK);
        hg_request_unref(ask[i]);
    }
    for (int i = 0; i < DRAWN; i++) {
        wait_end(draw[i]);
        assert_int_equal(draw[i]->result.error.status, HG_STATUS_OK);
    }
}

static void pictures_give_way_to_questions_and_keep_their_bytes(void **state)
{
    (void)state;
    struct bench b;
    struct hg_request *alone[DRAWN], *draw[DRAWN];
    struct hg_scheduler_stats stats = {0};
    open_bench(&b, 4, 16, 600000);
    for (int i = 0; i < DRAWN; i++) {
        alone[i] = request(&b, HG_TASK_GENERATION, 0, (uint64_t)i);
        assert_int_equal(submit(&b, alone[i]), HG_STATUS_OK);
        wait_end(alone[i]);
    }
    draw_and_ask(&b, draw);
    hg_scheduler_stats(b.scheduler, &stats);
    for (int i = 0; i < DRAWN; i++) {
        const struct hg_result *x = &alone[i]->result, *y = &draw[i]->result;
        assert_int_equal(x->n_codes, y->n_codes);
        assert_memory_equal(x->codes, y->codes, x->n_codes * sizeof *x->codes);
        hg_request_unref(draw[i]);
    }
    printf("# %llu gave way\n", (unsigned long long)stats.n_preempted);
    /* Blocks are there for all: they gave way for places, and to questions only. */
    assert_true(stats.n_preempted > 0);
    for (int i = 0; i < DRAWN; i++)
        hg_request_unref(alone[i]);
    close_bench(&b);
}

/* All steps of a picture but its prompt's; none of an answer, whose stop has to be seen. */
static void pictures_are_drawn_with_steps_ahead_and_answers_are_not(void **state)
{
    (void)state;
    struct bench b;
    struct hg_scheduler_stats before, after;
    open_bench(&b, 2, 4, 600000);
    struct hg_request *ask = request(&b, HG_TASK_COMPREHENSION, 6, 1);
    struct hg_request *draw = request(&b, HG_TASK_GENERATION, 0, 3);
    assert_int_equal(submit(&b, ask), HG_STATUS_OK);
    wait_end(ask);
    hg_scheduler_stats(b.scheduler, &before);
    assert_int_equal(before.n_ahead, 0);
    assert_int_equal(submit(&b, draw), HG_STATUS_OK);
    wait_end(draw);
    hg_scheduler_stats(b.scheduler, &after);
    assert_int_equal(draw->result.error.status, HG_STATUS_OK);
    assert_int_equal(after.n_steps - before.n_steps, draw->result.n_generated);
    assert_int_equal(after.n_ahead, draw->result.n_generated - 2); /* nor the first after it */
    hg_request_unref(ask);
    hg_request_unref(draw);
    close_bench(&b);
}

static void submit_is_busy_when_the_queue_is_full(void **state)
{
    (void)state;
    struct bench b;
    struct hg_request *rs[8];
    int n_busy = 0;
    open_bench(&b, 1, 1, 600000);
    rs[0] = request(&b, HG_TASK_GENERATION, 0, 0);
    hold_in_first_step(&b, rs[0]);
    for (int i = 1; i < 8; i++) {
        rs[i] = request(&b, HG_TASK_GENERATION, 0, (uint64_t)i);
        n_busy += submit(&b, rs[i]) == HG_STATUS_BUSY;
    }
    gate_open();
    assert_int_equal(n_busy, 6); /* one runs, one waits */
    assert_int_equal(atomic_load(&rs[2]->state), HG_REQUEST_NEW);
    for (int i = 0; i < 8; i++) {
        if (atomic_load(&rs[i]->state) != HG_REQUEST_NEW)
            wait_end(rs[i]);
        hg_request_unref(rs[i]);
    }
    close_bench(&b);
}

static void cancelled_requests_end_while_running_and_while_waiting(void **state)
{
    (void)state;
    struct bench b;
    struct hg_request *rs[3];
    struct hg_scheduler_stats stats;
    open_bench(&b, 1, 8, 600000);
    for (int i = 0; i < 3; i++)
        rs[i] = request(&b, HG_TASK_GENERATION, 0, (uint64_t)i);
    hold_in_first_step(&b, rs[0]);
    assert_int_equal(submit(&b, rs[1]), HG_STATUS_OK);
    assert_int_equal(submit(&b, rs[2]), HG_STATUS_OK);
    hg_request_cancel(rs[0]);
    hg_request_cancel(rs[2]);
    gate_open();
    for (int i = 0; i < 3; i++)
        wait_end(rs[i]);
    assert_int_equal(atomic_load(&rs[0]->state), HG_REQUEST_CANCELLED);
    assert_int_equal(atomic_load(&rs[1]->state), HG_REQUEST_DONE);
    assert_int_equal(atomic_load(&rs[2]->state), HG_REQUEST_CANCELLED);
    hg_scheduler_stats(b.scheduler, &stats);
    assert_int_equal(stats.n_cancelled, 2);
    assert_int_equal(stats.n_done, 1);
    for (int i = 0; i < 3; i++)
        hg_request_unref(rs[i]);
    close_bench(&b);
}

static void a_request_past_its_deadline_ends_with_timeout(void **state)
{
    (void)state;
    struct bench b;
    open_bench(&b, 1, 4, 0);
    struct hg_request *r = request(&b, HG_TASK_GENERATION, 0, 1);
    assert_int_equal(submit(&b, r), HG_STATUS_OK);
    wait_end(r);
    assert_int_equal(r->result.error.status, HG_STATUS_TIMEOUT);
    assert_int_equal(atomic_load(&r->state), HG_REQUEST_FAILED);
    hg_request_unref(r);
    close_bench(&b);
}

static void drain_finishes_what_has_begun_to_answer(void **state)
{
    (void)state;
    struct bench b;
    open_bench(&b, 1, 4, 600000);
    struct hg_request *running = request(&b, HG_TASK_GENERATION, 0, 1);
    struct hg_request *waiting = request(&b, HG_TASK_GENERATION, 0, 2);
    struct hg_request *stream = request(&b, HG_TASK_GENERATION, 0, 4);
    struct hg_request *late = request(&b, HG_TASK_GENERATION, 0, 3);
    stream->streams = true;
    hold_in_first_step(&b, running);
    assert_int_equal(submit(&b, waiting), HG_STATUS_OK);
    assert_int_equal(submit(&b, stream), HG_STATUS_OK);
    hg_scheduler_drain(b.scheduler, 600000);
    assert_int_equal(submit(&b, late), HG_STATUS_CANCELLED);
    gate_open();
    wait_end(waiting);
    wait_end(running);
    wait_end(stream);
    assert_int_equal(stream->result.error.status, HG_STATUS_OK);
    assert_int_equal(waiting->result.error.status, HG_STATUS_CANCELLED);
    assert_int_equal(running->result.error.status, HG_STATUS_OK);
    hg_request_unref(running);
    hg_request_unref(waiting);
    hg_request_unref(stream);
    hg_request_unref(late);
    close_bench(&b);
}

static void an_answer_is_json_and_a_picture_says_that_it_is_synthetic(void **state)
{
    (void)state;
    struct bench b;
    struct hg_buf out = {0};
    open_bench(&b, 1, 4, 600000);
    struct hg_reply_context c = {
        .model = "m", .notice = "not for clinical use", .tokenizer = hg_model_tokenizer(b.model)};
    struct hg_request *r = request(&b, HG_TASK_GENERATION, 0, 1);
    assert_int_equal(submit(&b, r), HG_STATUS_OK);
    wait_end(r);
    assert_int_equal(hg_reply_answer(&c, r, &out), HG_STATUS_OK);
    json_t *doc = json_loadb(out.data, out.len, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(doc);
    assert_true(json_is_true(json_object_get(doc, "synthetic")));
    assert_string_equal(json_string_value(json_object_get(doc, "notice")), "not for clinical use");
    json_decref(doc);
    hg_buf_deinit(&out);
    hg_request_unref(r);
    close_bench(&b);
}

int main(void)
{
    hg_log_set(HG_LOG_ERROR, 0);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(drawing_from_text_is_sampled_and_answers_are_greedy),
        cmocka_unit_test(a_picture_is_the_same_alone_and_in_a_batch),
        cmocka_unit_test(a_small_cache_makes_requests_give_way_and_fails_none),
        cmocka_unit_test(a_question_does_not_wait_behind_pictures),
        cmocka_unit_test(a_picture_is_not_starved_by_questions),
        cmocka_unit_test(pictures_give_way_to_questions_and_keep_their_bytes),
        cmocka_unit_test(pictures_are_drawn_with_steps_ahead_and_answers_are_not),
        cmocka_unit_test(submit_is_busy_when_the_queue_is_full),
        cmocka_unit_test(cancelled_requests_end_while_running_and_while_waiting),
        cmocka_unit_test(a_request_past_its_deadline_ends_with_timeout),
        cmocka_unit_test(drain_finishes_what_has_begun_to_answer),
        cmocka_unit_test(an_answer_is_json_and_a_picture_says_that_it_is_synthetic),
    };
    return cmocka_run_group_tests_name("server/engine/scheduler", tests, NULL, NULL);
}
