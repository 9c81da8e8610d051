/* tools/healthgpt/cards.h - common NVIDIA cards by their memory: which of them hold so much? */
#ifndef HG_TOOLS_CARDS_H
#define HG_TOOLS_CARDS_H

#include <stdint.h>

#include "server/json_text.h"

enum { HG_CARDS_TEXT = 160 };

/* share: of a card's memory that is taken (gpu_memory_utilization). Members "fits_cards_gb", the
 * sizes in 10^9 bytes, and "fits_cards", the names. */
void hg_cards_put(struct hg_json_out *o, int64_t bytes, double share);
/* "24, 40, 80 (L4, A10, A100, ...)"; "" for none. */
void hg_cards_text(int64_t bytes, double share, char out[HG_CARDS_TEXT]);

#endif
