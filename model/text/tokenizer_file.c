#include "model/text/tokenizer_file.h"

#include <string.h>

#include "common/file.h"
#include "common/json.h"
#include "model/text/gguf.h"
#include "model/text/hf_config.h"
#include "model/text/hf_json.h"
#include "model/text/sentencepiece.h"
#include "model/text/tiktoken.h"

enum hg_status hg_load_spm(const char *path, struct hg_tokenizer *t, struct hg_error *err)
{
    struct hg_buf bytes = {0};
    enum hg_status status = hg_file_read(path, HG_TOKENIZER_FILE_MAX, &bytes, err);
    if (status == HG_STATUS_OK)
        status =
            hg_spm_parse("tokenizer.model", (const unsigned char *)bytes.data, bytes.len, t, err);
    hg_buf_deinit(&bytes);
    return status;
}

/* A bare tokenizer.json, or one beside a config that names no class. */
static enum hg_status family_of_json(const json_t *doc, enum hg_pattern pattern,
                                     enum hg_tokenizer_family *out, struct hg_error *err)
{
    const json_t *fallback = json_object_get(json_object_get(doc, "model"), "byte_fallback");
    const json_t *normalizer = json_object_get(doc, "normalizer");
    const char *type = json_string_value(json_object_get(normalizer, "type"));
    bool nfc = type && !strcmp(type, "NFC");
    if (json_is_true(fallback))
        *out = HG_FAMILY_LLAMA;
    else if (nfc && pattern == HG_PATTERN_QWEN2)
        *out = HG_FAMILY_QWEN2;
    else if (!type)
        *out = HG_FAMILY_GPT2;
    else
        return hg_fail(err, HG_STATUS_UNSUPPORTED,
                       "tokenizer.json: normalizer %s with this pre_tokenizer is not supported",
                       type);
    return HG_STATUS_OK;
}

enum hg_status hg_load_tokenizer_json(const char *path, struct hg_tokenizer *t, json_t **doc,
                                      struct hg_error *err)
{
    HG_TRY(hg_json_load(path, HG_TOKENIZER_FILE_MAX, doc, err));
    HG_TRY(hg_hf_tokenizer_json(*doc, t, err));
    if (t->family == HG_FAMILY_NONE)
        return family_of_json(*doc, t->pattern, &t->family, err);
    if ((t->family == HG_FAMILY_LLAMA) != t->byte_fallback)
        return hg_fail(err, HG_STATUS_UNSUPPORTED,
                       "tokenizer.json: byte_fallback = %s does not fit tokenizer_class",
                       t->byte_fallback ? "true" : "false");
    /* the slow classes bring their own pattern, whatever the file says (reference.md 9.4) */
    t->pattern = t->family == HG_FAMILY_QWEN2 ? HG_PATTERN_QWEN2 : HG_PATTERN_GPT2;
    return HG_STATUS_OK;
}

static enum hg_status load_hf_file(const char *path, bool is_json, struct hg_tokenizer *t,
                                   struct hg_error *err)
{
    struct hg_hf_config config = {.add_bos = true, .prefix_space = true};
    json_t *json = NULL;
    enum hg_status status;
    if (is_json) {
        HG_TRY_OUT(hg_load_tokenizer_json(path, t, &json, err));
    } else {
        t->family = HG_FAMILY_LLAMA;
        HG_TRY_OUT(hg_load_spm(path, t, err));
    }
    HG_TRY_OUT(hg_hf_config_added(&config, NULL, json_object_get(json, "added_tokens"), t, err));
    HG_TRY_OUT(hg_hf_config_finish(&config, t, err));
out:
    json_decref(json);
    return status;
}

enum hg_status hg_load_tokenizer_file(const char *path, enum hg_pattern pattern,
                                      struct hg_tokenizer *t, struct hg_error *err)
{
    struct hg_file_map map = {0};
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    size_t n = strlen(path);
    enum hg_status status;
    HG_TRY_OUT(hg_file_map(path, &map, err));
    if (hg_is_gguf(map.data, map.n))
        status = hg_gguf_vocab(name, map.data, map.n, pattern, t, err);
    else if (hg_is_tiktoken(map.data, map.n))
        status = hg_tiktoken_ranks(name, map.data, map.n, pattern, t, err);
    else
        status = load_hf_file(path, n > 5 && !strcmp(path + n - 5, ".json"), t, err);
out:
    hg_file_unmap(&map);
    return status;
}
