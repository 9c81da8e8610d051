/* tests/model/load/test_model_source.c - where pieces are found, in which order, and what a card
 * expects. */
#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/file.h"
#include "model/load/expect.h"
#include "model/load/finite.h"
#include "model/load/model_source.h"
#include "model/load/odd_file.h"
#include "tests/parity/model_writer.h"
#include "tests/test.h"

#define HASH_A "0a67737cc96d2554230f90338b163bc6380a2a85"
#define HASH_B "f39ac1d28e925b323eae81227eaba4464caced4e"
#define REPO "models--own--Base"

static const char card_text[] =
    "{\"format\":1,\"name\":\"x\",\"architecture\":\"healthgpt\",\"llm\":\"llm\",\"vision\":"
    "\"vision\",\"template\":\"phi3_instruct\",\"vqgan\":{\"path\":\"vqgan/last.ckpt\"},"
    "\"sources\":{\"llm\":{\"repository\":\"own/Base\",\"alternatives\":[\"other/Copy\"]},"
    "\"vqgan\":{\"page\":\"a page\",\"names\":[\"last.ckpt\"]},\"plugins\":{\"repository\":"
    "\"own/Plug\"}},\"tasks\":{\"comprehension\":{\"hlora\":\"com.bin\",\"alpha\":1}}}";

static void parse(const char *text, struct hg_model_card *c)
{
    struct hg_error err = {0};
    json_t *doc = json_loads(text, 0, NULL);
    assert_non_null(doc);
    HG_TEST_OK(hg_model_card_parse(doc, c, &err), err);
    json_decref(doc);
}

/* root/path with the folders before it; content NULL: a folder. */
static void put(const char *root, const char *path, const char *content)
{
    char full[700];
    snprintf(full, sizeof full, "%s/%s", root, path);
    for (char *s = full + strlen(root) + 1; (s = strchr(s, '/')) != NULL; s++) {
        *s = '\0';
        mkdir(full, 0777);
        *s = '/';
    }
    if (!content) {
        assert_int_equal(mkdir(full, 0777), 0);
        return;
    }
    FILE *f = fopen(full, "w");
    assert_non_null(f);
    fputs(content, f);
    assert_int_equal(fclose(f), 0);
}

static void link_to(const char *root, const char *path, const char *target)
{
    char full[700];
    put(root, path, "");
    snprintf(full, sizeof full, "%s/%s", root, path);
    unlink(full);
    assert_int_equal(symlink(target, full), 0);
}

static void set_time(const char *root, const char *path, time_t seconds)
{
    char full[700];
    struct timespec times[2] = {{.tv_sec = seconds}, {.tv_sec = seconds}};
    snprintf(full, sizeof full, "%s/%s", root, path);
    assert_int_equal(utimensat(AT_FDCWD, full, times, 0), 0);
}

static struct hg_model_place place_at(const char *root)
{
    struct hg_model_place p = {0};
    snprintf(p.root, sizeof p.root, "%s", root);
    snprintf(p.dir, sizeof p.dir, "/nonexistent");
    return p;
}

static void expect_at(const char *root, const struct hg_model_card *c, int piece, const char *rel)
{
    char got[HG_PLACE_CAP], want[HG_PLACE_CAP + 300];
    struct hg_error err = {0};
    struct hg_model_place p = place_at(root);
    HG_TEST_OK(hg_model_find(&p, c, piece, got, &err), err);
    snprintf(want, sizeof want, "%s/%s", root, rel);
    assert_string_equal(got, want);
}

/* Each place in turn becomes the best one. */
static void folders_are_found_in_the_order_of_the_contract(void **state)
{
    (void)state;
    static const char *const worst_first[] = {"hub/models--other--Copy/snapshots/" HASH_A,
                                              "models--other--Copy/snapshots/" HASH_A,
                                              "other/Copy",
                                              "Copy",
                                              "hub/" REPO "/snapshots/" HASH_A,
                                              REPO "/snapshots/" HASH_A,
                                              "own/Base",
                                              "Base",
                                              "llm"};
    char dir[256], path[400];
    struct hg_model_card c;
    parse(card_text, &c);
    writer_temp_dir(dir);
    for (size_t i = 0; i < sizeof worst_first / sizeof *worst_first; i++) {
        snprintf(path, sizeof path, "%s/config.json", worst_first[i]);
        put(dir, path, "{}");
        expect_at(dir, &c, HG_PART_LLM, worst_first[i]);
    }
    writer_remove(dir);
}

static void files_are_found_in_the_order_of_the_contract(void **state)
{
    (void)state;
    static const char *const worst_first[] = {"hub/models--own--Plug/snapshots/" HASH_A "/com.bin",
                                              "models--own--Plug/snapshots/" HASH_A "/com.bin",
                                              "own/Plug/com.bin", "Plug/com.bin", "com.bin"};
    char dir[256];
    struct hg_model_card c;
    parse(card_text, &c);
    writer_temp_dir(dir);
    for (size_t i = 0; i < sizeof worst_first / sizeof *worst_first; i++) {
        put(dir, worst_first[i], "x");
        expect_at(dir, &c, HG_PART_HLORA, worst_first[i]);
    }
    put(dir, "last.ckpt", "x");
    expect_at(dir, &c, HG_PART_VQGAN, "last.ckpt");
    put(dir, "vqgan/last.ckpt", "x");
    expect_at(dir, &c, HG_PART_VQGAN, "vqgan/last.ckpt");
    writer_remove(dir);
}

/* Without refs/main, or with one that is no hash, the newest; with it that one; and when that has
 * not got the file, the newest that has. */
static void snapshots_are_chosen(void **state)
{
    (void)state;
    char dir[256], huge[400];
    struct hg_model_card c;
    parse(card_text, &c);
    writer_temp_dir(dir);
    put(dir, REPO "/snapshots/" HASH_A "/config.json", "{}");
    put(dir, REPO "/snapshots/" HASH_B "/config.json", "{}");
    put(dir, REPO "/snapshots/not-a-hash/config.json", "{}");
    set_time(dir, REPO "/snapshots/" HASH_A, 2000);
    set_time(dir, REPO "/snapshots/" HASH_B, 1000);
    expect_at(dir, &c, HG_PART_LLM, REPO "/snapshots/" HASH_A);
    put(dir, REPO "/refs/main", HASH_B "\n");
    expect_at(dir, &c, HG_PART_LLM, REPO "/snapshots/" HASH_B);
    memset(huge, 'a', sizeof huge - 1);
    huge[sizeof huge - 1] = '\0';
    const char *const hostile[] = {
        "../../../etc", "", "..", "ABCDEF0123456789", huge, "/etc/passwd", HASH_B "/../" HASH_B};
    for (size_t i = 0; i < sizeof hostile / sizeof *hostile; i++) {
        put(dir, REPO "/refs/main", hostile[i]);
        expect_at(dir, &c, HG_PART_LLM, REPO "/snapshots/" HASH_A);
    }
    char ref[700];
    snprintf(ref, sizeof ref, "%s/%s/refs/main", dir, REPO);
    unlink(ref);
    assert_int_equal(mkfifo(ref, 0600), 0); /* nobody writes: must not wait */
    expect_at(dir, &c, HG_PART_LLM, REPO "/snapshots/" HASH_A);
    writer_remove(dir);
}

static void a_file_that_the_newest_download_lacks_is_taken_from_an_older_one(void **state)
{
    (void)state;
    char dir[256];
    struct hg_model_card c;
    parse(card_text, &c);
    writer_temp_dir(dir);
    put(dir, "models--own--Plug/snapshots/" HASH_A "/com.bin", "x");
    put(dir, "models--own--Plug/snapshots/" HASH_B "/README.md", "x");
    put(dir, "models--own--Plug/refs/main", HASH_B);
    expect_at(dir, &c, HG_PART_HLORA, "models--own--Plug/snapshots/" HASH_A "/com.bin");
    writer_remove(dir);
}

/* A cache is made of links to blobs; a link in a circle, or to nothing, is no file, but is named
 * when there is nothing else. */
static void links_are_followed(void **state)
{
    (void)state;
    char dir[256];
    struct hg_model_card c;
    parse(card_text, &c);
    writer_temp_dir(dir);
    put(dir, "models--own--Plug/blobs/abc", "x");
    link_to(dir, "com.bin", "com.bin");
    expect_at(dir, &c, HG_PART_HLORA, "com.bin");
    link_to(dir, "models--own--Plug/snapshots/" HASH_A "/com.bin", "../../blobs/abc");
    expect_at(dir, &c, HG_PART_HLORA, "models--own--Plug/snapshots/" HASH_A "/com.bin");
    put(dir, "llm", NULL); /* no config.json in it */
    expect_at(dir, &c, HG_PART_LLM, "llm");
    put(dir, "Base/config.json", "{}");
    expect_at(dir, &c, HG_PART_LLM, "Base");
    writer_remove(dir);
}

static void nothing_found_names_role_page_and_places(void **state)
{
    (void)state;
    static const char *const parts[] = {
        "language model: llm: not found", "it comes from https://huggingface.co/own/Base",
        "llm, Base, own/Base, " REPO "/snapshots/*, hub/" REPO "/snapshots/*, Copy, other/Copy"};
    char dir[256], got[HG_PLACE_CAP];
    struct hg_model_card c;
    parse(card_text, &c);
    writer_temp_dir(dir);
    struct hg_model_place p = place_at(dir);
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        struct hg_error err = {0};
        HG_TEST_FAILS(hg_model_find(&p, &c, HG_PART_LLM, got, &err), HG_STATUS_NOT_FOUND, err,
                      parts[i]);
    }
    struct hg_error err = {0};
    HG_TEST_FAILS(hg_model_find(&p, &c, HG_PART_VQGAN, got, &err), HG_STATUS_NOT_FOUND, err,
                  "it comes from last.ckpt of a page; looked in");
    writer_remove(dir);
}

static void a_card_is_a_folder_or_a_file(void **state)
{
    (void)state;
    char dir[256], path[400];
    struct hg_model_place p;
    struct hg_error err = {0};
    writer_temp_dir(dir);
    put(dir, "healthgpt.json", card_text);
    put(dir, "cards/mine.json", card_text);
    HG_TEST_OK(hg_model_place(dir, NULL, &p, &err), err);
    assert_string_equal(p.root, dir);
    snprintf(path, sizeof path, "%s/cards/mine.json", dir);
    HG_TEST_OK(hg_model_place(path, NULL, &p, &err), err);
    assert_string_equal(p.card, path);
    snprintf(path, sizeof path, "%s/cards", dir);
    assert_string_equal(p.root, path);
    HG_TEST_FAILS(hg_model_place(path, NULL, &p, &err), HG_STATUS_NOT_FOUND, err,
                  "no healthgpt.json in this folder");
    HG_TEST_FAILS(hg_model_place(dir, "/nonexistent", &p, &err), HG_STATUS_NOT_FOUND, err,
                  "--weights /nonexistent: no such folder");
    HG_TEST_OK(hg_model_place(dir, path, &p, &err), err);
    assert_string_equal(p.root, path);
    writer_remove(dir);
}

/* ---- cards ----------------------------------------------------------------------------------- */

static void tasks_without_published_weights_come_with_their_file(void **state)
{
    (void)state;
    char dir[256], path[300];
    struct hg_model_card c;
    struct hg_error err = {0};
    snprintf(path, sizeof path, "%s", hg_test_file("config/models/healthgpt-l14.json"));
    HG_TEST_OK(hg_model_card_read(path, &c, &err), err);
    writer_temp_dir(dir);
    struct hg_model_place p = place_at(dir);
    hg_model_settle_tasks(&p, &c);
    assert_true(c.tasks[0].present && !c.tasks[1].present && !c.has_vqgan);
    HG_TEST_OK(hg_model_card_read(path, &c, &err), err);
    put(dir, "lintw/HealthGPT-L14/gen_hlora_weights_phi4.bin", "x");
    hg_model_settle_tasks(&p, &c);
    assert_true(c.tasks[1].present && c.has_vqgan && c.tasks[1].alpha == 256);
    writer_remove(dir);
}

struct lines {
    char text[2000];
    int n;
};

static void collect(void *ctx, const char *line)
{
    struct lines *l = ctx;
    snprintf(l->text + strlen(l->text), sizeof l->text - strlen(l->text), "%s\n", line);
    l->n++;
}

/* reference.md 1, 2.3 and 7. */
static const struct {
    const char *file;
    struct hg_llm_config llm;
    int com_rank, gen_rank, tokenizer, first_image, with_images;
} published[] = {
    {"m3",
     {.dim = 3072,
      .n_layers = 32,
      .n_heads = 32,
      .n_kv_heads = 32,
      .head_dim = 96,
      .ffn_dim = 8192,
      .vocab = 32064,
      .norm_eps = 1e-5F,
      .rope_theta = 1e4,
      .max_positions = 4096,
      .sliding_window = 2048,
      .fused = true,
      .stop_ids = {32000, 32001, 32007},
      .n_stop = 3,
      .repetition_penalty = 1},
     64,
     256,
     32011,
     32012,
     40206},
    {"l14",
     {.dim = 5120,
      .n_layers = 40,
      .n_heads = 40,
      .n_kv_heads = 10,
      .head_dim = 128,
      .ffn_dim = 17920,
      .vocab = 100352,
      .norm_eps = 1e-5F,
      .rope_theta = 2.5e5,
      .max_positions = 16384,
      .fused = true,
      .stop_ids = {100257, 100265},
      .n_stop = 2,
      .repetition_penalty = 1},
     32,
     128,
     100352,
     100353,
     108547},
    {"xl32",
     {.dim = 5120,
      .n_layers = 64,
      .n_heads = 40,
      .n_kv_heads = 8,
      .head_dim = 128,
      .ffn_dim = 27648,
      .vocab = 152064,
      .norm_eps = 1e-6F,
      .rope_theta = 1e6,
      .max_positions = 32768,
      .stop_ids = {151645, 151643},
      .n_stop = 2,
      .repetition_penalty = 1.05F},
     32,
     0,
     151665,
     0,
     0},
};

/* The three cards beside the table. */
static void published_cards_hold_the_constants_of_the_reference(void **state)
{
    (void)state;
    const struct hg_vision_config vision = {
        .dim = 1024, .n_layers = 24, .image_side = 336, .patch = 14};
    for (size_t i = 0; i < sizeof published / sizeof *published; i++) {
        char path[100];
        struct hg_model_card c;
        struct hg_error err = {0};
        struct lines l = {{0}, 0};
        struct hg_expect_facts f = {.llm = &published[i].llm,
                                    .vision = &vision,
                                    .tokenizer_size = published[i].tokenizer,
                                    .first_image_id = published[i].first_image,
                                    .size_with_images = published[i].with_images,
                                    .n_codes = 8192,
                                    .rank = {published[i].com_rank, published[i].gen_rank},
                                    .experts = {4, 4}};
        snprintf(path, sizeof path, "config/models/healthgpt-%s.json", published[i].file);
        HG_TEST_OK(hg_model_card_read(hg_test_file(path), &c, &err), err);
        assert_true(c.n_expect >= 18);
        if (hg_expect_compare(&c, &f, collect, &l) != 0)
            fail_msg("%s: %s", path, l.text);
        struct hg_llm_config other = published[i].llm;
        other.dim = 64;
        other.sliding_window = 9;
        other.repetition_penalty = 1.5F;
        other.stop_ids[0] = other.stop_ids[1] = other.stop_ids[2] = 5;
        f.llm = &other;
        f.rank[0] = 77;
        f.tokenizer_size = 5;
        assert_int_equal(hg_expect_compare(&c, &f, collect, &l), 6);
        assert_int_equal(l.n, 6);
        assert_non_null(strstr(l.text, "config.json: hidden_size: expected "));
        assert_non_null(strstr(l.text, "(card healthgpt-"));
        assert_non_null(strstr(l.text, ", got 64\n"));
        assert_non_null(strstr(l.text, "generation_config.json: eos_token_id: expected "));
        assert_non_null(strstr(l.text, "comprehension: rank: expected "));
    }
}

static void wrong_sources_and_expectations_are_refused(void **state)
{
    (void)state;
    static const char *const bad[][3] = {
        {"sources", "{\"lm\":{}}", "lm"},
        {"sources", "{\"llm\":{\"repository\":\"no-slash\"}}",
         "repository: expected \"owner/name\""},
        {"sources", "{\"llm\":{\"repository\":\"../x\"}}", "repository: expected"},
        {"sources", "{\"llm\":{\"repository\":\"a/..\"}}", "repository: expected"},
        {"sources", "{\"llm\":{\"repository\":\"a/b/c\"}}", "repository: expected"},
        {"sources", "{\"llm\":{\"alternatives\":[\"a/b\",\"/etc\"]}}", "alternatives: expected"},
        {"sources", "{\"llm\":{\"alternatives\":\"a/b\"}}", "alternatives: expected a list"},
        {"sources", "{\"llm\":{\"alternatives\":[1]}}", "alternatives[0]"},
        {"sources", "{\"llm\":{\"names\":[\"../x\"]}}", "names: expected paths below"},
        {"sources", "{\"llm\":{\"names\":[\"a\",\"b\",\"c\",\"d\",\"e\"]}}", "at most 4"},
        {"sources", "{\"llm\":{\"web\":\"x\"}}", "web"},
        {"expect", "{\"config.json\":{\"hiden_size\":1}}", "hiden_size: not a constant"},
        {"expect", "{\"config.jsn\":{\"hidden_size\":1}}", "not a constant"},
        {"expect", "{\"config.json\":{\"hidden_size\":\"1\"}}", "hidden_size: expected a number"},
        {"expect", "{\"config.json\":{\"hidden_size\":[1,2]}}", "hidden_size: expected a number"},
        {"expect", "{\"generation_config.json\":{\"eos_token_id\":[1,2,3,4,5]}}", "up to four"},
        {"expect", "{\"config.json\":7}", "config.json"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct hg_error err = {0};
        struct hg_model_card c;
        json_t *doc = json_loads(card_text, 0, NULL);
        json_object_set_new(doc, bad[i][0], json_loads(bad[i][1], 0, NULL));
        if (hg_model_card_parse(doc, &c, &err) == HG_STATUS_OK || !strstr(err.text, bad[i][2]))
            fail_msg("%s: \"%s\"", bad[i][1], err.text);
        json_decref(doc);
    }
}

/* ---- what is no weight ----------------------------------------------------------------------- */

static void odd_files_are_known_by_their_head(void **state)
{
    (void)state;
    static const char lfs[] =
        "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 77\n";
    int64_t n = -1;
    assert_int_equal(hg_odd_file_of(lfs, strlen(lfs), &n), HG_ODD_LFS_POINTER);
    assert_int_equal(n, 77);
    assert_int_equal(hg_odd_file_of(lfs, 22, &n), HG_ODD_NONE);
    assert_int_equal(hg_odd_file_of("\n <!DOCTYPE html>", 17, NULL), HG_ODD_WEB_PAGE);
    assert_int_equal(hg_odd_file_of("<html", 5, NULL), HG_ODD_WEB_PAGE);
    assert_int_equal(hg_odd_file_of("<htm", 4, NULL), HG_ODD_NONE);
    assert_int_equal(hg_odd_file_of("", 0, NULL), HG_ODD_NONE);
}

/* One element of each place and type, also through a view, and only if it is sampled. */
static void a_number_that_is_not_finite_is_found(void **state)
{
    (void)state;
    enum { N = 40000 };
    static const struct {
        enum hg_tensor_type type;
        size_t size;
        uint64_t bad[3], good[2];
    } rows[] = {
        {HG_TENSOR_TYPE_F16, 2, {0x7c00, 0xfc00, 0x7e01}, {0x7bff, 0xfbff}},
        {HG_TENSOR_TYPE_BF16, 2, {0x7f80, 0xff80, 0x7fc1}, {0x7f7f, 0xff7f}},
        {HG_TENSOR_TYPE_F32, 4, {0x7f800000, 0xff800000, 0x7f800001}, {0x7f7fffff, 0xff7fffff}},
        {HG_TENSOR_TYPE_F64,
         8,
         {0x7ff0000000000000, 0xfff0000000000000, 0x7ff0000000000001},
         {0x7fefffffffffffff, 0xffefffffffffffff}},
    };
    unsigned char *data = calloc(1, N * 8 + 1);
    assert_non_null(data);
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
        unsigned char *base = data + 1; /* unaligned, as in a file */
        struct hg_tensor t = {.name = "x",
                              .type = rows[r].type,
                              .n_dims = 2,
                              .dims = {200, N / 200},
                              .strides = {N / 200, 1},
                              .data = base};
        memset(base, 0, N * rows[r].size);
        for (int k = 0; k < 2; k++)
            memcpy(base + (size_t)(k * 77 + 5) * rows[r].size, &rows[r].good[k], rows[r].size);
        assert_int_equal(hg_tensor_not_finite(&t, 0), -1);
        for (int k = 0; k < 3; k++) {
            static const int64_t places[] = {0, 2047, 2048, N - 1};
            for (size_t i = 0; i < 4; i++) {
                unsigned char *at = base + (size_t)places[i] * rows[r].size, before[8];
                memcpy(before, at, rows[r].size);
                memcpy(at, &rows[r].bad[k], rows[r].size);
                assert_int_equal(hg_tensor_not_finite(&t, 0), places[i]);
                memcpy(at, before, rows[r].size);
            }
        }
        memcpy(base + rows[r].size, &rows[r].bad[0], rows[r].size); /* element 1 */
        assert_int_equal(hg_tensor_not_finite(&t, 4), 1);           /* the first page is a sample */
        struct hg_tensor view = t; /* transposed: [0][1] is the second row's first */
        view.dims[0] = view.strides[0] = 1;
        view.dims[0] = N / 200;
        view.dims[1] = 200;
        view.strides[1] = N / 200;
        assert_int_equal(hg_tensor_not_finite(&view, 0), 200);
        memset(base + rows[r].size, 0, rows[r].size);
        memcpy(base + 6000 * rows[r].size, &rows[r].bad[0], rows[r].size);
        assert_int_equal(hg_tensor_not_finite(&t, 2), -1); /* first and last page */
        assert_int_equal(hg_tensor_not_finite(&t, 1000000), 6000);
    }
    struct hg_tensor none = {
        .type = HG_TENSOR_TYPE_I64, .n_dims = 1, .dims = {N}, .strides = {1}, .data = data};
    memset(data, 0xff, N);
    assert_int_equal(hg_tensor_not_finite(&none, 0), -1);
    free(data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(folders_are_found_in_the_order_of_the_contract),
        cmocka_unit_test(files_are_found_in_the_order_of_the_contract),
        cmocka_unit_test(snapshots_are_chosen),
        cmocka_unit_test(a_file_that_the_newest_download_lacks_is_taken_from_an_older_one),
        cmocka_unit_test(links_are_followed),
        cmocka_unit_test(nothing_found_names_role_page_and_places),
        cmocka_unit_test(a_card_is_a_folder_or_a_file),
        cmocka_unit_test(tasks_without_published_weights_come_with_their_file),
        cmocka_unit_test(published_cards_hold_the_constants_of_the_reference),
        cmocka_unit_test(wrong_sources_and_expectations_are_refused),
        cmocka_unit_test(odd_files_are_known_by_their_head),
        cmocka_unit_test(a_number_that_is_not_finite_is_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
