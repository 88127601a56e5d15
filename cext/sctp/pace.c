/* When the next packet with data may go. */

#include "sctp/state.h"

enum { BURST_BYTES_MIN = 4404 }; /* RFC 9260, section 7.2.1: what any path takes at once */

void sctp_pace_refresh(struct sctp *self)
{
    uint64_t rate = later(rate_pacing_bytes_s(&self->rate), 1024), burst = rate_burst_bytes(&self->rate);

    if (sctp_mtu_waits(self)) /* small packets, of which a message needs more: all of it may go at once */
        burst = later(burst, BURST_BYTES_MIN);
    self->pace.ns_per_kib = later(1024 * SECOND_NS / rate, 1);
    self->pace.burst_ns = burst * self->pace.ns_per_kib / 1024;
}

/* Set when the next packet may go.  An idle sender saves up a burst at most.  A thread that got no processor while data
 * waited may catch up, else a late thread takes its own delay for the path's rate, and sends later still. */
void sctp_pace_sent(struct sctp *self, uint64_t bytes, uint64_t inflight_before, uint64_t now)
{
    uint64_t behind = now > self->pace.at ? now - self->pace.at : 0, behind_max = self->pace.burst_ns;

    if (self->pace.waits && behind > behind_max) {
        rate_late(&self->rate, behind, inflight_before);
        behind_max = later(behind_max, RATE_LATE_NS_MAX);
    }
    self->pace.at = now - earlier(behind, earlier(behind_max, now)) + bytes * self->pace.ns_per_kib / 1024;
}
