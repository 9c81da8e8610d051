/* model/load/tensor_file_build.h - what the container readers use to fill a tensor file (private).
 *
 * A reader checks geometry with hg_tensor_place() and appends with hg_tensor_file_add();
 * tensor_file.c sorts the names once at the end and refuses duplicates. `data` stays the caller's.
 */
#ifndef HG_MODEL_LOAD_TENSOR_FILE_BUILD_H
#define HG_MODEL_LOAD_TENSOR_FILE_BUILD_H

#include <stddef.h>
#include <stdint.h>

#include "common/arena.h"
#include "common/file.h"
#include "model/load/tensor_file.h"

enum {
    HG_TENSOR_FILE_MAX = 200000, /* tensors in one file */
    HG_TENSOR_NAME_MAX = 256,    /* bytes */
};

struct hg_tensor_file {
    const char *name; /* path, for messages; in the arena */
    const char *container;
    struct hg_tensor *tensors; /* file order */
    size_t n, cap;
    uint32_t *by_name; /* indices sorted by name, after the seal */
    struct hg_arena arena;
    struct hg_file_map map; /* empty when the bytes are the caller's */
};

/* A storage: `bytes` readable bytes at `data`. */
struct hg_storage_view {
    const unsigned char *data;
    size_t bytes;
};

/* Check t->type, dims and strides (0 <= each < 2^40) and the element offset against the storage,
 * then set t->data. A view may not hold more elements than its storage: a few bytes must not expand
 * into terabytes. The text of a failure goes to err without the tensor's name. */
enum hg_status hg_tensor_place(struct hg_tensor *t, int64_t offset, struct hg_storage_view s,
                               struct hg_error *err);
void hg_tensor_set_contiguous(struct hg_tensor *t); /* row-major strides out of dims */

/* Append a copy of t under the name; names are 1..256 bytes of UTF-8 without control characters. */
enum hg_status hg_tensor_file_add(struct hg_tensor_file *f, const char *name, size_t name_len,
                                  const struct hg_tensor *t, struct hg_error *err);

/* The container readers: bytes -> tensors appended to f. */
enum hg_status hg_safetensors_parse(struct hg_tensor_file *f, const unsigned char *data, size_t n,
                                    struct hg_error *err);
enum hg_status hg_torch_zip_parse(struct hg_tensor_file *f, const unsigned char *data, size_t n,
                                  struct hg_error *err);
enum hg_status hg_torch_legacy_parse(struct hg_tensor_file *f, const unsigned char *data, size_t n,
                                     struct hg_error *err);
/* True for the first bytes of a torch legacy file (its magic number as a pickle). */
int hg_torch_legacy_detect(const unsigned char *data, size_t n);

/* Little-endian loads from unaligned bytes. */
static inline uint32_t hg_load_u16(const unsigned char *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8;
}

static inline uint32_t hg_load_u32(const unsigned char *p)
{
    return hg_load_u16(p) | hg_load_u16(p + 2) << 16;
}

static inline uint64_t hg_load_u64(const unsigned char *p)
{
    return (uint64_t)hg_load_u32(p) | (uint64_t)hg_load_u32(p + 4) << 32;
}

#endif
