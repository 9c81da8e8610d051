/* common/checksum.h - CRC-32C (Castagnoli, RFC 3720 appendix B.4): polynomial 0x1edc6f41,
 * reflected, initial value and final xor 0xffffffff; the sum of "123456789" is 0xe3069283.
 *
 * It finds damaged weights; it does not keep out somebody who wants to be let in. */
#ifndef HG_COMMON_CHECKSUM_H
#define HG_COMMON_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>

/* Of a buffer that follows bytes with the sum `crc` (0: of nothing), so that pieces add up to the
 * whole: crc32c(crc32c(0, a), b) = crc32c(0, a b). By the processor's instruction where it has
 * one. */
uint32_t hg_crc32c(uint32_t crc, const void *data, size_t n);
/* The same by tables alone, for tests and other processors. */
uint32_t hg_crc32c_portable(uint32_t crc, const void *data, size_t n);

#endif
