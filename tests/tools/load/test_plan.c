#include "tests/test.h"

#include <math.h>

#include "tools/load/plan.h"
#include "tools/load/samples.h"

static struct hg_load_mix a_mix(void)
{
    struct hg_load_mix m = {.seed = 7,
                            .rate = 50,
                            .share = {5, 3, 2, 0},
                            .words_min = 2,
                            .words_max = 40,
                            .tokens_min = 4,
                            .tokens_max = 64,
                            .n_pictures = 3,
                            .streamed = 0.5,
                            .sampled = 0.25,
                            .temperature = 0.9,
                            .abandon = 0.1,
                            .abandon_ms = 80,
                            .slow = 0.05,
                            .n_keys = 4};
    return m;
}

enum { N = 20000 };

/* Gaps of a Poisson process: mean 1/rate, and as many beyond t as exp(-rate t) says. Bounds of five
 * standard deviations of the mean of N draws. */
static void arrivals_are_a_poisson_process(void **state)
{
    (void)state;
    struct hg_load_mix m = a_mix();
    struct hg_samples s = {0};
    for (uint64_t i = 0; i < N; i++)
        assert_int_equal(hg_samples_add(&s, hg_load_gap_s(&m, i)), HG_STATUS_OK);
    double mean = hg_samples_mean(&s), bound = 5 / (m.rate * sqrt(N));
    print_message("mean gap %.5f s, expected %.5f +- %.5f\n", mean, 1 / m.rate, bound);
    assert_true(fabs(mean - 1 / m.rate) < bound);
    for (int k = 1; k <= 3; k++) {
        double p = exp(-k);
        size_t n = 0;
        for (size_t i = 0; i < N; i++)
            n += s.v[i] > k / m.rate;
        assert_true(fabs((double)n / N - p) < 5 * sqrt(p * (1 - p) / N));
    }
    hg_samples_deinit(&s);
}

static void check_share(double n, double p)
{
    if (fabs(n / N - p) >= 5 * sqrt(p * (1 - p) / N))
        fail_msg("%.0f of %d, expected a share of %g", n, N, p);
}

static void shares_are_kept(void **state)
{
    (void)state;
    struct hg_load_mix m = a_mix();
    double kind[HG_LOAD_KINDS] = {0}, stream = 0, sampled = 0, leave = 0, slow = 0, key[4] = {0};
    struct hg_samples words = {0};
    for (uint64_t i = 0; i < N; i++) {
        struct hg_load_item item;
        hg_load_item(&m, i, &item);
        kind[item.kind]++;
        stream += item.stream;
        sampled += item.sampled;
        slow += item.slow;
        leave += item.leave_ns >= 0;
        key[item.key]++;
        assert_in_range(item.n_words, 2, 40);
        assert_in_range(item.max_tokens, 4, 64);
        assert_in_range(item.picture, 0, 2);
        assert_int_equal(hg_samples_add(&words, item.n_words), HG_STATUS_OK);
    }
    check_share(kind[HG_LOAD_ASK], 0.5);
    check_share(kind[HG_LOAD_TEXT], 0.3);
    check_share(kind[HG_LOAD_DRAW], 0.2);
    assert_true(kind[HG_LOAD_EDIT] == 0);
    check_share(stream, m.streamed);
    check_share(sampled, m.sampled);
    check_share(slow, m.slow);
    check_share(leave, m.abandon);
    for (int k = 0; k < 4; k++)
        check_share(key[k], 0.25);
    /* even on a logarithmic scale: the middle is sqrt(2 * 41) */
    assert_in_range((int)hg_samples_percentile(&words, 50), 8, 10);
    hg_samples_deinit(&words);
}

static void write_request(const struct hg_load_mix *m, uint64_t i, struct hg_buf *out)
{
    static const char *const keys[] = {"key-a", "key-b", "key-c", "key-d"};
    struct hg_load_target t = {.host = "localhost:1", .draw_path = "/draw", .keys = keys};
    struct hg_load_pictures p = {0};
    struct hg_load_item item;
    struct hg_error err = {0};
    HG_TEST_OK(hg_load_pictures_make(m->n_pictures, &p, &err), err);
    hg_load_item(m, i, &item);
    hg_buf_clear(out);
    HG_TEST_OK(hg_load_request(m, &t, &p, &item, out, &err), err);
    hg_load_pictures_free(&p);
}

static void a_request_is_a_function_of_its_number(void **state)
{
    (void)state;
    struct hg_load_mix m = a_mix();
    struct hg_buf first = {0}, again = {0};
    m.n_keys = 0;
    for (uint64_t i = 0; i < 20; i++) {
        write_request(&m, i, &first);
        write_request(&m, i, &again);
        assert_string_equal(first.data, again.data);
        write_request(&m, i + 1, &again);
        assert_string_not_equal(first.data, again.data);
    }
    m.n_distinct = 6; /* 6 different ones, over and over */
    for (uint64_t i = 0; i < 20; i++) {
        write_request(&m, i, &first);
        write_request(&m, i % 6, &again);
        assert_string_equal(first.data, again.data);
    }
    hg_buf_deinit(&first);
    hg_buf_deinit(&again);
}

static void requests_are_whole_http(void **state)
{
    (void)state;
    struct hg_load_mix m = a_mix();
    struct hg_buf b = {0};
    bool seen[2] = {false};
    for (uint64_t i = 0; i < 40; i++) {
        write_request(&m, i, &b);
        const char *body = strstr(b.data, "\r\n\r\n"), *length = strstr(b.data, "Content-Length: ");
        assert_non_null(body);
        assert_non_null(length);
        assert_int_equal(strtol(length + 16, NULL, 10), strlen(body + 4));
        assert_non_null(strstr(b.data, "\r\nAuthorization: Bearer key-"));
        bool draws = strncmp(b.data, "POST /draw HTTP/1.1\r\n", 21) == 0;
        assert_true(draws || strncmp(b.data, "POST /v1/vqa HTTP/1.1\r\n", 23) == 0);
        assert_non_null(strstr(body, draws ? "\"prompt\":\"" : "\"question\":\""));
        seen[draws] = true;
    }
    assert_true(seen[0] && seen[1]);
    hg_buf_deinit(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(arrivals_are_a_poisson_process),
        cmocka_unit_test(shares_are_kept),
        cmocka_unit_test(a_request_is_a_function_of_its_number),
        cmocka_unit_test(requests_are_whole_http),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
