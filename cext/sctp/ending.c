/* How an association ends: its phase, the reason, and that nothing is due any longer.  The memory goes later, when no
 * caller is in the middle of a message. */

#include "sctp/state.h"

void sctp_end(struct sctp *self, enum sctp_end why)
{
    if (self->phase == SCTP_ENDED)
        return;
    self->phase = SCTP_ENDED;
    self->why = why;
    self->due = (struct sctp_due){0};
    self->answers.size = 0;
    self->in.sack_wanted = false;
    sctp_timers_stop(self);
}

void sctp_end_abort(struct sctp *self, uint16_t cause, enum sctp_end why)
{
    if (self->phase == SCTP_ENDED)
        return;
    sctp_end(self, why);
    self->due.abort = self->tag_remote != 0;
    self->abort_cause = cause;
}

void sctp_end_violation(struct sctp *self, uint16_t cause)
{
    self->counts.dropped_malformed++;
    sctp_end_abort(self, cause, SCTP_END_MALFORMED);
}
