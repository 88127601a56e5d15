/* Messages on their way out: a queue of those not sent in full, and a ring, by TSN, of chunks that are sent and not
 * acknowledged cumulatively.  Decides nothing: send.c, loss.c and forward.c do. */

#include <stdlib.h>

#include "sctp/state.h"

/* Whether a list of TSNs links as many as it counts; bytes: the sum of their shares of packets. */
static bool list_holds(const struct sctp *self, const struct sctp_list *list, uint64_t *bytes)
{
    uint32_t tsn = list->oldest;

    *bytes = 0;
    for (uint32_t count = list->count; count > 0; count--) {
        *bytes += sent_at(self, tsn)->wire_bytes;
        if (count == 1)
            return tsn == list->newest;
        if (sent_at(self, sent_at(self, tsn)->newer)->older != tsn)
            return false;
        tsn = sent_at(self, tsn)->newer;
    }
    return true;
}

/* Whether every sum is that of its parts. */
static bool outbox_holds(const struct sctp *self)
{
    const struct sctp_out *out = &self->out;
    uint64_t unsent_bytes = 0, inflight_bytes, lost_bytes;
    uint32_t abandoned_count = 0;

    for (const struct sctp_outgoing *at = out->unsent_first; at != NULL; at = at->next)
        unsent_bytes += at->size - at->offset;
    for (uint32_t tsn = out->tsn_acked + 1; tsn != out->tsn_next; tsn++)
        abandoned_count += bit_test(out->abandoned_bits, out->span, tsn);
    return unsent_bytes == out->unsent_bytes && abandoned_count == out->abandoned_count &&
           list_holds(self, &out->inflight, &inflight_bytes) && inflight_bytes == out->inflight_bytes &&
           list_holds(self, &out->lost, &lost_bytes);
}

bool sctp_outbox_grow(struct sctp *self)
{
    uint32_t span = self->out.span == 0 ? SCTP_TSN_SPAN_MIN : self->out.span * 2;
    struct sctp_sent *sent = calloc(span, sizeof *sent);
    uint64_t *open_bits = calloc(span / 64, sizeof *open_bits);
    uint64_t *abandoned_bits = calloc(span / 64, sizeof *abandoned_bits);

    CHECK(outbox_holds(self));
    if (sent == NULL || open_bits == NULL || abandoned_bits == NULL) {
        free(sent);
        free(open_bits);
        free(abandoned_bits);
        return false;
    }
    for (uint32_t tsn = self->out.tsn_acked + 1; tsn != self->out.tsn_next; tsn++) {
        sent[tsn & (span - 1)] = *sent_at(self, tsn);
        if (bit_test(self->out.open_bits, self->out.span, tsn))
            bit_set(open_bits, span, tsn);
        if (bit_test(self->out.abandoned_bits, self->out.span, tsn))
            bit_set(abandoned_bits, span, tsn);
    }
    free(self->out.sent);
    free(self->out.open_bits);
    free(self->out.abandoned_bits);
    self->out.sent = sent;
    self->out.open_bits = open_bits;
    self->out.abandoned_bits = abandoned_bits;
    self->out.span = span;
    return true;
}

void sctp_outbox_recycle(struct sctp *self, struct sctp_outgoing *outgoing)
{
    CHECK(outgoing->tsn_left == 0);
    if (outgoing->message != NULL) {
        CHECK(self->out.accepted_bytes >= outbox_cost(outgoing));
        self->out.accepted_bytes -= outbox_cost(outgoing);
        sctp_message_delete(outgoing->message);
    }
    if (self->out.spare_count == SCTP_SPARES_MAX) {
        free(outgoing);
        return;
    }
    outgoing->message = NULL;
    outgoing->next = self->out.spare;
    self->out.spare = outgoing;
    self->out.spare_count++;
}

bool sctp_outbox_shift(struct sctp *self)
{
    struct sctp_outgoing *outgoing = self->out.unsent_first;

    self->out.unsent_first = outgoing->next;
    if (self->out.unsent_first == NULL)
        self->out.unsent_last = NULL;
    outgoing->next = NULL;
    struct sctp_stream_out *stream = sctp_streams_out(self, outgoing->stream, false);
    return --stream->waiting == 0 && stream->resetting;
}

void sctp_outbox_drop(struct sctp *self)
{
    struct sctp_out *out = &self->out;

    CHECK(out->sent == NULL || outbox_holds(self));
    for (uint32_t tsn = out->tsn_acked + 1; out->sent != NULL && tsn != out->tsn_next; tsn++) {
        struct sctp_outgoing *outgoing = sent_at(self, tsn)->outgoing;

        if (--outgoing->tsn_left == 0 && outgoing != out->unsent_first) /* that one goes with the queue */
            sctp_outbox_recycle(self, outgoing);
    }
    for (struct sctp_outgoing *next; out->unsent_first != NULL; out->unsent_first = next) {
        next = out->unsent_first->next;
        sctp_outbox_recycle(self, out->unsent_first);
    }
    CHECK(out->accepted_bytes == 0);
    for (struct sctp_outgoing *next; out->spare != NULL; out->spare = next) {
        next = out->spare->next;
        free(out->spare);
    }
    free(out->sent);
    free(out->open_bits);
    free(out->abandoned_bits);
    for (unsigned block = 0; block < SCTP_STREAM_BLOCK_COUNT; block++)
        free(out->streams[block]);
    uint32_t acked = out->tsn_acked;
    *out = (struct sctp_out){.tsn_next = acked + 1, .tsn_acked = acked, .tsn_forward = acked};
}
