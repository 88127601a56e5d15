/* Stream resets (RFC 6525): how data channels are closed.  We ask for resets of our own streams, one request at a
 * time, and grant the peer those of its own once all it sent on them has come.  Other requests are answered, mostly
 * with no. */

#include <stdlib.h>
#include <string.h>

#include "sctp_private.h"

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

    OUTGOING_BYTES = 16, /* of the parameter, before its streams */
};

/* --- ours -------------------------------------------------------------------------------------------------------- */

bool sctp_reset_streams(struct sctp *self, const uint16_t *streams, size_t count, uint64_t now)
{
    if (self->phase != SCTP_ESTABLISHED)
        return false;
    for (size_t index = 0; index < count; index++)
        if (streams[index] >= self->streams_out || sctp_stream_out(self, streams[index], true) == NULL)
            return false;
    for (size_t index = 0; index < count; index++) {
        uint16_t number = streams[index];
        struct sctp_stream_out *stream = sctp_stream_out(self, number, false);

        if (stream->resetting)
            continue;
        stream->resetting = true;
        self->reset_wanted[number / 64] |= UINT64_C(1) << number % 64;
        self->reset_wanted_count++;
    }
    if (!self->reset_supported)
        self->reset_at = now; /* the refusal is told from there */
    sctp_reset_prepare(self);
    return true;
}

/* Move wanted streams on which nothing waits any longer to the request. */
static void collect(struct sctp *self)
{
    for (uint32_t number = 0; number < SCTP_STREAM_COUNT_MAX && self->reset_count < SCTP_RESET_STREAMS_MAX; number++) {
        number = bit_next(self->reset_wanted, SCTP_STREAM_COUNT_MAX, number, SCTP_STREAM_COUNT_MAX, true);
        if (number == SCTP_STREAM_COUNT_MAX)
            return;
        if (sctp_stream_out(self, (uint16_t)number, false)->waiting > 0)
            continue;
        bit_clear(self->reset_wanted, SCTP_STREAM_COUNT_MAX, number);
        self->reset_wanted_count--;
        self->reset_streams[self->reset_count++] = (uint16_t)number;
    }
}

void sctp_reset_prepare(struct sctp *self)
{
    if (self->reset_count > 0 || self->reset_wanted_count == 0 || !self->reset_supported)
        return;
    collect(self);
    if (self->reset_count == 0)
        return;
    self->reset_tsn = self->tsn_next - 1;
    self->reset_tries = 0;
    self->reset_due = true;
}

size_t sctp_put_reset(struct sctp *self, uint8_t *at, size_t room, uint64_t now)
{
    size_t parameter = OUTGOING_BYTES + 2 * self->reset_count, size = SCTP_CHUNK_HEADER_BYTES + parameter;

    if (padded(size) > room)
        return 0;
    uint8_t *body = store_chunk_header(at, SCTP_RECONFIG, 0, size);
    store_be16(body, PARAMETER_OUTGOING);
    store_be16(body + 2, (uint16_t)parameter);
    store_be32(body + 4, self->reset_sequence);
    store_be32(body + 8, self->request_last);
    store_be32(body + 12, self->reset_tsn);
    for (unsigned index = 0; index < self->reset_count; index++)
        store_be16(body + OUTGOING_BYTES + 2 * index, self->reset_streams[index]);
    memset(at + size, 0, padded(size) - size);
    self->reset_due = false;
    self->reset_at = now + earlier(self->rto << self->reset_tries, SCTP_RTO_MAX_NS);
    return padded(size);
}

static void reset_done(struct sctp *self, bool accepted)
{
    uint16_t streams[SCTP_RESET_STREAMS_MAX];
    unsigned count = self->reset_count;

    memcpy(streams, self->reset_streams, count * sizeof *streams);
    for (unsigned index = 0; index < count; index++) {
        struct sctp_stream_out *stream = sctp_stream_out(self, streams[index], false);

        stream->resetting = false;
        if (accepted)
            stream->ssn_next = 0;
    }
    self->reset_count = 0;
    self->reset_due = false;
    self->reset_at = SCTP_NEVER;
    self->handler->streams_reset(self->context, false, accepted, streams, count);
    sctp_reset_prepare(self);
}

void sctp_reset_timeout(struct sctp *self, uint64_t now)
{
    (void)now;
    self->reset_at = SCTP_NEVER;
    if (!self->reset_supported) {
        while (self->reset_wanted_count > 0 && self->phase == SCTP_ESTABLISHED) {
            collect(self);
            if (self->reset_count == 0) { /* something waits to be sent on each of them yet */
                self->reset_at = now + SCTP_RTO_MIN_NS;
                return;
            }
            reset_done(self, false);
        }
        return;
    }
    if (self->reset_count == 0)
        return;
    if (++self->reset_tries > SCTP_RETRANSMITS_MAX_ASSOCIATION) {
        sctp_end(self, SCTP_END_TIMEOUT);
        return;
    }
    self->reset_due = true;
}

static void receive_response(struct sctp *self, uint32_t sequence, uint32_t result, uint64_t now)
{
    if (self->reset_count == 0 || sequence != self->reset_sequence)
        return;
    if (result == RESULT_IN_PROGRESS) { /* asked again until it is done: no failure */
        self->reset_tries = 0;
        self->reset_due = false;
        self->reset_at = now + self->rto;
        return;
    }
    self->reset_sequence++;
    reset_done(self, result == RESULT_NOTHING || result == RESULT_PERFORMED);
}

/* --- the peer's -------------------------------------------------------------------------------------------------- */

static void respond(struct sctp *self, uint32_t sequence, uint32_t result)
{
    uint8_t *body = sctp_control(self, SCTP_RECONFIG, 0, 12);

    if (body == NULL)
        return; /* the peer asks again */
    store_be16(body, PARAMETER_RESPONSE);
    store_be16(body + 2, 12);
    store_be32(body + 4, sequence);
    store_be32(body + 8, result);
}

static void perform(struct sctp *self, const uint16_t *streams, size_t count)
{
    for (size_t index = 0; index < count; index++)
        sctp_stream_in_reset(self, streams[index]);
    for (unsigned number = 0; count == 0 && number < SCTP_STREAM_COUNT_MAX; number++)
        sctp_stream_in_reset(self, (uint16_t)number);
    self->handler->streams_reset(self->context, true, true, streams, count);
}

void sctp_reset_deferred(struct sctp *self)
{
    uint16_t *streams = self->request_streams;
    size_t count = self->request_count;

    if (!self->request_deferred || tsn_after(self->request_tsn, self->tsn_received) || self->phase == SCTP_ENDED)
        return;
    self->request_deferred = false;
    self->request_result = RESULT_PERFORMED;
    respond(self, self->request_last, RESULT_PERFORMED);
    perform(self, streams, count);
}

/* Remember the peer's request, and grant it if all that belongs before it has come. */
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
    /* dcSCTP asks again under a new number when told "in progress".  Granted meanwhile, it is not to be granted twice:
     * the streams may carry new messages already.  Granted at once, it is another: the peer had nothing to say on what
     * we opened, and closes that. */
    if (self->request_result == RESULT_PERFORMED && self->request_waited && self->request_tsn == tsn &&
        self->request_count == count && count > 0 &&
        memcmp(self->request_streams, streams, count * sizeof *streams) == 0) {
        free(streams);
        return RESULT_NOTHING;
    }
    free(self->request_streams);
    self->request_deferred = true;
    self->request_waited = tsn_after(tsn, self->tsn_received);
    self->request_tsn = tsn;
    self->request_streams = streams;
    self->request_count = count;
    return RESULT_IN_PROGRESS;
}

static void receive_request(struct sctp *self, unsigned type, const uint8_t *parameter, size_t size)
{
    uint32_t sequence = load_be32(parameter + 4);

    if (sequence == self->request_last) { /* asked again */
        respond(self, sequence, self->request_result);
        return;
    }
    if (sequence != self->request_last + 1) {
        respond(self, sequence, RESULT_BAD_SEQUENCE);
        return;
    }
    if (self->request_taken) {
        /* An honest peer waits for our answer before the next.  Sixteen bytes reset every stream: a packet full of
         * such requests would cost us, and whoever is told of each, a thousand times what it cost the peer. */
        self->counts.dropped_other++;
        return;
    }
    self->request_taken = true;
    self->request_last = sequence;
    self->request_deferred = false; /* a new request stands for one that was not granted yet */
    if (type == PARAMETER_OUTGOING && size >= OUTGOING_BYTES) {
        self->request_result = receive_outgoing(self, parameter, size);
        sctp_reset_deferred(self);
        if (self->request_result == RESULT_PERFORMED)
            return; /* it has answered */
    } else {
        self->request_result = RESULT_DENIED;
    }
    if (type == PARAMETER_ADD_OUTGOING && size >= 12 &&
        self->streams_in + load_be16(parameter + 8) <= SCTP_STREAM_COUNT_MAX) {
        self->streams_in = (uint16_t)(self->streams_in + load_be16(parameter + 8));
        self->request_result = RESULT_PERFORMED;
    }
    respond(self, sequence, self->request_result);
}

void sctp_receive_reconfig_untrusted(struct sctp *self, const uint8_t *chunk, size_t size, uint64_t now)
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
