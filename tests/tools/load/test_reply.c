#include "tests/test.h"

#include "tools/load/reply.h"

static enum hg_load_event line(struct hg_load_reply *r, const char *s)
{
    struct hg_error err = {0};
    enum hg_load_event event;
    HG_TEST_OK(hg_load_reply_line(r, s, strlen(s), &event, &err), err);
    return event;
}

#define DONE(id, n, cached)                                                                        \
    "{\"type\":\"done\",\"id\":\"req-" #id "\",\"finish_reason\":\"stop\",\"usage\":"              \
    "{\"completion_tokens\":" #n ",\"prompt_tokens_details\":{\"cached_tokens\":" #cached "}}}"
#define TOKEN(id, text) "{\"type\":\"token\",\"id\":" #id ",\"logprob\":-0.5,\"text\":\"" text "\"}"

static uint64_t digest_of(const char *const *lines, size_t n)
{
    struct hg_load_reply r;
    hg_load_reply_init(&r);
    for (size_t i = 0; i < n; i++)
        line(&r, lines[i]);
    return hg_load_reply_digest(&r);
}

static void lines_are_counted(void **state)
{
    (void)state;
    struct hg_load_reply r;
    hg_load_reply_init(&r);
    assert_int_equal(line(&r, "{\"type\":\"queued\",\"id\":\"req-1\"}"), HG_LOAD_EVENT_OTHER);
    assert_int_equal(line(&r, TOKEN(5, "A")), HG_LOAD_EVENT_TOKEN);
    assert_int_equal(line(&r, "{\"type\":\"token\",\"text\":\"?\"}"), HG_LOAD_EVENT_OTHER);
    assert_int_equal(r.n_tokens, 1);
    assert_false(r.done);
    assert_int_equal(line(&r, DONE(1, 3, 0)), HG_LOAD_EVENT_DONE);
    assert_int_equal(r.n_tokens, 3); /* what the answer says */
    assert_true(r.done);

    hg_load_reply_init(&r);
    assert_int_equal(line(&r, "{\"type\":\"progress\",\"done\":1,\"total\":64}"),
                     HG_LOAD_EVENT_TOKEN);
    assert_int_equal(line(&r, "{\"type\":\"preview\",\"b64_json\":\"x\"}"), HG_LOAD_EVENT_PREVIEW);
    assert_int_equal(line(&r, "{\"type\":\"image\",\"b64_json\":\"x\"}"), HG_LOAD_EVENT_IMAGE);
    assert_int_equal(r.n_images, 1);
    assert_int_equal(line(&r, "{\"type\":\"error\",\"error\":{\"code\":\"numeric_fault\"}}"),
                     HG_LOAD_EVENT_ERROR);
    assert_string_equal(r.code, "numeric_fault");
    assert_false(r.done);
}

static void the_digest_is_of_the_answer_alone(void **state)
{
    (void)state;
    const char *const a[] = {"{\"type\":\"queued\",\"position\":1}", TOKEN(5, "A"), TOKEN(6, "B"),
                             DONE(1, 2, 0)};
    const char *const b[] = {"{\"type\":\"queued\",\"position\":9}", TOKEN(5, "A"), TOKEN(6, "B"),
                             DONE(2, 2, 16)};
    const char *const c[] = {a[0], TOKEN(5, "A"), TOKEN(7, "B"), a[3]};
    const char *const d[] = {a[0], a[1], a[3]};
    const char *const e[] = {a[0], "{\"type\":\"image\",\"b64_json\":\"x\"}", a[3]};
    const char *const f[] = {a[0], "{\"type\":\"image\",\"b64_json\":\"y\"}", a[3]};
    uint64_t same = digest_of(a, 4);
    assert_true(same == digest_of(b, 4));
    assert_true(same != digest_of(c, 4));
    assert_true(same != digest_of(d, 3));
    assert_true(digest_of(e, 3) != digest_of(f, 3));
}

static void documents_are_read(void **state)
{
    (void)state;
    struct hg_error err = {0};
    struct hg_load_reply r;
    const char *text = "{\"text\":\"Yes\",\"finish_reason\":\"stop\",\"usage\":"
                       "{\"completion_tokens\":2}}";
    const char *drawn = "{\"data\":[{\"b64_json\":\"AAAA\"}],\"finish_reason\":\"length\","
                        "\"usage\":{\"completion_tokens\":64}}";
    const char *refused = "{\"error\":{\"code\":\"queue_full\",\"message\":\"m\"}}";
    hg_load_reply_init(&r);
    HG_TEST_OK(hg_load_reply_document(&r, text, strlen(text), &err), err);
    assert_true(r.done);
    assert_int_equal(r.n_tokens, 2);
    uint64_t digest = hg_load_reply_digest(&r);
    hg_load_reply_init(&r);
    HG_TEST_OK(hg_load_reply_document(&r, drawn, strlen(drawn), &err), err);
    assert_int_equal(r.n_images, 1);
    assert_true(digest != hg_load_reply_digest(&r));
    hg_load_reply_init(&r);
    HG_TEST_OK(hg_load_reply_document(&r, refused, strlen(refused), &err), err);
    assert_string_equal(r.code, "queue_full");
    assert_false(r.done);
}

static void what_the_server_does_not_say_is_refused(void **state)
{
    (void)state;
    struct hg_error err = {0};
    struct hg_load_reply r;
    enum hg_load_event event;
    hg_load_reply_init(&r);
    HG_TEST_FAILS(hg_load_reply_line(&r, "hello", 5, &event, &err), HG_STATUS_BAD_FILE, err,
                  "no event");
    HG_TEST_FAILS(hg_load_reply_line(&r, "{\"type\":\"done\",", 15, &event, &err),
                  HG_STATUS_BAD_FILE, err, "JSON");
    HG_TEST_FAILS(hg_load_reply_line(&r, "{\"type\":\"done\",\"x\":1}", 22 - 1, &event, &err),
                  HG_STATUS_BAD_FILE, err, "usage");
    HG_TEST_FAILS(hg_load_reply_document(&r, "[]", 2, &err), HG_STATUS_BAD_FILE, err, "JSON");
    HG_TEST_FAILS(hg_load_reply_document(&r, "{}", 2, &err), HG_STATUS_BAD_FILE, err, "usage");
    assert_false(r.done);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_are_counted),
        cmocka_unit_test(the_digest_is_of_the_answer_alone),
        cmocka_unit_test(documents_are_read),
        cmocka_unit_test(what_the_server_does_not_say_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
