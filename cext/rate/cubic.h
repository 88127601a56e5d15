/* The window of a loss-based flow: CUBIC's curve (RFC 9438), in packets.  It knows losses and time; its user says when
 * each came. */

#ifndef CONFLUX_CUBIC_H
#define CONFLUX_CUBIC_H

#include <stdint.h>

#include "base/clock.h"

enum {
    CUBIC_PACKETS_MIN = 4, /* two in flight, two being acknowledged */
    CUBIC_KEPT = 80, /* % of the window, after a loss; the RFC's 70 suit a flow that never makes room itself */
    CUBIC_RENO = 53, /* % of a packet per round trip, what Reno's average comes to (RFC 9438, section 4.3) */
    CUBIC_MS_MAX = 100000, /* since a loss: no product here overflows */
};

#define CUBIC_C_MS INT64_C(2500000000) /* ms^3 per packet: C = 0.4 packets/s^3 */

struct cubic {
    uint64_t peak, from; /* the window before the last loss, and after it */
    uint64_t since; /* when that was, ns */
    uint64_t k_ms; /* and how long from there to the peak again */
};

/* Go on from this window, without a loss. */
static inline void cubic_start(struct cubic *self, uint64_t window, uint64_t now)
{
    self->peak = self->from = window > CUBIC_PACKETS_MIN ? window : CUBIC_PACKETS_MIN;
    self->since = now;
    self->k_ms = 0;
}

static inline uint64_t cubic_window(const struct cubic *self, uint64_t rtt_ns, uint64_t now)
{
    uint64_t ms = (now - self->since) / MS_NS;

    ms = ms < CUBIC_MS_MAX ? ms : CUBIC_MS_MAX;
    rtt_ns = rtt_ns > MS_NS ? rtt_ns : MS_NS;
    int64_t t = (int64_t)ms - (int64_t)self->k_ms;
    int64_t curve = (int64_t)self->peak + t * t * t / CUBIC_C_MS;
    int64_t reno = (int64_t)(self->from + ms * MS_NS * CUBIC_RENO / 100 / rtt_ns);

    return (uint64_t)(curve > reno ? curve : reno);
}

/* Cut the window; once per flight.  window: what was in flight, or could have been. */
static inline void cubic_lost(struct cubic *self, uint64_t window, uint64_t now)
{
    window = window > CUBIC_PACKETS_MIN ? window : CUBIC_PACKETS_MIN;
    uint64_t from = window * CUBIC_KEPT / 100;
    uint64_t cube = window * (100 - CUBIC_KEPT) * (CUBIC_C_MS / 100), k = 0; /* what was cut, divided by C */

    for (uint64_t bit = 1 << 18; bit != 0; bit >>= 1)
        if ((k + bit) * (k + bit) * (k + bit) <= cube)
            k += bit;
    /* A window below the last peak: a new flow needs room (fast convergence). */
    self->peak = window < self->peak ? window * (100 + CUBIC_KEPT) / 200 : window;
    self->from = from > CUBIC_PACKETS_MIN ? from : CUBIC_PACKETS_MIN;
    self->since = now;
    self->k_ms = k;
}

#endif
