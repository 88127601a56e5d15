/* Serial numbers, and rings of bits by TSN.  A ring's span is a power of two and a multiple of 64. */

#ifndef CONFLUX_SCTP_RING_H
#define CONFLUX_SCTP_RING_H

#include <stdbool.h>
#include <stdint.h>

/* Serial number arithmetic (RFC 1982). */
static inline bool tsn_after(uint32_t a, uint32_t b) { return (int32_t)(a - b) > 0; }
static inline bool ssn_after(uint16_t a, uint16_t b) { return (int16_t)(a - b) > 0; }

static inline bool bit_test(const uint64_t *bits, uint32_t span, uint32_t tsn)
{
    return bits[(tsn & (span - 1)) >> 6] >> (tsn & 63) & 1;
}

static inline void bit_set(uint64_t *bits, uint32_t span, uint32_t tsn)
{
    bits[(tsn & (span - 1)) >> 6] |= UINT64_C(1) << (tsn & 63);
}

static inline void bit_clear(uint64_t *bits, uint32_t span, uint32_t tsn)
{
    bits[(tsn & (span - 1)) >> 6] &= ~(UINT64_C(1) << (tsn & 63));
}

/* The first TSN from tsn on whose bit is as wanted, or limit if there is none before it.  limit - tsn <= span. */
static inline uint32_t bit_next(const uint64_t *bits, uint32_t span, uint32_t tsn, uint32_t limit, bool wanted)
{
    while (tsn != limit) {
        uint64_t word = bits[(tsn & (span - 1)) >> 6];
        uint32_t left = 64 - (tsn & 63);

        word = (wanted ? word : ~word) >> (tsn & 63);
        if (word != 0) {
            uint32_t skip = (uint32_t)__builtin_ctzll(word);
            return skip < limit - tsn ? tsn + skip : limit;
        }
        if (left >= limit - tsn)
            return limit;
        tsn += left;
    }
    return limit;
}

/* The last TSN from tsn on, and before limit, whose bit is set; tsn - 1 if there is none.  limit - tsn <= span. */
static inline uint32_t bit_last(const uint64_t *bits, uint32_t span, uint32_t tsn, uint32_t limit)
{
    while (tsn != limit) {
        uint32_t last = limit - 1, left = (last & 63) + 1;
        uint64_t word = bits[(last & (span - 1)) >> 6] << (64 - left);

        if (word != 0) {
            uint32_t skip = (uint32_t)__builtin_clzll(word);
            return skip < limit - tsn ? last - skip : tsn - 1;
        }
        if (left >= limit - tsn)
            return tsn - 1;
        limit -= left;
    }
    return tsn - 1;
}

#endif
