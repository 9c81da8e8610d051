/* tokenizer.model: the piece types, refusals by name, and hostile bytes. */
#include "model/text/sentencepiece.h"

#include "tests/model/text/real_vocab.h"
#include "tests/model/text/text_check.h"

enum { NORMAL = 1, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE };

static void piece(struct hg_buf *b, const char *s, float score, int type)
{
    spm_put_piece(b, s, strlen(s), score, type);
}

/* 0 <unk>, 1 <s>, 2 </s>, then what the test adds; no byte fallback. */
static struct hg_buf small_model(void)
{
    struct hg_buf b = {0};
    piece(&b, "<unk>", 0, UNKNOWN);
    piece(&b, "<s>", 0, CONTROL);
    piece(&b, "</s>", 0, CONTROL);
    return b;
}

static enum hg_status load_bytes(const struct hg_buf *model, struct hg_tokenizer **t,
                                 struct hg_error *err)
{
    char dir[64], path[128];
    text_make_dir(dir);
    text_write(dir, "tokenizer.model", model->data, model->len);
    snprintf(path, sizeof path, "%s/tokenizer.model", dir);
    enum hg_status status = hg_tokenizer_load(path, t, err);
    text_remove_dir(dir);
    return status;
}

static struct hg_tokenizer *load_model(struct hg_buf *model)
{
    struct hg_tokenizer *t = NULL;
    struct hg_error err = {0};
    spm_put_specs(model, false);
    HG_TEST_OK(load_bytes(model, &t, &err), err);
    hg_buf_deinit(model);
    return t;
}

#define MARK HG_SPM_SPACE

/* A bare file has no config: BOS in front, as LlamaTokenizer's default is. */
static void the_best_score_merges_first_and_the_leftmost_of_equals(void **state)
{
    (void)state;
    struct hg_buf b = small_model();
    piece(&b, MARK, -9, NORMAL); /* 3 */
    piece(&b, "a", -9, NORMAL);
    piece(&b, "b", -9, NORMAL);
    piece(&b, "ab", -2, NORMAL); /* 6 */
    piece(&b, "ba", -1, NORMAL); /* 7 */
    piece(&b, "aa", -3, NORMAL); /* 8 */
    struct hg_tokenizer *t = load_model(&b);
    text_expect(t, "aba", false, "1 3 4 7");
    text_expect(t, "ab", false, "1 3 6");
    text_expect(t, "aaa", false, "1 3 8 4");
    hg_tokenizer_free(t);
}

static void unused_pieces_serve_as_steps_only(void **state)
{
    (void)state;
    struct hg_buf b = small_model();
    piece(&b, MARK, -9, NORMAL);
    piece(&b, "a", -9, NORMAL); /* 4 */
    piece(&b, "b", -9, NORMAL); /* 5 */
    piece(&b, "c", -9, NORMAL); /* 6 */
    piece(&b, "ab", -1, UNUSED);
    piece(&b, "abc", -2, NORMAL); /* 8 */
    struct hg_tokenizer *t = load_model(&b);
    text_expect(t, "abc", false, "1 3 8");
    text_expect(t, "ab", false, "1 3 4 5");
    hg_tokenizer_free(t);
}

static void user_defined_pieces_are_atoms(void **state)
{
    (void)state;
    struct hg_buf b = small_model();
    piece(&b, MARK, -9, NORMAL);
    piece(&b, "a", -9, NORMAL);          /* 4 */
    piece(&b, "xa", 0, USER_DEFINED);    /* 5 */
    piece(&b, "xaa", 0, USER_DEFINED);   /* 6 */
    piece(&b, "aa", -1, NORMAL);         /* 7 */
    piece(&b, "<|q|>", 0, USER_DEFINED); /* 8: a control word, so never from user text */
    struct hg_tokenizer *t = load_model(&b);
    text_expect(t, "xaaaa", false, "1 3 6 7");
    text_expect(t, "axa", false, "1 3 4 5");
    text_expect(t, "<|q|>", true, "1 3 8");
    text_expect(t, "<|q|>", false, "1 3 0");
    assert_true(hg_tokenizer_is_added(t, 8));
    hg_tokenizer_free(t);
}

static void a_run_of_unknown_characters_is_one_unknown(void **state)
{
    (void)state;
    struct hg_buf b = small_model();
    piece(&b, MARK, -9, NORMAL);
    piece(&b, "a", -9, NORMAL);
    struct hg_tokenizer *t = load_model(&b);
    text_expect(t, "xyzaxy", false, "1 3 0 4 0");
    text_expect(t, "<unk>xa", true, "1 0 0 4"); /* the typed one and the unknown one stay two */
    hg_tokenizer_free(t);
}

/* ---- refusals ---- */

static void expect_refused(struct hg_buf *model, enum hg_status status, const char *part)
{
    struct hg_tokenizer *t = NULL;
    struct hg_error err = {0};
    HG_TEST_FAILS(load_bytes(model, &t, &err), status, err, part);
    assert_null(t);
    hg_buf_deinit(model);
}

static void expect_spec_refused(uint32_t spec, uint32_t field, uint64_t value, const char *part)
{
    struct hg_buf b = small_model(), sub = {0};
    spm_put_specs(&b, false);
    spm_put_varint(&sub, field, value);
    spm_put_bytes(&b, spec, sub.data, sub.len); /* the later message wins */
    hg_buf_deinit(&sub);
    expect_refused(&b, HG_STATUS_UNSUPPORTED, part);
}

static void what_is_not_implemented_is_refused_by_name(void **state)
{
    (void)state;
    expect_spec_refused(2, 3, 1, "model_type 1");
    expect_spec_refused(2, 24, 1, "treat_whitespace_as_suffix");
    expect_spec_refused(3, 4, 1, "remove_extra_whitespaces");
    expect_spec_refused(3, 5, 0, "escape_whitespaces");
    struct hg_buf b = small_model(), sub = {0};
    spm_put_specs(&b, false);
    spm_put_bytes(&sub, 2, "abcd", 4);
    spm_put_bytes(&b, 3, sub.data, sub.len);
    hg_buf_deinit(&sub);
    expect_refused(&b, HG_STATUS_UNSUPPORTED, "normaliser");
}

static void broken_vocabularies_are_refused_by_name(void **state)
{
    (void)state;
    struct hg_buf b = small_model();
    piece(&b, "a", 0, NORMAL);
    piece(&b, "a", 0, NORMAL);
    spm_put_specs(&b, false);
    expect_refused(&b, HG_STATUS_BAD_FILE, "two ids, 3 and 4");
    b = small_model();
    piece(&b, "a", 0, 7);
    expect_refused(&b, HG_STATUS_UNSUPPORTED, "type 7");
    b = small_model();
    piece(&b, "\xff\xfe", 0, NORMAL);
    expect_refused(&b, HG_STATUS_BAD_FILE, "UTF-8");
    b = small_model();
    piece(&b, "<0xZZ>", 0, BYTE);
    spm_put_specs(&b, false);
    expect_refused(&b, HG_STATUS_BAD_FILE, "<0xNN>");
    b = small_model();
    spm_put_specs(&b, true);
    expect_refused(&b, HG_STATUS_BAD_FILE, "<0x00> is missing");
    b = small_model();
    piece(&b, "n", __builtin_nanf(""), NORMAL);
    expect_refused(&b, HG_STATUS_BAD_FILE, "NaN");
    b = (struct hg_buf){0};
    piece(&b, "a", 0, NORMAL);
    spm_put_specs(&b, false);
    expect_refused(&b, HG_STATUS_BAD_FILE, "unknown piece");
    b = small_model();
    piece(&b, "<u>", 0, UNKNOWN);
    spm_put_specs(&b, false);
    expect_refused(&b, HG_STATUS_BAD_FILE, "two unknown");
}

static void huge_lengths_and_foreign_files_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t n;
    } cases[] = {
        {"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11}, /* a piece of 2^64-1 bytes */
        {"\x0a\xff\xff\xff\xff\x0f", 6},                      /* of 4 GiB */
        {"\x0a\x05\x0a\xff\x7f", 5},                          /* longer than its parent */
        {"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", 11}, /* an endless varint */
        {"\x0b", 1},                                          /* a group */
        {"\x00\x01", 2},                                      /* field 0 */
        {"PK\x03\x04", 4},
        {"{\"a\": 1}", 8},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct hg_buf b = {0};
        assert_int_equal(hg_buf_append(&b, cases[i].bytes, cases[i].n), 0);
        expect_refused(&b, HG_STATUS_BAD_FILE, "tokenizer.model");
    }
}

static struct hg_tokenizer *parse(const unsigned char *data, size_t n, enum hg_status *status)
{
    struct hg_error err = {0};
    struct hg_tokenizer *t = calloc(1, sizeof *t);
    assert_non_null(t);
    t->family = HG_FAMILY_LLAMA;
    t->bos = t->eos = t->unk = -1;
    memset(t->byte_ids, 0xff, sizeof t->byte_ids);
    *status = hg_spm_parse("m", data, n, t, &err);
    if (*status != HG_STATUS_OK)
        assert_true(err.text[0] != 0);
    return t;
}

/* Cut at every place and flipped at many: an error with a text, or a model that still encodes. */
static void cut_and_flipped_models_never_do_harm(void **state)
{
    (void)state;
    size_t n;
    const char *path = hg_test_file("config/models/demo/llm/tokenizer.model");
    unsigned char *data = hg_test_read(path, &n);
    enum hg_status status;
    size_t n_ok = 0;
    for (size_t cut = 0; cut < n; cut += cut < 400 ? 1 : 37) {
        unsigned char *copy = malloc(cut + 1); /* exact size: a read past the end is seen */
        assert_non_null(copy);
        memcpy(copy, data, cut);
        hg_tokenizer_free(parse(copy, cut, &status));
        free(copy);
        n_ok += status == HG_STATUS_OK;
    }
    assert_int_equal(n_ok, 0); /* the specs stand at the end of the file */
    uint32_t x = 1;
    for (int i = 0; i < 1500; i++) {
        x = x * 1664525u + 1013904223u;
        size_t at = (x >> 8) % n;
        unsigned char old = data[at];
        data[at] = (unsigned char)(x >> 3);
        struct hg_tokenizer *t = parse(data, n, &status);
        if (status == HG_STATUS_OK) {
            struct hg_ids ids = text_encode(t, "a \xe2\x82\xac <|end|> pneumonia", 22, true);
            hg_ids_deinit(&ids);
            n_ok++;
        }
        hg_tokenizer_free(t);
        data[at] = old;
    }
    printf("1500 flipped models: %zu still load\n", n_ok);
    free(data);
}

/* ---- llama2.c's tok512.bin: int32 max length, then float score, int32 length, bytes each ---- */

static void stories260k_text_comes_back(void **state)
{
    (void)state;
    const char *path = hg_test_shared("data/weights_formats/stories260K/tok512.bin");
    if (!path)
        HG_TEST_SKIP("no stories260K in the shared data");
    size_t n;
    unsigned char *data = hg_test_read(path, &n);
    struct hg_buf b = {0};
    int id = 0;
    for (size_t at = 4; at + 8 <= n; id++) {
        float score;
        int32_t len;
        memcpy(&score, data + at, 4);
        memcpy(&len, data + at + 4, 4);
        const char *s = (const char *)data + at + 8;
        at += 8 + (size_t)len;
        struct hg_buf text = {0}; /* the file has spaces for U+2581 */
        for (int32_t i = 0; i < len; i++)
            assert_int_equal(
                s[i] == ' ' ? hg_buf_append_str(&text, MARK) : hg_buf_append(&text, s + i, 1), 0);
        bool angle = id == 1 || id == 2; /* "\n<s>\n" in the file */
        const char *name = id == 1 ? "<s>" : "</s>";
        spm_put_piece(&b, angle ? name : text.data, angle ? strlen(name) : text.len, score,
                      id == 0    ? UNKNOWN
                      : id < 3   ? CONTROL
                      : id < 259 ? BYTE
                                 : NORMAL);
        hg_buf_deinit(&text);
    }
    assert_int_equal(id, 512);
    spm_put_specs(&b, true);
    struct hg_tokenizer *t = NULL;
    struct hg_error err = {0};
    HG_TEST_OK(load_bytes(&b, &t, &err), err);
    hg_buf_deinit(&b);
    free(data);
    json_error_t e;
    json_t *golden = json_load_file(
        hg_test_shared("data/weights_formats/stories260K/golden_greedy.json"), 0, &e);
    struct hg_ids want = text_ids_of_json(json_object_get(golden, "tokens"));
    char *text = text_decode(t, want.data, want.n, false);
    assert_memory_equal(text, "Once upon a time", 16);
    const char *golden_text = json_string_value(json_object_get(golden, "text"));
    if (golden_text)
        assert_string_equal(text, golden_text);
    struct hg_ids got = text_encode(t, "Once upon a time", 16, false);
    assert_int_equal(got.data[0], 1);
    assert_memory_equal(got.data + 1, want.data, (got.n - 1) * sizeof *want.data);
    free(text);
    json_decref(golden);
    hg_ids_deinit(&got);
    hg_ids_deinit(&want);
    hg_tokenizer_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_best_score_merges_first_and_the_leftmost_of_equals),
        cmocka_unit_test(unused_pieces_serve_as_steps_only),
        cmocka_unit_test(user_defined_pieces_are_atoms),
        cmocka_unit_test(a_run_of_unknown_characters_is_one_unknown),
        cmocka_unit_test(what_is_not_implemented_is_refused_by_name),
        cmocka_unit_test(broken_vocabularies_are_refused_by_name),
        cmocka_unit_test(huge_lengths_and_foreign_files_are_refused),
        cmocka_unit_test(cut_and_flipped_models_never_do_harm),
        cmocka_unit_test(stories260k_text_comes_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
