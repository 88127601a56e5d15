/* Messages given up (RFC 3758): they are not sent any longer, and FORWARD-TSN tells the peer not to wait for them. */

#include <stdlib.h>

#include "sctp/state.h"

enum {
    FORWARD_STREAMS_MAX = 256, /* named in one FORWARD-TSN; with more streams it skips less */
    FORWARD_MESSAGES_MAX = 512, /* looked at for one, in 40 microseconds at most: a peer can cause many */
};

/* Give a message up.  Its chunks in flight stay there: the network still carries them, and rate.h needs to know when
 * they arrive. */
void sctp_forward_abandon(struct sctp *self, struct sctp_outgoing *outgoing, uint64_t now)
{
    uint32_t end = outgoing->tsn_first + outgoing->tsn_count;

    for (uint32_t tsn = end - outgoing->tsn_left; tsn != end; tsn++) {
        struct sctp_sent *sent = sent_at(self, tsn);

        if (sent->fate == SCTP_ACKED)
            continue;
        if (sent->fate == SCTP_LOST) {
            list_remove(self, &self->out.lost, tsn);
            sent->fate = SCTP_GONE;
            bit_clear(self->out.open_bits, self->out.span, tsn);
        }
        set_abandoned(self, tsn);
    }
    outgoing->abandoned = true;
    outgoing->expires_at = now;
    self->counts.messages_abandoned++;
    if (outgoing->offset < outgoing->size) {
        self->out.unsent_bytes -= outgoing->size - outgoing->offset;
        if (sctp_outbox_shift(self)) /* only the queue's first message is ever sent in part, or expires */
            sctp_reset_prepare(self);
        /* The peer may have acknowledged all it was sent, and hold a message without an end: one more TSN, never
         * sent, gives FORWARD-TSN something to skip. */
        if (outgoing->tsn_count > 0 && outbox_reserve(self)) {
            uint32_t tsn = outbox_give_tsn(self, outgoing);

            sent_at(self, tsn)->fate = SCTP_GONE;
            set_abandoned(self, tsn);
        }
    }
    self->out.accepted_bytes -= outbox_cost(outgoing);
    sctp_message_delete(outgoing->message);
    outgoing->message = NULL;
    if (outgoing->tsn_left == 0)
        sctp_outbox_recycle(self, outgoing);
}

/* The first TSN above the peer's cumulative acknowledgement that the peer must still get; tsn_next if there is none. */
static uint32_t owed_first(const struct sctp *self)
{
    uint32_t tsn = self->out.tsn_acked + 1;

    while (tsn != self->out.tsn_next) {
        uint32_t word = (tsn & (self->out.span - 1)) >> 6, left = 64 - (tsn & 63);
        uint64_t owed = (self->out.open_bits[word] & ~self->out.abandoned_bits[word]) >> (tsn & 63);

        if (owed != 0) {
            uint32_t skip = (uint32_t)__builtin_ctzll(owed);
            return skip < self->out.tsn_next - tsn ? tsn + skip : self->out.tsn_next;
        }
        if (left >= self->out.tsn_next - tsn)
            return self->out.tsn_next;
        tsn += left;
    }
    return tsn;
}

/* Set how far FORWARD-TSN may skip: to the last TSN given up before the first that the peer must still get. */
void sctp_forward_refresh(struct sctp *self, uint64_t now)
{
    if (tsn_after(self->out.tsn_acked, self->out.tsn_forward))
        self->out.tsn_forward = self->out.tsn_acked;
    if (self->out.abandoned_count == 0)
        return;
    uint32_t target = bit_last(self->out.abandoned_bits, self->out.span, self->out.tsn_forward + 1, owed_first(self));
    if (tsn_after(target, self->out.tsn_forward)) {
        self->out.tsn_forward = target;
        self->due.forward = true;
    } else if (tsn_after(self->out.tsn_forward, self->out.tsn_acked) &&
               (!tsn_after(self->out.forward_told, self->out.tsn_acked) ||
                now - self->out.forward_sent_at > self->rtt.srtt_ns + self->rtt.rttvar_ns)) {
        self->due.forward = true; /* the last one skipped less, or seems lost */
    }
    if (self->due.forward && self->timers.t3_at == NEVER)
        self->timers.t3_at = now + self->rtt.rto_ns;
}

void sctp_forward_expire(struct sctp *self, uint64_t now)
{
    bool any = false;

    while (self->out.unsent_first != NULL && self->out.unsent_first->expires_at <= now && sctp_carries(self)) {
        sctp_forward_abandon(self, self->out.unsent_first, now);
        any = true;
    }
    if (any && sctp_carries(self))
        sctp_forward_refresh(self, now);
}

size_t sctp_forward_put(struct sctp *self, uint8_t *at, size_t room, uint64_t now)
{
    uint16_t streams[FORWARD_STREAMS_MAX], ssns[FORWARD_STREAMS_MAX];
    uint32_t target = self->out.tsn_forward, end = target + 1;
    size_t count = 0, count_max = room / 4 - 2, message_count = 0;

    if (!tsn_after(self->out.tsn_forward, self->out.tsn_acked)) {
        self->due.forward = false;
        return 0;
    }
    if (room < 8)
        return 0;
    if (count_max > FORWARD_STREAMS_MAX)
        count_max = FORWARD_STREAMS_MAX;
    for (uint32_t tsn = self->out.tsn_acked + 1; tsn_after(end, tsn);) {
        tsn = bit_next(self->out.abandoned_bits, self->out.span, tsn, end, true);
        if (tsn == end)
            break;
        const struct sctp_outgoing *outgoing = sent_at(self, tsn)->outgoing;
        struct sctp_stream_out *stream = sctp_streams_out(self, outgoing->stream, false);
        bool named = stream->forward_index < count && streams[stream->forward_index] == outgoing->stream;

        if (message_count++ == FORWARD_MESSAGES_MAX || (!outgoing->unordered && !named && count == count_max)) {
            target = tsn - 1;
            break;
        }
        if (!outgoing->unordered) {
            if (!named)
                stream->forward_index = (uint16_t)count++;
            streams[stream->forward_index] = outgoing->stream;
            ssns[stream->forward_index] = outgoing->ssn;
        }
        tsn = outgoing->tsn_first + outgoing->tsn_count;
    }
    if (!tsn_after(target, self->out.tsn_acked))
        return 0;
    uint8_t *body = store_chunk_header(at, SCTP_FORWARD_TSN, 0, 8 + 4 * count);
    store_be32(body, target);
    for (size_t index = 0; index < count; index++) {
        store_be16(body + 4 + 4 * index, streams[index]);
        store_be16(body + 6 + 4 * index, ssns[index]);
    }
    self->due.forward = false;
    self->out.forward_told = target;
    self->out.forward_sent_at = now;
    if (self->timers.t3_at == NEVER)
        self->timers.t3_at = now + rto_now(self);
    return 8 + 4 * count;
}
