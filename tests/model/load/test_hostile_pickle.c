/* tests/model/load/test_hostile_pickle.c - pickles that want to run code, and pickles that want our
 * memory or time. The reader has no way to run anything (no exec, dlopen, import); what is tested
 * is that each file is refused with a reason, in bounded time. */
#include "tests/test.h"

#include <dirent.h>
#include <time.h>

#include "model/load/pickle.h"
#include "model/load/tensor_file.h"
#include "tests/model/load/build_file.h"

static const struct hg_build_tensor weight = {.name = "w",
                                              .type = "FloatStorage",
                                              .key = "0",
                                              .numel = 1,
                                              .n_dims = 1,
                                              .dims = {1},
                                              .strides = {1}};

static double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return 1e3 * (double)t.tv_sec + 1e-6 * (double)t.tv_nsec;
}

/* The collection names its harmless files benign*; two state dicts of Hugging Face are harmless
 * too. */
static int is_hostile(const char *name)
{
    return strncmp(name, "benign", 6) != 0 && strcmp(name, "pytorch_model.bin") != 0 &&
           strcmp(name, "new_pytorch_model.bin") != 0;
}

static void every_hostile_file_is_refused(void **state)
{
    (void)state;
    char dir[4096], path[4600];
    const char *shared = hg_test_shared("data/weights_formats/hostile_pickles/data");
    if (!shared)
        HG_TEST_SKIP("shared data absent");
    snprintf(dir, sizeof dir, "%s", shared);
    DIR *d = opendir(dir);
    assert_non_null(d);
    int n_hostile = 0, n_named = 0, n_harmless = 0, n_harmless_read = 0;
    double worst = 0;
    for (struct dirent *e; (e = readdir(d));) {
        if (e->d_name[0] == '.')
            continue;
        struct hg_error err = {0};
        struct hg_tensor_file *f;
        snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
        double before = now_ms();
        enum hg_status s = hg_tensor_file_open(path, &f, &err);
        double took = now_ms() - before;
        worst = took > worst ? took : worst;
        hg_tensor_file_close(f);
        if (!is_hostile(e->d_name)) {
            n_harmless++;
            n_harmless_read += s == HG_STATUS_OK;
            continue;
        }
        n_hostile++;
        n_named += strstr(err.text, "refused: ") != NULL;
        if (s == HG_STATUS_OK)
            fail_msg("%s was accepted", e->d_name);
        assert_true(err.text[0]);
    }
    closedir(d);
    printf("%d hostile or broken files refused, %d of them by the name of the global; %d harmless "
           "files, "
           "%d of them hold tensors and were read; slowest %.1f ms\n",
           n_hostile, n_named, n_harmless, n_harmless_read, worst);
    assert_true(n_hostile >= 38);
    assert_int_equal(n_harmless_read, 1);
}

/* {"w": tensor} around or beside `text`, as a torch zip. */
static enum hg_status parse_with(const char *before, const char *after, struct hg_error *err)
{
    struct hg_buf p = {0}, file = {0};
    hg_build_begin(&p);
    hg_buf_append_str(&p, before);
    hg_build_tensor(&p, &weight);
    hg_buf_append_str(&p, after);
    hg_buf_append_str(&p, ".");
    hg_build_torch(&file, &p, "\0\0\200\77", 4);
    enum hg_status s = hg_build_parse(&file, err);
    hg_buf_deinit(&p);
    hg_buf_deinit(&file);
    return s;
}

static void code_running_globals_refuse_the_file_wherever_they_stand(void **state)
{
    (void)state;
    static const char *const globals[][2] = {
        {"os\nsystem", "os.system"},
        {"posix\nsystem", "posix.system"},
        {"os.path\njoin", "os.path.join"},
        {"builtins\neval", "builtins.eval"},
        {"__builtin__\nexec", "__builtin__.exec"},
        {"subprocess\nPopen", "subprocess.Popen"},
        {"pickle\nloads", "pickle.loads"},
        {"torch\nload", "torch.load"},
        {"importlib\nimport_module", "importlib.import_module"}};
    for (size_t i = 0; i < sizeof globals / sizeof globals[0]; i++) {
        struct hg_error err = {0};
        char text[120], want[80];
        snprintf(want, sizeof want, "refused: %s can run code", globals[i][1]);
        snprintf(text, sizeof text, "c%s\n0", globals[i][0]); /* named, never called, dropped */
        HG_TEST_FAILS(parse_with(text, "", &err), HG_STATUS_BAD_FILE, err, want);
        snprintf(text, sizeof text, "Vx\n(c%s\nVid\nttR0", globals[i][0]);
        assert_int_not_equal(parse_with("", text, &err), HG_STATUS_OK);
        snprintf(text, sizeof text, "Vx\nc%s\n(Vid\ntRs", globals[i][0]); /* the value of a key */
        HG_TEST_FAILS(parse_with("", text, &err), HG_STATUS_BAD_FILE, err, want);
    }
    struct hg_error err = {0};
    HG_TEST_FAILS(parse_with("\x8c\x02os\x8c\x06system\x93"
                             "0",
                             "", &err),
                  HG_STATUS_BAD_FILE, err, "os.system");
}

static void opaque_objects_load_outside_tensor_dictionaries_only(void **state)
{
    (void)state;
    struct hg_error err = {0};
    /* Beside a tensor. */
    HG_TEST_FAILS(parse_with("", "Vx\ncmy.module\nThing\n)Rs", &err), HG_STATUS_BAD_FILE, err,
                  "x: expected a tensor, got the opaque my.module.Thing");
    /* In a nested dictionary without tensors, as a key, in a list, or with state and items. */
    HG_TEST_OK(parse_with("", "Vx\n}Va\ncmy.module\nThing\n)Rss", &err), err);
    HG_TEST_OK(parse_with("cmy.module\nThing\nVvalue\ns", "", &err), err);
    HG_TEST_OK(parse_with("", "Vx\n](cmy.module\nThing\n)R}bes", &err), err);
    HG_TEST_OK(parse_with("", "Vx\n](cargparse\nNamespace\n)\x81}Va\nK\x01sbes", &err), err);
    HG_TEST_OK(parse_with("", "Vx\n](cfunctools\npartial\n)R(Vk\nVv\nues", &err), err);
    /* Scalars beside tensors are no weights and no objects. */
    HG_TEST_OK(parse_with("", "Vx\nK\x01sVy\nNsVz\nVtext\ns", &err), err);
    /* The root. */
    struct hg_buf p = {0}, file = {0};
    static const char *const roots[] = {"cmy\nThing\n)R.", "cmy\nThing\n.", "K\x01.", "]."};
    for (int i = 0; i < 4; i++) {
        hg_buf_clear(&p);
        hg_buf_append_str(&p, roots[i]);
        hg_build_torch(&file, &p, "", 0);
        HG_TEST_FAILS(hg_build_parse(&file, &err), HG_STATUS_BAD_FILE, err,
                      "expected a dictionary of tensors");
    }
    hg_buf_clear(&p);
    hg_buf_append_str(&p, "}.");
    hg_build_torch(&file, &p, "", 0);
    HG_TEST_FAILS(hg_build_parse(&file, &err), HG_STATUS_BAD_FILE, err, "holds no tensors");
    hg_buf_deinit(&p);
    hg_buf_deinit(&file);
}

struct pickle_case {
    const char *text;
    size_t n;
    const char *part;
};

#define CASE(text, part)                                                                           \
    {                                                                                              \
        text, sizeof(text) - 1, part                                                               \
    }
static const struct pickle_case bad_pickles[] = {
    CASE("", "without STOP"),
    CASE(".", "empty"),
    CASE("NN.", "left on the stack"),
    CASE("(N.", "left on the stack"),
    CASE("N(.", "empty"),
    CASE("0", "empty"),
    CASE("1", "no mark"),
    CASE("t", "no mark"),
    CASE("(NN0000", "empty"),
    CASE("\x85", "empty"),
    CASE("N(\x85", "empty"),
    CASE("h\x05.", "never stored"),
    CASE("q\x05.", "empty"),
    CASE("Nr\xff\xff\xff\xff.", "memo entry"),
    CASE("Nr\x00\x00\x10\x00.", "memo entry"),
    CASE("Np-1\n.", "memo number"),
    CASE("Np99999999999\n.", "memo number"),
    CASE("gx\n.", "memo number"),
    CASE("X\xff\xff\xff\xff", "wanted"),
    CASE("\x8d\xff\xff\xff\xff\xff\xff\xff\xff", "wanted"),
    CASE("\x8b\xff\xff\xff\xff", "wanted"),
    CASE("T\xff\xff\xff\xffz", "wanted"),
    CASE("\x95\xff\xff\xff\xff\xff\xff\xff\x7f", "frame"),
    CASE("\x80\x06.", "protocol"),
    CASE("\x82\x01.", "opcode 0x82"),
    CASE("\x97.", "opcode 0x97"),
    CASE("Pabc\n.", "opcode 0x50"),
    CASE("NN\x93.", "not a string"),
    CASE("Va\nVb\nR.", "not a global"),
    CASE("ca\nb\nNR.", "not a tuple"),
    CASE("ca\nb", "line without end"),
    CASE("N)R.", "not a global"),
    CASE("NNb.", "state"),
    CASE("ca\nb\n}b.", "state"),
    CASE("NNa.", "not a list"),
    CASE("NNNs.", "not a dictionary"),
    CASE("}(Nu.", "key but no value"),
    CASE("(Nd.", "key but no value"),
    CASE("NQ.", "persistent id"),
    CASE("(Vstorage\nNNNNtQ.", "expected a type"),
    CASE("ctorch._utils\n_rebuild_tensor_v2\n)R.", "arguments"),
    CASE("ctorch._utils\n_rebuild_tensor_v2\n(NNNNtR.", "without a storage"),
    CASE("ctorch._utils\n_rebuild_parameter\n)R.", "without a tensor"),
    CASE("ccollections\nOrderedDict\nN\x85R.", "OrderedDict"),
    CASE("ccollections\nOrderedDict\n]N\x61\x85R.", "OrderedDict"),
    CASE("Ix\n.", "integer"),
    CASE("L\n.", "integer"),
    CASE("(o.", "without a class"),
};

static void malformed_pickles_are_refused_with_their_reason(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof bad_pickles / sizeof bad_pickles[0]; i++) {
        struct hg_error err = {0};
        struct hg_pickle p;
        const struct pickle_case *c = &bad_pickles[i];
        unsigned char *copy = malloc(c->n + 1);
        memcpy(copy, c->text, c->n);
        if (hg_pickle_parse("p", copy, c->n, &p, &err) == HG_STATUS_OK)
            fail_msg("accepted: case %zu (%s)", i, c->part);
        if (!strstr(err.text, c->part))
            fail_msg("case %zu: \"%s\" does not name \"%s\"", i, err.text, c->part);
        free(copy);
    }
}

/* Time and result of a pickle repeated from a piece: prefix + n * piece + suffix. */
static void expect_refused_fast(const char *what, const char *prefix, const char *piece, size_t n,
                                const char *suffix)
{
    struct hg_buf p = {0}, file = {0};
    struct hg_error err = {0};
    hg_buf_append_str(&p, prefix);
    for (size_t i = 0; i < n; i++)
        hg_buf_append_str(&p, piece);
    hg_buf_append_str(&p, suffix);
    hg_build_torch(&file, &p, "", 0);
    double before = now_ms();
    enum hg_status s = hg_build_parse(&file, &err);
    printf("%s (%zu kB): %s in %.1f ms\n", what, p.len / 1024, hg_status_text(s),
           now_ms() - before);
    assert_int_not_equal(s, HG_STATUS_OK);
    assert_true(err.text[0]);
    hg_buf_deinit(&p);
    hg_buf_deinit(&file);
}

static void bombs_are_refused_in_bounded_time(void **state)
{
    (void)state;
    expect_refused_fast("endless opcodes", "}", "N0", 2000000, ".");
    expect_refused_fast("many globals", "}", "ca\nb\n0", 499000, ".");
    expect_refused_fast("deep stack", "", "N", 100000, ".");
    expect_refused_fast("many marks", "", "(", 100000, ".");
    expect_refused_fast("deep lists", "}Va\n", "]", 9000, ".");
    expect_refused_fast("nested dictionaries", "}p0\n", "Va\n}s0g0\n", 100000, ".");
    expect_refused_fast("a dictionary in itself", "}p0\nVa\ng0\ns", "", 0, ".");
    expect_refused_fast("long name", "}(X\xff\xff\x7f\x7f", "x", 100, ".");
    expect_refused_fast("memo far away", "}Nj\x7f\x7f\x7f\x7f", "", 0, ".");
}

/* Thirty levels, each holding the level below twice: 2^30 paths out of 300 bytes. */
static void a_billion_laughs_are_refused(void **state)
{
    (void)state;
    struct hg_buf p = {0}, file = {0};
    struct hg_error err = {0};
    hg_buf_append_str(&p, "]p0\n0");
    for (int i = 1; i < 30; i++)
        hg_buf_printf(&p, "](g%d\ng%d\nep%d\n0", i - 1, i - 1, i);
    hg_buf_append_str(&p, "}Va\ng29\ns.");
    hg_build_torch(&file, &p, "", 0);
    double before = now_ms();
    HG_TEST_FAILS(hg_build_parse(&file, &err), HG_STATUS_BAD_FILE, err, "endlessly");
    printf("billion laughs (%zu bytes) refused in %.1f ms\n", p.len, now_ms() - before);
    /* A long list of nothing, held by a long list. */
    hg_buf_clear(&p);
    hg_buf_append_str(&p, "](");
    for (int i = 0; i < 9000; i++)
        hg_buf_append_str(&p, "N");
    hg_buf_append_str(&p, "ep0\n0}Va\n]");
    for (int i = 0; i < 100000; i++)
        hg_buf_append_str(&p, "g0\na");
    hg_buf_append_str(&p, "s.");
    hg_build_torch(&file, &p, "", 0);
    before = now_ms();
    HG_TEST_FAILS(hg_build_parse(&file, &err), HG_STATUS_BAD_FILE, err, "endlessly");
    printf("9000 items 100000 times refused in %.1f ms\n", now_ms() - before);
    hg_buf_deinit(&p);
    hg_buf_deinit(&file);
}

/* A list of 4500 pairs, made into a dictionary again and again: 5 bytes that copy 9000 items. */
static void dictionaries_copied_from_one_list_are_refused(void **state)
{
    (void)state;
    struct hg_buf p = {0}, file = {0};
    struct hg_error err = {0};
    hg_buf_append_str(&p, "ccollections\nOrderedDict\np0\n0](");
    for (int i = 0; i < 4500; i++)
        hg_buf_append_str(&p, "NN\x86");
    hg_buf_append_str(&p, "ep1\n0}Va\n");
    for (int i = 0; i < 150000; i++)
        hg_buf_append(&p, "h\x00h\x01\x85R0", 7);
    hg_build_torch(&file, &p, "", 0);
    double before = now_ms();
    HG_TEST_FAILS(hg_build_parse(&file, &err), HG_STATUS_BAD_FILE, err, "items");
    printf("copied dictionaries (%zu kB) refused in %.1f ms\n", p.len / 1024, now_ms() - before);
    hg_buf_deinit(&p);
    hg_buf_deinit(&file);
}

static void names_beyond_256_bytes_are_refused(void **state)
{
    (void)state;
    struct hg_error err = {0};
    char name[300], text[400];
    for (int n = 254; n < 260; n++) {
        memset(name, 'a', sizeof name);
        name[n] = '\0';
        struct hg_build_tensor t = weight;
        struct hg_buf p = {0}, file = {0};
        t.name = name;
        hg_build_begin(&p);
        hg_build_tensor(&p, &t);
        hg_buf_append_str(&p, ".");
        hg_build_torch(&file, &p, "\0\0\200\77", 4);
        assert_int_equal(hg_build_parse(&file, &err) == HG_STATUS_OK, n <= 256);
        hg_buf_deinit(&p);
        hg_buf_deinit(&file);
    }
    /* Nested: 250 bytes, a dot, then 6 or 7. */
    for (int n = 5; n <= 8; n++) {
        struct hg_build_tensor t = weight;
        struct hg_buf p = {0}, file = {0};
        memset(name, 'b', sizeof name);
        name[n] = '\0';
        t.name = name;
        memset(text, 'a', sizeof text);
        text[250] = '\0';
        hg_build_begin(&p);
        hg_build_text(&p, text);
        hg_buf_append_str(&p, "}");
        hg_build_tensor(&p, &t);
        hg_buf_append_str(&p, "s.");
        hg_build_torch(&file, &p, "\0\0\200\77", 4);
        assert_int_equal(hg_build_parse(&file, &err) == HG_STATUS_OK, 251 + n <= 256);
        hg_buf_deinit(&p);
        hg_buf_deinit(&file);
    }
}

/* _rebuild_tensor_v3 on an untyped storage, _rebuild_from_type_v2, INST, OrderedDict of pairs. */
static void rare_spellings_of_tensors_are_read(void **state)
{
    (void)state;
    static const char before[] = "Vv\nctorch._utils\n_rebuild_tensor_v3\n(";
    static const char after[] = "K\x00K\x02\x85K\x01\x85\x89)ctorch\nfloat16\ntRs";
    struct hg_buf p = {0}, file = {0};
    struct hg_error err = {0};
    struct hg_tensor_file *f;
    hg_build_begin(&p);
    hg_buf_append(&p, before, sizeof before - 1);
    hg_build_storage(&p, "UntypedStorage", "0", 4);
    hg_buf_append(&p, after, sizeof after - 1);
    hg_buf_append_str(&p, "Vpairs\nccollections\nOrderedDict\n](](Va\nK\x07"
                          "e]e\x85R0ccollections\nOrderedDict\n](](Va\nK\x07"
                          "ee\x85Rs.");
    hg_build_torch(&file, &p, "\0\74\0\100", 4);
    enum hg_status s = hg_tensor_file_parse("x", file.data, file.len, &f, &err);
    /* The first list of pairs holds an empty one: refused. */
    HG_TEST_FAILS(s, HG_STATUS_BAD_FILE, err, "list of pairs");
    hg_build_begin(&p);
    hg_buf_append(&p, before, sizeof before - 1);
    hg_build_storage(&p, "UntypedStorage", "0", 4);
    hg_buf_append(&p, after, sizeof after - 1);
    hg_buf_append_str(&p, "Vpairs\nccollections\nOrderedDict\n](](Va\nK\x07"
                          "ee\x85Rs.");
    hg_build_torch(&file, &p, "\0\74\0\100", 4);
    HG_TEST_OK(hg_tensor_file_parse("x", file.data, file.len, &f, &err), err);
    const struct hg_tensor *t = hg_tensor_file_find(f, "v");
    assert_int_equal(t->type, HG_TENSOR_TYPE_F16);
    assert_int_equal(t->dims[0], 2);
    hg_tensor_file_close(f);
    hg_buf_deinit(&p);
    hg_buf_deinit(&file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_hostile_file_is_refused),
        cmocka_unit_test(code_running_globals_refuse_the_file_wherever_they_stand),
        cmocka_unit_test(opaque_objects_load_outside_tensor_dictionaries_only),
        cmocka_unit_test(malformed_pickles_are_refused_with_their_reason),
        cmocka_unit_test(bombs_are_refused_in_bounded_time),
        cmocka_unit_test(a_billion_laughs_are_refused),
        cmocka_unit_test(dictionaries_copied_from_one_list_are_refused),
        cmocka_unit_test(names_beyond_256_bytes_are_refused),
        cmocka_unit_test(rare_spellings_of_tensors_are_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
