/* tools/healthgpt/cards.c - a small table of cards. */
#include "tools/healthgpt/cards.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static const struct {
    const char *name;
    int gb;
} cards[] = {{"T4", 16},   {"L4", 24},   {"A10", 24},  {"RTX 4090", 24}, {"A100", 40},
             {"L40S", 48}, {"A100", 80}, {"H100", 80}, {"H200", 141}};
enum { N_CARDS = sizeof cards / sizeof cards[0] };

static bool fits(int i, int64_t bytes, double share)
{
    return (double)bytes <= share * cards[i].gb * 1e9;
}

/* A name of two sizes is said once. */
static bool is_said(int i, int64_t bytes, double share)
{
    for (int k = 0; k < i; k++)
        if (strcmp(cards[k].name, cards[i].name) == 0 && fits(k, bytes, share))
            return true;
    return false;
}

void hg_cards_put(struct hg_json_out *o, int64_t bytes, double share)
{
    char name[32];
    hg_out_open(o, "fits_cards_gb", '[');
    for (int i = 0; i < N_CARDS; i++)
        if (fits(i, bytes, share) && (i == 0 || cards[i - 1].gb != cards[i].gb))
            hg_out_int(o, NULL, cards[i].gb);
    hg_out_close(o, ']');
    hg_out_open(o, "fits_cards", '[');
    for (int i = 0; i < N_CARDS; i++) {
        snprintf(name, sizeof name, "%s %d GB", cards[i].name, cards[i].gb);
        if (fits(i, bytes, share))
            hg_out_string(o, NULL, name);
    }
    hg_out_close(o, ']');
}

void hg_cards_text(int64_t bytes, double share, char out[HG_CARDS_TEXT])
{
    size_t at = 0;
    int last = 0;
    out[0] = '\0';
    for (int i = 0; i < N_CARDS; i++)
        if (fits(i, bytes, share) && cards[i].gb != last)
            at += (size_t)snprintf(out + at, HG_CARDS_TEXT - at, "%s%d", at ? ", " : "",
                                   last = cards[i].gb);
    for (int i = 0; i < N_CARDS && at < HG_CARDS_TEXT - 16; i++)
        if (fits(i, bytes, share) && !is_said(i, bytes, share))
            at += (size_t)snprintf(out + at, HG_CARDS_TEXT - at, "%s%s", last ? " (" : ", ",
                                   cards[i].name),
                last = 0;
    if (at)
        snprintf(out + at, HG_CARDS_TEXT - at, ")");
}
