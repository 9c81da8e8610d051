#include "tests/model/text/real_vocab.h"

#include "common/base64.h"
#include "common/utf8.h"
#include "model/text/byte_level.h"
#include "tests/model/text/text_check.h"

/* ---- GGUF: the arrays of the vocabulary ---- */

struct gguf { /* a trusted test file: cut short it fails the test */
    const unsigned char *data;
    size_t at, n;
};

static uint64_t number(struct gguf *g, size_t bytes)
{
    uint64_t value = 0;
    assert_true(g->n - g->at >= bytes);
    memcpy(&value, g->data + g->at, bytes);
    g->at += bytes;
    return value;
}

static const char *string(struct gguf *g, size_t *n)
{
    *n = (size_t)number(g, 8);
    assert_true(g->n - g->at >= *n);
    g->at += *n;
    return (const char *)g->data + g->at - *n;
}

static size_t width(uint64_t type)
{
    static const size_t widths[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    assert_true(type < sizeof widths / sizeof widths[0] && widths[type]);
    return widths[type];
}

static void skip_value(struct gguf *g, uint64_t type)
{
    size_t n;
    uint64_t count = 1;
    if (type == 9) {
        type = number(g, 4);
        count = number(g, 8);
    }
    for (uint64_t i = 0; i < count; i++)
        type == 8 ? (void)string(g, &n) : (void)number(g, width(type));
}

/* Stand at the first element of the array `key`; returns the number of elements. */
static uint64_t find_array(struct gguf *g, const char *key)
{
    g->at = 16;
    for (uint64_t i = number(g, 8); i > 0; i--) {
        size_t n;
        const char *name = string(g, &n);
        uint64_t type = number(g, 4);
        if (n == strlen(key) && !memcmp(name, key, n) && type == 9) {
            (void)number(g, 4);
            return number(g, 8);
        }
        skip_value(g, type);
    }
    fail_msg("GGUF without %s", key);
    return 0;
}

static bool open_gguf(const char *name, struct gguf *g)
{
    const char *path = hg_test_shared(name);
    if (!path)
        return false;
    *g = (struct gguf){0};
    g->data = hg_test_read(path, &g->n);
    assert_memory_equal(g->data, "GGUF", 4);
    return true;
}

/* ---- Phi-3 and GPT-2 ---- */

#define TOKENIZERS "data/tokenizers/"

bool real_phi3(char dir[64])
{
    enum { N_PIECES = 32000, NORMAL = 1, UNKNOWN = 2, CONTROL = 3, BYTE = 6 };
    struct gguf g, scores;
    struct hg_buf model = {0};
    if (!open_gguf(TOKENIZERS "llama.cpp/ggml-vocab-phi-3.gguf", &g))
        return false;
    text_make_dir(dir);
    if (!text_copy(dir, "tokenizer_config.json",
                   TOKENIZERS "ort-ext/phi-3-mini/tokenizer_config.json"))
        return false;
    scores = g;
    find_array(&scores, "tokenizer.ggml.scores");
    assert_true(find_array(&g, "tokenizer.ggml.tokens") >= N_PIECES);
    for (int id = 0; id < N_PIECES; id++) {
        size_t n;
        const char *s = string(&g, &n);
        uint32_t bits = (uint32_t)number(&scores, 4);
        float score;
        memcpy(&score, &bits, sizeof score);
        int type = id == 0 ? UNKNOWN : id < 3 ? CONTROL : id < 259 ? BYTE : NORMAL;
        spm_put_piece(&model, s, n, score, type);
    }
    spm_put_specs(&model, true);
    text_write(dir, "tokenizer.model", model.data, model.len);
    hg_buf_deinit(&model);
    free((void *)g.data);
    return true;
}

bool real_phi3_json(char dir[64])
{
    text_make_dir(dir);
    return text_copy(dir, "tokenizer.json", TOKENIZERS "ort-ext/phi-3-mini/tokenizer.json") &&
           text_copy(dir, "tokenizer_config.json",
                     TOKENIZERS "ort-ext/phi-3-mini/tokenizer_config.json");
}

bool real_gpt2(char dir[64])
{
    struct gguf g;
    struct hg_buf merges = {0};
    if (!open_gguf(TOKENIZERS "llama.cpp/ggml-vocab-gpt-2.gguf", &g))
        return false;
    text_make_dir(dir);
    json_t *vocab = json_object();
    uint64_t n_tokens = find_array(&g, "tokenizer.ggml.tokens");
    for (uint64_t id = 0; id < n_tokens; id++) {
        size_t n;
        const char *s = string(&g, &n);
        json_object_setn_new(vocab, s, n, json_integer((json_int_t)id));
    }
    assert_int_equal(hg_buf_append_str(&merges, "#version: 0.2\n"), 0);
    for (uint64_t i = find_array(&g, "tokenizer.ggml.merges"); i > 0; i--) {
        size_t n;
        const char *s = string(&g, &n);
        assert_int_equal(hg_buf_append(&merges, s, n), 0);
        assert_int_equal(hg_buf_append(&merges, "\n", 1), 0);
    }
    char *text = json_dumps(vocab, JSON_COMPACT);
    text_write_string(dir, "vocab.json", text);
    text_write(dir, "merges.txt", merges.data, merges.len);
    text_write_string(dir, "tokenizer_config.json",
                      "{\"tokenizer_class\": \"GPT2Tokenizer\", "
                      "\"clean_up_tokenization_spaces\": false}");
    free(text);
    json_decref(vocab);
    hg_buf_deinit(&merges);
    free((void *)g.data);
    return true;
}

/* ---- tiktoken ranks -> vocabulary and merges ---- */

struct ranks {
    struct hg_vocab tokens; /* raw bytes, id = rank */
    json_t *vocab;
    struct hg_buf merges; /* "left right\n" in the byte alphabet */
};

static void read_ranks(const char *path, struct hg_vocab *v)
{
    size_t n;
    char *s = (char *)hg_test_read(path, &n);
    struct hg_error err = {0};
    for (char *line = s, *end = s + n; line < end;) {
        char *space = memchr(line, ' ', (size_t)(end - line));
        struct hg_buf bytes = {0};
        assert_non_null(space);
        HG_TEST_OK(hg_base64_decode(line, (size_t)(space - line), 4096, &bytes, &err), err);
        HG_TEST_OK(
            hg_vocab_put(v, atoi(space + 1), bytes.data, bytes.len, HG_PIECE_NORMAL, 0.0f, &err),
            err);
        hg_buf_deinit(&bytes);
        char *newline = memchr(space, '\n', (size_t)(end - space));
        line = newline ? newline + 1 : end;
    }
    free(s);
}

static void put_alphabet(struct hg_buf *out, const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        char c[4];
        int len = hg_utf8_encode(hg_byte_level_char((unsigned char)s[i]), c);
        assert_int_equal(hg_buf_append(out, c, (size_t)len), 0);
    }
}

/* A token is the join of the two parts that its bytes merge to by lower ranks. */
static size_t split_of(const struct hg_vocab *v, int32_t id)
{
    const char *s = hg_vocab_string(v, id);
    size_t n = v->pieces[id].n, n_parts = n, starts[1025];
    assert_true(n <= 1024);
    for (size_t i = 0; i <= n; i++)
        starts[i] = i;
    while (n_parts > 2) {
        size_t best = 0;
        int32_t best_rank = id;
        for (size_t i = 0; i + 1 < n_parts; i++) {
            int32_t rank = hg_vocab_find(v, s + starts[i], starts[i + 2] - starts[i]);
            if (rank >= 0 && rank < best_rank) {
                best_rank = rank;
                best = i + 1;
            }
        }
        if (best == 0)
            return 0; /* no merge leads to this token */
        memmove(starts + best, starts + best + 1, (n_parts - best) * sizeof starts[0]);
        n_parts--;
    }
    return starts[1];
}

static void convert(struct ranks *r)
{
    struct hg_buf name = {0};
    r->vocab = json_object();
    for (int32_t id = 0; id < (int32_t)r->tokens.n; id++) {
        const char *s = hg_vocab_string(&r->tokens, id);
        size_t n = r->tokens.pieces[id].n, left = n > 1 ? split_of(&r->tokens, id) : 0;
        hg_buf_clear(&name);
        put_alphabet(&name, s, n);
        json_object_setn_new(r->vocab, name.data, name.len, json_integer(id));
        if (left == 0)
            continue;
        put_alphabet(&r->merges, s, left);
        assert_int_equal(hg_buf_append(&r->merges, " ", 1), 0);
        put_alphabet(&r->merges, s + left, n - left);
        assert_int_equal(hg_buf_append(&r->merges, "\n", 1), 0);
    }
    hg_buf_deinit(&name);
}

static bool load_ranks(const char *shared, struct ranks *r)
{
    const char *path = hg_test_shared(shared);
    *r = (struct ranks){0};
    if (!path)
        return false;
    read_ranks(path, &r->tokens);
    convert(r);
    return true;
}

static void free_ranks(struct ranks *r)
{
    hg_vocab_deinit(&r->tokens);
    json_decref(r->vocab);
    hg_buf_deinit(&r->merges);
}

static bool write_ranks(char dir[64], const char *ranks, const char *config)
{
    struct ranks r;
    struct hg_buf merges = {0};
    if (!load_ranks(ranks, &r))
        return false;
    text_make_dir(dir);
    char *text = json_dumps(r.vocab, JSON_COMPACT);
    text_write_string(dir, "vocab.json", text);
    assert_int_equal(hg_buf_append_str(&merges, "#version: 0.2\n"), 0);
    assert_int_equal(hg_buf_append(&merges, r.merges.data, r.merges.len), 0);
    text_write(dir, "merges.txt", merges.data, merges.len);
    free(text);
    hg_buf_deinit(&merges);
    free_ranks(&r);
    return text_copy(dir, "tokenizer_config.json", config);
}

bool real_phi4(char dir[64])
{
    return write_ranks(dir, TOKENIZERS "tiktoken/cl100k_base.tiktoken",
                       TOKENIZERS "ort-ext/phi-4-base/tokenizer_config.json");
}

bool real_qwen25(char dir[64])
{
    return write_ranks(dir, TOKENIZERS "qwen/qwen.tiktoken",
                       TOKENIZERS "ort-ext/qwen2.5/tokenizer_config.json");
}

bool real_cl100k_json(char dir[64])
{
    struct ranks r;
    if (!load_ranks(TOKENIZERS "tiktoken/cl100k_base.tiktoken", &r))
        return false;
    text_make_dir(dir);
    json_t *merges = json_array();
    for (char *line = r.merges.data, *end; (end = strchr(line, '\n')); line = end + 1)
        json_array_append_new(merges, json_stringn(line, (size_t)(end - line)));
    json_t *doc = json_pack(
        "{s:[], s:n, s:{s:s, s:[{s:s, s:{s:s}, s:s, s:b}, {s:s, s:b, s:b}]}, s:{s:s, s:O, s:o}}",
        "added_tokens", "normalizer", "pre_tokenizer", "type", "Sequence", "pretokenizers", "type",
        "Split", "pattern", "Regex",
        "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}|"
        " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
        "behavior", "Isolated", "invert", 0, "type", "ByteLevel", "add_prefix_space", 0,
        "use_regex", 0, "model", "type", "BPE", "vocab", r.vocab, "merges", merges);
    assert_non_null(doc);
    char *text = json_dumps(doc, JSON_COMPACT);
    text_write_string(dir, "tokenizer.json", text);
    free(text);
    json_decref(doc);
    free_ranks(&r);
    return true;
}
