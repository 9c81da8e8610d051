/* tests/model/load/test_quant_cache.c - the cache of quantised weights: what it holds, when it is
 * used, and everything that can be wrong with it. */
#include "tests/test.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/file.h"
#include "common/half.h"
#include "common/log.h"
#include "kernels/quantise.h"
#include "model/load/quant_cache.h"
#include "tests/model/load/build_file.h"

enum { ROWS = 5, COLS = 200, N_TENSORS = 2 };

static const char *const names[N_TENSORS] = {"model.layers.0.mlp.down_proj.weight",
                                             "model.layers.0.self_attn.o\\\"x.weight"};
static char dir[64];
static float values[N_TENSORS][ROWS * COLS];

static const char *in_dir(const char *name)
{
    static char path[2][256];
    static int i;
    i = !i;
    snprintf(path[i], sizeof path[i], "%s/%s", dir, name);
    return path[i];
}

/* Two F32 matrices in <dir>/model.safetensors. */
static void write_source(float first)
{
    struct hg_buf header = {0}, out = {0};
    struct hg_error err = {0};
    size_t bytes = sizeof values[0];
    for (int t = 0; t < N_TENSORS; t++) {
        for (int i = 0; i < ROWS * COLS; i++)
            values[t][i] = (float)((i * 37 + t * 11) % 101) / 50 - 1;
        hg_buf_printf(
            &header, "%s\"%s\":{\"dtype\":\"F32\",\"shape\":[%d,%d],\"data_offsets\":[%zu,%zu]}",
            t ? "," : "{", names[t], ROWS, COLS, (size_t)t * bytes, (size_t)(t + 1) * bytes);
    }
    values[0][0] = first;
    hg_buf_append_str(&header, "}");
    hg_build_safetensors(&out, header.data, values, sizeof values);
    HG_TEST_OK(hg_file_write(in_dir("model.safetensors"), out.data, out.len, &err), err);
    hg_buf_deinit(&header);
    hg_buf_deinit(&out);
}

static int set_up(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/hg_quant_XXXXXX");
    if (!mkdtemp(dir))
        return -1;
    hg_log_set(HG_LOG_OFF, 0);
    write_source(0.5f);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    char command[256];
    hg_log_set(HG_LOG_INFO, 0);
    snprintf(command, sizeof command, "chmod -R u+w %s; rm -rf %s", dir, dir);
    return system(command);
}

/* The only file of <dir>/q whose name ends so, or NULL. */
static const char *cache_file(const char *suffix)
{
    static char path[256];
    char command[160];
    snprintf(command, sizeof command, "ls %s/q 2>/dev/null | grep -e '%s$'", dir, suffix);
    FILE *f = popen(command, "r");
    assert_non_null(f);
    char line[128] = "";
    bool found = fgets(line, sizeof line, f) != NULL;
    char second[128];
    assert_true(!found || !fgets(second, sizeof second, f));
    pclose(f);
    line[strcspn(line, "\n")] = '\0';
    snprintf(path, sizeof path, "%s/q/%s", dir, line);
    return found ? path : NULL;
}

struct outcome {
    int n_read, n_written;
};

static void expect_quantised(int t, enum hg_dtype type, const struct hg_host_tensor *got)
{
    uint8_t q[COLS], scale[8];
    size_t code = hg_code_bytes(type, COLS), s = hg_scale_bytes(type, COLS);
    assert_int_equal(got->type, type);
    for (int r = 0; r < ROWS; r++) {
        hg_quantise_row(type, values[t] + r * COLS, COLS, q, scale);
        assert_memory_equal((const uint8_t *)got->data + (size_t)r * code, q, code);
        assert_memory_equal((const uint8_t *)got->scale + (size_t)r * s, scale, s);
    }
}

/* A load: both tensors, as model/host_tensor.c does it. Whatever the cache does, the right values
 * come out. `lock`: model.lock is there, with these sums (NULL: none). */
static struct outcome load(enum hg_dtype type, const uint32_t *lock)
{
    struct outcome o = {0};
    struct hg_error err = {0};
    struct hg_weights *w;
    struct hg_quant_cache *c;
    HG_TEST_OK(hg_weights_create(&w, &err), err);
    HG_TEST_OK(hg_weights_add_file(w, in_dir("model.safetensors"), &err), err);
    for (int t = 0; lock && t < N_TENSORS; t++)
        assert_true(hg_weights_lock(
            w, 0, hg_tensor_file_at(hg_weights_file_at(w, 0).tensors, (size_t)t)->name, lock[t]));
    HG_TEST_OK(hg_quant_cache_open(in_dir("q"), type, w, 2, &c, &err), err);
    assert_non_null(c);
    for (int t = 0; t < N_TENSORS; t++) {
        const struct hg_tensor *x = hg_weights_find(
            w, hg_tensor_file_at(hg_weights_file_at(w, 0).tensors, (size_t)t)->name);
        struct hg_host_tensor got, plain = {.data = values[t], .type = HG_DTYPE_F32};
        uint8_t codes[ROWS * COLS];
        float scale[ROWS * 2];
        uint32_t sum;
        if (hg_quant_cache_get(c, x, &got)) {
            o.n_read++;
            expect_quantised(t, type, &got);
        } else if (hg_quant_cache_writes(c)) {
            assert_true(hg_quant_cache_add(c, x, &plain, codes, scale));
            got = (struct hg_host_tensor){.data = codes, .type = type, .scale = scale};
            expect_quantised(t, type, &got);
            o.n_written++;
        }
        hg_quant_cache_done(c);
        hg_weights_done(w, x);
        assert_true(hg_weights_sum(w, x->name, &sum));
        assert_int_equal(sum, hg_tensor_crc32c(x));
    }
    hg_quant_cache_close(c, true);
    hg_weights_free(w);
    return o;
}

static void expect(struct outcome o, int n_read, int n_written)
{
    assert_int_equal(o.n_read, n_read);
    assert_int_equal(o.n_written, n_written);
}

static const enum hg_dtype types[] = {HG_DTYPE_I8, HG_DTYPE_F8, HG_DTYPE_I4};

static void what_is_written_is_read_at_the_next_load(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        expect(load(types[i], NULL), 0, N_TENSORS);
        expect(load(types[i], NULL), N_TENSORS, 0);
    }
    assert_non_null(cache_file("-i4.safetensors")); /* one file per type, and no .part is left */
    assert_non_null(cache_file("-i8.safetensors"));
    assert_null(cache_file(".part"));
}

static void no_folder_and_other_types_mean_no_cache(void **state)
{
    (void)state;
    struct hg_error err = {0};
    struct hg_weights *w;
    struct hg_quant_cache *c;
    struct hg_host_tensor got;
    HG_TEST_OK(hg_weights_create(&w, &err), err);
    HG_TEST_OK(hg_quant_cache_open("", HG_DTYPE_I8, w, 1, &c, &err), err);
    assert_null(c);
    HG_TEST_OK(hg_quant_cache_open(dir, HG_DTYPE_BF16, w, 1, &c, &err), err);
    assert_null(c);
    assert_false(hg_quant_cache_get(c, NULL, &got));
    assert_false(hg_quant_cache_writes(c));
    hg_quant_cache_done(c);
    hg_quant_cache_close(c, true);
    hg_weights_free(w);
}

/* One byte in five of the header's text changed in turn, and many of the data: never a wrong value,
 * never a crash, and the load after the next reads again. */
static void a_changed_byte_anywhere_does_no_harm(void **state)
{
    (void)state;
    expect(load(HG_DTYPE_I8, NULL), 0, N_TENSORS);
    char path[256];
    snprintf(path, sizeof path, "%s", cache_file(".safetensors"));
    size_t n = 0;
    unsigned char *whole = hg_test_read(path, &n);
    size_t text = 8; /* the header is padded with spaces up to 4096 */
    while (whole[text] != ' ')
        text++;
    int damaged = 0;
    for (size_t i = 0; i < n; i += i < text ? 5 : i < 4096 ? 512 : 97) {
        unsigned char changed = whole[i] ^ 0x11;
        FILE *f = fopen(path, "wb"); /* without waiting for the disk */
        assert_non_null(f);
        assert_int_equal(fwrite(whole, 1, n, f), n);
        assert_int_equal(fseek(f, (long)i, SEEK_SET), 0);
        assert_int_equal(fwrite(&changed, 1, 1, f), 1);
        assert_int_equal(fclose(f), 0);
        struct outcome o = load(HG_DTYPE_I8, NULL); /* checks every value */
        damaged += o.n_read < N_TENSORS;
        if (o.n_read < N_TENSORS && o.n_written == 0) /* it was removed: the next writes */
            expect(load(HG_DTYPE_I8, NULL), 0, N_TENSORS);
    }
    printf("%d of the changed files were not used\n", damaged);
    assert_true(damaged > 80);
    free(whole);
}

static void a_cut_file_is_written_anew(void **state)
{
    (void)state;
    expect(load(HG_DTYPE_I4, NULL), 0, N_TENSORS);
    char path[256];
    struct stat st;
    snprintf(path, sizeof path, "%s", cache_file(".safetensors"));
    assert_int_equal(stat(path, &st), 0);
    for (off_t at = 0; at < st.st_size; at += 1511) {
        assert_int_equal(truncate(path, at), 0);
        expect(load(HG_DTYPE_I4, NULL), 0, N_TENSORS);
    }
    expect(load(HG_DTYPE_I4, NULL), N_TENSORS, 0);
}

static void sources_that_changed_make_it_stale(void **state)
{
    (void)state;
    struct timespec times[2] = {{.tv_sec = 1000}, {.tv_sec = 1000}};
    expect(load(HG_DTYPE_I8, NULL), 0, N_TENSORS);
    write_source(0.25f); /* same size and shapes */
    assert_int_equal(utimensat(AT_FDCWD, in_dir("model.safetensors"), times, 0), 0);
    expect(load(HG_DTYPE_I8, NULL), 0, N_TENSORS);
    expect(load(HG_DTYPE_I8, NULL), N_TENSORS, 0);
}

/* Copied files have other times; a lock that knows the sums makes up for that. */
static void a_lock_vouches_for_files_with_other_times(void **state)
{
    (void)state;
    struct timespec times[2] = {{.tv_sec = 2000}, {.tv_sec = 2000}};
    uint32_t sums[N_TENSORS];
    for (int t = 0; t < N_TENSORS; t++) {
        struct hg_tensor x = {.type = HG_TENSOR_TYPE_F32,
                              .n_dims = 1,
                              .dims = {ROWS * COLS},
                              .strides = {1},
                              .data = (const unsigned char *)values[t]};
        sums[t] = hg_tensor_crc32c(&x);
    }
    expect(load(HG_DTYPE_I8, NULL), 0, N_TENSORS);
    assert_int_equal(utimensat(AT_FDCWD, in_dir("model.safetensors"), times, 0), 0);
    expect(load(HG_DTYPE_I8, sums), N_TENSORS, 0);
    sums[1] ^= 1; /* the lock is of other files */
    expect(load(HG_DTYPE_I8, sums), 0, N_TENSORS);
}

static void a_folder_that_cannot_be_written_costs_nothing_else(void **state)
{
    (void)state;
    assert_int_equal(mkdir(in_dir("q"), 0500), 0);
    if (geteuid() == 0) { /* root writes everywhere: a file in the folder's place does it */
        assert_int_equal(rmdir(in_dir("q")), 0);
        FILE *f = fopen(in_dir("q"), "w");
        assert_non_null(f);
        fclose(f);
    }
    expect(load(HG_DTYPE_I8, NULL), 0, 0);
    expect(load(HG_DTYPE_I8, NULL), 0, 0);
}

/* Another process holds the lock of the .part: this one loads without, and takes it over when it
 * was left behind. */
static void two_writers_do_not_meet(void **state)
{
    (void)state;
    char part[300];
    expect(load(HG_DTYPE_I8, NULL), 0, N_TENSORS);
    snprintf(part, sizeof part, "%s.part", cache_file(".safetensors"));
    assert_int_equal(unlink(cache_file(".safetensors")), 0);
    int fd = open(part, O_RDWR | O_CREAT, 0600);
    assert_true(fd >= 0);
    assert_int_equal(flock(fd, LOCK_EX), 0);
    expect(load(HG_DTYPE_I8, NULL), 0, 0);
    assert_true(hg_file_exists(part));
    close(fd);
    expect(load(HG_DTYPE_I8, NULL), 0, N_TENSORS);
    assert_false(hg_file_exists(part));
    expect(load(HG_DTYPE_I8, NULL), N_TENSORS, 0);
}

static void a_load_that_fails_leaves_no_file(void **state)
{
    (void)state;
    struct hg_error err = {0};
    struct hg_weights *w;
    struct hg_quant_cache *c;
    uint8_t codes[ROWS * COLS];
    float scale[ROWS * 2];
    HG_TEST_OK(hg_weights_create(&w, &err), err);
    HG_TEST_OK(hg_weights_add_file(w, in_dir("model.safetensors"), &err), err);
    for (int complete = 0; complete < 2; complete++) { /* 1: a source that is not done */
        HG_TEST_OK(hg_quant_cache_open(in_dir("q"), HG_DTYPE_I8, w, 1, &c, &err), err);
        const struct hg_tensor *x = hg_weights_at(w, 0, NULL);
        struct hg_host_tensor plain = {.data = values[0], .type = HG_DTYPE_F32};
        assert_true(hg_quant_cache_add(c, x, &plain, codes, scale));
        hg_quant_cache_close(c, complete);
        assert_null(cache_file("."));
        assert_null(cache_file(".part"));
        assert_null(cache_file(".safetensors"));
    }
    hg_weights_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_is_written_is_read_at_the_next_load, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(no_folder_and_other_types_mean_no_cache, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_changed_byte_anywhere_does_no_harm, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_cut_file_is_written_anew, set_up, tear_down),
        cmocka_unit_test_setup_teardown(sources_that_changed_make_it_stale, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_lock_vouches_for_files_with_other_times, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_folder_that_cannot_be_written_costs_nothing_else, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(two_writers_do_not_meet, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_load_that_fails_leaves_no_file, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
