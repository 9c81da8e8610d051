/* tests/test.c - helpers of tests/test.h. */
#include "tests/test.h"

#include <unistd.h>

static const char *join(char *out, size_t cap, const char *dir, const char *name)
{
    int n = snprintf(out, cap, "%s/%s", dir, name);
    return n > 0 && (size_t)n < cap ? out : NULL;
}

const char *hg_test_shared(const char *name)
{
    static char path[4096];
    const char *dir = getenv("HG_SHARED");
    if (!join(path, sizeof path, dir ? dir : "../shared", name))
        return NULL;
    return access(path, R_OK) == 0 ? path : NULL;
}

const char *hg_test_file(const char *name)
{
    static char path[4096];
    const char *dir = getenv("HG_ROOT");
    return join(path, sizeof path, dir ? dir : ".", name);
}

const char *hg_test_backend(void)
{
    const char *name = getenv("HG_TEST_BACKEND");
    return name && *name ? name : NULL;
}

bool hg_test_full(void)
{
    const char *full = getenv("HG_TEST_FULL");
    return full && strcmp(full, "1") == 0;
}

unsigned char *hg_test_read(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    if (!f)
        fail_msg("cannot open %s", path);
    if (fseek(f, 0, SEEK_END) != 0)
        fail_msg("cannot seek in %s", path);
    long size = ftell(f);
    rewind(f);
    unsigned char *data = malloc((size_t)size + 1);
    if (!data || fread(data, 1, (size_t)size, f) != (size_t)size)
        fail_msg("cannot read %s", path);
    fclose(f);
    data[size] = 0;
    *n = (size_t)size;
    return data;
}
