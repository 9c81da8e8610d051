/* tests/model/test_healthgpt.c - the model's face on the demo model: refusals, resources,
 * determinism. */
#include "model/healthgpt.h"

#include <unistd.h>

#include "tests/parity/model_writer.h"
#include "tests/parity/run_seq.h"
#include "tests/test.h"

static struct hg_model *load_with(int max_seqs, int64_t kv_tokens)
{
    struct hg_model *m = NULL;
    struct hg_error err = {0};
    struct hg_model_options o = {.path = hg_test_file("config/models/demo"),
                                 .n_threads = 2,
                                 .max_seqs = max_seqs,
                                 .kv_tokens = kv_tokens};
    HG_TEST_OK(hg_model_load(&o, &m, &err), err);
    return m;
}

static int setup(void **state)
{
    *state = load_with(8, 0);
    return 0;
}

static int teardown(void **state)
{
    hg_model_free(*state);
    return 0;
}

static enum hg_status prepare(struct hg_model *m, enum hg_task task, const char *question,
                              const struct hg_sampling *sampling, struct hg_prepared **out,
                              struct hg_error *err)
{
    struct hg_turn turn = {.question = question, .n_question = strlen(question)};
    struct hg_request_input in = {.task = task, .turns = &turn, .n_turns = 1};
    if (sampling)
        in.sampling = *sampling;
    else
        hg_sampling_default(&in.sampling);
    return hg_model_prepare(m, &in, out, err);
}

static struct hg_prepared *drawing(struct hg_model *m, uint64_t seed)
{
    struct hg_sampling s;
    struct hg_prepared *p = NULL;
    struct hg_error err = {0};
    hg_sampling_default(&s);
    s.temperature = 0.9f;
    s.seed = seed;
    HG_TEST_OK(prepare(m, HG_TASK_GENERATION, "Draw a chest X-ray.", &s, &p, &err), err);
    return p;
}

static void empty_question_is_refused(void **state)
{
    struct hg_prepared *p = NULL;
    struct hg_error err = {0};
    HG_TEST_FAILS(prepare(*state, HG_TASK_COMPREHENSION, "  \n", NULL, &p, &err),
                  HG_STATUS_BAD_REQUEST, err, "question: empty");
}

static void question_of_ten_thousand_tokens_is_refused_with_numbers(void **state)
{
    struct hg_prepared *p = NULL;
    struct hg_error err = {0};
    char *text = malloc(20001);
    for (int i = 0; i < 10000; i++)
        memcpy(text + 2 * i, "9 ", 2);
    text[20000] = 0;
    HG_TEST_FAILS(prepare(*state, HG_TASK_COMPREHENSION, text, NULL, &p, &err), HG_STATUS_TOO_LARGE,
                  err, "context holds 1024");
    free(text);
}

static void bad_sampling_values_name_their_field(void **state)
{
    static const struct {
        struct hg_sampling s;
        const char *field;
    } rows[] = {{{.temperature = -1, .top_p = 1}, "temperature"},
                {{.temperature = 3, .top_p = 1}, "temperature"},
                {{.top_p = 0}, "top_p"},
                {{.top_p = 1, .top_k = -1}, "top_k"},
                {{.top_p = 1, .n_top = 21}, "top_logprobs"},
                {{.top_p = 1, .repetition_penalty = -2}, "repetition_penalty"},
                {{.top_p = 1, .max_tokens = -5}, "max_tokens"}};
    struct hg_prepared *p = NULL;
    struct hg_error err = {0};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        HG_TEST_FAILS(prepare(*state, HG_TASK_COMPREHENSION, "Why?", &rows[i].s, &p, &err),
                      HG_STATUS_BAD_REQUEST, err, rows[i].field);
}

static void an_image_has_a_fixed_number_of_tokens(void **state)
{
    struct hg_sampling s;
    struct hg_prepared *p = NULL;
    struct hg_error err = {0};
    hg_sampling_default(&s);
    s.max_tokens = 10;
    HG_TEST_FAILS(prepare(*state, HG_TASK_GENERATION, "Draw.", &s, &p, &err), HG_STATUS_BAD_REQUEST,
                  err, "an image is 64 tokens, got 10");
}

static void images_and_turns_must_agree(void **state)
{
    struct hg_turn turn = {.question = "What?", .n_question = 5, .n_images = 1};
    struct hg_request_input in = {.turns = &turn, .n_turns = 1};
    struct hg_prepared *p = NULL;
    struct hg_error err = {0};
    hg_sampling_default(&in.sampling);
    HG_TEST_FAILS(hg_model_prepare(*state, &in, &p, &err), HG_STATUS_BAD_REQUEST, err,
                  "the turns name 1, got 0");
}

static void ids_outside_the_table_are_refused(void **state)
{
    struct hg_request_input in = {.task = HG_TASK_COMPREHENSION};
    struct hg_prepared *p = NULL;
    struct hg_error err = {0};
    hg_sampling_default(&in.sampling);
    HG_TEST_FAILS(hg_model_prepare_ids(*state, &in, (int32_t[]){5, 1000000}, 2, &p, &err),
                  HG_STATUS_BAD_REQUEST, err, "token 1000000");
    HG_TEST_FAILS(hg_model_prepare_ids(*state, &in, (int32_t[]){5, -3}, 2, &p, &err),
                  HG_STATUS_BAD_REQUEST, err, "token -3");
}

/* reference.md 7: on the base tables the rows of the image tokens are means; they have no logits.
 * The demo's tables have a row for each of them. */
static void comprehension_cannot_emit_image_tokens(void **state)
{
    struct hg_model_info info;
    struct hg_prepared *p = NULL;
    struct hg_seq *s = NULL;
    struct hg_error err = {0};
    struct hg_sampling wild = {.temperature = 2, .top_p = 1, .seed = 3, .max_tokens = 40};
    hg_model_info(*state, &info);
    float *logits = malloc((size_t)info.n_vocab * sizeof *logits);
    int start_image = info.first_index_id - 1; /* the first of the image tokens */
    assert_true(start_image > 0 && start_image < info.n_vocab);
    HG_TEST_OK(prepare(*state, HG_TASK_COMPREHENSION, "Why?", &wild, &p, &err), err);
    HG_TEST_OK(hg_seq_create(*state, p, &s, &err), err);
    struct hg_token t = {.finish = HG_FINISH_NONE};
    while (t.finish == HG_FINISH_NONE) {
        int waiting = hg_seq_n_waiting(s);
        struct hg_step_item item = {s, waiting ? waiting : 1};
        size_t n = 0;
        int32_t first = -1;
        HG_TEST_OK(hg_model_step(*state, &item, 1, &t, &err), err);
        HG_TEST_OK(hg_model_last_logits(*state, 0, logits, (size_t)info.n_vocab, &n, &first, &err),
                   err);
        assert_true(first == 0 && n == (size_t)start_image);
        assert_in_range(t.id, 0, start_image - 1);
    }
    hg_seq_free(s);
    free(logits);
}

static enum hg_status prepare_n(struct hg_model *m, size_t n_ids, int max_tokens, int *granted)
{
    static int32_t ids[1100];
    struct hg_request_input in = {.task = HG_TASK_COMPREHENSION};
    struct hg_prepared *p = NULL;
    struct hg_error err = {0};
    hg_sampling_default(&in.sampling);
    in.sampling.max_tokens = max_tokens;
    enum hg_status s = hg_model_prepare_ids(m, &in, ids, n_ids, &p, &err);
    *granted = s == HG_STATUS_OK ? hg_prepared_max_tokens(p) : -1;
    assert_true((s == HG_STATUS_OK) == (p != NULL));
    hg_prepared_free(p);
    return s;
}

/* The demo's context: 1024 positions; its default answer: 64 tokens. */
static void the_context_is_filled_to_the_last_position(void **state)
{
    static const struct {
        size_t n_ids;
        int max_tokens, granted;
    } cases[] = {{1000, 24, 24}, {1000, 25, -1}, {1023, 1, 1},  {1023, 0, 1}, {1024, 0, -1},
                 {1024, 1, -1},  {1025, 0, -1},  {1000, 0, 24}, {960, 0, 64}, {0, 0, -1}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int granted;
        enum hg_status s = prepare_n(*state, cases[i].n_ids, cases[i].max_tokens, &granted);
        assert_int_equal(granted, cases[i].granted);
        assert_int_equal(s, cases[i].granted > 0 ? HG_STATUS_OK : HG_STATUS_TOO_LARGE);
    }
}

static void wrong_folder_is_not_found(void **state)
{
    (void)state;
    struct hg_model *m = NULL;
    struct hg_error err = {0};
    struct hg_model_options o = {.path = "/nonexistent"};
    HG_TEST_FAILS(hg_model_load(&o, &m, &err), HG_STATUS_NOT_FOUND, err, "healthgpt.json");
}

static void unknown_backend_and_dtype_are_named(void **state)
{
    (void)state;
    struct hg_model *m = NULL;
    struct hg_error err = {0};
    struct hg_model_options o = {.path = hg_test_file("config/models/demo"), .backend = "abacus"};
    HG_TEST_FAILS(hg_model_load(&o, &m, &err), HG_STATUS_BAD_REQUEST, err, "abacus");
    o.backend = NULL;
    o.dtype = "f8";
    HG_TEST_FAILS(hg_model_load(&o, &m, &err), HG_STATUS_BAD_REQUEST, err, "f8");
}

static void image_codes_must_be_complete(void **state)
{
    struct hg_model_info info;
    struct hg_error err = {0};
    int32_t ids[65], codes[64];
    size_t n;
    hg_model_info(*state, &info);
    for (int i = 0; i < 65; i++)
        ids[i] = info.first_index_id + i;
    HG_TEST_OK(hg_model_image_codes(*state, ids, 64, codes, 64, &n, &err), err);
    assert_int_equal(codes[63], 63);
    HG_TEST_FAILS(hg_model_image_codes(*state, ids, 12, codes, 64, &n, &err), HG_STATUS_BAD_REQUEST,
                  err, "expected 64 image tokens, got 12: stopped early");
    HG_TEST_FAILS(hg_model_image_codes(*state, ids, 65, codes, 64, &n, &err), HG_STATUS_BAD_REQUEST,
                  err, "too many");
    ids[64] = info.first_index_id + info.n_index; /* <end_index> behind a complete image */
    HG_TEST_OK(hg_model_image_codes(*state, ids, 65, codes, 64, &n, &err), err);
    ids[5] = 7;
    HG_TEST_FAILS(hg_model_image_codes(*state, ids, 64, codes, 64, &n, &err), HG_STATUS_BAD_REQUEST,
                  err, "stray token 7 at step 5");
}

static void previews_need_no_full_grid_and_bad_codes_are_refused(void **state)
{
    struct hg_image im = {0};
    struct hg_error err = {0};
    int32_t codes[64] = {3, 1, 4, 1, 5};
    HG_TEST_OK(hg_model_render(*state, codes, 8, &im, &err), err);
    assert_int_equal(im.width, 64);
    hg_image_deinit(&im);
    assert_int_not_equal(hg_model_render(*state, codes, 0, &im, &err), HG_STATUS_OK);
    codes[2] = 9999;
    assert_int_not_equal(hg_model_render(*state, codes, 64, &im, &err), HG_STATUS_OK);
    assert_non_null(strstr(err.text, "9999"));
}

static void encoder_and_decoder_are_inverse_on_a_drawn_picture(void **state)
{
    struct hg_prepared *p = drawing(*state, 11);
    struct run_result r;
    struct hg_image im = {0}, again = {0};
    struct hg_error err = {0};
    int32_t codes[64], back[64];
    size_t n;
    double sum = 0;
    run_together(*state, &p, 1, 1024, 0, &r);
    assert_int_equal(r.finish, HG_FINISH_IMAGE);
    HG_TEST_OK(hg_model_image_codes(*state, r.ids, r.n_ids, codes, 64, &n, &err), err);
    HG_TEST_OK(hg_model_render(*state, codes, n, &im, &err), err);
    HG_TEST_OK(hg_model_encode(*state, &im, back, 64, &err), err);
    HG_TEST_OK(hg_model_render(*state, back, 64, &again, &err), err);
    for (int i = 0; i < 64 * 64 * 3; i++)
        sum += abs(im.rgb[i] - again.rgb[i]);
    printf("# decode, encode, decode: mean difference %.2f levels\n", sum / (64 * 64 * 3));
    assert_true(sum / (64 * 64 * 3) < 12); /* a codec with 256 codes: no exact fixed point */
    hg_image_deinit(&im);
    hg_image_deinit(&again);
    run_result_free(&r);
}

static void same_seed_draws_the_same_picture_and_another_seed_another(void **state)
{
    struct run_result r[3];
    struct hg_prepared *p[3] = {drawing(*state, 5), drawing(*state, 5), drawing(*state, 6)};
    run_together(*state, p, 3, 7, 2, r);
    assert_memory_equal(r[0].ids, r[1].ids, 64 * sizeof(int32_t));
    assert_memory_not_equal(r[0].ids, r[2].ids, 64 * sizeof(int32_t));
    for (int i = 0; i < 3; i++)
        run_result_free(&r[i]);
}

static void a_full_cache_is_busy_and_everything_comes_back(void **state)
{
    (void)state;
    struct hg_model *m = load_with(8, 112); /* seven blocks; a prompt takes one */
    struct hg_model_info info;
    struct hg_seq *s[8] = {0}, *extra = NULL;
    struct hg_error err = {0};
    int n = 0;
    struct hg_prepared *p = drawing(m, 1);
    while (n < 8 && hg_seq_create(m, p, &s[n], &err) == HG_STATUS_OK) {
        n++;
        p = drawing(m, 1);
    }
    assert_in_range(n, 1, 7);
    HG_TEST_FAILS(hg_seq_create(m, p, &extra, &err), HG_STATUS_BUSY, err, "KV cache");
    hg_seq_free(s[0]);
    HG_TEST_OK(hg_seq_create(m, p, &s[0], &err), err);
    for (int i = 0; i < n; i++)
        hg_seq_free(s[i]);
    hg_model_info(m, &info);
    assert_int_equal(info.kv_blocks_free, info.kv_blocks);
    hg_model_free(m);
}

static void a_request_larger_than_the_cache_is_refused_at_once(void **state)
{
    (void)state;
    struct hg_model *m = load_with(4, 32);
    struct hg_prepared *p = drawing(m, 1);
    struct hg_seq *s = NULL;
    struct hg_error err = {0};
    HG_TEST_FAILS(hg_seq_create(m, p, &s, &err), HG_STATUS_TOO_LARGE, err, "KV blocks");
    hg_prepared_free(p);
    hg_model_free(m);
}

static long resident_kib(void)
{
    long pages = 0, resident = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    if (!f || fscanf(f, "%ld %ld", &pages, &resident) != 2)
        fail_msg("/proc/self/statm");
    fclose(f);
    return resident * (sysconf(_SC_PAGESIZE) / 1024);
}

static void one_request(struct hg_model *m, int i)
{
    struct hg_sampling s;
    struct hg_prepared *p = NULL;
    struct hg_error err = {0};
    struct run_result r;
    hg_sampling_default(&s);
    s.max_tokens = 1 + i % 4;
    HG_TEST_OK(prepare(m, HG_TASK_COMPREHENSION, "What is pneumonia?", &s, &p, &err), err);
    run_together(m, &p, 1, 1024, 0, &r);
    run_result_free(&r);
}

static void a_thousand_requests_leave_no_memory_behind(void **state)
{
    struct hg_model_info info;
    for (int i = 0; i < 100; i++)
        one_request(*state, i);
    long before = resident_kib();
    for (int i = 0; i < 1000; i++)
        one_request(*state, i);
    long growth = resident_kib() - before;
    hg_model_info(*state, &info);
    printf("# 1000 requests: resident memory grew by %ld KiB\n", growth);
    assert_int_equal(info.kv_blocks_free, info.kv_blocks);
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    printf("# (growth is not judged under a sanitizer, which keeps freed memory; LeakSanitizer "
           "judges)\n");
#else
    assert_true(growth < 512);
#endif
}

static void memory_is_what_the_model_says(void **state)
{
    (void)state;
    long before = resident_kib();
    struct hg_model *m = load_with(8, 0);
    struct hg_model_info info;
    hg_model_info(m, &info);
    long grown = resident_kib() - before;
    long said = (long)((info.weight_bytes + info.kv_bytes + info.workspace_bytes) / 1024);
    printf("# resident %ld KiB, said %ld KiB (weights %zu, KV %zu, workspace %zu bytes)\n", grown,
           said, info.weight_bytes, info.kv_bytes, info.workspace_bytes);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    /* Untouched zero pages are not resident; scratch of the backend and tables are the 32 MiB. */
    assert_true(grown < said + 32 * 1024);
#endif
    hg_model_free(m);
}

static void a_cache_of_no_given_size_takes_half_of_what_is_free(void **state)
{
    (void)state;
    const int64_t context = 4096;
    assert_int_equal(hg_model_default_kv_tokens(4, context, 1000, 0), 4 * context);
    assert_int_equal(hg_model_default_kv_tokens(64, context, 1000, 0), 65536);
    assert_int_equal(hg_model_default_kv_tokens(64, context, 1000, 20000000), 10000);
    assert_int_equal(hg_model_default_kv_tokens(64, context, 1000, 1), context);
    assert_int_equal(hg_model_default_kv_tokens(1, 131072, 1000, 20000000), 131072);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(empty_question_is_refused),
        cmocka_unit_test(question_of_ten_thousand_tokens_is_refused_with_numbers),
        cmocka_unit_test(bad_sampling_values_name_their_field),
        cmocka_unit_test(an_image_has_a_fixed_number_of_tokens),
        cmocka_unit_test(images_and_turns_must_agree),
        cmocka_unit_test(ids_outside_the_table_are_refused),
        cmocka_unit_test(comprehension_cannot_emit_image_tokens),
        cmocka_unit_test(the_context_is_filled_to_the_last_position),
        cmocka_unit_test(wrong_folder_is_not_found),
        cmocka_unit_test(unknown_backend_and_dtype_are_named),
        cmocka_unit_test(image_codes_must_be_complete),
        cmocka_unit_test(previews_need_no_full_grid_and_bad_codes_are_refused),
        cmocka_unit_test(encoder_and_decoder_are_inverse_on_a_drawn_picture),
        cmocka_unit_test(same_seed_draws_the_same_picture_and_another_seed_another),
        cmocka_unit_test(a_full_cache_is_busy_and_everything_comes_back),
        cmocka_unit_test(a_request_larger_than_the_cache_is_refused_at_once),
        cmocka_unit_test(a_thousand_requests_leave_no_memory_behind),
        cmocka_unit_test(memory_is_what_the_model_says),
        cmocka_unit_test(a_cache_of_no_given_size_takes_half_of_what_is_free),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
