/* kernels/cuda/cublaslt.c - see cublaslt.h. */
#include "kernels/cuda/cublaslt.h"

#include <cuda_runtime.h>
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#ifdef HG_SIMT /* the stand-in is linked */

bool cublaslt_open(struct cublaslt *t)
{
#define HG_MEMBER(f) t->f = f;
    CUBLASLT_FUNCTIONS(HG_MEMBER)
#undef HG_MEMBER
    t->library = NULL;
    return true;
}

#else

bool cublaslt_open(struct cublaslt *t)
{
    char name[32];
    bool ok = true;
    snprintf(name, sizeof name, "libcublasLt.so.%d", CUDART_VERSION / 1000);
    memset(t, 0, sizeof *t);
    t->library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (!t->library)
        return false;
#define HG_MEMBER(f)                                                                               \
    *(void **)(void *)&t->f = dlsym(t->library, #f);                                               \
    ok = ok && t->f;
    CUBLASLT_FUNCTIONS(HG_MEMBER)
#undef HG_MEMBER
    if (!ok)
        cublaslt_close(t);
    return ok;
}

#endif

void cublaslt_close(struct cublaslt *t)
{
    if (t->library)
        dlclose(t->library);
    memset(t, 0, sizeof *t);
}
