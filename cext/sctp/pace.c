/* When the next packet with data may go. */

#include "sctp/state.h"

void sctp_pace_refresh(struct sctp *self)
{
    uint64_t rate = later(rate_pacing_bytes_s(&self->rate), 1024);

    self->pace.ns_per_kib = later(1024 * SECOND_NS / rate, 1);
    self->pace.burst_ns = rate_burst_bytes(&self->rate) * self->pace.ns_per_kib / 1024;
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
