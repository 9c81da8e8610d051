/* vocab.json, merges.txt, tokenizer.json, tokenizer_config.json: what is broken is named. */
#include "model/text/hf_json.h"

#include "tests/model/text/text_check.h"

#define CONFIG                                                                                     \
    "{\"tokenizer_class\":\"GPT2Tokenizer\",\"unk_token\":\"<u>\",\"bos_token\":null,"             \
    "\"eos_token\":null}"
#define QWEN2                                                                                      \
    "{\"tokenizer_class\":\"Qwen2Tokenizer\",\"unk_token\":\"<u>\",\"eos_token\":null,"            \
    "\"pad_token\":null}"
#define FILES(c, v, m)                                                                             \
    (struct folder)                                                                                \
    {                                                                                              \
        .config = c, .vocab = v, .merges = m                                                       \
    }
#define VOCAB "{\"a\":0,\"b\":1,\"ab\":2,\"<u>\":3}"

struct folder { /* files to write; NULL: not there */
    const char *config, *vocab, *merges, *json, *added, *spm;
};

static enum hg_status load_folder(const struct folder *f, struct hg_tokenizer **t,
                                  struct hg_error *err)
{
    char dir[64];
    text_make_dir(dir);
    const char *const names[] = {"tokenizer_config.json", "vocab.json",        "merges.txt",
                                 "tokenizer.json",        "added_tokens.json", "tokenizer.model"};
    const char *const texts[] = {f->config, f->vocab, f->merges, f->json, f->added, f->spm};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (texts[i])
            text_write_string(dir, names[i], texts[i]);
    enum hg_status status = hg_tokenizer_load(dir, t, err);
    text_remove_dir(dir);
    return status;
}

static void expect_refused(struct folder f, enum hg_status status, const char *part)
{
    struct hg_tokenizer *t = NULL;
    struct hg_error err = {0};
    HG_TEST_FAILS(load_folder(&f, &t, &err), status, err, part);
    assert_null(t);
}

static void expect_ids(struct folder f, const char *text, const char *want)
{
    struct hg_tokenizer *t = NULL;
    struct hg_error err = {0};
    HG_TEST_OK(load_folder(&f, &t, &err), err);
    text_expect(t, text, true, want);
    hg_tokenizer_free(t);
}

static void broken_vocab_files_are_named(void **state)
{
    (void)state;
    expect_refused(FILES(CONFIG, "{\"a\":", "\n"), HG_STATUS_BAD_FILE, "vocab.json");
    expect_refused(FILES(CONFIG, "[1]", "\n"), HG_STATUS_BAD_FILE, "vocab.json");
    expect_refused(FILES(CONFIG, "{\"a\":0,\"a\":1}", "\n"), HG_STATUS_BAD_FILE, "vocab.json");
    expect_refused(FILES(CONFIG, "{\"a\":\"0\"}", "\n"), HG_STATUS_BAD_FILE, "integer");
    expect_refused(FILES(CONFIG, "{\"a\":-1}", "\n"), HG_STATUS_BAD_FILE, "id -1");
    expect_refused(FILES(CONFIG, "{\"a\":4000000000}", "\n"), HG_STATUS_BAD_FILE, "id 4000000000");
    expect_refused(FILES(CONFIG, "{\"a\":0,\"b\":0}", "\n"), HG_STATUS_BAD_FILE,
                   "id 0 is given to");
    expect_refused(FILES(CONFIG, "{\"\":0}", "\n"), HG_STATUS_BAD_FILE, "0 bytes");
}

static void broken_merges_are_named_with_their_rank(void **state)
{
    (void)state;
    expect_ids(FILES(CONFIG, VOCAB, "#version: 0.2\na b\n\n"), "abb", "2 1");
    expect_ids(FILES(CONFIG, VOCAB, "#version: 0.2\r\na b\r\n"), "aab", "0 2");
    expect_ids(FILES(CONFIG, VOCAB, "a b\n"), "ab", "0 1"); /* GPT-2 drops line 0 */
    /* ... and what stands behind the last newline; Qwen2 keeps both. */
    expect_ids(FILES(CONFIG, VOCAB, "#version: 0.2\na b"), "ab", "0 1");
    expect_ids(FILES(QWEN2, VOCAB, "a b"), "ab", "2");
    /* The class says which files count, not what else lies there. */
    expect_ids((struct folder){.config = QWEN2, .vocab = VOCAB, .merges = "a b\n", .spm = "x"},
               "ab", "2");
    expect_refused(FILES(CONFIG, VOCAB, "\na c\n"), HG_STATUS_BAD_FILE, "merge 0");
    expect_refused(FILES(CONFIG, VOCAB, "\na b\nb a\n"), HG_STATUS_BAD_FILE, "merge 1");
    expect_refused(FILES(CONFIG, VOCAB, "\nab\n"), HG_STATUS_BAD_FILE, "two tokens");
    expect_refused(FILES(CONFIG, VOCAB, "\na b a\n"), HG_STATUS_BAD_FILE, "two tokens");
    expect_refused(FILES(CONFIG, VOCAB, "\n a b\n"), HG_STATUS_BAD_FILE, "two tokens");
}

/* Off in LlamaTokenizer and Qwen2Tokenizer, on in the others, unless the file says (9.6). */
static void clean_up_is_read_from_the_config(void **state)
{
    (void)state;
    static const struct {
        const char *config;
        const char *want;
    } cases[] = {{"{\"tokenizer_class\":\"GPT2Tokenizer\",\"unk_token\":\"<u>\"}", "a."},
                 {"{\"tokenizer_class\":\"GPT2Tokenizer\",\"unk_token\":\"<u>\","
                  "\"clean_up_tokenization_spaces\":false}",
                  "a ."},
                 {"{\"tokenizer_class\":\"Qwen2Tokenizer\",\"unk_token\":\"<u>\"}", "a ."},
                 {"{\"tokenizer_class\":\"Qwen2Tokenizer\",\"unk_token\":\"<u>\","
                  "\"clean_up_tokenization_spaces\":true}",
                  "a."}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct hg_tokenizer *t = NULL;
        struct hg_error err = {0};
        struct folder f = FILES(cases[i].config, "{\"a\":0,\"\u0120\":1,\".\":2,\"<u>\":3}", "\n");
        HG_TEST_OK(load_folder(&f, &t, &err), err);
        char *text = text_decode(t, (int32_t[]){0, 1, 2}, 3, false);
        assert_string_equal(text, cases[i].want);
        free(text);
        hg_tokenizer_free(t);
    }
    expect_refused(FILES("{\"tokenizer_class\":\"GPT2Tokenizer\","
                         "\"clean_up_tokenization_spaces\":1}",
                         VOCAB, "\n"),
                   HG_STATUS_BAD_FILE, "clean_up_tokenization_spaces");
}

static void configs_that_are_not_understood_are_refused_by_name(void **state)
{
    (void)state;
    static const struct {
        const char *config, *part;
        enum hg_status status;
    } cases[] = {
        {"{\"tokenizer_class\":\"BertTokenizer\"}", "BertTokenizer", HG_STATUS_UNSUPPORTED},
        {"{}", "tokenizer_class", HG_STATUS_BAD_FILE},
        {"{\"tokenizer_class\":\"GPT2Tokenizer\",\"add_eos_token\":true}", "add_eos_token",
         HG_STATUS_UNSUPPORTED},
        {"{\"tokenizer_class\":\"GPT2Tokenizer\",\"add_prefix_space\":true}", "add_prefix_space",
         HG_STATUS_UNSUPPORTED},
        {"{\"tokenizer_class\":\"GPT2Tokenizer\",\"split_special_tokens\":true}",
         "split_special_tokens", HG_STATUS_UNSUPPORTED},
        {"{\"tokenizer_class\":\"LlamaTokenizer\",\"sp_model_kwargs\":{\"alpha\":1}}",
         "sp_model_kwargs", HG_STATUS_UNSUPPORTED},
        {"{\"tokenizer_class\":\"GPT2Tokenizer\",\"add_bos_token\":7}", "add_bos_token",
         HG_STATUS_BAD_FILE},
        {"{\"tokenizer_class\":\"GPT2Tokenizer\",\"added_tokens_decoder\":{\"x\":{}}}", "'x'",
         HG_STATUS_BAD_FILE},
        {"{\"tokenizer_class\":\"GPT2Tokenizer\",\"added_tokens_decoder\":{\"9\":{}}}", "content",
         HG_STATUS_BAD_FILE},
        {"{\"tokenizer_class\":\"GPT2Tokenizer\",\"added_tokens_decoder\":{\"9\":{\"content\":"
         "\"q\",\"single_word\":true}}}",
         "single_word", HG_STATUS_UNSUPPORTED},
        {"{\"tokenizer_class\":\"GPT2Tokenizer\",\"added_tokens_decoder\":{\"0\":{\"content\":"
         "\"q\"}}}",
         "id 0 is given to", HG_STATUS_BAD_FILE},
        {"{\"tokenizer_class\":\"GPT2Tokenizer\",\"added_tokens_decoder\":{\"9\":{\"content\":"
         "\"a\"}}}",
         "two ids", HG_STATUS_BAD_FILE},
        {"{\"tokenizer_class\":\"GPT2Tokenizer\",\"bos_token\":3}", "bos_token",
         HG_STATUS_BAD_FILE},
        {"{\"tokenizer_class\":\"LlamaTokenizer\"}", "tokenizer.model", HG_STATUS_NOT_FOUND},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        expect_refused(FILES(cases[i].config, VOCAB, "\n"), cases[i].status, cases[i].part);
    struct hg_tokenizer *t = NULL;
    struct hg_error err = {0};
    HG_TEST_FAILS(hg_tokenizer_load("/tmp/no/such/folder", &t, &err), HG_STATUS_NOT_FOUND, err,
                  "/tmp/no/such/folder");
}

/* A byte that the vocabulary lacks needs an unknown token to stand for it. */
static void a_missing_byte_without_an_unknown_token_is_refused(void **state)
{
    (void)state;
    expect_refused(FILES("{\"tokenizer_class\":\"Qwen2Tokenizer\",\"unk_token\":null,"
                         "\"eos_token\":null,\"pad_token\":null}",
                         "{\"a\":0}", "\n"),
                   HG_STATUS_BAD_FILE, "byte 0x00");
}

/* What a user can type: a byte that the vocabulary lacks must not end a text, and the token of a
 * byte must not be an added one. */
static void plain_bytes_never_stand_for_control_tokens(void **state)
{
    (void)state;
    expect_refused(
        FILES("{\"tokenizer_class\":\"GPT2Tokenizer\"}", "{\"a\":0,\"<|endoftext|>\":1}", "\n"),
        HG_STATUS_BAD_FILE, "begins or ends a text");
    expect_refused(
        (struct folder){.config = CONFIG, .vocab = VOCAB, .merges = "\n", .added = "{\"a\":0}"},
        HG_STATUS_BAD_FILE, "byte 0x61 and is an added token");
}

/* With another vocabulary file and no decoder the list of tokenizer.json counts, with its flags. */
static void added_tokens_of_tokenizer_json_stand_beside_another_vocabulary(void **state)
{
    (void)state;
    struct folder f = {.config = CONFIG,
                       .vocab = VOCAB,
                       .merges = "#version\na b\n",
                       .json = "{\"added_tokens\":[{\"id\":4,\"content\":\"<x>\","
                               "\"lstrip\":true,\"rstrip\":true}]}",
                       .added = "{\"<x>\":4,\"<y>\":5}"};
    expect_ids(f, "ab <x> b<y>", "2 4 1 5");
}

/* added_tokens.json counts only where the config has no added_tokens_decoder. */
static void older_added_tokens_files_are_read(void **state)
{
    (void)state;
    expect_ids(
        (struct folder){
            .config = CONFIG, .vocab = VOCAB, .merges = "\na b\n", .added = "{\"<|x|>\": 7}"},
        "ab<|x|>a", "2 7 0");
    expect_refused(
        (struct folder){
            .config = CONFIG, .vocab = VOCAB, .merges = "\n", .added = "{\"<|x|>\": \"7\"}"},
        HG_STATUS_BAD_FILE, "<|x|>");
}

#define JSON(model, pre)                                                                           \
    "{\"added_tokens\":[{\"id\":5,\"content\":\"<|x|>\"}],\"normalizer\":null,"                    \
    "\"pre_tokenizer\":" pre ",\"model\":" model "}"
#define BYTE_LEVEL "{\"type\":\"ByteLevel\",\"add_prefix_space\":false}"
#define MODEL(rest) "{\"type\":\"BPE\",\"unk_token\":\"<u>\",\"vocab\":" VOCAB "," rest "}"

static void tokenizer_json_is_read_and_refused_by_name(void **state)
{
    (void)state;
    static const char fast[] =
        "{\"tokenizer_class\":\"PreTrainedTokenizerFast\",\"unk_token\":\"<u>\"}";
    expect_ids(
        (struct folder){.config = fast, .json = JSON(MODEL("\"merges\":[\"a b\"]"), BYTE_LEVEL)},
        "ab<|x|>a", "2 5 0");
    expect_ids((struct folder){.config = fast,
                               .json = JSON(MODEL("\"merges\":[[\"a\",\"b\"]]"), BYTE_LEVEL)},
               "ab<|x|>a", "2 5 0");
    static const struct {
        const char *json, *part;
        enum hg_status status;
    } cases[] = {
        {"[]", "tokenizer.json", HG_STATUS_BAD_FILE},
        {"{}", "model", HG_STATUS_BAD_FILE},
        {JSON("{\"type\":\"Unigram\"}", BYTE_LEVEL), "Unigram", HG_STATUS_UNSUPPORTED},
        {JSON("{\"type\":\"BPE\",\"vocab\":7}", BYTE_LEVEL), "vocab", HG_STATUS_BAD_FILE},
        {JSON(MODEL("\"merges\":7"), BYTE_LEVEL), "merges", HG_STATUS_BAD_FILE},
        {JSON(MODEL("\"merges\":[7]"), BYTE_LEVEL), "entry 0", HG_STATUS_BAD_FILE},
        {JSON(MODEL("\"merges\":[[\"a\"]]"), BYTE_LEVEL), "entry 0", HG_STATUS_BAD_FILE},
        {JSON(MODEL("\"merges\":[\"b a\"]"), BYTE_LEVEL), "merge 0", HG_STATUS_BAD_FILE},
        {JSON(MODEL("\"ignore_merges\":true"), BYTE_LEVEL), "ignore_merges", HG_STATUS_UNSUPPORTED},
        {JSON(MODEL("\"dropout\":0.1"), BYTE_LEVEL), "dropout", HG_STATUS_UNSUPPORTED},
        {JSON(MODEL("\"end_of_word_suffix\":\"@\""), BYTE_LEVEL), "end_of_word_suffix",
         HG_STATUS_UNSUPPORTED},
        {JSON(MODEL("\"merges\":[]"),
              "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(a+)+$\"},\"behavior\":\"Isolated\"}"),
         "(a+)+$", HG_STATUS_UNSUPPORTED},
        {JSON(MODEL("\"merges\":[]"), "null"), "pre_tokenizer", HG_STATUS_UNSUPPORTED},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        expect_refused((struct folder){.config = fast, .json = cases[i].json}, cases[i].status,
                       cases[i].part);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(broken_vocab_files_are_named),
        cmocka_unit_test(broken_merges_are_named_with_their_rank),
        cmocka_unit_test(clean_up_is_read_from_the_config),
        cmocka_unit_test(configs_that_are_not_understood_are_refused_by_name),
        cmocka_unit_test(a_missing_byte_without_an_unknown_token_is_refused),
        cmocka_unit_test(plain_bytes_never_stand_for_control_tokens),
        cmocka_unit_test(added_tokens_of_tokenizer_json_stand_beside_another_vocabulary),
        cmocka_unit_test(older_added_tokens_files_are_read),
        cmocka_unit_test(tokenizer_json_is_read_and_refused_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
