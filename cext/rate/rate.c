/* The model of the path; see rate.h and docs/explanation/rate.md.  It is one file of more than 600 lines: phases,
 * min RTT probes, the crowd and the samples all read and write the same few numbers. */

#include "rate/rate.h"

#include <string.h>

#include "base/clock.h"

enum { THIS, LAST }; /* cycle: a filter keeps the best of two */

/* Gains in 1/256. */
enum {
    ONE = 256,
    GAIN_STARTUP = 710, /* 2.77: the least that doubles the rate every round (draft-ietf-ccwg-bbr, 5.6.4) */
    GAIN_DRAIN = 90, /* about its inverse: a round drains what a round of startup queued */
    GAIN_UP = 320, /* 1.25: a quarter more shows above the noise, and queues a quarter of an RTT in a round */
    GAIN_UP_STEP = 64, /* more, after a probe that found more */
    GAIN_UP_STEPS_MAX = 3,
    GAIN_DOWN = 192, /* a round drains what a round of GAIN_UP queued */
    GAIN_CRUISE = 253, /* 1 % below the estimate, else a queue once made would stand for ever */
    GAIN_WINDOW_STARTUP = 512,
};

/* The shortest interval of a sample: over a shorter one it would measure the scheduler's noise. */
#define SPAN_NS (2 * MS_NS)

#define CYCLE_RTTS 8 /* between two probes for bandwidth: 1/8 of the time has their cost; two cycles are remembered */
#define CYCLE_NS_MIN (200 * MS_NS)

/* What the window allows beyond the BDP, as a time: for bursts at both ends and for acknowledgements in batches.
 * One flow alone leaves at most this much standing in a queue, so it is no more than a ping can spare. */
#define ALLOWANCE_NS_MIN (2 * MS_NS)
#define ALLOWANCE_NS_MAX (5 * MS_NS)
#define ALLOWANCE_RTT_SHIFT 4 /* on very long paths, this part of the RTT */
#define UP_QUEUE_NS_MAX (50 * MS_NS) /* of other flows' queue, what a probe for bandwidth counts as part of the path */
#define UP_NS (12 * MS_NS) /* of queue that a probe makes, whatever the RTT; else flows of long RTT take everything */
#define WINDOW_PACKETS_MIN 4 /* two in flight, two being acknowledged */
#define WINDOW_PACKETS_INITIAL 10 /* RFC 6928 */
#define BURST_NS MS_NS
#define BURST_BYTES_MAX 65536 /* one sendmsg() */
#define EXTRA_NS_MAX (100 * MS_NS) /* a longer gap between acknowledgements is no aggregation */

#define STARTUP_ROUNDS_STALLED 3 /* the path may take some rounds to show that it has more */
#define STARTUP_LOST_PACKETS 8 /* and an eighth of a round: the buffer is full, even if the rate still grows */
#define DRAIN_ROUNDS_MAX 5

#define RTT_STALE_NS (10 * SECOND_NS) /* how long the min RTT holds without being measured again */
#define RTT_RECENT_NS SECOND_NS
/* The same when packets were almost alone in flight: no queue is ours then, and a new link would measure no less. */
#define RTT_ALONE_NS SECOND_NS
#define PATH_OTHER_NS (10 * MS_NS) /* more than twice the RTT plus this: another path, whose bandwidth is not known */
#define RTT_PROBE_ROUNDS 3 /* one to send less, one for the queue to shrink, one to measure it */
#define RTT_PROBE_NS_MIN (10 * MS_NS)
#define RTT_PROBE_INTERVAL_NS (2 * SECOND_NS) /* between two probes for whose queue it is */
#define RTT_PROBES_ALIKE 3 /* a queue as constant as a path is taken for the path */

/* A queue that loss-based flows keep: longer than flows like this one make, by a third of the longer one's RTT. */
#define CROWD_NS_MIN (25 * MS_NS)
#define CROWD_PACKETS 8 /* the time these take, on slow links: our own packets alone take half of it */
#define CROWD_CYCLES 1 /* with such a queue, before a min RTT probe */
#define UP_PACKETS 2 /* per RTT more than the rate before, in a crowd, for a probe that found more */

/* A radio's loss slows nothing.  More than that, while cruising, is caused by the senders, this one among them. */
#define LOSS_ENDURED 60 /* of 1000 */
#define LOSS_PACKETS_MIN 64 /* to tell one from the other */
#define LOSS_NS_MIN (50 * MS_NS)

#define BANDWIDTH_MAX (UINT64_C(1) << 35) /* 34 GB/s: no product here overflows */
#define TIME_NS_MAX (100 * SECOND_NS)

static uint64_t least(uint64_t a, uint64_t b) { return a < b ? a : b; }
static uint64_t most(uint64_t a, uint64_t b) { return a > b ? a : b; }
static uint64_t gained(uint64_t value, uint64_t gain) { return value * gain / ONE; }

/* Computed in microseconds: 2^35 * 10^8 fits. */
static uint64_t bytes_in(uint64_t bytes_s, uint64_t ns) { return bytes_s * (least(ns, TIME_NS_MAX) / 1000) / 1000000; }

static uint64_t random_next(struct rate *self)
{
    uint64_t x = self->random; /* xorshift64 */

    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return self->random = x;
}

uint64_t rate_bandwidth_bytes_s(const struct rate *self) { return most(self->bandwidth[THIS], self->bandwidth[LAST]); }

uint64_t rate_rtt_min_ns(const struct rate *self) { return self->rtt_min_ns != UINT64_MAX ? self->rtt_min_ns : 0; }

static uint64_t bdp_bytes(const struct rate *self)
{
    return bytes_in(rate_bandwidth_bytes_s(self), rate_rtt_min_ns(self));
}

static uint64_t allowance_ns(const struct rate *self)
{
    uint64_t rtt = rate_rtt_min_ns(self);
    uint64_t allowance = most(ALLOWANCE_NS_MIN, least(rtt / 2, ALLOWANCE_NS_MAX));

    return most(allowance, rtt >> ALLOWANCE_RTT_SHIFT);
}

/* The RTT that a probe for bandwidth fills: the queue that other flows' probes leave is part of it. */
static uint64_t up_rtt_ns(const struct rate *self)
{
    uint64_t rtt = rate_rtt_min_ns(self);

    return most(rtt, least(self->standing_rtt_ns, rtt + UP_QUEUE_NS_MAX));
}

/* A whole cycle of longer RTTs has another flow's queue in it. */
static uint64_t crowd_rtt_ns(const struct rate *self)
{
    uint64_t rtt = rate_rtt_min_ns(self), bandwidth = most(rate_bandwidth_bytes_s(self), 1);
    uint64_t packets_ns = CROWD_PACKETS * self->packet_bytes * SECOND_NS / bandwidth;

    return rtt + most(CROWD_NS_MIN, most(rtt * 3 / 8 + CROWD_NS_MIN * 2 / 5, packets_ns));
}

static void round_begin(struct rate *self, uint64_t now)
{
    self->round_since = now;
    self->round_delivered = self->point.delivered_bytes;
    self->round_lost = 0;
    self->round_app_limited = self->app_limited_until != 0;
}

static void phase_enter(struct rate *self, enum rate_phase phase, uint64_t now)
{
    self->phase = phase;
    self->phase_since = now;
    self->phase_rounds = 0;
    round_begin(self, now);
}

static void points_reset(struct rate *self, uint64_t now)
{
    self->point.first_sent_at = now;
    self->point.delivered_at = now;
    self->point.app_limited = self->app_limited_until != 0;
    self->point_recent = self->point_older = self->point;
}

void rate_init(struct rate *self, uint32_t packet_bytes, uint64_t seed, uint64_t now)
{
    memset(self, 0, sizeof *self);
    self->packet_bytes = packet_bytes;
    self->random = seed != 0 ? seed : 1;
    self->rtt_min_ns = self->rtt_recent_ns = self->cycle_rtt_ns = UINT64_MAX;
    self->rtt_min_at = self->rtt_recent_since = self->cycle_since = self->extra_since = self->judged_since = now;
    points_reset(self, now);
    phase_enter(self, RATE_STARTUP, now);
}

void rate_packet_bytes(struct rate *self, uint32_t packet_bytes) { self->packet_bytes = packet_bytes; }

void rate_sent(struct rate *self, struct rate_mark *mark, uint32_t bytes, uint64_t inflight_before, uint64_t now)
{
    /* A sample across an idle time says nothing about the path.  Waiting for our own pacing is not idle. */
    if (inflight_before == 0 && (self->app_limited_until != 0 || self->point.delivered_bytes == 0)) {
        uint64_t settle = 2 * rate_rtt_min_ns(self);

        points_reset(self, now);
        if (now - self->cycle_since + settle > self->cycle_ns && self->cycle_ns > settle)
            self->cycle_since = now + settle - self->cycle_ns; /* send at the estimate first, then probe for more */
    }
    if (now - self->point_recent.delivered_at >= SPAN_NS) {
        self->point_older = self->point_recent;
        self->point_recent = self->point;
    }
    const struct rate_point *from = rate_rtt_min_ns(self) < SPAN_NS ? &self->point_older : &self->point;

    mark->sent_at = now;
    mark->first_sent_at = from->first_sent_at;
    mark->delivered_at = from->delivered_at;
    mark->delivered_bytes = from->delivered_bytes;
    mark->inflight_bytes = inflight_before + bytes;
    mark->app_limited = from->app_limited || self->app_limited_until != 0;
}

/* The delivery rate between two points: the slower of the send rate and the ACK rate, so that compressed
 * acknowledgements show no more than was sent. */
static void bandwidth_sample(struct rate *self, const struct rate_mark *mark, uint64_t now)
{
    uint64_t interval = most(mark->sent_at - mark->first_sent_at, now - mark->delivered_at);
    uint64_t bytes = self->point.delivered_bytes - mark->delivered_bytes;

    if (interval < most(rate_rtt_min_ns(self), SPAN_NS / 2) || bytes > UINT64_MAX / SECOND_NS)
        return;
    uint64_t bytes_s = least(bytes * SECOND_NS / interval, BANDWIDTH_MAX);

    if (mark->app_limited && bytes_s < rate_bandwidth_bytes_s(self))
        return;
    if (!mark->app_limited)
        self->cycle_sampled = self->measured = true;
    self->bandwidth[THIS] = most(self->bandwidth[THIS], bytes_s);
}

/* ACK aggregation: acknowledgements come in batches, from Wi-Fi, or from a receiver that had no processor for a
 * while. */
static void extra_sample(struct rate *self, uint64_t acked_bytes, uint64_t now)
{
    uint64_t bandwidth = rate_bandwidth_bytes_s(self);
    uint64_t expected = bytes_in(bandwidth, now - self->extra_since);

    if (self->extra_bytes <= expected) {
        self->extra_since = now;
        self->extra_bytes = 0;
        expected = 0;
    }
    self->extra_bytes += acked_bytes;
    if (self->phase != RATE_STARTUP && self->extra_bytes > expected)
        self->extra[THIS] =
            most(self->extra[THIS], least(self->extra_bytes - expected, bytes_in(bandwidth, EXTRA_NS_MAX)));
}

static void rtt_renew(struct rate *self, uint64_t rtt, uint64_t now)
{
    self->rtt_min_ns = rtt;
    self->rtt_min_at = now;
}

static void crowd_end(struct rate *self)
{
    self->crowded = self->crowd_short = false;
    self->standing_cycles = 0;
    self->rtt_probes_alike = 0;
}

/* The window until the path was full once: a flow that began with pings is not slow because of that. */
static uint64_t initial_bytes(const struct rate *self) { return WINDOW_PACKETS_INITIAL * (uint64_t)self->packet_bytes; }

/* Search for the bandwidth again, as on a new link. */
static void start_again(struct rate *self, uint64_t now)
{
    uint64_t bytes_s = initial_bytes(self) * SECOND_NS / self->rtt_min_ns;

    self->bandwidth[THIS] = self->bandwidth[LAST] = least(bytes_s, rate_bandwidth_bytes_s(self));
    self->extra[THIS] = self->extra[LAST] = 0;
    self->measured = self->rtt_probing = false;
    self->startup_bandwidth = 0;
    self->startup_stalled = 0;
    crowd_end(self);
    points_reset(self, now);
    phase_enter(self, RATE_STARTUP, now);
}

static void rtt_sample(struct rate *self, uint64_t rtt, const struct rate_mark *mark, uint64_t now)
{
    uint64_t before = self->rtt_min_ns;
    bool alone = mark->app_limited && mark->inflight_bytes <= WINDOW_PACKETS_MIN * (uint64_t)self->packet_bytes;
    bool unseen = before != UINT64_MAX && now - self->rtt_min_at >= RTT_ALONE_NS;

    if (rtt <= self->rtt_min_ns)
        rtt_renew(self, rtt, now);
    else if (rtt <= self->rtt_min_ns + self->rtt_min_ns / 32) /* the same RTT, but for noise */
        self->rtt_min_at = now;
    if (now - self->rtt_recent_since >= RTT_RECENT_NS) {
        self->rtt_recent_ns = rtt;
        self->rtt_recent_since = now;
    }
    self->rtt_recent_ns = least(self->rtt_recent_ns, rtt);
    self->cycle_rtt_ns = least(self->cycle_rtt_ns, rtt);
    self->rtt_probe_ns = least(self->rtt_probe_ns, rtt);
    if (rtt <= before || rtt <= 2 * before + PATH_OTHER_NS) {
        self->other_since = 0;
        if (unseen && alone && rtt > before)
            rtt_renew(self, self->rtt_recent_ns, now);
    } else if (self->other_since == 0 && unseen && alone) {
        /* One packet may be late.  If none is faster for one such round trip, this is another path. */
        self->other_since = self->rtt_recent_since = now;
        self->rtt_recent_ns = rtt;
    } else if (self->other_since != 0 && now - self->other_since >= rtt) {
        self->other_since = 0;
        rtt_renew(self, self->rtt_recent_ns, now);
        start_again(self, now);
    }
}

/* Crowded: a loss-based flow fills every buffer, and a delay-based flow would yield everything to it.  While such a
 * queue stands, the window follows the loss-based curve (CUBIC), and neither flow is the stronger. */
static uint64_t crowd_packets(const struct rate *self, uint64_t now)
{
    return cubic_window(&self->crowd, self->standing_rtt_ns, now);
}

static uint64_t crowd_bytes(const struct rate *self, uint64_t now)
{
    return crowd_packets(self, now) * self->packet_bytes;
}

static void crowd_begin(struct rate *self, uint64_t inflight_bytes, uint64_t now)
{
    self->crowded = true;
    cubic_start(&self->crowd, inflight_bytes / self->packet_bytes, now);
}

static void crowd_lost(struct rate *self, const struct rate_ack *ack)
{
    /* Once per flight: only when a packet arrives that was sent after the last cut. */
    if (self->point.first_sent_at <= self->crowd.since + rate_rtt_min_ns(self) / 4 + MS_NS)
        return;
    uint64_t inflight = ack->inflight_bytes + ack->acked_bytes + ack->lost_bytes;

    cubic_lost(&self->crowd, least(inflight / self->packet_bytes, crowd_packets(self, ack->now)), ack->now);
}

/* Until all of inflight_bytes has arrived, samples show the application's rate, not the path's. */
static void limited_begin(struct rate *self, uint64_t inflight_bytes)
{
    self->app_limited_until = most(self->point.delivered_bytes + inflight_bytes, 1);
    self->point.app_limited = self->point_recent.app_limited = self->point_older.app_limited = true;
    self->round_app_limited = true;
    if (self->crowded) /* a window that is not filled does not grow */
        crowd_begin(self, crowd_bytes(self, self->point.delivered_at), self->point.delivered_at);
}

void rate_app_limited(struct rate *self, uint64_t inflight_bytes)
{
    uint64_t full = most(bdp_bytes(self), WINDOW_PACKETS_MIN * (uint64_t)self->packet_bytes);

    if (inflight_bytes < full || rate_bandwidth_bytes_s(self) == 0)
        limited_begin(self, inflight_bytes); /* else the path is full enough, although there is no data now */
}

void rate_late(struct rate *self, uint64_t late_ns, uint64_t inflight_bytes)
{
    self->late_ns[THIS] = most(self->late_ns[THIS], least(late_ns, RATE_LATE_NS_MAX));
    if (late_ns > RATE_LATE_NS_MAX) /* the rest is not caught up: that is our loss, not the path's */
        limited_begin(self, inflight_bytes);
}

/* A min RTT probe: with less in flight for a moment, the RTT shows the path's length, or a queue that is not ours.
 * Flows that share a queue measured the min RTT at the same moment, so it grows stale for all of them, they probe
 * together, and all see the path. */
static void rtt_probe_begin(struct rate *self, uint64_t inflight, uint64_t now)
{
    self->rtt_probing = true;
    self->rtt_probe_since = now;
    self->rtt_probe_inflight = inflight;
    self->rtt_probe_ns = UINT64_MAX;
    self->rtt_probe_rounds = 0;
    /* Use the present delivery rate: after a fall the estimate is still the old one, and our queue would stay. */
    uint64_t bandwidth = least(rate_bandwidth_bytes_s(self), self->round_bandwidth);

    self->rtt_probe_window = bytes_in(bandwidth, rate_rtt_min_ns(self) + ALLOWANCE_NS_MIN);
}

static void rtt_probe_end(struct rate *self, uint64_t now)
{
    bool stale = now - self->rtt_min_at >= RTT_STALE_NS;

    self->rtt_probing = false;
    if (self->rtt_probe_ns == UINT64_MAX)
        return;
    if (self->rtt_probe_ns <= crowd_rtt_ns(self)) {
        crowd_end(self);
        if (stale)
            rtt_renew(self, self->rtt_probe_ns, now);
        return;
    }
    uint64_t before = self->rtt_probe_before_ns;
    bool alike = self->rtt_probe_ns <= before + before / 16 && before <= self->rtt_probe_ns + self->rtt_probe_ns / 16;

    self->rtt_probes_alike = alike ? self->rtt_probes_alike + 1 : 1;
    self->rtt_probe_before_ns = self->rtt_probe_ns;
    if (self->rtt_probes_alike >= RTT_PROBES_ALIKE) {
        crowd_end(self);
        rtt_renew(self, self->rtt_probe_ns, now);
        return;
    }
    if (!self->crowded)
        crowd_begin(self, self->rtt_probe_inflight, now);
    if (stale)
        self->rtt_min_at = now;
}

static void rtt_probe_step(struct rate *self, const struct rate_ack *ack, bool round_over)
{
    if (self->rtt_probing) {
        self->rtt_probe_rounds += round_over;
        if (self->rtt_probe_rounds >= RTT_PROBE_ROUNDS && ack->now - self->rtt_probe_since >= RTT_PROBE_NS_MIN)
            rtt_probe_end(self, ack->now);
        return;
    }
    if (self->rtt_min_ns == UINT64_MAX)
        return;
    bool stale = ack->now - self->rtt_min_at >= RTT_STALE_NS;

    if (self->app_limited_until != 0) { /* an app-limited flow leaves no queue, and needs no probe */
        if (stale)
            rtt_renew(self, self->rtt_recent_ns, ack->now);
        return;
    }
    bool suspect = self->standing_cycles >= CROWD_CYCLES;

    if (self->crowded) /* the window grew by half since the last probe: the queue may be our own by now */
        suspect = crowd_bytes(self, ack->now) > self->rtt_probe_inflight * 3 / 2;
    suspect = suspect && ack->now - self->rtt_probe_since >= RTT_PROBE_INTERVAL_NS;
    if (self->phase == RATE_CRUISE && (stale || suspect)) /* a batch of acknowledgements may cover most of the flight */
        rtt_probe_begin(self, ack->inflight_bytes + ack->acked_bytes + ack->lost_bytes, ack->now);
}

static void cycle_end(struct rate *self, uint64_t now)
{
    if (self->cycle_sampled) { /* an app-limited cycle says nothing about the path: the estimate stays */
        self->bandwidth[LAST] = self->bandwidth[THIS];
        self->bandwidth[THIS] = 0;
        self->extra[LAST] = self->extra[THIS];
        self->extra[THIS] = 0;
    }
    self->cycle_sampled = false;
    self->late_ns[LAST] = self->late_ns[THIS];
    self->late_ns[THIS] = 0;
    self->standing_rtt_ns = self->cycle_rtt_ns != UINT64_MAX ? self->cycle_rtt_ns : 0;
    self->cycle_rtt_ns = UINT64_MAX;
    uint64_t rtt = rate_rtt_min_ns(self), crowd = crowd_rtt_ns(self);

    self->standing_cycles = self->standing_rtt_ns > crowd ? self->standing_cycles + 1 : 0;
    if (self->crowded && self->standing_rtt_ns < crowd - (crowd - rtt) / 4)
        crowd_end(self);
    uint64_t cycle = most(CYCLE_NS_MIN, CYCLE_RTTS * rtt);

    self->cycle_since = now;
    self->cycle_ns = cycle * 3 / 4 + random_next(self) % (cycle / 2);
}

static void startup_round(struct rate *self, uint64_t now)
{
    uint64_t bandwidth = rate_bandwidth_bytes_s(self);
    uint64_t delivered = self->point.delivered_bytes - self->round_delivered;

    if (self->round_lost > STARTUP_LOST_PACKETS * (uint64_t)self->packet_bytes && self->round_lost > delivered / 8)
        self->startup_stalled = STARTUP_ROUNDS_STALLED;
    else if (self->round_app_limited)
        return;
    else if (bandwidth >= self->startup_bandwidth + self->startup_bandwidth / 4) {
        self->startup_bandwidth = bandwidth;
        self->startup_stalled = 0;
    } else
        self->startup_stalled++;
    if (self->startup_stalled >= STARTUP_ROUNDS_STALLED) {
        cycle_end(self, now);
        phase_enter(self, RATE_DRAIN, now);
    }
}

/* Whether the probe found more: an eighth more than before was delivered.  Beside one other flow that means this one
 * had less than about half, for of the quarter that a probe adds it gets only its share. */
static bool up_found_more(const struct rate *self)
{
    uint64_t more = self->up_bandwidth / 8;

    if (self->up_bandwidth == 0 || self->phase_rounds != 1)
        return false;
    if (self->crowded) /* and more than noise: here the rate is that of single rounds */
        more = most(more, UP_PACKETS * self->packet_bytes * SECOND_NS / most(self->standing_rtt_ns, SPAN_NS));
    return self->bandwidth[THIS] > self->up_bandwidth + more;
}

/* Probe for bandwidth when the cycle ends, or at once after a probe that found more: there may be four times as
 * much. */
static void cruise_step(struct rate *self, uint64_t now, bool round_over)
{
    uint64_t bandwidth = rate_bandwidth_bytes_s(self);
    bool found_more = up_found_more(self);

    if (round_over && self->phase_rounds == 1 && !found_more) {
        self->up_won = 0;
        self->crowd_short = false;
    }
    if (self->app_limited_until != 0 || self->rtt_probing || (!found_more && now - self->cycle_since < self->cycle_ns))
        return;
    if (found_more && self->up_won < GAIN_UP_STEPS_MAX)
        self->up_won++;
    if (found_more && self->crowded) {
        crowd_begin(self, gained(crowd_bytes(self, now), GAIN_UP), now);
        self->crowd_short = true;
    }
    cycle_end(self, now);
    self->up_bandwidth = self->crowded ? self->round_bandwidth : bandwidth;
    phase_enter(self, RATE_UP, now);
}

static void phase_step(struct rate *self, const struct rate_ack *ack, bool round_over)
{
    uint64_t now = ack->now, bandwidth = rate_bandwidth_bytes_s(self), bdp = bdp_bytes(self);
    uint64_t drained = bdp + most(bytes_in(bandwidth, ALLOWANCE_NS_MIN / 4), 2 * (uint64_t)self->packet_bytes);

    switch (self->phase) {
    case RATE_STARTUP:
        if (round_over && bandwidth != 0)
            startup_round(self, now);
        break;
    case RATE_DRAIN:
        if (ack->inflight_bytes <= drained || self->phase_rounds >= DRAIN_ROUNDS_MAX)
            phase_enter(self, RATE_CRUISE, now);
        break;
    case RATE_CRUISE:
        cruise_step(self, now, round_over);
        break;
    case RATE_UP: {
        bool full = ack->inflight_bytes >= gained(bytes_in(bandwidth, up_rtt_ns(self)), GAIN_UP);
        bool long_enough = now - self->phase_since >= 2 * most(rate_rtt_min_ns(self), SPAN_NS);
        if (self->app_limited_until != 0 || (self->phase_rounds >= 1 && (full || long_enough)))
            phase_enter(self, RATE_DOWN, now);
        break;
    }
    case RATE_DOWN:
        if (ack->inflight_bytes <= drained || self->phase_rounds >= 2)
            phase_enter(self, RATE_CRUISE, now);
        break;
    }
}

/* What loss changes: in a crowd, any loss cuts the window.  Else only loss that is too high for a radio, while
 * cruising, lowers the estimate. */
static void loss_judge(struct rate *self, const struct rate_ack *ack)
{
    self->round_lost += ack->lost_bytes;
    if (self->crowded) {
        if (ack->lost_bytes > 0 && !self->crowd_short)
            crowd_lost(self, ack);
        return;
    }
    if (self->phase != RATE_CRUISE || self->phase_rounds < 1)
        return;
    self->judged_bytes += ack->acked_bytes + ack->lost_bytes;
    self->judged_lost += ack->lost_bytes;
    if (self->judged_bytes <= most(bdp_bytes(self), LOSS_PACKETS_MIN * (uint64_t)self->packet_bytes) ||
        ack->now - self->judged_since <= LOSS_NS_MIN)
        return;
    uint64_t lost = self->judged_lost * 1000 / self->judged_bytes, bandwidth = rate_bandwidth_bytes_s(self);

    if (lost > LOSS_ENDURED)
        self->bandwidth[LAST] = self->bandwidth[THIS] = bandwidth - bandwidth * (lost - LOSS_ENDURED) / 1000;
    self->judged_bytes = self->judged_lost = 0;
    self->judged_since = ack->now;
}

void rate_ack(struct rate *self, const struct rate_ack *ack)
{
    const struct rate_mark *mark = ack->newest;
    bool round_over = false;

    self->point.delivered_bytes += ack->acked_bytes;
    if (self->app_limited_until != 0 && self->point.delivered_bytes > self->app_limited_until) {
        self->app_limited_until = 0;
        self->point.app_limited = false;
    }
    if (ack->rtt_ns != 0 && mark != NULL)
        rtt_sample(self, ack->rtt_ns, mark, ack->now);
    if (mark != NULL) {
        self->timeouts = 0;
        self->point.first_sent_at = most(self->point.first_sent_at, mark->sent_at);
        self->point.delivered_at = ack->now;
    }
    loss_judge(self, ack);
    if (mark != NULL) {
        bandwidth_sample(self, mark, ack->now);
        extra_sample(self, ack->acked_bytes, ack->now);
        round_over = mark->sent_at >= self->round_since &&
                     ack->now - self->round_since >= most(rate_rtt_min_ns(self), SPAN_NS);
    }
    if (round_over) {
        uint64_t bytes = least(self->point.delivered_bytes - self->round_delivered, UINT32_MAX);
        uint64_t bytes_s = bytes * SECOND_NS / (ack->now - self->round_since);
        bool cruising = self->phase == RATE_CRUISE && self->phase_rounds > 1;

        self->round_bandwidth = cruising ? (3 * self->round_bandwidth + bytes_s) / 4 : bytes_s;
        self->phase_rounds++;
    }
    phase_step(self, ack, round_over);
    rtt_probe_step(self, ack, round_over);
    if (round_over)
        round_begin(self, ack->now);
}

void rate_timeout(struct rate *self, uint64_t now)
{
    self->app_limited_until = 0;
    self->rtt_probing = false;
    if (++self->timeouts < 2) /* the first: an acknowledgement was late, or the path was gone for a moment */
        return;
    self->bandwidth[THIS] = self->bandwidth[LAST] = rate_bandwidth_bytes_s(self) / 2;
    self->measured = true; /* a path that lost everything gets no initial window */
    self->startup_bandwidth = 0;
    self->startup_stalled = 0;
    crowd_end(self);
    phase_enter(self, RATE_STARTUP, now);
}

uint64_t rate_window_bytes(const struct rate *self)
{
    uint64_t window_min = WINDOW_PACKETS_MIN * (uint64_t)self->packet_bytes;
    uint64_t bandwidth = rate_bandwidth_bytes_s(self), bdp = bdp_bytes(self);
    uint64_t allowance = bytes_in(bandwidth, allowance_ns(self) + most(self->late_ns[THIS], self->late_ns[LAST]));
    uint64_t window = bdp + allowance;

    if (self->timeouts != 0)
        return window_min;
    if (bandwidth == 0)
        return initial_bytes(self) + self->point.delivered_bytes;
    if (!self->measured)
        window_min = initial_bytes(self);
    if (self->crowded)
        window = gained(crowd_bytes(self, self->point.delivered_at), self->phase == RATE_UP ? GAIN_UP : ONE);
    else if (self->phase == RATE_STARTUP)
        window = most(window, gained(bdp, GAIN_WINDOW_STARTUP));
    else if (self->phase == RATE_UP) {
        uint64_t rtt = up_rtt_ns(self);
        window = bytes_in(bandwidth, rtt + most(rtt / 4, least(rtt, UP_NS))) + allowance;
    }
    if (!self->crowded)
        window += most(self->extra[THIS], self->extra[LAST]);
    if (self->rtt_probing)
        window = least(window / 2, self->rtt_probe_window);
    return most(window, window_min);
}

static uint64_t pacing_gain(const struct rate *self)
{
    if (self->crowded)
        return GAIN_UP + (self->phase == RATE_UP ? GAIN_UP_STEP : 0); /* the window limits it */
    switch (self->phase) {
    case RATE_STARTUP:
        return GAIN_STARTUP;
    case RATE_DRAIN:
        return GAIN_DRAIN;
    case RATE_UP:
        return GAIN_UP + self->up_won * GAIN_UP_STEP;
    case RATE_DOWN:
        return GAIN_DOWN;
    case RATE_CRUISE:
        break;
    }
    return GAIN_CRUISE;
}

uint64_t rate_pacing_bytes_s(const struct rate *self)
{
    uint64_t bandwidth = rate_bandwidth_bytes_s(self);

    if (bandwidth == 0 || (!self->measured && self->timeouts == 0)) { /* the window per RTT, as far as that is known */
        uint64_t rtt = self->rtt_min_ns != UINT64_MAX ? most(self->rtt_min_ns, MS_NS / 10) : MS_NS;
        uint64_t window = bandwidth == 0 ? rate_window_bytes(self) : initial_bytes(self);
        bandwidth = most(bandwidth, least(window, UINT32_MAX) * SECOND_NS / rtt);
    }
    /* At least a packet a second, so that every wait ends. */
    return most(gained(least(bandwidth, BANDWIDTH_MAX), pacing_gain(self)), self->packet_bytes);
}

uint64_t rate_burst_bytes(const struct rate *self)
{
    uint64_t burst = bytes_in(rate_pacing_bytes_s(self), BURST_NS);

    return most(least(burst, BURST_BYTES_MAX), 2 * (uint64_t)self->packet_bytes);
}
