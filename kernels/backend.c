/* kernels/backend.c - a backend by name. */
#include "kernels/backend.h"

#include <string.h>

#include "kernels/cpu/cpu_backend.h"
#include "kernels/ref/ref.h"

static const struct {
    const char *name, *cpu_path; /* NULL: not the cpu backend */
} backends[] = {
    {"auto", "auto"},     {"cpu", "auto"},          {"cpu-scalar", "scalar"},
    {"cpu-avx2", "avx2"}, {"cpu-avx512", "avx512"}, {"ref", NULL},
};

enum hg_status hg_backend_open(const char *name, int n_threads, struct hg_backend **out,
                               struct hg_error *err)
{
    *out = NULL;
    if (strcmp(name, "cuda") == 0)
        return hg_fail(err, HG_STATUS_UNSUPPORTED,
                       "backend cuda: this build holds no CUDA kernels; use auto or cpu");
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
