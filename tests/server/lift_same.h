/* tests/server/lift_same.h - are a lifted JSON value and the plain one the same? Of the tests and
 * the fuzz target of server/api/lifter. */
#ifndef HG_TESTS_SERVER_LIFT_SAME_H
#define HG_TESTS_SERVER_LIFT_SAME_H

#include <jansson.h>
#include <string.h>

#include "server/api/data_uri.h"
#include "server/api/lifter.h"

/* The picture that a string of the lifted text stands for; NULL: it is a text. */
static inline const struct hg_image_bytes *lift_picture(const struct hg_image_list *images,
                                                        const json_t *v)
{
    const char *s = json_string_value(v);
    size_t i = s && json_string_length(v) == 2 && s[0] == HG_LIFTER_MARK ? (size_t)(s[1] - '0')
                                                                         : images->n;
    return i < images->n ? &images->items[i] : NULL;
}

/* Every value is equal; a string that was lifted is so to the bytes that `whole` has as base64.
 * *n_lifted counts them. */
static inline bool lift_same(const struct hg_image_list *images, const json_t *lifted,
                             const json_t *whole, size_t *n_lifted)
{
    if (json_typeof(lifted) != json_typeof(whole))
        return false;
    if (json_is_array(whole)) {
        bool ok = json_array_size(lifted) == json_array_size(whole);
        for (size_t i = 0; ok && i < json_array_size(whole); i++)
            ok = lift_same(images, json_array_get(lifted, i), json_array_get(whole, i), n_lifted);
        return ok;
    }
    if (json_is_object(whole)) {
        union {
            const json_t *in;
            json_t *out;
        } u = {.in = whole};
        const char *key;
        json_t *value;
        if (json_object_size(lifted) != json_object_size(whole))
            return false;
        json_object_foreach(u.out, key, value)
        {
            const json_t *other = json_object_get(lifted, key);
            if (!other || !lift_same(images, other, value, n_lifted))
                return false;
        }
        return true;
    }
    const struct hg_image_bytes *im = json_is_string(whole) ? lift_picture(images, lifted) : NULL;
    if (!im)
        return json_equal(lifted, whole);
    struct hg_buf bytes = {0};
    bool ok = hg_image_uri_decode(json_string_value(whole), json_string_length(whole), SIZE_MAX,
                                  &bytes, NULL) == HG_STATUS_OK &&
              bytes.len == im->n && (im->n == 0 || memcmp(bytes.data, im->data, im->n) == 0);
    hg_buf_deinit(&bytes);
    ++*n_lifted;
    return ok;
}

#endif
