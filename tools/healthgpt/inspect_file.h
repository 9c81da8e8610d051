/* tools/healthgpt/inspect_file.h - weight files summed up: containers, types, elements, tensors. */
#ifndef HG_TOOLS_INSPECT_FILE_H
#define HG_TOOLS_INSPECT_FILE_H

#include <stdbool.h>
#include <stdint.h>

#include "model/load/tensor_file.h"
#include "server/json_text.h"

struct hg_inspect_sum {
    size_t n_files, n_bad, n_tensors;
    int64_t file_bytes;
    int64_t n_parameters; /* floating point only */
    /* without what the loader leaves out: CLIP's text tower, the losses of the VQGAN */
    int64_t tensor_bytes;                  /* as stored */
    int64_t n_elements;                    /* floating point only */
    int64_t n_table;                       /* of these, in tables of token embeddings */
    int64_t n_matrix;                      /* in other tensors of two dims: what is quantised */
    int64_t n_rows;                        /* rows of those matrices: one scale each */
    int64_t by_type[HG_TENSOR_TYPE_COUNT]; /* elements */
};

void hg_inspect_add(struct hg_inspect_sum *a, const struct hg_inspect_sum *b);

void hg_inspect_add_tensors(struct hg_inspect_sum *sum, const struct hg_tensor_file *f);

/* A model's files: the base, the tower, the VQGAN, the plug-ins of both tasks with their
 * projectors, the tables of fusion files, and everything together. */
struct hg_inspect_parts {
    struct hg_inspect_sum llm, vision, vqgan, plugins, fusion, all;
};

/* CHECKSUMS reads every byte. */
enum hg_inspect_detail { HG_INSPECT_SUMS, HG_INSPECT_TENSORS, HG_INSPECT_CHECKSUMS };

/* Open one file, add it to `sum`, write its object ("file", "container" or "error", ...) with all
 * its tensors when asked, and the CRC-32C of each (hg_tensor_crc32c). An unreadable file is
 * reported, not a failure. */
void hg_inspect_file(const char *path, const char *shown, enum hg_inspect_detail detail,
                     struct hg_json_out *o, struct hg_inspect_sum *sum);

/* "dtypes":{"bf16":elements,...} of what was summed up. */
void hg_inspect_put_types(const struct hg_inspect_sum *sum, struct hg_json_out *o);

/* Bytes that the floating point elements take as "f32", "f16", "bf16", "int8", "fp8" (matrices
 * as one byte and a float scale per row, token tables in 16 bits, the rest as f32) or "int4" (half
 * a byte and an f16 scale per 128). */
int64_t hg_inspect_bytes_as(const struct hg_inspect_sum *sum, const char *dtype);

/* Bytes of a model's weights as the loader stores them: --dtype is for the language model and
 * fusion heads; vision tower and plug-ins are 16-bit beside all types but f32, the VQGAN is f32
 * whatever its file has. Rows are padded to whole vectors, which counts in small models only. */
int64_t hg_inspect_model_bytes(const struct hg_inspect_parts *p, const char *dtype);
/* Of that, the tower or the plug-ins; the VQGAN. */
int64_t hg_inspect_side_bytes(const struct hg_inspect_sum *sum, const char *dtype);
int64_t hg_inspect_vqgan_bytes(const struct hg_inspect_sum *sum);

#endif
