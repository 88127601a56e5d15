/* Whose turn it is to send over a link: deficit round robin between destinations, with one place for all frames passed
 * on, and who was quiet goes first.  Decides the order, and how large a frame may be; knows neither a stream's key nor
 * how a frame becomes datagrams. */

#include "engine_private.h"

enum {
    QUANTUM_BYTES = 65536, /* of a turn: one frame of the largest size */
    FRAME_COST_BYTES = 256, /* what a frame costs beside its bytes; as conflux/datapath/relay.py charges it */
};

static void turns_append(struct turns *self, struct turn *turn)
{
    turn->next = NULL;
    if (self->last != NULL)
        self->last->next = turn;
    else
        self->first = turn;
    self->last = turn;
}

static void turns_pop(struct turns *self)
{
    self->first = self->first->next;
    if (self->first == NULL)
        self->last = NULL;
}

static void turns_remove(struct turns *self, struct turn *turn)
{
    struct turn *before = NULL;

    for (struct turn *at = self->first; at != NULL; before = at, at = at->next) {
        if (at != turn)
            continue;
        if (before != NULL)
            before->next = turn->next;
        else
            self->first = turn->next;
        if (self->last == turn)
            self->last = before;
        return;
    }
}

void link_wait(struct link *self, struct turn *turn)
{
    if (turn->waiting)
        return;
    turn->waiting = true;
    turn->deficit = QUANTUM_BYTES;
    turns_append(&self->quiet, turn);
}

void link_forget(struct link *self, struct turn *turn)
{
    if (!turn->waiting)
        return;
    turn->waiting = false;
    turns_remove(&self->quiet, turn);
    turns_remove(&self->waiting, turn);
}

/* Send the next frame passed on; bytes, or 0. */
static size_t relay_send_frame(struct link *self)
{
    struct relay_frame frame;

    if (!relay_next(self->engine->relay, self->id, &frame, self->engine->now))
        return 0;
    size_t bytes = frame.message->size;
    struct tether *tether = link_tether(self, frame.hop->tether);
    if (tether == NULL || !tether->mapped[frame.channel]) {
        sctp_message_delete(frame.message);
        drop(self->engine, DROP_NO_TETHER);
        return bytes;
    }
    struct sctp_sending how = {
        .stream = tether->streams[frame.channel],
        .unordered = frame.unordered,
        .ppid = PPID_BINARY,
        .reliability = SCTP_LIFETIME_MS_MAX,
        .reliability_value = tether->lifetime_ms,
    };
    if (!sctp_send(self->sctp, frame.message, &how, self->engine->now))
        drop(self->engine, DROP_CARRIER_FULL);
    return bytes;
}

void link_fill(struct link *self)
{
    struct sctp_state state = sctp_state(self->sctp);
    size_t bundle_bytes_max = state.rate_bytes_s / 1000; /* one millisecond of the link's rate */

    if (bundle_bytes_max < 2 * state.packet_bytes)
        bundle_bytes_max = 2 * state.packet_bytes;
    if (bundle_bytes_max > BUNDLE_BYTES_MAX)
        bundle_bytes_max = BUNDLE_BYTES_MAX;
    self->rtt_min = state.rtt_min_ns;
    self->searching = state.searching;
    if (relay_waits(self->engine->relay, self->id))
        link_wait(self, &self->relay);
    while ((self->quiet.first != NULL || self->waiting.first != NULL) && sctp_room(self->sctp, self->engine->now) > 0) {
        struct turns *turns = self->quiet.first != NULL ? &self->quiet : &self->waiting;
        struct turn *turn = turns->first;
        size_t bytes = 0;
        if (turn->deficit > 0)
            bytes = turn->egress != NULL ? egress_send_frame(turn->egress, bundle_bytes_max) : relay_send_frame(self);
        if (bytes > 0) {
            turn->deficit -= (int64_t)bytes + FRAME_COST_BYTES;
        } else if (turn->deficit <= 0) {
            turn->deficit += QUANTUM_BYTES;
            turns_pop(turns);
            turns_append(&self->waiting, turn);
        } else {
            turns_pop(turns);
            if (turns == &self->quiet)
                turns_append(&self->waiting, turn); /* before it counts as quiet again, everybody else has a turn */
            else
                turn->waiting = false;
        }
    }
}
