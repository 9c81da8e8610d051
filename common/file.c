/* common/file.c - regular files only: a FIFO, a device or a folder is refused, never waited for. */
#include "common/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/file_guard.h"

enum { PATH_CAP = 4096 };

static enum hg_status fail_errno(struct hg_error *err, const char *what, const char *path, int e)
{
    enum hg_status s = e == ENOENT || e == ENOTDIR ? HG_STATUS_NOT_FOUND : HG_STATUS_IO;
    return hg_fail(err, s, "%s: %s: %s", path, what, strerror(e));
}

/* O_NONBLOCK keeps open() from waiting for the writer of a FIFO; regular files ignore it. */
static enum hg_status open_regular(const char *path, int *fd_out, size_t *n, struct hg_error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return fail_errno(err, "cannot open", path, errno);
    struct stat st;
    enum hg_status status = HG_STATUS_OK;
    if (fstat(fd, &st) != 0)
        status = fail_errno(err, "cannot stat", path, errno);
    else if (!S_ISREG(st.st_mode))
        status = hg_fail(err, HG_STATUS_BAD_FILE, "%s: not a regular file", path);
    if (status != HG_STATUS_OK) {
        close(fd);
        return status;
    }
    *fd_out = fd;
    *n = (size_t)st.st_size;
    return HG_STATUS_OK;
}

enum hg_status hg_file_map(const char *path, struct hg_file_map *out, struct hg_error *err)
{
    int fd = -1;
    size_t n = 0;
    *out = (struct hg_file_map){0};
    HG_TRY(open_regular(path, &fd, &n, err));
    enum hg_status status = HG_STATUS_OK;
    void *p = NULL;
    if (n) {
        p = mmap(NULL, n, PROT_READ, MAP_PRIVATE, fd, 0);
        if (p == MAP_FAILED)
            status = fail_errno(err, "cannot map", path, errno);
    }
    close(fd);
    if (status == HG_STATUS_OK)
        *out = (struct hg_file_map){p, n};
    if (out->data)
        hg_file_guard_add(p, n, path);
    return status;
}

void hg_file_unmap(struct hg_file_map *m)
{
    if (!m)
        return;
    if (m->data) {
        hg_file_guard_remove(m->data);
        munmap((void *)(uintptr_t)m->data, m->n);
    }
    *m = (struct hg_file_map){0};
}

static void advise(const struct hg_file_map *m, const void *data, size_t n, int advice)
{
    uintptr_t begin = (uintptr_t)m->data, at = (uintptr_t)data;
    if (!m->data || n == 0 || at < begin || at - begin >= m->n || n > m->n - (at - begin))
        return; /* not of this file: dropping other memory would lose it */
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), first = at / page * page;
    madvise((void *)first, (at + n + page - 1) / page * page - first, advice);
}

void hg_file_forget(const struct hg_file_map *m, const void *data, size_t n)
{
    advise(m, data, n, MADV_DONTNEED);
}

void hg_file_sample(const struct hg_file_map *m, const void *data, size_t n, bool random)
{
    advise(m, data, n, random ? MADV_RANDOM : MADV_NORMAL);
}

/* Read up to n bytes at p; short only at the end of the file. */
static ssize_t read_full(int fd, char *p, size_t n)
{
    size_t got = 0;
    while (got < n) {
        ssize_t k = read(fd, p + got, n - got);
        if (k < 0 && errno == EINTR)
            continue;
        if (k < 0)
            return -1;
        if (k == 0)
            break;
        got += (size_t)k;
    }
    return (ssize_t)got;
}

enum hg_status hg_file_read(const char *path, size_t max_bytes, struct hg_buf *out,
                            struct hg_error *err)
{
    int fd = -1;
    size_t n = 0;
    enum hg_status status = open_regular(path, &fd, &n, err);
    if (status != HG_STATUS_OK)
        return status;
    if (n > max_bytes) {
        status = hg_fail(err, HG_STATUS_TOO_LARGE, "%s: at most %zu bytes allowed, has %zu", path,
                         max_bytes, n);
        goto out;
    }
    status = hg_buf_reserve(out, n);
    if (status != HG_STATUS_OK) {
        hg_fail(err, status, "%s: out of memory for %zu bytes", path, n);
        goto out;
    }
    ssize_t got = read_full(fd, out->data + out->len, n);
    if (got < 0) {
        status = fail_errno(err, "cannot read", path, errno);
        got = 0;
    }
    out->len += (size_t)got;
    out->data[out->len] = '\0';
out:
    close(fd);
    return status;
}

static int write_full(int fd, const char *p, size_t n)
{
    while (n) {
        ssize_t k = write(fd, p, n);
        if (k < 0 && errno == EINTR)
            continue;
        if (k < 0)
            return -1;
        p += k;
        n -= (size_t)k;
    }
    return 0;
}

enum hg_status hg_file_write(const char *path, const void *data, size_t n, struct hg_error *err)
{
    char tmp[PATH_CAP];
    int len = snprintf(tmp, sizeof tmp, "%s.tmp.%ld", path, (long)getpid());
    if (len < 0 || (size_t)len >= sizeof tmp)
        return hg_fail(err, HG_STATUS_TOO_LARGE, "%.80s...: path is too long", path);
    int fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (fd < 0)
        return fail_errno(err, "cannot create", tmp, errno);
    /* fsync before rename: after a crash the name holds the old or the new bytes, never none. */
    int e = write_full(fd, data, n) != 0 || fsync(fd) != 0 ? errno : 0;
    if (close(fd) != 0 && !e)
        e = errno;
    if (!e && rename(tmp, path) != 0)
        e = errno;
    if (!e)
        return HG_STATUS_OK;
    unlink(tmp);
    return fail_errno(err, "cannot write", path, e);
}

bool hg_file_exists(const char *path)
{
    return access(path, F_OK) == 0;
}

enum hg_status hg_path_join(char *out, size_t cap, const char *dir, const char *name)
{
    size_t n = strlen(dir);
    const char *slash = n == 0 || dir[n - 1] == '/' ? "" : "/";
    int len = snprintf(out, cap, "%s%s%s", dir, slash, name);
    return len < 0 || (size_t)len >= cap ? HG_STATUS_TOO_LARGE : HG_STATUS_OK;
}
