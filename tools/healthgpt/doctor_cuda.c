/* tools/healthgpt/doctor_cuda.c - is there a card that the cuda backend can use, and if not, why?
 *
 * The backend is opened in a child with a time limit: a driver may crash, or never return, and the
 * doctor is asked just then. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "kernels/backend.h"
#include "tools/healthgpt/doctor.h"

enum { PROBE_MS = 15000, MAX_CARDS = 16 };

struct probe {
    enum hg_status status;
    char text[320]; /* description of the backend, or why there is none */
    uint64_t card, free;
};

static void ask_backend(struct probe *p)
{
    struct hg_backend_options options = {0};
    struct hg_backend *b = NULL;
    struct hg_backend_memory memory = {0};
    struct hg_error err = {0};
    p->status = hg_backend_open("cuda", &options, &b, &err);
    snprintf(p->text, sizeof p->text, "%s", b ? b->ops->describe(b) : err.text);
    if (!b)
        return;
    b->ops->memory(b, &memory);
    p->card = memory.card;
    p->free = memory.free_at_open;
}

/* Read until the child closes its end, or the time is over. */
static bool read_probe(int fd, struct probe *p)
{
    char *at = (char *)p;
    size_t n = 0;
    int64_t end = hg_now_ns() + (int64_t)PROBE_MS * 1000000;
    while (n < sizeof *p) {
        struct pollfd f = {.fd = fd, .events = POLLIN};
        int64_t left = (end - hg_now_ns()) / 1000000;
        int ready = poll(&f, 1, left > 0 ? (int)left : 0);
        if (ready < 0 && errno == EINTR)
            continue;
        ssize_t got = ready == 1 ? read(fd, at + n, sizeof *p - n) : 0;
        if (got <= 0)
            return false;
        n += (size_t)got;
    }
    p->text[sizeof p->text - 1] = '\0';
    return true;
}

static void child(int fd)
{
    struct probe p = {0};
    int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
    if (null >= 0)
        dup2(null, STDERR_FILENO); /* what drivers say is in p.text too */
    ask_backend(&p);
    ssize_t written = write(fd, &p, sizeof p);
    _exit(written == (ssize_t)sizeof p ? 0 : 1);
}

static void run_probe(struct probe *p)
{
    int ends[2];
    *p = (struct probe){.status = HG_STATUS_INTERNAL, .text = "cannot start a process for it"};
    fflush(NULL);
    if (pipe2(ends, O_CLOEXEC) != 0)
        return;
    pid_t pid = fork();
    if (pid == 0)
        child(ends[1]);
    close(ends[1]);
    if (pid > 0) {
        struct probe seen;
        if (read_probe(ends[0], &seen))
            *p = seen;
        else
            snprintf(p->text, sizeof p->text, "the driver has crashed or does not answer");
        kill(pid, SIGKILL);
        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
            ;
    }
    close(ends[0]);
}

/* ---- what the driver has in /proc ------------------------------------------------------------ */

static bool first_line(const char *path, const char *key, char *out, size_t cap)
{
    char line[512];
    bool found = false;
    FILE *f = fopen(path, "re");
    while (f && !found && fgets(line, sizeof line, f)) {
        size_t n = strlen(key);
        found = strncmp(line, key, n) == 0;
        if (found) {
            const char *v = line + n + strspn(line + n, " \t:");
            snprintf(out, cap, "%.*s", (int)strcspn(v, "\n"), v);
        }
    }
    if (f)
        fclose(f);
    return found;
}

/* "... Kernel Module for x86_64  580.95.05  Release Build ..." -> "580.95.05"; "": no driver. */
static void driver_version(char out[32])
{
    char line[256];
    out[0] = '\0';
    if (!first_line("/proc/driver/nvidia/version", "NVRM version:", line, sizeof line))
        return;
    for (char *save = NULL, *word = strtok_r(line, " ", &save); word;
         word = strtok_r(NULL, " ", &save)) {
        if (strspn(word, "0123456789.") == strlen(word) && strchr(word, '.')) {
            snprintf(out, 32, "%.31s", word);
            return;
        }
    }
}

/* Names of all cards that the driver knows; the backend uses the first that it may see. */
static int put_cards(struct hg_doctor *d)
{
    int n = 0;
    DIR *dir = opendir("/proc/driver/nvidia/gpus");
    hg_out_open(d->o, "cards", '[');
    for (struct dirent *e; dir && n < MAX_CARDS && (e = readdir(dir)) != NULL;) {
        char path[512], name[96];
        snprintf(path, sizeof path, "/proc/driver/nvidia/gpus/%s/information", e->d_name);
        if (e->d_name[0] == '.' || !first_line(path, "Model:", name, sizeof name))
            continue;
        hg_out_string(d->o, NULL, name);
        n++;
    }
    hg_out_close(d->o, ']');
    if (dir)
        closedir(dir);
    return n;
}

static void no_card(struct hg_doctor *d, const struct probe *p, const char *driver)
{
    bool no_library = strncmp(p->text, "backend cuda:", 13) == 0;
    bool wanted = strcmp(d->config.backend, "cuda") == 0;
    bool driver_there = driver[0] != '\0';
    const char *next =
        no_library     ? "make cuda builds libhealthgpt_cuda.so; it belongs beside the program"
        : driver_there ? "the driver is there: look at nvidia-smi, and whether this user, "
                         "container or CUDA_VISIBLE_DEVICES lets the card be seen"
                       : "install NVIDIA's driver, and in a container the NVIDIA Container Toolkit";
    if (wanted)
        HG_DOCTOR_FAIL_NOTE(d, HG_STATUS_UNSUPPORTED, "cuda", "backend cuda is asked for: %s\n%s",
                            p->text, next);
    else if (driver_there)
        HG_DOCTOR_WARN_NOTE(d, "cuda", "a card's driver is there, but: %s\n%s", p->text, next);
    else
        HG_DOCTOR_OK_NOTE(d, "cuda", "no card to use, the cpu backend will do (%s)", p->text);
}

static void put_bytes(struct hg_json_out *o, const char *key, uint64_t v)
{
    if (v)
        hg_out_uint(o, key, v);
    else
        hg_out_string(o, key, NULL);
}

void hg_doctor_cuda(struct hg_doctor *d)
{
    struct probe p;
    char driver[32];
    d->area = "cuda";
    driver_version(driver);
    run_probe(&p);
    d->has_card = p.status == HG_STATUS_OK && p.card > 0;
    d->card_bytes = p.card;
    d->card_free = p.free;
    hg_out_open(d->o, "cuda", '{');
    hg_out_bool(d->o, "usable", d->has_card);
    hg_out_bool(d->o, "library", strncmp(p.text, "backend cuda:", 13) != 0);
    hg_out_string(d->o, "driver", driver[0] ? driver : NULL);
    put_cards(d);
    hg_out_string(d->o, "backend", d->has_card ? p.text : NULL);
    put_bytes(d->o, "card_bytes", p.card);
    put_bytes(d->o, "card_free_bytes", p.free);
    hg_out_close(d->o, '}');
    if (d->has_card)
        HG_DOCTOR_OK_NOTE(d, "cuda", "%s: %.1f GB, %.1f free, driver %s", p.text,
                          (double)p.card / 1e9, (double)p.free / 1e9, driver[0] ? driver : "?");
    else
        no_card(d, &p, driver);
}
