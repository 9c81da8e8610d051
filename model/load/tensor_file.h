/* model/load/tensor_file.h - named tensors inside one weight file, whatever its container.
 *
 * Containers: safetensors; torch.save zip (stored members); torch legacy pickle sequence. Chosen by
 * the first bytes, never by the name. The torch readers never construct an object: unknown globals
 * become opaque nodes that no tensor can come from; every offset, stride and size is checked
 * against the file before use. Parsing is pure (bytes -> struct); the bytes stay mapped and owned
 * by the caller (or by the file handle of _open). */
#ifndef HG_MODEL_LOAD_TENSOR_FILE_H
#define HG_MODEL_LOAD_TENSOR_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/status.h"

enum { HG_TENSOR_MAX_DIMS = 8 };

/* File element types; the first three are the ones that weights may have. */
#define HG_TENSOR_TYPE_MAP(X)                                                                      \
    X(F32, 4)                                                                                      \
    X(F16, 2) X(BF16, 2) X(F64, 8) X(I64, 8) X(I32, 4) X(I16, 2) X(I8, 1) X(U8, 1) X(BOOL, 1)

enum hg_tensor_type {
#define HG_TENSOR_ENUM(name, bytes) HG_TENSOR_TYPE_##name,
    HG_TENSOR_TYPE_MAP(HG_TENSOR_ENUM)
#undef HG_TENSOR_ENUM
        HG_TENSOR_TYPE_COUNT
};

size_t hg_tensor_type_bytes(enum hg_tensor_type t);
const char *hg_tensor_type_name(enum hg_tensor_type t);

struct hg_tensor {
    const char *name; /* owned by the file */
    enum hg_tensor_type type;
    int n_dims;
    int64_t dims[HG_TENSOR_MAX_DIMS];
    int64_t strides[HG_TENSOR_MAX_DIMS]; /* in elements; row-major contiguous for safetensors */
    const unsigned char *data; /* element [0, 0, ...], inside the mapping, may be unaligned */
};

int64_t hg_tensor_count(const struct hg_tensor *t); /* number of elements */
int hg_tensor_is_contiguous(const struct hg_tensor *t);

/* CRC-32C (common/checksum.h) of the elements as they lie in the file, in row-major order: of a
 * contiguous tensor its bytes, which are little-endian in every container. */
uint32_t hg_tensor_crc32c(const struct hg_tensor *t);
/* Bytes from the first element to the end of the last; more than the elements take where a view has
 * holes. */
size_t hg_tensor_extent(const struct hg_tensor *t);

/* "[3072, 1024]" into out, for messages. */
const char *hg_tensor_shape_text(const int64_t *dims, int n_dims, char *out, size_t cap);

struct hg_tensor_file;

enum hg_status hg_tensor_file_open(const char *path, struct hg_tensor_file **out,
                                   struct hg_error *err);
/* `data` must outlive the handle. `name` is used in messages only. */
enum hg_status hg_tensor_file_parse(const char *name, const void *data, size_t n,
                                    struct hg_tensor_file **out, struct hg_error *err);
void hg_tensor_file_close(struct hg_tensor_file *f); /* NULL is fine */

/* The bytes of the tensor have been read: their pages may go (hg_file_forget). */
void hg_tensor_file_forget(const struct hg_tensor_file *f, const struct hg_tensor *t);
/* See hg_file_sample. */
void hg_tensor_file_sample(const struct hg_tensor_file *f, const struct hg_tensor *t, bool random);

const char *hg_tensor_file_container(const struct hg_tensor_file *f); /* "safetensors", ... */
size_t hg_tensor_file_bytes(const struct hg_tensor_file *f);          /* of the whole file */
size_t hg_tensor_file_count(const struct hg_tensor_file *f);
const struct hg_tensor *hg_tensor_file_at(const struct hg_tensor_file *f,
                                          size_t i); /* file order */
const struct hg_tensor *hg_tensor_file_find(const struct hg_tensor_file *f, const char *name);

#endif
