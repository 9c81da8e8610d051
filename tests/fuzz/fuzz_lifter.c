/* tests/fuzz/fuzz_lifter.c - libFuzzer target of the data-URI lifter (make fuzz).
 *
 * The first byte says how the rest is cut into pieces. In pieces and whole it must end in the same
 * way; text that is left is JSON when and only when the body was, and then says the same. */
#include <stdlib.h>
#include <string.h>

#include "tests/server/lift_same.h"

enum { MAX_IMAGE = 512, MAX_TEXT = 1 << 16 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
size_t LLVMFuzzerMutate(uint8_t *data, size_t n, size_t max);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t n, size_t max, unsigned seed);

/* Stands for the model's, of which nothing else is linked. */
const char *hg_task_name(enum hg_task t)
{
    return t == HG_TASK_GENERATION ? "generation" : "comprehension";
}

struct lift {
    struct hg_lifter lifter;
    struct hg_buf text;
    struct hg_image_list images;
    struct hg_api_error error;
    bool ok;
};

static void run(struct lift *l, const char *s, size_t n, size_t piece)
{
    memset(l, 0, sizeof *l);
    l->images.max_bytes = MAX_IMAGE;
    l->images.max_images = HG_REQUEST_MAX_IMAGES;
    hg_lifter_begin(&l->lifter, &l->text, &l->images, MAX_TEXT);
    l->ok = true;
    for (size_t at = 0; at < n && l->ok; at += piece) {
        size_t k = piece < n - at ? piece : n - at;
        char *copy = malloc(k); /* its own block, so that ASan sees an overrun */
        memcpy(copy, s + at, k);
        l->ok = hg_lifter_feed(&l->lifter, copy, k, &l->error);
        free(copy);
    }
    l->ok = l->ok && hg_lifter_end(&l->lifter, &l->error);
}

static void check(bool ok)
{
    if (!ok)
        abort();
}

static void check_same(const struct lift *a, const struct lift *b)
{
    check(a->ok == b->ok && strcmp(a->error.text, b->error.text) == 0 &&
          strcmp(a->error.param, b->error.param) == 0 && a->images.n == b->images.n);
    if (!a->ok)
        return;
    check(a->text.len == b->text.len &&
          (!a->text.len || memcmp(a->text.data, b->text.data, a->text.len) == 0));
    for (size_t i = 0; i < a->images.n; i++)
        check(a->images.items[i].n == b->images.items[i].n &&
              strcmp(a->images.items[i].where, b->images.items[i].where) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct lift whole, cut;
    size_t n_lifted = 0;
    if (n < 2)
        return 0;
    const char *s = (const char *)data + 1;
    run(&whole, s, n - 1, n);
    run(&cut, s, n - 1, 1 + data[0] % 64);
    check_same(&whole, &cut);
    if (whole.ok && hg_json_check_caps(s, n - 1, NULL) == HG_STATUS_OK) {
        json_t *plain = json_loadb(s, n - 1, 0, NULL);
        json_t *lifted =
            json_loadb(whole.text.data ? whole.text.data : "", whole.text.len, 0, NULL);
        check((plain != NULL) == (lifted != NULL));
        if (plain)
            check(lift_same(&whole.images, lifted, plain, &n_lifted));
        json_decref(plain);
        json_decref(lifted);
    }
    hg_image_list_clear(&whole.images);
    hg_image_list_clear(&cut.images);
    hg_buf_deinit(&whole.text);
    hg_buf_deinit(&cut.text);
    return 0;
}

/* Half of the mutations put in a piece that the lifter knows, which bytes alone rarely find. */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t n, size_t max, unsigned seed)
{
    static const char *const pieces[] = {
        "{\"image\":\"data:image/png;base64,aGVsbG8=\"}",
        "\"data:image\\/png;base64,\\u0061",
        "\"images\":[\"",
        "\"b64_json\":",
        "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        "\\u0001",
        "==\"",
        ",\"data\":[{",
        "]}",
        ";base64,",
    };
    const char *p = pieces[seed / 2 % (sizeof pieces / sizeof pieces[0])];
    size_t k = strlen(p), at = n ? 1 + seed / 64 % n : 0;
    if (seed % 2 || n == 0 || n + k > max)
        return LLVMFuzzerMutate(data, n, max);
    memmove(data + at + k, data + at, n - at);
    memcpy(data + at, p, k);
    return n + k;
}
