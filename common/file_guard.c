/* common/file_guard.c - table of mappings and the handler; the handler calls nothing but write and
 * _exit. */
#include "common/file_guard.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include "common/status.h"

enum { MAX_MAPS = 256, NAME_CAP = 96 };

/* `begin` is written last and cleared first: a handler on another thread sees whole entries. */
static struct entry {
    atomic_uintptr_t begin; /* 0: free */
    uintptr_t n;
    char name[NAME_CAP];
} maps[MAX_MAPS];
static atomic_int n_unnamed;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char program_name[32];

/* "folder/name": messages hold no whole path. */
static void set_name(char out[NAME_CAP], const char *path)
{
    size_t n = strlen(path), at = n, slashes = 0;
    while (at > 0 && n - at < NAME_CAP - 1 && (slashes += path[at - 1] == '/') < 2)
        at--;
    memcpy(out, path + at, n - at);
    out[n - at] = '\0';
}

void hg_file_guard_add(const void *data, size_t n, const char *path)
{
    pthread_mutex_lock(&lock);
    struct entry *e = maps;
    while (e < maps + MAX_MAPS && atomic_load(&e->begin))
        e++;
    if (e < maps + MAX_MAPS) {
        e->n = n;
        set_name(e->name, path);
        atomic_store(&e->begin, (uintptr_t)data);
    } else {
        atomic_fetch_add(&n_unnamed, 1);
    }
    pthread_mutex_unlock(&lock);
}

void hg_file_guard_remove(const void *data)
{
    bool found = false;
    pthread_mutex_lock(&lock);
    for (struct entry *e = maps; e < maps + MAX_MAPS && !found; e++) {
        found = atomic_load(&e->begin) == (uintptr_t)data;
        if (found)
            atomic_store(&e->begin, 0);
    }
    if (!found)
        atomic_fetch_sub(&n_unnamed, 1);
    pthread_mutex_unlock(&lock);
}

/* ---- the handler ------------------------------------------------------------------------------
 */

struct line {
    char text[320];
    size_t n;
};

static void put(struct line *l, const char *s)
{
    while (*s && l->n < sizeof l->text)
        l->text[l->n++] = *s++;
}

static void put_number(struct line *l, uintptr_t v)
{
    char digits[24];
    int at = sizeof digits - 1;
    digits[at] = '\0';
    do
        digits[--at] = (char)('0' + v % 10);
    while (v /= 10);
    put(l, digits + at);
}

static void end_with(const struct entry *e, uintptr_t offset)
{
    struct line l = {.n = 0};
    put(&l, program_name);
    put(&l, ": ");
    put(&l, e ? e->name : "a mapped file");
    put(&l, ": was cut or damaged while it was being read");
    if (e) {
        put(&l, ": no byte at ");
        put_number(&l, offset);
        put(&l, " of the ");
        put_number(&l, e->n);
        put(&l, " that it had");
    }
    put(&l, "\n");
    (void)!write(STDERR_FILENO, l.text, l.n);
    _exit(hg_status_exit_code(HG_STATUS_BAD_FILE));
}

static void on_bus_error(int sig, siginfo_t *info, void *context)
{
    uintptr_t at = (uintptr_t)info->si_addr;
    (void)context;
    for (const struct entry *e = maps; e < maps + MAX_MAPS; e++) {
        uintptr_t begin = atomic_load(&e->begin);
        if (begin && at >= begin && at - begin < e->n)
            end_with(e, at - begin);
    }
    if (atomic_load(&n_unnamed) > 0)
        end_with(NULL, 0);
    signal(sig, SIG_DFL); /* not ours: the same load faults again */
}

void hg_file_guard_install(const char *program)
{
    struct sigaction action = {.sa_flags = SA_SIGINFO};
    strncpy(program_name, program, sizeof program_name - 1);
    action.sa_sigaction = on_bus_error;
    sigemptyset(&action.sa_mask);
    sigaction(SIGBUS, &action, NULL);
}
