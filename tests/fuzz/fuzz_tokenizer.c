/* tests/fuzz/fuzz_tokenizer.c - libFuzzer target of the text side (make fuzz).
 *
 * The first byte chooses: a tokenizer.model; a tokenizer.json; a merges.txt or a text for a loaded
 * tokenizer; a GGUF; a rank file; a text for the scanners. What a tokenizer reads must come back as
 * valid UTF-8 and hold no added token. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base64.h"
#include "common/json.h"
#include "common/utf8.h"
#include "model/text/byte_level.h"
#include "model/text/gguf.h"
#include "model/text/hf_json.h"
#include "model/text/sentencepiece.h"
#include "model/text/tiktoken.h"

enum { MAX_INPUT = 1 << 16 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static struct hg_tokenizer *new_tokenizer(enum hg_tokenizer_family family)
{
    struct hg_tokenizer *t = calloc(1, sizeof *t);
    if (!t)
        abort();
    t->family = family;
    t->bos = t->eos = t->unk = -1;
    memset(t->byte_ids, 0xff, sizeof t->byte_ids);
    return t;
}

static void check_text(const struct hg_tokenizer *t, const char *s, size_t n)
{
    struct hg_text_part part = {s, n, false};
    struct hg_ids ids = {0};
    struct hg_buf out = {0};
    struct hg_detok d;
    hg_detok_init(&d, t, false);
    if (hg_tokenizer_encode(t, &part, 1, &ids, NULL) != HG_STATUS_OK)
        abort();
    for (size_t i = 0; i < ids.n; i++) {
        if (ids.data[i] != t->unk && hg_tokenizer_is_added(t, ids.data[i]))
            abort();
        if (hg_detok_push(&d, ids.data[i], &out) != HG_STATUS_OK)
            abort();
    }
    if (hg_detok_finish(&d, &out) != HG_STATUS_OK ||
        !hg_utf8_valid(out.data ? out.data : "", out.len))
        abort();
    hg_ids_deinit(&ids);
    hg_buf_deinit(&out);
}

static void try_model(const uint8_t *data, size_t n)
{
    struct hg_error err = {0};
    struct hg_tokenizer *t = new_tokenizer(HG_FAMILY_LLAMA);
    if (hg_spm_parse("fuzz", data, n, t, &err) == HG_STATUS_OK)
        check_text(t, (const char *)data, n);
    else if (!err.text[0])
        abort();
    hg_tokenizer_free(t);
}

static void try_json(const uint8_t *data, size_t n)
{
    struct hg_error err = {0};
    json_t *doc = NULL;
    if (hg_json_parse("fuzz", (const char *)data, n, &doc, &err) != HG_STATUS_OK)
        return;
    struct hg_tokenizer *t = new_tokenizer(HG_FAMILY_LLAMA);
    enum hg_status status = hg_hf_tokenizer_json(doc, t, &err);
    if (status == HG_STATUS_OK && t->byte_fallback)
        check_text(t, (const char *)data, n);
    else if (status != HG_STATUS_OK && !err.text[0])
        abort();
    hg_tokenizer_free(t);
    json_decref(doc);
}

static struct hg_tokenizer *bytes_tokenizer(void)
{
    struct hg_tokenizer *t = new_tokenizer(HG_FAMILY_QWEN2);
    for (unsigned byte = 0; byte < 256; byte++) {
        char s[4];
        int n = hg_utf8_encode(hg_byte_level_char((unsigned char)byte), s);
        if (hg_vocab_put(&t->vocab, byte, s, (size_t)n, HG_PIECE_NORMAL, 0, NULL))
            abort();
    }
    static const char *const pairs[] = {"th", "he", "the", "aa", "aaaa", "<|", "|>"};
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++)
        if (hg_vocab_put(&t->vocab, 256 + (int64_t)i, pairs[i], strlen(pairs[i]), HG_PIECE_NORMAL,
                         0, NULL))
            abort();
    if (hg_added_put(&t->vocab, &t->added, 300, "<|end|>", 7, HG_PIECE_RSTRIP, NULL) ||
        hg_byte_level_finish("fuzz", t, NULL))
        abort();
    t->pattern = HG_PATTERN_QWEN2;
    return t;
}

static void try_merges_and_text(const uint8_t *data, size_t n)
{
    static const char merges[] = "t h\nh e\nth e\na a\naa aa\n< |\n| >\n";
    struct hg_error err = {0};
    struct hg_tokenizer *t = bytes_tokenizer();
    if (hg_hf_merges_text("fuzz", merges, sizeof merges - 1, t, &err) && !err.text[0])
        abort();
    check_text(t, (const char *)data, n);
    hg_tokenizer_free(t);
    t = bytes_tokenizer();
    t->clean_up = true;
    if (hg_hf_merges_text("fuzz", (const char *)data, n, t, &err) == HG_STATUS_OK)
        check_text(t, (const char *)data, n);
    hg_tokenizer_free(t);
}

static void try_gguf(const uint8_t *data, size_t n)
{
    for (int pattern = HG_PATTERN_GPT2; pattern <= HG_PATTERN_COUNT; pattern++) {
        struct hg_error err = {0};
        struct hg_tokenizer *t = new_tokenizer(HG_FAMILY_NONE);
        enum hg_status status = hg_gguf_vocab("fuzz", data, n, (enum hg_pattern)pattern, t, &err);
        t->add_bos = false; /* of which the text is innocent */
        if (status == HG_STATUS_OK)
            check_text(t, (const char *)data, n);
        else if (!err.text[0])
            abort();
        hg_tokenizer_free(t);
    }
}

/* 256 ranks of one byte, then what the input says. */
static void try_ranks(const uint8_t *data, size_t n)
{
    struct hg_error err = {0};
    struct hg_buf b = {0};
    struct hg_tokenizer *t = new_tokenizer(HG_FAMILY_NONE);
    (void)hg_is_tiktoken(data, n);
    for (int byte = 0; byte < 256; byte++) {
        char one = (char)byte, rank[16];
        int len = snprintf(rank, sizeof rank, " %d\n", byte);
        if (hg_base64_encode(&one, 1, &b) || hg_buf_append(&b, rank, (size_t)len))
            abort();
    }
    if (hg_buf_append(&b, data, n))
        abort();
    if (hg_tiktoken_ranks("fuzz", (const unsigned char *)b.data, b.len,
                          (enum hg_pattern)(n % (HG_PATTERN_COUNT + 1)), t, &err) == HG_STATUS_OK)
        check_text(t, (const char *)data, n);
    else if (!err.text[0])
        abort();
    hg_tokenizer_free(t);
    hg_buf_deinit(&b);
}

/* Any bytes, not only valid UTF-8: words without gaps, in bounded work. */
static void try_scanners(const uint8_t *data, size_t n)
{
    for (int pattern = 0; pattern < HG_PATTERN_COUNT; pattern++) {
        struct hg_words w = {.pattern = (enum hg_pattern)pattern, .s = (const char *)data, .n = n};
        const char *word;
        size_t at = 0;
        for (size_t len; hg_words_next(&w, &word, &len); at += len)
            if (len == 0 || word != (const char *)data + at)
                abort();
        if (at != n || w.n_looks > 6 * n)
            abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (n == 0 || n > MAX_INPUT)
        return 0;
    switch (data[0] % 6) {
    case 0:
        try_model(data + 1, n - 1);
        break;
    case 1:
        try_json(data + 1, n - 1);
        break;
    case 2:
        try_gguf(data + 1, n - 1);
        break;
    case 3:
        try_ranks(data + 1, n - 1);
        break;
    case 4:
        try_scanners(data + 1, n - 1);
        break;
    default:
        try_merges_and_text(data + 1, n - 1);
    }
    return 0;
}
