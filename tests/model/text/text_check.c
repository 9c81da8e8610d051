#include "tests/model/text/text_check.h"

#include <dirent.h>
#include <unistd.h>

#include "common/file.h"
#include "model/text/internal.h"

struct hg_tokenizer *text_load(const char *path)
{
    struct hg_error err = {0};
    struct hg_tokenizer *t = NULL;
    HG_TEST_OK(hg_tokenizer_load(path, &t, &err), err);
    return t;
}

struct hg_ids text_encode(const struct hg_tokenizer *t, const char *s, size_t n, bool trusted)
{
    struct hg_ids ids = {0};
    struct hg_error err = {0};
    struct hg_text_part part = {s, n, trusted};
    HG_TEST_OK(hg_tokenizer_encode(t, &part, 1, &ids, &err), err);
    return ids;
}

bool text_same_ids(const struct hg_ids *got, const int32_t *want, size_t n)
{
    return got->n == n && (n == 0 || memcmp(got->data, want, n * sizeof *want) == 0);
}

static void print_row(const char *name, const int32_t *ids, size_t n)
{
    printf("  %s (%zu):", name, n);
    for (size_t i = 0; i < n && i < 60; i++)
        printf(" %d", ids[i]);
    printf("\n");
}

void text_expect_ids(const char *what, const struct hg_ids *got, const int32_t *want, size_t n)
{
    if (text_same_ids(got, want, n))
        return;
    print_row("want", want, n);
    print_row("got ", got->data, got->n);
    fail_msg("ids differ: %s", what);
}

void text_expect(const struct hg_tokenizer *t, const char *s, bool trusted, const char *want)
{
    struct hg_ids got = text_encode(t, s, strlen(s), trusted), ids = text_ids_of_string(want);
    text_expect_ids(s, &got, ids.data, ids.n);
    hg_ids_deinit(&got);
    hg_ids_deinit(&ids);
}

struct hg_ids text_ids_of_json(const json_t *array)
{
    struct hg_ids ids = {0};
    for (size_t i = 0; i < json_array_size(array); i++)
        assert_int_equal(hg_ids_push(&ids, (int32_t)json_integer_value(json_array_get(array, i))),
                         0);
    return ids;
}

struct hg_ids text_ids_of_string(const char *s)
{
    struct hg_ids ids = {0};
    for (char *end; *s; s = end) {
        long id = strtol(s, &end, 10);
        if (end == s)
            break;
        assert_int_equal(hg_ids_push(&ids, (int32_t)id), 0);
    }
    return ids;
}

char *text_decode(const struct hg_tokenizer *t, const int32_t *ids, size_t n, bool show_added)
{
    struct hg_detok d;
    struct hg_buf out = {0};
    hg_detok_init(&d, t, show_added);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(hg_detok_push(&d, ids[i], &out), 0);
    assert_int_equal(hg_detok_finish(&d, &out), 0);
    assert_int_equal(hg_buf_append(&out, "", 1), 0);
    return out.data;
}

void text_make_dir(char dir[64])
{
    snprintf(dir, 64, "/tmp/hg_text_XXXXXX");
    assert_non_null(mkdtemp(dir));
}

void text_write(const char *dir, const char *name, const void *data, size_t n)
{
    char path[512];
    struct hg_error err = {0};
    assert_int_equal(hg_path_join(path, sizeof path, dir, name), 0);
    HG_TEST_OK(hg_file_write(path, data, n, &err), err);
}

void text_write_string(const char *dir, const char *name, const char *s)
{
    text_write(dir, name, s, strlen(s));
}

bool text_copy(const char *dir, const char *name, const char *shared)
{
    const char *path = hg_test_shared(shared);
    size_t n;
    if (!path)
        return false;
    unsigned char *data = hg_test_read(path, &n);
    text_write(dir, name, data, n);
    free(data);
    return true;
}

void text_remove_dir(const char *dir)
{
    DIR *d = opendir(dir);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));) {
        char path[512];
        if (e->d_name[0] != '.' && !hg_path_join(path, sizeof path, dir, e->d_name))
            unlink(path);
    }
    closedir(d);
    rmdir(dir);
}

static void put_part(struct hg_buf *out, const char *s)
{
    if (out->len)
        assert_int_equal(hg_buf_append(out, " ", 1), 0);
    assert_int_equal(hg_buf_append_str(out, s), 0);
}

char *text_reference(const struct hg_tokenizer *t, const struct hg_ids *ids, size_t cut)
{
    struct hg_buf out = {0};
    struct hg_ids group = {0};
    for (size_t i = 0; i <= ids->n; i++) {
        int32_t id = i < ids->n ? ids->data[i] : -1;
        bool added = id >= 0 && hg_tokenizer_is_added(t, id);
        if (added && (t->vocab.pieces[id].flags & HG_PIECE_SPECIAL))
            continue;
        if (id >= 0 && !added) {
            assert_int_equal(hg_ids_push(&group, id), 0);
            continue;
        }
        if (group.n > 0) {
            char *text = text_decode(t, group.data, group.n, false);
            put_part(&out, text);
            free(text);
            group.n = 0;
        }
        if (added)
            put_part(&out, hg_tokenizer_token(t, id));
    }
    for (; cut > 0 && out.len > 0; cut--)
        for (bool more = true; more && out.len > 0;)
            more = ((unsigned char)out.data[--out.len] & 0xc0) == 0x80;
    assert_int_equal(hg_buf_append(&out, "", 1), 0);
    hg_ids_deinit(&group);
    return out.data;
}
