/* Tokenizers out of one file: tiktoken ranks, the vocabulary in a GGUF. */
#include "model/text/tokenizer_file.h"

#include "common/base64.h"
#include "common/utf8.h"
#include "model/text/byte_level.h"
#include "model/text/gguf.h"
#include "model/text/tiktoken.h"
#include "tests/model/text/real_vocab.h"
#include "tests/model/text/text_check.h"

static struct hg_tokenizer *fresh(void)
{
    struct hg_tokenizer *t = calloc(1, sizeof *t);
    assert_non_null(t);
    t->bos = t->eos = t->unk = -1;
    memset(t->byte_ids, 0xff, sizeof t->byte_ids);
    return t;
}

static struct hg_tokenizer *load_bytes(const char *name, const struct hg_buf *b, const char *regex)
{
    char dir[64], path[128];
    struct hg_error err = {0};
    struct hg_tokenizer *t = NULL;
    text_make_dir(dir);
    text_write(dir, name, b->data, b->len);
    snprintf(path, sizeof path, "%s/%s", dir, name);
    HG_TEST_OK(hg_tokenizer_load_as(path, regex, &t, &err), err);
    text_remove_dir(dir);
    return t;
}

static void put(struct hg_buf *b, const void *data, size_t n)
{
    assert_int_equal(hg_buf_append(b, data, n), 0);
}

/* ---- tiktoken ---- */

static void put_rank(struct hg_buf *b, const char *s, size_t n, int rank, const char *end)
{
    char number[32];
    assert_int_equal(hg_base64_encode(s, n, b), 0);
    put(b, number, (size_t)snprintf(number, sizeof number, " %d%s", rank, end));
}

/* 256 bytes, then ab, bc, abc, "  ", 12 */
static struct hg_buf rank_file(const char *end)
{
    static const char *const tokens[] = {"bc", "ab", "abc", "  ", "12", "caf\xc3\xa9"};
    struct hg_buf b = {0};
    for (int byte = 0; byte < 256; byte++)
        put_rank(&b, &(char){(char)byte}, 1, byte, end);
    for (int i = 0; i < 6; i++)
        put_rank(&b, tokens[i], strlen(tokens[i]), 256 + i, end);
    return b;
}

static void rank_files_merge_by_the_rank_of_the_join(void **state)
{
    (void)state;
    static const char *const ends[] = {"\n", "\r\n"};
    for (int i = 0; i < 2; i++) {
        struct hg_buf b = rank_file(ends[i]);
        struct hg_tokenizer *t = load_bytes("some.tiktoken", &b, NULL);
        assert_int_equal(hg_tokenizer_size(t), 262);
        text_expect(t, "abc", false, "258");      /* the word is a token */
        text_expect(t, "xabc", false, "120 258"); /* bc first, then a + bc, which no merge lists */
        text_expect(t, "abab", false, "257 257");
        text_expect(t, "1212", false, "260 49 50"); /* 121|2: groups of three digits */
        text_expect(t, "caf\xc3\xa9", false, "261");
        text_expect(t, "cafe\xcc\x81", false, "99 97 102 101 204 129"); /* no NFC */
        text_expect(t, "\xff", false, "239 191 189");
        hg_tokenizer_free(t);
        t = load_bytes("some.tiktoken", &b, "gpt2");
        text_expect(t, "1212", false, "260 260");
        hg_tokenizer_free(t);
        t = load_bytes("some.tiktoken", &b, "qwen2");
        text_expect(t, "1212", false, "49 50 49 50");
        text_expect(t, "cafe\xcc\x81", false, "261");
        hg_tokenizer_free(t);
        hg_buf_deinit(&b);
    }
}

static void expect_rank_error(const char *line, const char *want)
{
    struct hg_buf b = rank_file("\n");
    struct hg_tokenizer *t = fresh();
    struct hg_error err = {0};
    assert_int_equal(hg_buf_append_str(&b, line), 0);
    HG_TEST_FAILS(
        hg_tiktoken_ranks("x", (const unsigned char *)b.data, b.len, HG_PATTERN_COUNT, t, &err),
        HG_STATUS_BAD_FILE, err, want);
    hg_tokenizer_free(t);
    hg_buf_deinit(&b);
}

static void broken_rank_files_are_refused_by_line(void **state)
{
    (void)state;
    expect_rank_error("YWI= 7\n", "line 263");   /* a rank twice */
    expect_rank_error("YWI= 300\n", "line 263"); /* a token twice */
    expect_rank_error("YWI 300\n", "line 263");  /* no base64 */
    expect_rank_error("eHl6\n", "line 263");     /* no rank */
    expect_rank_error("eHl6 -1\n", "line 263");
    expect_rank_error("eHl6 1x\n", "line 263");
    expect_rank_error("eHl6 99999999\n", "line 263");
    expect_rank_error("eHl6 9999999999999\n", "line 263");
    expect_rank_error(" 300\n", "line 263");
    struct hg_tokenizer *t = fresh();
    struct hg_error err = {0};
    HG_TEST_FAILS(
        hg_tiktoken_ranks("x", (const unsigned char *)"YQ== 0\n", 7, HG_PATTERN_COUNT, t, &err),
        HG_STATUS_BAD_FILE, err, "no token for byte 0x00");
    hg_tokenizer_free(t);
    struct hg_buf b = rank_file("\n");
    assert_true(hg_is_tiktoken((const unsigned char *)b.data, b.len));
    assert_false(hg_is_tiktoken((const unsigned char *)"{\"a\": 1}", 8));
    assert_false(hg_is_tiktoken((const unsigned char *)"", 0));
    hg_buf_deinit(&b);
}

/* ---- GGUF ---- */

struct gguf_writer {
    struct hg_buf b;
    uint64_t n_keys;
};

static void put_number(struct gguf_writer *w, uint64_t value, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        put(&w->b, &(char){(char)(value >> 8 * i)}, 1);
}

static void put_string(struct gguf_writer *w, const char *s)
{
    put_number(w, strlen(s), 8);
    put(&w->b, s, strlen(s));
}

static void put_key(struct gguf_writer *w, const char *name, unsigned type)
{
    put_string(w, name);
    put_number(w, type, 4);
    w->n_keys++;
}

static void put_string_key(struct gguf_writer *w, const char *name, const char *value)
{
    put_key(w, name, 8);
    put_string(w, value);
}

static void put_int_key(struct gguf_writer *w, const char *name, uint64_t value)
{
    put_key(w, name, 4);
    put_number(w, value, 4);
}

static void begin_array(struct gguf_writer *w, const char *name, unsigned type, uint64_t n)
{
    put_key(w, name, 9);
    put_number(w, type, 4);
    put_number(w, n, 8);
}

static void begin(struct gguf_writer *w)
{
    *w = (struct gguf_writer){0};
    put(&w->b, "GGUF", 4);
    put_number(w, 3, 4);
    put_number(w, 0, 8);
    put_number(w, 0, 8); /* keys: see finish() */
}

static void finish(struct gguf_writer *w)
{
    memcpy(w->b.data + 16, &w->n_keys, 8); /* tests run on little-endian machines */
}

/* <unk> <s> </s>, 256 bytes, then U+2581, a, b, ab, <|end|> and an unused row */
static struct hg_buf llama_gguf(void)
{
    static const char *const rest[] = {HG_SPM_SPACE,     "a",       "b",       "ab",
                                       HG_SPM_SPACE "a", "<|end|>", "[PAD265]"};
    static const unsigned kinds[] = {1, 1, 1, 1, 1, 3, 2};
    enum { REST = 7, N = 3 + 256 + REST };
    struct gguf_writer w;
    char s[16];
    begin(&w);
    put_string_key(&w, "general.architecture", "phi3");
    put_string_key(&w, "tokenizer.ggml.model", "llama");
    begin_array(&w, "an.unknown.key", 6, 3);
    for (int i = 0; i < 3; i++)
        put_number(&w, 0, 4);
    begin_array(&w, "tokenizer.ggml.tokens", 8, N);
    put_string(&w, "<unk>");
    put_string(&w, "<s>");
    put_string(&w, "</s>");
    for (unsigned byte = 0; byte < 256; byte++) {
        snprintf(s, sizeof s, "<0x%02X>", byte);
        put_string(&w, s);
    }
    for (int i = 0; i < REST; i++)
        put_string(&w, rest[i]);
    begin_array(&w, "tokenizer.ggml.scores", 6, N);
    for (int i = 0; i < N; i++) {
        float score = -(float)i;
        uint32_t bits;
        memcpy(&bits, &score, 4);
        put_number(&w, bits, 4);
    }
    begin_array(&w, "tokenizer.ggml.token_type", 5, N);
    for (int i = 0; i < N; i++)
        put_number(&w, i == 0 ? 3 : i < 3 ? 3 : i < 259 ? 6 : kinds[i - 259], 4);
    put_int_key(&w, "tokenizer.ggml.bos_token_id", 1);
    put_int_key(&w, "tokenizer.ggml.eos_token_id", 2);
    put_int_key(&w, "tokenizer.ggml.unknown_token_id", 0);
    put_key(&w, "tokenizer.ggml.add_bos_token", 7);
    put_number(&w, 0, 1);
    finish(&w);
    return w.b;
}

static void a_llama_gguf_is_a_slow_llama_tokenizer(void **state)
{
    (void)state;
    struct hg_buf b = llama_gguf();
    struct hg_tokenizer *t = load_bytes("model.gguf", &b, NULL);
    struct hg_error err = {0};
    int32_t first;
    assert_string_equal(hg_tokenizer_family(t), "LlamaTokenizer");
    assert_int_equal(hg_tokenizer_size(t), 265); /* without the unused row */
    text_expect(t, "ab", false, "259 262");      /* a + b before U+2581 + a */
    text_expect(t, "a\n", false, "263 13");
    text_expect(t, "<|end|>  b", true, "259 264 261"); /* architecture phi3: rstrip */
    text_expect(t, "<s>  b", true, "1 259 259 261");   /* but not bos; the lone mark falls out */
    HG_TEST_OK(hg_tokenizer_add_image_tokens(t, 4, &first, &err), err);
    assert_int_equal(first, 265);
    hg_tokenizer_free(t);
    hg_buf_deinit(&b);
}

static struct hg_buf gpt2_gguf(const char *pre, const char *model)
{
    enum { N = 256 + 3 };
    struct gguf_writer w;
    begin(&w);
    put_string_key(&w, "tokenizer.ggml.model", model);
    put_string_key(&w, "tokenizer.ggml.pre", pre);
    begin_array(&w, "tokenizer.ggml.tokens", 8, N);
    for (unsigned byte = 0; byte < 256; byte++) {
        char s[8];
        s[hg_utf8_encode(hg_byte_level_char((unsigned char)byte), s)] = '\0';
        put_string(&w, s);
    }
    put_string(&w, "12");
    put_string(&w, "<|im_end|>");
    put_string(&w, "[PAD258]");
    begin_array(&w, "tokenizer.ggml.token_type", 5, N);
    for (int i = 0; i < N; i++)
        put_number(&w, i == 257 ? 3 : i == 258 ? 5 : 1, 4);
    begin_array(&w, "tokenizer.ggml.merges", 8, 1);
    put_string(&w, "1 2");
    put_int_key(&w, "tokenizer.ggml.eos_token_id", 257);
    finish(&w);
    return w.b;
}

static void a_gpt2_gguf_has_the_regex_that_it_names(void **state)
{
    (void)state;
    static const struct {
        const char *pre, *regex, *ids;
    } cases[] = {{"gpt-2", NULL, "256 256"},
                 {"qwen2", NULL, "49 50 49 50"},
                 {"dbrx", NULL, "256 49 50"},
                 {"dbrx", "gpt2", "256 256"},
                 {"other", "qwen2", "49 50 49 50"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct hg_buf b = gpt2_gguf(cases[i].pre, "gpt2");
        struct hg_tokenizer *t = load_bytes("m.gguf", &b, cases[i].regex);
        assert_int_equal(hg_tokenizer_size(t), 258);
        text_expect(t, "1212", false, cases[i].ids);
        text_expect(t, "<|im_end|> ", true, "257 32");
        hg_tokenizer_free(t);
        hg_buf_deinit(&b);
    }
}

static void expect_gguf_error(const struct hg_buf *b, enum hg_status status, const char *want)
{
    struct hg_tokenizer *t = fresh();
    struct hg_error err = {0};
    HG_TEST_FAILS(
        hg_gguf_vocab("x", (const unsigned char *)b->data, b->len, HG_PATTERN_COUNT, t, &err),
        status, err, want);
    hg_tokenizer_free(t);
}

static void broken_gguf_files_are_refused(void **state)
{
    (void)state;
    struct hg_buf b = gpt2_gguf("other", "gpt2");
    expect_gguf_error(&b, HG_STATUS_UNSUPPORTED, "'other'");
    hg_buf_deinit(&b);
    b = gpt2_gguf("gpt-2", "bert");
    expect_gguf_error(&b, HG_STATUS_UNSUPPORTED, "'bert'");
    hg_buf_deinit(&b);
    b = llama_gguf();
    b.data[4] = 1;
    expect_gguf_error(&b, HG_STATUS_UNSUPPORTED, "version 1");
    b.data[4] = 3;
    memset(b.data + 16, 0xff, 8);
    expect_gguf_error(&b, HG_STATUS_BAD_FILE, "metadata keys");
    hg_buf_deinit(&b);
}

/* Cut anywhere, or with any byte changed: an error with a text, or a tokenizer that reads text. */
static void damaged_gguf_files_never_crash(void **state)
{
    (void)state;
    struct hg_buf files[] = {llama_gguf(), gpt2_gguf("qwen2", "gpt2")};
    size_t n_read = 0, n_refused = 0;
    for (int f = 0; f < 2; f++) {
        struct hg_buf *b = &files[f];
        for (size_t i = 0; i < 2 * b->len; i++) {
            struct hg_tokenizer *t = fresh();
            struct hg_error err = {0};
            bool cut = i < b->len;
            size_t at = cut ? i : i - b->len;
            char was = b->data[at];
            unsigned char *copy = malloc(cut ? at + 1 : b->len); /* to the byte, for ASan */
            assert_non_null(copy);
            if (!cut)
                b->data[at] = (char)(was ^ (i % 3 ? 1 << i % 8 : 0xff));
            memcpy(copy, b->data, cut ? at : b->len);
            enum hg_status status =
                hg_gguf_vocab("x", copy, cut ? at : b->len, HG_PATTERN_COUNT, t, &err);
            if (status == HG_STATUS_OK) {
                struct hg_ids ids = text_encode(t, "ab 12<|end|>", 12, true);
                hg_ids_deinit(&ids);
                n_read++;
            } else {
                assert_true(err.text[0] != '\0');
                n_refused++;
            }
            if (cut)
                assert_true(status != HG_STATUS_OK);
            b->data[at] = was;
            free(copy);
            hg_tokenizer_free(t);
        }
        hg_buf_deinit(b);
    }
    printf("%zu damaged files were refused, %zu read\n", n_refused, n_read);
    assert_true(n_read > 0);
}

static void a_regex_must_be_known_and_have_a_meaning(void **state)
{
    (void)state;
    struct hg_tokenizer *t = NULL;
    struct hg_error err = {0};
    const char *demo = hg_test_file("config/models/demo/llm");
    HG_TEST_FAILS(hg_tokenizer_load_as(demo, "o200k", &t, &err), HG_STATUS_BAD_REQUEST, err,
                  "o200k");
    HG_TEST_FAILS(hg_tokenizer_load_as(demo, "gpt2", &t, &err), HG_STATUS_BAD_REQUEST, err,
                  "SentencePiece");
    assert_null(t);
}

/* ---- real ones ---- */

static void expect_same(const char *file, const char *regex, bool (*folder)(char *), bool bos)
{
    static const char sample[] =
        " Is the 12345 mg dose (A) safe?\n\n(B) I'M  not  \xe2\x89\xa4 5 \xc2\xb5g "
        "\xe6\x97\xa5\xe6\x9c\xac \xf0\x9f\xa9\xba caf\xc3\xa9\t\r\n  x";
    char dir[64];
    struct hg_error err = {0};
    struct hg_tokenizer *a = NULL, *b;
    HG_TEST_OK(hg_tokenizer_load_as(file, regex, &a, &err), err);
    assert_true(folder(dir));
    b = text_load(dir);
    struct hg_ids got = text_encode(a, sample, strlen(sample), false);
    struct hg_ids want = text_encode(b, sample, strlen(sample), false);
    assert_true(got.n > bos);
    struct hg_ids rest = {.data = got.data + bos, .n = got.n - bos};
    text_expect_ids(file, &rest, want.data, want.n);
    hg_ids_deinit(&got);
    hg_ids_deinit(&want);
    hg_tokenizer_free(a);
    hg_tokenizer_free(b);
    text_remove_dir(dir);
}

static void real_files_give_the_ids_of_the_folders(void **state)
{
    (void)state;
    if (!hg_test_shared("data/tokenizers/qwen/qwen.tiktoken"))
        HG_TEST_SKIP("no vocabularies in the shared data");
    char path[512]; /* hg_test_shared() has one buffer */
#define SHARED(name)                                                                               \
    (snprintf(path, sizeof path, "%s", hg_test_shared("data/tokenizers/" name)), path)
    expect_same(SHARED("llama.cpp/ggml-vocab-phi-3.gguf"), NULL, real_phi3, true);
    expect_same(SHARED("llama.cpp/ggml-vocab-gpt-2.gguf"), NULL, real_gpt2, false);
    expect_same(SHARED("tiktoken/cl100k_base.tiktoken"), "gpt2", real_phi4, false);
    expect_same(SHARED("qwen/qwen.tiktoken"), "qwen2", real_qwen25, false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rank_files_merge_by_the_rank_of_the_join),
        cmocka_unit_test(broken_rank_files_are_refused_by_line),
        cmocka_unit_test(a_llama_gguf_is_a_slow_llama_tokenizer),
        cmocka_unit_test(a_gpt2_gguf_has_the_regex_that_it_names),
        cmocka_unit_test(broken_gguf_files_are_refused),
        cmocka_unit_test(damaged_gguf_files_never_crash),
        cmocka_unit_test(a_regex_must_be_known_and_have_a_meaning),
        cmocka_unit_test(real_files_give_the_ids_of_the_folders),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
