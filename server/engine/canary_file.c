/* server/engine/canary_file.c - comparing results of the canary; its file. */
#include "server/engine/canary_file.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "common/file.h"
#include "common/json.h"
#include "server/json_text.h"

enum { MAX_BYTES = 64 << 10 };
/* Backends and instruction sets move those of the demo model by less than 0.01 (f16, f32 and int8
 * caches too); a weight with another exponent moves them by more than 1. */
static const float TOLERANCE = 0.05F;
static const double MEAN_TOLERANCE = 1; /* of 255; the backends' pictures differ by 0.01 */

const char *hg_canary_case_name(int index)
{
    static const char *const names[HG_CANARY_CASES] = {"text", "comprehension", "generation"};
    return names[index];
}

/* ---- comparing ------------------------------------------------------------------------------- */

static enum hg_status differs(const struct hg_canary_case *want, const struct hg_canary_case *got,
                              int index, int k, struct hg_error *err)
{
    return hg_fail(err, HG_STATUS_ENGINE,
                   "canary: %s: token %d: expected id %" PRId32 " (log probability %.6f), got "
                   "%" PRId32 " (%.6f)",
                   hg_canary_case_name(index), k, want->id[k], (double)want->logprob[k], got->id[k],
                   (double)got->logprob[k]);
}

static uint32_t bits_of(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

enum hg_status hg_canary_same(const struct hg_canary_case *want, const struct hg_canary_case *got,
                              int index, struct hg_error *err)
{
    if (want->n != got->n || want->present != got->present)
        return hg_fail(err, HG_STATUS_ENGINE, "canary: %s: expected %d tokens, got %d",
                       hg_canary_case_name(index), want->n, got->n);
    for (int k = 0; k < want->n; k++)
        if (want->id[k] != got->id[k] || bits_of(want->logprob[k]) != bits_of(got->logprob[k]))
            return differs(want, got, index, k, err);
    if (want->sum != got->sum)
        return hg_fail(err, HG_STATUS_ENGINE,
                       "canary: %s: the tokens are right, log probabilities of others are not",
                       hg_canary_case_name(index));
    return HG_STATUS_OK;
}

enum hg_status hg_canary_like(const struct hg_canary_case *want, const struct hg_canary_case *got,
                              int index, struct hg_error *err)
{
    if (!want->present || !got->present)
        return HG_STATUS_OK;
    for (int k = 0; k < want->n && k < got->n; k++)
        if (want->id[k] != got->id[k] || !(fabsf(want->logprob[k] - got->logprob[k]) <= TOLERANCE))
            return differs(want, got, index, k, err);
    return HG_STATUS_OK;
}

enum hg_status hg_canary_picture_like(const struct hg_canary_result *want,
                                      const struct hg_canary_result *got, struct hg_error *err)
{
    for (int k = 0; k < 3 && want->has_picture && got->has_picture; k++)
        if (!(fabs(want->mean[k] - got->mean[k]) <= MEAN_TOLERANCE))
            return hg_fail(err, HG_STATUS_ENGINE,
                           "canary: picture: expected a mean of %.2f in channel %d, got %.2f",
                           want->mean[k], k, got->mean[k]);
    return HG_STATUS_OK;
}

/* ---- the file -------------------------------------------------------------------------------- */

static enum hg_status read_case(const struct hg_json_view *doc, int index,
                                struct hg_canary_case *out, struct hg_error *err)
{
    struct hg_json_view v = {0};
    int ids[HG_CANARY_TOKENS];
    size_t n = 0;
    HG_TRY(hg_json_object(doc, hg_canary_case_name(index), HG_JSON_OPTIONAL, &v, err));
    if (!v.obj)
        return HG_STATUS_OK;
    HG_TRY(hg_json_ints(&v, "ids", HG_JSON_REQUIRED, 0, INT32_MAX, ids, HG_CANARY_TOKENS, &n, err));
    const json_t *reals = json_object_get(v.obj, "logprobs");
    if (!json_is_array(reals) || json_array_size(reals) != n)
        return hg_fail(err, HG_STATUS_BAD_FILE, "%s: logprobs: expected %zu numbers", v.where, n);
    for (size_t i = 0; i < n; i++) {
        const json_t *real = json_array_get(reals, i);
        if (!json_is_number(real))
            return hg_fail(err, HG_STATUS_BAD_FILE, "%s: logprobs: expected numbers", v.where);
        out->id[i] = ids[i];
        out->logprob[i] = (float)json_number_value(real);
    }
    out->n = (int)n;
    out->present = true;
    return HG_STATUS_OK;
}

static enum hg_status read_file(const json_t *root, uint32_t crc32c, struct hg_canary_result *out,
                                struct hg_error *err)
{
    struct hg_json_view doc = hg_json_view_of(root, "canary.json");
    int64_t sum = crc32c;
    int format;
    HG_TRY(hg_json_int(&doc, "format", HG_JSON_REQUIRED, 1, 1, &format, err));
    HG_TRY(hg_json_int64(&doc, "weights_crc32c", HG_JSON_OPTIONAL, 0, UINT32_MAX, &sum, err));
    if (sum != crc32c)
        return hg_fail(err, HG_STATUS_BAD_FILE,
                       "canary.json: it is of weights with the CRC-32C %08" PRIx32 ", those that "
                       "were read have %08" PRIx32 ": a file is damaged, or canary.json is old "
                       "(healthgpt canary makes a new one)",
                       (uint32_t)sum, crc32c);
    for (int i = 0; i < HG_CANARY_CASES; i++)
        HG_TRY(read_case(&doc, i, &out->cases[i], err));
    const json_t *mean = json_object_get(root, "picture");
    out->has_picture = mean != NULL;
    for (size_t k = 0; mean && k < 3; k++) {
        if (!json_is_number(json_array_get(mean, k)))
            return hg_fail(err, HG_STATUS_BAD_FILE, "canary.json: picture: expected three numbers");
        out->mean[k] = json_number_value(json_array_get(mean, k));
    }
    return HG_STATUS_OK;
}

enum hg_status hg_canary_read(const char *path, uint32_t crc32c, struct hg_canary_result *out,
                              bool *found, struct hg_error *err)
{
    json_t *root = NULL;
    *found = false;
    memset(out, 0, sizeof *out);
    if (!hg_file_exists(path))
        return HG_STATUS_OK;
    HG_TRY(hg_json_load(path, MAX_BYTES, &root, err));
    enum hg_status status = read_file(root, crc32c, out, err);
    json_decref(root);
    *found = status == HG_STATUS_OK;
    return status;
}

enum hg_status hg_canary_print(const struct hg_canary_result *r, uint32_t crc32c,
                               struct hg_buf *out)
{
    struct hg_json_out o;
    hg_out_begin(&o, out);
    hg_out_open(&o, NULL, '{');
    hg_out_int(&o, "format", 1);
    hg_out_uint(&o, "weights_crc32c", crc32c);
    for (int i = 0; i < HG_CANARY_CASES; i++) {
        const struct hg_canary_case *k = &r->cases[i];
        if (!k->present)
            continue;
        hg_out_open(&o, hg_canary_case_name(i), '{');
        hg_out_open(&o, "ids", '[');
        for (int t = 0; t < k->n; t++)
            hg_out_int(&o, NULL, k->id[t]);
        hg_out_close(&o, ']');
        hg_out_open(&o, "logprobs", '[');
        for (int t = 0; t < k->n; t++)
            hg_out_real(&o, NULL, (double)k->logprob[t], 6);
        hg_out_close(&o, ']');
        hg_out_close(&o, '}');
    }
    if (r->has_picture) {
        hg_out_open(&o, "picture", '[');
        for (int k = 0; k < 3; k++)
            hg_out_real(&o, NULL, r->mean[k], 3);
        hg_out_close(&o, ']');
    }
    hg_out_close(&o, '}');
    return o.failed ? HG_STATUS_NO_MEMORY : HG_STATUS_OK;
}
