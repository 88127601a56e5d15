/* The round trip time, the RTO, and the timers of what is in flight. */

#include "sctp/state.h"

#define PROBE_DELAY_NS (2 * MS_NS) /* what the peer may take to answer the end of a burst */
#define PROBE_DELAY_LONE_NS (25 * MS_NS) /* and a lone packet, whose acknowledgement may be delayed */

void sctp_timers_stop(struct sctp *self)
{
    self->timers = (struct sctp_timers){NEVER, NEVER, NEVER, NEVER, NEVER, NEVER, NEVER, NEVER, NEVER};
}

void sctp_timers_start(struct sctp *self)
{
    self->timers.t3_at = self->timers.probe_at = self->timers.loss_at = NEVER;
    self->loss = (struct sctp_loss){.order_next = 1, .reordering_quarters = 1};
    self->rtt = (struct sctp_rtt){.rto_ns = SCTP_RTO_INITIAL_NS};
}

void sctp_timers_rtt(struct sctp *self, uint64_t rtt_ns)
{
    struct sctp_rtt *rtt = &self->rtt;

    if (rtt->srtt_ns == 0) { /* RFC 9260, section 6.3.1 */
        rtt->srtt_ns = rtt_ns;
        rtt->rttvar_ns = rtt_ns / 2;
        rtt->min_ns = rtt_ns;
    } else {
        uint64_t off = rtt_ns > rtt->srtt_ns ? rtt_ns - rtt->srtt_ns : rtt->srtt_ns - rtt_ns;

        rtt->rttvar_ns += off / 4 - rtt->rttvar_ns / 4;
        rtt->srtt_ns += rtt_ns / 8 - rtt->srtt_ns / 8;
        rtt->min_ns = earlier(rtt->min_ns, rtt_ns);
    }
    rtt->rto_ns = earlier(later(rtt->srtt_ns + 4 * rtt->rttvar_ns, SCTP_RTO_MIN_NS), SCTP_RTO_MAX_NS);
}

void sctp_timers_restart(struct sctp *self, uint64_t now)
{
    self->timers.probe_at = NEVER;
    if (self->out.inflight.count == 0) {
        self->timers.t3_at = tsn_after(self->out.tsn_forward, self->out.tsn_acked) ? now + rto_now(self) : NEVER;
        return;
    }
    self->timers.t3_at = now + rto_now(self);
    if (self->rtt.srtt_ns == 0 || self->loss.probe_used || self->peer_window < self->packet_bytes)
        return;
    uint64_t delay_ns = self->out.inflight.count == 1 ? PROBE_DELAY_LONE_NS : PROBE_DELAY_NS;
    self->timers.probe_at = now + 2 * self->rtt.srtt_ns + delay_ns;
}
