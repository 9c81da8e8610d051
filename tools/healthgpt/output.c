/* tools/healthgpt/output.c - check early, write once. */
#include "tools/healthgpt/output.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/file.h"

bool hg_output_is_stdout(const char *path)
{
    return strcmp(path, "-") == 0;
}

/* "a/b.png" -> "a", "b.png" -> ".", "/b.png" -> "/". */
static bool folder_of(const char *path, char *out, size_t cap)
{
    const char *slash = strrchr(path, '/');
    size_t n = slash ? (size_t)(slash - path) : 0;
    if (slash == path)
        n = 1;
    return snprintf(out, cap, "%.*s", slash ? (int)n : 1, slash ? path : ".") < (int)cap;
}

enum hg_status hg_output_check(const char *path, struct hg_error *err)
{
    char folder[4096];
    struct stat st;
    size_t n = strlen(path);
    if (hg_output_is_stdout(path))
        return isatty(STDOUT_FILENO)
                   ? hg_fail(err, HG_STATUS_BAD_REQUEST, "a PNG does not go to a terminal")
                   : HG_STATUS_OK;
    if (n == 0)
        return hg_fail(err, HG_STATUS_BAD_REQUEST, "the output name is empty");
    bool exists = stat(path, &st) == 0;
    if (path[n - 1] == '/' || (exists && S_ISDIR(st.st_mode)))
        return hg_fail(err, HG_STATUS_BAD_REQUEST, "%.140s is a folder: expected a file name",
                       path);
    if (exists && !S_ISREG(st.st_mode))
        return hg_fail(err, HG_STATUS_BAD_REQUEST,
                       "%.120s is not a regular file (-o - writes to stdout)", path);
    if (!folder_of(path, folder, sizeof folder))
        return hg_fail(err, HG_STATUS_TOO_LARGE, "%.80s...: path is too long", path);
    if (access(folder, W_OK | X_OK) != 0)
        return hg_fail(err, errno == ENOENT ? HG_STATUS_NOT_FOUND : HG_STATUS_IO,
                       "%.120s: cannot write there: %s", folder, strerror(errno));
    return HG_STATUS_OK;
}

enum hg_status hg_output_write(const char *path, const struct hg_image *im,
                               const struct hg_synthetic *mark, struct hg_error *err)
{
    struct hg_buf png = {0};
    enum hg_status status = hg_synthetic_png(im, mark, false, &png, err);
    if (status == HG_STATUS_OK && hg_output_is_stdout(path))
        fwrite(png.data, 1, png.len, stdout); /* a failure shows at the end, as for all output */
    else if (status == HG_STATUS_OK)
        status = hg_file_write(path, png.data, png.len, err);
    hg_buf_deinit(&png);
    return status;
}
