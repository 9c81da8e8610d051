/* model/model_path.c - find the demo model beside the program. */
#include "model/model_path.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/file.h"
#include "model/load/model_source.h"

static bool is_model(const char *dir)
{
    char card[1200];
    int n = snprintf(card, sizeof card, "%s/healthgpt.json", dir);
    return n > 0 && (size_t)n < sizeof card && hg_file_exists(card);
}

/* Walk up from the program's folder. */
static bool find_demo(char *out, size_t cap)
{
    static const char *const places[] = {"config/models/demo", "share/healthgpt/models/demo"};
    char dir[1024];
    ssize_t len = readlink("/proc/self/exe", dir, sizeof dir - 1);
    if (len <= 0)
        return false;
    dir[len] = 0;
    for (char *slash = strrchr(dir, '/'); slash; slash = strrchr(dir, '/')) {
        *slash = 0;
        for (int i = 0; i < 2; i++) {
            int n = snprintf(out, cap, "%s/%s", dir, places[i]);
            if (n > 0 && (size_t)n < cap && is_model(out))
                return true;
        }
    }
    return false;
}

enum hg_status hg_model_path_resolve(const char *path, char *out, size_t cap, struct hg_error *err)
{
    if (!path)
        path = getenv("HEALTHGPT_MODEL");
    if (!path || !*path) {
        if (find_demo(out, cap))
            return HG_STATUS_OK;
        return hg_fail(err, HG_STATUS_NOT_FOUND,
                       "no --model given and the demo model is not beside the program");
    }
    int n = snprintf(out, cap, "%s", path);
    if (n < 0 || (size_t)n >= cap)
        return hg_fail(err, HG_STATUS_TOO_LARGE, "--model: path too long");
    struct hg_model_place place;
    return hg_model_place(path, NULL, &place, err);
}
