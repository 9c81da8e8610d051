#include "tests/test.h"

#include "tools/load/http_reader.h"

struct answer {
    const char *bytes, *body;
    int status, retry_after_s;
    bool keep_alive;
};

#define HEAD "HTTP/1.1 200 OK\r\n"
static const struct answer answers[] = {
    {HEAD "Content-Length: 5\r\n\r\nhello", "hello", 200, -1, true},
    {HEAD "content-length:0\r\n\r\n", "", 200, -1, true},
    {HEAD "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nA;x=1\r\n0123456789\r\n0\r\n\r\n",
     "abc0123456789", 200, -1, true},
    {HEAD "Transfer-Encoding: chunked\r\n\r\n1\r\n\n\r\n0\r\nX-Trailer: 1\r\n\r\n", "\n", 200, -1,
     true},
    {"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 7\r\nConnection: close\r\n"
     "Content-Length: 2\r\n\r\n{}",
     "{}", 503, 7, false},
    {"HTTP/1.1 100 Continue\r\n\r\n" HEAD "Content-Length: 1\r\n\r\nx", "x", 200, -1, true},
    {"HTTP/1.1 204 No Content\r\n\r\n", "", 204, -1, true},
};
enum { N_ANSWERS = sizeof answers / sizeof answers[0] };

/* In pieces of `piece` bytes. */
static void read_answer(const struct answer *a, size_t piece)
{
    struct hg_http_reader r = {0};
    struct hg_buf body = {0};
    struct hg_error err = {0};
    size_t n = strlen(a->bytes), used;
    hg_http_reader_init(&r);
    for (size_t at = 0; at < n; at += piece) {
        size_t k = n - at < piece ? n - at : piece;
        assert_int_not_equal(r.state, HG_HTTP_DONE);
        HG_TEST_OK(hg_http_reader_feed(&r, a->bytes + at, k, &used, &body, &err), err);
        assert_int_equal(used, k);
    }
    assert_int_equal(r.state, HG_HTTP_DONE);
    HG_TEST_OK(hg_http_reader_end(&r, &err), err);
    assert_int_equal(r.status, a->status);
    assert_int_equal(r.retry_after_s, a->retry_after_s);
    assert_int_equal(r.keep_alive, a->keep_alive);
    assert_int_equal(body.len, strlen(a->body));
    if (body.len > 0)
        assert_memory_equal(body.data, a->body, body.len);
    hg_buf_deinit(&body);
    hg_http_reader_deinit(&r);
}

static void answers_are_read_in_any_pieces(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_ANSWERS; i++)
        for (size_t piece = 1; piece <= strlen(answers[i].bytes); piece++)
            read_answer(&answers[i], piece);
}

static void the_next_answer_is_left_alone(void **state)
{
    (void)state;
    struct hg_http_reader r = {0};
    struct hg_buf body = {0};
    struct hg_error err = {0};
    const char *two = HEAD "Content-Length: 2\r\n\r\nabHTTP/1.1 404 Not Found\r\n\r\n";
    size_t used;
    hg_http_reader_init(&r);
    HG_TEST_OK(hg_http_reader_feed(&r, two, strlen(two), &used, &body, &err), err);
    assert_int_equal(r.state, HG_HTTP_DONE);
    assert_string_equal(two + used, "HTTP/1.1 404 Not Found\r\n\r\n");
    hg_buf_deinit(&body);
    hg_http_reader_deinit(&r);
}

static void a_body_may_end_with_the_connection(void **state)
{
    (void)state;
    struct hg_http_reader r = {0};
    struct hg_buf body = {0};
    struct hg_error err = {0};
    size_t used;
    hg_http_reader_init(&r);
    HG_TEST_OK(hg_http_reader_feed(&r, HEAD "\r\nabc", 22, &used, &body, &err), err);
    assert_int_equal(used, 22);
    assert_string_equal(body.data, "abc");
    assert_false(r.keep_alive);
    HG_TEST_OK(hg_http_reader_end(&r, &err), err);
    hg_buf_deinit(&body);
    hg_http_reader_deinit(&r);
}

static enum hg_status feed(const char *bytes, size_t n, struct hg_error *err)
{
    struct hg_http_reader r = {0};
    struct hg_buf body = {0};
    size_t used;
    hg_http_reader_init(&r);
    enum hg_status status = hg_http_reader_feed(&r, bytes, n, &used, &body, err);
    if (status == HG_STATUS_OK)
        status = hg_http_reader_end(&r, err);
    hg_buf_deinit(&body);
    hg_http_reader_deinit(&r);
    return status;
}

#define CHUNKED HEAD "Transfer-Encoding: chunked\r\n\r\n"
static void what_is_not_an_answer_is_refused(void **state)
{
    (void)state;
    static const char *const cut[] = {"",
                                      "HTTP/1.1 2",
                                      HEAD,
                                      HEAD "Content-Length: 3\r\n\r\nab",
                                      CHUNKED "3\r\nab",
                                      CHUNKED "1\r\na\r\n0\r\n"};
    static const char *const bad[] = {
        "SSH-2.0\r\n\r\n",
        "HTTP/1.1 20\r\n\r\n",
        HEAD ": x\r\n\r\n",
        HEAD "Content-Length: x\r\n\r\n",
        HEAD "Content-Length: -1\r\n\r\n",
        CHUNKED "z\r\n",
        CHUNKED "-1\r\n",
        CHUNKED "1\r\nab\r\n",
        CHUNKED "FFFFFFFFFFFFFFFFF\r\n",
    };
    struct hg_error err = {0};
    for (size_t i = 0; i < sizeof cut / sizeof cut[0]; i++)
        HG_TEST_FAILS(feed(cut[i], strlen(cut[i]), &err), HG_STATUS_IO, err, "middle");
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        HG_TEST_FAILS(feed(bad[i], strlen(bad[i]), &err), HG_STATUS_BAD_FILE, err, "HTTP");
}

static void a_head_without_end_is_too_large(void **state)
{
    (void)state;
    struct hg_error err = {0};
    size_t n = HG_HTTP_MAX_HEAD + 100;
    char *bytes = malloc(n);
    assert_non_null(bytes);
    memset(bytes, 'a', n);
    memcpy(bytes, HEAD, strlen(HEAD));
    HG_TEST_FAILS(feed(bytes, n, &err), HG_STATUS_TOO_LARGE, err, "head");
    free(bytes);
    char line[200] = CHUNKED;
    memset(line + strlen(CHUNKED), '1', sizeof line - strlen(CHUNKED));
    HG_TEST_FAILS(feed(line, sizeof line, &err), HG_STATUS_TOO_LARGE, err, "line");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_are_read_in_any_pieces),
        cmocka_unit_test(the_next_answer_is_left_alone),
        cmocka_unit_test(a_body_may_end_with_the_connection),
        cmocka_unit_test(what_is_not_an_answer_is_refused),
        cmocka_unit_test(a_head_without_end_is_too_large),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
