/* kernels/backend.c - a backend by name; those in shared objects are found at run time. */
#include "kernels/backend.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/ref/ref.h"

typedef enum hg_status open_fn(const struct hg_backend_options *o, struct hg_backend **out,
                               struct hg_error *err);

static const struct {
    const char *name, *cpu_path; /* NULL: not the cpu backend */
} backends[] = {
    {"cpu", "auto"}, {"cpu-scalar", "scalar"}, {"cpu-avx2", "avx2"}, {"cpu-avx512", "avx512"},
    {"ref", NULL},
};

/* Beside the program, in ../lib beside it, or where the loader looks; NULL: nowhere. Never closed.
 */
static void *find_library(const char *file)
{
    static const char *const places[] = {"", "../lib/"};
    char program[1024], path[1200];
    ssize_t n = readlink("/proc/self/exe", program, sizeof program - 1);
    program[n > 0 ? n : 0] = '\0';
    char *slash = strrchr(program, '/');
    for (int i = 0; slash && i < 2; i++) {
        slash[1] = '\0';
        snprintf(path, sizeof path, "%s%s%s", program, places[i], file);
        void *library = access(path, R_OK) == 0 ? dlopen(path, RTLD_NOW) : NULL;
        if (library)
            return library;
    }
    return dlopen(file, RTLD_NOW);
}

static enum hg_status open_shared(const char *name, const struct hg_backend_options *o,
                                  struct hg_backend **out, struct hg_error *err)
{
    char file[64];
    union { /* POSIX lets dlsym return functions; ISO C has no cast for it */
        void *object;
        open_fn *open;
    } entry = {NULL};
    snprintf(file, sizeof file, "libhealthgpt_%s.so", name);
    void *library = find_library(file);
    if (library)
        entry.object = dlsym(library, "hg_cuda_open");
    if (!entry.object)
        return hg_fail(err, HG_STATUS_UNSUPPORTED, "backend %s: %.120s", name, dlerror());
    return entry.open(o, out, err);
}

/* No library, no driver, no card: the cpu will do. A card that is there and refuses is an error: an
 * operator who paid for it wants to know. */
static enum hg_status open_auto(const struct hg_backend_options *o, struct hg_backend **out,
                                struct hg_error *err)
{
    struct hg_error why = {0};
    enum hg_status status = open_shared("cuda", o, out, &why);
    if (status != HG_STATUS_UNSUPPORTED) {
        if (err && status != HG_STATUS_OK)
            *err = why;
        return status;
    }
    if (strncmp(why.text, "cuda:", 5) == 0) /* the library was found */
        hg_log(HG_LOG_WARN, "%s", why.text);
    return hg_cpu_open("auto", o->n_threads, out, err);
}

enum hg_status hg_backend_open(const char *name, const struct hg_backend_options *o,
                               struct hg_backend **out, struct hg_error *err)
{
    static const struct hg_backend_options defaults = {0};
    *out = NULL;
    if (!o)
        o = &defaults;
    if (strcmp(name, "auto") == 0)
        return open_auto(o, out, err);
    if (strcmp(name, "cuda") == 0 || strcmp(name, "simt") == 0)
        return open_shared(name, o, out, err);
    for (size_t i = 0; i < sizeof backends / sizeof *backends; i++) {
        if (strcmp(name, backends[i].name) != 0)
            continue;
        if (!backends[i].cpu_path)
            return hg_ref_open(out, err);
        return hg_cpu_open(backends[i].cpu_path, o->n_threads, out, err);
    }
    return hg_fail(
        err, HG_STATUS_BAD_REQUEST,
        "backend '%.32s' is unknown; known: auto, cpu, cpu-scalar, cpu-avx2, cpu-avx512, "
        "cuda, ref",
        name);
}

void hg_backend_close(struct hg_backend *b)
{
    if (b)
        b->ops->close(b);
}
