/* server/api/synthetic.c - the marks of a PNG. */
#include "server/api/synthetic.h"

#include <stdio.h>

#include "server/json_text.h"
#include "server/version.h"

/* XMP specification part 1 for the packet, IPTC Photo Metadata for the property and its value. */
static const char xmp[] = "<?xpacket begin=\"\xef\xbb\xbf\" id=\"W5M0MpCehiHzreSzNTczkc9d\"?>"
                          "<x:xmpmeta xmlns:x=\"adobe:ns:meta/\">"
                          "<rdf:RDF xmlns:rdf=\"http://www.w3.org/1999/02/22-rdf-syntax-ns#\">"
                          "<rdf:Description rdf:about=\"\""
                          " xmlns:Iptc4xmpExt=\"http://iptc.org/std/Iptc4xmpExt/2008-02-29/\">"
                          "<Iptc4xmpExt:DigitalSourceType>"
                          "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
                          "</Iptc4xmpExt:DigitalSourceType></rdf:Description></rdf:RDF></x:xmpmeta>"
                          "<?xpacket end=\"r\"?>";

static const char software[] = "healthgpt " HG_VERSION;

enum { PREVIEW_LEVEL = 1 };

/* tEXt is ASCII here: what a model's name has beyond that becomes "?". */
static void only_ascii(struct hg_buf *b)
{
    for (size_t i = 0; i < b->len; i++)
        if ((unsigned char)b->data[i] < 0x20 || (unsigned char)b->data[i] > 0x7e)
            b->data[i] = '?';
}

enum hg_status hg_synthetic_png(const struct hg_image *im, const struct hg_synthetic *s,
                                bool preview, struct hg_buf *out, struct hg_error *err)
{
    struct hg_buf facts = {0};
    struct hg_json_out o;
    char weights[24];
    enum hg_status status;
    snprintf(weights, sizeof weights, "crc32c:%08x", (unsigned)s->weights_crc32c);
    hg_out_begin(&o, &facts);
    hg_out_open(&o, NULL, '{');
    hg_out_string(&o, "model", s->model);
    hg_out_string(&o, "weights", weights);
    hg_out_string(&o, "plugin", s->plugin);
    hg_out_uint(&o, "seed", s->seed);
    hg_out_string(&o, "version", HG_VERSION);
    hg_out_close(&o, '}');
    if (o.failed) {
        status = hg_fail(err, HG_STATUS_NO_MEMORY, "image: out of memory for its marks");
    } else {
        only_ascii(&facts);
        const char *const text[] = {
            "Software", software,   "Source", "AI generated; not for diagnosis",
            "Comment",  facts.data, NULL};
        const struct hg_png_options png = {
            .text = text, .xmp = xmp, .level = preview ? PREVIEW_LEVEL : HG_PNG_LEVEL};
        status = hg_image_encode_png(im, &png, out, err);
    }
    hg_buf_deinit(&facts);
    return status;
}
