/* model/load/quant_cache_file.c - a safetensors file whose header is written last, in room that was
 * left for it. The lock of a .part ends with its writer, so one that was left behind is taken over.
 */
#include "model/load/quant_cache_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static enum hg_status fail_errno(struct hg_error *err, const char *path, const char *what)
{
    int e = errno;
    return hg_fail(err, HG_STATUS_IO, "%.200s: %s: %s", path, what, strerror(e));
}

/* The locked file is the one of this name: between open and flock another writer may have finished
 * and renamed it. */
static bool is_current(const struct hg_quant_part *p)
{
    struct stat open_one, named;
    return fstat(p->fd, &open_one) == 0 && stat(p->path, &named) == 0 &&
           open_one.st_ino == named.st_ino && open_one.st_dev == named.st_dev;
}

static enum hg_status open_alone(struct hg_quant_part *p, struct hg_error *err)
{
    for (int attempt = 0; attempt < 4; attempt++) {
        p->fd = open(p->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
        if (p->fd < 0)
            return fail_errno(err, p->path, "cannot create");
        if (flock(p->fd, LOCK_EX | LOCK_NB) != 0) {
            int e = errno;
            close(p->fd);
            p->fd = -1;
            errno = e;
            return e == EWOULDBLOCK
                       ? hg_fail(err, HG_STATUS_BUSY, "%.200s: another process writes it", p->path)
                       : fail_errno(err, p->path, "cannot lock");
        }
        if (is_current(p))
            return HG_STATUS_OK;
        close(p->fd);
        p->fd = -1;
    }
    return hg_fail(err, HG_STATUS_BUSY, "%.200s: other processes write it", p->path);
}

enum hg_status hg_quant_part_open(struct hg_quant_part *p, const char *final, size_t header,
                                  uint64_t bytes, struct hg_error *err)
{
    p->fd = -1;
    p->n = 0;
    p->data_at = ((uint64_t)header + 8 + 4095) / 4096 * 4096;
    if (snprintf(p->path, sizeof p->path, "%s.part", final) >= (int)sizeof p->path)
        return hg_fail(err, HG_STATUS_TOO_LARGE, "%.100s: path is too long", final);
    HG_TRY(open_alone(p, err));
    enum hg_status status = HG_STATUS_OK;
    struct rlimit most = {.rlim_cur = RLIM_INFINITY};
    getrlimit(RLIMIT_FSIZE, &most); /* writing beyond it is a signal */
    if (most.rlim_cur != RLIM_INFINITY && most.rlim_cur < p->data_at + bytes)
        status =
            hg_fail(err, HG_STATUS_IO, "%.200s: no room for it: files are limited to %llu bytes",
                    p->path, (unsigned long long)most.rlim_cur);
    else if (ftruncate(p->fd, 0) != 0)
        status = fail_errno(err, p->path, "cannot empty");
    /* A disk that is too full says so now and not after minutes. */
    else if (fallocate(p->fd, 0, 0, (off_t)(p->data_at + bytes)) != 0 && errno != EOPNOTSUPP &&
             errno != ENOSYS)
        status = fail_errno(err, p->path, "no room for it");
    if (status != HG_STATUS_OK)
        hg_quant_part_close(p);
    return status;
}

static int write_at(int fd, const char *data, size_t n, uint64_t at)
{
    while (n) {
        ssize_t k = pwrite(fd, data, n, (off_t)at);
        if (k < 0 && errno == EINTR)
            continue;
        if (k < 0)
            return -1;
        data += k;
        n -= (size_t)k;
        at += (uint64_t)k;
    }
    return 0;
}

enum hg_status hg_quant_part_add(struct hg_quant_part *p, const void *data, size_t n, uint64_t *at,
                                 struct hg_error *err)
{
    *at = p->n;
    if (write_at(p->fd, data, n, p->data_at + p->n) != 0)
        return fail_errno(err, p->path, "cannot write");
    /* begun now, so that little is left to wait for at the end */
    sync_file_range(p->fd, (off_t)(p->data_at + p->n), (off_t)n, SYNC_FILE_RANGE_WRITE);
    p->n += n;
    return HG_STATUS_OK;
}

enum hg_status hg_quant_part_finish(struct hg_quant_part *p, const char *final,
                                    const struct hg_buf *header, struct hg_error *err)
{
    uint64_t room = p->data_at - 8;
    if (header->len > room)
        return hg_fail(err, HG_STATUS_INTERNAL, "%.200s: a header of %zu bytes in %llu", p->path,
                       header->len, (unsigned long long)room);
    char *text = malloc((size_t)p->data_at);
    if (!text)
        return hg_fail(err, HG_STATUS_NO_MEMORY, "%.200s: out of memory", p->path);
    for (int i = 0; i < 8; i++)
        text[i] = (char)(room >> 8 * i);
    memcpy(text + 8, header->data, header->len);
    memset(text + 8 + header->len, ' ', (size_t)room - header->len);
    enum hg_status status = HG_STATUS_OK;
    if (write_at(p->fd, text, (size_t)p->data_at, 0) != 0 ||
        ftruncate(p->fd, (off_t)(p->data_at + p->n)) != 0 || fdatasync(p->fd) != 0)
        status = fail_errno(err, p->path, "cannot write");
    else if (rename(p->path, final) != 0)
        status = fail_errno(err, final, "cannot rename to it");
    free(text);
    if (status == HG_STATUS_OK) {
        close(p->fd);
        p->fd = -1;
    }
    return status;
}

void hg_quant_part_close(struct hg_quant_part *p)
{
    if (p->fd < 0)
        return;
    unlink(p->path); /* still locked: it is ours */
    close(p->fd);
    p->fd = -1;
}
