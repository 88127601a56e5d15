/* Frames that came before the route they came by: a sender lets them follow its SETUP at once, and of a SETUP with
 * five packets one may be lost.  They wait here until the label is known.  Bounded by tether and by link. */

#include "engine/private.h"

enum { EARLY_BYTES_MAX = 128 << 10 }; /* per link: what SCTP lets a peer send before its first acknowledgement */
#define EARLY_NS_MAX SECOND_NS /* by then their sender has sent them again, or they are of no use */

bool early_hold(struct link *link, const struct channel *channel, struct sctp_message *message)
{
    struct tether *tether = channel->tether;

    if (tether->early_left == 0 || link->early_count == EARLY_COUNT_MAX ||
        link->early_bytes + message->size > EARLY_BYTES_MAX)
        return false;
    tether->early_left--;
    link->early_bytes += message->size;
    link->early[link->early_count++] = (struct early){message, *channel, link->engine->now};
    return true;
}

/* Take those out that are of a tether, or under a label; tether NULL: any.  They are delivered or dropped. */
static void take(struct link *link, const struct tether *tether, const uint32_t *label)
{
    struct early taken[EARLY_COUNT_MAX];
    size_t taken_count = 0, kept_count = 0;

    for (size_t at = 0; at < link->early_count; at++) {
        struct early *early = &link->early[at];
        bool matches = (tether == NULL || early->channel.tether == tether) &&
                       (label == NULL || frame_label(early->message->data) == *label);
        if (matches)
            taken[taken_count++] = *early;
        else
            link->early[kept_count++] = *early;
    }
    link->early_count = kept_count;
    for (size_t at = 0; at < taken_count; at++) {
        struct sctp_message *message = taken[at].message;
        link->early_bytes -= message->size;
        if (label != NULL && link->engine->now - taken[at].came_at <= EARLY_NS_MAX) {
            incoming_frame_untrusted(link, message, &taken[at].channel, true);
        } else {
            drop(link->engine, DROP_UNKNOWN_LABEL);
            sctp_message_delete(message);
        }
    }
}

void early_deliver(struct link *link, uint32_t label) { take(link, NULL, &label); }

void early_forget(struct link *link, const struct tether *tether) { take(link, tether, NULL); }
