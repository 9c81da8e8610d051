/* tests/model/load/test_weight_mutants.c - seeded mutants of every small file: no crash, no read
 * outside the bytes (run it under AddressSanitizer), an error text for each refusal, and for what
 * is still accepted every element is readable. The same mutants on every machine. */
#include "tests/test.h"

#include "model/load/weights.h"
#include "tests/model/load/build_file.h"

enum { N_MUTANTS = 1500 /* of each file */ };

static const char *const files[] = {"views.pt",       "views_legacy.pth", "module.pt",
                                    "lightning.ckpt", "parameters.pt",    "types.pt"};

struct random {
    uint64_t state;
};

static uint32_t next(struct random *r, uint32_t n)
{
    r->state = r->state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(r->state >> 33) % n;
}

/* One to four edits: a byte, a bit, a copied piece, a number of 4 or 8 bytes at an edge. */
static void mutate(unsigned char *d, size_t n, struct random *r)
{
    static const uint64_t edges[] = {0,           1,         0x7f,       0x80,
                                     0xff,        0xffff,    0x7fffffff, 0x80000000u,
                                     0xffffffffu, INT64_MAX, UINT64_MAX};
    for (uint32_t k = 1 + next(r, 4); k > 0; k--) {
        size_t at = next(r, (uint32_t)n), from = next(r, (uint32_t)n), len = 1 + next(r, 24);
        uint64_t edge = edges[next(r, sizeof edges / sizeof edges[0])];
        switch (next(r, 4)) {
        case 0:
            d[at] = (unsigned char)next(r, 256);
            break;
        case 1:
            d[at] ^= (unsigned char)(1u << next(r, 8));
            break;
        case 2:
            if (at + len <= n && from + len <= n)
                memmove(d + at, d + from, len);
            break;
        default:
            len = next(r, 2) ? 4 : 8;
            if (at + len <= n)
                memcpy(d + at, &edge, len);
            break;
        }
    }
}

/* Read every element of an accepted file through the converter. */
static void read_all(const struct hg_tensor_file *f, size_t n)
{
    for (size_t i = 0; i < hg_tensor_file_count(f); i++) {
        const struct hg_tensor *t = hg_tensor_file_at(f, i);
        int64_t count = hg_tensor_count(t);
        assert_true(count >= 0 && (uint64_t)count <= n);
        float *out = malloc((size_t)count * sizeof *out + 1);
        hg_tensor_convert(t, HG_DTYPE_F32, out);
        free(out);
        assert_ptr_equal(hg_tensor_file_find(f, t->name), t);
    }
}

static void mutate_file(const unsigned char *data, size_t n, uint64_t seed, size_t *n_accepted)
{
    for (int i = 0; i < N_MUTANTS; i++) {
        struct random r = {seed * 1000003 + (uint64_t)i};
        struct hg_error err = {0};
        struct hg_tensor_file *f;
        unsigned char *copy = malloc(n);
        memcpy(copy, data, n);
        mutate(copy, n, &r);
        if (hg_tensor_file_parse("mutant", copy, n, &f, &err) == HG_STATUS_OK) {
            read_all(f, n);
            hg_tensor_file_close(f);
            (*n_accepted)++;
        } else {
            assert_true(err.text[0]);
        }
        free(copy);
    }
}

static void mutants_of_torch_files_are_survived(void **state)
{
    (void)state;
    size_t n_accepted = 0, n_files = sizeof files / sizeof files[0];
    for (size_t i = 0; i < n_files; i++) {
        char name[100];
        size_t n;
        snprintf(name, sizeof name, "tests/data/weights/%s", files[i]);
        unsigned char *data = hg_test_read(hg_test_file(name), &n);
        mutate_file(data, n, i + 1, &n_accepted);
        free(data);
    }
    printf("%zu mutants, %zu still readable\n", n_files * N_MUTANTS, n_accepted);
}

static void mutants_of_a_safetensors_file_are_survived(void **state)
{
    (void)state;
    size_t n_accepted = 0;
    struct hg_buf file = {0};
    char data[64] = {0};
    hg_build_safetensors(
        &file,
        "{\"__metadata__\":{\"format\":\"pt\"},"
        "\"a\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,24]},"
        "\"b.weight\":{\"dtype\":\"BF16\",\"shape\":[4,1],\"data_offsets\":[24,32]},"
        "\"c\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[32,40]}}",
        data, 40);
    mutate_file((const unsigned char *)file.data, file.len, 99, &n_accepted);
    printf("%d mutants, %zu still readable\n", (int)N_MUTANTS, n_accepted);
    hg_buf_deinit(&file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mutants_of_torch_files_are_survived),
        cmocka_unit_test(mutants_of_a_safetensors_file_are_survived),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
