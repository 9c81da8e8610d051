/* server/crash.h - what is left of a process that crashes: no memory, and a report without any.
 *
 * The memory of this program holds what patients' pictures and questions are made of. So there are
 * no core dumps (RLIMIT_CORE 0, and PR_SET_DUMPABLE 0, which also keeps debuggers and other
 * processes of the user out), and SIGSEGV, SIGBUS, SIGFPE, SIGILL and SIGABRT write a few lines to
 * stderr before they end the process as they would have: version, build id, signal, name of the
 * thread, and return addresses as offsets into their modules (for `addr2line -e healthgptd`). No
 * bytes of memory, registers, arguments or environment.
 *
 * `--core-dumps` allows dumps and debuggers; the report is written all the same. In sanitizer
 * builds neither is touched: they report themselves. */
#ifndef HG_SERVER_CRASH_H
#define HG_SERVER_CRASH_H

#include <stdbool.h>

/* At the start, after hg_process_init. json: one line of JSON, as the log's. */
void hg_crash_install(bool core_dumps, bool json);
/* Look again which modules there are: the cuda backend is loaded later. A crash meanwhile is
 * reported with "?" for its addresses. */
void hg_crash_learn_modules(void);

#endif
