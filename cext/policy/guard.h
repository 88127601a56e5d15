/* Judges each packet of a board: by the rules, then by which flows this board began.  conflux/policy/guard.py is the
 * readable twin.
 *
 *     received   a rule of the way in ─► a flow that began here ─► an error about a flow that may be ─► refused
 *     sent       a flow that began here ─► a rule of the way out ─► an answer to what a rule lets in ─► refused
 *
 * Two tables say all: the way in has the members' addresses as sources and this board's as targets, and the way out
 * has them the other way round.  That a source address is its sender's was proved before.  A later piece of a datagram
 * has the verdict of its first one.  Holds no name and no time of rules: a new pair of tables comes in time. */

#ifndef CONFLUX_POLICY_GUARD_H
#define CONFLUX_POLICY_GUARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum guard_verdict {
    GUARD_PASS,
    GUARD_REFUSED, /* no rule allows it */
    GUARD_UNFIT, /* it cannot be judged: enum flow_unfit */
    GUARD_PIECE, /* a later piece of a datagram whose first piece did not pass, or did not come yet */
};

struct guard;

/* flows: that are remembered, a power of two; NULL: no memory. */
struct guard *guard_new(uint32_t flows, uint64_t seed);
void guard_free(struct guard *self); /* NULL is allowed */

/* Hold to these tables from now on; flows that began are judged again.  False: they are none, and nothing changes. */
bool guard_load_untrusted(struct guard *self, const uint8_t *in, size_t in_size, const uint8_t *out, size_t out_size);

enum guard_verdict guard_in(struct guard *self, const uint8_t *packet, size_t size, uint64_t now_ns);
/* A courtesy: what the far end would drop is refused here, where a program can be told.  In doubt it passes. */
enum guard_verdict guard_out(struct guard *self, const uint8_t *packet, size_t size, uint64_t now_ns);

#endif
