/* model/text/byte_level.h - GPT-2's byte alphabet and the encoder of the byte-level families.
 *
 * Vocabulary files write every byte as a printable character: 0x21-0x7E, 0xA1-0xAC, 0xAE-0xFF stand
 * for themselves, the other 68 bytes are U+0100, U+0101, ... in order (space is U+0120). */
#ifndef HG_MODEL_TEXT_BYTE_LEVEL_H
#define HG_MODEL_TEXT_BYTE_LEVEL_H

#include "model/text/internal.h"

uint32_t hg_byte_level_char(unsigned char byte);
int hg_byte_level_byte(uint32_t cp); /* -1: not in the alphabet */

/* The last check of every load, when the added tokens are known: no byte's token is one of them, or
 * a user could type it. BAD_FILE. */
enum hg_status hg_bytes_are_plain(const char *where, const struct hg_tokenizer *t,
                                  struct hg_error *err);

/* Find the 256 byte tokens of a filled vocabulary; a missing one needs an unk token. */
enum hg_status hg_byte_level_finish(const char *where, struct hg_tokenizer *t,
                                    struct hg_error *err);

enum hg_status hg_byte_level_encode(const struct hg_tokenizer *t, struct hg_encode_work *w,
                                    const char *s, size_t n, struct hg_ids *ids);

#endif
