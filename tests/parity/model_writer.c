/* tests/parity/model_writer.c - safetensors and JSON out. */
#include "tests/parity/model_writer.h"

#include <ftw.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/test.h"

static size_t count(const struct writer_tensor *t)
{
    return (size_t)t->rows * (size_t)(t->cols ? t->cols : 1);
}

float *writer_add(struct writer *w, const char *name, int rows, int cols)
{
    struct writer_tensor *t = &w->t[w->n++];
    assert_true(w->n <= WRITER_MAX_TENSORS);
    snprintf(t->name, sizeof t->name, "%s", name);
    t->rows = rows;
    t->cols = cols;
    t->data = malloc(count(t) * sizeof *t->data);
    assert_non_null(t->data);
    return t->data;
}

static char *header_text(const struct writer *w)
{
    json_t *header = json_object();
    size_t offset = 0;
    for (int i = 0; i < w->n; i++) {
        const struct writer_tensor *t = &w->t[i];
        size_t end = offset + count(t) * 4;
        json_t *shape = t->cols ? json_pack("[ii]", t->rows, t->cols) : json_pack("[i]", t->rows);
        json_object_set_new(header, t->name,
                            json_pack("{s:s,s:o,s:[I,I]}", "dtype", "F32", "shape", shape,
                                      "data_offsets", (json_int_t)offset, (json_int_t)end));
        offset = end;
    }
    char *text = json_dumps(header, JSON_COMPACT);
    json_decref(header);
    return text;
}

void writer_save(struct writer *w, const char *dir, const char *name)
{
    char path[600];
    char *text = header_text(w);
    uint64_t n = strlen(text);
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *out = fopen(path, "wb");
    assert_non_null(out);
    fwrite(&n, 8, 1, out);
    fwrite(text, 1, n, out);
    for (int i = 0; i < w->n; i++) {
        fwrite(w->t[i].data, 4, count(&w->t[i]), out);
        free(w->t[i].data);
    }
    assert_int_equal(fclose(out), 0);
    w->n = 0;
    free(text);
}

void writer_temp_dir(char out[256])
{
    const char *tmp = getenv("TMPDIR");
    snprintf(out, 256, "%s/hg-test-XXXXXX", tmp ? tmp : "/tmp");
    assert_non_null(mkdtemp(out));
}

void writer_subdir(const char *dir, const char *name, char out[300])
{
    snprintf(out, 300, "%s/%s", dir, name);
    assert_int_equal(mkdir(out, 0755), 0);
}

void writer_json(json_t *j, const char *dir, const char *name)
{
    char path[600];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    assert_non_null(j);
    assert_int_equal(json_dump_file(j, path, 0), 0);
    json_decref(j);
}

static int remove_entry(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st;
    (void)flag;
    (void)ftw;
    return remove(path);
}

void writer_remove(const char *dir)
{
    nftw(dir, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}
