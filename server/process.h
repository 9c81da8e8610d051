/* server/process.h - what both programs do first. */
#ifndef HG_SERVER_PROCESS_H
#define HG_SERVER_PROCESS_H

#include <stdint.h>

/* Ignore SIGPIPE, and fill the descriptors 0..2 that the caller has closed, so that no socket or
 * model file can become "stdout". Writing to a filled one fails, as it should. A mapped file that
 * is cut while it is read ends the program with a message (common/file_guard.h). */
void hg_process_init(const char *program);

/* Flush stdout and end without exit handlers: those of a driver that has lost its card may never
 * return. */
_Noreturn void hg_process_leave(int code);

/* Raise the limit of open descriptors to n, or as far as it goes, and say so in the log. */
void hg_process_want_files(int64_t n);

/* Of this process, from the kernel; what cannot be read is 0. */
struct hg_process_facts {
    double cpu_s, start_s;     /* the latter: Unix time */
    int64_t resident, virtual; /* bytes */
    int64_t open_files, max_files;
};
void hg_process_facts(struct hg_process_facts *out);

#endif
