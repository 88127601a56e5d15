/* How much may wait: a bound in bytes that grows with the rate at which a queue is served.  The twin of
 * conflux/datapath/reference/served.py, rule for rule; its comments say why. */

#ifndef CONFLUX_SERVED_H
#define CONFLUX_SERVED_H

#include <stddef.h>
#include <stdint.h>

enum {
    SERVED_WINDOW_NS = 50000000,
    SERVED_WINDOW_COUNT_MAX = 20,
    SERVED_FACTOR_MAX = 4,
    SERVED_FORGOTTEN_SHARE = 8,
};

/* What left a queue in its best recent window.  All zero: nothing did. */
struct served {
    uint64_t began;
    uint64_t bytes; /* in the window that began then */
    uint64_t best;
};

/* Begin a new window if this one is over. */
static inline void served_turn(struct served *self, uint64_t now)
{
    if (now < self->began + SERVED_WINDOW_NS) /* packets that waited elsewhere have earlier times */
        return;
    uint64_t count = (now - self->began) / SERVED_WINDOW_NS;
    if (count > SERVED_WINDOW_COUNT_MAX) {
        count = SERVED_WINDOW_COUNT_MAX;
        self->best = self->bytes = 0;
    }
    for (; count > 0; count--) {
        self->best -= self->best / SERVED_FORGOTTEN_SHARE;
        if (self->bytes > self->best)
            self->best = self->bytes;
        self->bytes = 0;
    }
    self->began = now;
}

static inline void served_add(struct served *self, size_t size, uint64_t now)
{
    served_turn(self, now);
    self->bytes += size;
}

/* The packet added last came back; its pieces may be more bytes, as each has headers. */
static inline void served_return(struct served *self, size_t size)
{
    self->bytes -= size < self->bytes ? size : self->bytes;
}

/* How much may wait; at least bytes_max. */
static inline size_t served_bound(struct served *self, size_t bytes_max, uint64_t now)
{
    served_turn(self, now);
    uint64_t most = self->best > self->bytes ? self->best : self->bytes;
    if (most <= bytes_max)
        return bytes_max;
    return most / SERVED_FACTOR_MAX < bytes_max ? (size_t)most : SERVED_FACTOR_MAX * bytes_max;
}

#endif
