/* tests/parity/tiny_model.h - random tiny models as folders in the published file formats.
 *
 * The weights come from the same hash as in tools/oracle/weights.py; names and shapes from an entry
 * of tests/golden/llm/specs.json. */
#ifndef HG_TESTS_PARITY_TINY_MODEL_H
#define HG_TESTS_PARITY_TINY_MODEL_H

#include <jansson.h>

/* value(name, i) of tools/oracle/weights.py, for all i < n. */
void tiny_fill(const char *name, size_t n, double scale, double offset, float *out);

/* Write the model of one spec into a fresh folder under $TMPDIR; the path goes to out. Fails the
 * test on any error. Remove it with writer_remove. */
void tiny_model_write(json_t *spec, char out[256]);

/* specs.json and a golden file, parsed. Free with json_decref. */
json_t *tiny_specs(void);
json_t *tiny_golden(const char *name);

#endif
