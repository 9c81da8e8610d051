/* server/crash.c - the handler uses what was learnt before, its own stack and write(2).
 *
 * Everything in it is async-signal-safe but backtrace(), which walks unwind tables under the
 * loader's lock: it was called once before, so that nothing is loaded, and an alarm ends the
 * process should the lock be what the crash happened in. */
#include "server/crash.h"

#include <execinfo.h>
#include <link.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "server/version.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { SANITIZED = 1 };
#else
enum { SANITIZED = 0 };
#endif

enum { MAX_MODULES = 64, NAME_CAP = 48, MAX_FRAMES = 48, PATIENCE_S = 5, STACK_BYTES = 64 << 10 };

struct module {
    uintptr_t base, end;
    char name[NAME_CAP];
};

static struct module modules[MAX_MODULES];
static atomic_int n_modules;
static char build_id[2 * 20 + 1];
static bool as_json;
static struct sigaction before_bus;

/* ---- learnt before --------------------------------------------------------------------------- */

static void learn_build_id(const ElfW(Nhdr) * note, uintptr_t end)
{
    while ((uintptr_t)note + sizeof *note <= end) {
        const char *name = (const char *)(note + 1);
        const unsigned char *id = (const unsigned char *)name + ((note->n_namesz + 3u) & ~3u);
        if (note->n_type == NT_GNU_BUILD_ID && strcmp(name, "GNU") == 0)
            for (unsigned i = 0; i < note->n_descsz && i < 20; i++)
                snprintf(build_id + 2 * i, 3, "%02x", id[i]);
        note = (const void *)(id + ((note->n_descsz + 3u) & ~3u));
    }
}

static int on_module(struct dl_phdr_info *info, size_t size, void *ctx)
{
    int *n = ctx;
    (void)size;
    if (*n == MAX_MODULES)
        return 1;
    const char *slash = strrchr(info->dlpi_name, '/');
    const char *name = slash ? slash + 1 : info->dlpi_name;
    struct module m = {.base = info->dlpi_addr};
    snprintf(m.name, sizeof m.name, "%s", *name ? name : *n == 0 ? "healthgptd" : "?");
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *p = &info->dlpi_phdr[i];
        uintptr_t begin = info->dlpi_addr + p->p_vaddr, end = begin + p->p_memsz;
        if (p->p_type == PT_LOAD && end > m.end)
            m.end = end;
        if (p->p_type == PT_NOTE && *n == 0)
            learn_build_id((const void *)begin, end);
    }
    modules[(*n)++] = m;
    return 0;
}

void hg_crash_learn_modules(void)
{
    int n = 0;
    if (SANITIZED)
        return;
    atomic_store(&n_modules, 0);
    dl_iterate_phdr(on_module, &n);
    atomic_store(&n_modules, n);
}

/* ---- the handler ----------------------------------------------------------------------------- */

struct report {
    char text[4096];
    size_t n;
};

static void put(struct report *r, const char *s)
{
    while (*s && r->n < sizeof r->text)
        r->text[r->n++] = *s++;
}

static void put_number(struct report *r, uintptr_t v, unsigned base)
{
    char digits[24];
    int at = sizeof digits - 1;
    digits[at] = '\0';
    do
        digits[--at] = "0123456789abcdef"[v % base];
    while (v /= base);
    put(r, digits + at);
}

static const char *name_of(int sig)
{
    return sig == SIGSEGV   ? "SIGSEGV"
           : sig == SIGBUS  ? "SIGBUS"
           : sig == SIGFPE  ? "SIGFPE"
           : sig == SIGILL  ? "SIGILL"
           : sig == SIGABRT ? "SIGABRT"
                            : "a signal";
}

/* "module+0x12ab"; an address outside every module could be data: it is not written. */
static void put_frame(struct report *r, uintptr_t at)
{
    const struct module *m = modules, *end = m + atomic_load(&n_modules);
    while (m < end && (at < m->base || at >= m->end))
        m++;
    put(r, m < end ? m->name : "?");
    if (m == end)
        return;
    put(r, "+0x");
    put_number(r, at - m->base, 16);
}

static void put_thread(struct report *r)
{
    char name[17] = "";
    prctl(PR_GET_NAME, name);
    for (char *c = name; *c; c++)
        if (*c < ' ' || *c > '~' || *c == '"' || *c == '\\')
            *c = '?';
    put(r, name);
}

static void write_report(int sig)
{
    static struct report r; /* of the one thread that gets here */
    void *frames[MAX_FRAMES];
    const char *next = as_json ? "\",\"" : "\n  ";
    put(&r, as_json ? "{\"time\":" : "healthgptd: crash: ");
    if (as_json) {
        struct timespec t = {0};
        clock_gettime(CLOCK_REALTIME, &t);
        put_number(&r, (uintptr_t)t.tv_sec, 10);
        put(&r, ",\"level\":\"fatal\",\"message\":\"crash: ");
    }
    put(&r, name_of(sig));
    put(&r, " in thread ");
    put_thread(&r);
    put(&r, ", version " HG_VERSION ", build ");
    put(&r, build_id[0] ? build_id : "unknown");
    put(&r, as_json ? "\",\"frames\":[\"" : next);
    int n = backtrace(frames, MAX_FRAMES);
    for (int i = 0; i < n; i++) {
        put(&r, i ? next : "");
        put_frame(&r, (uintptr_t)frames[i]);
    }
    put(&r, as_json ? "\"]}\n" : "\n");
    (void)!write(STDERR_FILENO, r.text, r.n);
}

static void on_crash(int sig, siginfo_t *info, void *context)
{
    static atomic_flag taken = ATOMIC_FLAG_INIT;
    sigset_t alarm_only;
    if (sig == SIGBUS && before_bus.sa_sigaction && (before_bus.sa_flags & SA_SIGINFO))
        before_bus.sa_sigaction(sig, info, context); /* a file that was cut: does not return */
    if (atomic_flag_test_and_set(&taken))
        for (;;)
            pause(); /* another thread is at it, and ends all of them */
    signal(SIGALRM, SIG_DFL);
    sigemptyset(&alarm_only);
    sigaddset(&alarm_only, SIGALRM);
    pthread_sigmask(SIG_UNBLOCK, &alarm_only, NULL);
    alarm(PATIENCE_S);
    write_report(sig);
    signal(sig, SIG_DFL);
    raise(sig); /* is blocked here: it comes when the handler returns */
}

void hg_crash_install(bool core_dumps, bool json)
{
    static char stack[STACK_BYTES];
    static const int fatal[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};
    const struct rlimit none = {0, 0};
    const stack_t alternative = {.ss_sp = stack, .ss_size = sizeof stack};
    struct sigaction action = {.sa_flags = SA_SIGINFO | SA_ONSTACK};
    void *frame;
    if (SANITIZED)
        return;
    if (!core_dumps) {
        setrlimit(RLIMIT_CORE, &none);
        prctl(PR_SET_DUMPABLE, 0);
    }
    as_json = json;
    hg_crash_learn_modules();
    (void)backtrace(&frame, 1);      /* loads what it needs */
    sigaltstack(&alternative, NULL); /* of this thread: the others report on their own */
    action.sa_sigaction = on_crash;
    sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < sizeof fatal / sizeof fatal[0]; i++)
        sigaction(fatal[i], &action, fatal[i] == SIGBUS ? &before_bus : NULL);
}
