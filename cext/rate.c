#include "rate.h"

#include <string.h>

enum { THIS, LAST }; /* of the two halves of every filter */

#define SECOND_NS UINT64_C(1000000000)
#define MS_NS UINT64_C(1000000)

/* Gains in 1/256. */
enum {
    ONE = 256,
    GAIN_STARTUP = 710, /* 2.77: doubles the rate every round (draft-ietf-ccwg-bbr, 5.6.4.1) */
    GAIN_DRAIN = 90, /* its inverse, about: a round of the one queues what a round of the other drains */
    GAIN_UP = 320, /* 1.25, more while more is found */
    GAIN_DOWN = 192,
    GAIN_PACING = 253, /* 1 % below the estimate, or a queue once made would stand for ever */
    GAIN_WINDOW = 320, /* room for a probe's quarter, no more: the queue we can make is bounded by it */
    GAIN_WINDOW_STARTUP = 512,
};

/* A path shorter than this is judged over this: the scheduler's noise would be the measurement otherwise. */
#define SPAN_NS (2 * MS_NS)
#define CYCLE_NS_MIN (200 * MS_NS) /* between two probes for more */
#define CYCLE_RTTS 8
/* What the window allows beyond the pipe, in time: bursts on both sides, acknowledgements by the batch.  Also the most
 * our own flow leaves standing in a queue. */
#define WINDOW_QUEUE_NS (2 * MS_NS)
#define WINDOW_PACKETS_MIN 4
#define WINDOW_PACKETS_INITIAL 10 /* RFC 6928 */
#define BURST_BYTES_MAX 65536 /* one sendmsg() */
#define BURST_NS MS_NS
#define RTT_INTERVAL_NS (5 * SECOND_NS) /* the least RTT is that of one to two of these */
#define DRAIN_INTERVAL_NS (10 * SECOND_NS)
#define DRAIN_NS (10 * MS_NS)
#define EXTRA_NS_MAX (100 * MS_NS) /* a gap in arrivals longer than this is no aggregation */
#define STARTUP_ROUNDS_STALLED 3
#define BANDWIDTH_MAX (UINT64_C(1) << 35) /* 34 GB/s: with it no product here overflows */
#define TIME_NS_MAX (100 * SECOND_NS)

static uint64_t least(uint64_t a, uint64_t b) { return a < b ? a : b; }
static uint64_t most(uint64_t a, uint64_t b) { return a > b ? a : b; }
static uint64_t gained(uint64_t value, uint64_t gain) { return value * gain / ONE; }

/* What goes by in a time.  In microseconds: 2^35 * 10^8 fits. */
static uint64_t bytes_in(uint64_t bytes_s, uint64_t ns) { return bytes_s * (least(ns, TIME_NS_MAX) / 1000) / 1000000; }

static uint64_t random_next(struct rate *self)
{
    uint64_t x = self->random;

    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return self->random = x;
}

uint64_t rate_bandwidth_bytes_s(const struct rate *self) { return most(self->bandwidth[THIS], self->bandwidth[LAST]); }

static bool rtt_known(const struct rate *self) { return least(self->rtt[THIS], self->rtt[LAST]) != UINT64_MAX; }

uint64_t rate_rtt_min_ns(const struct rate *self)
{
    return rtt_known(self) ? least(self->rtt[THIS], self->rtt[LAST]) : 0;
}

static uint64_t pipe_bytes(const struct rate *self)
{
    return bytes_in(rate_bandwidth_bytes_s(self), rate_rtt_min_ns(self));
}

/* A round in time, as far as noise lets us judge one. */
static uint64_t round_ns(const struct rate *self) { return most(rate_rtt_min_ns(self), SPAN_NS); }

/* How much more RTT than the least is a queue and no noise: more than our own window and another flow's like ours make. */
static uint64_t rtt_crowded(const struct rate *self)
{
    return rate_rtt_min_ns(self) * 11 / 8 + 5 * MS_NS;
}

static void round_begin(struct rate *self, uint64_t now)
{
    self->round_since = now;
    self->round_delivered = self->point.delivered_bytes;
    self->round_lost = 0;
    self->round_rtt = UINT64_MAX;
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
    self->rtt[THIS] = self->rtt[LAST] = UINT64_MAX;
    self->rtt_since = self->drained_at = self->cycle_since = self->extra_since = now;
    self->cycle_rtt = self->ceiling = UINT64_MAX;
    points_reset(self, now);
    phase_enter(self, RATE_STARTUP, now);
}

void rate_packet_bytes(struct rate *self, uint32_t packet_bytes) { self->packet_bytes = packet_bytes; }

void rate_sent(struct rate *self, struct rate_mark *mark, uint32_t bytes, uint64_t inflight_before, uint64_t now)
{
    bool idle = inflight_before == 0 && (self->app_limited_until != 0 || self->point.delivered_bytes == 0);

    if (idle)
        points_reset(self, now);
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

void rate_app_limited(struct rate *self, uint64_t inflight_bytes)
{
    if (inflight_bytes >= pipe_bytes(self) && rate_bandwidth_bytes_s(self) != 0)
        return; /* the path is as full as it ought to be, whoever is idle now */
    self->app_limited_until = most(self->point.delivered_bytes + inflight_bytes, 1);
    self->point.app_limited = self->point_recent.app_limited = self->point_older.app_limited = true;
    self->round_app_limited = true;
}

/* The rate at which what lies between two arrivals came: by the slower of the two, their sending and their arriving, so
 * acknowledgements bunched together say no more than what was sent. */
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
        self->cycle_sampled = true;
    self->bandwidth[THIS] = most(self->bandwidth[THIS], bytes_s);
}

/* What arrives beyond the estimate comes by the batch: from Wi-Fi, from a receiver that had no core for a while. */
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
        self->extra[THIS] = most(self->extra[THIS], least(self->extra_bytes - expected,
                                                          bytes_in(bandwidth, EXTRA_NS_MAX)));
}

static void rtt_sample(struct rate *self, uint64_t rtt)
{
    self->rtt[THIS] = least(self->rtt[THIS], rtt);
    self->cycle_rtt = least(self->cycle_rtt, rtt);
    self->round_rtt = least(self->round_rtt, rtt);
}

/* The least RTT is forgotten after a while, for paths change; not before a moment without our own queue has shown it. */
static void rtt_forget(struct rate *self, const struct rate_ack *ack)
{
    if (self->draining) {
        if (ack->now - self->drained_at < most(DRAIN_NS, 2 * rate_rtt_min_ns(self)))
            return;
        self->draining = false;
    } else {
        if (ack->now - self->rtt_since < RTT_INTERVAL_NS || self->rtt[THIS] == UINT64_MAX)
            return;
        bool risen = self->rtt[LAST] != UINT64_MAX && self->rtt[THIS] > self->rtt[LAST] * 9 / 8 + MS_NS;
        if (risen && self->app_limited_until == 0) {
            if (ack->now - self->drained_at >= DRAIN_INTERVAL_NS && self->phase == RATE_CRUISE) {
                self->draining = true;
                self->drained_at = ack->now;
            }
            return;
        }
    }
    self->rtt[LAST] = self->rtt[THIS];
    self->rtt[THIS] = UINT64_MAX;
    self->rtt_since = ack->now;
}

static void cycle_end(struct rate *self, uint64_t now)
{
    if (self->cycle_sampled) {
        self->bandwidth[LAST] = self->bandwidth[THIS];
        self->bandwidth[THIS] = 0;
        self->extra[LAST] = self->extra[THIS];
        self->extra[THIS] = 0;
    }
    self->cycle_sampled = false;
    self->standing_rtt = self->cycle_rtt != UINT64_MAX ? self->cycle_rtt : 0;
    self->crowded_cycles = self->standing_rtt > rtt_crowded(self) ? self->crowded_cycles + 1 : 0;
    self->cycle_rtt = UINT64_MAX;
    self->cycle_since = now;
    uint64_t cycle = most(CYCLE_NS_MIN, CYCLE_RTTS * rate_rtt_min_ns(self));
    self->cycle_ns = cycle * 3 / 4 + random_next(self) % (cycle / 2);
}

static void startup_round(struct rate *self, uint64_t now)
{
    uint64_t bandwidth = rate_bandwidth_bytes_s(self);
    uint64_t delivered = self->point.delivered_bytes - self->round_delivered;

    if (self->round_lost > 8 * self->packet_bytes && self->round_lost > delivered / 8)
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

static void phase_step(struct rate *self, const struct rate_ack *ack, bool round_over)
{
    uint64_t now = ack->now, pipe = pipe_bytes(self);
    uint64_t slack = most(bytes_in(rate_bandwidth_bytes_s(self), WINDOW_QUEUE_NS / 4), 2 * self->packet_bytes);

    switch (self->phase) {
    case RATE_STARTUP:
        if (round_over && rate_bandwidth_bytes_s(self) != 0)
            startup_round(self, now);
        break;
    case RATE_DRAIN:
        if (ack->inflight_bytes <= pipe + slack || self->phase_rounds >= 5)
            phase_enter(self, RATE_CRUISE, now);
        break;
    case RATE_CRUISE: {
        bool paid = self->up_bandwidth != 0 &&
                    rate_bandwidth_bytes_s(self) > self->up_bandwidth + self->up_bandwidth / 8;
        if (round_over && self->phase_rounds == 1 && !paid)
            self->up_won = 0;
        bool again = paid && self->phase_rounds == 1;
        if ((again || now - self->cycle_since >= self->cycle_ns) && self->app_limited_until == 0 && !self->draining) {
            if (again)
                self->up_won++;
            cycle_end(self, now);
            self->up_bandwidth = rate_bandwidth_bytes_s(self);
            phase_enter(self, RATE_UP, now);
        }
        break;
    }
    case RATE_UP:
        if (self->app_limited_until != 0 ||
            (self->phase_rounds >= 1 && (ack->inflight_bytes >= gained(pipe, GAIN_UP) ||
                                         now - self->phase_since >= 2 * round_ns(self))))
            phase_enter(self, RATE_DOWN, now);
        break;
    case RATE_DOWN:
        if (ack->inflight_bytes <= pipe + slack || self->phase_rounds >= 2)
            phase_enter(self, RATE_CRUISE, now);
        break;
    }
}

void rate_ack(struct rate *self, const struct rate_ack *ack)
{
    const struct rate_mark *mark = ack->newest;
    bool round_over = false;

    self->point.delivered_bytes += ack->acked_bytes;
    self->round_lost += ack->lost_bytes;
    if (self->app_limited_until != 0 && self->point.delivered_bytes > self->app_limited_until) {
        self->app_limited_until = 0;
        self->point.app_limited = false;
    }
    if (ack->rtt_ns != 0)
        rtt_sample(self, ack->rtt_ns);
    if (mark != NULL) {
        self->timeouts = 0;
        self->point.first_sent_at = most(self->point.first_sent_at, mark->sent_at);
        self->point.delivered_at = ack->now;
        bandwidth_sample(self, mark, ack->now);
        extra_sample(self, ack->acked_bytes, ack->now);
        round_over = mark->sent_at >= self->round_since && ack->now - self->round_since >= round_ns(self);
    }
    self->phase_rounds += round_over;
    phase_step(self, ack, round_over);
    rtt_forget(self, ack);
    if (round_over)
        round_begin(self, ack->now);
}

void rate_timeout(struct rate *self, uint64_t now)
{
    self->app_limited_until = 0;
    self->draining = false;
    if (++self->timeouts < 2) /* once: an acknowledgement was late, or the path lost a moment */
        return;
    self->bandwidth[THIS] = self->bandwidth[LAST] = rate_bandwidth_bytes_s(self) / 2;
    self->startup_bandwidth = 0;
    self->startup_stalled = 0;
    phase_enter(self, RATE_STARTUP, now);
}

uint64_t rate_window_bytes(const struct rate *self)
{
    uint64_t packets_min = WINDOW_PACKETS_MIN * (uint64_t)self->packet_bytes;
    uint64_t bandwidth = rate_bandwidth_bytes_s(self), pipe = pipe_bytes(self);

    if (self->timeouts != 0)
        return packets_min;
    if (bandwidth == 0)
        return WINDOW_PACKETS_INITIAL * (uint64_t)self->packet_bytes + self->point.delivered_bytes;
    if (self->draining)
        return most(pipe / 2, packets_min);
    uint64_t window = gained(pipe, GAIN_WINDOW);

    if (self->phase == RATE_STARTUP)
        window = gained(pipe, GAIN_WINDOW_STARTUP);
    else if (self->phase == RATE_UP)
        window = gained(pipe, GAIN_WINDOW + GAIN_WINDOW - ONE);
    else if (self->crowded_cycles >= 2)
        window = 2 * pipe;
    window = most(window, pipe + bytes_in(bandwidth, WINDOW_QUEUE_NS));
    window += most(self->extra[THIS], self->extra[LAST]);
    return most(window, packets_min);
}

uint64_t rate_pacing_bytes_s(const struct rate *self)
{
    uint64_t bandwidth = rate_bandwidth_bytes_s(self);
    unsigned more = self->up_won < 3 ? self->up_won : 3;

    if (bandwidth == 0) { /* the window, over the round that has been seen */
        uint64_t rtt = rtt_known(self) ? most(rate_rtt_min_ns(self), MS_NS / 10) : MS_NS;
        return gained(least(rate_window_bytes(self) * SECOND_NS / rtt, BANDWIDTH_MAX), GAIN_STARTUP);
    }
    uint64_t floor = self->packet_bytes; /* one a second: a wait that ends */

    switch (self->phase) {
    case RATE_STARTUP:
        return most(gained(bandwidth, GAIN_STARTUP), floor);
    case RATE_DRAIN:
        return most(gained(bandwidth, GAIN_DRAIN), floor);
    case RATE_UP:
        return most(gained(bandwidth, GAIN_UP + more * (ONE / 4)), floor);
    case RATE_DOWN:
        return most(gained(bandwidth, GAIN_DOWN), floor);
    case RATE_CRUISE:
        break;
    }
    return most(gained(bandwidth, GAIN_PACING), floor);
}

uint64_t rate_burst_bytes(const struct rate *self)
{
    uint64_t burst = bytes_in(rate_pacing_bytes_s(self), BURST_NS);

    return most(least(burst, BURST_BYTES_MAX), 2 * (uint64_t)self->packet_bytes);
}
