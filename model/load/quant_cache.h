/* model/load/quant_cache.h - the base linears, quantised once and kept in a file.
 *
 * A folder of the operator (key quant_cache) holds one file per weights and type. It is written
 * while a model is loaded from its sources, and read instead of them at the next start: half or a
 * quarter of the bytes and no arithmetic. It holds what kernels/quantise.h gives, row major, for
 * any backend, so nothing that is computed changes by a bit.
 *
 * The file is a safetensors file: <tensor>.scale and <tensor>.codes (hg_quantise_row), and in
 * __metadata__ what it was made of. Its name is a digest of the sources' names, sizes, tensors and
 * shapes, and the type. It is used when the sources' times of change are those that it notes (or
 * model.lock knows the checksum of each tensor), and each tensor after its checksum was right.
 * What is stale, damaged or cannot be written is a line in the log and costs time, nothing else.
 * The name appears when the file is complete; one process writes, others that want to at the same
 * time load without. There is one file for a type, and none is ever larger than its sources. */
#ifndef HG_MODEL_LOAD_QUANT_CACHE_H
#define HG_MODEL_LOAD_QUANT_CACHE_H

#include "kernels/backend.h"
#include "model/load/weights.h"

struct hg_quant_cache;

/* dir NULL or "", or a type that is not quantised: *out is NULL, which all functions take. The only
 * failure is NO_MEMORY. sources: all files are added; they outlive the cache. n_threads quantise,
 * 0: all. */
enum hg_status hg_quant_cache_open(const char *dir, enum hg_dtype type, struct hg_weights *sources,
                                   int n_threads, struct hg_quant_cache **out,
                                   struct hg_error *err);

enum hg_dtype hg_quant_cache_type(const struct hg_quant_cache *c);

/* The source tensor t [rows, cols] as the file has it; it then counts as read (hg_weights_vouch).
 * *out is valid until hg_quant_cache_done. false: take the source. */
bool hg_quant_cache_get(struct hg_quant_cache *c, const struct hg_tensor *t,
                        struct hg_host_tensor *out);
/* What was got has been packed: its pages may go. */
void hg_quant_cache_done(struct hg_quant_cache *c);

/* Whether a file is being written. Then hg_quant_cache_add quantises `from`, the rows and columns
 * of t, into codes and scale (hg_code_bytes and hg_scale_bytes of each row, the caller's), and adds
 * them to it; false: they were not made. */
bool hg_quant_cache_writes(const struct hg_quant_cache *c);
bool hg_quant_cache_add(struct hg_quant_cache *c, const struct hg_tensor *t,
                        const struct hg_host_tensor *from, void *codes, void *scale);

/* Says in the log what was read, or completes the file when the load succeeded (and every source
 * that went into it is done), else removes it. */
void hg_quant_cache_close(struct hg_quant_cache *c, bool complete);

#endif
