/* tests/server/test_metrics.c - the hooks and the page: one process, one set of counters, so each
 * test looks at what it has added. */
#include "server/ops/metrics.h"

#include "common/clock.h"
#include "tests/test.h"

static struct hg_metrics_facts facts = {
    .model = "a \"model\"\\\n", .backend = "cpu", .version = "1"};

/* The page; the last one is released. */
static const char *page(bool open)
{
    static struct hg_buf b;
    hg_buf_deinit(&b);
    assert_int_equal(hg_metrics_write(&facts, open, &b), HG_STATUS_OK);
    return b.data;
}

/* The value of the sample that begins like this; -1 without one. */
static double sample(const char *key)
{
    const char *p = page(false);
    size_t n = strlen(key);
    for (; p; p = strchr(p, '\n') ? strchr(p, '\n') + 1 : NULL)
        if (strncmp(p, key, n) == 0 && p[n] == ' ')
            return strtod(p + n, NULL);
    return -1;
}

#define BUCKET                                                                                     \
    "vllm:inter_token_latency_seconds_bucket{model_name=\"a "                                      \
    "\\\"model\\\"\\\\\\n\",engine=\"0\",le=\"%s\"}"

static void a_value_falls_into_its_bucket(void **state)
{
    (void)state;
    static const struct {
        int64_t ns;
        const char *le; /* the smallest bound that holds it */
        const char *below;
    } rows[] = {{10000000, "0.01", NULL},
                {10000001, "0.025", "0.01"},
                {1000000000, "1.0", "0.75"},
                {80000000000, "80.0", "40.0"},
                {80000000001, "+Inf", "80.0"}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char at[128], under[128];
        snprintf(at, sizeof at, BUCKET, rows[i].le);
        snprintf(under, sizeof under, BUCKET, rows[i].below ? rows[i].below : "0.01");
        double n_at = sample(at), n_under = sample(under);
        assert_true(n_at >= 0 && n_under >= 0);
        hg_metrics_token(HG_TASK_COMPREHENSION, rows[i].ns);
        assert_true(sample(at) == n_at + 1);
        assert_true(sample(under) == n_under + (rows[i].below == NULL));
    }
}

static void a_request_is_counted_by_how_it_ended(void **state)
{
    (void)state;
    static const struct {
        enum hg_status status;
        enum hg_finish finish;
        const char *reason;
    } rows[] = {{HG_STATUS_OK, HG_FINISH_STOP, "stop"},
                {HG_STATUS_OK, HG_FINISH_IMAGE, "stop"},
                {HG_STATUS_OK, HG_FINISH_LENGTH, "length"},
                {HG_STATUS_CANCELLED, HG_FINISH_NONE, "abort"},
                {HG_STATUS_TIMEOUT, HG_FINISH_LENGTH, "error"},
                {HG_STATUS_NUMERIC, HG_FINISH_NONE, "error"}};
    facts.model = "m";
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct hg_request r = {.task = HG_TASK_GENERATION, .max_tokens = 64};
        char key[128];
        snprintf(key, sizeof key,
                 "vllm:request_success_total{model_name=\"m\",engine=\"0\",finished_reason=\"%s\"}",
                 rows[i].reason);
        double before = sample(key);
        r.result.error.status = rows[i].status;
        r.result.finish = rows[i].finish;
        hg_metrics_request_ended(&r);
        assert_true(sample(key) == before + 1);
    }
    /* none of them had left the queue */
    assert_true(sample("healthgpt_queue_seconds_count{plugin=\"generation\"}") == 0);
    struct hg_request r = {.task = HG_TASK_GENERATION, .max_tokens = 64};
    r.result.n_prompt = 5;
    r.result.queue_ms = 10;
    r.result.first_token_ms = 20;
    r.result.total_ms = 50;
    hg_metrics_request_ended(&r);
    assert_true(sample("healthgpt_queue_seconds_count{plugin=\"generation\"}") == 1);
    assert_true(sample("healthgpt_queue_seconds_sum{plugin=\"generation\"}") == 0.01);
    assert_true(sample("vllm:request_decode_time_seconds_sum{model_name=\"m\",engine=\"0\"}") ==
                0.03);
    assert_true(sample("healthgpt_tokens_total{plugin=\"generation\",kind=\"prompt\"}") == 5);
}

static void routes_beyond_the_table_are_others(void **state)
{
    (void)state;
    static char names[40][16];
    for (int i = 0; i < 40; i++) {
        snprintf(names[i], sizeof names[i], "/r%d", i);
        hg_metrics_http(names[i], 200, "");
        hg_metrics_http(names[i], 200, "");
    }
    assert_true(sample("healthgpt_requests_total{route=\"/r0\",code=\"200\"}") == 2);
    assert_true(sample("healthgpt_requests_total{route=\"/r39\",code=\"200\"}") == -1);
    double others = sample("healthgpt_requests_total{route=\"other\",code=\"200\"}");
    assert_true(others == 2 * (40 - 32));
    hg_metrics_http(NULL, 418, "a code that nobody knows");
    assert_true(sample("healthgpt_requests_total{route=\"other\",code=\"0\"}") == 1);
    assert_true(sample("healthgpt_rejected_total{reason=\"other\"}") == 1);
    hg_metrics_http(NULL, 503, "queue_full");
    assert_true(sample("healthgpt_rejected_total{reason=\"queue_full\"}") == 1);
}

static void the_accept_header_chooses_the_format(void **state)
{
    (void)state;
    assert_false(hg_metrics_wants_open(NULL));
    assert_false(hg_metrics_wants_open("text/plain;version=0.0.4"));
    assert_false(hg_metrics_wants_open("*/*"));
    assert_true(
        hg_metrics_wants_open("application/openmetrics-text;version=1.0.0,text/plain;q=0.5"));
    const char *text = page(true);
    assert_non_null(strstr(text, "# TYPE vllm:prompt_tokens counter\nvllm:prompt_tokens_total{"));
    assert_string_equal(text + strlen(text) - 7, "\n# EOF\n");
    text = page(false);
    assert_non_null(
        strstr(text, "# TYPE vllm:prompt_tokens_total counter\nvllm:prompt_tokens_total{"));
    assert_null(strstr(text, "EOF"));
}

/* The gateway scrapes every 50 ms. The quickest of many: others use the machine too. */
static void a_page_takes_less_than_a_millisecond(void **state)
{
    (void)state;
    int64_t best = INT64_MAX;
    for (int i = 0; i < 50; i++) {
        int64_t start = hg_now_ns();
        page(i & 1);
        int64_t took = hg_now_ns() - start;
        best = took < best ? took : best;
    }
    printf("# a page of %zu bytes in %.3f ms\n", strlen(page(false)), (double)best / 1e6);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    assert_in_range(best, 0, 1000000);
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_value_falls_into_its_bucket),
        cmocka_unit_test(a_request_is_counted_by_how_it_ended),
        cmocka_unit_test(routes_beyond_the_table_are_others),
        cmocka_unit_test(the_accept_header_chooses_the_format),
        cmocka_unit_test(a_page_takes_less_than_a_millisecond),
    };
    return cmocka_run_group_tests_name("server/ops/metrics", tests, NULL, NULL);
}
