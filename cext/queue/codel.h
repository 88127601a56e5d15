/* CoDel (RFC 8289): when a standing queue must be signalled.  It decides; the queue drops or marks.  The twin of
 * conflux/datapath/reference/codel.py: per packet instead of the RFC's loop, with the same states and arithmetic. */

#ifndef CONFLUX_CODEL_H
#define CONFLUX_CODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    CODEL_TARGET_NS = 5000000, /* RFC 8289, section 4.3: 5 to 10 % of the interval */
    CODEL_INTERVAL_NS = 100000000, /* RFC 8289, section 4.4: above the RTT of most flows */
    CODEL_INTERVAL_NS_MAX = 1000000000,
    CODEL_RECENT = 16, /* intervals: within these, dropping begins again at the rate it had */
};

/* How long it waits before it signals. */
struct codel_pace {
    uint32_t target_ns, interval_ns; /* interval_ns at most CODEL_INTERVAL_NS_MAX */
};

/* All zero: nothing was taken yet. */
struct codel {
    uint64_t first_above; /* from then on a sojourn still above target means a standing queue */
    uint64_t drop_next;
    uint32_t count; /* signals since dropping began */
    uint32_t count_before;
    bool above; /* first_above is set */
    bool dropping;
};

/* interval / sqrt(count), rounded down.  The root is taken bit by bit: drops are rare, and libm is another library. */
static inline uint64_t codel_interval(uint64_t interval_ns, uint32_t count)
{
    uint64_t square = interval_ns * interval_ns / count, root = 0;

    for (uint64_t bit = UINT64_C(1) << 29; bit > 0; bit >>= 1) /* 2^30 is above the longest interval */
        if ((root | bit) * (root | bit) <= square)
            root |= bit;
    return root;
}

/* Whether the packet just taken is to be dropped or marked.  sojourn: its time in the queue.  backlog_bytes: what is
 * left behind it.  At most backlog_bytes_min is no standing queue, whatever its age, so a queue's last packet is
 * never dropped. */
static inline bool codel_signal(struct codel *self, const struct codel_pace *pace, uint64_t sojourn,
                                size_t backlog_bytes, size_t backlog_bytes_min, uint64_t now)
{
    if (sojourn < pace->target_ns || backlog_bytes <= backlog_bytes_min) {
        self->above = false;
        self->dropping = false;
        return false;
    }
    if (!self->above) {
        self->above = true;
        self->first_above = now + pace->interval_ns;
        self->dropping = false;
        return false;
    }
    if (now < self->first_above)
        return false;
    if (self->dropping) {
        if (now < self->drop_next)
            return false;
        self->count++;
        self->drop_next += codel_interval(pace->interval_ns, self->count);
        return true;
    }
    self->dropping = true;
    /* Dropping begins again soon: start near the rate that controlled the queue. */
    uint32_t since_last = self->count - self->count_before;
    bool recently = now < self->drop_next + CODEL_RECENT * (uint64_t)pace->interval_ns;
    self->count = since_last > 1 && recently ? since_last : 1;
    self->count_before = self->count;
    self->drop_next = now + codel_interval(pace->interval_ns, self->count);
    return true;
}

#endif
