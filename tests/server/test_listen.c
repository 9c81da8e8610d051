/* tests/server/test_listen.c - addresses and ports. */
#include "server/listen.h"

#include <sys/socket.h>
#include <unistd.h>

#include "tests/test.h"

static void listen_reads_addresses(void **state)
{
    (void)state;
    static const struct {
        const char *text, *addr, *url;
        int port;
        bool loopback;
    } rows[] = {
        {"127.0.0.1:8080", "127.0.0.1", "http://127.0.0.1:8080", 8080, true},
        {"[::1]:0", "::1", "http://[::1]:0", 0, true},
        {"localhost:65535", "127.0.0.1", "http://127.0.0.1:65535", 65535, true},
        {"0.0.0.0:80", "0.0.0.0", "http://0.0.0.0:80", 80, false},
        {"[::]:80", "::", "http://[::]:80", 80, false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct hg_listen_address a;
        struct hg_error err = {0};
        char url[HG_LISTEN_ADDR_CAP + 24];
        HG_TEST_OK(hg_listen_parse(rows[i].text, &a, &err), err);
        hg_listen_url(&a, url);
        assert_string_equal(a.addr, rows[i].addr);
        assert_string_equal(url, rows[i].url);
        assert_int_equal(a.port, rows[i].port);
        assert_int_equal(hg_listen_is_loopback(&a), rows[i].loopback);
    }
}

static void listen_refuses_what_is_no_address(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        "127.0.0.1",
        "8080",
        ":8080",
        "host:8080",
        "127.0.0.1:",
        "127.0.0.1:x",
        "1.2.3.4:65536",
        "[::1:80",
        "::1:80",
        "[]:80",
        "[127.0.0.1]:1",
        "127.0.0.1:+80",
        "127.0.0.1: 80",
        "[localhost]:80",
        "[1111:2222:3333:4444:5555:6666:7777:8888:1111:2222:3333:4444:5555:6666:7777:8888]:80"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct hg_listen_address a;
        struct hg_error err = {0};
        HG_TEST_FAILS(hg_listen_parse(bad[i], &a, &err), HG_STATUS_BAD_REQUEST, err, "listen");
    }
}

static void listen_tells_a_port_in_use_from_a_wrong_address(void **state)
{
    (void)state;
    struct hg_listen_address a = {"127.0.0.1", 0}, other = {"192.0.2.1", 0};
    struct hg_error err = {0};
    int fd = -1, second = -1;
    HG_TEST_OK(hg_listen_bind(&a, &fd, &err), err);
    assert_true(a.port > 0);
    assert_int_equal(listen(fd, 1), 0);
    HG_TEST_FAILS(hg_listen_bind(&a, &second, &err), HG_STATUS_BUSY, err, "in use");
    HG_TEST_FAILS(hg_listen_bind(&other, &second, &err), HG_STATUS_IO, err, "192.0.2.1");
    assert_int_equal(second, -1);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(listen_reads_addresses),
        cmocka_unit_test(listen_refuses_what_is_no_address),
        cmocka_unit_test(listen_tells_a_port_in_use_from_a_wrong_address),
    };
    return cmocka_run_group_tests_name("server/listen", tests, NULL, NULL);
}
