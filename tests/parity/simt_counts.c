/* tests/parity/simt_counts.c - see tests/parity/simt_counts.h. */
#include <dlfcn.h>

#include "tests/parity/simt_counts.h"

bool simt_counts_of_library(struct simt_counts *out)
{
    union { /* POSIX lets dlsym return functions; ISO C has no cast for it */
        void *object;
        void (*count)(struct simt_counts *);
    } entry = {NULL};
    void *library = dlopen("libhealthgpt_simt.so", RTLD_NOW | RTLD_NOLOAD);
    if (library)
        entry.object = dlsym(library, "simt_count");
    if (entry.object)
        entry.count(out);
    if (library)
        dlclose(library);
    return entry.object != NULL;
}
