/* model/load/lock.h - model.lock: what the files of a model were when somebody was content.
 *
 * JSON: {"format": 1, "model": NAME, "files": [{"name": "llm/model-00001-of-00002.safetensors",
 * "size": BYTES, "tensors": [{"name", "dtype", "shape", "crc32c"}, ...]}, {"name":
 * "llm/config.json", "size": BYTES, "crc32c": SUM}, ...]}. The folder in a name is the role of the
 * file, so a lock holds wherever the files lie. Equal files give equal bytes. Written by
 * `healthgpt inspect --lock`.
 *
 * Sizes, names, types and shapes are compared when the files have been opened; the checksum of a
 * tensor when it is read, for which it is computed anyway: verifying costs nothing but the small
 * files. Tensors that the model does not use are not read and so not verified. CRC-32C finds damage
 * and mix-ups; it keeps nobody out who can write the lock too. */
#ifndef HG_MODEL_LOAD_LOCK_H
#define HG_MODEL_LOAD_LOCK_H

#include <stdbool.h>
#include <stddef.h>

#include "common/buf.h"
#include "model/load/weights.h"

struct hg_lock;

/* NOT_FOUND, BAD_FILE (broken, or of another format), TOO_LARGE, IO, NO_MEMORY. */
enum hg_status hg_lock_read(const char *path, struct hg_lock **out, struct hg_error *err);
void hg_lock_free(struct hg_lock *l); /* NULL is fine */
const char *hg_lock_model(const struct hg_lock *l);

/* Every file of the set, which are all added, as role/<name>: listed, of that size, with those
 * tensors. From now on the checksums are wanted (hg_weights_lock). BAD_FILE names the file or
 * tensor, what was expected and what is there. */
enum hg_status hg_lock_weights(struct hg_lock *l, const char *role, struct hg_weights *w,
                               struct hg_error *err);
/* A small file, whole: its size and checksum. A path that does not exist must not be listed. */
enum hg_status hg_lock_file(struct hg_lock *l, const char *name, const char *path,
                            struct hg_error *err);
/* Nothing is listed that none of the calls above has seen. */
enum hg_status hg_lock_complete(const struct hg_lock *l, struct hg_error *err);

/* ---- writing: begin, any of the two, end ---- */
enum hg_status hg_lock_begin(struct hg_buf *b, const char *model);
/* Reads every tensor of every file. */
enum hg_status hg_lock_put_weights(struct hg_buf *b, const char *role, const struct hg_weights *w);
enum hg_status hg_lock_put_file(struct hg_buf *b, const char *name, const char *path,
                                struct hg_error *err);
enum hg_status hg_lock_end(struct hg_buf *b);

#endif
