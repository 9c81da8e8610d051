/* tests/http/h1mut.c - sends mutated requests (mutate.h) to a daemon, many connections at once.
 *
 *   h1mut --port P [--count N] [--seed S] [--from K] [--connections C] [--live N] [--seeds DIR]
 *         [--good Q]            the good client asks at another port
 *   h1mut --print K --seed S     the bytes of mutant K
 *
 * A connection carries one to three mutants, mostly with a good request behind them that asks for
 * the end; it is left when the daemon closes or has said nothing for a while, by close, reset or
 * half-close. Every N mutants a good client must be served with the answer it got at the start. A
 * finding is a daemon that refuses connections or fails that check, or an answer 500 of its own
 * making; whoever starts the daemon looks at its log and its exit. Exit code 1: a finding. */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "tests/http/mutate.h"

enum { MAX_CONNECTIONS = 256, MAX_MUTANTS = 3, QUIET_MS = 40, PATIENCE_S = 60, READ = 1 << 16 };

static const char last[] = "GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
static const char question[] =
    "POST /v1/vqa HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    "Connection: close\r\nContent-Length: 60\r\n\r\n"
    "{\"question\":\"Is there pneumonia?\",\"max_tokens\":8,\"seed\":1  }";

struct connection {
    int fd; /* -1: free */
    char *out;
    size_t n, sent, pause_at; /* a pause where the bytes are split */
    uint64_t first;           /* number of its first mutant */
    int64_t last_ms;
    int way; /* how it is left */
    bool leaving;
};

struct options {
    int port, good, n_connections;
    uint64_t count, seed, from, live, print;
    bool prints;
    const char *seeds;
};

struct run {
    struct options o;
    struct seeds seeds;
    struct connection connections[MAX_CONNECTIONS];
    int epoll, n_open;
    uint64_t next, end; /* number of the next mutant */
    uint64_t n_bytes, n_status[6], n_internal;
    char expected[4096]; /* text of the good answer */
};

static int64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static int dial(int port, int flags)
{
    struct sockaddr_in a = {.sin_family = AF_INET,
                            .sin_port = htons((uint16_t)port),
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&a, sizeof a) != 0 && errno != EINPROGRESS) {
        close(fd);
        return -1;
    }
    return fd;
}

/* ---- the good client ------------------------------------------------------------------------- */

/* Sends and reads to the end; the bytes in `got`, which is ended with a NUL. */
static bool ask(int port, const char *request, char *got, size_t cap)
{
    const struct timeval patience = {PATIENCE_S, 0};
    size_t n = 0;
    ssize_t k = -1;
    int fd = dial(port, 0);
    if (fd < 0)
        return false;
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    if (send(fd, request, strlen(request), MSG_NOSIGNAL) == (ssize_t)strlen(request))
        while (n + 1 < cap && (k = recv(fd, got + n, cap - n - 1, 0)) > 0)
            n += (size_t)k;
    close(fd);
    got[n] = '\0';
    return k == 0 && n > 0;
}

/* The text of the answer to a question; a full queue is waited for. */
static bool ask_text(int port, char *text, size_t cap)
{
    static char got[1 << 16];
    int64_t until = now_ms() + PATIENCE_S * 1000;
    text[0] = '\0';
    while (now_ms() < until) {
        if (!ask(port, question, got, sizeof got))
            return false;
        const char *at = strstr(got, "\"text\":\"");
        if (strncmp(got, "HTTP/1.1 200", 12) == 0 && at) {
            at += 8;
            snprintf(text, cap, "%.*s", (int)strcspn(at, "\""), at);
            return true;
        }
        if (strncmp(got, "HTTP/1.1 503", 12) != 0)
            return false;
        usleep(2000);
    }
    return false;
}

static bool is_alive(struct run *u)
{
    static char got[1 << 16];
    char text[sizeof u->expected];
    if (!ask(u->o.good, last, got, sizeof got) || !strstr(got, "\"status\":\"ok\"")) {
        printf("h1mut: /health does not answer before mutant %llu: %.200s\n",
               (unsigned long long)u->next, got);
        return false;
    }
    if (!ask_text(u->o.good, text, sizeof text) || strcmp(text, u->expected) != 0) {
        printf("h1mut: before mutant %llu a good question gets \"%s\", expected \"%s\"\n",
               (unsigned long long)u->next, text, u->expected);
        return false;
    }
    return true;
}

/* ---- connections ----------------------------------------------------------------------------- */

static bool open_connection(struct run *u, struct connection *c)
{
    struct random r = random_of(u->o.seed ^ 0x5bd1e995, u->next);
    size_t n_mutants = 1 + (random_below(&r, 4) == 0) * (1 + random_below(&r, MAX_MUTANTS - 1));
    c->n = c->sent = 0;
    c->first = u->next;
    for (size_t i = 0; i < n_mutants && u->next < u->end; i++)
        c->n += mutant_make(&u->seeds, u->o.seed, u->next++, c->out + c->n);
    if (random_below(&r, 8) > 0) {
        memcpy(c->out + c->n, last, sizeof last - 1);
        c->n += sizeof last - 1;
    }
    c->pause_at = random_below(&r, 3) == 0 ? random_below(&r, c->n) : 0;
    c->way = (int)random_below(&r, 3);
    c->leaving = false;
    c->last_ms = now_ms();
    c->fd = dial(u->o.port, SOCK_NONBLOCK);
    struct epoll_event e = {.events = EPOLLIN | EPOLLOUT | EPOLLET | EPOLLRDHUP, .data.ptr = c};
    if (c->fd < 0 || epoll_ctl(u->epoll, EPOLL_CTL_ADD, c->fd, &e) != 0) {
        printf("h1mut: cannot connect at mutant %llu: %s\n", (unsigned long long)c->first,
               strerror(errno));
        return false;
    }
    u->n_open++;
    return true;
}

static void close_connection(struct run *u, struct connection *c)
{
    const struct linger hard = {1, 0};
    if (c->way == 1)
        setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
    close(c->fd);
    c->fd = -1;
    u->n_open--;
}

/* Quiet for long enough: go. Half-closed ones wait for the daemon's end once more. */
static void leave(struct run *u, struct connection *c, int64_t now)
{
    if (c->way == 2 && !c->leaving && shutdown(c->fd, SHUT_WR) == 0) {
        c->leaving = true;
        c->last_ms = now;
        return;
    }
    close_connection(u, c);
}

static void count_answers(struct run *u, const struct connection *c, const char *data, size_t n)
{
    static const char mark[] = "HTTP/1.1 ";
    for (const char *p = data; (p = memmem(p, n - (size_t)(p - data), mark, 9)) != NULL;) {
        size_t left = n - (size_t)(p - data);
        if (left < 13)
            return;
        if (p[9] >= '1' && p[9] <= '5')
            u->n_status[p[9] - '0']++;
        if (memcmp(p + 9, "500", 3) == 0 && memmem(p, left, "application/json", 16)) {
            u->n_internal++;
            printf("h1mut: an answer 500 near mutant %llu: %.*s\n", (unsigned long long)c->first,
                   (int)(left < 600 ? left : 600), p);
        }
        p += 9;
    }
}

/* False: the connection has ended. */
static bool take(struct run *u, struct connection *c)
{
    static char buffer[READ];
    for (;;) {
        ssize_t k = recv(c->fd, buffer, sizeof buffer, 0);
        if (k < 0 && (errno == EAGAIN || errno == EINTR))
            return true;
        if (k <= 0)
            return false;
        u->n_bytes += (uint64_t)k;
        count_answers(u, c, buffer, (size_t)k);
        c->last_ms = now_ms();
    }
}

static void give(struct connection *c)
{
    while (c->sent < c->n) {
        size_t until = c->sent < c->pause_at ? c->pause_at : c->n;
        ssize_t k = send(c->fd, c->out + c->sent, until - c->sent, MSG_NOSIGNAL);
        if (k <= 0)
            return; /* full, or ended: take() sees which */
        c->sent += (size_t)k;
        c->last_ms = now_ms();
        if (c->sent == c->pause_at)
            return;
    }
}

static void turn(struct run *u)
{
    struct epoll_event events[MAX_CONNECTIONS];
    int n = epoll_wait(u->epoll, events, MAX_CONNECTIONS, 1);
    for (int i = 0; i < n; i++) {
        struct connection *c = events[i].data.ptr;
        if (c->fd < 0)
            continue;
        give(c);
        if (!take(u, c))
            close_connection(u, c);
    }
    int64_t now = now_ms();
    for (int i = 0; i < u->o.n_connections; i++) {
        struct connection *c = &u->connections[i];
        if (c->fd >= 0 && c->sent == c->pause_at && c->sent < c->n)
            give(c);
        if (c->fd >= 0 && now - c->last_ms > QUIET_MS)
            leave(u, c, now);
    }
}

/* ---- the run --------------------------------------------------------------------------------- */

static bool run(struct run *u)
{
    uint64_t checked = u->next;
    for (;;) {
        for (int i = 0; i < u->o.n_connections && u->next < u->end; i++)
            if (u->connections[i].fd < 0 && !open_connection(u, &u->connections[i]))
                return false;
        if (u->n_open == 0)
            break;
        turn(u);
        if (u->next - checked >= u->o.live) {
            checked = u->next;
            if (!is_alive(u))
                return false;
        }
    }
    return is_alive(u) && u->n_internal == 0;
}

static bool read_options(int argc, char **argv, struct options *o)
{
    for (int i = 1; i + 1 < argc; i += 2) {
        uint64_t v = strtoull(argv[i + 1], NULL, 10);
        if (strcmp(argv[i], "--port") == 0)
            o->port = (int)v;
        else if (strcmp(argv[i], "--good") == 0)
            o->good = (int)v;
        else if (strcmp(argv[i], "--count") == 0)
            o->count = v;
        else if (strcmp(argv[i], "--seed") == 0)
            o->seed = v;
        else if (strcmp(argv[i], "--from") == 0)
            o->from = v;
        else if (strcmp(argv[i], "--live") == 0)
            o->live = v;
        else if (strcmp(argv[i], "--connections") == 0)
            o->n_connections = (int)v;
        else if (strcmp(argv[i], "--seeds") == 0)
            o->seeds = argv[i + 1];
        else if (strcmp(argv[i], "--print") == 0)
            o->print = v, o->prints = true;
        else
            return false;
    }
    o->good = o->good ? o->good : o->port;
    return argc % 2 == 1 && o->live > 0 && o->n_connections >= 1 &&
           o->n_connections <= MAX_CONNECTIONS && (o->prints || o->port > 0);
}

static void report(const struct run *u, bool good, double seconds)
{
    uint64_t n = u->next - u->o.from;
    printf("h1mut: %llu mutants of %d seeds, seed %llu, from %llu: %s; %.1f s, %.0f per s; answers "
           "1xx %llu, 2xx %llu, 4xx %llu, 5xx %llu, %.1f MB\n",
           (unsigned long long)n, u->seeds.n, (unsigned long long)u->o.seed,
           (unsigned long long)u->o.from, good ? "no finding" : "FINDING", seconds,
           (double)n / seconds, (unsigned long long)u->n_status[1],
           (unsigned long long)u->n_status[2], (unsigned long long)u->n_status[4],
           (unsigned long long)u->n_status[5], (double)u->n_bytes / 1e6);
    if (!good)
        printf("h1mut: the last connections carried mutants %llu to %llu: --print shows one, "
               "--from and --count send some again\n",
               (unsigned long long)(n > 200 ? u->next - 200 : u->o.from),
               (unsigned long long)u->next);
}

int main(int argc, char **argv)
{
    static struct run u = {.o = {.n_connections = 48,
                                 .count = 5000,
                                 .seed = 1,
                                 .live = 1000,
                                 .seeds = "tests/http/seeds"}};
    if (!read_options(argc, argv, &u.o)) {
        fprintf(stderr, "h1mut: see the head of tests/http/h1mut.c\n");
        return 64;
    }
    if (!seeds_read(u.o.seeds, &u.seeds)) {
        fprintf(stderr, "h1mut: no seeds in %s\n", u.o.seeds);
        return 66;
    }
    static char shown[MUTANT_CAP];
    if (u.o.prints)
        return fwrite(shown, 1, mutant_make(&u.seeds, u.o.seed, u.o.print, shown), stdout) == 0;
    setvbuf(stdout, NULL, _IOLBF, 0);
    u.epoll = epoll_create1(EPOLL_CLOEXEC);
    u.next = u.o.from;
    u.end = u.o.from + u.o.count;
    for (int i = 0; i < u.o.n_connections; i++) {
        u.connections[i].fd = -1;
        u.connections[i].out = malloc(MAX_MUTANTS * (size_t)MUTANT_CAP + sizeof last);
        if (!u.connections[i].out)
            return 75;
    }
    int64_t start = now_ms();
    bool good = ask_text(u.o.good, u.expected, sizeof u.expected) && run(&u);
    report(&u, good, (double)(now_ms() - start + 1) / 1000);
    for (int i = 0; i < u.o.n_connections; i++)
        free(u.connections[i].out);
    seeds_free(&u.seeds);
    return good ? 0 : 1;
}
