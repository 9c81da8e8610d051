/* model/text/char_class.h - letter, number, whitespace or something else.
 *
 * \p{L}, \p{N} and White_Space of Unicode 15.1, what the reference's `regex` package means by
 * \p{L}, \p{N} and \s (reference.md section 20); not what the libraries of the machine know, so
 * that the same text has the same ids everywhere. */
#ifndef HG_MODEL_TEXT_CHAR_CLASS_H
#define HG_MODEL_TEXT_CHAR_CLASS_H

#include <stddef.h>
#include <stdint.h>

enum hg_char_class { HG_CHAR_OTHER, HG_CHAR_LETTER, HG_CHAR_NUMBER, HG_CHAR_SPACE };

struct hg_char_range {
    uint32_t first, last;
    enum hg_char_class of;
};
extern const struct hg_char_range hg_char_ranges[]; /* in order, without overlap */
extern const size_t hg_n_char_ranges;

enum hg_char_class hg_char_class(uint32_t cp);

#endif
