/* Real vocabularies: reference.md 9.3, 9.4, 9.5, 24; llama.cpp's and tiktoken's vectors. */
#include "model/text/tokenizer.h"

#include "model/text/prompt.h"
#include "tests/model/text/real_vocab.h"
#include "tests/model/text/text_check.h"

/* ---- vectors of reference.md ---- */

/* E(x) of the reference is SentencePiece without a prefix: here the text behind an added token. */
static void expect_bare(const struct hg_tokenizer *t, const char *s, const char *want)
{
    struct hg_text_part parts[] = {{"<unk>", 5, true}, {s, strlen(s), false}};
    struct hg_ids got = {0}, ids = text_ids_of_string(want);
    struct hg_error err = {0};
    HG_TEST_OK(hg_tokenizer_encode(t, parts, 2, &got, &err), err);
    assert_true(got.n >= 1 && got.data[0] == 0); /* the lone mark in front of <unk> is dropped */
    struct hg_ids tail = {got.data + 1, got.n - 1, 0};
    text_expect_ids(s, &tail, ids.data, ids.n);
    hg_ids_deinit(&got);
    hg_ids_deinit(&ids);
}

static void expect_spaces(const struct hg_tokenizer *t)
{
    static const struct {
        int n;
        const char *want;
    } runs[] = {{1, "29871"},      {2, "259"},        {3, "1678"},          {4, "268"},
                {5, "418"},        {6, "539"},        {7, "4706"},          {8, "308"},
                {9, "3986"},       {10, "965"},       {11, "9651"},         {12, "632"},
                {13, "795"},       {14, "1669"},      {15, "18884"},        {16, "462"},
                {17, "462 29871"}, {31, "462 18884"}, {33, "462 462 29871"}};
    char spaces[40];
    memset(spaces, ' ', sizeof spaces);
    for (size_t i = 0; i < sizeof runs / sizeof runs[0]; i++) {
        spaces[runs[i].n] = 0;
        expect_bare(t, spaces, runs[i].want);
        spaces[runs[i].n] = ' ';
    }
    expect_bare(t, " x", "921");
    expect_bare(t, "  x", "29871 921");
    expect_bare(t, "     x", "268 921");
}

static void expect_phi3_vectors(const struct hg_tokenizer *t)
{
    expect_bare(t, "You are a helpful AI assistant.", "3492 526 263 8444 319 29902 20255 29889");
    expect_bare(t, " \nWhat is shown?", "29871 13 5618 338 4318 29973");
    expect_bare(t, " \nDescribe the image.", "29871 13 4002 29581 278 1967 29889");
    expect_bare(t, " \nReconstruct the image.", "29871 13 1123 11433 278 1967 29889");
    expect_bare(t, "The dose is 12345 mg (A).\nIs it  safe?",
                "1576 437 344 338 29871 29896 29906 29941 29946 29945 286 29887 313 29909 467 13 "
                "3624 372 29871 9109 29973");
    expect_bare(t, "caf\xc3\xa9 \xc2\xb5g \xe2\x89\xa4 5",
                "1113 29888 29948 29871 30263 29887 29871 30248 29871 29945");
    expect_bare(t, "\xf0\x9f\x98\x80", "243 162 155 131");
    expect_spaces(t);
    assert_int_equal(hg_tokenizer_size(t), 32011);
    assert_int_equal(hg_tokenizer_id(t, "<|end|>"), 32007);
    assert_int_equal(hg_tokenizer_eos(t), 32000);
    assert_int_equal(hg_tokenizer_bos(t), -1);
}

static void phi3_model_file_gives_the_ids_of_the_reference(void **state)
{
    (void)state;
    char dir[64];
    if (!real_phi3(dir))
        HG_TEST_SKIP("no Phi-3 vocabulary in the shared data");
    struct hg_tokenizer *t = text_load(dir);
    expect_phi3_vectors(t);
    hg_tokenizer_free(t);
    text_remove_dir(dir);
}

static void phi3_tokenizer_json_gives_the_same_ids(void **state)
{
    (void)state;
    char dir[64];
    if (!real_phi3_json(dir))
        HG_TEST_SKIP("no Phi-3 tokenizer.json in the shared data");
    struct hg_tokenizer *t = text_load(dir);
    expect_phi3_vectors(t);
    hg_tokenizer_free(t);
    text_remove_dir(dir);
}

/* ---- prompts (reference.md 9.1 - 9.5, 0) ---- */

static void expect_prompt(const struct hg_tokenizer *t, const char *chat, int n_images,
                          const char *question, bool start_image, const char *want)
{
    struct hg_turn turn = {
        .question = question, .n_question = strlen(question), .n_images = n_images};
    struct hg_prompt_spec spec = {
        .template_name = chat, .turns = &turn, .n_turns = 1, .start_image = start_image};
    struct hg_ids got = {0}, ids = text_ids_of_string(want);
    struct hg_error err = {0};
    HG_TEST_OK(hg_prompt_encode(t, &spec, &got, &err), err);
    text_expect_ids(question, &got, ids.data, ids.n);
    hg_ids_deinit(&got);
    hg_ids_deinit(&ids);
}

#define SYSTEM3 "3492 526 263 8444 319 29902 20255 29889"

static void phi3_prompts_have_the_skeleton_of_the_reference(void **state)
{
    (void)state;
    char dir[64];
    if (!real_phi3(dir))
        HG_TEST_SKIP("no Phi-3 vocabulary in the shared data");
    struct hg_tokenizer *t = text_load(dir);
    struct hg_error err = {0};
    int32_t first;
    HG_TEST_OK(hg_tokenizer_add_image_tokens(t, 8192, &first, &err), err);
    assert_int_equal(first, 32011);
    assert_int_equal(hg_tokenizer_id(t, "<idx_8191>"), 40203);
    assert_int_equal(hg_tokenizer_id(t, "<end_index>"), 40204);
    assert_int_equal(hg_tokenizer_id(t, "<pixel_newline>"), 40205);
    assert_int_equal(hg_tokenizer_size(t), 40206);
    expect_prompt(t, "phi3_instruct", 1, "What is shown?", false,
                  "29871 32006 " SYSTEM3
                  " 32007 32010 -200 29871 13 5618 338 4318 29973 32007 32001");
    expect_prompt(t, "phi3_instruct", 1, "Reconstruct the image.", true,
                  "29871 32006 " SYSTEM3
                  " 32007 32010 -200 29871 13 1123 11433 278 1967 29889 32007 32001 32011");
    expect_prompt(t, "phi3_instruct", 0, " \n What is shown?", false,
                  "29871 32006 " SYSTEM3 " 32007 32010 5618 338 4318 29973 32007 32001");
    expect_prompt(t, "phi3_instruct", 0, "", false, "29871 32006 " SYSTEM3 " 32007 32010 32001");
    hg_tokenizer_free(t);
    text_remove_dir(dir);
}

/* add_bos_token = true, as the first Phi-3 files say: BOS once, at the very front */
static void bos_stands_only_in_front_of_the_first_chunk(void **state)
{
    (void)state;
    char dir[64];
    if (!real_phi3(dir))
        HG_TEST_SKIP("no Phi-3 vocabulary in the shared data");
    json_error_t e;
    char path[128];
    snprintf(path, sizeof path, "%s/tokenizer_config.json", dir);
    json_t *config = json_load_file(path, 0, &e);
    json_object_del(config, "add_bos_token"); /* LlamaTokenizer's default is true */
    assert_int_equal(json_dump_file(config, path, 0), 0);
    json_decref(config);
    struct hg_tokenizer *t = text_load(dir);
    assert_int_equal(hg_tokenizer_bos(t), 1);
    expect_prompt(t, "phi3_instruct", 1, "What is shown?", false,
                  "1 29871 32006 " SYSTEM3
                  " 32007 32010 -200 29871 13 5618 338 4318 29973 32007 32001");
    hg_tokenizer_free(t);
    text_remove_dir(dir);
}

static struct hg_ids encoded(const struct hg_tokenizer *t, const char *const texts[],
                             const int ids[])
{
    struct hg_ids all = {0};
    for (int i = 0; texts[i] || ids[i]; i++) {
        if (!texts[i]) {
            assert_int_equal(hg_ids_push(&all, ids[i]), 0);
            continue;
        }
        struct hg_ids part = text_encode(t, texts[i], strlen(texts[i]), false);
        for (size_t k = 0; k < part.n; k++)
            assert_int_equal(hg_ids_push(&all, part.data[k]), 0);
        hg_ids_deinit(&part);
    }
    return all;
}

static void check_skeleton(const struct hg_tokenizer *t, const char *chat, const char *question,
                           const char *const texts[], const int ids[])
{
    struct hg_turn turn = {.question = question, .n_question = strlen(question), .n_images = 1};
    struct hg_prompt_spec spec = {.template_name = chat, .turns = &turn, .n_turns = 1};
    struct hg_ids got = {0}, want = encoded(t, texts, ids);
    struct hg_error err = {0};
    HG_TEST_OK(hg_prompt_encode(t, &spec, &got, &err), err);
    text_expect_ids(chat, &got, want.data, want.n);
    hg_ids_deinit(&got);
    hg_ids_deinit(&want);
}

static void phi4_prompts_lose_the_whitespace_around_specials(void **state)
{
    (void)state;
    char dir[64];
    if (!real_phi4(dir))
        HG_TEST_SKIP("no cl100k ranks in the shared data");
    struct hg_tokenizer *t = text_load(dir);
    struct hg_error err = {0};
    int32_t first;
    assert_int_equal(hg_tokenizer_size(t), 100352);
    HG_TEST_OK(hg_tokenizer_add_image_tokens(t, 8192, &first, &err), err);
    assert_int_equal(first, 100352);
    assert_int_equal(hg_tokenizer_size(t), 108547);
    check_skeleton(t, "phi4_instruct", "Is it 12345 mg?  \n",
                   (const char *const[]){
                       NULL, "system", NULL,
                       "You are a medieval knight and must provide explanations to modern people.",
                       NULL, NULL, "user", NULL, NULL, "\nIs it 12345 mg?", NULL, NULL, "assistant",
                       NULL, NULL},
                   (const int[]){100264, 0, 100266, 0, 100265, 100264, 0, 100266, -200, 0, 100265,
                                 100264, 0, 100266, 0});
    hg_tokenizer_free(t);
    text_remove_dir(dir);
}

static void qwen_prompts_keep_every_newline(void **state)
{
    (void)state;
    char dir[64];
    if (!real_qwen25(dir))
        HG_TEST_SKIP("no Qwen ranks in the shared data");
    struct hg_tokenizer *t = text_load(dir);
    assert_int_equal(hg_tokenizer_size(t), 151665);
    assert_int_equal(hg_tokenizer_eos(t), 151645);
    check_skeleton(
        t, "qwen_2", "Is it 12345 mg?",
        (const char *const[]){NULL,
                              "system\nYou are Qwen, created by Alibaba Cloud. You are a "
                              "helpful assistant.",
                              NULL, "\n", NULL, "user\n", NULL, "\nIs it 12345 mg?", NULL, "\n",
                              NULL, "assistant\n", NULL},
        (const int[]){151644, 0, 151645, 0, 151644, 0, -200, 0, 151645, 0, 151644, 0, 0});
    text_expect(t, "\n", false, "198");
    /* NFC: e + combining acute is one letter */
    struct hg_ids one = text_encode(t, "caf\xc3\xa9", 5, false);
    struct hg_ids two = text_encode(t, "cafe\xcc\x81", 6, false);
    text_expect_ids("NFC", &two, one.data, one.n);
    hg_ids_deinit(&one);
    hg_ids_deinit(&two);
    struct hg_error err = {0};
    struct hg_ids ids = {0};
    struct hg_turn turn = {.question = "x", .n_question = 1};
    struct hg_prompt_spec spec = {
        .template_name = "qwen_2", .turns = &turn, .n_turns = 1, .start_image = true};
    HG_TEST_FAILS(hg_prompt_encode(t, &spec, &ids, &err), HG_STATUS_UNSUPPORTED, err,
                  "<start_index>");
    hg_tokenizer_free(t);
    text_remove_dir(dir);
}

/* ---- llama.cpp's vectors ---- */

/* Texts separated by "\n__ggml_vocab_test__\n" and a line of ids for each. */
static void run_ggml(const struct hg_tokenizer *t, const char *name, size_t want_passed)
{
    char shared[128];
    size_t n_in, n_out, n_cases = 0, n_passed = 0;
    snprintf(shared, sizeof shared, "data/tokenizers/llama.cpp/ggml-vocab-%s.gguf.inp", name);
    char *in = (char *)hg_test_read(hg_test_shared(shared), &n_in);
    snprintf(shared, sizeof shared, "data/tokenizers/llama.cpp/ggml-vocab-%s.gguf.out", name);
    char *out = (char *)hg_test_read(hg_test_shared(shared), &n_out);
    const char *mark = "\n__ggml_vocab_test__\n", *line = out;
    for (const char *s = in, *next; s; s = next, n_cases++) {
        const char *end = memmem(s, n_in - (size_t)(s - in), mark, strlen(mark));
        size_t n = end ? (size_t)(end - s) : n_in - (size_t)(s - in);
        next = end ? end + strlen(mark) : NULL;
        const char *stop = memchr(line, '\n', n_out - (size_t)(line - out));
        if (!stop) /* the last text of the file has no ids */
            break;
        struct hg_buf row = {0};
        assert_int_equal(hg_buf_append(&row, line, (size_t)(stop - line)), 0);
        struct hg_ids want = text_ids_of_string(row.data ? row.data : "");
        struct hg_ids got = text_encode(t, s, n, false);
        bool same = text_same_ids(&got, want.data, want.n);
        n_passed += same;
        if (!same)
            printf("  %s case %zu differs: '%.*s'\n", name, n_cases, (int)n, s);
        hg_buf_deinit(&row);
        hg_ids_deinit(&want);
        hg_ids_deinit(&got);
        line = stop + 1;
    }
    printf("llama.cpp %s: %zu of %zu texts equal\n", name, n_passed, n_cases);
    free(in);
    free(out);
    assert_int_equal(n_passed, want_passed);
}

static void phi3_equals_the_vectors_of_llama_cpp(void **state)
{
    (void)state;
    char dir[64], json_dir[64];
    if (!real_phi3(dir) || !real_phi3_json(json_dir))
        HG_TEST_SKIP("no Phi-3 vocabulary in the shared data");
    struct hg_tokenizer *t = text_load(dir), *json = text_load(json_dir);
    run_ggml(t, "phi-3", 46);
    run_ggml(json, "phi-3", 46);
    hg_tokenizer_free(t);
    hg_tokenizer_free(json);
    text_remove_dir(dir);
    text_remove_dir(json_dir);
}

static void gpt2_equals_the_vectors_of_llama_cpp(void **state)
{
    (void)state;
    char dir[64];
    if (!real_gpt2(dir))
        HG_TEST_SKIP("no GPT-2 vocabulary in the shared data");
    struct hg_tokenizer *t = text_load(dir);
    run_ggml(t, "gpt-2", 46);
    hg_tokenizer_free(t);
    text_remove_dir(dir);
}

static void qwen2_equals_the_vectors_of_llama_cpp(void **state)
{
    (void)state;
    char dir[64];
    if (!real_qwen25(dir))
        HG_TEST_SKIP("no Qwen ranks in the shared data");
    struct hg_tokenizer *t = text_load(dir);
    run_ggml(t, "qwen2", 46);
    hg_tokenizer_free(t);
    text_remove_dir(dir);
}

static void cl100k_equals_the_vector_of_tiktoken(void **state)
{
    (void)state;
    char dir[64], path[128];
    json_error_t e;
    size_t n;
    if (!real_cl100k_json(dir))
        HG_TEST_SKIP("no cl100k ranks in the shared data");
    snprintf(path, sizeof path, "%s/tokenizer.json", dir);
    struct hg_tokenizer *t = text_load(path); /* a bare file */
    char *s =
        (char *)hg_test_read(hg_test_shared("data/tokenizers/tiktoken/vectors/lib.rs.txt"), &n);
    json_t *doc =
        json_load_file(hg_test_shared("data/tokenizers/tiktoken/vectors/tokens.json"), 0, &e);
    struct hg_ids want = text_ids_of_json(doc), got = text_encode(t, s, n, false);
    text_expect_ids("lib.rs", &got, want.data, want.n);
    printf("tiktoken: %zu ids equal\n", want.n);
    char *back = text_decode(t, got.data, got.n, false);
    assert_int_equal(strlen(back), n);
    assert_memory_equal(back, s, n);
    free(back);
    free(s);
    json_decref(doc);
    hg_ids_deinit(&want);
    hg_ids_deinit(&got);
    hg_tokenizer_free(t);
    text_remove_dir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(phi3_model_file_gives_the_ids_of_the_reference),
        cmocka_unit_test(phi3_tokenizer_json_gives_the_same_ids),
        cmocka_unit_test(phi3_prompts_have_the_skeleton_of_the_reference),
        cmocka_unit_test(bos_stands_only_in_front_of_the_first_chunk),
        cmocka_unit_test(phi4_prompts_lose_the_whitespace_around_specials),
        cmocka_unit_test(qwen_prompts_keep_every_newline),
        cmocka_unit_test(phi3_equals_the_vectors_of_llama_cpp),
        cmocka_unit_test(gpt2_equals_the_vectors_of_llama_cpp),
        cmocka_unit_test(qwen2_equals_the_vectors_of_llama_cpp),
        cmocka_unit_test(cl100k_equals_the_vector_of_tiktoken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
