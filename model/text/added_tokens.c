#include "model/text/added_tokens.h"

#include <inttypes.h>
#include <stdlib.h>

#include "common/utf8.h"

/* ---- finding ---- */

static bool has_bit(const uint64_t bits[4], size_t i)
{
    return bits[i >> 6] >> (i & 63) & 1;
}

void hg_prefix_set_add(struct hg_prefix_set *set, const char *s, size_t n)
{
    unsigned char first = (unsigned char)s[0];
    set->lens[n >> 6] |= 1ull << (n & 63);
    set->first[first >> 6] |= 1ull << (first & 63);
    if (n > set->max_len)
        set->max_len = n;
}

int32_t hg_prefix_set_match(const struct hg_prefix_set *set, const struct hg_vocab *v,
                            bool (*wanted)(const struct hg_piece *), const char *s, size_t n)
{
    if (n == 0 || set->max_len == 0 || !has_bit(set->first, (unsigned char)s[0]))
        return -1;
    int32_t best = -1;
    uint32_t hash = HG_HASH_SEED;
    for (size_t len = 1; len <= n && len <= set->max_len; len++) {
        hash = hg_hash_step(hash, (unsigned char)s[len - 1]);
        if (!has_bit(set->lens, len))
            continue;
        int32_t id = hg_vocab_find_hashed(v, hash, s, len);
        if (id >= 0 && wanted(&v->pieces[id]))
            best = id;
    }
    return best;
}

bool hg_piece_is_added(const struct hg_piece *p)
{
    return p->flags & HG_PIECE_ADDED;
}

enum hg_status hg_added_put(struct hg_vocab *v, struct hg_prefix_set *set, int64_t id,
                            const char *s, size_t n, unsigned flags, struct hg_error *err)
{
    if (n == 0 || n > HG_ADDED_MAX_LEN || !hg_utf8_valid(s, n))
        return hg_fail(err, HG_STATUS_BAD_FILE,
                       "tokenizer: added token %" PRId64 " is %zu bytes, expected 1..%d of UTF-8",
                       id, n, HG_ADDED_MAX_LEN);
    int32_t have = hg_vocab_find(v, s, n);
    if (have < 0 || have != id)
        HG_TRY(hg_vocab_put(v, id, s, n, HG_PIECE_EXTRA, 0.0f, err)); /* names what is in the way */
    v->pieces[id].flags = (uint8_t)(flags | HG_PIECE_ADDED);
    hg_prefix_set_add(set, s, n);
    return HG_STATUS_OK;
}

/* ---- stripping: Python's str.strip() set (reference.md section 20) ---- */

static bool is_python_space(uint32_t cp)
{
    return (cp >= 0x09 && cp <= 0x0d) || (cp >= 0x1c && cp <= 0x20) || cp == 0x85 || cp == 0xa0 ||
           cp == 0x1680 || (cp >= 0x2000 && cp <= 0x200a) || cp == 0x2028 || cp == 0x2029 ||
           cp == 0x202f || cp == 0x205f || cp == 0x3000;
}

static size_t strip_left(const char *s, size_t begin, size_t end)
{
    uint32_t cp;
    while (begin < end) {
        int len = hg_utf8_decode(s + begin, end - begin, &cp);
        if (len == 0 || !is_python_space(cp))
            break;
        begin += (size_t)len;
    }
    return begin;
}

static size_t strip_right(const char *s, size_t begin, size_t end)
{
    uint32_t cp;
    while (begin < end) {
        size_t at = end - 1;
        while (at > begin && ((unsigned char)s[at] & 0xc0) == 0x80)
            at--;
        if (hg_utf8_decode(s + at, end - at, &cp) == 0 || !is_python_space(cp))
            break;
        end = at;
    }
    return end;
}

/* ---- cutting ---- */

void hg_segments_deinit(struct hg_segments *segs)
{
    hg_buf_deinit(&segs->text);
    free(segs->data);
    *segs = (struct hg_segments){0};
}

static enum hg_status push(struct hg_segments *segs, size_t begin, size_t end, int32_t id)
{
    if (segs->n == segs->cap) {
        size_t cap = segs->cap ? segs->cap * 2 : 16;
        struct hg_segment *data = realloc(segs->data, cap * sizeof *data);
        if (!data)
            return HG_STATUS_NO_MEMORY;
        segs->data = data;
        segs->cap = cap;
    }
    segs->data[segs->n++] = (struct hg_segment){begin, end, id};
    return HG_STATUS_OK;
}

/* End the open text before an added token with these flags (0: the end of the chunk). */
static enum hg_status close_text(struct hg_segments *segs, unsigned next_flags)
{
    size_t begin = segs->open, end = segs->text.len;
    if (segs->strip)
        begin = strip_left(segs->text.data, begin, end);
    if (next_flags & HG_PIECE_LSTRIP)
        end = strip_right(segs->text.data, begin, end);
    segs->open = segs->text.len;
    segs->strip = next_flags & HG_PIECE_RSTRIP;
    return begin < end ? push(segs, begin, end, -1) : HG_STATUS_OK;
}

enum hg_status hg_segments_add(struct hg_segments *segs, const struct hg_vocab *v,
                               const struct hg_prefix_set *set, const char *s, size_t n,
                               bool trusted)
{
    size_t done = 0;
    for (size_t i = 0; trusted && i < n;) {
        int32_t id = hg_prefix_set_match(set, v, hg_piece_is_added, s + i, n - i);
        if (id < 0) {
            i++;
            continue;
        }
        HG_TRY(hg_buf_append(&segs->text, s + done, i - done));
        HG_TRY(close_text(segs, v->pieces[id].flags));
        HG_TRY(push(segs, 0, 0, id));
        i += v->pieces[id].n;
        done = i;
    }
    return hg_buf_append(&segs->text, s + done, n - done);
}

enum hg_status hg_segments_finish(struct hg_segments *segs)
{
    return close_text(segs, 0);
}
