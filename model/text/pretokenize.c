#include "model/text/pretokenize.h"

#include <string.h>

#include "common/utf8.h"
#include "model/text/char_class.h"

/* A character of the text. At the end of the text: no length, and a class of its own. */
struct look {
    uint32_t cp;
    enum hg_char_class of;
    size_t len;
};

enum { NOTHING = HG_CHAR_SPACE + 1 };

static struct look look_at(struct hg_words *w, size_t at)
{
    struct look c = {0, (enum hg_char_class)NOTHING, 0};
    if (at >= w->n)
        return c;
    w->n_looks++;
    c.len = (size_t)hg_utf8_decode(w->s + at, w->n - at, &c.cp);
    c.of = c.len ? hg_char_class(c.cp) : HG_CHAR_OTHER;
    c.len = c.len ? c.len : 1; /* the text was checked; stay safe without that */
    return c;
}

static bool is_newline(struct look c)
{
    return c.len && (c.cp == '\r' || c.cp == '\n');
}

/* Behind the run of this class that begins at or before `at`; at most `max` characters. */
static size_t run_end(struct hg_words *w, size_t at, enum hg_char_class of, size_t max)
{
    struct look c;
    for (; max > 0 && (c = look_at(w, at)).of == of; max--)
        at += c.len;
    return at;
}

/* 's 't 're 've 'm 'll 'd at an apostrophe; 0: none. Ignoring case, U+017F (long s) is an s. */
static size_t contraction_len(const char *s, size_t n, bool ignore_case)
{
    static const char *const ends[] = {"s", "t", "re", "ve", "m", "ll", "d"};
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
        size_t len = strlen(ends[i]), same = 0;
        while (same < len && 1 + same < n &&
               (ignore_case && s[1 + same] >= 'A' && s[1 + same] <= 'Z'
                    ? s[1 + same] | 32
                    : s[1 + same]) == ends[i][same])
            same++;
        if (same == len)
            return 1 + len;
    }
    return ignore_case && n >= 3 && !memcmp(s + 1, "\xc5\xbf", 2) ? 3 : 0;
}

/* \s*[\r\n]+ (with `newlines`), \s+(?!\S), \s+ at a whitespace character. */
static size_t space_end(struct hg_words *w, size_t at, bool newlines)
{
    size_t end = at, last = at, behind_newline = 0;
    for (struct look c; (c = look_at(w, end)).of == HG_CHAR_SPACE;) {
        last = end;
        end += c.len;
        if (is_newline(c))
            behind_newline = end;
    }
    if (newlines && behind_newline)
        return behind_newline;
    return end == w->n || last == at ? end : last; /* the last one goes to the word behind it */
}

static size_t gpt2_end(struct hg_words *w)
{
    size_t at = w->at, len = 0;
    if (w->s[at] == '\'' && (len = contraction_len(w->s + at, w->n - at, false)) > 0)
        return at + len;
    size_t begin = at + (w->s[at] == ' ');
    enum hg_char_class of = look_at(w, begin).of;
    if (of == HG_CHAR_LETTER || of == HG_CHAR_NUMBER || of == HG_CHAR_OTHER)
        return run_end(w, begin, of, SIZE_MAX);
    return space_end(w, at, false);
}

static size_t qwen2_end(struct hg_words *w, size_t max_digits)
{
    size_t at = w->at, len = 0;
    if (w->s[at] == '\'' && (len = contraction_len(w->s + at, w->n - at, true)) > 0)
        return at + len;
    struct look c = look_at(w, at);
    if (c.of == HG_CHAR_LETTER)
        return run_end(w, at, HG_CHAR_LETTER, SIZE_MAX);
    if (c.of == HG_CHAR_NUMBER)
        return run_end(w, at, HG_CHAR_NUMBER, max_digits);
    struct look next = look_at(w, at + c.len);
    if (next.of == HG_CHAR_LETTER && !is_newline(c))
        return run_end(w, at + c.len, HG_CHAR_LETTER, SIZE_MAX);
    if (c.of == HG_CHAR_OTHER || (c.cp == ' ' && next.of == HG_CHAR_OTHER)) {
        size_t end = run_end(w, c.of == HG_CHAR_OTHER ? at : at + 1, HG_CHAR_OTHER, SIZE_MAX);
        while (is_newline(look_at(w, end)))
            end++;
        return end;
    }
    return space_end(w, at, true);
}

bool hg_words_next(struct hg_words *w, const char **word, size_t *n)
{
    if (w->at >= w->n)
        return false;
    size_t end = w->pattern == HG_PATTERN_GPT2    ? gpt2_end(w)
                 : w->pattern == HG_PATTERN_QWEN2 ? qwen2_end(w, 1)
                                                  : qwen2_end(w, 3);
    *word = w->s + w->at;
    *n = end - w->at;
    w->at = end;
    return true;
}

/* ---- names ---- */

enum hg_pattern hg_pattern_of_regex(const char *regex)
{
    static const char *const known[HG_PATTERN_COUNT] = {
        [HG_PATTERN_GPT2] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|"
                            "\\s+(?!\\S)|\\s+",
        [HG_PATTERN_QWEN2] = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}|"
                             " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
        [HG_PATTERN_CL100K] = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|"
                              "\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|"
                              "\\s+(?!\\S)|\\s+",
    };
    for (int i = 0; i < HG_PATTERN_COUNT; i++)
        if (!strcmp(regex, known[i]))
            return (enum hg_pattern)i;
    return HG_PATTERN_COUNT;
}

enum hg_pattern hg_pattern_of_name(const char *name)
{
    static const char *const names[HG_PATTERN_COUNT] = {"gpt2", "qwen2", "cl100k"};
    for (int i = 0; i < HG_PATTERN_COUNT; i++)
        if (!strcmp(name, names[i]))
            return (enum hg_pattern)i;
    return HG_PATTERN_COUNT;
}
