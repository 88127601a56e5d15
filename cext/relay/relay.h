/* Passes frames on: label switching, and one fair queue per link.  The twin of conflux/datapath/reference/relay.py,
 * rule for rule; its comments say why.  Holds no key, and knows no stream and no node.  A frame keeps the memory it
 * came in.
 *
 *     frame under before.label_in ─► way ahead ─┐
 *                                    way ahead ─┼─► link's queue ─► next, under label_out, on the same channel
 *     feedback under ahead.label_in ► way back ─┘
 * / */

#ifndef CONFLUX_RELAY_H
#define CONFLUX_RELAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sctp/sctp.h"

struct relay_limits { /* as in conflux/datapath/config.py */
    size_t route_bytes_max, link_bytes_max, bytes_max, mark_bytes;
    uint64_t age_ns_max;
    uint64_t bytes_per_s; /* 0: no bound */
};

enum { RELAY_CHANNEL_COUNT_MAX = 8 }; /* of a tether: what a SETUP may ask for */

struct relay_hop {
    uint32_t link;
    uint64_t tether;
    uint32_t channel_count; /* 1 to RELAY_CHANNEL_COUNT_MAX */
    uint32_t label_out, label_in;
};

enum relay_drop { RELAY_FULL, RELAY_RATE, RELAY_AGED, RELAY_GONE };

struct relay_frame {
    struct sctp_message *message; /* under its new label */
    const struct relay_hop *hop; /* valid until the next change of the table */
    unsigned channel; /* below hop->channel_count */
    bool unordered; /* as it came */
};

struct relay; /* all routes that lead through this node, and their waiting frames */

struct relay *relay_new(const struct relay_limits *limits, void (*drop)(void *context, enum relay_drop why),
                        void *context);
void relay_delete(struct relay *self);

bool relay_holds(const struct relay *self, uint32_t link, uint32_t label, bool feedback);
/* NULL, or why not: the words of conflux/datapath/reference/relay.py's LocalProtocolError. */
const char *relay_add(struct relay *self, const struct relay_hop *before, const struct relay_hop *ahead, uint64_t now);
void relay_remove(struct relay *self, uint32_t link, uint32_t label_in);

/* Take a frame with a well-formed header and this label.  True: taken, or dropped and counted.  False: there is no
 * such way, and the message is still the caller's. */
bool relay_receive_untrusted(struct relay *self, uint32_t link, uint32_t label, bool feedback, unsigned channel,
                             bool unordered, struct sctp_message *message, uint64_t now);

bool relay_waits(const struct relay *self, uint32_t link); /* frames wait for this link */
/* Take the next frame for a link.  False: there is none, or all that waited had waited too long. */
bool relay_next(struct relay *self, uint32_t link, struct relay_frame *out, uint64_t now);

/* One route's counters.  index runs from 0 until false. */
struct relay_status {
    struct relay_hop before, ahead;
    uint64_t frames_ahead, bytes_ahead, frames_back, bytes_back;
};
bool relay_status(const struct relay *self, size_t index, struct relay_status *out);

#endif
