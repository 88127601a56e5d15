/* A token bucket in one number (GCRA, ITU-T I.371): when it will be full again. */

#ifndef CONFLUX_BUCKET_H
#define CONFLUX_BUCKET_H

#include <stdbool.h>
#include <stdint.h>

struct bucket {
    uint64_t full_at; /* nanoseconds; of an untouched bucket 0 */
};

/* Take one token, if one is there.  One comes every interval_ns; burst of them fit. */
static inline bool bucket_take(struct bucket *self, uint64_t interval_ns, uint64_t burst, uint64_t now)
{
    uint64_t full_at = self->full_at > now ? self->full_at : now;

    if (full_at + interval_ns > now + burst * interval_ns)
        return false;
    self->full_at = full_at + interval_ns;
    return true;
}

#endif
