/* Times: nanoseconds of one monotonic clock, which the caller reads. */

#ifndef CONFLUX_CLOCK_H
#define CONFLUX_CLOCK_H

#include <stdint.h>

#define NEVER UINT64_MAX /* a time that does not come: a timer that is off */
#define MS_NS UINT64_C(1000000)
#define SECOND_NS UINT64_C(1000000000)

static inline uint64_t earlier(uint64_t a, uint64_t b) { return a < b ? a : b; }
static inline uint64_t later(uint64_t a, uint64_t b) { return a > b ? a : b; }

#endif
