/* tests/server/test_no_alloc.c - tokens cost no allocation: between the first tokens of a batch of
 * both tasks and its last ones, no thread of the program calls malloc. */
#include "tests/common/fail_malloc.h"

#include "common/log.h"
#include "server/engine/scheduler.h"
#include "tests/test.h"

enum { N_ASK = 6, N_DRAW = 4, N = N_ASK + N_DRAW, ANSWER = 180 };

static struct hg_request *request(struct hg_model *m, int i)
{
    struct hg_ask a;
    struct hg_request *r = NULL;
    struct hg_error err = {0};
    bool draws = i >= N_ASK;
    hg_ask_init(&a, draws ? HG_TASK_GENERATION : HG_TASK_COMPREHENSION);
    a.question = strdup(draws ? "Draw a chest X-ray." : "Is there an opacity?");
    assert_non_null(a.question);
    a.n_question = strlen(a.question);
    a.has_temperature = a.has_seed = true;
    a.sampling.temperature = i % 2 ? 0.8F : 0;
    a.sampling.seed = (uint64_t)i;
    a.sampling.ignore_stop = !draws;
    a.sampling.n_top = draws ? 0 : i % 3;
    a.sampling.max_tokens = draws ? 0 : ANSWER;
    HG_TEST_OK(hg_request_create(m, &a, &r, &err), err);
    hg_ask_deinit(&a);
    return r;
}

/* Has one of them its end, or nearly? Then the window was open for too long: what follows the last
 * token does allocate. */
static bool too_late(struct hg_request *const *rs, int first, int end, size_t to)
{
    bool late = false;
    for (int i = first; i < end; i++) {
        pthread_mutex_lock(&rs[i]->stream.lock);
        late |= rs[i]->stream.n > to + 10;
        pthread_mutex_unlock(&rs[i]->stream.lock);
    }
    return late;
}

/* Allocations from event `from` of all requests to event `to` of those in [first, end); -1: this
 * thread was held up, and more than that was counted. */
static long count_once(struct hg_model *m, struct hg_scheduler *s, int first, int end, size_t from,
                       size_t to)
{
    struct hg_request *rs[N];
    struct hg_error err = {0};
    for (int i = first; i < end; i++)
        rs[i] = request(m, i);
    for (int i = first; i < end; i++)
        HG_TEST_OK(hg_scheduler_submit(s, rs[i], &err), err);
    for (int i = first; i < end; i++)
        hg_stream_wait(&rs[i]->stream, from);
    struct hg_scheduler_stats before, after;
    hg_scheduler_stats(s, &before);
    atomic_store(&n_all, 0);
    atomic_store(&counting_all, true);
    for (int i = first; i < end; i++)
        hg_stream_wait(&rs[i]->stream, to);
    atomic_store(&counting_all, false);
    long n = too_late(rs, first, end, to) ? -1 : atomic_load(&n_all);
    hg_scheduler_stats(s, &after);
    printf("%ld allocations in %llu steps, %llu tokens\n", n,
           (unsigned long long)(after.n_steps - before.n_steps),
           (unsigned long long)(after.n_tokens - before.n_tokens));
    assert_true(after.n_tokens - before.n_tokens >= (to - from) / 2 * (size_t)(end - first));
    for (int i = first; i < end; i++) {
        hg_stream_wait(&rs[i]->stream, SIZE_MAX);
        assert_int_equal(rs[i]->result.error.status, HG_STATUS_OK);
        hg_request_unref(rs[i]);
    }
    return n;
}

static long count(struct hg_model *m, struct hg_scheduler *s, int first, int end, size_t from,
                  size_t to)
{
    long n = -1;
    for (int i = 0; i < 50 && n < 0; i++)
        n = count_once(m, s, first, end, from, to);
    return n;
}

static void tokens_cost_no_allocation(void **state)
{
    (void)state;
    if (!CAN_REPLACE_MALLOC)
        HG_TEST_SKIP("malloc belongs to the sanitizer");
    struct hg_model *m = NULL;
    struct hg_scheduler *s = NULL;
    struct hg_error err = {0};
    struct hg_model_options o = {.path = hg_test_file("config/models/demo"),
                                 .backend = "cpu",
                                 .dtype = "auto",
                                 .kv_dtype = "auto",
                                 .n_threads = 2,
                                 .max_seqs = N};
    struct hg_scheduler_options so = {.max_batch = N, .max_queue = N, .timeout_ms = 600000};
    HG_TEST_OK(hg_model_load(&o, &m, &err), err);
    HG_TEST_OK(hg_scheduler_create(m, &so, &s, &err), err);
    /* That the counter counts: making a request allocates. */
    atomic_store(&counting_all, true);
    hg_request_unref(request(m, 0));
    atomic_store(&counting_all, false);
    assert_true(atomic_load(&n_all) > 5);
    assert_int_equal(count(m, s, 0, N_ASK, 8, ANSWER - 20), 0); /* answers */
    assert_int_equal(count(m, s, N_ASK, N, 4, 50), 0);          /* pictures, steps ahead */
    assert_int_equal(count(m, s, 0, N, 8, 50), 0);              /* both */
    hg_scheduler_free(s);
    hg_model_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(tokens_cost_no_allocation)};
    hg_log_set(HG_LOG_ERROR, false);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
