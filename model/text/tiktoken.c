#include "model/text/tiktoken.h"

#include <string.h>

#include "common/base64.h"
#include "common/utf8.h"
#include "model/text/byte_level.h"

enum { MAX_LINE = 2 * HG_PIECE_MAX_LEN };

struct line {
    const char *base64;
    size_t n_base64;
    int64_t rank;
};

/* "IQ== 0", also with CR at the end. False: something else. */
static bool read_line(const char *s, size_t n, struct line *out)
{
    if (n > 0 && s[n - 1] == '\r')
        n--;
    const char *space = memchr(s, ' ', n < MAX_LINE ? n : MAX_LINE);
    if (!space || space == s)
        return false;
    size_t at = (size_t)(space - s) + 1;
    if (at == n || n - at > 9)
        return false;
    *out = (struct line){.base64 = s, .n_base64 = at - 1};
    for (; at < n; at++) {
        if (s[at] < '0' || s[at] > '9')
            return false;
        out->rank = out->rank * 10 + (s[at] - '0');
    }
    for (size_t i = 0; i < out->n_base64; i++)
        if (!strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=", s[i]))
            return false;
    return true;
}

static size_t line_len(const char *s, size_t n)
{
    const char *end = memchr(s, '\n', n);
    return end ? (size_t)(end - s) : n;
}

bool hg_is_tiktoken(const unsigned char *data, size_t n)
{
    struct line line;
    size_t some = n < MAX_LINE ? n : MAX_LINE;
    return some > 0 && !memchr(data, 0, some) &&
           read_line((const char *)data, line_len((const char *)data, some), &line);
}

static enum hg_status put_line(const char *s, size_t n, struct hg_buf *bytes, struct hg_buf *text,
                               struct hg_tokenizer *t, struct hg_error *err)
{
    struct line line = {0};
    struct hg_error cause = {0};
    hg_buf_clear(bytes);
    hg_buf_clear(text);
    if (!read_line(s, n, &line))
        return hg_fail(err, HG_STATUS_BAD_FILE, "expected base64, a space and a rank");
    if (hg_base64_decode(line.base64, line.n_base64, HG_PIECE_MAX_LEN, bytes, &cause))
        return hg_fail(err, HG_STATUS_BAD_FILE, "%s", cause.text);
    for (size_t i = 0; i < bytes->len; i++) {
        char c[4];
        int len = hg_utf8_encode(hg_byte_level_char((unsigned char)bytes->data[i]), c);
        if (hg_buf_append(text, c, (size_t)len))
            return hg_fail(err, HG_STATUS_NO_MEMORY, "no memory");
    }
    return hg_vocab_put(&t->vocab, line.rank, text->data ? text->data : "", text->len,
                        HG_PIECE_NORMAL, -(float)line.rank, err);
}

enum hg_status hg_tiktoken_ranks(const char *where, const unsigned char *data, size_t n,
                                 enum hg_pattern pattern, struct hg_tokenizer *t,
                                 struct hg_error *err)
{
    struct hg_buf bytes = {0}, text = {0};
    enum hg_status status = HG_STATUS_OK;
    size_t number = 1;
    t->pattern = pattern == HG_PATTERN_COUNT ? HG_PATTERN_CL100K : pattern;
    t->family = pattern == HG_PATTERN_QWEN2 ? HG_FAMILY_QWEN2 : HG_FAMILY_GPT2;
    t->by_rank = true;
    for (size_t at = 0, len; at < n; at += len + 1, number++) {
        const char *s = (const char *)data + at;
        struct hg_error cause = {0};
        len = line_len(s, n - at);
        if (len == 0 || (len == 1 && s[0] == '\r'))
            continue;
        status = put_line(s, len, &bytes, &text, t, &cause);
        if (status != HG_STATUS_OK)
            HG_TRY_OUT(hg_fail(err, status, "%.80s: line %zu: %.120s", where, number, cause.text));
    }
    status = hg_byte_level_finish(where, t, err);
out:
    hg_buf_deinit(&bytes);
    hg_buf_deinit(&text);
    return status;
}
