/* tests/fuzz/fuzz_multipart.c - libFuzzer target of the form parser (make fuzz).
 *
 * The first byte says how the rest is cut into pieces; the boundary is "B". In pieces and whole the
 * same parts with the same bytes must come out. Every second input gets the beginning of a good
 * form, so that what follows is a part. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "server/api/multipart.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static bool begin(void *ctx, const struct hg_part_head *h)
{
    if (strlen(h->name) >= sizeof h->name)
        abort();
    return hg_buf_printf(ctx, "<%s %d %d|", h->name, h->is_file, h->is_image) == HG_STATUS_OK;
}

static bool bytes(void *ctx, const char *s, size_t n)
{
    return hg_buf_append(ctx, s, n) == HG_STATUS_OK;
}

static bool end(void *ctx)
{
    return hg_buf_append_str(ctx, ">") == HG_STATUS_OK;
}

static enum hg_status run(const struct hg_buf *form, size_t piece, struct hg_buf *seen,
                          struct hg_error *err)
{
    struct hg_multipart m;
    hg_multipart_begin(&m, "B", &(struct hg_part_sink){begin, bytes, end, seen});
    for (size_t at = 0; at < form->len; at += piece) {
        size_t k = piece < form->len - at ? piece : form->len - at;
        char *copy = malloc(k); /* its own block, so that ASan sees an overrun */
        memcpy(copy, form->data + at, k);
        enum hg_status s = hg_multipart_feed(&m, copy, k, err);
        free(copy);
        HG_TRY(s);
    }
    return hg_multipart_end(&m, err);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const char good[] =
        "--B\r\nContent-Disposition: form-data; name=image; filename=\"x\"\r\n"
        "Content-Type: image/png\r\n\r\n";
    struct hg_buf form = {0}, whole = {0}, cut = {0};
    struct hg_error err = {0}, err_cut = {0};
    if (n < 2)
        return 0;
    if (data[0] & 1)
        hg_buf_append_str(&form, good);
    hg_buf_append(&form, data + 1, n - 1);
    if (data[0] & 2)
        hg_buf_append_str(&form, "\r\n--B--\r\n");
    enum hg_status a = run(&form, form.len, &whole, &err);
    enum hg_status b = run(&form, 1 + data[0] / 4, &cut, &err_cut);
    if (a != b || strcmp(err.text, err_cut.text) != 0 || whole.len != cut.len ||
        (whole.len && memcmp(whole.data, cut.data, whole.len) != 0))
        abort();
    hg_buf_deinit(&form);
    hg_buf_deinit(&whole);
    hg_buf_deinit(&cut);
    return 0;
}
