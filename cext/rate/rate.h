/* How fast one association may send: a model of the path, fed by what arrives, not by what is lost (the idea of BBR).
 * It answers two questions, the pacing rate and the congestion window.  It knows no packet, no chunk and no timer of
 * SCTP.
 *
 *     rate_sent() marks a packet ─► its mark comes back with rate_ack() ─► rate_pacing_bytes_s(), rate_window_bytes()
 *
 * Times are nanoseconds of one monotonic clock.  docs/explanation/rate.md says what it does when, and how that was
 * measured.  The words are BBR's (draft-ietf-ccwg-bbr): bandwidth is the bottleneck's, as the best delivery rate shows
 * it; the BDP is bandwidth times min RTT; a cycle lies between two probes for bandwidth. */

#ifndef CONFLUX_RATE_H
#define CONFLUX_RATE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/clock.h"
#include "rate/cubic.h"

#define RATE_LATE_NS_MAX (10 * MS_NS) /* three time slices of a shared processor */

/* Kept for a packet from its sending to its acknowledgement; filled by rate_sent().  A packet sent again is marked
 * again. A delivery rate sample begins at first_sent_at, delivered_at and delivered_bytes, and ends when this packet
 * arrives. */
struct rate_mark {
    uint64_t sent_at;
    uint64_t first_sent_at; /* when the newest packet was sent of those delivered by then */
    uint64_t delivered_at;
    uint64_t delivered_bytes;
    uint64_t inflight_bytes; /* when it was sent, itself included */
    bool app_limited;
};

/* One acknowledgement, of however many packets. */
struct rate_ack {
    uint64_t now;
    uint64_t acked_bytes; /* newly delivered by it */
    uint64_t lost_bytes; /* newly detected as lost */
    uint64_t inflight_bytes; /* after it */
    uint64_t rtt_ns; /* of the newest packet newly delivered that was sent once; 0: none */
    const struct rate_mark *newest; /* of the packet sent last of those newly delivered; NULL: none */
};

enum rate_phase {
    RATE_STARTUP, /* double the rate each round, until the delivery rate stops growing */
    RATE_DRAIN, /* drain the queue that startup made */
    RATE_CRUISE, /* send at the estimated bandwidth */
    RATE_UP, /* probe for more bandwidth, for a round */
    RATE_DOWN, /* drain the queue that the probe made */
};

/* A count of delivered bytes, and its time: a delivery rate sample lies between two of these. */
struct rate_point {
    uint64_t first_sent_at;
    uint64_t delivered_at;
    uint64_t delivered_bytes;
    bool app_limited; /* at some time between this point and now */
};

struct rate {
    uint32_t packet_bytes;
    uint64_t random; /* never 0 */
    enum rate_phase phase;
    uint64_t phase_since;

    struct rate_point point; /* now */
    struct rate_point point_recent, point_older; /* one and two sampling spans ago */
    uint64_t app_limited_until; /* in delivered bytes; 0: not app-limited */

    uint64_t round_since; /* a round ends when a packet sent in it is acknowledged */
    uint64_t round_delivered; /* delivered_bytes at its beginning */
    uint64_t round_lost;
    bool round_app_limited;
    uint64_t phase_rounds;

    uint64_t bandwidth[2]; /* bytes/s: the best sample of this cycle and of the one before */
    bool cycle_sampled; /* this cycle has a sample that is not app-limited */
    bool measured; /* the path was full once; before that, the estimate is only what the application sent */
    uint64_t cycle_ns; /* how long this cycle is to last */
    uint64_t cycle_since;
    uint64_t cycle_rtt_ns; /* the least of this cycle; UINT64_MAX: none yet */
    uint64_t up_bandwidth; /* the estimate when the last probe for bandwidth began; 0: none has */
    uint64_t round_bandwidth; /* the delivery rate per round, smoothed while cruising */
    unsigned up_won; /* probes for bandwidth in a row that found more */

    uint64_t startup_bandwidth; /* the estimate when it last grew by a quarter */
    unsigned startup_stalled; /* rounds since then */

    uint64_t rtt_min_ns; /* UINT64_MAX: none yet */
    uint64_t rtt_min_at; /* when that RTT, or nearly that, was last measured */
    uint64_t rtt_recent_ns, rtt_recent_since; /* the least RTT since rtt_recent_since; UINT64_MAX: none */
    uint64_t other_since; /* since when every RTT was that of another path; 0: not so */

    bool rtt_probing; /* a min RTT probe: the window is small, to see the RTT without our own queue */
    uint64_t rtt_probe_since, rtt_probe_inflight; /* bytes in flight when it began */
    uint64_t rtt_probe_window; /* bytes, meanwhile */
    uint64_t rtt_probe_ns, rtt_probe_before_ns; /* the least RTT of this probe and of the one before */
    unsigned rtt_probe_rounds;
    unsigned rtt_probes_alike; /* in a row that found the same RTT, longer than the known path's */

    uint64_t late_ns[2]; /* how late the sender's thread was for pacing: the most of this cycle and of the one before */

    uint64_t extra_since, extra_bytes; /* of ACK aggregation: acknowledged beyond what the estimate explains */
    uint64_t extra[2]; /* bytes: the most of this cycle and of the one before */

    uint64_t standing_rtt_ns; /* the least RTT of the last cycle; 0: none */
    unsigned standing_cycles; /* in a row with a standing queue */
    bool crowded; /* a loss-based flow keeps that queue */
    struct cubic crowd; /* the window meanwhile */
    bool crowd_short; /* the last probe for bandwidth found more: this flow has less than its share */

    uint64_t judged_bytes, judged_lost, judged_since; /* while cruising, since the loss rate was last judged */

    unsigned timeouts; /* in a row */
};

/* seed: any number.  Two associations that begin together should not probe together. */
void rate_init(struct rate *self, uint32_t packet_bytes, uint64_t seed, uint64_t now);
void rate_packet_bytes(struct rate *self, uint32_t packet_bytes); /* the path's MTU changed */
void rate_sent(struct rate *self, struct rate_mark *mark, uint32_t bytes, uint64_t inflight_before, uint64_t now);
/* There is no data, although the window and pacing allow more. */
void rate_app_limited(struct rate *self, uint64_t inflight_bytes);
/* The sender's thread ran so long after pacing allowed a packet; it may catch up RATE_LATE_NS_MAX of that at once. */
void rate_late(struct rate *self, uint64_t late_ns, uint64_t inflight_bytes);
void rate_ack(struct rate *self, const struct rate_ack *ack);
void rate_timeout(struct rate *self, uint64_t now); /* everything in flight counts as lost */

uint64_t rate_pacing_bytes_s(const struct rate *self);
uint64_t rate_window_bytes(const struct rate *self);
/* How much may be sent at once before pacing applies: about a millisecond, at least two packets, at most 64 KiB. */
uint64_t rate_burst_bytes(const struct rate *self);
uint64_t rate_rtt_min_ns(const struct rate *self); /* 0: not measured */
uint64_t rate_bandwidth_bytes_s(const struct rate *self); /* the estimate; 0: none yet */

#endif
