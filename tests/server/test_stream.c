/* tests/server/test_stream.c - the event ring: order, room for END, suspend and resume, threads. */
#include "server/engine/stream.h"

#include "tests/test.h"

static enum hg_status push_text(struct hg_stream *s, int id, const char *text)
{
    struct hg_event e = {.type = HG_EVENT_TOKEN, .id = id};
    return hg_stream_push(s, &e, text, strlen(text), NULL);
}

static enum hg_status push_end(struct hg_stream *s)
{
    struct hg_event e = {.type = HG_EVENT_END};
    return hg_stream_push(s, &e, NULL, 0, NULL);
}

static void stream_keeps_events_texts_and_alternatives(void **state)
{
    (void)state;
    struct hg_stream s;
    struct hg_error err = {0};
    struct hg_event e = {.type = HG_EVENT_TOKEN, .id = 7, .n_top = 2, .logprob = -0.5F};
    struct hg_top_token tops[HG_MAX_TOP] = {{7, -0.5F}, {9, -1.5F}}, got[HG_MAX_TOP] = {{0}};
    struct hg_buf text = {0};
    HG_TEST_OK(hg_stream_init(&s, 4, 2, &err), err);
    assert_int_equal(hg_stream_push(&s, &e, "ab", 2, tops), HG_STATUS_OK);
    assert_int_equal(push_text(&s, 8, "c"), HG_STATUS_OK);
    assert_int_equal(push_end(&s), HG_STATUS_OK);
    assert_true(hg_stream_read(&s, 0, &e, &text, got));
    assert_int_equal(e.id, 7);
    assert_int_equal(got[1].id, 9);
    assert_true(hg_stream_read(&s, 1, &e, &text, got));
    assert_int_equal(e.n_top, 0);
    assert_string_equal(text.data, "abc");
    assert_true(hg_stream_read(&s, 2, &e, &text, got));
    assert_int_equal(e.type, HG_EVENT_END);
    assert_false(hg_stream_read(&s, 3, &e, &text, got));
    hg_buf_deinit(&text);
    hg_stream_deinit(&s);
}

static void stream_always_has_room_for_the_end(void **state)
{
    (void)state;
    struct hg_stream s;
    struct hg_error err = {0};
    HG_TEST_OK(hg_stream_init(&s, 3, 0, &err), err);
    assert_int_equal(push_text(&s, 1, "x"), HG_STATUS_OK);
    assert_int_equal(push_text(&s, 2, "x"), HG_STATUS_OK);
    assert_int_equal(push_text(&s, 3, "x"), HG_STATUS_INTERNAL);
    assert_int_equal(push_end(&s), HG_STATUS_OK);
    assert_int_equal(push_end(&s), HG_STATUS_INTERNAL);
    assert_true(hg_stream_ended(&s));
    hg_stream_deinit(&s);
}

struct calls {
    int n_suspend, n_resume;
};

static void on_suspend(void *ctx)
{
    ((struct calls *)ctx)->n_suspend++;
}

static void on_resume(void *ctx)
{
    ((struct calls *)ctx)->n_resume++;
}

static void stream_suspends_once_and_resumes_once(void **state)
{
    (void)state;
    struct hg_stream s;
    struct hg_error err = {0};
    struct calls c = {0};
    struct hg_event e;
    struct hg_buf text = {0};
    struct hg_top_token tops[HG_MAX_TOP];
    HG_TEST_OK(hg_stream_init(&s, 8, 0, &err), err);
    hg_stream_attach(&s, on_suspend, on_resume, &c, false);
    assert_false(hg_stream_read(&s, 0, &e, &text, tops));
    assert_false(hg_stream_read(&s, 0, &e, &text, tops));
    assert_int_equal(c.n_suspend, 1);
    push_text(&s, 1, "a");
    push_text(&s, 2, "b");
    assert_int_equal(c.n_resume, 1);
    assert_true(hg_stream_read(&s, 1, &e, &text, tops));
    assert_int_equal(c.n_suspend, 1);
    hg_buf_deinit(&text);
    hg_stream_deinit(&s);
}

/* libmicrohttpd without memory forgets whom it was told to resume. */
static void stream_resumes_again_a_reader_that_has_not_come(void **state)
{
    (void)state;
    struct hg_stream s;
    struct hg_error err = {0};
    struct calls c = {0};
    struct hg_event e;
    struct hg_buf text = {0};
    struct hg_top_token tops[HG_MAX_TOP];
    HG_TEST_OK(hg_stream_init(&s, 8, 0, &err), err);
    hg_stream_attach(&s, on_suspend, on_resume, &c, false);
    assert_false(hg_stream_read(&s, 0, &e, &text, tops));
    hg_stream_rewake(&s); /* it waits, and for good reason */
    assert_int_equal(c.n_resume, 0);
    push_text(&s, 1, "a");
    assert_int_equal(c.n_resume, 1);
    hg_stream_rewake(&s);
    hg_stream_rewake(&s);
    assert_int_equal(c.n_resume, 3);
    assert_true(hg_stream_read(&s, 0, &e, &text, tops));
    hg_stream_rewake(&s); /* it has come */
    assert_int_equal(c.n_resume, 3);
    hg_stream_detach(&s);
    hg_stream_rewake(&s);
    assert_int_equal(c.n_resume, 3);
    hg_buf_deinit(&text);
    hg_stream_deinit(&s);
}

static void stream_wakes_an_end_only_reader_at_the_end(void **state)
{
    (void)state;
    struct hg_stream s;
    struct hg_error err = {0};
    struct calls c = {0};
    HG_TEST_OK(hg_stream_init(&s, 8, 0, &err), err);
    hg_stream_attach(&s, on_suspend, on_resume, &c, true);
    assert_false(hg_stream_ended(&s));
    push_text(&s, 1, "a");
    assert_int_equal(c.n_resume, 0);
    push_end(&s);
    assert_int_equal(c.n_resume, 1);
    assert_true(hg_stream_ended(&s));
    assert_int_equal(c.n_suspend, 1);
    hg_stream_deinit(&s);
}

static void stream_calls_nobody_after_detach(void **state)
{
    (void)state;
    struct hg_stream s;
    struct hg_error err = {0};
    struct calls c = {0};
    HG_TEST_OK(hg_stream_init(&s, 8, 0, &err), err);
    hg_stream_attach(&s, on_suspend, on_resume, &c, false);
    assert_false(hg_stream_ended(&s));
    hg_stream_detach(&s);
    push_end(&s);
    assert_int_equal(c.n_resume, 0);
    hg_stream_deinit(&s);
}

static void stream_counts_what_a_reader_has_not_finished_with(void **state)
{
    (void)state;
    struct hg_stream s;
    struct hg_error err = {0};
    struct hg_event e;
    struct hg_buf text = {0};
    struct hg_top_token tops[HG_MAX_TOP];
    HG_TEST_OK(hg_stream_init(&s, 8, 0, &err), err);
    push_text(&s, 1, "0123456789");
    size_t one = atomic_load(&s.waiting);
    assert_true(one >= 10);
    push_text(&s, 2, "01234567890123456789");
    size_t both = atomic_load(&s.waiting);
    assert_int_equal(both, 2 * one + 10);
    assert_true(hg_stream_read(&s, 0, &e, &text, tops));
    assert_int_equal(atomic_load(&s.waiting), both); /* its line may not have been sent yet */
    assert_true(hg_stream_read(&s, 1, &e, &text, tops));
    assert_int_equal(atomic_load(&s.waiting), both - one);
    assert_true(hg_stream_read(&s, 0, &e, &text, tops)); /* read again: no difference */
    assert_false(hg_stream_read(&s, 2, &e, &text, tops));
    assert_int_equal(atomic_load(&s.waiting), 0);
    assert_false(hg_stream_read(&s, 3, &e, &text, tops));
    assert_int_equal(atomic_load(&s.waiting), 0);
    hg_buf_deinit(&text);
    hg_stream_deinit(&s);
}

enum { N_EVENTS = 5000 };

static void *write_events(void *ctx)
{
    for (int i = 0; i < N_EVENTS; i++)
        push_text(ctx, i, "t");
    push_end(ctx);
    return NULL;
}

static void stream_hands_every_event_to_a_waiting_thread(void **state)
{
    (void)state;
    struct hg_stream s;
    struct hg_error err = {0};
    struct hg_event e = {0};
    struct hg_buf text = {0};
    struct hg_top_token tops[HG_MAX_TOP];
    pthread_t writer;
    HG_TEST_OK(hg_stream_init(&s, N_EVENTS + 2, 0, &err), err);
    assert_int_equal(pthread_create(&writer, NULL, write_events, &s), 0);
    size_t at = 0;
    for (; e.type != HG_EVENT_END; at++) {
        hg_stream_wait(&s, at);
        assert_true(hg_stream_read(&s, at, &e, &text, tops));
    }
    pthread_join(writer, NULL);
    assert_int_equal(at, N_EVENTS + 1);
    assert_int_equal(text.len, N_EVENTS);
    hg_buf_deinit(&text);
    hg_stream_deinit(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stream_keeps_events_texts_and_alternatives),
        cmocka_unit_test(stream_always_has_room_for_the_end),
        cmocka_unit_test(stream_suspends_once_and_resumes_once),
        cmocka_unit_test(stream_resumes_again_a_reader_that_has_not_come),
        cmocka_unit_test(stream_wakes_an_end_only_reader_at_the_end),
        cmocka_unit_test(stream_calls_nobody_after_detach),
        cmocka_unit_test(stream_counts_what_a_reader_has_not_finished_with),
        cmocka_unit_test(stream_hands_every_event_to_a_waiting_thread),
    };
    return cmocka_run_group_tests_name("server/engine/stream", tests, NULL, NULL);
}
