/* How fast one association may send: a model of the path, fed by what arrives, not by what is lost (the idea of BBR).
 * It answers two questions, the pacing rate and the window, and knows no packet, no chunk and no timer of SCTP.
 *
 *     rate_sent() marks every packet ─► the mark comes back with rate_acked() or rate_lost() ─► rate_pacing(), rate_window()
 *
 * Times are nanoseconds of one monotonic clock. */

#ifndef CONFLUX_RATE_H
#define CONFLUX_RATE_H

#include <stdbool.h>
#include <stdint.h>

/* What a packet carries from its sending to its acknowledgement; filled by rate_sent(). */
struct rate_mark {
    uint64_t sent_at;
    uint64_t first_sent_at; /* of the flight it belongs to */
    uint64_t delivered_at;
    uint64_t delivered_bytes;
    uint64_t inflight_bytes; /* when it was sent, itself included */
    bool app_limited;
};

/* One acknowledgement, of however many packets. */
struct rate_ack {
    uint64_t now;
    uint64_t acked_bytes; /* newly delivered by it */
    uint64_t lost_bytes; /* newly held for lost on it */
    uint64_t inflight_bytes; /* after it */
    uint64_t rtt_ns; /* of the newest packet it covers that was sent once; 0: none */
    const struct rate_mark *newest; /* of the packet sent last among those newly delivered; NULL: none */
};

struct rate {
    /* the implementation's */
};

void rate_init(struct rate *self, uint32_t packet_bytes, uint64_t seed, uint64_t now);
void rate_packet_bytes(struct rate *self, uint32_t packet_bytes); /* the path's MTU changed */
void rate_sent(struct rate *self, struct rate_mark *mark, uint32_t bytes, uint64_t inflight_before, uint64_t now);
void rate_app_limited(struct rate *self, uint64_t inflight_bytes); /* nothing more to send, though we might */
void rate_ack(struct rate *self, const struct rate_ack *ack);
void rate_timeout(struct rate *self, uint64_t now); /* everything in flight is held for lost */

uint64_t rate_pacing_bytes_s(const struct rate *self);
uint64_t rate_window_bytes(const struct rate *self);
/* How much may go at once before pacing makes it wait: about a millisecond, at least two packets, at most 64 KiB. */
uint64_t rate_burst_bytes(const struct rate *self);
uint64_t rate_rtt_min_ns(const struct rate *self); /* 0: not measured */
uint64_t rate_bandwidth_bytes_s(const struct rate *self); /* the path's, as estimated; 0: not yet */

#endif
