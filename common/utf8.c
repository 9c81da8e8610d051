/* common/utf8.c - the well-formed sequences of Unicode table 3-7, nothing else. */
#include "common/utf8.h"

/* What a lead byte announces: sequence length and the range of the second byte. The narrower ranges
 * exclude overlong forms (E0, F0), surrogates (ED) and values above U+10FFFF (F4). */
struct lead {
    int len; /* 0: not a lead byte */
    unsigned char min2, max2;
};

static struct lead lead_of(unsigned char c)
{
    if (c < 0x80)
        return (struct lead){1, 0, 0};
    if (c < 0xc2 || c > 0xf4)
        return (struct lead){0, 0, 0};
    if (c < 0xe0)
        return (struct lead){2, 0x80, 0xbf};
    if (c < 0xf0)
        return (struct lead){3, c == 0xe0 ? 0xa0 : 0x80, c == 0xed ? 0x9f : 0xbf};
    return (struct lead){4, c == 0xf0 ? 0x90 : 0x80, c == 0xf4 ? 0x8f : 0xbf};
}

/* Number of bytes at s[0..n) that fit the sequence announced by s[0]; at most its length. */
static int matching_bytes(const unsigned char *s, size_t n, struct lead lead)
{
    int i = 1;
    for (; i < lead.len && (size_t)i < n; i++) {
        unsigned char lo = i == 1 ? lead.min2 : 0x80, hi = i == 1 ? lead.max2 : 0xbf;
        if (s[i] < lo || s[i] > hi)
            break;
    }
    return i;
}

int hg_utf8_decode(const char *s, size_t n, uint32_t *cp)
{
    const unsigned char *u = (const unsigned char *)s;
    if (n == 0)
        return 0;
    struct lead lead = lead_of(u[0]);
    if (lead.len == 0 || matching_bytes(u, n, lead) != lead.len)
        return 0;
    /* Payload bits of the lead byte: 7, 5, 4, 3 for lengths 1 to 4. */
    uint32_t v = lead.len == 1 ? u[0] : u[0] & (0x7fu >> lead.len);
    for (int i = 1; i < lead.len; i++)
        v = v << 6 | (u[i] & 0x3fu);
    *cp = v;
    return lead.len;
}

int hg_utf8_encode(uint32_t cp, char out[4])
{
    if (cp > 0x10ffffu || (cp >= 0xd800u && cp < 0xe000u))
        return 0;
    if (cp < 0x80) {
        out[0] = (char)cp;
        return 1;
    }
    int len = cp < 0x800 ? 2 : cp < 0x10000 ? 3 : 4;
    for (int i = len - 1; i > 0; i--) {
        out[i] = (char)(0x80u | (cp & 0x3fu));
        cp >>= 6;
    }
    out[0] = (char)((0xf00u >> len & 0xffu) | cp);
    return len;
}

size_t hg_utf8_valid_prefix(const char *s, size_t n)
{
    size_t i = 0;
    uint32_t cp;
    while (i < n) {
        int len = hg_utf8_decode(s + i, n - i, &cp);
        if (len == 0)
            break;
        i += (size_t)len;
    }
    return i;
}

bool hg_utf8_valid(const char *s, size_t n)
{
    return hg_utf8_valid_prefix(s, n) == n;
}

size_t hg_utf8_incomplete_tail(const char *s, size_t n)
{
    const unsigned char *u = (const unsigned char *)s;
    for (size_t back = 1; back <= 3 && back <= n; back++) {
        unsigned char c = u[n - back];
        if ((c & 0xc0u) == 0x80u)
            continue;
        struct lead lead = lead_of(c);
        bool open =
            (size_t)lead.len > back && matching_bytes(u + n - back, back, lead) == (int)back;
        return open ? back : 0;
    }
    return 0;
}
