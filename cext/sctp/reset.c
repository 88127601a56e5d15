/* Stream resets (RFC 6525): how data channels are closed.  We request resets of our own streams, one request at a
 * time, and grant the peer's, once everything that it sent on them before has come.  Other requests get an answer,
 * mostly a refusal. */

#include <stdlib.h>
#include <string.h>

#include "sctp/state.h"

enum {
    PARAMETER_OUTGOING = 13,
    PARAMETER_INCOMING = 14,
    PARAMETER_ALL = 15,
    PARAMETER_RESPONSE = 16,
    PARAMETER_ADD_OUTGOING = 17,
    PARAMETER_ADD_INCOMING = 18,

    RESULT_NOTHING = 0,
    RESULT_PERFORMED = 1,
    RESULT_DENIED = 2,
    RESULT_WRONG_STREAM = 3,
    RESULT_BAD_SEQUENCE = 5,
    RESULT_IN_PROGRESS = 6,

    OUTGOING_BYTES = 16, /* of the parameter, up to its streams */
};

/* --- ours -------------------------------------------------------------------------------------------------------- */

bool sctp_reset_streams(struct sctp *self, const uint16_t *streams, size_t count, uint64_t now)
{
    if (self->phase != SCTP_ESTABLISHED)
        return false;
    for (size_t index = 0; index < count; index++)
        if (streams[index] >= self->streams_out || sctp_streams_out(self, streams[index], true) == NULL)
            return false;
    for (size_t index = 0; index < count; index++) {
        uint16_t number = streams[index];
        struct sctp_stream_out *stream = sctp_streams_out(self, number, false);

        if (stream->resetting)
            continue;
        stream->resetting = true;
        self->reset.wanted[number / 64] |= UINT64_C(1) << number % 64;
        self->reset.wanted_count++;
    }
    if (!self->reset_supported)
        self->timers.reset_at = now; /* the timeout tells that it is refused */
    sctp_reset_prepare(self);
    return true;
}

/* Put streams into the request that are to be reset and have nothing waiting. */
static void collect(struct sctp *self)
{
    for (uint32_t number = 0; number < SCTP_STREAM_COUNT_MAX && self->reset.count < SCTP_RESET_STREAMS_MAX; number++) {
        number = bit_next(self->reset.wanted, SCTP_STREAM_COUNT_MAX, number, SCTP_STREAM_COUNT_MAX, true);
        if (number == SCTP_STREAM_COUNT_MAX)
            return;
        if (sctp_streams_out(self, (uint16_t)number, false)->waiting > 0)
            continue;
        bit_clear(self->reset.wanted, SCTP_STREAM_COUNT_MAX, number);
        self->reset.wanted_count--;
        self->reset.streams[self->reset.count++] = (uint16_t)number;
    }
}

void sctp_reset_prepare(struct sctp *self)
{
    if (self->reset.count > 0 || self->reset.wanted_count == 0 || !self->reset_supported)
        return;
    collect(self);
    if (self->reset.count == 0)
        return;
    self->reset.tsn = self->out.tsn_next - 1;
    self->reset.tries = 0;
    self->due.reset = true;
}

size_t sctp_reset_put(struct sctp *self, uint8_t *at, size_t room, uint64_t now)
{
    size_t parameter = OUTGOING_BYTES + 2 * self->reset.count, size = SCTP_CHUNK_HEADER_BYTES + parameter;

    if (padded(size) > room)
        return 0;
    uint8_t *body = store_chunk_header(at, SCTP_RECONFIG, 0, size);
    store_be16(body, PARAMETER_OUTGOING);
    store_be16(body + 2, (uint16_t)parameter);
    store_be32(body + 4, self->reset.sequence);
    store_be32(body + 8, self->request.sequence);
    store_be32(body + 12, self->reset.tsn);
    for (unsigned index = 0; index < self->reset.count; index++)
        store_be16(body + OUTGOING_BYTES + 2 * index, self->reset.streams[index]);
    memset(at + size, 0, padded(size) - size);
    self->due.reset = false;
    self->timers.reset_at = now + earlier(self->rtt.rto_ns << self->reset.tries, SCTP_RTO_MAX_NS);
    return padded(size);
}

static void reset_done(struct sctp *self, bool accepted)
{
    uint16_t streams[SCTP_RESET_STREAMS_MAX];
    unsigned count = self->reset.count;

    memcpy(streams, self->reset.streams, count * sizeof *streams);
    for (unsigned index = 0; index < count; index++) {
        struct sctp_stream_out *stream = sctp_streams_out(self, streams[index], false);

        stream->resetting = false;
        if (accepted)
            stream->ssn_next = 0;
    }
    self->reset.count = 0;
    self->due.reset = false;
    self->timers.reset_at = NEVER;
    self->handler->streams_reset(self->context, false, accepted, streams, count);
    sctp_reset_prepare(self);
}

void sctp_reset_timeout(struct sctp *self, uint64_t now)
{
    self->timers.reset_at = NEVER;
    if (!self->reset_supported) {
        while (self->reset.wanted_count > 0 && self->phase == SCTP_ESTABLISHED) {
            collect(self);
            if (self->reset.count == 0) { /* each of them still has something to send */
                self->timers.reset_at = now + SCTP_RTO_MIN_NS;
                return;
            }
            reset_done(self, false);
        }
        return;
    }
    if (self->reset.count == 0)
        return;
    if (++self->reset.tries > SCTP_RETRANSMITS_MAX_ASSOCIATION) {
        sctp_end(self, SCTP_END_TIMEOUT);
        return;
    }
    self->due.reset = true;
}

static void receive_response(struct sctp *self, uint32_t sequence, uint32_t result, uint64_t now)
{
    if (self->reset.count == 0 || sequence != self->reset.sequence)
        return;
    if (result == RESULT_IN_PROGRESS) { /* no failure: the request is sent again until it is done */
        self->reset.tries = 0;
        self->due.reset = false;
        self->timers.reset_at = now + self->rtt.rto_ns;
        return;
    }
    self->reset.sequence++;
    reset_done(self, result == RESULT_NOTHING || result == RESULT_PERFORMED);
}

/* --- the peer's -------------------------------------------------------------------------------------------------- */

static void respond(struct sctp *self, uint32_t sequence, uint32_t result)
{
    uint8_t *body = sctp_answers_add(self, SCTP_RECONFIG, 0, 12);

    if (body == NULL)
        return; /* the peer will ask again */
    store_be16(body, PARAMETER_RESPONSE);
    store_be16(body + 2, 12);
    store_be32(body + 4, sequence);
    store_be32(body + 8, result);
}

static void perform(struct sctp *self, const uint16_t *streams, size_t count)
{
    for (size_t index = 0; index < count; index++)
        sctp_streams_in_reset(self, streams[index]);
    for (unsigned number = 0; count == 0 && number < SCTP_STREAM_COUNT_MAX; number++)
        sctp_streams_in_reset(self, (uint16_t)number);
    self->handler->streams_reset(self->context, true, true, streams, count);
}

void sctp_reset_deferred(struct sctp *self)
{
    uint16_t *streams = self->request.streams;
    size_t count = self->request.count;

    if (!self->request.deferred || tsn_after(self->request.tsn, self->in.tsn_received) || self->phase == SCTP_ENDED)
        return;
    self->request.deferred = false;
    self->request.result = RESULT_PERFORMED;
    respond(self, self->request.sequence, RESULT_PERFORMED);
    perform(self, streams, count);
}

/* Remember the peer's request, and grant it if all that was sent before it has come. */
static uint32_t receive_outgoing(struct sctp *self, const uint8_t *parameter, size_t size)
{
    size_t count = (size - OUTGOING_BYTES) / 2;
    uint16_t *streams = malloc(count == 0 ? 1 : count * sizeof *streams);

    if (streams == NULL)
        return RESULT_DENIED;
    for (size_t index = 0; index < count; index++) {
        streams[index] = load_be16(parameter + OUTGOING_BYTES + 2 * index);
        if (streams[index] >= self->streams_in) {
            free(streams);
            return RESULT_WRONG_STREAM;
        }
    }
    uint32_t tsn = load_be32(parameter + 12);
    /* dcSCTP answers "in progress" by asking again under a new number.  A request granted meanwhile must not be granted
     * twice: the streams may carry new messages.  But an equal request after one that was granted at once is a new one:
     * the peer sent nothing on the streams that we opened, and closes them. */
    if (self->request.result == RESULT_PERFORMED && self->request.waited && self->request.tsn == tsn &&
        self->request.count == count && count > 0 &&
        memcmp(self->request.streams, streams, count * sizeof *streams) == 0) {
        free(streams);
        return RESULT_NOTHING;
    }
    free(self->request.streams);
    self->request.deferred = true;
    self->request.waited = tsn_after(tsn, self->in.tsn_received);
    self->request.tsn = tsn;
    self->request.streams = streams;
    self->request.count = count;
    return RESULT_IN_PROGRESS;
}

static void receive_request(struct sctp *self, unsigned type, const uint8_t *parameter, size_t size)
{
    uint32_t sequence = load_be32(parameter + 4);

    if (sequence == self->request.sequence) { /* asked again */
        respond(self, sequence, self->request.result);
        return;
    }
    if (sequence != self->request.sequence + 1) {
        respond(self, sequence, RESULT_BAD_SEQUENCE);
        return;
    }
    if (self->request.taken) {
        /* An honest peer waits for our answer before its next request.  Sixteen bytes reset every stream: a packet
         * full of such requests would cost us, and our user, a thousand times what it cost the peer. */
        self->counts.dropped_other++;
        return;
    }
    self->request.taken = true;
    self->request.sequence = sequence;
    self->request.deferred = false; /* a new request replaces one that was not granted yet */
    if (type == PARAMETER_OUTGOING && size >= OUTGOING_BYTES) {
        self->request.result = receive_outgoing(self, parameter, size);
        sctp_reset_deferred(self);
        if (self->request.result == RESULT_PERFORMED)
            return; /* the answer is queued */
    } else {
        self->request.result = RESULT_DENIED;
    }
    if (type == PARAMETER_ADD_OUTGOING && size >= 12 &&
        self->streams_in + load_be16(parameter + 8) <= SCTP_STREAM_COUNT_MAX) {
        self->streams_in = (uint16_t)(self->streams_in + load_be16(parameter + 8));
        self->request.result = RESULT_PERFORMED;
    }
    respond(self, sequence, self->request.result);
}

void sctp_reset_receive_untrusted(struct sctp *self, const uint8_t *chunk, size_t size, uint64_t now)
{
    for (size_t at = SCTP_CHUNK_HEADER_BYTES; at < size && size - at >= 4 && self->phase != SCTP_ENDED;) {
        const uint8_t *parameter = chunk + at;
        unsigned type = load_be16(parameter);
        size_t length = load_be16(parameter + 2);

        if (length < 8 || length > size - at) {
            self->counts.dropped_malformed++;
            return;
        }
        if (type == PARAMETER_RESPONSE && length >= 12)
            receive_response(self, load_be32(parameter + 4), load_be32(parameter + 8), now);
        else if (type >= PARAMETER_OUTGOING && type <= PARAMETER_ADD_INCOMING && type != PARAMETER_RESPONSE)
            receive_request(self, type, parameter, length);
        else
            self->counts.dropped_other++;
        at += padded(length);
    }
}
