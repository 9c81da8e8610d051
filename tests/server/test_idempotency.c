/* tests/server/test_idempotency.c - every verdict, by a clock of the test's own. */
#include "server/http/idempotency.h"

#include "common/rng.h"
#include "server/api/body.h"
#include "tests/test.h"

enum { SECOND = 1000000000 };

static struct hg_idempotency *make(size_t n_entries, size_t n_bytes)
{
    struct hg_idempotency_limits l;
    struct hg_idempotency *t;
    struct hg_error err;
    hg_idempotency_limits_default(&l);
    assert_int_equal(l.keep_ns, 600 * (int64_t)SECOND);
    l.n_entries = n_entries;
    l.n_bytes = n_bytes;
    HG_TEST_OK(hg_idempotency_create(&l, &t, &err), err);
    return t;
}

/* The question is one byte here. */
static enum hg_idempotency_verdict ask(struct hg_idempotency *t, uint64_t tenant, const char *key,
                                       uint8_t question, int64_t now, uint64_t *ticket,
                                       struct hg_buf *answer)
{
    uint8_t digest[HG_SHA256_BYTES] = {question};
    hg_buf_clear(answer);
    return hg_idempotency_begin(t, tenant, key, digest, now, ticket, answer);
}

static void a_key_is_new_then_runs_then_has_its_answer(void **state)
{
    (void)state;
    struct hg_idempotency *t = make(4, 1000);
    struct hg_buf a = {0};
    uint64_t ticket = 0, other = 0;
    int64_t now = 5 * (int64_t)SECOND;
    assert_int_equal(ask(t, 1, "k", 'q', now, &ticket, &a), HG_IDEMPOTENCY_NEW);
    assert_true(ticket != 0);
    assert_int_equal(ask(t, 1, "k", 'q', now, &other, &a), HG_IDEMPOTENCY_RUNNING);
    assert_int_equal(ask(t, 1, "k", 'r', now, &other, &a), HG_IDEMPOTENCY_OTHER);
    /* Another tenant's key of the same name, and another name, are other keys. */
    assert_int_equal(ask(t, 2, "k", 'q', now, &other, &a), HG_IDEMPOTENCY_NEW);
    hg_idempotency_abandon(t, other);
    assert_int_equal(ask(t, 1, "K", 'q', now, &other, &a), HG_IDEMPOTENCY_NEW);
    hg_idempotency_abandon(t, other);
    hg_idempotency_finish(t, ticket, "answer", 6, now);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(ask(t, 1, "k", 'q', now + i * SECOND, &other, &a), HG_IDEMPOTENCY_DONE);
        assert_string_equal(a.data, "answer");
    }
    assert_int_equal(ask(t, 1, "k", 'r', now, &other, &a), HG_IDEMPOTENCY_OTHER);
    assert_int_equal(ask(t, 2, "k", 'q', now, &other, &a), HG_IDEMPOTENCY_NEW);
    /* A ticket is good once. */
    hg_idempotency_finish(t, ticket, "forged", 6, now);
    hg_idempotency_abandon(t, ticket);
    assert_int_equal(ask(t, 1, "k", 'q', now, &other, &a), HG_IDEMPOTENCY_DONE);
    assert_string_equal(a.data, "answer");
    hg_buf_deinit(&a);
    hg_idempotency_free(t);
}

static void answers_are_forgotten_in_time_and_failures_at_once(void **state)
{
    (void)state;
    struct hg_idempotency *t = make(4, 1000);
    struct hg_buf a = {0};
    uint64_t ticket, other;
    const int64_t keep = 600 * (int64_t)SECOND;
    assert_int_equal(ask(t, 0, "k", 'q', 0, &ticket, &a), HG_IDEMPOTENCY_NEW);
    hg_idempotency_abandon(t, ticket);
    assert_int_equal(ask(t, 0, "k", 'r', 0, &ticket, &a), HG_IDEMPOTENCY_NEW);
    /* It runs for as long as it takes. */
    assert_int_equal(ask(t, 0, "k", 'r', 10 * keep, &other, &a), HG_IDEMPOTENCY_RUNNING);
    hg_idempotency_finish(t, ticket, "x", 1, 10 * keep);
    assert_int_equal(ask(t, 0, "k", 'r', 11 * keep - 1, &other, &a), HG_IDEMPOTENCY_DONE);
    assert_int_equal(ask(t, 0, "k", 's', 11 * keep, &other, &a), HG_IDEMPOTENCY_NEW);
    struct hg_idempotency_stats stats;
    hg_idempotency_stats(t, &stats);
    assert_int_equal(stats.n_running, 1);
    assert_int_equal(stats.n_done + stats.n_bytes, 0);
    hg_buf_deinit(&a);
    hg_idempotency_free(t);
}

static void room_is_made_by_the_oldest_answers_only(void **state)
{
    (void)state;
    struct hg_idempotency *t = make(3, 10);
    struct hg_buf a = {0};
    uint64_t tickets[3], other;
    char key[2] = "a";
    for (int i = 0; i < 3; i++, key[0]++)
        assert_int_equal(ask(t, 0, key, 'q', i, &tickets[i], &a), HG_IDEMPOTENCY_NEW);
    assert_int_equal(ask(t, 0, "d", 'q', 3, &other, &a), HG_IDEMPOTENCY_FULL);
    hg_idempotency_finish(t, tickets[1], "1234", 4, 4);
    hg_idempotency_finish(t, tickets[0], "5678", 4, 5);
    /* The place of "b", whose answer is the oldest. */
    assert_int_equal(ask(t, 0, "d", 'q', 6, &other, &a), HG_IDEMPOTENCY_NEW);
    assert_int_equal(ask(t, 0, "a", 'q', 6, &other, &a), HG_IDEMPOTENCY_DONE);
    /* Bytes: "a" has to go for what "c" became. */
    hg_idempotency_finish(t, tickets[2], "12345678", 8, 7);
    assert_int_equal(ask(t, 0, "c", 'q', 8, &other, &a), HG_IDEMPOTENCY_DONE);
    struct hg_idempotency_stats stats;
    hg_idempotency_stats(t, &stats);
    assert_int_equal(stats.n_bytes, 8);
    assert_int_equal(stats.n_done, 1);
    assert_int_equal(stats.n_running, 1);
    /* More than there ever is room for: the answer is not kept, others stay. */
    assert_int_equal(ask(t, 0, "e", 'q', 9, &other, &a), HG_IDEMPOTENCY_NEW);
    hg_idempotency_finish(t, other, "12345678901", 11, 9);
    assert_int_equal(ask(t, 0, "c", 'q', 9, &other, &a), HG_IDEMPOTENCY_DONE);
    assert_int_equal(ask(t, 0, "e", 'q', 9, &other, &a), HG_IDEMPOTENCY_NEW);
    hg_buf_deinit(&a);
    hg_idempotency_free(t);
}

/* Random use: never more than the limits, and an answer is always that of its key. */
static void random_use_stays_in_bounds(void **state)
{
    (void)state;
    enum { N = 16, BYTES = 200, STEPS = 50000 };
    struct hg_idempotency *t = make(N, BYTES);
    struct hg_buf a = {0};
    uint64_t open[8] = {0};
    char of[8] = {0};
    size_t n_done = 0;
    for (uint64_t i = 0; i < STEPS; i++) {
        uint32_t r[4];
        hg_philox(i, 1, 2, r);
        char key[2] = {(char)('a' + r[0] % 26), '\0'};
        size_t slot = r[1] % 8;
        int64_t now = (int64_t)i * SECOND;
        if (open[slot] && r[2] % 2) {
            char answer[64];
            memset(answer, of[slot], sizeof answer);
            if (r[2] % 8 == 1)
                hg_idempotency_abandon(t, open[slot]);
            else
                hg_idempotency_finish(t, open[slot], answer, 1 + r[3] % sizeof answer, now);
            open[slot] = 0;
        } else if (!open[slot]) {
            uint64_t ticket = 0;
            enum hg_idempotency_verdict v = ask(t, 0, key, (uint8_t)key[0], now, &ticket, &a);
            assert_true(v != HG_IDEMPOTENCY_OTHER && v != HG_IDEMPOTENCY_FULL);
            open[slot] = v == HG_IDEMPOTENCY_NEW ? ticket : 0;
            of[slot] = key[0];
            n_done += v == HG_IDEMPOTENCY_DONE;
            for (size_t k = 0; v == HG_IDEMPOTENCY_DONE && k < a.len; k++)
                assert_int_equal(a.data[k], key[0]);
        }
        struct hg_idempotency_stats stats;
        hg_idempotency_stats(t, &stats);
        assert_true(stats.n_bytes <= BYTES && stats.n_running + stats.n_done <= N);
    }
    printf("%d steps, %zu answers from before\n", STEPS, n_done);
    assert_true(n_done > 100);
    hg_buf_deinit(&a);
    hg_idempotency_free(t);
}

/* ---- what is the same question --------------------------------------------------------------- */

static void digest_of(const char *type, const char *body, const char *salt,
                      uint8_t out[HG_SHA256_BYTES])
{
    struct hg_body b;
    struct hg_api_error e;
    if (!hg_body_read(&b, type, body, strlen(body), &e))
        fail_msg("%s", e.text);
    hg_body_digest(&b, salt, out);
    hg_body_deinit(&b);
}

static void digests_tell_questions_apart_but_not_boundaries(void **state)
{
    (void)state;
    static const char *const json[] = {
        "{\"prompt\":\"a\"}", "{\"prompt\":\"b\"}",
        "{\"prompt\":\"a\",\"image\":\"data:image/png;base64,aGVsbG8=\"}",
        "{\"prompt\":\"a\",\"image\":\"data:image/png;base64,aGVsbG9v\"}"};
    enum { N = sizeof json / sizeof json[0] };
    uint8_t d[N + 1][HG_SHA256_BYTES], form[4][HG_SHA256_BYTES];
    for (int i = 0; i < N; i++)
        digest_of("application/json", json[i], "/v1/draw", d[i]);
    digest_of("application/json", json[0], "/v1/images/edits", d[N]);
    for (int i = 0; i < N + 1; i++)
        for (int k = 0; k < i; k++)
            assert_memory_not_equal(d[i], d[k], HG_SHA256_BYTES);
    digest_of("multipart/form-data; boundary=B",
              "--B\r\nContent-Disposition: form-data; name=prompt\r\n\r\nab\r\n--B\r\n"
              "Content-Disposition: form-data; name=image\r\n\r\nxy\r\n--B--",
              "s", form[0]);
    digest_of("multipart/form-data; boundary=other",
              "--other\r\nContent-Disposition: form-data; name=prompt\r\n\r\nab\r\n--other\r\n"
              "Content-Disposition: form-data; name=image\r\n\r\nxy\r\n--other--",
              "s", form[1]);
    digest_of("multipart/form-data; boundary=B",
              "--B\r\nContent-Disposition: form-data; name=prompt\r\n\r\na\r\n--B\r\n"
              "Content-Disposition: form-data; name=user\r\n\r\nb\r\n--B\r\n"
              "Content-Disposition: form-data; name=image\r\n\r\nxy\r\n--B--",
              "s", form[2]);
    digest_of("multipart/form-data; boundary=B",
              "--B\r\nContent-Disposition: form-data; name=user\r\n\r\nab\r\n--B\r\n"
              "Content-Disposition: form-data; name=image\r\n\r\nxy\r\n--B--",
              "s", form[3]);
    assert_memory_equal(form[0], form[1], HG_SHA256_BYTES);
    assert_memory_not_equal(form[0], form[2], HG_SHA256_BYTES);
    assert_memory_not_equal(form[0], form[3], HG_SHA256_BYTES);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_key_is_new_then_runs_then_has_its_answer),
        cmocka_unit_test(answers_are_forgotten_in_time_and_failures_at_once),
        cmocka_unit_test(room_is_made_by_the_oldest_answers_only),
        cmocka_unit_test(random_use_stays_in_bounds),
        cmocka_unit_test(digests_tell_questions_apart_but_not_boundaries),
    };
    return cmocka_run_group_tests_name("server/http/idempotency", tests, NULL, NULL);
}
