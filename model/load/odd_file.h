/* model/load/odd_file.h - a file that holds something else than its name says: what downloads leave
 * when they go wrong. */
#ifndef HG_MODEL_LOAD_ODD_FILE_H
#define HG_MODEL_LOAD_ODD_FILE_H

#include <stddef.h>
#include <stdint.h>

#include "common/status.h"

enum hg_odd_file { HG_ODD_NONE, HG_ODD_LFS_POINTER, HG_ODD_WEB_PAGE };

/* From the first bytes of a file (a few hundred do). *real_bytes: what a git-LFS pointer stands
 * for, 0 when it does not say; may be NULL. */
enum hg_odd_file hg_odd_file_of(const void *head, size_t n, int64_t *real_bytes);
const char *hg_odd_file_text(enum hg_odd_file kind); /* "a git-LFS pointer, not the file itself" */

/* BAD_FILE "<path>: a git-LFS pointer, not the file itself (...)" when it is one. A file that
 * cannot be read is no error here. */
enum hg_status hg_odd_file_check(const char *path, struct hg_error *err);

#endif
