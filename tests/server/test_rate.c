/* tests/server/test_rate.c - token buckets in virtual time. */
#include "server/http/rate.h"

#include <math.h>

#include "tests/test.h"

static const int64_t second = 1000000000;

static struct hg_buckets *make(size_t cap)
{
    struct hg_buckets *b = NULL;
    struct hg_error err = {0};
    HG_TEST_OK(hg_buckets_create(cap, &b, &err), err);
    return b;
}

static void rate_burst_then_an_even_rate(void **state)
{
    (void)state;
    struct hg_buckets *b = make(4);
    const struct hg_rate rate = {.per_minute = 60, .burst = 20};
    struct hg_rate_state s;
    int64_t now = 7 * second;
    int n = 0;
    while (hg_buckets_take(b, 1, &rate, 1, 1, now, &s))
        n++;
    assert_int_equal(n, 20);
    assert_true(fabs(s.wait_s - 1) < 1e-6); /* one a second */
    assert_true(fabs(s.full_s - 20) < 1e-6);
    /* Retry-After is right: a moment before it is too early, then it is not. */
    assert_false(hg_buckets_take(b, 1, &rate, 1, 1, now + second - 1000, NULL));
    assert_true(hg_buckets_take(b, 1, &rate, 1, 1, now + second, NULL));
    assert_false(hg_buckets_take(b, 1, &rate, 1, 1, now + second, NULL));
    /* an hour of rest gives a burst, not an hour's */
    now += 3600 * second;
    for (n = 0; hg_buckets_take(b, 1, &rate, 1, 1, now, NULL);)
        n++;
    assert_int_equal(n, 20);
    hg_buckets_free(b);
}

/* However requests come, no more than burst + rate * time get through, and nearly as many do. */
static void rate_holds_over_an_hour_of_any_arrivals(void **state)
{
    (void)state;
    const struct hg_rate rate = {.per_minute = 90, .burst = 7};
    uint64_t x = 88172645463325252u;
    for (int64_t mean_ms = 1; mean_ms <= 4096; mean_ms *= 4) {
        struct hg_buckets *b = make(2);
        int64_t now = second, end = now + 3600 * second;
        double let_in = 0, asked = 0;
        for (; now < end; asked++) {
            let_in += hg_buckets_take(b, 5, &rate, 1, 1, now, NULL);
            assert_true(let_in <= rate.burst + (double)(now - second) / 1e9 * 1.5 + 1e-6);
            x ^= x << 13, x ^= x >> 7, x ^= x << 17; /* xorshift64 */
            now += (int64_t)(x % (2 * (uint64_t)mean_ms * 1000000) + 1);
        }
        double wanted = fmin(asked, 3600 * 1.5);
        assert_true(let_in >= 0.97 * wanted);
        hg_buckets_free(b);
    }
}

static void rate_debts_and_returns(void **state)
{
    (void)state;
    struct hg_buckets *b = make(4);
    const struct hg_rate rate = {.per_minute = 600, .burst = 600};
    struct hg_rate_state s;
    int64_t now = second;
    /* What costs more than there can ever be is let in once, and paid for. */
    assert_true(hg_buckets_take(b, 1, &rate, 1, 0, now, NULL));
    assert_true(hg_buckets_take(b, 1, &rate, -INFINITY, 1000, now, NULL));
    assert_false(hg_buckets_take(b, 1, &rate, 1, 0, now, &s));
    assert_true(fabs(s.wait_s - 40.1) < 1e-6); /* -400 + 1, ten a second */
    /* What it did not cost comes back; never more than a burst. */
    hg_buckets_take(b, 1, &rate, -INFINITY, -900, now, &s);
    assert_true(fabs(s.level - 500) < 1e-6);
    hg_buckets_take(b, 1, &rate, -INFINITY, -900, now, &s);
    assert_true(fabs(s.level - 600) < 1e-6 && s.full_s == 0 && s.wait_s == 0);
    /* A clock that another thread has read a little earlier. */
    assert_true(hg_buckets_take(b, 1, &rate, 1, 1, now - 5000, &s));
    assert_true(s.level <= 599.0001);
    hg_buckets_free(b);
}

static void rate_of_a_new_key_file_holds_at_once(void **state)
{
    (void)state;
    struct hg_buckets *b = make(4);
    const struct hg_rate large = {.per_minute = 6000, .burst = 1000}, small = {60, 2};
    struct hg_rate_state s;
    assert_true(hg_buckets_take(b, 1, &large, 1, 1, second, NULL));
    assert_true(hg_buckets_take(b, 1, &small, 1, 1, second, &s));
    assert_true(fabs(s.level - 1) < 1e-6);
    /* and a drained one is not filled by it */
    assert_true(hg_buckets_take(b, 1, &small, 1, 1, second, NULL));
    assert_false(hg_buckets_take(b, 1, &large, 1, 1, second, NULL));
    hg_buckets_free(b);
}

static void rate_keys_are_apart_and_the_oldest_is_forgotten(void **state)
{
    (void)state;
    struct hg_buckets *b = make(3);
    const struct hg_rate rate = {.per_minute = 1, .burst = 1};
    for (uint64_t id = 0; id < 3; id++)
        assert_true(hg_buckets_take(b, id, &rate, 1, 1, second + (int64_t)id, NULL));
    for (uint64_t id = 0; id < 3; id++)
        assert_false(hg_buckets_take(b, id, &rate, 1, 1, second + 10 + (int64_t)id, NULL));
    assert_true(hg_buckets_take(b, 9, &rate, 1, 1, second + 20, NULL)); /* instead of 0 */
    assert_false(hg_buckets_take(b, 1, &rate, 1, 1, second + 30, NULL));
    assert_false(hg_buckets_take(b, 2, &rate, 1, 1, second + 30, NULL));
    assert_true(hg_buckets_take(b, 0, &rate, 1, 1, second + 40, NULL));
    hg_buckets_free(b);
}

static void rate_durations_are_written_as_openai_does(void **state)
{
    (void)state;
    static const struct {
        double s;
        const char *text;
    } rows[] = {
        {0, "0s"},        {-1, "0s"},   {0.12, "120ms"}, {0.0001, "1ms"}, {7.66, "7.66s"},
        {59.5, "59.50s"}, {60, "1m0s"}, {359.2, "6m0s"}, {NAN, "0s"},     {1e30, "16666666m40s"}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char text[24];
        hg_rate_duration(rows[i].s, text);
        assert_string_equal(text, rows[i].text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rate_burst_then_an_even_rate),
        cmocka_unit_test(rate_holds_over_an_hour_of_any_arrivals),
        cmocka_unit_test(rate_debts_and_returns),
        cmocka_unit_test(rate_of_a_new_key_file_holds_at_once),
        cmocka_unit_test(rate_keys_are_apart_and_the_oldest_is_forgotten),
        cmocka_unit_test(rate_durations_are_written_as_openai_does),
    };
    return cmocka_run_group_tests_name("server/http/rate", tests, NULL, NULL);
}
