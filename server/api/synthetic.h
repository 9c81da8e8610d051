/* server/api/synthetic.h - pictures that say of themselves that a model made them.
 *
 * Every PNG that leaves us holds four text chunks and nothing else beside its pixels: Software,
 * Source, Comment (small JSON: how to make it again) and an XMP packet with the IPTC digital source
 * type "trainedAlgorithmicMedia". No prompt, no text of anybody, no time: the bytes are a function
 * of pixels and facts. */
#ifndef HG_SERVER_SYNTHETIC_H
#define HG_SERVER_SYNTHETIC_H

#include <stdbool.h>

#include "common/buf.h"
#include "common/image_io.h"

struct hg_synthetic {
    const char *model, *plugin;
    uint32_t weights_crc32c; /* hg_model_info */
    uint64_t seed;
};

/* preview: made quickly (zlib level 1) and larger. */
enum hg_status hg_synthetic_png(const struct hg_image *im, const struct hg_synthetic *s,
                                bool preview, struct hg_buf *out, struct hg_error *err);

#endif
