/* Whose turn it is to send over a link: deficit round robin between destinations, with one turn for all frames
 * passed on; a turn that was quiet goes first.  Decides the order, and how large a frame may be.  Knows neither what
 * a turn sends nor how a frame becomes datagrams. */

#include "engine/private.h"

enum {
    QUANTUM_BYTES = 65536, /* per turn: one frame of the largest size */
    FRAME_COST_BYTES = 256, /* more than a frame's bytes, as conflux/datapath/reference/relay.py charges */
};

static void list_append(struct turn_list *self, struct turn *turn)
{
    turn->next = NULL;
    if (self->last != NULL)
        self->last->next = turn;
    else
        self->first = turn;
    self->last = turn;
}

static void list_pop(struct turn_list *self)
{
    self->first = self->first->next;
    if (self->first == NULL)
        self->last = NULL;
}

/* Take a turn out of the list; false: it is not in it. */
static bool list_remove(struct turn_list *self, struct turn *turn)
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
        return true;
    }
    return false;
}

void turns_add(struct link *link, struct turn *turn)
{
    if (turn->waiting)
        return;
    turn->waiting = true;
    turn->deficit = QUANTUM_BYTES;
    list_append(&link->quiet, turn);
}

void turns_remove(struct link *link, struct turn *turn)
{
    if (!turn->waiting)
        return;
    turn->waiting = false;
    bool listed = list_remove(&link->quiet, turn) || list_remove(&link->waiting, turn);
    CHECK(listed);
}

void turns_fill(struct link *link)
{
    struct sctp_state state = sctp_state(link->sctp);
    size_t bundle_bytes_max = state.rate_bytes_s / 1000; /* one millisecond of the link's rate */

    if (bundle_bytes_max < 2 * state.packet_bytes)
        bundle_bytes_max = 2 * state.packet_bytes;
    if (bundle_bytes_max > BUNDLE_BYTES_MAX)
        bundle_bytes_max = BUNDLE_BYTES_MAX;
    link->rtt_min_ns = state.rtt_min_ns;
    link->searching = state.searching;
    if (relay_waits(link->engine->relay, link->id))
        turns_add(link, &link->passing);
    while ((link->quiet.first != NULL || link->waiting.first != NULL) && sctp_room(link->sctp, link->engine->now) > 0) {
        struct turn_list *turns = link->quiet.first != NULL ? &link->quiet : &link->waiting;
        struct turn *turn = turns->first;
        CHECK(turn->waiting);
        size_t bytes = 0;
        if (turn->deficit > 0)
            bytes = turn->send_frame(turn, link, bundle_bytes_max);
        if (bytes > 0) {
            turn->deficit -= (int64_t)bytes + FRAME_COST_BYTES;
        } else if (turn->deficit <= 0) {
            turn->deficit += QUANTUM_BYTES;
            list_pop(turns);
            list_append(&link->waiting, turn);
        } else {
            list_pop(turns);
            if (turns == &link->quiet)
                list_append(&link->waiting, turn); /* all others come before it counts as quiet again */
            else
                turn->waiting = false;
        }
    }
}
