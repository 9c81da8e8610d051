/* tests/server/test_multipart.c - form bodies as curl and browsers send them, and broken ones. */
#include "server/multipart.h"

#include "common/rng.h"
#include "server/http_gate.h"
#include "tests/test.h"

static void boundary_is_read_plain_and_quoted(void **state)
{
    (void)state;
    char b[80];
    struct hg_error err = {0};
    HG_TEST_OK(hg_multipart_boundary("multipart/form-data; boundary=----x1", b, sizeof b, &err),
               err);
    assert_string_equal(b, "----x1");
    HG_TEST_OK(
        hg_multipart_boundary("multipart/form-data; a=\";\"; boundary=\"q r\"", b, sizeof b, &err),
        err);
    assert_string_equal(b, "q r");
    HG_TEST_FAILS(hg_multipart_boundary("multipart/form-data", b, sizeof b, &err),
                  HG_STATUS_BAD_REQUEST, err, "boundary");
    HG_TEST_FAILS(hg_multipart_boundary("multipart/form-data; boundary=", b, sizeof b, &err),
                  HG_STATUS_BAD_REQUEST, err, "boundary");
}

static const char good[] = "--B\r\n"
                           "Content-Disposition: form-data; name=\"question\"\r\n\r\n"
                           "Is it?\r\n"
                           "--B\r\n"
                           "Content-Disposition: form-data; name=\"image\"; filename=\"x.png\"\r\n"
                           "Content-Type: image/png\r\n\r\n"
                           "\x89PNG\r\n--Cogus\r\n"
                           "--B\r\n"
                           "content-disposition: form-data; name=empty\r\n\r\n"
                           "\r\n"
                           "--B--\r\n";

static void parts_are_found_with_their_bytes(void **state)
{
    (void)state;
    struct hg_multipart m;
    struct hg_error err = {0};
    HG_TEST_OK(hg_multipart_parse("B", good, sizeof good - 1, &m, &err), err);
    assert_int_equal(m.n_parts, 3);
    assert_string_equal(m.parts[0].name, "question");
    assert_int_equal(m.parts[0].n, 6);
    assert_memory_equal(m.parts[0].data, "Is it?", 6);
    assert_false(m.parts[0].is_file);
    assert_true(m.parts[1].is_file);
    assert_string_equal(m.parts[2].name, "empty");
    assert_int_equal(m.parts[2].n, 0);
}

static void broken_forms_are_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        "--",
        "no boundary at all",
        "--B",
        "--B\r\n",
        "--B\r\n\r\nno name\r\n--B--",
        "--B\r\nContent-Disposition: form-data\r\n\r\nx\r\n--B--",
        "--B\r\nContent-Disposition: form-data; name=\"a\r\n\r\nx\r\n--B--",
        "--B\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nnever ends",
        "--B\r\nContent-Disposition: form-data; name=\"a\"\r\nno empty line",
        "--Bx\r\n",
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct hg_multipart m;
        struct hg_error err = {0};
        if (hg_multipart_parse("B", bad[i], strlen(bad[i]), &m, &err) != HG_STATUS_BAD_REQUEST)
            fail_msg("accepted: %s", bad[i]);
    }
}

static void mutated_forms_never_point_outside(void **state)
{
    (void)state;
    size_t n = sizeof good - 1, n_parsed = 0;
    for (uint64_t seed = 0; seed < 20000; seed++) {
        uint32_t r[4];
        hg_philox(seed, 0, 0, r);
        size_t len = r[3] % 4 ? n : r[2] % (n + 1);
        char *copy = malloc(len + 1); /* its own block, so that ASan sees an overrun */
        memcpy(copy, good, len);
        if (len) {
            copy[r[0] % len] = (char)r[1];
            copy[r[2] % len] = "\r\n-B;\"= "[r[3] % 8];
        }
        struct hg_multipart m;
        struct hg_error err;
        if (hg_multipart_parse("B", copy, len, &m, &err) == HG_STATUS_OK) {
            n_parsed++;
            for (size_t i = 0; i < m.n_parts; i++)
                assert_true(m.parts[i].data >= copy &&
                            m.parts[i].data + m.parts[i].n <= copy + len);
        }
        free(copy);
    }
    printf("20000 mutants, %zu still parse\n", n_parsed);
}

static void gate_knows_local_hosts_and_bad_targets(void **state)
{
    (void)state;
    static const char *const local[] = {"localhost", "LOCALHOST:8080", "127.0.0.1:1", "[::1]",
                                        "[::1]:8080"};
    static const char *const foreign[] = {"",           "evil.example", "localhost.evil",
                                          "127.0.0.1x", "localhost:",   "localhost:80x",
                                          "127.0.0.2"};
    for (size_t i = 0; i < sizeof local / sizeof local[0]; i++)
        assert_true(hg_http_host_is_local(local[i]));
    for (size_t i = 0; i < sizeof foreign / sizeof foreign[0]; i++)
        assert_false(hg_http_host_is_local(foreign[i]));
    assert_false(hg_http_uri_is_bad("/v1/vqa?x=%20"));
    assert_true(hg_http_uri_is_bad("/v1/vqa%00b"));
    assert_true(hg_http_uri_is_bad("/a\tb"));
    char longer[2100];
    memset(longer, 'a', sizeof longer - 1);
    longer[sizeof longer - 1] = '\0';
    assert_true(hg_http_uri_is_bad(longer));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(boundary_is_read_plain_and_quoted),
        cmocka_unit_test(parts_are_found_with_their_bytes),
        cmocka_unit_test(broken_forms_are_refused),
        cmocka_unit_test(mutated_forms_never_point_outside),
        cmocka_unit_test(gate_knows_local_hosts_and_bad_targets),
    };
    return cmocka_run_group_tests_name("server/multipart", tests, NULL, NULL);
}
