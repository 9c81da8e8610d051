#include "model/text/tokenizer.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/file.h"
#include "common/json.h"
#include "model/text/hf_config.h"
#include "model/text/hf_json.h"
#include "model/text/tokenizer_file.h"

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

static enum hg_status load_sources(const char *dir, const struct sources *s, struct hg_tokenizer *t,
                                   json_t **json, struct hg_error *err)
{
    bool byte_level = t->family == HG_FAMILY_GPT2 || t->family == HG_FAMILY_QWEN2;
    t->pattern = t->family == HG_FAMILY_QWEN2 ? HG_PATTERN_QWEN2 : HG_PATTERN_GPT2;
    if (!byte_level && s->has_spm) {
        t->family = HG_FAMILY_LLAMA;
        return hg_load_spm(s->spm, t, err);
    }
    if (byte_level && s->has_vocab)
        return load_vocab_and_merges(s->vocab, s->merges, t, err);
    if (s->has_json)
        return hg_load_tokenizer_json(s->json, t, json, err);
    return hg_fail(err, HG_STATUS_NOT_FOUND, "%.80s: no tokenizer here, expected %s", dir,
                   byte_level ? "vocab.json and merges.txt, or tokenizer.json"
                              : "tokenizer.model or tokenizer.json");
}

static enum hg_status load_folder(const char *dir, struct hg_tokenizer *t, struct hg_error *err)
{
    struct hg_hf_config config = {0};
    struct sources *sources = calloc(1, sizeof *sources);
    json_t *json = NULL;
    enum hg_status status = HG_STATUS_NO_MEMORY;
    if (!sources) {
        hg_fail(err, status, "tokenizer: no memory");
        goto out;
    }
    HG_TRY_OUT(hg_hf_config_read(dir, &config, err));
    HG_TRY_OUT(look_for_sources(dir, sources, err));
    t->family = config.family;
    HG_TRY_OUT(load_sources(dir, sources, t, &json, err));
    if (!json && sources->has_json && !json_object_get(config.doc, "added_tokens_decoder"))
        HG_TRY_OUT(hg_json_load(sources->json, HG_TOKENIZER_FILE_MAX, &json, err));
    HG_TRY_OUT(hg_hf_config_added(&config, dir, json_object_get(json, "added_tokens"), t, err));
    HG_TRY_OUT(hg_hf_config_finish(&config, t, err));
out:
    json_decref(json);
    free(sources);
    hg_hf_config_deinit(&config);
    return status;
}

enum hg_status hg_tokenizer_load(const char *path, struct hg_tokenizer **out, struct hg_error *err)
{
    return hg_tokenizer_load_as(path, NULL, out, err);
}

enum hg_status hg_tokenizer_load_as(const char *path, const char *regex, struct hg_tokenizer **out,
                                    struct hg_error *err)
{
    struct stat st;
    enum hg_pattern pattern = regex ? hg_pattern_of_name(regex) : HG_PATTERN_COUNT;
    *out = NULL;
    if (regex && pattern == HG_PATTERN_COUNT)
        return hg_fail(err, HG_STATUS_BAD_REQUEST, "regex %.40s: expected gpt2, qwen2 or cl100k",
                       regex);
    if (stat(path, &st))
        return hg_fail(err, HG_STATUS_NOT_FOUND, "%.120s: no such tokenizer folder or file", path);
    struct hg_tokenizer *t = new_tokenizer();
    if (!t)
        return hg_fail(err, HG_STATUS_NO_MEMORY, "tokenizer: no memory");
    enum hg_status status = S_ISDIR(st.st_mode) ? load_folder(path, t, err)
                                                : hg_load_tokenizer_file(path, pattern, t, err);
    if (status == HG_STATUS_OK && regex && t->family == HG_FAMILY_LLAMA)
        status = hg_fail(err, HG_STATUS_BAD_REQUEST,
                         "%.120s: SentencePiece cuts no words: a regex means nothing to it", path);
    if (status == HG_STATUS_OK && regex)
        t->pattern = pattern;
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
