/* tests/server/test_guard.c - clients that leave, are slow, do not read; a full table, no
 * descriptors, descriptors that come again. Time is given to hg_guard_scan, so no test waits for a
 * limit. */
#include "server/http/guard.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "tests/test.h"

enum { N_CONNECTIONS = 4, PATIENCE_MS = 20000, MAX_UNSENT = 8192, RATE = 1000 };

static const int64_t second = 1000000000;

static struct hg_guard *open_guard(int n_connections)
{
    struct hg_guard_limits l;
    struct hg_guard *g = NULL;
    struct hg_error err = {0};
    hg_log_set(HG_LOG_OFF, false);
    hg_guard_limits_default(&l);
    l.n_connections = n_connections;
    l.max_unsent = MAX_UNSENT;
    l.rate = RATE;
    HG_TEST_OK(hg_guard_create(&l, NULL, NULL, &g, &err), err);
    return g;
}

static uint64_t cuts(struct hg_guard *g, enum hg_cut why)
{
    struct hg_guard_stats s;
    hg_guard_stats(g, &s);
    return s.n_cut[why];
}

/* [0] is the server's side. */
static void unix_pair(int fd[2])
{
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd), 0);
}

static void tcp_pair(int fd[2])
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof a;
    const int small = 4096;
    int l = socket(AF_INET, SOCK_STREAM, 0);
    fd[1] = socket(AF_INET, SOCK_STREAM, 0);
    assert_true(l >= 0 && fd[1] >= 0);
    assert_int_equal(bind(l, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(getsockname(l, (struct sockaddr *)&a, &n), 0);
    assert_int_equal(listen(l, 1), 0);
    assert_int_equal(setsockopt(fd[1], SOL_SOCKET, SO_RCVBUF, &small, sizeof small), 0);
    assert_int_equal(connect(fd[1], (struct sockaddr *)&a, sizeof a), 0);
    fd[0] = accept4(l, NULL, NULL, SOCK_NONBLOCK);
    assert_true(fd[0] >= 0);
    close(l);
}

typedef void pair_fn(int fd[2]);
static pair_fn *const pairs[] = {unix_pair, tcp_pair};

static void told(void *ctx)
{
    atomic_fetch_add((atomic_int *)ctx, 1);
}

static void wait_for(atomic_int *n, int wanted)
{
    for (int i = 0; i < PATIENCE_MS && atomic_load(n) < wanted; i++)
        usleep(1000);
    assert_int_equal(atomic_load(n), wanted);
}

static void work(struct hg_guarded *c, atomic_int *n, const atomic_size_t *waiting)
{
    hg_guard_work(c, 7, hg_now_ns() + 600 * second, told, n, waiting);
}

static bool at_end(int fd)
{
    char byte;
    ssize_t n;
    do
        n = recv(fd, &byte, 1, 0);
    while (n > 0);
    return n == 0 || errno == ECONNRESET;
}

static void a_client_that_leaves_is_told_once(void **state)
{
    (void)state;
    enum { CLOSE, RESET, HALF, N_WAYS };
    const struct linger hard = {1, 0};
    struct hg_guard *g = open_guard(N_CONNECTIONS);
    for (int way = 0; way < N_WAYS; way++) {
        int fd[2];
        atomic_int n = 0;
        tcp_pair(fd);
        struct hg_guarded *c = hg_guard_add(g, fd[0]);
        hg_guard_body(c);
        work(c, &n, NULL);
        if (way == RESET)
            setsockopt(fd[1], SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
        if (way == HALF)
            shutdown(fd[1], SHUT_WR);
        else
            close(fd[1]);
        wait_for(&n, 1);
        hg_guard_scan(g, hg_now_ns() + 3600 * second); /* not told again */
        assert_int_equal(atomic_load(&n), 1);
        assert_int_equal(cuts(g, HG_CUT_GONE), way + 1);
        hg_guard_remove(c);
        close(fd[0]);
        if (way == HALF)
            close(fd[1]);
    }
    hg_guard_free(g);
}

static void one_that_left_before_the_work_is_told_of_each_request(void **state)
{
    (void)state;
    struct hg_guard *g = open_guard(N_CONNECTIONS);
    int fd[2], other[2];
    atomic_int n = 0, seen = 0;
    unix_pair(fd);
    unix_pair(other);
    struct hg_guarded *c = hg_guard_add(g, fd[0]), *d = hg_guard_add(g, other[0]);
    work(d, &seen, NULL);
    shutdown(fd[1], SHUT_WR);
    close(other[1]); /* later than the first, and events come in order */
    wait_for(&seen, 1);
    assert_int_equal(atomic_load(&n), 0);
    work(c, &n, NULL);
    assert_int_equal(atomic_load(&n), 1);
    hg_guard_idle(c); /* a pipelined request */
    hg_guard_body(c);
    work(c, &n, NULL);
    assert_int_equal(atomic_load(&n), 2);
    hg_guard_remove(c);
    hg_guard_remove(d);
    close(fd[0]);
    close(fd[1]);
    close(other[0]);
    hg_guard_free(g);
}

static void nobody_is_told_after_idle_answer_or_remove(void **state)
{
    (void)state;
    struct hg_guard *g = open_guard(N_CONNECTIONS);
    int fd[3][2], last[2];
    atomic_int n = 0, seen = 0;
    struct hg_guarded *c[3];
    for (int i = 0; i < 3; i++) {
        unix_pair(fd[i]);
        c[i] = hg_guard_add(g, fd[i][0]);
        work(c[i], &n, NULL);
    }
    hg_guard_idle(c[0]);
    hg_guard_answer(c[1], 10);
    hg_guard_remove(c[2]);
    for (int i = 0; i < 3; i++)
        close(fd[i][1]);
    unix_pair(last);
    struct hg_guarded *d = hg_guard_add(g, last[0]);
    work(d, &seen, NULL);
    close(last[1]);
    wait_for(&seen, 1);
    assert_int_equal(atomic_load(&n), 0);
    assert_int_equal(cuts(g, HG_CUT_GONE), 1);
    hg_guard_remove(c[0]);
    hg_guard_remove(c[1]);
    hg_guard_remove(d);
    for (int i = 0; i < 3; i++)
        close(fd[i][0]);
    close(last[0]);
    hg_guard_free(g);
}

static void slow_headers_get_a_408_and_the_end(void **state)
{
    (void)state;
    struct hg_guard *g = open_guard(N_CONNECTIONS);
    for (int kept = 0; kept < 2; kept++) {
        int fd[2];
        char text[512] = "";
        tcp_pair(fd);
        struct hg_guarded *c = hg_guard_add(g, fd[0]);
        if (kept)
            hg_guard_idle(c);
        int64_t limit = (kept ? 85 : 10) * second;
        hg_guard_scan(g, hg_now_ns() + limit - second);
        assert_int_equal(cuts(g, HG_CUT_SLOW_HEADER), kept);
        hg_guard_scan(g, hg_now_ns() + limit);
        hg_guard_scan(g, hg_now_ns() + 2 * limit);
        assert_int_equal(cuts(g, HG_CUT_SLOW_HEADER), kept + 1);
        assert_true(recv(fd[1], text, sizeof text - 1, 0) > 0);
        assert_non_null(strstr(text, "HTTP/1.1 408 "));
        const char *body = strstr(text, "\r\n\r\n"), *length = strstr(text, "Content-Length: ");
        assert_true(body && length);
        assert_int_equal(strlen(body + 4), atoi(length + 16));
        assert_true(at_end(fd[1]));
        hg_guard_remove(c);
        close(fd[0]);
        close(fd[1]);
    }
    hg_guard_free(g);
}

/* 5 s and received / RATE, at most 60 s. */
static void a_body_has_time_for_what_has_come(void **state)
{
    (void)state;
    static const struct {
        size_t n;
        int seconds;
    } cases[] = {{0, 5}, {RATE, 6}, {20 * RATE, 25}, {1000 * RATE, 60}};
    struct hg_guard *g = open_guard(N_CONNECTIONS);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int fd[2];
        unix_pair(fd);
        struct hg_guarded *c = hg_guard_add(g, fd[0]);
        hg_guard_body(c);
        hg_guard_received(c, cases[i].n);
        hg_guard_scan(g, hg_now_ns() + cases[i].seconds * second - second / 2);
        assert_int_equal(cuts(g, HG_CUT_SLOW_BODY), i);
        hg_guard_scan(g, hg_now_ns() + cases[i].seconds * second);
        assert_int_equal(cuts(g, HG_CUT_SLOW_BODY), i + 1);
        hg_guard_remove(c);
        close(fd[0]);
        close(fd[1]);
    }
    hg_guard_free(g);
}

/* Bytes until the kernel takes no more. */
static size_t fill(int fd)
{
    static const char bytes[1024];
    size_t sum = 0;
    for (ssize_t n; (n = send(fd, bytes, sizeof bytes, MSG_DONTWAIT | MSG_NOSIGNAL)) > 0;)
        sum += (size_t)n;
    return sum;
}

static void drink(int fd, size_t n)
{
    char bytes[1024];
    for (ssize_t got; n > 0; n -= (size_t)got) {
        got = recv(fd, bytes, n < sizeof bytes ? n : sizeof bytes, 0);
        if (got < 0 && errno == EAGAIN)
            return; /* all of it */
        assert_true(got > 0);
    }
}

static void wait_until_sent(int fd)
{
    int queued = 1;
    for (int i = 0; i < PATIENCE_MS && queued > 0; i++) {
        assert_int_equal(ioctl(fd, SIOCOUTQ, &queued), 0);
        usleep(1000);
    }
    assert_int_equal(queued, 0);
}

static void who_reads_nothing_is_cut_and_who_reads_is_not(void **state)
{
    (void)state;
    for (size_t p = 0; p < 2; p++) {
        struct hg_guard *g = open_guard(N_CONNECTIONS);
        int fd[2][2];
        atomic_int n[2] = {0, 0};
        atomic_size_t waiting = 0;
        struct hg_guarded *c[2];
        size_t filled[2];
        for (int i = 0; i < 2; i++) {
            pairs[p](fd[i]);
            c[i] = hg_guard_add(g, fd[i][0]);
            work(c[i], &n[i], &waiting);
            filled[i] = fill(fd[i][0]);
        }
        int64_t now = hg_now_ns();
        assert_true(filled[0] < 1 << 20); /* the send buffer is bounded */
        hg_guard_scan(g, now);            /* what was acknowledged by now */
        drink(fd[1][1], filled[1]);
        wait_until_sent(fd[1][0]);
        hg_guard_scan(g, now + 29 * second);
        assert_int_equal(cuts(g, HG_CUT_NOT_READING), 0);
        hg_guard_scan(g, now + 31 * second);
        assert_int_equal(cuts(g, HG_CUT_NOT_READING), 1);
        assert_int_equal(atomic_load(&n[0]), 1);
        assert_int_equal(atomic_load(&n[1]), 0);
        assert_true(at_end(fd[0][1]));
        for (int i = 0; i < 2; i++) {
            hg_guard_remove(c[i]);
            close(fd[i][0]);
            close(fd[i][1]);
        }
        hg_guard_free(g);
    }
}

static void too_much_may_not_wait_for_long(void **state)
{
    (void)state;
    struct hg_guard *g = open_guard(N_CONNECTIONS);
    int fd[2];
    atomic_int n = 0;
    atomic_size_t waiting = MAX_UNSENT + 1;
    unix_pair(fd);
    struct hg_guarded *c = hg_guard_add(g, fd[0]);
    work(c, &n, &waiting);
    int64_t now = hg_now_ns();
    hg_guard_scan(g, now + 29 * second);
    atomic_store(&waiting, MAX_UNSENT); /* again within bounds for a moment */
    hg_guard_scan(g, now + 30 * second);
    atomic_store(&waiting, MAX_UNSENT + 1);
    hg_guard_scan(g, now + 59 * second);
    assert_int_equal(atomic_load(&n), 0);
    hg_guard_scan(g, now + 60 * second);
    assert_int_equal(atomic_load(&n), 1);
    assert_int_equal(cuts(g, HG_CUT_SLOW_READING), 1);
    hg_guard_remove(c);
    close(fd[0]);
    close(fd[1]);
    hg_guard_free(g);
}

/* The request's deadline is in 600 s, two send times later is 660. */
static void a_late_request_is_its_clients_fault_only_if_bytes_wait(void **state)
{
    (void)state;
    struct hg_guard *g = open_guard(N_CONNECTIONS);
    int fd[3][2];
    atomic_int n[3] = {0, 0, 0};
    atomic_size_t none = 0, some = 1;
    struct hg_guarded *c[3];
    for (int i = 0; i < 3; i++) {
        unix_pair(fd[i]);
        c[i] = hg_guard_add(g, fd[i][0]);
        work(c[i], &n[i], i == 0 ? NULL : i == 1 ? &none : &some);
    }
    hg_guard_scan(g, hg_now_ns() + 659 * second);
    assert_int_equal(cuts(g, HG_CUT_SLOW_READING), 0);
    hg_guard_scan(g, hg_now_ns() + 660 * second);
    assert_int_equal(cuts(g, HG_CUT_SLOW_READING), 1);
    assert_int_equal(atomic_load(&n[2]), 1);
    hg_guard_scan(g, hg_now_ns() + 3600 * second);
    assert_int_equal(cuts(g, HG_CUT_SLOW_READING), 1);
    for (int i = 0; i < 3; i++) {
        hg_guard_remove(c[i]);
        close(fd[i][0]);
        close(fd[i][1]);
    }
    hg_guard_free(g);
}

static void the_rest_of_an_answer_has_a_least_rate(void **state)
{
    (void)state;
    struct hg_guard *g = open_guard(N_CONNECTIONS);
    int fd[2];
    unix_pair(fd);
    struct hg_guarded *c = hg_guard_add(g, fd[0]);
    hg_guard_answer(c, 20 * RATE);
    int64_t now = hg_now_ns();
    hg_guard_scan(g, now + 49 * second); /* reads as fast as it is sent, but nothing comes */
    assert_int_equal(cuts(g, HG_CUT_SLOW_READING), 0);
    hg_guard_scan(g, now + 50 * second);
    assert_int_equal(cuts(g, HG_CUT_SLOW_READING), 1);
    hg_guard_remove(c);
    close(fd[0]);
    close(fd[1]);
    hg_guard_free(g);
}

static int n_descriptors(void)
{
    DIR *d = opendir("/proc/self/fd");
    int n = 0;
    assert_non_null(d);
    while (readdir(d))
        n++;
    closedir(d);
    return n;
}

static void a_full_table_refuses_until_somebody_leaves(void **state)
{
    (void)state;
    struct hg_guard *g = open_guard(N_CONNECTIONS);
    struct hg_guard_stats s;
    int fd[2];
    struct hg_guarded *c[N_CONNECTIONS];
    unix_pair(fd);
    for (int i = 0; i < N_CONNECTIONS; i++)
        assert_non_null(c[i] = hg_guard_add(g, fd[0]));
    assert_null(hg_guard_add(g, fd[0]));
    hg_guard_remove(c[2]);
    assert_non_null(c[2] = hg_guard_add(g, fd[0]));
    hg_guard_stats(g, &s);
    assert_int_equal(s.n_open, N_CONNECTIONS);
    assert_int_equal(s.n_cut[HG_CUT_REFUSED], 1);
    hg_guard_idle(NULL); /* what a refused connection may still call */
    hg_guard_body(NULL);
    hg_guard_received(NULL, 1);
    hg_guard_work(NULL, 1, 1, told, NULL, NULL);
    hg_guard_answer(NULL, 1);
    hg_guard_remove(NULL);
    for (int i = 0; i < N_CONNECTIONS; i++)
        hg_guard_remove(c[i]);
    hg_guard_free(g);
    close(fd[0]);
    close(fd[1]);
}

static void without_descriptors_a_connection_is_refused(void **state)
{
    (void)state;
    struct rlimit old, none;
    struct hg_guard *g = open_guard(N_CONNECTIONS);
    int fd[2];
    unix_pair(fd);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
    none = old;
    none.rlim_cur = 0;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    struct hg_guarded *c = hg_guard_add(g, fd[0]);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
    assert_null(c);
    assert_int_equal(cuts(g, HG_CUT_REFUSED), 1);
    assert_non_null(c = hg_guard_add(g, fd[0]));
    hg_guard_remove(c);
    hg_guard_free(g);
    close(fd[0]);
    close(fd[1]);
}

static void the_end_of_the_guard_lets_all_go(void **state)
{
    (void)state;
    int before = n_descriptors(), fd[2];
    atomic_int n = 0;
    unix_pair(fd);
    struct hg_guard *g = open_guard(N_CONNECTIONS);
    for (int i = 0; i < N_CONNECTIONS; i++)
        work(hg_guard_add(g, fd[0]), &n, NULL);
    hg_guard_free(g);
    close(fd[1]);
    close(fd[0]);
    assert_int_equal(n_descriptors(), before);
    assert_int_equal(atomic_load(&n), 0);
    hg_guard_free(NULL);
}

static void ticked(void *ctx, int64_t now_ns)
{
    if (now_ns > 0)
        told(ctx);
}

static void the_thread_ticks(void **state)
{
    (void)state;
    struct hg_guard_limits l;
    struct hg_guard *g = NULL;
    struct hg_error err = {0};
    atomic_int n = 0;
    hg_guard_limits_default(&l);
    l.n_connections = 1;
    HG_TEST_OK(hg_guard_create(&l, ticked, &n, &g, &err), err);
    for (int i = 0; i < PATIENCE_MS && atomic_load(&n) < 2; i++)
        usleep(1000);
    assert_true(atomic_load(&n) >= 2);
    hg_guard_free(g);
}

static void an_event_of_a_connection_that_has_left_is_dropped(void **state)
{
    (void)state;
    struct hg_guard *g = open_guard(1);
    int fd[2];
    atomic_int n = 0;
    unix_pair(fd);
    hg_guard_remove(hg_guard_add(g, fd[0])); /* place 0, generation 0 */
    struct hg_guarded *c = hg_guard_add(g, fd[0]);
    work(c, &n, NULL);
    hg_guard_event(g, 0);
    assert_int_equal(atomic_load(&n), 0);
    hg_guard_event(g, 1ULL << 32);
    assert_int_equal(atomic_load(&n), 1);
    hg_guard_remove(c);
    hg_guard_event(g, 2ULL << 32); /* nobody is there */
    close(fd[0]);
    close(fd[1]);
    hg_guard_free(g);
}

/* Connections come and go on few descriptors and places, half of their clients leave: everyone who
 * left is told, and nobody who stayed, though the same number was another one's a moment ago. */
enum { N_THREADS = 4, N_ROUNDS = 1500 };

struct visitor {
    struct hg_guard *guard;
    unsigned seed;
    int n_wrong, n_missed;
};

static void *visit(void *arg)
{
    struct visitor *v = arg;
    for (int i = 0; i < N_ROUNDS && v->n_missed == 0; i++) {
        int fd[2];
        atomic_int n = 0;
        bool leaves = rand_r(&v->seed) % 2, waits = rand_r(&v->seed) % 4 != 0;
        unix_pair(fd);
        struct hg_guarded *c = hg_guard_add(v->guard, fd[0]);
        hg_guard_body(c);
        work(c, &n, NULL);
        if (leaves)
            close(fd[1]);
        for (int ms = 0; leaves && waits && ms < PATIENCE_MS * 5 && !atomic_load(&n); ms++)
            usleep(200);
        hg_guard_remove(c); /* without waiting: the event may be on its way */
        int end = atomic_load(&n);
        v->n_wrong += end > leaves;
        v->n_missed += leaves && waits && end == 0;
        close(fd[0]);
        if (!leaves)
            close(fd[1]);
        v->n_wrong += atomic_load(&n) != end;
    }
    return NULL;
}

static void descriptors_that_come_again_are_not_mistaken(void **state)
{
    (void)state;
    struct hg_guard *g = open_guard(N_THREADS);
    struct hg_guard_stats s;
    struct visitor v[N_THREADS];
    pthread_t threads[N_THREADS];
    int before = n_descriptors();
    for (unsigned i = 0; i < N_THREADS; i++) {
        v[i] = (struct visitor){.guard = g, .seed = i + 1};
        assert_int_equal(pthread_create(&threads[i], NULL, visit, &v[i]), 0);
    }
    for (int i = 0; i < N_THREADS; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(v[i].n_wrong, 0);
        assert_int_equal(v[i].n_missed, 0);
    }
    hg_guard_stats(g, &s);
    assert_int_equal(s.n_open, 0);
    assert_int_equal(s.n_cut[HG_CUT_REFUSED], 0);
    assert_int_equal(n_descriptors(), before);
    hg_guard_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_client_that_leaves_is_told_once),
        cmocka_unit_test(one_that_left_before_the_work_is_told_of_each_request),
        cmocka_unit_test(nobody_is_told_after_idle_answer_or_remove),
        cmocka_unit_test(slow_headers_get_a_408_and_the_end),
        cmocka_unit_test(a_body_has_time_for_what_has_come),
        cmocka_unit_test(who_reads_nothing_is_cut_and_who_reads_is_not),
        cmocka_unit_test(too_much_may_not_wait_for_long),
        cmocka_unit_test(a_late_request_is_its_clients_fault_only_if_bytes_wait),
        cmocka_unit_test(the_rest_of_an_answer_has_a_least_rate),
        cmocka_unit_test(a_full_table_refuses_until_somebody_leaves),
        cmocka_unit_test(without_descriptors_a_connection_is_refused),
        cmocka_unit_test(the_end_of_the_guard_lets_all_go),
        cmocka_unit_test(the_thread_ticks),
        cmocka_unit_test(an_event_of_a_connection_that_has_left_is_dropped),
        cmocka_unit_test(descriptors_that_come_again_are_not_mistaken),
    };
    return cmocka_run_group_tests_name("server/http/guard", tests, NULL, NULL);
}
