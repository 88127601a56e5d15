/* What became of the chunks sent: acknowledged, or lost.  A chunk is lost when one sent later came (the idea of RACK,
 * RFC 8985), or when nothing came for an RTO; every transmission counts, so a repair that is lost is seen like any
 * other.  Decides that, by acknowledgements, the RTT and three timers (loss, tail probe, T3), and tells rate.h of both.
 * Knows no packet: what is lost waits in a list until sctp_send.c has room for it. */

#include "sctp_private.h"

enum {
    LATER_PACKETS = 3, /* that came before one is held for lost, until this path was seen to reorder */
    REORDERING_QUARTERS_MAX = 8, /* of an RTT */
};

#define REORDERING_NS_MIN (1 * SCTP_MS_NS) /* coarse timers and batches look like this much disorder */
#define PROBE_DELAY_NS (2 * SCTP_MS_NS) /* what the peer may take to answer the end of a burst */
#define PROBE_DELAY_LONE_NS (25 * SCTP_MS_NS) /* and a lone packet, whose acknowledgement may be delayed */

/* What one acknowledgement, or one timer, brought to light. */
struct tally {
    uint64_t acked_bytes, lost_bytes;
    const struct sctp_sent *newest; /* sent last of those newly acknowledged */
    const struct sctp_sent *newest_once; /* the same, of those sent once: only they tell the RTT */
};

void sctp_loss_start(struct sctp *self)
{
    self->t3_at = self->probe_at = self->loss_at = SCTP_NEVER;
    self->order_next = 1;
    self->rto = SCTP_RTO_INITIAL_NS;
    self->reordering_quarters = 1;
}

/* --- what was lost ---------------------------------------------------------------------------------------------- */

static void set_lost(struct sctp *self, uint32_t tsn, struct tally *tally, uint64_t now)
{
    struct sctp_sent *sent = sent_at(self, tsn);
    struct sctp_outgoing *outgoing = sent->outgoing;

    list_remove(self, &self->inflight, tsn);
    self->inflight_bytes -= sent->wire_bytes;
    tally->lost_bytes += sent->wire_bytes;
    self->counts.chunks_lost++;
    sctp_mtu_lost(self, sent->wire_bytes, sent->mark.sent_at, now);
    if (outgoing->abandoned) {
        sent->fate = SCTP_GONE;
        bit_clear(self->open_bits, self->sent_span, tsn);
        return;
    }
    sent->fate = SCTP_LOST;
    list_append(self, &self->lost, tsn);
    if (outgoing->expires_at <= now || sent->sent_count > outgoing->retransmits_max)
        sctp_abandon(self, outgoing, now);
}

/* Whatever was sent well before the newest packet that came is lost; what was sent a little before may be under way. */
static void detect_losses(struct sctp *self, struct tally *tally, uint64_t now)
{
    uint64_t patience = later(self->rtt_min / 4 * self->reordering_quarters, REORDERING_NS_MIN);

    self->loss_at = SCTP_NEVER;
    while (self->inflight.count > 0) {
        const struct sctp_sent *sent = sent_at(self, self->inflight.oldest);

        if (sent->order >= self->order_acked)
            return;
        uint64_t late_at = sent->mark.sent_at + self->rtt_acked + patience;
        if (late_at > now && (self->reordering || self->order_acked - sent->order < LATER_PACKETS)) {
            self->loss_at = late_at;
            return;
        }
        set_lost(self, self->inflight.oldest, tally, now);
    }
}

/* --- acknowledgements ------------------------------------------------------------------------------------------- */

void sctp_rtt_sample(struct sctp *self, uint64_t rtt)
{
    if (self->srtt == 0) { /* RFC 9260, section 6.3.1 */
        self->srtt = rtt;
        self->rttvar = rtt / 2;
        self->rtt_min = rtt;
    } else {
        uint64_t off = rtt > self->srtt ? rtt - self->srtt : self->srtt - rtt;

        self->rttvar += off / 4 - self->rttvar / 4;
        self->srtt += rtt / 8 - self->srtt / 8;
        self->rtt_min = earlier(self->rtt_min, rtt);
    }
    self->rto = earlier(later(self->srtt + 4 * self->rttvar, SCTP_RTO_MIN_NS), SCTP_RTO_MAX_NS);
}

/* Start the timers of what is in flight anew. */
void sctp_timers_restart(struct sctp *self, uint64_t now)
{
    self->probe_at = SCTP_NEVER;
    if (self->inflight.count == 0) {
        self->t3_at = tsn_after(self->tsn_forward, self->tsn_acked) ? now + rto_now(self) : SCTP_NEVER;
        return;
    }
    self->t3_at = now + rto_now(self);
    if (self->srtt != 0 && !self->probe_used && self->peer_window >= self->packet_bytes)
        self->probe_at = now + 2 * self->srtt + (self->inflight.count == 1 ? PROBE_DELAY_LONE_NS : PROBE_DELAY_NS);
}

static void set_acked(struct sctp *self, uint32_t tsn, struct tally *tally, uint64_t now)
{
    struct sctp_sent *sent = sent_at(self, tsn);

    if (sent->fate == SCTP_INFLIGHT) {
        list_remove(self, &self->inflight, tsn);
        self->inflight_bytes -= sent->wire_bytes;
    } else {
        list_remove(self, &self->lost, tsn); /* it was only late */
    }
    bool late = sent->fate == SCTP_LOST;
    /* One repaired that is acknowledged faster than light: the answer is to the first transmission. */
    late = late || (sent->sent_count > 1 && now - sent->mark.sent_at < self->rtt_min / 2);
    if (late && self->reordering_quarters < REORDERING_QUARTERS_MAX)
        self->reordering_quarters++;
    if (late || (sent->sent_count == 1 && sent->order < self->order_acked))
        self->reordering = true;
    sent->fate = SCTP_ACKED;
    bit_clear(self->open_bits, self->sent_span, tsn);
    /* Whether one given up has come, or FORWARD-TSN skipped it, nobody can tell once that may have had its answer. */
    if (sent->outgoing->abandoned && now - sent->outgoing->expires_at >= self->rtt_min - self->rtt_min / 8)
        return;
    tally->acked_bytes += sent->wire_bytes;
    if (sent->wire_bytes > SCTP_PACKET_BYTES_MIN)
        self->large_lost = self->large_timeouts = 0;
    if (late)
        return;
    if (tally->newest == NULL || sent->order > tally->newest->order)
        tally->newest = sent;
    if (sent->sent_count == 1 && (tally->newest_once == NULL || sent->order > tally->newest_once->order))
        tally->newest_once = sent;
}

static void acknowledge_to(struct sctp *self, uint32_t cumulative, struct tally *tally, uint64_t now)
{
    while (self->tsn_acked != cumulative) {
        uint32_t tsn = self->tsn_acked + 1;
        struct sctp_sent *sent = sent_at(self, tsn);
        struct sctp_outgoing *outgoing = sent->outgoing;

        if (sent->fate == SCTP_INFLIGHT || sent->fate == SCTP_LOST)
            set_acked(self, tsn, tally, now);
        if (outgoing->abandoned && bit_test(self->abandoned_bits, self->sent_span, tsn)) {
            bit_clear(self->abandoned_bits, self->sent_span, tsn);
            self->abandoned_count--;
        }
        self->tsn_acked = tsn;
        if (--outgoing->tsn_left == 0 && (outgoing->abandoned || outgoing->offset == outgoing->size))
            sctp_outgoing_recycle(self, outgoing);
    }
}

/* Tell rate.h, the RTT and the timers. */
static void acknowledge_done(struct sctp *self, struct tally *tally, bool progress, uint64_t now)
{
    struct rate_ack ack = {.now = now, .acked_bytes = tally->acked_bytes};
    struct rate_mark newest; /* a copy: a message given up below may take a TSN more, and the ring move for it */

    if (tally->newest_once != NULL) {
        ack.rtt_ns = later(now - tally->newest_once->mark.sent_at, 1);
        sctp_rtt_sample(self, ack.rtt_ns);
    }
    if (tally->newest != NULL) {
        newest = tally->newest->mark;
        ack.newest = &newest;
        if (tally->newest->order > self->order_acked) {
            self->order_acked = tally->newest->order;
            self->rtt_acked = now - tally->newest->mark.sent_at;
        }
    }
    detect_losses(self, tally, now);
    ack.lost_bytes = tally->lost_bytes;
    ack.inflight_bytes = self->inflight_bytes;
    if (ack.acked_bytes != 0 || ack.lost_bytes != 0) {
        rate_ack(&self->rate, &ack);
        sctp_pace_refresh(self);
    }
    sctp_forward_refresh(self, now);
    if (progress) {
        self->error_count = self->rto_doublings = 0;
        self->probe_used = self->probe_due = false;
        sctp_timers_restart(self, now);
    }
}

void sctp_acknowledge(struct sctp *self, uint32_t tsn, uint64_t now)
{
    struct tally tally = {0};

    if (!tsn_after(tsn, self->tsn_acked))
        return;
    if (!tsn_after(self->tsn_next, tsn)) {
        sctp_violation(self, SCTP_CAUSE_VIOLATION);
        return;
    }
    acknowledge_to(self, tsn, &tally, now);
    acknowledge_done(self, &tally, true, now);
}

void sctp_receive_sack_untrusted(struct sctp *self, const uint8_t *chunk, size_t size, uint64_t now)
{
    struct tally tally = {0};

    if (size < 16) {
        self->counts.dropped_malformed++;
        return;
    }
    uint32_t cumulative = load_be32(chunk + 4);
    uint32_t window = load_be32(chunk + 8);
    size_t gap_count = load_be16(chunk + 12), duplicate_count = load_be16(chunk + 14);
    if (16 + 4 * (gap_count + duplicate_count) > size) {
        self->counts.dropped_malformed++;
        return;
    }
    if (tsn_after(self->tsn_acked, cumulative))
        return; /* overtaken by a newer one */
    if (!tsn_after(self->tsn_next, cumulative)) {
        sctp_violation(self, SCTP_CAUSE_VIOLATION); /* it was never sent */
        return;
    }
    bool progress = cumulative != self->tsn_acked;
    acknowledge_to(self, cumulative, &tally, now);

    uint32_t before = 0; /* blocks ascend; whoever sends others gets no second pass over the ring */
    for (const uint8_t *gap = chunk + 16; gap_count > 0; gap_count--, gap += 4) {
        uint32_t first = load_be16(gap), last = load_be16(gap + 2);

        if (first <= before || last < first)
            break;
        before = last;
        if (last > sent_ring_used(self)) {
            sctp_violation(self, SCTP_CAUSE_VIOLATION);
            return;
        }
        uint32_t end = cumulative + last + 1;
        for (uint32_t tsn = cumulative + first;; tsn++) {
            tsn = bit_next(self->open_bits, self->sent_span, tsn, end, true);
            if (tsn == end)
                break;
            set_acked(self, tsn, &tally, now);
            progress = true;
        }
    }
    self->peer_window = window;
    if (window < self->packet_bytes)
        self->error_count = 0; /* alive, only full: probed for ever (RFC 9260, section 6.1) */
    acknowledge_done(self, &tally, progress, now);
}

/* --- timers ----------------------------------------------------------------------------------------------------- */

static void losses_done(struct sctp *self, const struct tally *tally, uint64_t now)
{
    if (tally->lost_bytes != 0) {
        struct rate_ack ack = {.now = now, .lost_bytes = tally->lost_bytes, .inflight_bytes = self->inflight_bytes};

        rate_ack(&self->rate, &ack);
        sctp_pace_refresh(self);
    }
    if (sctp_carries(self))
        sctp_forward_refresh(self, now);
}

void sctp_loss_timeout(struct sctp *self, uint64_t now)
{
    struct tally tally = {0};

    detect_losses(self, &tally, now);
    losses_done(self, &tally, now);
}

void sctp_probe_timeout(struct sctp *self, uint64_t now)
{
    self->probe_at = SCTP_NEVER;
    if (self->inflight.count == 0)
        return;
    self->probe_due = self->probe_used = true;
    self->counts.probes_tail++;
    self->t3_at = later(self->t3_at, now + rto_now(self));
}

/* A peer that has acknowledged the chunk after its cumulative TSN and does not move on has forgotten it (RFC 9260,
 * section 6.3.3, R3: it may). */
static void distrust_gaps(struct sctp *self)
{
    if (sent_ring_used(self) == 0 || tsn_after(self->tsn_forward, self->tsn_acked) ||
        sent_at(self, self->tsn_acked + 1)->fate != SCTP_ACKED)
        return;
    for (uint32_t tsn = self->tsn_acked + 1; tsn != self->tsn_next; tsn++) {
        struct sctp_sent *sent = sent_at(self, tsn);

        if (sent->fate != SCTP_ACKED)
            continue;
        if (sent->outgoing->abandoned) {
            if (!bit_test(self->abandoned_bits, self->sent_span, tsn))
                set_abandoned(self, tsn);
            sent->fate = SCTP_GONE;
            continue;
        }
        sent->fate = SCTP_LOST;
        bit_set(self->open_bits, self->sent_span, tsn);
        list_append(self, &self->lost, tsn);
    }
}

void sctp_t3_timeout(struct sctp *self, uint64_t now)
{
    struct tally tally = {0};
    bool starved = self->peer_window < self->packet_bytes; /* a probe of a closed window says nothing of the path */

    self->t3_at = self->probe_at = self->loss_at = SCTP_NEVER;
    self->counts.timeouts++;
    if (++self->error_count > SCTP_RETRANSMITS_MAX_ASSOCIATION) {
        sctp_end(self, SCTP_END_TIMEOUT);
        return;
    }
    if (self->rto << self->rto_doublings < SCTP_RTO_MAX_NS)
        self->rto_doublings++;
    while (self->inflight.count > 0)
        set_lost(self, self->inflight.oldest, &tally, now);
    sctp_mtu_timed_out(self, now);
    distrust_gaps(self);
    if (!starved) {
        rate_timeout(&self->rate, now);
        sctp_pace_refresh(self);
    }
    self->pace_at = earlier(self->pace_at, now);
    self->probe_due = self->probe_used = false;
    if (!sctp_carries(self))
        return;
    sctp_forward_refresh(self, now);
    if (tsn_after(self->tsn_forward, self->tsn_acked)) {
        self->forward_due = true;
        self->t3_at = now + rto_now(self);
    } else if (sent_ring_used(self) > 0) {
        self->t3_at = now + rto_now(self); /* should nothing go, the next one tries again */
    }
}
