/* What the next packet carries: a probe, repairs, then new data, cut into chunks that fit.  loss.c says which chunks
 * are lost; rate.h how much may be in flight, and how fast. */

#include <string.h>

#include "sctp/state.h"

enum { PIECE_BYTES_MIN = 256 }; /* of one more message in a packet that is not empty; less is not worth a header */

bool sctp_send_start(struct sctp *self, uint64_t now)
{
    uint64_t seed = mix64_next(&self->random);

    rate_init(&self->rate, self->packet_bytes, seed, now);
    self->pace.at = now;
    sctp_timers_start(self);
    sctp_pace_refresh(self);
    return self->out.span != 0 || sctp_outbox_grow(self);
}

/* --- messages --------------------------------------------------------------------------------------------------- */

bool sctp_send(struct sctp *self, struct sctp_message *message, const struct sctp_sending *how, uint64_t now)
{
    struct sctp_stream_out *stream = NULL;
    struct sctp_outgoing *outgoing = NULL;

    if (self->phase == SCTP_ESTABLISHED && message->size != 0 && message->size <= SCTP_MESSAGE_BYTES_MAX &&
        how->stream < self->streams_out && self->out.accepted_bytes + message->size <= self->config.send_bytes_max)
        stream = sctp_streams_out(self, how->stream, true);
    if (stream != NULL && !stream->resetting)
        outgoing = outbox_new(self);
    if (outgoing == NULL) {
        sctp_message_delete(message);
        return false;
    }
    *outgoing = (struct sctp_outgoing){
        .message = message,
        .size = message->size,
        .ppid = how->ppid,
        .stream = how->stream,
        .unordered = how->unordered,
        .expires_at = NEVER,
        .retransmits_max = UINT32_MAX,
    };
    if (self->forward_supported && how->reliability == SCTP_LIFETIME_MS_MAX)
        outgoing->expires_at = now + how->reliability_value * MS_NS;
    else if (self->forward_supported && how->reliability == SCTP_RETRANSMITS_MAX)
        outgoing->retransmits_max = how->reliability_value;

    if (self->out.unsent_first == NULL)
        self->out.unsent_first = outgoing;
    else
        self->out.unsent_last->next = outgoing;
    self->out.unsent_last = outgoing;
    self->out.unsent_bytes += outgoing->size;
    self->out.accepted_bytes += outbox_cost(outgoing);
    self->counts.messages_sent++;
    stream->waiting++;
    return true;
}

/* --- packets ---------------------------------------------------------------------------------------------------- */

static inline bool peer_window_open(const struct sctp *self)
{
    return self->out.inflight_bytes + self->packet_bytes <= self->peer_window;
}

/* The first chunk that the peer misses is lost.  The peer has room for that one, whatever its window says: all it holds
 * out of order waits for it. */
static inline bool urgent(const struct sctp *self)
{
    return self->out.lost.count > 0 && sent_at(self, self->out.tsn_acked + 1)->fate == SCTP_LOST;
}

static bool window_open(const struct sctp *self)
{
    if (self->out.inflight.count == 0)
        return true;
    return self->out.inflight_bytes + self->packet_bytes <= rate_window_bytes(&self->rate) &&
           (peer_window_open(self) || urgent(self));
}

static inline bool new_data_wanted(const struct sctp *self)
{
    return self->out.unsent_first != NULL && !outbox_exhausted(self);
}

bool sctp_send_wanted(const struct sctp *self)
{
    if (!sctp_carries(self) || self->phase == SCTP_SHUTDOWN_SENT)
        return false;
    if (self->due.probe && self->out.inflight.count > 0)
        return true;
    return (self->out.lost.count > 0 || new_data_wanted(self)) && window_open(self);
}

/* Write the chunk of a TSN and put it in flight. */
static size_t put_chunk(struct sctp *self, uint32_t tsn, uint8_t *at, bool first)
{
    struct sctp_sent *sent = sent_at(self, tsn);
    const struct sctp_outgoing *outgoing = sent->outgoing;
    size_t size = SCTP_DATA_HEADER_BYTES + sent->size, whole = padded(size);

    store_chunk_header(at, SCTP_DATA, sent->flags, size);
    store_be32(at + 4, tsn);
    store_be16(at + 8, outgoing->stream);
    store_be16(at + 10, outgoing->ssn);
    store_be32(at + 12, outgoing->ppid);
    memcpy(at + SCTP_DATA_HEADER_BYTES, outgoing->message->data + sent->offset, sent->size);
    memset(at + size, 0, whole - size);
    sent->wire_bytes = (uint16_t)(whole + (first ? SCTP_HEADER_BYTES : 0));
    sent->fate = SCTP_INFLIGHT;
    sent->order = self->loss.order_next;
    if (sent->sent_count++ > 0)
        self->counts.chunks_retransmitted++;
    if (sent->sent_count == UINT16_MAX)
        sent->sent_count--;
    list_append(self, &self->out.inflight, tsn);
    self->out.inflight_bytes += sent->wire_bytes;
    return whole;
}

/* Cut the next chunk off the first message of the queue; room: for the chunk. */
static uint32_t next_chunk(struct sctp *self, size_t room)
{
    struct sctp_outgoing *outgoing = self->out.unsent_first;
    uint32_t left = outgoing->size - outgoing->offset;
    size_t size = room - SCTP_DATA_HEADER_BYTES;
    uint8_t flags = outgoing->unordered ? SCTP_FLAG_UNORDERED : 0;

    if (outgoing->offset == 0) {
        flags |= SCTP_FLAG_BEGIN;
        if (!outgoing->unordered)
            outgoing->ssn = sctp_streams_out(self, outgoing->stream, false)->ssn_next++;
    }
    if (left <= size) {
        size = left;
        flags |= SCTP_FLAG_END;
    } else {
        size &= ~(size_t)3;
    }
    uint32_t tsn = outbox_give_tsn(self, outgoing);
    struct sctp_sent *sent = sent_at(self, tsn);
    sent->offset = outgoing->offset;
    sent->size = (uint16_t)size;
    sent->flags = flags;
    bit_set(self->out.open_bits, self->out.span, tsn);
    outgoing->offset += (uint32_t)size;
    CHECK(self->out.unsent_bytes >= size);
    self->out.unsent_bytes -= size;
    if (outgoing->offset == outgoing->size && sctp_outbox_shift(self))
        sctp_reset_prepare(self);
    return tsn;
}

/* Whether a lost chunk goes in the packet as filled so far. */
static bool repair_fits(const struct sctp *self, uint32_t tsn, size_t used, size_t limit, size_t room)
{
    size_t need = SCTP_DATA_HEADER_BYTES + padded(sent_at(self, tsn)->size);

    /* A chunk cut when packets could be larger goes as it is, and IP may fragment it (RFC 9260, section 6.9). */
    return used + need <= (used == SCTP_HEADER_BYTES ? room : limit);
}

size_t sctp_send_put(struct sctp *self, uint8_t *packet, size_t used, size_t room, uint64_t now)
{
    size_t limit = room < self->packet_bytes ? room : self->packet_bytes;
    uint64_t inflight_before = self->out.inflight_bytes, bytes = 0;
    bool probing = self->due.probe, fresh = true;
    uint8_t *last = NULL;
    unsigned count = 0;

    sctp_forward_expire(self, now);
    if (!sctp_send_wanted(self)) {
        self->pace.waits = false;
        return used;
    }
    self->pace.holds = self->pace.at > now && !probing;
    if (self->pace.holds) {
        self->pace.waits = true;
        return used;
    }
    if (probing && self->out.lost.count == 0 && (!new_data_wanted(self) || self->peer_window < self->packet_bytes)) {
        uint32_t tsn = self->out.inflight.newest, left = self->out.inflight.count;

        /* There is no new data to probe with: send the newest chunk in flight again that is not given up. */
        while (sent_at(self, tsn)->outgoing->abandoned && --left > 0)
            tsn = sent_at(self, tsn)->older;
        if (left == 0)
            self->due.probe = false;
        if (left == 0 || !repair_fits(self, tsn, used, limit, room))
            return used;
        list_remove(self, &self->out.inflight, tsn);
        self->out.inflight_bytes -= sent_at(self, tsn)->wire_bytes;
        last = packet + used;
        used += put_chunk(self, tsn, last, true);
        bytes += sent_at(self, tsn)->wire_bytes;
        count++;
    }
    while (self->out.lost.count > 0 && (count == 0 || !probing)) {
        uint32_t tsn = !peer_window_open(self) && urgent(self) ? self->out.tsn_acked + 1 : self->out.lost.oldest;
        struct sctp_outgoing *outgoing = sent_at(self, tsn)->outgoing;

        if (outgoing->expires_at <= now) {
            sctp_forward_abandon(self, outgoing, now);
            sctp_forward_refresh(self, now);
            continue;
        }
        if (!repair_fits(self, tsn, used, limit, room))
            break;
        list_remove(self, &self->out.lost, tsn);
        last = packet + used;
        used += put_chunk(self, tsn, last, count == 0);
        bytes += sent_at(self, tsn)->wire_bytes;
        count++;
        fresh = false;
    }
    while (self->out.lost.count == 0 && new_data_wanted(self) && (count == 0 || fresh || !probing)) {
        uint32_t left = self->out.unsent_first->size - self->out.unsent_first->offset;
        size_t least = SCTP_DATA_HEADER_BYTES + (left < PIECE_BYTES_MIN ? padded(left) : PIECE_BYTES_MIN);

        if (used + least > limit)
            break;
        if (self->out.unsent_first->expires_at <= now) {
            sctp_forward_expire(self, now);
            continue;
        }
        if (!outbox_reserve(self))
            break;
        uint32_t tsn = next_chunk(self, limit - used);
        last = packet + used;
        used += put_chunk(self, tsn, last, count == 0);
        bytes += sent_at(self, tsn)->wire_bytes;
        count++;
    }
    if (last == NULL)
        return used;

    struct rate_mark mark;
    rate_sent(&self->rate, &mark, (uint32_t)bytes, inflight_before, now);
    for (uint32_t tsn = self->out.inflight.newest; count > 0; count--) {
        struct sctp_sent *sent = sent_at(self, tsn);

        sent->mark = mark;
        tsn = sent->older;
    }
    self->loss.order_next++;
    if (used + SCTP_DATA_HEADER_BYTES + PIECE_BYTES_MIN > limit)
        sctp_mtu_filled(self, now);
    sctp_pace_sent(self, bytes, inflight_before, now);
    self->pace.idle_told = self->due.probe = false;
    /* This ends a burst: nothing follows that would make the peer answer soon. */
    bool burst = inflight_before > 0 || bytes > limit / 2;
    if (probing || (self->rtt.srtt_ns == 0 && inflight_before == 0) || (burst && !sctp_send_wanted(self)))
        last[1] |= SCTP_FLAG_IMMEDIATE;
    sctp_timers_restart(self, now);
    return used;
}

size_t sctp_room(const struct sctp *self, uint64_t now)
{
    uint64_t largest = SCTP_MESSAGE_BYTES_MAX; /* a caller that keeps to this room is never refused */

    if (self->phase != SCTP_ESTABLISHED ||
        (self->out.accepted_bytes > 0 && self->out.accepted_bytes + largest > self->config.send_bytes_max))
        return 0;
    if (self->out.unsent_bytes > 0 && !window_open(self))
        return 0;
    /* One packet more than a burst: the queue then never runs out before pacing stops it, and rate.h learns that the
     * application had enough to send. */
    uint64_t room = later(rate_burst_bytes(&self->rate), 2 * (uint64_t)self->packet_bytes);
    uint64_t window = rate_window_bytes(&self->rate);
    if (self->pace.waits && now > self->pace.at && window > self->out.inflight_bytes) {
        uint64_t missed = earlier(now - self->pace.at, RATE_LATE_NS_MAX) * 1024 / self->pace.ns_per_kib;
        room = later(room, earlier(missed, window - self->out.inflight_bytes));
    }
    room += self->packet_bytes;
    return room > self->out.unsent_bytes ? (size_t)(room - self->out.unsent_bytes) : 0;
}
