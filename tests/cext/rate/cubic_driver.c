/* cext/rate/cubic.h as functions of a library. */

#include "rate/cubic.h"

void start(struct cubic *self, uint64_t window, uint64_t now);
void lost(struct cubic *self, uint64_t window, uint64_t now);
uint64_t window(const struct cubic *self, uint64_t rtt_ns, uint64_t now);

void start(struct cubic *self, uint64_t window, uint64_t now) { cubic_start(self, window, now); }
void lost(struct cubic *self, uint64_t window, uint64_t now) { cubic_lost(self, window, now); }
uint64_t window(const struct cubic *self, uint64_t rtt_ns, uint64_t now) { return cubic_window(self, rtt_ns, now); }
