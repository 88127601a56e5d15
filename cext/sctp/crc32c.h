/* CRC-32C, as SCTP has it (RFC 9260, appendix A): by the processor's own instruction where it has one.  Start with
 * CRC32C_START, feed any number of pieces, finish with crc32c_finish(). */

#ifndef CONFLUX_CRC32C_H
#define CONFLUX_CRC32C_H

#include <stddef.h>
#include <stdint.h>

#define CRC32C_START UINT32_MAX

typedef uint32_t (*crc32c_update)(uint32_t crc, const uint8_t *data, size_t size);

/* The fastest this processor has; asked once and kept. */
crc32c_update crc32c_best(void);

/* By table, a byte at a time: for processors without the instruction, and what the other is tested against. */
uint32_t crc32c_portable(uint32_t crc, const uint8_t *data, size_t size);

static inline uint32_t crc32c_finish(uint32_t crc) { return ~crc; }

#endif
