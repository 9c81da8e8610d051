/* tests/model/load/build_file.h - weight files made in memory, right and wrong ones. */
#ifndef HG_TESTS_MODEL_LOAD_BUILD_FILE_H
#define HG_TESTS_MODEL_LOAD_BUILD_FILE_H

#include "common/buf.h"
#include "model/load/tensor_file.h"

/* Header length, header, data. */
void hg_build_safetensors(struct hg_buf *out, const char *header, const void *data, size_t n);

/* A zip of stored members: add members, then end. Fields may be spoilt between the calls. */
struct hg_build_zip {
    struct hg_buf body, central;
    int n_members;
    unsigned flags, method; /* of the next member */
    const char *local_name; /* name in the local header when it shall differ */
    int zip64;              /* write the sizes and the offset in zip64 extra fields */
};
void hg_build_zip_add(struct hg_build_zip *z, const char *name, const void *data, size_t n);
void hg_build_zip_end(struct hg_build_zip *z, struct hg_buf *out); /* empties z */

/* Pieces of a pickle. A dictionary of tensors is begin, tensors ..., "." */
void hg_build_begin(struct hg_buf *p);                         /* PROTO 2, EMPTY_DICT */
void hg_build_text(struct hg_buf *p, const char *s);           /* BINUNICODE */
void hg_build_int(struct hg_buf *p, int64_t v);                /* LONG1 of 8 bytes */
void hg_build_ints(struct hg_buf *p, const int64_t *v, int n); /* tuple */
void hg_build_storage(struct hg_buf *p, const char *type, const char *key, int64_t numel);

struct hg_build_tensor {
    const char *name, *type, *key; /* "w", "FloatStorage", "0" */
    int64_t numel, offset;
    int n_dims;
    int64_t dims[9], strides[9];
};
/* Key, tensor, SETITEM. */
void hg_build_tensor(struct hg_buf *p, const struct hg_build_tensor *t);

/* A torch zip: the pickle as x/data.pkl, `data` as x/data/0. */
void hg_build_torch(struct hg_buf *out, const struct hg_buf *pickle, const void *data, size_t n);

/* Parse and close; the status, with the message in err. */
enum hg_status hg_build_parse(const struct hg_buf *file, struct hg_error *err);

/* Elements of a tensor, packed in row-major order; free with free(). */
unsigned char *hg_build_pack(const struct hg_tensor *t, size_t *n);
uint32_t hg_build_crc32(const void *data, size_t n);

#endif
