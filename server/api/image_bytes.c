/* server/api/image_bytes.c - pages from the kernel: malloc would leave copies and holes behind. */
#include "server/api/image_bytes.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "server/api/api_fields.h"

enum { FIRST_CAP = 64 << 10 };

struct hg_image_bytes *hg_image_list_open(struct hg_image_list *l, const char *where,
                                          struct hg_api_error *e)
{
    if (l->n == l->max_images || l->n == HG_REQUEST_MAX_IMAGES) {
        hg_api_refuse(e, 400, "too_many_images", where, "images: at most %zu per request",
                      l->max_images);
        return NULL;
    }
    struct hg_image_bytes *im = &l->items[l->n++];
    *im = (struct hg_image_bytes){0};
    snprintf(im->where, sizeof im->where, "%s", where);
    return im;
}

bool hg_image_list_reserve(struct hg_image_list *l, size_t n, struct hg_api_error *e)
{
    struct hg_image_bytes *im = &l->items[l->n - 1];
    if (n > l->max_bytes - im->n)
        return hg_api_refuse(e, 413, "image_too_large", im->where,
                             "%s: more than the %zu bytes that are accepted", im->where,
                             l->max_bytes);
    size_t need = im->n + n;
    if (need <= im->cap)
        return true;
    size_t cap = im->cap ? im->cap : FIRST_CAP;
    while (cap < need)
        cap *= 2;
    void *data = im->data
                     ? mremap(im->data, im->cap, cap, MREMAP_MAYMOVE)
                     : mmap(NULL, cap, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data == MAP_FAILED)
        return hg_api_refuse_memory(e);
    im->data = data;
    im->cap = cap;
    return true;
}

bool hg_image_list_append(struct hg_image_list *l, const void *data, size_t n,
                          struct hg_api_error *e)
{
    if (!hg_image_list_reserve(l, n, e))
        return false;
    struct hg_image_bytes *im = &l->items[l->n - 1];
    if (n)
        memcpy(im->data + im->n, data, n);
    im->n += n;
    return true;
}

void hg_image_list_clear(struct hg_image_list *l)
{
    for (size_t i = 0; i < l->n; i++) {
        struct hg_image_bytes *im = &l->items[i];
        if (!im->data)
            continue;
        explicit_bzero(im->data, im->n);
        munmap(im->data, im->cap);
    }
    memset(l->items, 0, sizeof l->items);
    l->n = 0;
}
