/* How large a packet may be (RFC 8899): a size is tried with a HEARTBEAT padded to it (RFC 4820), and data takes it
 * once that was answered.  Tries the largest first, for that is what most paths carry, then halves.  When only large
 * packets are lost the path has a black hole: back to the size every path carries, and on from there later. */

#include <string.h>

#include "sctp_private.h"

enum {
    TRIES_MAX = 3, /* of one size; RFC 8899's MAX_PROBES */
    STEP_BYTES_MIN = 32, /* a difference not worth another probe */
    LARGE_LOST_MAX = 8, /* rounds in a row; with one packet in ten lost that comes once in 10^8 */
    LARGE_TIMEOUTS_MAX = 2,
    HOLES_MAX = 8, /* bounds the exponent below */
    HEARTBEAT_BYTES = SCTP_CHUNK_HEADER_BYTES + 4 + 8,
};

#define PROBE_NS_MIN (100 * SCTP_MS_NS)
#define RAISE_NS (600 * SCTP_SECOND_NS) /* RFC 8899's PMTU_RAISE_TIMER: paths change */
#define HOLE_NS (2 * SCTP_SECOND_NS) /* until the search begins again, doubled with each black hole */

static void set_packet_bytes(struct sctp *self, uint32_t bytes)
{
    self->packet_bytes = bytes;
    rate_packet_bytes(&self->rate, bytes);
    sctp_pace_refresh(self);
}

/* Choose what to try next, or rest. */
static void next_probe(struct sctp *self, uint64_t now)
{
    uint32_t low = self->packet_bytes, high = self->mtu_failed;

    self->mtu_tries = 0;
    if (high > self->packet_bytes_max) {
        self->mtu_probe = low == self->packet_bytes_max ? 0 : self->packet_bytes_max;
    } else {
        uint32_t middle = (low + high) / 2 & ~(uint32_t)3;

        self->mtu_probe = high - low < STEP_BYTES_MIN || middle <= low ? 0 : middle;
    }
    self->mtu_due = self->mtu_probe != 0;
    self->mtu_at = self->mtu_due || low == self->packet_bytes_max ? SCTP_NEVER : now + RAISE_NS;
}

void sctp_mtu_start(struct sctp *self, uint64_t now)
{
    self->mtu_failed = self->packet_bytes_max + 1;
    next_probe(self, now);
}

void sctp_mtu_timeout(struct sctp *self, uint64_t now)
{
    self->mtu_at = SCTP_NEVER;
    if (self->mtu_probe == 0) {
        sctp_mtu_start(self, now);
    } else if (self->mtu_tries < TRIES_MAX) {
        self->mtu_due = true;
    } else {
        self->mtu_failed = self->mtu_probe;
        next_probe(self, now);
    }
}

size_t sctp_put_mtu_probe(struct sctp *self, uint8_t *packet, size_t room, uint64_t now)
{
    uint8_t *at = packet + SCTP_HEADER_BYTES;

    self->mtu_due = false;
    self->mtu_tries++;
    self->mtu_at = now + later(3 * self->srtt, PROBE_NS_MIN);
    if (self->mtu_probe > room)
        return 0; /* the caller does not want packets of this size, and so they do not pass */
    self->mtu_nonce = sctp_random(self);
    at = store_chunk_header(at, SCTP_HEARTBEAT, 0, HEARTBEAT_BYTES);
    store_be16(at, 1);
    store_be16(at + 2, 12);
    store_be32(at + 4, (uint32_t)(self->mtu_nonce >> 32));
    store_be32(at + 8, (uint32_t)self->mtu_nonce);
    size_t padding = self->mtu_probe - SCTP_HEADER_BYTES - HEARTBEAT_BYTES;
    at = store_chunk_header(at + 12, SCTP_PAD, 0, padding);
    memset(at, 0, padding - SCTP_CHUNK_HEADER_BYTES);
    return self->mtu_probe;
}

bool sctp_mtu_answered(struct sctp *self, uint64_t nonce, uint64_t now)
{
    if (self->mtu_probe == 0 || self->mtu_tries == 0 || nonce != self->mtu_nonce)
        return false;
    set_packet_bytes(self, self->mtu_probe);
    next_probe(self, now);
    return true;
}

/* Large packets do not pass any longer. */
static void hole(struct sctp *self, uint64_t now)
{
    self->large_lost = self->large_timeouts = 0;
    if (self->packet_bytes == SCTP_PACKET_BYTES_MIN)
        return;
    set_packet_bytes(self, SCTP_PACKET_BYTES_MIN);
    self->mtu_probe = 0;
    self->mtu_due = false;
    self->mtu_at = now + (HOLE_NS << self->mtu_holes);
    if (self->mtu_holes < HOLES_MAX)
        self->mtu_holes++;
}

void sctp_mtu_lost(struct sctp *self, uint32_t bytes, uint64_t sent_at, uint64_t now)
{
    /* A burst that is lost, or reordered, counts once: only what was sent when the last loss was known is news. */
    if (bytes <= SCTP_PACKET_BYTES_MIN || sent_at < self->large_lost_at)
        return;
    self->large_lost_at = now;
    if (++self->large_lost >= LARGE_LOST_MAX)
        hole(self, now);
}

void sctp_mtu_timed_out(struct sctp *self, uint64_t now)
{
    if (self->large_lost > 0 && ++self->large_timeouts >= LARGE_TIMEOUTS_MAX)
        hole(self, now);
}
