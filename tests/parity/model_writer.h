/* tests/parity/model_writer.h - write model folders in the published formats, for tests. Every
 * failure fails the test. */
#ifndef HG_TESTS_PARITY_MODEL_WRITER_H
#define HG_TESTS_PARITY_MODEL_WRITER_H

#include <jansson.h>

enum { WRITER_MAX_TENSORS = 512 };

struct writer_tensor {
    char name[128];
    int rows, cols; /* cols 0: a vector */
    float *data;    /* owned */
};

/* A safetensors file (F32) in the making. Start from a zeroed struct. */
struct writer {
    struct writer_tensor t[WRITER_MAX_TENSORS];
    int n;
};

/* Returns the memory to fill: rows * max(cols, 1) floats. */
float *writer_add(struct writer *w, const char *name, int rows, int cols);
void writer_save(struct writer *w, const char *dir, const char *name); /* frees the tensors */

void writer_temp_dir(char out[256]); /* fresh folder under $TMPDIR */
void writer_subdir(const char *dir, const char *name, char out[300]);
void writer_json(json_t *j, const char *dir, const char *name); /* steals j */
void writer_remove(const char *dir);

#endif
