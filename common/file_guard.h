/* common/file_guard.h - what happens when a mapped file is cut while it is being read: the kernel
 * sends SIGBUS. The programs install a handler that names the file and the place and ends with the
 * exit code of a bad file; nothing can be continued, because any load may have been lost.
 *
 * hg_file_map and hg_file_unmap keep the table of what is mapped. */
#ifndef HG_COMMON_FILE_GUARD_H
#define HG_COMMON_FILE_GUARD_H

#include <stdbool.h>
#include <stddef.h>

/* Once, at the start of a program; its name begins the message. A SIGBUS outside every mapped file
 * ends the process as without a handler. */
void hg_file_guard_install(const char *program);

/* Thread-safe. Of more than 256 files at a time the rest is guarded without a name. */
void hg_file_guard_add(const void *data, size_t n, const char *path);
void hg_file_guard_remove(const void *data);

#endif
