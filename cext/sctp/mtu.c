/* How large a packet may be (RFC 8899).  A HEARTBEAT padded to a size (RFC 4820) probes it, and data uses that size
 * once the probe was answered.  The search begins when several packets were as full as they may be: a probe and its
 * answer cost more than a few packets save, and most links carry a few small ones.  The largest size is tried first, as most paths carry it, then the search halves.
 * When only large packets are lost, the path has a black hole: the size goes back to the one that every path
 * carries, and the search begins again later. */

#include <string.h>

#include "sctp/state.h"

enum {
    TRIES_MAX = 3, /* of one size; RFC 8899's MAX_PROBES */
    STEP_BYTES_MIN = 32, /* a smaller gain is not worth a probe */
    LARGE_LOST_MAX = 8, /* rounds in a row; by chance once in 10^8, with one packet in ten lost */
    LARGE_TIMEOUTS_MAX = 2,
    HOLES_MAX = 8, /* bounds the exponent below */
    FILLED_MIN = 8, /* a burst of bulk fills them at once; a lone packet of the overlay's MTU fills one */
    HEARTBEAT_BYTES = SCTP_CHUNK_HEADER_BYTES + 4 + 8,
};

#define PROBE_NS_MIN (100 * MS_NS)
#define RAISE_NS (600 * SECOND_NS) /* RFC 8899's PMTU_RAISE_TIMER: paths change */
#define HOLE_NS (2 * SECOND_NS) /* until the search begins again; doubled with each black hole */

static void set_packet_bytes(struct sctp *self, uint32_t bytes)
{
    self->packet_bytes = bytes;
    rate_packet_bytes(&self->rate, bytes);
    sctp_pace_refresh(self);
}

/* Choose the next size to probe, or rest. */
static void next_probe(struct sctp *self, uint64_t now)
{
    uint32_t low = self->packet_bytes, high = self->mtu.failed_bytes;

    self->mtu.tries = 0;
    if (high > self->packet_bytes_max) {
        self->mtu.probe_bytes = low == self->packet_bytes_max ? 0 : self->packet_bytes_max;
    } else {
        uint32_t middle = (low + high) / 2 & ~(uint32_t)3;

        self->mtu.probe_bytes = high - low < STEP_BYTES_MIN || middle <= low ? 0 : middle;
    }
    self->due.mtu = self->mtu.probe_bytes != 0;
    self->timers.mtu_at = self->due.mtu || low == self->packet_bytes_max ? NEVER : now + RAISE_NS;
}

static void start(struct sctp *self, uint64_t now)
{
    self->mtu.failed_bytes = self->packet_bytes_max + 1;
    next_probe(self, now);
}

bool sctp_mtu_waits(const struct sctp *self) { return self->mtu.filled < FILLED_MIN; }

void sctp_mtu_filled(struct sctp *self, uint64_t now)
{
    if (self->mtu.filled == FILLED_MIN || ++self->mtu.filled < FILLED_MIN)
        return;
    start(self, now);
    sctp_pace_refresh(self);
}

void sctp_mtu_timeout(struct sctp *self, uint64_t now)
{
    self->timers.mtu_at = NEVER;
    if (self->mtu.probe_bytes == 0) {
        start(self, now);
    } else if (self->mtu.tries < TRIES_MAX) {
        self->due.mtu = true;
    } else {
        self->mtu.failed_bytes = self->mtu.probe_bytes;
        next_probe(self, now);
    }
}

size_t sctp_mtu_put_probe(struct sctp *self, uint8_t *packet, size_t room, uint64_t now)
{
    uint8_t *at = packet + SCTP_HEADER_BYTES;

    self->due.mtu = false;
    self->mtu.tries++;
    self->timers.mtu_at = now + later(3 * self->rtt.srtt_ns, PROBE_NS_MIN);
    if (self->mtu.probe_bytes > room)
        return 0; /* the caller takes no packets of this size: the probe fails */
    self->mtu.nonce = mix64_next(&self->random);
    at = store_chunk_header(at, SCTP_HEARTBEAT, 0, HEARTBEAT_BYTES);
    store_be16(at, 1);
    store_be16(at + 2, 12);
    store_be32(at + 4, (uint32_t)(self->mtu.nonce >> 32));
    store_be32(at + 8, (uint32_t)self->mtu.nonce);
    size_t padding = self->mtu.probe_bytes - SCTP_HEADER_BYTES - HEARTBEAT_BYTES;
    at = store_chunk_header(at + 12, SCTP_PAD, 0, padding);
    memset(at, 0, padding - SCTP_CHUNK_HEADER_BYTES);
    return self->mtu.probe_bytes;
}

bool sctp_mtu_answered(struct sctp *self, uint64_t nonce, uint64_t now)
{
    if (self->mtu.probe_bytes == 0 || self->mtu.tries == 0 || nonce != self->mtu.nonce)
        return false;
    set_packet_bytes(self, self->mtu.probe_bytes);
    next_probe(self, now);
    return true;
}

/* Large packets no longer pass: a black hole. */
static void hole(struct sctp *self, uint64_t now)
{
    self->mtu.large_lost = self->mtu.large_timeouts = 0;
    if (self->packet_bytes == SCTP_PACKET_BYTES_MIN)
        return;
    set_packet_bytes(self, SCTP_PACKET_BYTES_MIN);
    self->mtu.probe_bytes = 0;
    self->due.mtu = false;
    self->timers.mtu_at = now + (HOLE_NS << self->mtu.holes);
    if (self->mtu.holes < HOLES_MAX)
        self->mtu.holes++;
}

void sctp_mtu_lost(struct sctp *self, uint32_t bytes, uint64_t sent_at, uint64_t now)
{
    /* A burst that is lost, or reordered, counts once: only packets sent after the last known loss count again. */
    if (bytes <= SCTP_PACKET_BYTES_MIN || sent_at < self->mtu.large_lost_at)
        return;
    self->mtu.large_lost_at = now;
    if (++self->mtu.large_lost >= LARGE_LOST_MAX)
        hole(self, now);
}

void sctp_mtu_timed_out(struct sctp *self, uint64_t now)
{
    if (self->mtu.large_lost > 0 && ++self->mtu.large_timeouts >= LARGE_TIMEOUTS_MAX)
        hole(self, now);
}
