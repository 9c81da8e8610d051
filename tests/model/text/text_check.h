/* tests/model/text/text_check.h - what the text tests share. */
#ifndef HG_TESTS_MODEL_TEXT_CHECK_H
#define HG_TESTS_MODEL_TEXT_CHECK_H

#include <jansson.h>

#include "model/text/tokenizer.h"
#include "tests/test.h"

/* Load, or fail the test with the error text. */
struct hg_tokenizer *text_load(const char *path);

/* Encode one part. */
struct hg_ids text_encode(const struct hg_tokenizer *t, const char *s, size_t n, bool trusted);

/* Fail with both rows of ids when they differ; `what` names the case. */
void text_expect_ids(const char *what, const struct hg_ids *got, const int32_t *want, size_t n);
/* The same against a row of numbers: "12 34 56". */
void text_expect(const struct hg_tokenizer *t, const char *s, bool trusted, const char *want);
bool text_same_ids(const struct hg_ids *got, const int32_t *want, size_t n);

/* Numbers of a JSON array. */
struct hg_ids text_ids_of_json(const json_t *array);
/* Numbers written with spaces. */
struct hg_ids text_ids_of_string(const char *s);

/* Detokenise all ids; a malloc'd string. */
char *text_decode(const struct hg_tokenizer *t, const int32_t *ids, size_t n, bool show_added);

/* What the reference's demo prints for these ids (reference.md 9.6, T17): special ids fall out,
 * other added tokens stand alone, all joined with " "; then the last `cut` characters are cut off,
 * 8 in com_infer.py. A malloc'd string. */
char *text_reference(const struct hg_tokenizer *t, const struct hg_ids *ids, size_t cut);

/* A fresh folder under /tmp; removed with its files by text_remove_dir. */
void text_make_dir(char dir[64]);
void text_write(const char *dir, const char *name, const void *data, size_t n);
void text_write_string(const char *dir, const char *name, const char *s);
/* Copy a file of the shared data into the folder; false when it is not there. */
bool text_copy(const char *dir, const char *name, const char *shared);
void text_remove_dir(const char *dir);

#endif
