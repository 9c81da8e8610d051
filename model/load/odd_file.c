/* model/load/odd_file.c - git-LFS pointers and web pages. */
#include "model/load/odd_file.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

enum { HEAD_CAP = 512, SHOWN = 90 };

static bool begins(const char *s, size_t n, const char *prefix)
{
    size_t k = strlen(prefix);
    return n >= k && strncasecmp(s, prefix, k) == 0;
}

enum hg_odd_file hg_odd_file_of(const void *head, size_t n, int64_t *real_bytes)
{
    char text[HEAD_CAP];
    n = n < HEAD_CAP - 1 ? n : HEAD_CAP - 1;
    if (n) /* an empty file has no bytes at all */
        memcpy(text, head, n);
    text[n] = '\0';
    if (real_bytes)
        *real_bytes = 0;
    if (begins(text, n, "version https://git-lfs")) {
        const char *size = strstr(text, "\nsize ");
        if (size && real_bytes)
            *real_bytes = strtoll(size + 6, NULL, 10);
        return HG_ODD_LFS_POINTER;
    }
    const char *s = text + strspn(text, " \t\r\n");
    size_t left = n - (size_t)(s - text);
    return begins(s, left, "<!doctype") || begins(s, left, "<html") ? HG_ODD_WEB_PAGE : HG_ODD_NONE;
}

const char *hg_odd_file_text(enum hg_odd_file kind)
{
    return kind == HG_ODD_LFS_POINTER ? "a git-LFS pointer, not the file itself"
           : kind == HG_ODD_WEB_PAGE  ? "a web page, not the file: what the browser saved"
                                      : "";
}

enum hg_status hg_odd_file_check(const char *path, struct hg_error *err)
{
    char head[HEAD_CAP];
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    ssize_t got =
        fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) ? read(fd, head, HEAD_CAP) : 0;
    if (fd >= 0)
        close(fd);
    enum hg_odd_file kind = got > 0 ? hg_odd_file_of(head, (size_t)got, NULL) : HG_ODD_NONE;
    size_t n = strlen(path);
    if (kind == HG_ODD_NONE)
        return HG_STATUS_OK;
    return hg_fail(err, HG_STATUS_BAD_FILE, "%s%s: %s%s", n > SHOWN ? "..." : "",
                   n > SHOWN ? path + n - SHOWN : path, hg_odd_file_text(kind),
                   kind == HG_ODD_LFS_POINTER ? ": run \"git lfs pull\" in the clone it is from"
                                              : ": download it again");
}
