/* tests/model/tiny_file.c - see tiny_file.h. */
#include "tests/model/tiny_file.h"

#include <jansson.h>
#include <math.h>
#include <unistd.h>

#include "tests/parity/tiny_model.h"
#include "tests/test.h"

const char *const tiny_backends[2] = {"ref", "cpu"};

static size_t count(const struct tiny_tensor *t)
{
    size_t n = 1;
    for (int i = 0; i < t->n_dims; i++)
        n *= (size_t)t->dims[i];
    return n;
}

static void fill(struct tiny_tensor *t)
{
    size_t n = count(t), len = strlen(t->name);
    bool gain = t->n_dims == 1 && len > 7 && strcmp(t->name + len - 7, ".weight") == 0;
    double scale = t->n_dims > 1 ? sqrt(3.0 / ((double)n / (double)t->dims[0])) : gain ? 0.25 : 0.1;
    t->data = malloc(n * sizeof *t->data);
    assert_non_null(t->data);
    tiny_fill(t->name, n, scale, gain ? 1 : 0, t->data);
}

void tiny_file_add(struct tiny_file *f, const char *name, int n_dims, const int64_t *dims)
{
    assert_true(f->n < TINY_MAX_TENSORS);
    struct tiny_tensor *t = &f->t[f->n++];
    memset(t, 0, sizeof *t);
    snprintf(t->name, sizeof t->name, "%s", name);
    t->n_dims = n_dims;
    for (int i = 0; i < n_dims; i++)
        t->dims[i] = dims[i];
    if (!f->hollow)
        fill(t);
}

void tiny_file_add_vector(struct tiny_file *f, const char *module, const char *suffix, int64_t n)
{
    char name[96];
    snprintf(name, sizeof name, "%s%s", module, suffix);
    tiny_file_add(f, name, 1, &n);
}

void tiny_file_add_linear(struct tiny_file *f, const char *module, int64_t n_out, int64_t n_in)
{
    char name[96];
    snprintf(name, sizeof name, "%s.weight", module);
    tiny_file_add(f, name, 2, (int64_t[]){n_out, n_in});
    tiny_file_add_vector(f, module, ".bias", n_out);
}

void tiny_file_add_conv(struct tiny_file *f, const char *module, int64_t n_out, int64_t n_in,
                        int64_t kernel)
{
    char name[96];
    snprintf(name, sizeof name, "%s.weight", module);
    tiny_file_add(f, name, 4, (int64_t[]){n_out, n_in, kernel, kernel});
    tiny_file_add_vector(f, module, ".bias", n_out);
}

void tiny_file_add_norm(struct tiny_file *f, const char *module, int64_t n)
{
    tiny_file_add_vector(f, module, ".weight", n);
    tiny_file_add_vector(f, module, ".bias", n);
}

struct tiny_tensor *tiny_file_find(struct tiny_file *f, const char *name)
{
    for (int i = 0; i < f->n; i++)
        if (strcmp(f->t[i].name, name) == 0)
            return &f->t[i];
    fail_msg("the tiny file has no %s", name);
    return NULL;
}

void tiny_file_drop(struct tiny_file *f, const char *name)
{
    struct tiny_tensor *t = tiny_file_find(f, name);
    free(t->data);
    *t = f->t[--f->n];
}

void tiny_file_deinit(struct tiny_file *f)
{
    for (int i = 0; i < f->n; i++)
        free(f->t[i].data);
    f->n = 0;
}

static char *header(const struct tiny_file *f, size_t *data_bytes)
{
    json_t *all = json_object();
    size_t offset = 0;
    for (int i = 0; i < f->n; i++) {
        const struct tiny_tensor *t = &f->t[i];
        char name[192];
        json_t *shape = json_array();
        for (int d = 0; d < t->n_dims; d++)
            json_array_append_new(shape, json_integer(t->dims[d]));
        size_t end = offset + count(t) * sizeof(float);
        snprintf(name, sizeof name, "%s%s", f->prefix ? f->prefix : "", t->name);
        json_object_set_new(all, name,
                            json_pack("{s:s,s:o,s:[I,I]}", "dtype", "F32", "shape", shape,
                                      "data_offsets", (json_int_t)offset, (json_int_t)end));
        offset = end;
    }
    char *text = json_dumps(all, JSON_COMPACT);
    json_decref(all);
    assert_non_null(text);
    *data_bytes = offset;
    return text;
}

static void write_file(const struct tiny_file *f, FILE *out)
{
    size_t bytes;
    char *text = header(f, &bytes);
    uint64_t n = strlen(text);
    fwrite(&n, sizeof n, 1, out);
    fwrite(text, 1, n, out);
    for (int i = 0; i < f->n && !f->hollow; i++)
        fwrite(f->t[i].data, sizeof(float), count(&f->t[i]), out);
    free(text);
    assert_int_equal(fflush(out), 0);
    if (f->hollow)
        assert_int_equal(ftruncate(fileno(out), (off_t)(sizeof n + n + bytes)), 0);
    assert_int_equal(fclose(out), 0);
}

struct hg_weights *tiny_file_open(const struct tiny_file *f)
{
    const char *tmp = getenv("TMPDIR");
    char path[256];
    struct hg_weights *w;
    struct hg_error err;
    snprintf(path, sizeof path, "%s/hg-tiny-file-XXXXXX", tmp ? tmp : "/tmp");
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    write_file(f, fdopen(fd, "wb"));
    HG_TEST_OK(hg_weights_create(&w, &err), err);
    enum hg_status status = hg_weights_add_file(w, path, &err);
    unlink(path);
    HG_TEST_OK(status, err);
    return w;
}

struct hg_backend *tiny_backend(const char *name, const struct hg_backend_limits *limits)
{
    struct hg_backend *b;
    struct hg_error err;
    enum hg_status status =
        hg_backend_open(name, &(struct hg_backend_options){.n_threads = 2}, &b, &err);
    if (status == HG_STATUS_UNSUPPORTED) {
        printf("SKIP: backend %s: %s\n", name, err.text);
        return NULL;
    }
    HG_TEST_OK(status, err);
    HG_TEST_OK(b->ops->reserve(b, limits, &err), err);
    return b;
}

float *tiny_golden_tensor(const char *file, const char *name, size_t n)
{
    struct hg_tensor_file *f;
    struct hg_error err;
    HG_TEST_OK(hg_tensor_file_open(hg_test_file(file), &f, &err), err);
    const struct hg_tensor *t = hg_tensor_file_find(f, name);
    if (!t || hg_tensor_count(t) != (int64_t)n)
        fail_msg("%s: %s: %s", file, name, t ? "another size" : "missing");
    float *data = malloc(n * sizeof *data);
    assert_non_null(data);
    hg_tensor_convert(t, HG_DTYPE_F32, data);
    hg_tensor_file_close(f);
    return data;
}

void tiny_compare(const char *label, const char *backend, const float *got, const float *want,
                  size_t n, double bound)
{
    double worst = 0, largest = 0;
    for (size_t i = 0; i < n; i++) {
        double d = fabs((double)got[i] - want[i]);
        if (isnan(d))
            fail_msg("%s on %s: element %zu is %g, expected %g", label, backend, i, (double)got[i],
                     (double)want[i]);
        worst = d > worst ? d : worst;
        largest = fabs((double)want[i]) > largest ? fabs((double)want[i]) : largest;
    }
    printf("%s on %s: largest error %.3g of values up to %.3g, bound %.3g\n", label, backend, worst,
           largest, bound);
    if (worst > bound)
        fail_msg("%s on %s: error %g above %g", label, backend, worst, bound);
}
