/* model/load/quant_cache_file.h - the file of quant_cache.h being written (private to the two). */
#ifndef HG_MODEL_LOAD_QUANT_CACHE_FILE_H
#define HG_MODEL_LOAD_QUANT_CACHE_FILE_H

#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/status.h"

enum { HG_QUANT_PATH_CAP = 4096, HG_QUANT_HEADER_MAX = 16 << 20 };

struct hg_quant_part {
    int fd;                       /* -1: not open */
    char path[HG_QUANT_PATH_CAP]; /* <final>.part */
    uint64_t data_at;             /* where tensors begin: behind the room for the header */
    uint64_t n;                   /* bytes of tensors so far */
};

/* Begins <final>.part for `bytes` of tensors and a header of at most `header` bytes, alone: BUSY
 * when another process writes it. IO (with the system's words), TOO_LARGE. */
enum hg_status hg_quant_part_open(struct hg_quant_part *p, const char *final, size_t header,
                                  uint64_t bytes, struct hg_error *err);
/* Appends; *at is the place from the first tensor on. */
enum hg_status hg_quant_part_add(struct hg_quant_part *p, const void *data, size_t n, uint64_t *at,
                                 struct hg_error *err);
/* Writes the header, makes sure that all is on the disk, gives it its name. */
enum hg_status hg_quant_part_finish(struct hg_quant_part *p, const char *final,
                                    const struct hg_buf *header, struct hg_error *err);
/* Closes what is open, and removes a file that was not finished. */
void hg_quant_part_close(struct hg_quant_part *p);

#endif
