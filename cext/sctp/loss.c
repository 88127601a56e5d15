/* Which of the chunks sent are acknowledged, and which are lost.  A chunk is lost when one sent later came (the idea
 * of RACK, RFC 8985), or when nothing came for an RTO.  Every transmission counts, so a lost repair is detected like
 * any other.  Decides by acknowledgements, the RTT and three timers (loss, tail probe, T3), and tells rate.h.  Knows
 * no packet: a lost chunk waits in a list until send.c has room for it. */

#include "sctp/state.h"

enum {
    LATER_PACKETS = 3, /* acknowledged before an older one counts as lost, on a path not known to reorder */
    REORDERING_QUARTERS_MAX = 8, /* of an RTT */
};

#define REORDERING_NS_MIN (1 * MS_NS) /* coarse timers and batches look like this much reordering */

/* What one acknowledgement, or one timer, showed. */
struct tally {
    uint64_t acked_bytes, lost_bytes;
    const struct sctp_sent *newest; /* sent last of those newly acknowledged */
    const struct sctp_sent *newest_once; /* the same of those sent once: only they measure the RTT */
};

/* --- what was lost ---------------------------------------------------------------------------------------------- */

static void set_lost(struct sctp *self, uint32_t tsn, struct tally *tally, uint64_t now)
{
    struct sctp_sent *sent = sent_at(self, tsn);
    struct sctp_outgoing *outgoing = sent->outgoing;

    list_remove(self, &self->out.inflight, tsn);
    CHECK(self->out.inflight_bytes >= sent->wire_bytes);
    self->out.inflight_bytes -= sent->wire_bytes;
    tally->lost_bytes += sent->wire_bytes;
    self->counts.chunks_lost++;
    sctp_mtu_lost(self, sent->wire_bytes, sent->mark.sent_at, now);
    if (outgoing->abandoned) {
        sent->fate = SCTP_GONE;
        bit_clear(self->out.open_bits, self->out.span, tsn);
        return;
    }
    sent->fate = SCTP_LOST;
    list_append(self, &self->out.lost, tsn);
    if (outgoing->expires_at <= now || sent->sent_count > outgoing->retransmits_max)
        sctp_forward_abandon(self, outgoing, now);
}

/* A chunk sent well before the newest acknowledged packet is lost; one sent shortly before may still be under way. */
static void detect_losses(struct sctp *self, struct tally *tally, uint64_t now)
{
    uint64_t patience_ns = later(self->rtt.min_ns / 4 * self->loss.reordering_quarters, REORDERING_NS_MIN);

    self->timers.loss_at = NEVER;
    while (self->out.inflight.count > 0) {
        const struct sctp_sent *sent = sent_at(self, self->out.inflight.oldest);

        if (sent->order >= self->loss.order_acked)
            return;
        uint64_t late_at = sent->mark.sent_at + self->loss.rtt_acked_ns + patience_ns;
        if (late_at > now && (self->loss.reordering || self->loss.order_acked - sent->order < LATER_PACKETS)) {
            self->timers.loss_at = late_at;
            return;
        }
        set_lost(self, self->out.inflight.oldest, tally, now);
    }
}

/* --- acknowledgements ------------------------------------------------------------------------------------------- */

static void set_acked(struct sctp *self, uint32_t tsn, struct tally *tally, uint64_t now)
{
    struct sctp_sent *sent = sent_at(self, tsn);

    if (sent->fate == SCTP_INFLIGHT) {
        list_remove(self, &self->out.inflight, tsn);
        CHECK(self->out.inflight_bytes >= sent->wire_bytes);
        self->out.inflight_bytes -= sent->wire_bytes;
    } else {
        list_remove(self, &self->out.lost, tsn); /* it was late, not lost */
    }
    bool late = sent->fate == SCTP_LOST;
    /* Acknowledged sooner after its repair than the path allows: the first transmission came. */
    late = late || (sent->sent_count > 1 && now - sent->mark.sent_at < self->rtt.min_ns / 2);
    if (late && self->loss.reordering_quarters < REORDERING_QUARTERS_MAX)
        self->loss.reordering_quarters++;
    if (late || (sent->sent_count == 1 && sent->order < self->loss.order_acked))
        self->loss.reordering = true;
    sent->fate = SCTP_ACKED;
    bit_clear(self->out.open_bits, self->out.span, tsn);
    /* Once FORWARD-TSN may have been answered, an abandoned chunk may have come, or may have been skipped. */
    if (sent->outgoing->abandoned && now - sent->outgoing->expires_at >= self->rtt.min_ns - self->rtt.min_ns / 8)
        return;
    tally->acked_bytes += sent->wire_bytes;
    if (sent->wire_bytes > SCTP_PACKET_BYTES_MIN)
        self->mtu.large_lost = self->mtu.large_timeouts = 0;
    if (late)
        return;
    if (tally->newest == NULL || sent->order > tally->newest->order)
        tally->newest = sent;
    if (sent->sent_count == 1 && (tally->newest_once == NULL || sent->order > tally->newest_once->order))
        tally->newest_once = sent;
}

static void acknowledge_to(struct sctp *self, uint32_t cumulative, struct tally *tally, uint64_t now)
{
    while (self->out.tsn_acked != cumulative) {
        uint32_t tsn = self->out.tsn_acked + 1;
        struct sctp_sent *sent = sent_at(self, tsn);
        struct sctp_outgoing *outgoing = sent->outgoing;

        if (sent->fate == SCTP_INFLIGHT || sent->fate == SCTP_LOST)
            set_acked(self, tsn, tally, now);
        if (outgoing->abandoned && bit_test(self->out.abandoned_bits, self->out.span, tsn)) {
            CHECK(self->out.abandoned_count > 0);
            bit_clear(self->out.abandoned_bits, self->out.span, tsn);
            self->out.abandoned_count--;
        }
        self->out.tsn_acked = tsn;
        CHECK(outgoing->tsn_left > 0);
        if (--outgoing->tsn_left == 0 && (outgoing->abandoned || outgoing->offset == outgoing->size))
            sctp_outbox_recycle(self, outgoing);
    }
}

/* Tell rate.h, the RTT and the timers. */
static void acknowledge_done(struct sctp *self, struct tally *tally, bool progress, uint64_t now)
{
    struct rate_ack ack = {.now = now, .acked_bytes = tally->acked_bytes};
    struct rate_mark newest; /* a copy: abandoning a message below may take one more TSN, and move the ring */

    if (tally->newest_once != NULL) {
        ack.rtt_ns = later(now - tally->newest_once->mark.sent_at, 1);
        sctp_timers_rtt(self, ack.rtt_ns);
    }
    if (tally->newest != NULL) {
        newest = tally->newest->mark;
        ack.newest = &newest;
        if (tally->newest->order > self->loss.order_acked) {
            self->loss.order_acked = tally->newest->order;
            self->loss.rtt_acked_ns = now - tally->newest->mark.sent_at;
        }
    }
    detect_losses(self, tally, now);
    ack.lost_bytes = tally->lost_bytes;
    ack.inflight_bytes = self->out.inflight_bytes;
    if (ack.acked_bytes != 0 || ack.lost_bytes != 0) {
        rate_ack(&self->rate, &ack);
        sctp_pace_refresh(self);
    }
    sctp_forward_refresh(self, now);
    if (progress) {
        self->error_count = self->rtt.rto_doublings = 0;
        self->loss.probe_used = self->due.probe = false;
        sctp_timers_restart(self, now);
    }
}

void sctp_loss_acknowledge(struct sctp *self, uint32_t tsn, uint64_t now)
{
    struct tally tally = {0};

    if (!tsn_after(tsn, self->out.tsn_acked))
        return;
    if (!tsn_after(self->out.tsn_next, tsn)) {
        sctp_end_violation(self, SCTP_CAUSE_VIOLATION);
        return;
    }
    acknowledge_to(self, tsn, &tally, now);
    acknowledge_done(self, &tally, true, now);
}

void sctp_loss_receive_sack_untrusted(struct sctp *self, const uint8_t *chunk, size_t size, uint64_t now)
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
    if (tsn_after(self->out.tsn_acked, cumulative))
        return; /* a newer SACK overtook it */
    if (!tsn_after(self->out.tsn_next, cumulative)) {
        sctp_end_violation(self, SCTP_CAUSE_VIOLATION); /* it was never sent */
        return;
    }
    bool progress = cumulative != self->out.tsn_acked;
    acknowledge_to(self, cumulative, &tally, now);

    uint32_t before = 0; /* blocks must ascend: no SACK costs a second walk over the ring */
    for (const uint8_t *gap = chunk + 16; gap_count > 0; gap_count--, gap += 4) {
        uint32_t first = load_be16(gap), last = load_be16(gap + 2);

        if (first <= before || last < first)
            break;
        before = last;
        if (last > sent_ring_used(self)) {
            sctp_end_violation(self, SCTP_CAUSE_VIOLATION);
            return;
        }
        uint32_t end = cumulative + last + 1;
        for (uint32_t tsn = cumulative + first;; tsn++) {
            tsn = bit_next(self->out.open_bits, self->out.span, tsn, end, true);
            if (tsn == end)
                break;
            set_acked(self, tsn, &tally, now);
            progress = true;
        }
    }
    self->peer_window = window;
    if (window < self->packet_bytes)
        self->error_count = 0; /* the peer is alive, and full: it is probed for ever (RFC 9260, section 6.1) */
    acknowledge_done(self, &tally, progress, now);
}

/* --- timers ----------------------------------------------------------------------------------------------------- */

static void losses_done(struct sctp *self, const struct tally *tally, uint64_t now)
{
    if (tally->lost_bytes != 0) {
        struct rate_ack ack = {.now = now, .lost_bytes = tally->lost_bytes, .inflight_bytes = self->out.inflight_bytes};

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

void sctp_loss_probe_timeout(struct sctp *self, uint64_t now)
{
    self->timers.probe_at = NEVER;
    if (self->out.inflight.count == 0)
        return;
    self->due.probe = self->loss.probe_used = true;
    self->counts.probes_tail++;
    self->timers.t3_at = later(self->timers.t3_at, now + rto_now(self));
}

/* A peer that has acknowledged the chunk after its cumulative TSN, and does not move on, has dropped that chunk
 * again.  It may (RFC 9260, section 6.3.3, R3). */
static void distrust_gaps(struct sctp *self)
{
    if (sent_ring_used(self) == 0 || tsn_after(self->out.tsn_forward, self->out.tsn_acked) ||
        sent_at(self, self->out.tsn_acked + 1)->fate != SCTP_ACKED)
        return;
    for (uint32_t tsn = self->out.tsn_acked + 1; tsn != self->out.tsn_next; tsn++) {
        struct sctp_sent *sent = sent_at(self, tsn);

        if (sent->fate != SCTP_ACKED)
            continue;
        if (sent->outgoing->abandoned) {
            if (!bit_test(self->out.abandoned_bits, self->out.span, tsn))
                set_abandoned(self, tsn);
            sent->fate = SCTP_GONE;
            continue;
        }
        sent->fate = SCTP_LOST;
        bit_set(self->out.open_bits, self->out.span, tsn);
        list_append(self, &self->out.lost, tsn);
    }
}

void sctp_loss_t3_timeout(struct sctp *self, uint64_t now)
{
    struct tally tally = {0};
    bool starved = self->peer_window < self->packet_bytes; /* a probe of a closed window says nothing about the path */

    self->timers.t3_at = self->timers.probe_at = self->timers.loss_at = NEVER;
    self->counts.timeouts++;
    if (++self->error_count > SCTP_RETRANSMITS_MAX_ASSOCIATION) {
        sctp_end(self, SCTP_END_TIMEOUT);
        return;
    }
    if (self->rtt.rto_ns << self->rtt.rto_doublings < SCTP_RTO_MAX_NS)
        self->rtt.rto_doublings++;
    while (self->out.inflight.count > 0)
        set_lost(self, self->out.inflight.oldest, &tally, now);
    sctp_mtu_timed_out(self, now);
    distrust_gaps(self);
    if (!starved) {
        rate_timeout(&self->rate, now);
        sctp_pace_refresh(self);
    }
    self->pace.at = earlier(self->pace.at, now);
    self->due.probe = self->loss.probe_used = false;
    if (!sctp_carries(self))
        return;
    sctp_forward_refresh(self, now);
    if (tsn_after(self->out.tsn_forward, self->out.tsn_acked)) {
        self->due.forward = true;
        self->timers.t3_at = now + rto_now(self);
    } else if (sent_ring_used(self) > 0) {
        self->timers.t3_at = now + rto_now(self); /* if nothing can be sent now, the next timeout tries again */
    }
}
