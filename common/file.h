/* common/file.h - a regular file mapped read-only, or read whole into memory. */
#ifndef HG_COMMON_FILE_H
#define HG_COMMON_FILE_H

#include <stdbool.h>
#include <stddef.h>

#include "common/buf.h"
#include "common/status.h"

struct hg_file_map {
    const unsigned char *data; /* NULL for an empty file */
    size_t n;
};

/* HG_STATUS_NOT_FOUND when it does not exist, BAD_FILE when it is not a regular file, IO otherwise.
 */
enum hg_status hg_file_map(const char *path, struct hg_file_map *out, struct hg_error *err);
void hg_file_unmap(struct hg_file_map *m);
/* Bytes [data, data + n) have been read: give their pages back, so that what was copied out of a
 * file is not resident twice. They are read again if they are touched again, and stay in the page
 * cache, from which the next start of the program is fast. Nothing happens to other memory. */
void hg_file_forget(const struct hg_file_map *m, const void *data, size_t n);
/* A few pages of [data, data + n) are going to be read (`random`): a fault is not to bring its
 * neighbours, which would be the whole file. Or no more of that. */
void hg_file_sample(const struct hg_file_map *m, const void *data, size_t n, bool random);

/* Append the whole file to out; at most max_bytes (TOO_LARGE above). A failure leaves out as it
 * was. */
enum hg_status hg_file_read(const char *path, size_t max_bytes, struct hg_buf *out,
                            struct hg_error *err);
/* Write to path.tmp.<pid>, then rename. */
enum hg_status hg_file_write(const char *path, const void *data, size_t n, struct hg_error *err);
bool hg_file_exists(const char *path);

/* Join dir and name into out (NUL-terminated); HG_STATUS_TOO_LARGE when it does not fit. */
enum hg_status hg_path_join(char *out, size_t cap, const char *dir, const char *name);

#endif
