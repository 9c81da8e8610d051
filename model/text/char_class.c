#include "model/text/char_class.h"

static enum hg_char_class of_ascii(uint32_t c)
{
    if ((c | 32) >= 'a' && (c | 32) <= 'z')
        return HG_CHAR_LETTER;
    if (c >= '0' && c <= '9')
        return HG_CHAR_NUMBER;
    return c == ' ' || (c >= '\t' && c <= '\r') ? HG_CHAR_SPACE : HG_CHAR_OTHER;
}

enum hg_char_class hg_char_class(uint32_t cp)
{
    if (cp < 0x80)
        return of_ascii(cp);
    size_t begin = 0, end = hg_n_char_ranges; /* the range is in [begin, end), if there is one */
    while (begin < end) {
        size_t middle = begin + (end - begin) / 2;
        if (cp > hg_char_ranges[middle].last)
            begin = middle + 1;
        else if (cp < hg_char_ranges[middle].first)
            end = middle;
        else
            return hg_char_ranges[middle].of;
    }
    return HG_CHAR_OTHER;
}
