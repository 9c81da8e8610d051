/* tests/server/test_audit.c - the audit log: a chain that shows what was done to it, and a writer
 * that stops nobody. */
#include "server/ops/audit.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/file.h"
#include "tests/test.h"

enum { WAIT_S = 60 };

static char folder[] = "/tmp/hg_test_audit_XXXXXX", log_path[64], old_path[64], key_path[64];

static int make_folder(void **state)
{
    (void)state;
    struct hg_error err = {0};
    if (!mkdtemp(folder))
        return -1;
    snprintf(log_path, sizeof log_path, "%s/audit.jsonl", folder);
    snprintf(old_path, sizeof old_path, "%s/audit.jsonl.1", folder);
    snprintf(key_path, sizeof key_path, "%s/key", folder);
    return hg_file_write(key_path, "0123456789abcdef0123456789abcdef", 32, &err) == HG_STATUS_OK
               ? 0
               : -1;
}

static int clean(void **state)
{
    (void)state;
    unlink(log_path);
    unlink(old_path);
    return 0;
}

static int remove_folder(void **state)
{
    clean(state);
    unlink(key_path);
    return rmdir(folder);
}

static struct hg_audit *open_log(const char *path, bool closed, int n_lines)
{
    struct hg_audit_options o = {
        .path = path, .key_file = key_path, .fail_closed = closed, .n_lines = n_lines};
    struct hg_error err = {0};
    struct hg_audit *a = NULL;
    HG_TEST_OK(hg_audit_open(&o, &a, &err), err);
    return a;
}

static void add(struct hg_audit *a, int i)
{
    struct hg_audit_record r = {.route = "/v1/vqa", .task = HG_TASK_COMPREHENSION, .http = 200};
    snprintf(r.id, sizeof r.id, "%d", i);
    hg_audit_end(a, &r);
}

static void write_lines(int n)
{
    struct hg_audit *a = open_log(log_path, true, 0);
    for (int i = 0; i < n; i++) {
        assert_true(hg_audit_begin(a));
        add(a, i);
    }
    hg_audit_close(a);
}

static enum hg_status check_with(struct hg_audit_check *c, bool with_key, struct hg_error *err)
{
    if (with_key)
        HG_TRY(hg_audit_check_use_key(c, key_path, err));
    if (access(old_path, F_OK) == 0)
        HG_TRY(hg_audit_check_file(c, old_path, err));
    HG_TRY(hg_audit_check_file(c, log_path, err));
    return hg_audit_check_end(c, err);
}

static void must_be_good(struct hg_audit_check *c)
{
    struct hg_error err = {0};
    for (int with_key = 0; with_key < 2; with_key++) {
        *c = (struct hg_audit_check){0};
        HG_TEST_OK(check_with(c, with_key, &err), err);
    }
}

/* ---- the chain ------------------------------------------------------------------------------- */

static void audit_chain_goes_on_over_restarts(void **state)
{
    (void)state;
    struct hg_audit_check c;
    struct stat st;
    write_lines(3); /* and start, stop */
    must_be_good(&c);
    assert_int_equal(c.n_lines, 5);
    write_lines(2);
    must_be_good(&c);
    assert_int_equal(c.n_lines, 9);
    assert_int_equal(c.last_seq, 9);
    assert_int_equal(c.n_chains, 1);
    assert_int_equal(stat(log_path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
}

/* Lines of the file, each with its newline. */
static size_t split(char *text, size_t n, char **lines, size_t cap)
{
    size_t count = 0;
    for (char *p = text; p < text + n && count < cap; count++) {
        lines[count] = p;
        p = memchr(p, '\n', (size_t)(text + n - p));
        assert_non_null(p);
        p++;
    }
    lines[count] = text + n;
    return count;
}

static void put(struct hg_buf *b, char **lines, size_t i)
{
    assert_int_equal(hg_buf_append(b, lines[i], (size_t)(lines[i + 1] - lines[i])), HG_STATUS_OK);
}

/* Writes the text, which must be wrong at this line (0: anywhere). */
static void must_be_bad(struct hg_buf *b, bool with_key, const char *where)
{
    struct hg_error err = {0};
    struct hg_audit_check c = {0};
    int fd = open(log_path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600); /* in place: it is many times */
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, b->data, b->len, 0), (ssize_t)b->len);
    assert_int_equal(ftruncate(fd, (off_t)b->len), 0);
    close(fd);
    HG_TEST_FAILS(check_with(&c, with_key, &err), HG_STATUS_BAD_FILE, err, where);
    hg_buf_deinit(b);
}

static void audit_chain_detects_deletion_change_order_truncation(void **state)
{
    (void)state;
    enum { N = 8 };
    char *lines[N + 1], where[32];
    size_t n;
    write_lines(N - 2);
    char *text = (char *)hg_test_read(log_path, &n);
    assert_int_equal(split(text, n, lines, N), N);
    for (size_t i = 0; i < N - 1; i++) { /* the last line: below */
        struct hg_buf b = {0};
        for (size_t k = 0; k < N; k++)
            if (k != i)
                put(&b, lines, k);
        snprintf(where, sizeof where, "line %zu:", i + 1); /* the one that took its place */
        must_be_bad(&b, false, where);
        for (size_t k = 0; k < N; k++) /* i and i + 1 change places */
            put(&b, lines, k == i ? i + 1 : k == i + 1 ? i : k);
        must_be_bad(&b, false, where);
        for (size_t k = 0; k < N; k++) { /* twice */
            put(&b, lines, k);
            if (k == i)
                put(&b, lines, k);
        }
        snprintf(where, sizeof where, "line %zu:", i + 2);
        must_be_bad(&b, false, where);
    }
    for (size_t at = 0; at < n; at++) { /* every byte, one after the other */
        bool last = text + at >= lines[N - 1];
        struct hg_buf b = {0};
        assert_int_equal(hg_buf_append(&b, text, n), HG_STATUS_OK);
        b.data[at] = b.data[at] == '0' ? '1' : '0';
        must_be_bad(&b, last, text[at] == '\n' || last ? "" : "line ");
    }
    for (size_t cut = 1; cut < (size_t)(lines[N] - lines[N - 1]); cut++) { /* within a line */
        struct hg_buf b = {0};
        assert_int_equal(hg_buf_append(&b, text, n - cut), HG_STATUS_OK);
        must_be_bad(&b, false, "cut off");
    }
    free(text);
}

/* At the ends of lines only a place that was noted elsewhere shows it. */
static void audit_anchor_detects_what_is_missing_at_the_end(void **state)
{
    (void)state;
    char *lines[8];
    size_t n;
    struct hg_error err = {0};
    struct hg_audit_check c;
    write_lines(3);
    must_be_good(&c);
    struct hg_audit_check anchored = {.anchor_seq = c.last_seq};
    memcpy(anchored.anchor, c.last, sizeof c.last);
    struct hg_audit_check again = anchored;
    HG_TEST_OK(check_with(&again, false, &err), err);
    char *text = (char *)hg_test_read(log_path, &n);
    size_t count = split(text, n, lines, 7);
    assert_int_equal(hg_file_write(log_path, text, (size_t)(lines[count - 1] - text), &err),
                     HG_STATUS_OK);
    again = (struct hg_audit_check){0};
    HG_TEST_OK(check_with(&again, true, &err), err); /* so it is */
    again = anchored;
    HG_TEST_FAILS(check_with(&again, false, &err), HG_STATUS_BAD_FILE, err,
                  "lines at the end are missing");
    clean(state);
    write_lines(3); /* the same sequence at another time */
    again = anchored;
    HG_TEST_FAILS(check_with(&again, false, &err), HG_STATUS_BAD_FILE, err, "written anew");
    free(text);
}

/* A crash in the middle of a write: the next start ends the line and says so. */
static void audit_torn_line_is_told_and_accepted(void **state)
{
    (void)state;
    struct hg_audit_check c;
    struct hg_error err = {0};
    size_t n;
    for (int whole_lines = 0; whole_lines < 2; whole_lines++) {
        clean(state);
        if (whole_lines)
            write_lines(2);
        FILE *f = fopen(log_path, "a");
        assert_non_null(f);
        fputs("{\"seq\":5,\"ts\":\"20", f);
        fclose(f);
        c = (struct hg_audit_check){0};
        HG_TEST_FAILS(check_with(&c, false, &err), HG_STATUS_BAD_FILE, err, "cut off");
        write_lines(1);
        if (!whole_lines) { /* the first line of all: nothing to hold it against */
            c = (struct hg_audit_check){0};
            (void)check_with(&c, false, &err);
            continue;
        }
        must_be_good(&c);
        assert_int_equal(c.n_torn, 1);
        assert_int_equal(c.n_lines, 4 + 1 + 3);
        char *text = (char *)hg_test_read(log_path, &n), *piece = strstr(text, "\"20\n");
        assert_non_null(piece);
        assert_non_null(strstr(text, "\"torn\":true"));
        piece[1] = '3'; /* it is in the chain as well */
        struct hg_buf b = {0};
        assert_int_equal(hg_buf_append(&b, text, n), HG_STATUS_OK);
        must_be_bad(&b, false, "was changed");
        free(text);
    }
}

static void wait_for_size(const char *path)
{
    struct stat st;
    const struct timespec pause = {0, 2000000};
    time_t end = time(NULL) + WAIT_S;
    while (stat(path, &st) != 0 || st.st_size == 0) {
        assert_true(time(NULL) < end);
        nanosleep(&pause, NULL);
    }
}

static void audit_chain_goes_on_in_a_rotated_file(void **state)
{
    (void)state;
    struct hg_audit_check c, alone = {0};
    struct hg_error err = {0};
    struct hg_audit *a = open_log(log_path, true, 0);
    for (int i = 0; i < 20; i++) {
        assert_true(hg_audit_begin(a));
        add(a, i);
        if (i == 10) {
            assert_int_equal(rename(log_path, old_path), 0);
            hg_audit_reopen(a);
            wait_for_size(log_path);
        }
        if (i == 15)
            hg_audit_reopen(a); /* the same file: of no effect */
    }
    hg_audit_close(a);
    must_be_good(&c);
    assert_int_equal(c.n_lines, 20 + 3); /* start, rotate, stop */
    HG_TEST_OK(hg_audit_check_file(&alone, log_path, &err), err);
    assert_true(alone.first_seq > 1 && alone.last_seq == c.last_seq);
    /* without the file between them two files do not fit */
    assert_int_equal(rename(log_path, old_path), 0);
    write_lines(1);
    alone = (struct hg_audit_check){0};
    HG_TEST_OK(hg_audit_check_file(&alone, old_path, &err), err);
    HG_TEST_OK(hg_audit_check_file(&alone, log_path, &err), err); /* begun anew: said, no error */
    assert_int_equal(alone.n_chains, 1);
}

static void audit_files_that_it_must_not_write_to(void **state)
{
    (void)state;
    struct hg_audit_options o = {.path = log_path, .key_file = ""};
    struct hg_audit *a = open_log(log_path, false, 0), *second;
    struct hg_error err = {0};
    HG_TEST_FAILS(hg_audit_open(&o, &second, &err), HG_STATUS_BUSY, err, "another process");
    hg_audit_close(a);
    assert_int_equal(hg_file_write(log_path, "{\"a\": 1}\n", 9, &err), HG_STATUS_OK);
    HG_TEST_FAILS(hg_audit_open(&o, &a, &err), HG_STATUS_BAD_FILE, err, "none of an audit log");
    o.path = "/nonexistent/audit";
    HG_TEST_FAILS(hg_audit_open(&o, &a, &err), HG_STATUS_IO, err, "/nonexistent/audit");
    o.path = log_path;
    o.key_file = "/nonexistent/key";
    HG_TEST_FAILS(hg_audit_open(&o, &a, &err), HG_STATUS_BAD_REQUEST, err, "audit_key_file");
    assert_int_equal(hg_file_write(old_path, "short", 5, &err), HG_STATUS_OK);
    HG_TEST_FAILS(hg_audit_check_key(old_path, &err), HG_STATUS_BAD_REQUEST, err,
                  "at least 32 random bytes, got 5");
}

/* ---- when it cannot be written --------------------------------------------------------------- */

static struct hg_audit_stats wait_failing(struct hg_audit *a, bool failing)
{
    struct hg_audit_stats s;
    const struct timespec pause = {0, 2000000};
    time_t end = time(NULL) + WAIT_S;
    for (hg_audit_stats(a, &s); s.failing != failing; hg_audit_stats(a, &s)) {
        assert_true(time(NULL) < end);
        nanosleep(&pause, NULL);
    }
    return s;
}

static void audit_full_disk_under_both_policies(void **state)
{
    (void)state;
    struct hg_audit_stats s;
    for (int closed = 0; closed < 2; closed++) {
        struct hg_audit *a = open_log("/dev/full", closed, 4);
        wait_failing(a, true);
        for (int i = 0; i < 10; i++) {
            bool begun = hg_audit_begin(a);
            assert_int_equal(begun, !closed);
            if (begun)
                add(a, i);
        }
        hg_audit_stats(a, &s);
        assert_int_equal(s.n_lost, closed ? 0 : 6); /* 4 wait */
        assert_int_equal(s.n_refused, closed ? 10 : 0);
        hg_audit_close(a); /* gives up after a while */
    }
}

/* A pipe that nobody reads, of one page. */
static int make_pipe(void)
{
    assert_int_equal(mkfifo(log_path, 0600), 0);
    int fd = open(log_path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_true(fcntl(fd, F_SETPIPE_SZ, 4096) >= 4096);
    return fd;
}

static void drain(int fd, struct hg_buf *out)
{
    char piece[4096];
    for (ssize_t n = read(fd, piece, sizeof piece); n > 0; n = read(fd, piece, sizeof piece))
        assert_int_equal(hg_buf_append(out, piece, (size_t)n), HG_STATUS_OK);
}

static void audit_full_pipe_stops_nobody_and_goes_on(void **state)
{
    (void)state;
    enum { RING = 8 };
    const struct timespec pause = {0, 2000000};
    for (int closed = 0; closed < 2; closed++) {
        struct hg_buf text = {0};
        struct hg_audit_stats s;
        struct hg_audit *a;
        struct hg_error err = {0};
        int n = 0, fd = make_pipe();
        a = open_log(log_path, closed, RING);
        /* Nothing here blocks, so this ends. */
        for (hg_audit_stats(a, &s); !s.failing; hg_audit_stats(a, &s)) {
            for (bool room = true; room && s.n_lost == 0; hg_audit_stats(a, &s)) {
                room = hg_audit_begin(a);
                if (room)
                    add(a, n++);
            }
            nanosleep(&pause, NULL);
            if (!closed && s.n_lines + s.n_lost == (uint64_t)n && hg_audit_begin(a))
                add(a, n++); /* the writer was faster: the pipe has room */
        }
        assert_true(n > RING);
        bool begun = hg_audit_begin(a);
        assert_int_equal(begun, !closed);
        while (!closed && s.n_lost == 0) { /* the ring is full soon */
            add(a, n++);
            assert_true(hg_audit_begin(a));
            hg_audit_stats(a, &s);
        }
        if (begun)
            add(a, n++);
        hg_audit_stats(a, &s);
        assert_int_equal(s.n_lost > 0, !closed); /* closed: what was accepted is never lost */
        drain(fd, &text);
        time_t end = time(NULL) + WAIT_S;
        for (hg_audit_stats(a, &s); s.failing || s.n_lines + s.n_lost < (uint64_t)n;
             hg_audit_stats(a, &s)) {
            assert_true(time(NULL) < end);
            drain(fd, &text);
        }
        assert_true(hg_audit_begin(a)); /* it is written again */
        add(a, n++);
        while (s.n_lines + s.n_lost < (uint64_t)n) {
            drain(fd, &text);
            hg_audit_stats(a, &s);
        }
        drain(fd, &text);
        hg_audit_close(a);
        drain(fd, &text);
        close(fd);
        unlink(log_path);
        /* what came out of the pipe is a chain, which says what was lost */
        assert_int_equal(hg_file_write(log_path, text.data, text.len, &err), HG_STATUS_OK);
        struct hg_audit_check c;
        must_be_good(&c);
        assert_int_equal(c.n_lines + s.n_lost, (uint64_t)n + 2);
        assert_int_equal(strstr(text.data, "\"lost\":") != NULL, !closed);
        hg_buf_deinit(&text);
        unlink(log_path);
    }
}

/* ---- fingerprints ---------------------------------------------------------------------------- */

static void text_of(const struct hg_audit *a, const char *one, const char *two,
                    uint8_t out[HG_SHA256_BYTES])
{
    struct hg_hmac h;
    hg_audit_text_begin(a, &h);
    hg_audit_text_add(&h, one, strlen(one));
    hg_audit_text_add(&h, two, strlen(two));
    hg_audit_text_end(&h, out);
}

static void audit_fingerprints_tell_apart(void **state)
{
    (void)state;
    uint8_t a_bc[32], ab_c[32], again[32], other[32];
    struct hg_audit_options no_key = {.path = old_path, .key_file = ""};
    struct hg_audit *a = open_log(log_path, false, 0), *b = NULL;
    struct hg_error err = {0};
    HG_TEST_OK(hg_audit_open(&no_key, &b, &err), err);
    text_of(a, "a", "bc", a_bc);
    text_of(a, "ab", "c", ab_c);
    text_of(a, "a", "bc", again);
    text_of(b, "a", "bc", other);
    assert_memory_equal(a_bc, again, 32);
    assert_memory_not_equal(a_bc, ab_c, 32);
    assert_memory_not_equal(a_bc, other, 32); /* another key */
    uint8_t pixels[12] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
    struct hg_image wide = {2, 2, pixels}, flat = {4, 1, pixels};
    hg_audit_pixels(a, &wide, a_bc);
    hg_audit_pixels(a, &flat, ab_c);
    assert_memory_not_equal(a_bc, ab_c, 32);
    pixels[11]++;
    hg_audit_pixels(a, &wide, again);
    assert_memory_not_equal(a_bc, again, 32);
    hg_audit_close(a);
    hg_audit_close(b);
}

static void audit_subjects_are_checked(void **state)
{
    (void)state;
    char text[66];
    memset(text, 'a', 65);
    text[65] = '\0';
    assert_false(hg_audit_subject_is_good(text));
    text[64] = '\0';
    assert_true(hg_audit_subject_is_good(text));
    assert_true(hg_audit_subject_is_good("A-z.0_9"));
    assert_false(hg_audit_subject_is_good(""));
    assert_false(hg_audit_subject_is_good("a b"));
    assert_false(hg_audit_subject_is_good("a\""));
    assert_false(hg_audit_subject_is_good("\xC3\xA9"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(audit_chain_goes_on_over_restarts, clean),
        cmocka_unit_test_teardown(audit_chain_detects_deletion_change_order_truncation, clean),
        cmocka_unit_test_teardown(audit_anchor_detects_what_is_missing_at_the_end, clean),
        cmocka_unit_test_teardown(audit_torn_line_is_told_and_accepted, clean),
        cmocka_unit_test_teardown(audit_chain_goes_on_in_a_rotated_file, clean),
        cmocka_unit_test_teardown(audit_files_that_it_must_not_write_to, clean),
        cmocka_unit_test_teardown(audit_full_disk_under_both_policies, clean),
        cmocka_unit_test_teardown(audit_full_pipe_stops_nobody_and_goes_on, clean),
        cmocka_unit_test_teardown(audit_fingerprints_tell_apart, clean),
        cmocka_unit_test(audit_subjects_are_checked),
    };
    return cmocka_run_group_tests_name("server/ops/audit", tests, make_folder, remove_folder);
}
