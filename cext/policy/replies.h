/* Which flows this board began lately, so that the answers pass without a rule of their own: an entry for each peer
 * and 5-tuple, in a table that never grows.
 *
 *     packet sent      replies_look(OUT) ── NONE or STALE ──► ask the rules ── allowed ──► replies_begin()
 *                                                                          └─ STALE, refused ─► replies_end()
 *     packet received  (no rule allows it) replies_look(IN) ── HELD ──► it passes
 *                                                            ── STALE ─► ask the rules of the way out, as above
 *
 * Only a flow that a rule allows to *begin* here makes an entry.  If every packet sent did, a board's own answers
 * would: after a rule was withdrawn, the next one that its kernel repeats would open the flow again.
 *
 * An entry says under which policy it was judged; under another one it is STALE until it is judged again.  Of ICMP only
 * echoes are flows.  Entries are in sets of eight, and a keyed hash names two for each; if both are full, the entry of
 * these that was silent for longest gives way.  So a flood of flows takes no memory, and one that has to begin again
 * is begun by the next packet sent. */

#ifndef CONFLUX_POLICY_REPLIES_H
#define CONFLUX_POLICY_REPLIES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "policy/flow.h"

enum replies_way { REPLIES_OUT, REPLIES_IN };
enum replies_found { REPLIES_NONE, REPLIES_HELD, REPLIES_STALE };

struct replies;

/* room: entries, a power of two of at least eight; 66 bytes each.  NULL: no memory, or another room. */
struct replies *replies_new(uint32_t room, uint64_t seed);
void replies_free(struct replies *self); /* NULL is allowed */

/* Look a packet's flow up.  HELD keeps the entry alive, for a time that depends on what was seen of the flow.  A later
 * piece of a datagram has no flow here: its first piece's verdict counts. */
enum replies_found replies_look(struct replies *self, uint32_t peer, const struct flow *flow, enum replies_way way,
                                uint32_t policy, uint64_t now_ns);

/* Enter the flow of a packet, or its entry as judged again: a rule of this policy allows it to begin here. */
void replies_begin(struct replies *self, uint32_t peer, const struct flow *flow, enum replies_way way, uint32_t policy,
                   uint64_t now_ns);

/* Forget the flow of a packet: no rule allows it any more. */
void replies_end(struct replies *self, uint32_t peer, const struct flow *flow, enum replies_way way);

uint32_t replies_count(const struct replies *self, uint64_t now_ns); /* looks at every entry */
uint64_t replies_displaced(const struct replies *self); /* entries that gave way while they were alive */

#endif
