/* tests/fuzz/fuzz_tensor_file.c - libFuzzer target of the weight file readers (make fuzz).
 *
 * Every input is tried as a whole file, as the pickle inside a torch zip, and as header and data of
 * a safetensors file (cut at the first NUL), so that the fuzzer need not guess container framing.
 * Of an accepted file every element is converted: a wrong offset is an ASan report. */
#include <stdlib.h>
#include <string.h>

#include "model/load/weights.h"

enum { STORAGE_BYTES = 64, MAX_INPUT = 1 << 16 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void try_file(const uint8_t *data, size_t n)
{
    struct hg_tensor_file *f;
    struct hg_error err = {0};
    if (hg_tensor_file_parse("fuzz", data, n, &f, &err) != HG_STATUS_OK) {
        if (f || !err.text[0])
            abort();
        return;
    }
    for (size_t i = 0; i < hg_tensor_file_count(f); i++) {
        const struct hg_tensor *t = hg_tensor_file_at(f, i);
        int64_t count = hg_tensor_count(t);
        if (count < 0 || (uint64_t)count > n || hg_tensor_file_find(f, t->name) != t)
            abort();
        void *out = malloc((size_t)count * 4 + 1);
        hg_tensor_convert(t, HG_DTYPE_F16, out);
        free(out);
    }
    hg_tensor_file_close(f);
}

static uint8_t *put(uint8_t *p, const void *data, size_t n)
{
    memcpy(p, data, n);
    return p + n;
}

static uint8_t *put_number(uint8_t *p, size_t v, int bytes)
{
    for (int i = 0; i < bytes; i++, v >>= 8)
        *p++ = (uint8_t)v;
    return p;
}

/* One local or central header of a stored member. */
static uint8_t *put_header(uint8_t *p, int central, const char *name, size_t n, size_t at)
{
    size_t name_len = strlen(name);
    p = put(p, central ? "PK\1\2\0\0\0\0\0\0" : "PK\3\4\0\0\0\0", central ? 10 : 8);
    p = put_number(p, 0, 10); /* method, time, date, crc */
    p = put_number(p, n, 4);
    p = put_number(p, n, 4);
    p = put_number(p, name_len, 2);
    p = put_number(p, 0, central ? 12 : 2);
    if (central)
        p = put_number(p, at, 4);
    return put(p, name, name_len);
}

static void try_pickle(const uint8_t *data, size_t n)
{
    static const char *const names[] = {"x/data.pkl", "x/data/0"};
    uint8_t *file = calloc(1, n + 1024), *p = file;
    if (!file)
        return;
    p = put_header(p, 0, names[0], n, 0);
    p = put(p, data, n);
    size_t second = (size_t)(p - file);
    p = put_header(p, 0, names[1], STORAGE_BYTES, 0);
    p += STORAGE_BYTES;
    size_t central = (size_t)(p - file);
    p = put_header(p, 1, names[0], n, 0);
    p = put_header(p, 1, names[1], STORAGE_BYTES, second);
    size_t end = (size_t)(p - file);
    p = put(p, "PK\5\6\0\0\0\0\2\0\2\0", 12);
    p = put_number(p, end - central, 4);
    p = put_number(p, central, 4);
    p = put_number(p, 0, 2);
    try_file(file, (size_t)(p - file));
    free(file);
}

static void try_safetensors(const uint8_t *data, size_t n)
{
    const uint8_t *cut = memchr(data, 0, n);
    size_t header = cut ? (size_t)(cut - data) : n;
    uint8_t *file = malloc(n + 8), *p = file;
    if (!file)
        return;
    p = put_number(p, header, 8);
    p = put(p, data, header);
    if (cut)
        p = put(p, cut + 1, n - header - 1);
    try_file(file, (size_t)(p - file));
    free(file);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (n == 0 || n > MAX_INPUT)
        return 0;
    try_file(data, n);
    if (data[0] == '{')
        try_safetensors(data, n);
    else
        try_pickle(data, n);
    return 0;
}
