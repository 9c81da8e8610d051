/* server/config/config_table.h - the table of server/config/config.h as rows, for those who read or
 * describe it.
 */
#ifndef HG_SERVER_CONFIG_TABLE_H
#define HG_SERVER_CONFIG_TABLE_H

#include <jansson.h>

#include "server/config/config.h"

enum hg_config_kind {
    HG_CONFIG_IS_GROUP, /* a title (help), no key */
    HG_CONFIG_IS_TEXT,
    HG_CONFIG_IS_CHOICE,
    HG_CONFIG_IS_NUMBER,
    HG_CONFIG_IS_FLAG,
    HG_CONFIG_IS_REAL
};

struct hg_config_row {
    const char *key, *argument, *help;
    const char *text;    /* the default as it is written; "" for a flag */
    const char *choices; /* "a|b|c" */
    enum hg_config_kind kind;
    size_t offset; /* in struct hg_config */
    int64_t number, min, max;
    double real, real_min, real_max;
};

const struct hg_config_row *hg_config_rows(size_t *n);
const struct hg_config_row *hg_config_row_of_key(const char *key); /* NULL: none */
/* "max-queue" and "max_queue" name the same key. */
const struct hg_config_row *hg_config_row_of_flag(const char *flag);

/* "max_queue" as "max-queue", or as "MAX_QUEUE"; cut at cap. */
void hg_config_flag_name(const char *key, char *out, size_t cap);
void hg_config_environment_name(const char *key, char *out, size_t cap); /* with the prefix */

/* Store a value; false: it is not what the row takes, nothing was stored. Text is that of a flag or
 * a variable: true, false, 1, 0 for a flag. */
bool hg_config_put_text(struct hg_config *c, const struct hg_config_row *r, const char *s);
bool hg_config_put_json(struct hg_config *c, const struct hg_config_row *r, const json_t *v);

/* "a whole number in 1..65536"; in_file: as JSON writes it. */
void hg_config_expected(const struct hg_config_row *r, bool in_file, struct hg_buf *out);

/* Number of insertions, deletions, changes and swaps of neighbours that make b of a; names of 64
 * bytes and more are 64 away from all others. */
int hg_config_distance(const char *a, const char *b);
/* The key nearest to what was written, when it is near enough for a slip; NULL: none is. */
const char *hg_config_nearest(const char *key);
/* The same among the choices of a row, and other names of a type ("fp16", "bfloat16", "4bit"). */
const char *hg_config_nearest_choice(const struct hg_config_row *r, const char *got, char out[32]);

#endif
