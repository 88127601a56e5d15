/* Answers to single chunks.  They wait, as whole chunks, for the next packet. */

#include <string.h>

#include "sctp/state.h"

enum { REPORTED_BYTES_MAX = 64 }; /* of a chunk of unknown type */

uint8_t *sctp_answers_add(struct sctp *self, uint8_t type, uint8_t flags, size_t body)
{
    size_t size = SCTP_CHUNK_HEADER_BYTES + body, whole = padded(size);
    uint8_t *at = self->answers.bytes + self->answers.size;

    if (self->phase == SCTP_ENDED || whole > sizeof self->answers.bytes - self->answers.size) {
        self->counts.dropped_other++; /* a flood of questions does not get every answer */
        return NULL;
    }
    self->answers.size += whole;
    memset(at + size, 0, whole - size);
    return store_chunk_header(at, type, flags, size);
}

void sctp_answers_heartbeat_untrusted(struct sctp *self, const uint8_t *chunk, size_t size)
{
    uint8_t *body;

    if (self->phase < SCTP_COOKIE_ECHOED)
        return;
    body = sctp_answers_add(self, SCTP_HEARTBEAT_ACK, 0, size - SCTP_CHUNK_HEADER_BYTES);
    if (body != NULL)
        memcpy(body, chunk + SCTP_CHUNK_HEADER_BYTES, size - SCTP_CHUNK_HEADER_BYTES);
}

void sctp_answers_unknown_untrusted(struct sctp *self, const uint8_t *chunk, size_t size)
{
    size_t reported = size < REPORTED_BYTES_MAX ? size : REPORTED_BYTES_MAX;
    uint8_t *cause;

    self->counts.dropped_other++;
    if ((chunk[0] & 0x40) == 0 || self->phase < SCTP_ESTABLISHED)
        return;
    cause = sctp_answers_add(self, SCTP_ERROR, 0, 4 + reported);
    if (cause == NULL)
        return;
    store_be16(cause, SCTP_CAUSE_CHUNK_TYPE);
    store_be16(cause + 2, (uint16_t)(4 + reported));
    memcpy(cause + 4, chunk, reported);
}
