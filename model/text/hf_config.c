#include "model/text/hf_config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/file.h"
#include "common/json.h"
#include "model/text/byte_level.h"

void hg_hf_config_deinit(struct hg_hf_config *c)
{
    json_decref(c->doc);
    *c = (struct hg_hf_config){0};
}

/* ---- the class and its switches ---- */

static enum hg_status family_of_class(const char *name, enum hg_tokenizer_family *out,
                                      struct hg_error *err)
{
    static const struct {
        const char *name;
        enum hg_tokenizer_family family;
    } classes[] = {
        {"LlamaTokenizer", HG_FAMILY_LLAMA},         {"LlamaTokenizerFast", HG_FAMILY_LLAMA},
        {"GPT2Tokenizer", HG_FAMILY_GPT2},           {"GPT2TokenizerFast", HG_FAMILY_GPT2},
        {"Qwen2Tokenizer", HG_FAMILY_QWEN2},         {"Qwen2TokenizerFast", HG_FAMILY_QWEN2},
        {"PreTrainedTokenizerFast", HG_FAMILY_NONE},
    };
    for (size_t i = 0; i < sizeof classes / sizeof classes[0]; i++) {
        if (!strcmp(name, classes[i].name)) {
            *out = classes[i].family;
            return HG_STATUS_OK;
        }
    }
    return hg_fail(err, HG_STATUS_UNSUPPORTED,
                   "tokenizer_config.json: tokenizer_class %.60s, expected LlamaTokenizer, "
                   "GPT2Tokenizer or Qwen2Tokenizer",
                   name);
}

/* Switches of transformers that change ids and that none of our models uses. */
static enum hg_status refuse_switches(const struct hg_json_view *v, bool byte_level,
                                      struct hg_error *err)
{
    static const char *const off[] = {"add_eos_token", "split_special_tokens", "do_lower_case"};
    for (size_t i = 0; i < sizeof off / sizeof off[0]; i++) {
        bool on = false;
        HG_TRY(hg_json_bool(v, off[i], HG_JSON_OPTIONAL, &on, err));
        if (on)
            return hg_fail(err, HG_STATUS_UNSUPPORTED, "%s: %s = true is not supported", v->where,
                           off[i]);
    }
    bool prefix = false;
    HG_TRY(hg_json_bool(v, "add_prefix_space", HG_JSON_OPTIONAL, &prefix, err));
    if (prefix && byte_level)
        return hg_fail(err, HG_STATUS_UNSUPPORTED,
                       "%s: add_prefix_space = true is not supported for byte-level BPE", v->where);
    struct hg_json_view kwargs;
    HG_TRY(hg_json_object(v, "sp_model_kwargs", HG_JSON_OPTIONAL, &kwargs, err));
    if (kwargs.obj && json_object_size(kwargs.obj) > 0)
        return hg_fail(err, HG_STATUS_UNSUPPORTED, "%s: sp_model_kwargs is not supported",
                       v->where);
    return HG_STATUS_OK;
}

enum hg_status hg_hf_config_read(const char *dir, struct hg_hf_config *c, struct hg_error *err)
{
    char path[4096];
    const char *class_name = NULL;
    *c = (struct hg_hf_config){.add_bos = true, .prefix_space = true};
    if (hg_path_join(path, sizeof path, dir, "tokenizer_config.json"))
        return hg_fail(err, HG_STATUS_TOO_LARGE, "%.80s...: the path is too long", dir);
    if (!hg_file_exists(path))
        return HG_STATUS_OK;
    HG_TRY(hg_json_load(path, 16 << 20, &c->doc, err));
    struct hg_json_view v = hg_json_view_of(c->doc, "tokenizer_config.json");
    HG_TRY(hg_json_string(&v, "tokenizer_class", HG_JSON_REQUIRED, 128, &class_name, err));
    HG_TRY(family_of_class(class_name, &c->family, err));
    HG_TRY(refuse_switches(&v, c->family != HG_FAMILY_LLAMA, err));
    c->add_bos = c->legacy = c->family == HG_FAMILY_LLAMA; /* the class's own defaults */
    HG_TRY(hg_json_bool(&v, "add_bos_token", HG_JSON_OPTIONAL, &c->add_bos, err));
    HG_TRY(hg_json_bool(&v, "legacy", HG_JSON_OPTIONAL, &c->legacy, err));
    HG_TRY(hg_json_bool(&v, "add_prefix_space", HG_JSON_OPTIONAL, &c->prefix_space, err));
    /* on by default, but off in these two classes (reference.md 9.6) */
    c->clean_up = c->family != HG_FAMILY_LLAMA && c->family != HG_FAMILY_QWEN2;
    HG_TRY(hg_json_bool(&v, "clean_up_tokenization_spaces", HG_JSON_OPTIONAL, &c->clean_up, err));
    return HG_STATUS_OK;
}

/* ---- added tokens ---- */

/* One AddedToken object; also accepts a bare string (no flags). */
static enum hg_status put_added(struct hg_tokenizer *t, int64_t id, const json_t *token,
                                const char *where, struct hg_error *err)
{
    if (json_is_string(token))
        return hg_added_put(&t->vocab, &t->added, id, json_string_value(token),
                            json_string_length(token), 0, err);
    if (!json_is_object(token))
        return hg_fail(err, HG_STATUS_BAD_FILE, "%s: added token %" PRId64 " is not an object",
                       where, id);
    struct hg_json_view v = hg_json_view_of(token, where);
    const char *content = NULL;
    bool lstrip = false, rstrip = false, single_word = false;
    HG_TRY(hg_json_string(&v, "content", HG_JSON_REQUIRED, HG_ADDED_MAX_LEN, &content, err));
    HG_TRY(hg_json_bool(&v, "lstrip", HG_JSON_OPTIONAL, &lstrip, err));
    HG_TRY(hg_json_bool(&v, "rstrip", HG_JSON_OPTIONAL, &rstrip, err));
    HG_TRY(hg_json_bool(&v, "single_word", HG_JSON_OPTIONAL, &single_word, err));
    if (single_word)
        return hg_fail(err, HG_STATUS_UNSUPPORTED, "%s: %.60s: single_word is not supported", where,
                       content);
    unsigned flags = (lstrip ? HG_PIECE_LSTRIP : 0u) | (rstrip ? HG_PIECE_RSTRIP : 0u);
    return hg_added_put(&t->vocab, &t->added, id, content, strlen(content), flags, err);
}

static enum hg_status added_decoder(const json_t *decoder, struct hg_tokenizer *t,
                                    struct hg_error *err)
{
    const char *where = "tokenizer_config.json: added_tokens_decoder", *key;
    json_t *token;
    json_object_foreach((json_t *)decoder, key, token)
    {
        char *end;
        errno = 0;
        long long id = strtoll(key, &end, 10);
        if (*end || end == key || errno)
            return hg_fail(err, HG_STATUS_BAD_FILE, "%s: key '%.40s' is not an id", where, key);
        HG_TRY(put_added(t, id, token, where, err));
    }
    return HG_STATUS_OK;
}

static enum hg_status added_list(const json_t *listed, struct hg_tokenizer *t, struct hg_error *err)
{
    const char *where = "tokenizer.json: added_tokens";
    if (listed && !json_is_array(listed))
        return hg_fail(err, HG_STATUS_BAD_FILE, "%s: expected an array", where);
    for (size_t i = 0; i < json_array_size(listed); i++) {
        const json_t *token = json_array_get(listed, i);
        struct hg_json_view v = hg_json_view_of(token, where);
        int64_t id = 0;
        if (!json_is_object(token))
            return hg_fail(err, HG_STATUS_BAD_FILE, "%s: entry %zu is not an object", where, i);
        HG_TRY(hg_json_int64(&v, "id", HG_JSON_REQUIRED, 0, HG_VOCAB_MAX - 1, &id, err));
        HG_TRY(put_added(t, id, token, where, err));
    }
    return HG_STATUS_OK;
}

/* added_tokens.json: {"<|im_start|>": 100264, ...}, no flags */
static enum hg_status added_file(const char *dir, struct hg_tokenizer *t, struct hg_error *err)
{
    char path[4096];
    json_t *doc = NULL;
    if (!dir || hg_path_join(path, sizeof path, dir, "added_tokens.json") || !hg_file_exists(path))
        return HG_STATUS_OK;
    HG_TRY(hg_json_load(path, 16 << 20, &doc, err));
    enum hg_status status = HG_STATUS_OK;
    const char *key;
    json_t *id;
    json_object_foreach(doc, key, id)
    {
        if (!json_is_integer(id))
            HG_TRY_OUT(hg_fail(err, HG_STATUS_BAD_FILE,
                               "added_tokens.json: %.60s: expected an integer", key));
        HG_TRY_OUT(
            hg_added_put(&t->vocab, &t->added, json_integer_value(id), key, strlen(key), 0, err));
    }
out:
    json_decref(doc);
    return status;
}

enum hg_status hg_hf_config_added(const struct hg_hf_config *c, const char *dir,
                                  const json_t *listed, struct hg_tokenizer *t,
                                  struct hg_error *err)
{
    const json_t *decoder = json_object_get(c->doc, "added_tokens_decoder");
    if (json_is_object(decoder))
        return added_decoder(decoder, t, err);
    HG_TRY(added_file(dir, t, err));
    return added_list(listed, t, err);
}

/* ---- special tokens ---- */

/* The strip flags of a token that is written as an object. */
static unsigned flags_of(const json_t *token)
{
    return (json_is_true(json_object_get(token, "lstrip")) ? HG_PIECE_LSTRIP : 0u) |
           (json_is_true(json_object_get(token, "rstrip")) ? HG_PIECE_RSTRIP : 0u);
}

/* `flags` count only where the added tokens do not have it yet. */
static enum hg_status special(struct hg_tokenizer *t, const char *s, unsigned flags, int32_t *out,
                              struct hg_error *err)
{
    size_t n = strlen(s);
    int32_t id = hg_vocab_find(&t->vocab, s, n);
    if (id < 0 || !(t->vocab.pieces[id].flags & HG_PIECE_ADDED)) {
        int64_t new_id = id < 0 ? (int64_t)t->vocab.n_keys : id;
        HG_TRY(hg_added_put(&t->vocab, &t->added, new_id, s, n, flags, err));
        id = (int32_t)new_id;
    }
    t->vocab.pieces[id].flags |= HG_PIECE_SPECIAL;
    if (out)
        *out = id;
    return HG_STATUS_OK;
}

/* The string of a special token in the file: "x", {"content": "x", "rstrip": true} or null. */
static enum hg_status special_string(const struct hg_hf_config *c, const char *key,
                                     const char **out, unsigned *flags, struct hg_error *err)
{
    const json_t *value = json_object_get(c->doc, key);
    *flags = flags_of(value);
    if (!value)
        return HG_STATUS_OK; /* keeps the class's default */
    if (json_is_object(value))
        value = json_object_get(value, "content");
    *out = json_string_value(value);
    if (!*out && !json_is_null(value))
        return hg_fail(err, HG_STATUS_BAD_FILE,
                       "tokenizer_config.json: %s: expected a string, an object or null", key);
    return HG_STATUS_OK;
}

static enum hg_status additional(const struct hg_hf_config *c, struct hg_tokenizer *t,
                                 struct hg_error *err)
{
    const json_t *list = json_object_get(c->doc, "additional_special_tokens");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *token = json_array_get(list, i);
        const char *s =
            json_string_value(json_is_object(token) ? json_object_get(token, "content") : token);
        if (!s)
            return hg_fail(err, HG_STATUS_BAD_FILE,
                           "tokenizer_config.json: additional_special_tokens: entry %zu is not a "
                           "string",
                           i);
        HG_TRY(special(t, s, flags_of(token), NULL, err));
    }
    return HG_STATUS_OK;
}

enum hg_status hg_hf_config_specials(const struct hg_hf_config *c, struct hg_tokenizer *t,
                                     struct hg_error *err)
{
    enum { BOS, EOS, UNK, PAD, N_SPECIAL };
    static const char *const keys[N_SPECIAL] = {"bos_token", "eos_token", "unk_token", "pad_token"};
    static const char *const defaults[][N_SPECIAL] = {
        [HG_FAMILY_NONE] = {NULL, NULL, NULL, NULL},
        [HG_FAMILY_LLAMA] = {"<s>", "</s>", "<unk>", NULL},
        [HG_FAMILY_GPT2] = {"<|endoftext|>", "<|endoftext|>", "<|endoftext|>", NULL},
        [HG_FAMILY_QWEN2] = {NULL, "<|endoftext|>", "<|endoftext|>", "<|endoftext|>"},
    };
    int32_t ids[N_SPECIAL] = {-1, -1, -1, -1};
    for (int i = 0; i < N_SPECIAL; i++) {
        const char *s = defaults[c->doc                         ? c->family
                                 : t->family == HG_FAMILY_LLAMA ? t->family
                                                                : HG_FAMILY_NONE][i];
        unsigned flags;
        HG_TRY(special_string(c, keys[i], &s, &flags, err));
        if (s && *s)
            HG_TRY(special(t, s, flags, &ids[i], err));
    }
    HG_TRY(additional(c, t, err));
    t->bos = ids[BOS];
    t->eos = ids[EOS];
    t->unk = t->family == HG_FAMILY_LLAMA && t->unk >= 0 ? t->unk : ids[UNK];
    t->add_bos = c->add_bos && t->bos >= 0;
    return HG_STATUS_OK;
}

enum hg_status hg_hf_config_finish(const struct hg_hf_config *c, struct hg_tokenizer *t,
                                   struct hg_error *err)
{
    HG_TRY(hg_hf_config_specials(c, t, err));
    t->clean_up = c->clean_up;
    if (t->family != HG_FAMILY_LLAMA)
        HG_TRY(hg_byte_level_finish("tokenizer", t, err));
    HG_TRY(hg_bytes_are_plain("tokenizer", t, err));
    if (t->family != HG_FAMILY_LLAMA)
        return HG_STATUS_OK;
    t->legacy = c->legacy;
    /* legacy = false patches add_dummy_prefix away and writes U+2581 itself */
    t->prefix_space = c->legacy ? t->prefix_space : c->prefix_space;
    return HG_STATUS_OK;
}
