/* tests/server/test_guard_limits.c - how many connections may wait for headers, and how many
 * requests and how much time one connection gets. */
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/log.h"
#include "server/http/guard.h"
#include "tests/test.h"

enum { N = 64, QUOTA = N / 4, N_REQUESTS = 3 };

static const int64_t second = 1000000000;

static struct hg_guard *open_guard(int n_connections, int64_t life_ns)
{
    struct hg_guard_limits l;
    struct hg_guard *g = NULL;
    struct hg_error err = {0};
    hg_log_set(HG_LOG_OFF, false);
    hg_guard_limits_default(&l);
    l.n_connections = n_connections;
    l.n_requests = N_REQUESTS;
    l.life_ns = life_ns;
    HG_TEST_OK(hg_guard_create(&l, NULL, NULL, &g, &err), err);
    return g;
}

static uint64_t crowded(struct hg_guard *g)
{
    struct hg_guard_stats s;
    hg_guard_stats(g, &s);
    return s.n_cut[HG_CUT_CROWDED];
}

struct pair {
    int fd[2]; /* [0] is the server's side */
    struct hg_guarded *c;
};

static void open_pair(struct hg_guard *g, struct pair *p)
{
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, p->fd), 0);
    p->c = hg_guard_add(g, p->fd[0]);
    assert_non_null(p->c);
}

static void close_pair(struct pair *p)
{
    hg_guard_remove(p->c);
    close(p->fd[0]);
    close(p->fd[1]);
}

static bool is_cut(const struct pair *p)
{
    struct pollfd f = {.fd = p->fd[1], .events = POLLRDHUP};
    return poll(&f, 1, 0) == 1 && (f.revents & (POLLRDHUP | POLLHUP));
}

static void the_oldest_without_headers_makes_room(void **state)
{
    (void)state;
    struct hg_guard *g = open_guard(N, 3600 * second);
    struct pair p[N];
    for (int i = 0; i < QUOTA; i++)
        open_pair(g, &p[i]);
    assert_int_equal(crowded(g), 0);
    /* These two have sent a header: they are not in the way any more, also when they wait again. */
    assert_false(hg_guard_request(p[0].c));
    assert_false(hg_guard_request(p[1].c));
    hg_guard_idle(p[1].c);
    for (int i = QUOTA; i < QUOTA + 6; i++)
        open_pair(g, &p[i]);
    assert_int_equal(crowded(g), 4);
    for (int i = 0; i < QUOTA + 6; i++)
        assert_int_equal(is_cut(&p[i]), i >= 2 && i < 6);
    /* One that goes by itself, from the middle, makes room as well. */
    close_pair(&p[QUOTA]);
    open_pair(g, &p[QUOTA]);
    assert_int_equal(crowded(g), 4);
    for (int i = 0; i < QUOTA + 6; i++)
        close_pair(&p[i]);
    /* The list is empty and sound again. */
    for (int i = 0; i < N; i++)
        open_pair(g, &p[i]);
    assert_int_equal(crowded(g), 4 + N - QUOTA);
    for (int i = N - 1; i >= 0; i--)
        close_pair(&p[i]);
    hg_guard_free(g);
}

static void eight_may_always_wait(void **state)
{
    (void)state;
    struct hg_guard *g = open_guard(10, 3600 * second);
    struct pair p[10];
    for (int i = 0; i < 10; i++)
        open_pair(g, &p[i]);
    assert_int_equal(crowded(g), 2);
    for (int i = 0; i < 10; i++)
        close_pair(&p[i]);
    hg_guard_free(g);
}

static void a_connection_has_a_last_request(void **state)
{
    (void)state;
    struct hg_guard *g = open_guard(4, 3600 * second);
    struct pair p;
    for (int round = 0; round < 2; round++) { /* the place is new for the next connection */
        open_pair(g, &p);
        for (int i = 1; i <= N_REQUESTS; i++) {
            assert_int_equal(hg_guard_request(p.c), i == N_REQUESTS);
            hg_guard_idle(p.c);
        }
        close_pair(&p);
    }
    hg_guard_free(g);
    g = open_guard(4, 0);
    open_pair(g, &p);
    assert_true(hg_guard_request(p.c)); /* its time is over */
    close_pair(&p);
    hg_guard_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_oldest_without_headers_makes_room),
        cmocka_unit_test(eight_may_always_wait),
        cmocka_unit_test(a_connection_has_a_last_request),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
