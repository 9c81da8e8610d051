#include "model/text/tokenizer.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/file.h"
#include "common/json.h"
#include "model/text/byte_level.h"
#include "model/text/hf_config.h"
#include "model/text/hf_json.h"
#include "model/text/sentencepiece.h"

/* ---- ids ---- */

void hg_ids_deinit(struct hg_ids *ids)
{
    free(ids->data);
    *ids = (struct hg_ids){0};
}

enum hg_status hg_ids_push(struct hg_ids *ids, int32_t id)
{
    if (ids->n == ids->cap) {
        size_t cap = ids->cap ? ids->cap * 2 : 64;
        if (cap > SIZE_MAX / sizeof *ids->data)
            return HG_STATUS_TOO_LARGE;
        int32_t *data = realloc(ids->data, cap * sizeof *data);
        if (!data)
            return HG_STATUS_NO_MEMORY;
        ids->data = data;
        ids->cap = cap;
    }
    ids->data[ids->n++] = id;
    return HG_STATUS_OK;
}

/* ---- loading ---- */

void hg_tokenizer_free(struct hg_tokenizer *t)
{
    if (!t)
        return;
    hg_vocab_deinit(&t->vocab);
    hg_merges_deinit(&t->merges);
    hg_pretokenizer_destroy(t->pattern);
    free(t);
}

static struct hg_tokenizer *new_tokenizer(void)
{
    struct hg_tokenizer *t = calloc(1, sizeof *t);
    if (!t)
        return NULL;
    t->bos = t->eos = t->unk = -1;
    for (int i = 0; i < 256; i++)
        t->byte_ids[i] = -1;
    return t;
}

static enum hg_status load_spm(const char *path, struct hg_tokenizer *t, struct hg_error *err)
{
    struct hg_buf bytes = {0};
    enum hg_status status = hg_file_read(path, HG_TOKENIZER_FILE_MAX, &bytes, err);
    if (status == HG_STATUS_OK)
        status =
            hg_spm_parse("tokenizer.model", (const unsigned char *)bytes.data, bytes.len, t, err);
    hg_buf_deinit(&bytes);
    return status;
}

static enum hg_status load_vocab_and_merges(const char *vocab_path, const char *merges_path,
                                            struct hg_tokenizer *t, struct hg_error *err)
{
    json_t *vocab = NULL;
    struct hg_buf merges = {0};
    enum hg_status status;
    HG_TRY_OUT(hg_json_load(vocab_path, HG_TOKENIZER_FILE_MAX, &vocab, err));
    HG_TRY_OUT(hg_hf_vocab("vocab.json", vocab, t, err));
    HG_TRY_OUT(hg_file_read(merges_path, HG_TOKENIZER_FILE_MAX, &merges, err));
    HG_TRY_OUT(hg_hf_merges_text("merges.txt", merges.data, merges.len, t, err));
out:
    json_decref(vocab);
    hg_buf_deinit(&merges);
    return status;
}

/* The files of a folder that hold a vocabulary. */
struct sources {
    char spm[4096], vocab[4096], merges[4096], json[4096];
    bool has_spm, has_vocab, has_json;
};

static enum hg_status look_for_sources(const char *dir, struct sources *s, struct hg_error *err)
{
    if (hg_path_join(s->spm, sizeof s->spm, dir, "tokenizer.model") ||
        hg_path_join(s->vocab, sizeof s->vocab, dir, "vocab.json") ||
        hg_path_join(s->merges, sizeof s->merges, dir, "merges.txt") ||
        hg_path_join(s->json, sizeof s->json, dir, "tokenizer.json"))
        return hg_fail(err, HG_STATUS_TOO_LARGE, "%.80s...: the path is too long", dir);
    s->has_spm = hg_file_exists(s->spm);
    s->has_vocab = hg_file_exists(s->vocab) && hg_file_exists(s->merges);
    s->has_json = hg_file_exists(s->json);
    return HG_STATUS_OK;
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

static enum hg_status load_json(const char *path, struct hg_tokenizer *t, json_t **doc,
                                enum hg_pattern *pattern, struct hg_error *err)
{
    HG_TRY(hg_json_load(path, HG_TOKENIZER_FILE_MAX, doc, err));
    HG_TRY(hg_hf_tokenizer_json(*doc, t, pattern, err));
    enum hg_tokenizer_family family;
    if (t->family == HG_FAMILY_NONE) {
        HG_TRY(family_of_json(*doc, *pattern, &t->family, err));
        return HG_STATUS_OK;
    }
    family = t->byte_fallback ? HG_FAMILY_LLAMA : t->family;
    if (family != t->family || (t->family == HG_FAMILY_LLAMA && !t->byte_fallback))
        return hg_fail(err, HG_STATUS_UNSUPPORTED,
                       "tokenizer.json: byte_fallback = %s does not fit tokenizer_class",
                       t->byte_fallback ? "true" : "false");
    /* the slow classes bring their own pattern, whatever the file says (reference.md 9.4) */
    *pattern = t->family == HG_FAMILY_QWEN2 ? HG_PATTERN_QWEN2 : HG_PATTERN_GPT2;
    return HG_STATUS_OK;
}

static enum hg_status load_sources(const char *dir, const struct sources *s, struct hg_tokenizer *t,
                                   json_t **json, enum hg_pattern *pattern, struct hg_error *err)
{
    bool byte_level = t->family == HG_FAMILY_GPT2 || t->family == HG_FAMILY_QWEN2;
    *pattern = t->family == HG_FAMILY_QWEN2 ? HG_PATTERN_QWEN2 : HG_PATTERN_GPT2;
    if (!byte_level && s->has_spm) {
        t->family = HG_FAMILY_LLAMA;
        return load_spm(s->spm, t, err);
    }
    if (byte_level && s->has_vocab)
        return load_vocab_and_merges(s->vocab, s->merges, t, err);
    if (s->has_json)
        return load_json(s->json, t, json, pattern, err);
    return hg_fail(err, HG_STATUS_NOT_FOUND, "%.80s: no tokenizer here, expected %s", dir,
                   byte_level ? "vocab.json and merges.txt, or tokenizer.json"
                              : "tokenizer.model or tokenizer.json");
}

static enum hg_status finish(const struct hg_hf_config *c, enum hg_pattern pattern,
                             struct hg_tokenizer *t, struct hg_error *err)
{
    HG_TRY(hg_hf_config_specials(c, t, err));
    t->clean_up = c->clean_up;
    if (t->family == HG_FAMILY_LLAMA) {
        t->legacy = c->legacy;
        /* legacy = false patches add_dummy_prefix away and writes U+2581 itself */
        t->prefix_space = c->legacy ? t->prefix_space : c->prefix_space;
        return HG_STATUS_OK;
    }
    HG_TRY(hg_byte_level_finish("tokenizer", t, err));
    return hg_pretokenizer_create(pattern, &t->pattern, err);
}

static enum hg_status load_folder(const char *dir, struct hg_tokenizer *t, struct hg_error *err)
{
    struct hg_hf_config config = {0};
    struct sources *sources = calloc(1, sizeof *sources);
    json_t *json = NULL;
    enum hg_pattern pattern;
    enum hg_status status = HG_STATUS_NO_MEMORY;
    if (!sources) {
        hg_fail(err, status, "tokenizer: no memory");
        goto out;
    }
    HG_TRY_OUT(hg_hf_config_read(dir, &config, err));
    HG_TRY_OUT(look_for_sources(dir, sources, err));
    t->family = config.family;
    HG_TRY_OUT(load_sources(dir, sources, t, &json, &pattern, err));
    HG_TRY_OUT(hg_hf_config_added(&config, dir, json_object_get(json, "added_tokens"), t, err));
    HG_TRY_OUT(finish(&config, pattern, t, err));
out:
    json_decref(json);
    free(sources);
    hg_hf_config_deinit(&config);
    return status;
}

static enum hg_status load_file(const char *path, struct hg_tokenizer *t, struct hg_error *err)
{
    struct hg_hf_config config = {.add_bos = true, .prefix_space = true};
    size_t n = strlen(path);
    json_t *json = NULL;
    enum hg_pattern pattern = HG_PATTERN_GPT2;
    enum hg_status status;
    if (n > 5 && !strcmp(path + n - 5, ".json")) {
        HG_TRY_OUT(load_json(path, t, &json, &pattern, err));
    } else {
        t->family = HG_FAMILY_LLAMA;
        HG_TRY_OUT(load_spm(path, t, err));
    }
    HG_TRY_OUT(hg_hf_config_added(&config, NULL, json_object_get(json, "added_tokens"), t, err));
    HG_TRY_OUT(finish(&config, pattern, t, err));
out:
    json_decref(json);
    return status;
}

enum hg_status hg_tokenizer_load(const char *dir, struct hg_tokenizer **out, struct hg_error *err)
{
    struct stat st;
    *out = NULL;
    if (stat(dir, &st))
        return hg_fail(err, HG_STATUS_NOT_FOUND, "%.120s: no such tokenizer folder or file", dir);
    struct hg_tokenizer *t = new_tokenizer();
    if (!t)
        return hg_fail(err, HG_STATUS_NO_MEMORY, "tokenizer: no memory");
    enum hg_status status = S_ISDIR(st.st_mode) ? load_folder(dir, t, err) : load_file(dir, t, err);
    if (status != HG_STATUS_OK) {
        hg_tokenizer_free(t);
        return status;
    }
    *out = t;
    return HG_STATUS_OK;
}

enum hg_status hg_tokenizer_add_image_tokens(struct hg_tokenizer *t, int n_index, int32_t *first,
                                             struct hg_error *err)
{
    if (n_index < 1 || n_index > HG_VOCAB_MAX / 2)
        return hg_fail(err, HG_STATUS_BAD_FILE, "tokenizer: %d image indices, expected 1..%d",
                       n_index, HG_VOCAB_MAX / 2);
    int64_t start = (int64_t)t->vocab.n_keys;
    for (int i = 0; i < n_index + 3; i++) {
        char name[32];
        int n = i == 0             ? snprintf(name, sizeof name, "<start_index>")
                : i <= n_index     ? snprintf(name, sizeof name, "<idx_%d>", i - 1)
                : i == n_index + 1 ? snprintf(name, sizeof name, "<end_index>")
                                   : snprintf(name, sizeof name, "<pixel_newline>");
        HG_TRY(
            hg_added_put(&t->vocab, &t->added, start + i, name, (size_t)n, HG_PIECE_SPECIAL, err));
    }
    if (first)
        *first = (int32_t)start;
    return HG_STATUS_OK;
}

/* ---- looking up ---- */

int32_t hg_tokenizer_size(const struct hg_tokenizer *t)
{
    return (int32_t)t->vocab.n_keys;
}

int32_t hg_tokenizer_id(const struct hg_tokenizer *t, const char *token)
{
    return hg_vocab_find(&t->vocab, token, strlen(token));
}

static bool has_token(const struct hg_tokenizer *t, int32_t id)
{
    return id >= 0 && (size_t)id < t->vocab.n && t->vocab.pieces[id].kind != HG_PIECE_ABSENT;
}

bool hg_tokenizer_is_added(const struct hg_tokenizer *t, int32_t id)
{
    return has_token(t, id) && hg_piece_is_added(&t->vocab.pieces[id]);
}

const char *hg_tokenizer_token(const struct hg_tokenizer *t, int32_t id)
{
    return has_token(t, id) ? hg_vocab_string(&t->vocab, id) : NULL;
}

const char *hg_tokenizer_family(const struct hg_tokenizer *t)
{
    static const char *const names[] = {[HG_FAMILY_NONE] = "none",
                                        [HG_FAMILY_LLAMA] = "LlamaTokenizer",
                                        [HG_FAMILY_GPT2] = "GPT2Tokenizer",
                                        [HG_FAMILY_QWEN2] = "Qwen2Tokenizer"};
    return names[t->family];
}

int32_t hg_tokenizer_bos(const struct hg_tokenizer *t)
{
    return t->add_bos ? t->bos : -1;
}

int32_t hg_tokenizer_eos(const struct hg_tokenizer *t)
{
    return t->eos;
}
