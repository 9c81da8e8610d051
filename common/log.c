/* common/log.c - format on the stack, escape, one write(2) per line.
 *
 * text: 2026-11-23T23:29:01.042Z info  message
 * JSON: {"time":"2026-11-23T23:29:01.042Z","level":"info","message":"..."}
 * A line that a full pipe does not take is dropped: a stuck log reader must not stop the service.
 */
#include "common/log.h"

#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/utf8.h"

enum { MESSAGE_CAP = 2048, LINE_CAP = 4096, LINE_TAIL = 4 };

static atomic_int min_level_now = HG_LOG_INFO;
static atomic_int json_now;
static atomic_uint_least64_t n_dropped;

static const char *const level_names[] = {"debug", "info", "warn", "error", "off"};

void hg_log_set(enum hg_log_level min_level, int as_json)
{
    atomic_store(&min_level_now, (int)min_level);
    atomic_store(&json_now, as_json);
}

static size_t put_time(char *out, size_t cap)
{
    struct timespec t;
    struct tm tm;
    clock_gettime(CLOCK_REALTIME, &t);
    gmtime_r(&t.tv_sec, &tm);
    size_t n = strftime(out, cap, "%Y-%m-%dT%H:%M:%S", &tm);
    int k = snprintf(out + n, cap - n, ".%03ldZ", t.tv_nsec / 1000000);
    return n + (size_t)(k > 0 ? k : 0);
}

/* Escape one character of the message into out (at least 12 bytes); returns the bytes written.
 * C0, DEL and C1 controls could forge lines or drive a terminal; JSON also needs \" and \\. */
static size_t put_char(char *out, const char *s, int len, uint32_t cp, int json)
{
    if (len == 0 && json)
        return (size_t)snprintf(out, 12, "\\ufffd");
    if (len == 0)
        return (size_t)snprintf(out, 12, "\\x%02x", (unsigned char)*s);
    if (cp < 0x20 || (cp >= 0x7f && cp < 0xa0) || cp == 0x2028 || cp == 0x2029)
        return (size_t)snprintf(out, 12, "\\u%04x", (unsigned)cp);
    size_t n = 0;
    if (cp == '\\' || (json && cp == '"'))
        out[n++] = '\\';
    memcpy(out + n, s, (size_t)len);
    return n + (size_t)len;
}

/* Escape the message into out; what does not fit in cap is cut. */
static size_t put_message(char *out, size_t cap, const char *s, int json)
{
    size_t n = 0, left = strlen(s);
    while (left && cap - n >= 12) {
        uint32_t cp = 0;
        int len = hg_utf8_decode(s, left, &cp);
        n += put_char(out + n, s, len, cp, json);
        size_t step = len ? (size_t)len : 1;
        s += step;
        left -= step;
    }
    return n;
}

static size_t put_head(char *out, size_t cap, const char *when, const char *level, int json)
{
    int n =
        json ? snprintf(out, cap, "{\"time\":\"%s\",\"level\":\"%s\",\"message\":\"", when, level)
             : snprintf(out, cap, "%s %-5s ", when, level);
    return (size_t)(n > 0 ? n : 0);
}

/* A pipe that poll calls writable takes PIPE_BUF bytes, and no line is longer: with one thread at a
 * time between the two calls, the write does not block. */
static void write_line(const char *line, size_t n)
{
    static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;
    struct pollfd p = {.fd = STDERR_FILENO, .events = POLLOUT};
    pthread_mutex_lock(&turn);
    bool ok =
        poll(&p, 1, 0) == 1 && (p.revents & POLLOUT) && write(STDERR_FILENO, line, n) == (ssize_t)n;
    pthread_mutex_unlock(&turn);
    if (!ok)
        atomic_fetch_add(&n_dropped, 1);
}

uint64_t hg_log_dropped(void)
{
    return atomic_load(&n_dropped);
}

void hg_log(enum hg_log_level level, const char *format, ...)
{
    if ((int)level < atomic_load(&min_level_now) || level >= HG_LOG_OFF)
        return;
    char message[MESSAGE_CAP], line[LINE_CAP], when[40];
    va_list args;
    va_start(args, format);
    if (vsnprintf(message, sizeof message, format, args) < 0)
        message[0] = '\0';
    va_end(args);
    put_time(when, sizeof when);
    int json = atomic_load(&json_now);
    size_t n = put_head(line, sizeof line, when, level_names[level], json);
    n += put_message(line + n, sizeof line - LINE_TAIL - n, message, json);
    n += (size_t)snprintf(line + n, sizeof line - n, "%s\n", json ? "\"}" : "");
    write_line(line, n);
}

bool hg_log_is_json(void)
{
    return atomic_load(&json_now) != 0;
}

void hg_log_members(enum hg_log_level level, const char *members, size_t n)
{
    char line[LINE_CAP], when[40];
    if ((int)level < atomic_load(&min_level_now) || level >= HG_LOG_OFF || !hg_log_is_json())
        return;
    put_time(when, sizeof when);
    int head =
        snprintf(line, sizeof line, "{\"time\":\"%s\",\"level\":\"%s\",", when, level_names[level]);
    if (head < 0 || n > sizeof line - (size_t)head - LINE_TAIL)
        return;
    memcpy(line + head, members, n);
    size_t len = (size_t)head + n;
    line[len++] = '}';
    line[len++] = '\n';
    write_line(line, len);
}
