/* Frames passed on: the relay's next frame for a link goes to its tether. */

#include "engine/private.h"

size_t passing_send_frame(struct turn *turn, struct link *link, size_t bundle_bytes_max)
{
    struct relay_frame frame;

    (void)turn, (void)bundle_bytes_max; /* the frame has the size it came with */
    if (!relay_next(link->engine->relay, link->id, &frame, link->engine->now))
        return 0;
    size_t bytes = frame.message->size;
    struct tether *tether = links_tether(link, frame.hop->tether);
    if (tether == NULL || !tether->mapped[frame.channel]) {
        sctp_message_delete(frame.message);
        drop(link->engine, DROP_NO_TETHER);
        return bytes;
    }
    struct sctp_sending how = {
        .stream = tether->streams[frame.channel],
        .unordered = frame.unordered,
        .ppid = PPID_BINARY,
        .reliability = SCTP_LIFETIME_MS_MAX,
        .reliability_value = tether->lifetime_ms,
    };
    if (!sctp_send(link->sctp, frame.message, &how, link->engine->now))
        drop(link->engine, DROP_CARRIER_FULL);
    return bytes;
}
