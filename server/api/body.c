/* server/api/body.c - JSON to the lifter, forms to the multipart parser, both to buffers with caps.
 */
#include "server/api/body.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "server/api/api_fields.h"
#include "server/api/lifter.h"

struct hg_body_parser {
    struct hg_body *body;
    struct hg_api_error *error; /* of the call that feeds */
    union {
        struct hg_lifter lifter;
        struct hg_multipart form;
    };
};

/* ---- parts of a form ------------------------------------------------------------------------- */

/* A picture by its name, as curl and the OpenAI clients send them, or by its type. */
static bool is_picture(const struct hg_part_head *head)
{
    static const char *const names[] = {"image", "image[]", "images", "images[]", "mask"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strcmp(head->name, names[i]) == 0)
            return true;
    return head->is_image;
}

static bool begin_part(void *ctx, const struct hg_part_head *head)
{
    struct hg_body_parser *p = ctx;
    struct hg_body *b = p->body;
    struct hg_body_part *part = &b->parts[b->n_parts++];
    *part = (struct hg_body_part){.is_file = head->is_file, .image = -1, .at = b->text.len};
    memcpy(part->name, head->name, sizeof part->name);
    if (!is_picture(head))
        return true;
    char where[32];
    snprintf(where, sizeof where, "images[%zu]", b->images.n);
    part->image = (int)b->images.n;
    return hg_image_list_open(&b->images, where, p->error) != NULL;
}

static bool part_data(void *ctx, const char *s, size_t n)
{
    struct hg_body_parser *p = ctx;
    struct hg_body *b = p->body;
    struct hg_body_part *part = &b->parts[b->n_parts - 1];
    if (part->image >= 0)
        return hg_image_list_append(&b->images, s, n, p->error);
    if (n > HG_API_MAX_TEXT - part->n)
        return hg_api_refuse(p->error, 413, "text_too_long", part->name,
                             "%s: more than the %d bytes that are read", part->name,
                             HG_API_MAX_TEXT);
    if (n > HG_BODY_MAX_TEXT - b->text.len)
        return hg_api_refuse(p->error, 413, "body_too_large", "",
                             "the form beside its images is larger than %d bytes",
                             HG_BODY_MAX_TEXT);
    if (hg_buf_append(&b->text, s, n) != HG_STATUS_OK)
        return hg_api_refuse_memory(p->error);
    part->n += n;
    return true;
}

static bool end_part(void *ctx)
{
    (void)ctx;
    return true;
}

/* ---- the body -------------------------------------------------------------------------------- */

static bool refuse_form(enum hg_status s, const struct hg_error *err, struct hg_api_error *e)
{
    if (s == HG_STATUS_OK)
        return true;
    if (s != HG_STATUS_CANCELLED) { /* else the sink has said why */
        hg_api_error_of(e, err);
        snprintf(e->code, sizeof e->code, "invalid_form");
    }
    return false;
}

bool hg_body_begin(struct hg_body *b, const char *content_type, struct hg_api_error *e)
{
    static const char form[] = "multipart/form-data";
    memset(b, 0, sizeof *b);
    b->images.max_bytes = HG_API_MAX_IMAGE_BYTES;
    b->images.max_images = HG_REQUEST_MAX_IMAGES;
    bool is_form = content_type && strncasecmp(content_type, form, sizeof form - 1) == 0;
    b->kind = is_form ? HG_BODY_FORM : HG_BODY_JSON;
    char boundary[128];
    struct hg_error err = {0};
    if (is_form &&
        !refuse_form(hg_multipart_boundary(content_type, boundary, sizeof boundary, &err), &err, e))
        return false;
    struct hg_body_parser *p = malloc(sizeof *p);
    if (!p)
        return hg_api_refuse_memory(e);
    p->body = b;
    b->parser = p;
    if (is_form)
        hg_multipart_begin(&p->form, boundary,
                           &(struct hg_part_sink){begin_part, part_data, end_part, p});
    else
        hg_lifter_begin(&p->lifter, &b->text, &b->images, HG_BODY_MAX_TEXT);
    return true;
}

static bool feed(struct hg_body *b, const char *s, size_t n, struct hg_api_error *e)
{
    struct hg_error err = {0};
    b->n_bytes += n;
    b->n_pieces++;
    if (b->n_bytes > HG_API_MAX_BODY)
        return hg_api_refuse(e, 413, "body_too_large", "", "the body is larger than %d MiB",
                             HG_API_MAX_BODY >> 20);
    b->parser->error = e;
    return b->kind == HG_BODY_JSON
               ? hg_lifter_feed(&b->parser->lifter, s, n, e)
               : refuse_form(hg_multipart_feed(&b->parser->form, s, n, &err), &err, e);
}

static bool end(struct hg_body *b, struct hg_api_error *e)
{
    struct hg_error err = {0};
    b->parser->error = e;
    return b->kind == HG_BODY_JSON ? hg_lifter_end(&b->parser->lifter, e)
                                   : refuse_form(hg_multipart_end(&b->parser->form, &err), &err, e);
}

bool hg_body_feed(struct hg_body *b, const char *s, size_t n, struct hg_api_error *e)
{
    bool ok = b->parser ? feed(b, s, n, e)
                        : hg_api_refuse(e, 400, "invalid_request", "", "the body has ended");
    if (!ok)
        hg_body_deinit(b);
    return ok;
}

bool hg_body_end(struct hg_body *b, struct hg_api_error *e)
{
    bool ok =
        b->parser ? end(b, e) : hg_api_refuse(e, 400, "invalid_request", "", "the body has ended");
    if (!ok) {
        hg_body_deinit(b);
        return false;
    }
    free(b->parser);
    b->parser = NULL;
    b->ended = true;
    return true;
}

void hg_body_deinit(struct hg_body *b)
{
    if (!b)
        return;
    hg_image_list_clear(&b->images);
    if (b->text.data)
        explicit_bzero(b->text.data, b->text.len);
    hg_buf_deinit(&b->text);
    free(b->parser);
    memset(b, 0, sizeof *b);
}

/* Lengths go before what has one, so that nothing can be shifted from one field into the next. */
static void digest_bytes(struct hg_sha256 *s, const void *data, size_t n)
{
    uint64_t length = n;
    hg_sha256_update(s, &length, sizeof length);
    if (n)
        hg_sha256_update(s, data, n);
}

void hg_body_digest(const struct hg_body *b, const char *salt, uint8_t out[HG_SHA256_BYTES])
{
    struct hg_sha256 s;
    hg_sha256_init(&s);
    digest_bytes(&s, salt, strlen(salt));
    digest_bytes(&s, b->text.data, b->text.len);
    for (size_t i = 0; i < b->n_parts; i++) {
        const struct hg_body_part *p = &b->parts[i];
        digest_bytes(&s, p->name, strlen(p->name));
        digest_bytes(&s, &p->image, sizeof p->image);
        digest_bytes(&s, &p->n, sizeof p->n);
    }
    for (size_t i = 0; i < b->images.n; i++)
        digest_bytes(&s, b->images.items[i].data, b->images.items[i].n);
    hg_sha256_final(&s, out);
}

bool hg_body_read(struct hg_body *b, const char *content_type, const char *s, size_t n,
                  struct hg_api_error *e)
{
    return hg_body_begin(b, content_type, e) && hg_body_feed(b, s, n, e) && hg_body_end(b, e);
}

const struct hg_image_bytes *hg_body_image(const struct hg_body *b, const char *s, size_t n)
{
    /* A mark is one digit long, and only ours: the lifter refuses a client's. */
    _Static_assert(HG_REQUEST_MAX_IMAGES <= 10, "an index is one digit");
    if (!b || n != 2 || s[0] != HG_LIFTER_MARK || s[1] < '0')
        return NULL;
    size_t i = (size_t)(s[1] - '0');
    return i < b->images.n ? &b->images.items[i] : NULL;
}
