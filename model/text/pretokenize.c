#define PCRE2_CODE_UNIT_WIDTH 8
#include "model/text/pretokenize.h"

#include <pcre2.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "common/utf8.h"

/* Unicode White_Space (reference.md section 20); S inside a class */
#define S                                                                                          \
    "\\t-\\r "                                                                                     \
    "\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}"
#define SPACES "[" S "]+(?![^" S "])|[" S "]+"

static const struct {
    const char *own;   /* what we compile */
    const char *known; /* the same thing as tokenizer.json files spell it */
} patterns[HG_PATTERN_COUNT] = {
    [HG_PATTERN_GPT2] = {"'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^" S
                         "\\p{L}\\p{N}]+|" SPACES,
                         "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|"
                         "\\s+(?!\\S)|\\s+"},
    [HG_PATTERN_QWEN2] = {"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}|"
                          " ?[^" S "\\p{L}\\p{N}]+[\\r\\n]*|[" S "]*[\\r\\n]+|" SPACES,
                          "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}|"
                          " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"},
    [HG_PATTERN_CL100K] = {"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}|"
                           " ?[^" S "\\p{L}\\p{N}]+[\\r\\n]*|[" S "]*[\\r\\n]+|" SPACES,
                           "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}|"
                           " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"},
};

struct hg_pretokenizer {
    pcre2_code *code;
    pcre2_match_context *limits;
};

enum { MATCH_LIMIT = 200 << 20, DEPTH_LIMIT = 4096, HEAP_LIMIT_KIB = 64 << 10 };

void hg_pretokenizer_destroy(struct hg_pretokenizer *p)
{
    if (!p)
        return;
    pcre2_match_context_free(p->limits);
    pcre2_code_free(p->code);
    free(p);
}

enum hg_status hg_pretokenizer_create(enum hg_pattern pattern, struct hg_pretokenizer **out,
                                      struct hg_error *err)
{
    int code;
    PCRE2_SIZE at;
    PCRE2_UCHAR text[120] = "";
    *out = NULL;
    struct hg_pretokenizer *p = calloc(1, sizeof *p);
    if (!p)
        return hg_fail(err, HG_STATUS_NO_MEMORY, "tokenizer: no memory for the pattern");
    /* Anchored, no start optimisation: a search may look at far bytes and make the walk quadratic.
     */
    p->code = pcre2_compile((PCRE2_SPTR)patterns[pattern].own, PCRE2_ZERO_TERMINATED,
                            PCRE2_UTF | PCRE2_UCP | PCRE2_ANCHORED | PCRE2_NO_START_OPTIMIZE, &code,
                            &at, NULL);
    if (!p->code) {
        pcre2_get_error_message(code, text, sizeof text);
        hg_pretokenizer_destroy(p);
        return hg_fail(err, HG_STATUS_INTERNAL, "tokenizer: pattern %d: %s at %zu", (int)pattern,
                       (const char *)text, (size_t)at);
    }
    p->limits = pcre2_match_context_create(NULL);
    if (!p->limits) {
        hg_pretokenizer_destroy(p);
        return hg_fail(err, HG_STATUS_NO_MEMORY, "tokenizer: no memory for the pattern");
    }
    pcre2_set_match_limit(p->limits, MATCH_LIMIT);
    pcre2_set_depth_limit(p->limits, DEPTH_LIMIT);
    pcre2_set_heap_limit(p->limits, HEAP_LIMIT_KIB);
    (void)pcre2_jit_compile(p->code, PCRE2_JIT_COMPLETE); /* slower without, not wrong */
    *out = p;
    return HG_STATUS_OK;
}

static enum hg_status status_of(int code)
{
    switch (code) {
    case PCRE2_ERROR_NOMEMORY:
        return HG_STATUS_NO_MEMORY;
    case PCRE2_ERROR_MATCHLIMIT:
    case PCRE2_ERROR_DEPTHLIMIT:
    case PCRE2_ERROR_HEAPLIMIT:
    case PCRE2_ERROR_JIT_STACKLIMIT:
        return HG_STATUS_TOO_LARGE;
    default:
        return HG_STATUS_INTERNAL;
    }
}

enum hg_status hg_pretokenizer_run(const struct hg_pretokenizer *p, const char *s, size_t n,
                                   hg_word_fn word, void *user)
{
    pcre2_match_data *match = pcre2_match_data_create(1, NULL);
    if (!match)
        return HG_STATUS_NO_MEMORY;
    enum hg_status status = HG_STATUS_OK;
    for (size_t at = 0, end; at < n && status == HG_STATUS_OK; at = end) {
        /* the text was checked once; checking it for every word would be quadratic */
        int code = pcre2_match(p->code, (PCRE2_SPTR)s, n, at, PCRE2_NO_UTF_CHECK, match, p->limits);
        end = code > 0 ? pcre2_get_ovector_pointer(match)[1] : at;
        if (code < 0 && code != PCRE2_ERROR_NOMATCH) {
            status = status_of(code);
        } else if (end <= at) { /* the patterns cover every character; stay safe without that */
            uint32_t cp;
            int len = hg_utf8_decode(s + at, n - at, &cp);
            end = at + (len ? (size_t)len : 1);
        }
        if (status == HG_STATUS_OK)
            status = word(user, s + at, end - at);
    }
    pcre2_match_data_free(match);
    return status;
}

enum hg_pattern hg_pattern_of_regex(const char *regex)
{
    for (int i = 0; i < HG_PATTERN_COUNT; i++)
        if (!strcmp(regex, patterns[i].known))
            return (enum hg_pattern)i;
    return HG_PATTERN_COUNT;
}
