/* How fast one association may send: a model of the path, fed by what arrives, not by what is lost (the idea of BBR).
 * It answers two questions, the pacing rate and the window, and knows no packet, no chunk and no timer of SCTP.
 *
 *     rate_sent() marks every packet ─► the mark comes back with rate_ack() ─► rate_pacing_bytes_s(), rate_window_bytes()
 *
 * Times are nanoseconds of one monotonic clock.  docs/rate.md says what it does when, and how that was measured. */

#ifndef CONFLUX_RATE_H
#define CONFLUX_RATE_H

#include <stdbool.h>
#include <stdint.h>

#include "cubic.h"

#define RATE_LATE_NS_MAX (10 * UINT64_C(1000000)) /* three slices of a processor that others want too */

/* What a packet carries from its sending to its acknowledgement; filled by rate_sent().  A packet sent again is marked
 * again.  first_sent_at, delivered_at and delivered_bytes are where the sample begins that this packet's arrival ends. */
struct rate_mark {
    uint64_t sent_at;
    uint64_t first_sent_at; /* when the packet left whose arrival was the last one then */
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

enum rate_phase {
    RATE_STARTUP, /* double until the rate delivered grows no more */
    RATE_DRAIN, /* let the queue go that this made */
    RATE_CRUISE, /* at the rate estimated */
    RATE_UP, /* ask for more for a round */
    RATE_DOWN, /* give back what that queued */
};

/* How much had been delivered when: a sample of the rate lies between two of these. */
struct rate_point {
    uint64_t first_sent_at;
    uint64_t delivered_at;
    uint64_t delivered_bytes;
    bool app_limited; /* somewhere between here and now */
};

struct rate {
    uint32_t packet_bytes;
    uint64_t random; /* never 0 */
    enum rate_phase phase;
    uint64_t phase_since;

    struct rate_point point; /* now */
    struct rate_point point_recent, point_older; /* a sampling span or two ago */
    uint64_t app_limited_until; /* in delivered bytes; 0: it is not */

    uint64_t round_since; /* a round is over when a packet sent in it has arrived */
    uint64_t round_delivered; /* delivered_bytes at its beginning */
    uint64_t round_lost;
    bool round_app_limited;
    uint64_t phase_rounds;

    uint64_t bandwidth[2]; /* bytes/s, the best sample of this cycle and of the one before */
    bool cycle_sampled; /* this cycle measured the path and not the application */
    bool measured; /* the path was full once; until then the estimate is only what was asked of it */
    uint64_t cycle_ns; /* how long it is to be */
    uint64_t cycle_since;
    uint64_t cycle_rtt; /* the least of this cycle; UINT64_MAX: none yet */
    uint64_t up_bandwidth; /* when asking for more began; 0: not yet */
    uint64_t round_bandwidth; /* smoothed over the rounds of cruising */
    unsigned up_won; /* how often in a row that paid */

    uint64_t startup_bandwidth; /* the best when it last grew by a quarter */
    unsigned startup_stalled; /* rounds since */

    uint64_t rtt_min; /* UINT64_MAX: none yet */
    uint64_t rtt_min_at; /* when it was last seen, or nearly */
    uint64_t rtt_recent, rtt_recent_since; /* the least since then; UINT64_MAX: none */
    uint64_t other_since; /* when a packet took as long as on another path, and none was faster since; 0: none did */

    bool draining; /* going easy for a moment, to see the RTT without our own queue */
    uint64_t drain_since, drain_inflight; /* in flight when it began */
    uint64_t drain_window; /* meanwhile */
    uint64_t drain_rtt, drain_rtt_before; /* the least of this one and of the one before */
    unsigned drain_rounds;
    unsigned drains_alike; /* in a row that found the same RTT, too long for the path we knew */

    uint64_t late[2]; /* ns behind pacing that the sender came, the most of this cycle and of the one before */

    uint64_t extra_since, extra_bytes; /* arrivals beyond what the estimate explains */
    uint64_t extra[2]; /* the most of this cycle and of the one before */

    uint64_t standing_rtt; /* the least of the last cycle; 0: none */
    unsigned standing_cycles; /* in a row with a queue that our own pauses did not empty */
    bool crowded; /* somebody keeps that queue, who goes by loss */
    struct cubic crowd; /* the window meanwhile */
    bool crowd_short; /* by the last time it asked for more, it has less than its share */

    uint64_t judged_bytes, judged_lost, judged_since; /* of what cruising sent, since its loss was judged last */

    unsigned timeouts; /* in a row */
};

/* seed: any number; two associations that begin together should not probe together. */
void rate_init(struct rate *self, uint32_t packet_bytes, uint64_t seed, uint64_t now);
void rate_packet_bytes(struct rate *self, uint32_t packet_bytes); /* the path's MTU changed */
void rate_sent(struct rate *self, struct rate_mark *mark, uint32_t bytes, uint64_t inflight_before, uint64_t now);
void rate_app_limited(struct rate *self, uint64_t inflight_bytes); /* nothing more to send, though we might */
/* Data waited for pacing, and then for a processor, so long; up to RATE_LATE_NS_MAX of it is made up for at once. */
void rate_late(struct rate *self, uint64_t late_ns, uint64_t inflight_bytes);
void rate_ack(struct rate *self, const struct rate_ack *ack);
void rate_timeout(struct rate *self, uint64_t now); /* everything in flight is held for lost */

uint64_t rate_pacing_bytes_s(const struct rate *self);
uint64_t rate_window_bytes(const struct rate *self);
/* How much may go at once before pacing makes it wait: about a millisecond, at least two packets, at most 64 KiB. */
uint64_t rate_burst_bytes(const struct rate *self);
uint64_t rate_rtt_min_ns(const struct rate *self); /* 0: not measured */
uint64_t rate_bandwidth_bytes_s(const struct rate *self); /* the path's, as estimated; 0: not yet */

#endif
