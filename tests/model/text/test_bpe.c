/* The work grows in step with the text, whatever the text. Counted in steps of the merging and of
 * the scanners, not in time: a neighbour on the machine changes nothing. (T-12; `make
 * tokenizer-check` measures the time.) */
#include "model/text/bpe.h"

#include "common/utf8.h"
#include "model/text/byte_level.h"
#include "model/text/sentencepiece.h"
#include "tests/model/text/real_vocab.h"
#include "tests/model/text/text_check.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { SMALL = 16 << 10 }; /* everything is some ten times slower there */
#else
enum { SMALL = 128 << 10 };
#endif
enum { TIMES = 16, LARGE = TIMES * SMALL };

static const struct {
    const char *name, *unit; /* NULL: random ones of `any` */
    const char *any;
} shapes[] = {
    {"a", "a", NULL},
    {"space", " ", NULL},
    {"emoji", "\xf0\x9f\x98\x80", NULL},
    {"alternating", "ab", NULL},
    {"deep digits", NULL, "0123456789"},
    {"mixed", NULL, " the \n12e"},
};
enum { N_SHAPES = sizeof shapes / sizeof shapes[0] };

static char text[LARGE];

static void fill(int shape)
{
    const char *unit = shapes[shape].unit, *any = shapes[shape].any;
    uint32_t x = 12345;
    for (size_t i = 0; i < LARGE; i++) {
        x = x * 1664525u + 1013904223u;
        text[i] = unit ? unit[i % strlen(unit)] : any[(x >> 24) % strlen(any)];
    }
}

/* Steps per byte; the ids are counted too, so that nothing is left out. */
static double steps_per_byte(const struct hg_tokenizer *t, size_t n)
{
    struct hg_encode_work w = {0};
    struct hg_ids ids = {0};
    if (t->family == HG_FAMILY_LLAMA)
        assert_int_equal(hg_spm_encode(t, &w, text, n, false, &ids), 0);
    else
        assert_int_equal(hg_byte_level_encode(t, &w, text, n, &ids), 0);
    uint64_t steps = w.bpe.n_steps + w.n_looks + ids.n;
    hg_ids_deinit(&ids);
    hg_encode_work_deinit(&w);
    return (double)steps / (double)n;
}

/* A heap of 16 times as many pairs is two levels deeper, of some ten: a little more per byte. Work
 * that grows with the square would be 16 times as much. */
static void expect_linear(const struct hg_tokenizer *t)
{
    for (int shape = 0; shape < N_SHAPES; shape++) {
        fill(shape);
        double small = steps_per_byte(t, SMALL), large = steps_per_byte(t, LARGE);
        printf("%-15s %-12s %6.2f steps a byte of %d kB, %6.2f of %d kB\n", hg_tokenizer_family(t),
               shapes[shape].name, small, SMALL >> 10, large, LARGE >> 10);
        assert_true(large <= 1.3 * small);
        assert_true(large <= 40);
    }
}

static void the_work_is_linear_in_the_text(void **state)
{
    (void)state;
    bool (*const makers[])(char *) = {real_phi3, real_phi4, real_qwen25};
    struct hg_tokenizer *demo = text_load(hg_test_file("config/models/demo/llm"));
    expect_linear(demo);
    hg_tokenizer_free(demo);
    for (size_t i = 0; i < sizeof makers / sizeof makers[0]; i++) {
        char dir[64];
        if (!makers[i](dir))
            HG_TEST_SKIP("a vocabulary is missing in the shared data");
        struct hg_tokenizer *t = text_load(dir);
        expect_linear(t);
        hg_tokenizer_free(t);
        text_remove_dir(dir);
    }
}

/* By rank of the joined string, as tiktoken does: the same bound. */
static void the_work_is_linear_by_rank(void **state)
{
    (void)state;
    const char *path = hg_test_shared("data/tokenizers/tiktoken/cl100k_base.tiktoken");
    if (!path)
        HG_TEST_SKIP("no cl100k ranks in the shared data");
    struct hg_tokenizer *t = text_load(path);
    expect_linear(t);
    hg_tokenizer_free(t);
}

/* Every added token is looked for at every byte of a trusted text: at most the longest one's bytes.
 */
static void looking_for_added_tokens_is_bounded(void **state)
{
    (void)state;
    struct hg_tokenizer *t = text_load(hg_test_file("config/models/demo/llm"));
    struct hg_error err = {0};
    int32_t first;
    HG_TEST_OK(hg_tokenizer_add_image_tokens(t, 8192, &first, &err), err);
    assert_true(t->added.max_len <= 32);
    enum { N = 1 << 18 };
    char *s = malloc(N);
    assert_non_null(s);
    for (size_t i = 0; i < N; i++)
        s[i] = "<|end<idx_81"[i % 12];
    struct hg_ids ids = text_encode(t, s, N, true);
    assert_true(ids.n > 0);
    hg_ids_deinit(&ids);
    free(s);
    hg_tokenizer_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_work_is_linear_in_the_text),
        cmocka_unit_test(the_work_is_linear_by_rank),
        cmocka_unit_test(looking_for_added_tokens_is_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
