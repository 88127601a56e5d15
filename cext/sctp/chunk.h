/* Chunks as they lie in a packet (RFC 9260, section 3): types, flags, causes, sizes. */

#ifndef CONFLUX_SCTP_CHUNK_H
#define CONFLUX_SCTP_CHUNK_H

#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"

enum {
    SCTP_HEADER_BYTES = 12, /* of a packet */
    SCTP_CHUNK_HEADER_BYTES = 4,
    SCTP_DATA_HEADER_BYTES = 16,
};

enum sctp_chunk {
    SCTP_DATA = 0,
    SCTP_INIT = 1,
    SCTP_INIT_ACK = 2,
    SCTP_SACK = 3,
    SCTP_HEARTBEAT = 4,
    SCTP_HEARTBEAT_ACK = 5,
    SCTP_ABORT = 6,
    SCTP_SHUTDOWN = 7,
    SCTP_SHUTDOWN_ACK = 8,
    SCTP_ERROR = 9,
    SCTP_COOKIE_ECHO = 10,
    SCTP_COOKIE_ACK = 11,
    SCTP_SHUTDOWN_COMPLETE = 14,
    SCTP_RECONFIG = 130,
    SCTP_PAD = 132,
    SCTP_FORWARD_TSN = 192,
};

enum { SCTP_FLAG_END = 1, SCTP_FLAG_BEGIN = 2, SCTP_FLAG_UNORDERED = 4, SCTP_FLAG_IMMEDIATE = 8 };

enum sctp_cause {
    SCTP_CAUSE_STREAM = 1,
    SCTP_CAUSE_STALE_COOKIE = 3,
    SCTP_CAUSE_CHUNK_TYPE = 6,
    SCTP_CAUSE_NO_DATA = 9,
    SCTP_CAUSE_USER = 12,
    SCTP_CAUSE_VIOLATION = 13,
};

static inline uint8_t *store_chunk_header(uint8_t *at, uint8_t type, uint8_t flags, size_t size)
{
    at[0] = type;
    at[1] = flags;
    store_be16(at + 2, (uint16_t)size);
    return at + SCTP_CHUNK_HEADER_BYTES;
}

static inline size_t padded(size_t size) { return (size + 3) & ~(size_t)3; }

#endif
