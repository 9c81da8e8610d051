/* kernels/backend.c - a backend by name; those in shared objects are found at run time. */
#include "kernels/backend.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "kernels/cpu/cpu_backend.h"
#include "kernels/ref/ref.h"

typedef enum hg_status open_fn(int n_threads, struct hg_backend **out, struct hg_error *err);

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

static enum hg_status open_shared(const char *name, int n_threads, struct hg_backend **out,
                                  struct hg_error *err)
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
    return entry.open(n_threads, out, err);
}

static enum hg_status open_auto(int n_threads, struct hg_backend **out, struct hg_error *err)
{
    if (open_shared("cuda", n_threads, out, NULL) == HG_STATUS_OK)
        return HG_STATUS_OK;
    return hg_cpu_open("auto", n_threads, out, err);
}

enum hg_status hg_backend_open(const char *name, int n_threads, struct hg_backend **out,
                               struct hg_error *err)
{
    *out = NULL;
    if (strcmp(name, "auto") == 0)
        return open_auto(n_threads, out, err);
    if (strcmp(name, "cuda") == 0 || strcmp(name, "simt") == 0)
        return open_shared(name, n_threads, out, err);
    for (size_t i = 0; i < sizeof backends / sizeof *backends; i++) {
        if (strcmp(name, backends[i].name) != 0)
            continue;
        if (!backends[i].cpu_path)
            return hg_ref_open(out, err);
        return hg_cpu_open(backends[i].cpu_path, n_threads, out, err);
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
