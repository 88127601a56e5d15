/* What is remembered of every stream, each way.  A block of streams is allocated when the first of them carries
 * something.  Ordered messages that came early wait in a heap by SSN until their turn. */

#include <stdlib.h>

#include "sctp/state.h"

/* --- out --------------------------------------------------------------------------------------------------------- */

struct sctp_stream_out *sctp_streams_out(struct sctp *self, uint16_t stream, bool make)
{
    if (stream >= SCTP_STREAM_COUNT_MAX)
        return NULL;
    struct sctp_stream_out **block = &self->out.streams[stream / SCTP_STREAMS_PER_BLOCK];
    if (*block == NULL && make)
        *block = calloc(SCTP_STREAMS_PER_BLOCK, sizeof **block);
    return *block == NULL ? NULL : *block + stream % SCTP_STREAMS_PER_BLOCK;
}

/* --- in ---------------------------------------------------------------------------------------------------------- */

struct sctp_stream_in *sctp_streams_in(struct sctp *self, uint16_t stream, bool make)
{
    if (stream >= SCTP_STREAM_COUNT_MAX)
        return NULL;
    struct sctp_stream_in **block = &self->in.streams[stream / SCTP_STREAMS_PER_BLOCK];
    if (*block == NULL && make)
        *block = calloc(SCTP_STREAMS_PER_BLOCK, sizeof **block);
    return *block == NULL ? NULL : *block + stream % SCTP_STREAMS_PER_BLOCK;
}

/* A heap with the lowest SSN at index 0: a peer that sends its SSNs backwards costs no more than one that sends them in
 * order. */
bool sctp_streams_push(struct sctp_stream_in *stream, struct sctp_ordered item)
{
    if (stream->waiting_count == stream->waiting_room) {
        uint32_t room = stream->waiting_room == 0 ? 8 : stream->waiting_room * 2;
        struct sctp_ordered *waiting = realloc(stream->waiting, room * sizeof *waiting);

        if (waiting == NULL)
            return false;
        stream->waiting = waiting;
        stream->waiting_room = room;
    }
    uint32_t index = stream->waiting_count++;
    while (index > 0 && ssn_after(stream->waiting[(index - 1) / 2].ssn, item.ssn)) {
        stream->waiting[index] = stream->waiting[(index - 1) / 2];
        index = (index - 1) / 2;
    }
    stream->waiting[index] = item;
    return true;
}

struct sctp_ordered sctp_streams_pop(struct sctp_stream_in *stream)
{
    CHECK(stream->waiting_count > 0);
    struct sctp_ordered top = stream->waiting[0], moved = stream->waiting[--stream->waiting_count];
    uint32_t index = 0, child;

    while ((child = 2 * index + 1) < stream->waiting_count) {
        if (child + 1 < stream->waiting_count && ssn_after(stream->waiting[child].ssn, stream->waiting[child + 1].ssn))
            child++;
        if (!ssn_after(moved.ssn, stream->waiting[child].ssn))
            break;
        stream->waiting[index] = stream->waiting[child];
        index = child;
    }
    stream->waiting[index] = moved;
    return top;
}

void sctp_streams_in_clear(struct sctp *self, struct sctp_stream_in *stream)
{
    for (uint32_t index = 0; index < stream->waiting_count; index++) {
        self->in.held_bytes -= stream->waiting[index].message->size + SCTP_RECORD_BYTES;
        sctp_message_delete(stream->waiting[index].message);
    }
    free(stream->waiting);
    *stream = (struct sctp_stream_in){0};
}

void sctp_streams_in_reset(struct sctp *self, uint16_t stream)
{
    struct sctp_stream_in *state = sctp_streams_in(self, stream, false);

    if (state != NULL)
        sctp_streams_in_clear(self, state);
}
