/* server/api/image_bytes.h - the encoded pictures (PNG, JPEG) of one body, as they arrive. Pure but
 * for memory.
 *
 * Patients' pictures: the bytes are zeroed before their memory is given back. They have pages of
 * their own, which move when a picture grows: no copy stays behind, and no more is resident than
 * has arrived. */
#ifndef HG_SERVER_IMAGE_BYTES_H
#define HG_SERVER_IMAGE_BYTES_H

#include <stdbool.h>
#include <stddef.h>

#include "server/api/api.h"

struct hg_image_bytes {
    unsigned char *data; /* NULL while n is 0 */
    size_t n, cap;
    char where[64]; /* for messages: "images[1]", "messages[0].content[1].image_url.url" */
};

/* A zeroed list with its two limits set is empty. */
struct hg_image_list {
    size_t max_bytes, max_images; /* of each; at most HG_REQUEST_MAX_IMAGES */
    size_t n;
    struct hg_image_bytes items[HG_REQUEST_MAX_IMAGES];
};

/* Begin a picture, which becomes the last of the list; NULL: refused, 400 too_many_images. */
struct hg_image_bytes *hg_image_list_open(struct hg_image_list *l, const char *where,
                                          struct hg_api_error *e);
/* Room for n more bytes of the last picture: data + n may be written, then added to n. 413
 * image_too_large over max_bytes, 503 without memory. */
bool hg_image_list_reserve(struct hg_image_list *l, size_t n, struct hg_api_error *e);
bool hg_image_list_append(struct hg_image_list *l, const void *data, size_t n,
                          struct hg_api_error *e);
void hg_image_list_clear(struct hg_image_list *l); /* zero and free; the limits stay */

#endif
