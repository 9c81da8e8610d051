/* model/load/weights.h - one name space of tensors built from shards and overlays.
 *
 * A weights set collects files (a folder with *.safetensors, sharded with
 * model.safetensors.index.json, or pytorch_model.bin; or single files). Later files override
 * earlier names. Keys are normalised with the tolerant mapping of reference.md 2.3 (leading
 * "module.", "base_model.model.", an inserted
 * ".default", mm_projector without "model."). Tensors are fetched by name with the expected shape;
 * a fetched tensor is marked as used, so that what is surplus can be listed. */
#ifndef HG_MODEL_LOAD_WEIGHTS_H
#define HG_MODEL_LOAD_WEIGHTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/status.h"
#include "kernels/dtype.h"
#include "model/load/meter.h"
#include "model/load/tensor_file.h"

struct hg_weights;

enum hg_status hg_weights_create(struct hg_weights **out, struct hg_error *err);
void hg_weights_free(struct hg_weights *w); /* unmaps every file */

/* Add a model folder: model.safetensors.index.json + shards, else model.safetensors, else
 * pytorch_model.bin (or pytorch_model.bin.index.json). */
enum hg_status hg_weights_add_dir(struct hg_weights *w, const char *dir, struct hg_error *err);
/* Add one file of any container, or a folder with adapter_model.safetensors (or .bin) and maybe
 * non_lora_trainables.bin. Of a torch checkpoint that has a "state_dict" only that is taken.
 * After a failure the set may hold a part of what was added: free it. */
enum hg_status hg_weights_add_file(struct hg_weights *w, const char *path, struct hg_error *err);

/* The folder alone; hg_weights_add_file comes here for folders. */
enum hg_status hg_weights_add_adapter_dir(struct hg_weights *w, const char *dir,
                                          struct hg_error *err);

size_t hg_weights_count(const struct hg_weights *w);
const struct hg_tensor *hg_weights_at(const struct hg_weights *w, size_t i, const char **file);
const struct hg_tensor *hg_weights_find(const struct hg_weights *w, const char *name);

/* Find `name`, check rank and dims (dims[i] < 0 accepts any) and type (F32, F16, BF16, F64).
 * Messages:
 * "<file>: tensor X: missing" / "...: expected [a, b], got [c, d]". Marks it used. */
enum hg_status hg_weights_get(struct hg_weights *w, const char *name, int n_dims,
                              const int64_t *dims, const struct hg_tensor **out,
                              struct hg_error *err);

/* A tensor from hg_weights_get has been read to its end: its checksum is kept, its pages are given
 * back, the meter moves. It may be read and done again, which counts once. */
void hg_weights_done(struct hg_weights *w, const struct hg_tensor *t);
/* Instead of reading it: somebody has read `bytes` that were made of it when its checksum was this.
 */
void hg_weights_vouch(struct hg_weights *w, const struct hg_tensor *t, uint32_t crc32c,
                      uint64_t bytes);
/* The checksum of a tensor that is done; false: it is not. */
bool hg_weights_sum(const struct hg_weights *w, const char *name, uint32_t *crc32c);
/* Its pages are given back, and nothing else: it was looked at and will be read again. */
void hg_weights_forget(struct hg_weights *w, const struct hg_tensor *t);
/* BAD_FILE "<file>: tensor X: element N is NaN or Inf"; `samples` as in hg_tensor_not_finite. */
enum hg_status hg_weights_check_finite(const struct hg_weights *w, const struct hg_tensor *t,
                                       int samples, struct hg_error *err);
/* Are loaders (model/host_tensor.h) to refuse such tensors of this set? Off at first. */
void hg_weights_refuse_not_finite(struct hg_weights *w, bool on);
bool hg_weights_refuses_not_finite(const struct hg_weights *w);
/* Counts for hg_weights_done; NULL: none. */
void hg_weights_set_meter(struct hg_weights *w, struct hg_load_meter *m);
uint64_t hg_weights_bytes(const struct hg_weights *w); /* of all tensors */
/* CRC-32C over what was done, in the order of the names: of each its name without the NUL and its
 * own sum (hg_tensor_crc32c) in 4 bytes, little-endian. It goes on from `crc`, for several sets. */
uint32_t hg_weights_crc32c(const struct hg_weights *w, uint32_t crc);

/* ---- model.lock (load/lock.h) ---- */
struct hg_weights_file {
    const char *name; /* without its folder */
    uint64_t bytes;
    int64_t mtime_ns;
    const struct hg_tensor_file *tensors;
};
size_t hg_weights_n_files(const struct hg_weights *w);
struct hg_weights_file hg_weights_file_at(const struct hg_weights *w, size_t i);
/* From now on the tensor that file `file` calls `raw` must have this checksum when it is done. Call
 * when all files are added. false: it is not of this set, or a later file overrides it. */
bool hg_weights_lock(struct hg_weights *w, size_t file, const char *raw, uint32_t crc32c);
bool hg_weights_locked(const struct hg_weights *w, const char *name, uint32_t *crc32c);
/* BAD_FILE naming the first tensor whose checksum was another one; hg_weights_get refuses then. */
enum hg_status hg_weights_check_lock(const struct hg_weights *w, struct hg_error *err);
/* Adds the tensors that are locked, and those of them that were done. */
void hg_weights_count_locked(const struct hg_weights *w, size_t *verified, size_t *all);

/* Contiguous copy converted to F32, F16 or BF16 (nearest even) into dst[count]; dst may be
 * unaligned. t is F32, F16, BF16 or F64, as hg_weights_get ensures; other types give zeros. */
void hg_tensor_convert(const struct hg_tensor *t, enum hg_dtype type, void *dst);

/* Mark every name with this prefix as expected but unneeded ("loss.", "text_model."). */
void hg_weights_ignore_prefix(struct hg_weights *w, const char *prefix);
/* Mark every name without this prefix: the rest of a checkpoint of which one part is wanted. */
void hg_weights_ignore_outside(struct hg_weights *w, const char *prefix);
/* Names that nobody fetched or ignored: BAD_FILE naming the first and how many, or OK. */
enum hg_status hg_weights_check_all_used(const struct hg_weights *w, struct hg_error *err);
/* The same for plug-ins, as reference.md 2.3 wants it: such names are a line of warning each in the
 * log, at most HG_WEIGHTS_WARNINGS and then their number; but H-LoRA tensors that no layer asked
 * for are BAD_FILE. `tell` false: no lines. */
enum { HG_WEIGHTS_WARNINGS = 20 };
enum hg_status hg_weights_warn_unused(const struct hg_weights *w, bool tell, struct hg_error *err);

#endif
