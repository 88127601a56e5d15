/* Messages on their way out: cut into chunks as packets have room, remembered by TSN until the peer has them, given up
 * when nobody wants them any longer (FORWARD-TSN, RFC 3758).  Decides what the next packet carries: a probe, repairs,
 * then what is new.  Which chunks are lost is sctp_loss.c's to say; how much may be in flight, and how fast, rate.h's. */

#include <stdlib.h>
#include <string.h>

#include "sctp_private.h"

enum {
    PIECE_BYTES_MIN = 256, /* of a further message begun in a packet that has something; less is not worth a header */
    FORWARD_STREAMS_MAX = 256, /* named in one FORWARD-TSN; with more it goes less far */
    FORWARD_MESSAGES_MAX = 512, /* looked at for one: 40 microseconds at most, and the peer says how often */
};

/* --- the ring of TSNs ------------------------------------------------------------------------------------------- */

static bool ring_grow(struct sctp *self)
{
    uint32_t span = self->sent_span == 0 ? SCTP_TSN_SPAN_MIN : self->sent_span * 2;
    struct sctp_sent *sent = calloc(span, sizeof *sent);
    uint64_t *open_bits = calloc(span / 64, sizeof *open_bits);
    uint64_t *abandoned_bits = calloc(span / 64, sizeof *abandoned_bits);

    if (sent == NULL || open_bits == NULL || abandoned_bits == NULL) {
        free(sent);
        free(open_bits);
        free(abandoned_bits);
        return false;
    }
    for (uint32_t tsn = self->tsn_acked + 1; tsn != self->tsn_next; tsn++) {
        sent[tsn & (span - 1)] = *sent_at(self, tsn);
        if (bit_test(self->open_bits, self->sent_span, tsn))
            bit_set(open_bits, span, tsn);
        if (bit_test(self->abandoned_bits, self->sent_span, tsn))
            bit_set(abandoned_bits, span, tsn);
    }
    free(self->sent);
    free(self->open_bits);
    free(self->abandoned_bits);
    self->sent = sent;
    self->open_bits = open_bits;
    self->abandoned_bits = abandoned_bits;
    self->sent_span = span;
    return true;
}

static inline bool ring_exhausted(const struct sctp *self) { return sent_ring_used(self) >= SCTP_TSN_SPAN_MAX - 1; }

static bool ring_reserve(struct sctp *self)
{
    if (ring_exhausted(self))
        return false;
    if (sent_ring_used(self) < self->sent_span || ring_grow(self))
        return true;
    sctp_end(self, SCTP_END_MEMORY);
    return false;
}

bool sctp_send_start(struct sctp *self, uint64_t now)
{
    uint64_t seed = sctp_random(self);

    rate_init(&self->rate, self->packet_bytes, seed, now);
    self->pace_at = now;
    sctp_loss_start(self);
    sctp_pace_refresh(self);
    return self->sent_span != 0 || ring_grow(self);
}

/* --- messages --------------------------------------------------------------------------------------------------- */

struct sctp_message *sctp_message_new(size_t size)
{
    struct sctp_message *message;

    if (size > SCTP_MESSAGE_BYTES_MAX || (message = malloc(sizeof *message + size)) == NULL)
        return NULL;
    message->data = (uint8_t *)(message + 1);
    message->size = message->room = (uint32_t)size;
    return message;
}

void sctp_message_delete(struct sctp_message *message) { free(message); }

static inline uint64_t outgoing_cost(const struct sctp_outgoing *outgoing)
{
    return outgoing->size + sizeof *outgoing; /* or a million messages of one byte would cost nothing */
}

void sctp_outgoing_recycle(struct sctp *self, struct sctp_outgoing *outgoing)
{
    if (outgoing->message != NULL) {
        self->accepted_bytes -= outgoing_cost(outgoing);
        sctp_message_delete(outgoing->message);
    }
    if (self->outgoing_spare_count == SCTP_SPARES_MAX) {
        free(outgoing);
        return;
    }
    outgoing->message = NULL;
    outgoing->next = self->outgoing_spare;
    self->outgoing_spare = outgoing;
    self->outgoing_spare_count++;
}

static struct sctp_outgoing *outgoing_new(struct sctp *self)
{
    struct sctp_outgoing *outgoing = self->outgoing_spare;

    if (outgoing == NULL)
        return malloc(sizeof *outgoing);
    self->outgoing_spare = outgoing->next;
    self->outgoing_spare_count--;
    return outgoing;
}

struct sctp_stream_out *sctp_stream_out(struct sctp *self, uint16_t stream, bool make)
{
    if (stream >= SCTP_STREAM_COUNT_MAX)
        return NULL;
    struct sctp_stream_out **block = &self->out_blocks[stream / SCTP_STREAMS_PER_BLOCK];
    if (*block == NULL && make)
        *block = calloc(SCTP_STREAMS_PER_BLOCK, sizeof **block);
    return *block == NULL ? NULL : *block + stream % SCTP_STREAMS_PER_BLOCK;
}

bool sctp_send(struct sctp *self, struct sctp_message *message, const struct sctp_sending *how, uint64_t now)
{
    struct sctp_stream_out *stream = NULL;
    struct sctp_outgoing *outgoing = NULL;

    if (self->phase == SCTP_ESTABLISHED && message->size != 0 && message->size <= SCTP_MESSAGE_BYTES_MAX &&
        how->stream < self->streams_out && self->accepted_bytes + message->size <= self->config.send_bytes_max)
        stream = sctp_stream_out(self, how->stream, true);
    if (stream != NULL && !stream->resetting)
        outgoing = outgoing_new(self);
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
        .expires_at = SCTP_NEVER,
        .retransmits_max = UINT32_MAX,
    };
    if (self->forward_supported && how->reliability == SCTP_LIFETIME_MS_MAX)
        outgoing->expires_at = now + how->reliability_value * SCTP_MS_NS;
    else if (self->forward_supported && how->reliability == SCTP_RETRANSMITS_MAX)
        outgoing->retransmits_max = how->reliability_value;

    if (self->unsent_first == NULL)
        self->unsent_first = outgoing;
    else
        self->unsent_last->next = outgoing;
    self->unsent_last = outgoing;
    self->unsent_bytes += outgoing->size;
    self->accepted_bytes += outgoing_cost(outgoing);
    self->counts.messages_sent++;
    stream->waiting++;
    return true;
}

/* The first of the queue is through, or given up. */
static void unsent_shift(struct sctp *self)
{
    struct sctp_outgoing *outgoing = self->unsent_first;

    self->unsent_first = outgoing->next;
    if (self->unsent_first == NULL)
        self->unsent_last = NULL;
    outgoing->next = NULL;
    struct sctp_stream_out *stream = sctp_stream_out(self, outgoing->stream, false);
    if (--stream->waiting == 0 && stream->resetting)
        sctp_reset_prepare(self);
}

static uint32_t tsn_give(struct sctp *self, struct sctp_outgoing *outgoing)
{
    uint32_t tsn = self->tsn_next++;

    if (outgoing->tsn_count++ == 0)
        outgoing->tsn_first = tsn;
    outgoing->tsn_left++;
    *sent_at(self, tsn) = (struct sctp_sent){.outgoing = outgoing};
    return tsn;
}

/* Give a message up: nobody waits for it any longer, neither we nor, told by FORWARD-TSN, the peer.  What of it is in
 * flight stays there: the network carries it still, and rate.h wants to hear when it arrives. */
void sctp_abandon(struct sctp *self, struct sctp_outgoing *outgoing, uint64_t now)
{
    uint32_t end = outgoing->tsn_first + outgoing->tsn_count;

    for (uint32_t tsn = end - outgoing->tsn_left; tsn != end; tsn++) {
        struct sctp_sent *sent = sent_at(self, tsn);

        if (sent->fate == SCTP_ACKED)
            continue;
        if (sent->fate == SCTP_LOST) {
            list_remove(self, &self->lost, tsn);
            sent->fate = SCTP_GONE;
            bit_clear(self->open_bits, self->sent_span, tsn);
        }
        set_abandoned(self, tsn);
    }
    outgoing->abandoned = true;
    outgoing->expires_at = now;
    self->counts.messages_abandoned++;
    if (outgoing->offset < outgoing->size) {
        self->unsent_bytes -= outgoing->size - outgoing->offset;
        unsent_shift(self); /* only the first of the queue is ever part sent, or expires */
        /* The peer may have acknowledged all it was sent and now hold a message without an end: one more TSN, never
         * sent, gives FORWARD-TSN something to skip. */
        if (outgoing->tsn_count > 0 && ring_reserve(self)) {
            uint32_t tsn = tsn_give(self, outgoing);

            sent_at(self, tsn)->fate = SCTP_GONE;
            set_abandoned(self, tsn);
        }
    }
    self->accepted_bytes -= outgoing_cost(outgoing);
    sctp_message_delete(outgoing->message);
    outgoing->message = NULL;
    if (outgoing->tsn_left == 0)
        sctp_outgoing_recycle(self, outgoing);
}

/* The first TSN above the peer's cumulative acknowledgement that is still owed; tsn_next if none is. */
static uint32_t owed_first(const struct sctp *self)
{
    uint32_t tsn = self->tsn_acked + 1;

    while (tsn != self->tsn_next) {
        uint32_t word = (tsn & (self->sent_span - 1)) >> 6, left = 64 - (tsn & 63);
        uint64_t owed = (self->open_bits[word] & ~self->abandoned_bits[word]) >> (tsn & 63);

        if (owed != 0) {
            uint32_t skip = (uint32_t)__builtin_ctzll(owed);
            return skip < self->tsn_next - tsn ? tsn + skip : self->tsn_next;
        }
        if (left >= self->tsn_next - tsn)
            return self->tsn_next;
        tsn += left;
    }
    return tsn;
}

/* How far FORWARD-TSN may go: over everything below the first TSN still owed, to the last given up. */
void sctp_forward_refresh(struct sctp *self, uint64_t now)
{
    if (tsn_after(self->tsn_acked, self->tsn_forward))
        self->tsn_forward = self->tsn_acked;
    if (self->abandoned_count == 0)
        return;
    uint32_t target = bit_last(self->abandoned_bits, self->sent_span, self->tsn_forward + 1, owed_first(self));
    if (tsn_after(target, self->tsn_forward)) {
        self->tsn_forward = target;
        self->forward_due = true;
    } else if (tsn_after(self->tsn_forward, self->tsn_acked) &&
               (!tsn_after(self->forward_told, self->tsn_acked) ||
                now - self->forward_sent_at > self->srtt + self->rttvar)) {
        self->forward_due = true; /* the last one went less far, or was lost, it seems */
    }
    if (self->forward_due && self->t3_at == SCTP_NEVER)
        self->t3_at = now + self->rto;
}

void sctp_expire(struct sctp *self, uint64_t now)
{
    bool any = false;

    while (self->unsent_first != NULL && self->unsent_first->expires_at <= now && sctp_carries(self)) {
        sctp_abandon(self, self->unsent_first, now);
        any = true;
    }
    if (any && sctp_carries(self))
        sctp_forward_refresh(self, now);
}

void sctp_send_drop(struct sctp *self)
{
    if (self->sent != NULL) {
        for (uint32_t tsn = self->tsn_acked + 1; tsn != self->tsn_next; tsn++) {
            struct sctp_outgoing *outgoing = sent_at(self, tsn)->outgoing;

            /* what is part sent is freed with the queue */
            if (--outgoing->tsn_left == 0 && outgoing != self->unsent_first)
                sctp_outgoing_recycle(self, outgoing);
        }
    }
    self->tsn_next = self->tsn_acked + 1;
    self->tsn_forward = self->tsn_acked;
    while (self->unsent_first != NULL) {
        struct sctp_outgoing *outgoing = self->unsent_first;

        self->unsent_first = outgoing->next;
        sctp_outgoing_recycle(self, outgoing);
    }
    self->unsent_last = NULL;
    while (self->outgoing_spare != NULL) {
        struct sctp_outgoing *outgoing = self->outgoing_spare;

        self->outgoing_spare = outgoing->next;
        free(outgoing);
    }
    self->outgoing_spare_count = 0;
    free(self->sent);
    free(self->open_bits);
    free(self->abandoned_bits);
    self->sent = NULL;
    self->open_bits = self->abandoned_bits = NULL;
    self->sent_span = 0;
    self->inflight = self->lost = (struct sctp_list){0};
    self->inflight_bytes = self->unsent_bytes = self->accepted_bytes = 0;
    self->abandoned_count = 0;
    self->t3_at = self->probe_at = self->loss_at = SCTP_NEVER;
    self->forward_due = self->probe_due = false;
    for (unsigned block = 0; block < SCTP_STREAM_BLOCK_COUNT; block++) {
        free(self->out_blocks[block]);
        self->out_blocks[block] = NULL;
    }
}

/* --- packets ---------------------------------------------------------------------------------------------------- */

void sctp_pace_refresh(struct sctp *self)
{
    uint64_t rate = later(rate_pacing_bytes_s(&self->rate), 1024);

    self->ns_per_kib = later(1024 * SCTP_SECOND_NS / rate, 1);
    self->burst_ns = rate_burst_bytes(&self->rate) * self->ns_per_kib / 1024;
}

static inline bool peer_window_open(const struct sctp *self)
{
    return self->inflight_bytes + self->packet_bytes <= self->peer_window;
}

/* The chunk all the peer holds out of order waits for is lost: it has room for that one whatever its window says. */
static inline bool urgent(const struct sctp *self)
{
    return self->lost.count > 0 && sent_at(self, self->tsn_acked + 1)->fate == SCTP_LOST;
}

static bool window_open(const struct sctp *self)
{
    return self->inflight.count == 0 || (self->inflight_bytes + self->packet_bytes <= rate_window_bytes(&self->rate) &&
                                         (peer_window_open(self) || urgent(self)));
}

static inline bool new_data_wanted(const struct sctp *self)
{
    return self->unsent_first != NULL && !ring_exhausted(self);
}

bool sctp_data_wanted(const struct sctp *self)
{
    if (!sctp_carries(self) || self->phase == SCTP_SHUTDOWN_SENT)
        return false;
    if (self->probe_due && self->inflight.count > 0)
        return true;
    return (self->lost.count > 0 || new_data_wanted(self)) && window_open(self);
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
    sent->order = self->order_next;
    if (sent->sent_count++ > 0)
        self->counts.chunks_retransmitted++;
    if (sent->sent_count == UINT16_MAX)
        sent->sent_count--;
    list_append(self, &self->inflight, tsn);
    self->inflight_bytes += sent->wire_bytes;
    return whole;
}

/* Cut the next chunk off the first message of the queue; room: for the chunk. */
static uint32_t next_chunk(struct sctp *self, size_t room)
{
    struct sctp_outgoing *outgoing = self->unsent_first;
    uint32_t left = outgoing->size - outgoing->offset;
    size_t size = room - SCTP_DATA_HEADER_BYTES;
    uint8_t flags = outgoing->unordered ? SCTP_FLAG_UNORDERED : 0;

    if (outgoing->offset == 0) {
        flags |= SCTP_FLAG_BEGIN;
        if (!outgoing->unordered)
            outgoing->ssn = sctp_stream_out(self, outgoing->stream, false)->ssn_next++;
    }
    if (left <= size) {
        size = left;
        flags |= SCTP_FLAG_END;
    } else {
        size &= ~(size_t)3;
    }
    uint32_t tsn = tsn_give(self, outgoing);
    struct sctp_sent *sent = sent_at(self, tsn);
    sent->offset = outgoing->offset;
    sent->size = (uint16_t)size;
    sent->flags = flags;
    bit_set(self->open_bits, self->sent_span, tsn);
    outgoing->offset += (uint32_t)size;
    self->unsent_bytes -= size;
    if (outgoing->offset == outgoing->size)
        unsent_shift(self);
    return tsn;
}

/* Whether a lost chunk goes in the packet as filled so far. */
static bool repair_fits(const struct sctp *self, uint32_t tsn, size_t used, size_t limit, size_t room)
{
    size_t need = SCTP_DATA_HEADER_BYTES + padded(sent_at(self, tsn)->size);

    /* One cut when packets could be larger goes as it is, and IP may fragment it (RFC 9260, section 6.9). */
    return used + need <= (used == SCTP_HEADER_BYTES ? room : limit);
}

/* When the next packet may go.  Time in which nothing wanted to is worth a burst at most.  Time in which data waited and
 * this thread had no processor is made up for, or whoever gets one late would measure his own lateness, send by that, and
 * be later still. */
static void pace(struct sctp *self, uint64_t bytes, uint64_t inflight_before, uint64_t now)
{
    uint64_t behind = now > self->pace_at ? now - self->pace_at : 0, behind_max = self->burst_ns;

    if (self->pace_waits && behind > behind_max) {
        rate_late(&self->rate, behind, inflight_before);
        behind_max = later(behind_max, RATE_LATE_NS_MAX);
    }
    self->pace_at = now - earlier(behind, earlier(behind_max, now)) + bytes * self->ns_per_kib / 1024;
}

size_t sctp_put_data(struct sctp *self, uint8_t *packet, size_t used, size_t room, uint64_t now)
{
    size_t limit = room < self->packet_bytes ? room : self->packet_bytes;
    uint64_t inflight_before = self->inflight_bytes, bytes = 0;
    bool probing = self->probe_due, fresh = true;
    uint8_t *last = NULL;
    unsigned count = 0;

    sctp_expire(self, now);
    if (!sctp_data_wanted(self)) {
        self->pace_waits = false;
        return used;
    }
    self->pace_holds = self->pace_at > now && !probing;
    if (self->pace_holds) {
        self->pace_waits = true;
        return used;
    }
    if (probing && self->lost.count == 0 && (!new_data_wanted(self) || self->peer_window < self->packet_bytes)) {
        uint32_t tsn = self->inflight.newest, left = self->inflight.count;

        /* Nothing new to find out with: the last that is not given up once more. */
        while (sent_at(self, tsn)->outgoing->abandoned && --left > 0)
            tsn = sent_at(self, tsn)->older;
        if (left == 0)
            self->probe_due = false;
        if (left == 0 || !repair_fits(self, tsn, used, limit, room))
            return used;
        list_remove(self, &self->inflight, tsn);
        self->inflight_bytes -= sent_at(self, tsn)->wire_bytes;
        last = packet + used;
        used += put_chunk(self, tsn, last, true);
        bytes += sent_at(self, tsn)->wire_bytes;
        count++;
    }
    while (self->lost.count > 0 && (count == 0 || !probing)) {
        uint32_t tsn = !peer_window_open(self) && urgent(self) ? self->tsn_acked + 1 : self->lost.oldest;
        struct sctp_outgoing *outgoing = sent_at(self, tsn)->outgoing;

        if (outgoing->expires_at <= now) {
            sctp_abandon(self, outgoing, now);
            sctp_forward_refresh(self, now);
            continue;
        }
        if (!repair_fits(self, tsn, used, limit, room))
            break;
        list_remove(self, &self->lost, tsn);
        last = packet + used;
        used += put_chunk(self, tsn, last, count == 0);
        bytes += sent_at(self, tsn)->wire_bytes;
        count++;
        fresh = false;
    }
    while (self->lost.count == 0 && new_data_wanted(self) && (count == 0 || fresh || !probing)) {
        uint32_t left = self->unsent_first->size - self->unsent_first->offset;
        size_t least = SCTP_DATA_HEADER_BYTES + (left < PIECE_BYTES_MIN ? padded(left) : PIECE_BYTES_MIN);

        if (used + least > limit)
            break;
        if (self->unsent_first->expires_at <= now) {
            sctp_expire(self, now);
            continue;
        }
        if (!ring_reserve(self))
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
    for (uint32_t tsn = self->inflight.newest; count > 0; count--) {
        struct sctp_sent *sent = sent_at(self, tsn);

        sent->mark = mark;
        tsn = sent->older;
    }
    self->order_next++;
    pace(self, bytes, inflight_before, now);
    self->idle_told = self->probe_due = false;
    /* The end of a burst: nothing follows that would make the peer answer soon. */
    bool burst = inflight_before > 0 || bytes > limit / 2;
    if (probing || (self->srtt == 0 && inflight_before == 0) || (burst && !sctp_data_wanted(self)))
        last[1] |= SCTP_FLAG_IMMEDIATE;
    sctp_timers_restart(self, now);
    return used;
}

size_t sctp_put_forward(struct sctp *self, uint8_t *at, size_t room, uint64_t now)
{
    uint16_t streams[FORWARD_STREAMS_MAX], ssns[FORWARD_STREAMS_MAX];
    uint32_t target = self->tsn_forward, end = target + 1;
    size_t count = 0, count_max = room / 4 - 2, message_count = 0;

    if (!tsn_after(self->tsn_forward, self->tsn_acked)) {
        self->forward_due = false;
        return 0;
    }
    if (room < 8)
        return 0;
    if (count_max > FORWARD_STREAMS_MAX)
        count_max = FORWARD_STREAMS_MAX;
    for (uint32_t tsn = self->tsn_acked + 1; tsn_after(end, tsn);) {
        tsn = bit_next(self->abandoned_bits, self->sent_span, tsn, end, true);
        if (tsn == end)
            break;
        const struct sctp_outgoing *outgoing = sent_at(self, tsn)->outgoing;
        struct sctp_stream_out *stream = sctp_stream_out(self, outgoing->stream, false);
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
    if (!tsn_after(target, self->tsn_acked))
        return 0;
    uint8_t *body = store_chunk_header(at, SCTP_FORWARD_TSN, 0, 8 + 4 * count);
    store_be32(body, target);
    for (size_t index = 0; index < count; index++) {
        store_be16(body + 4 + 4 * index, streams[index]);
        store_be16(body + 6 + 4 * index, ssns[index]);
    }
    self->forward_due = false;
    self->forward_told = target;
    self->forward_sent_at = now;
    if (self->t3_at == SCTP_NEVER)
        self->t3_at = now + rto_now(self);
    return 8 + 4 * count;
}

size_t sctp_room(const struct sctp *self, uint64_t now)
{
    uint64_t largest = SCTP_MESSAGE_BYTES_MAX; /* whoever keeps to room is never told no, whatever the message's size */

    if (self->phase != SCTP_ESTABLISHED ||
        (self->accepted_bytes > 0 && self->accepted_bytes + largest > self->config.send_bytes_max))
        return 0;
    if (self->unsent_bytes > 0 && !window_open(self))
        return 0;
    /* One packet more than a burst: what waits then never runs out before pacing stops it, and rate.h learns that the
     * application had enough to send. */
    uint64_t room = later(rate_burst_bytes(&self->rate), 2 * (uint64_t)self->packet_bytes);
    uint64_t window = rate_window_bytes(&self->rate);
    if (self->pace_waits && now > self->pace_at && window > self->inflight_bytes) {
        uint64_t missed = earlier(now - self->pace_at, RATE_LATE_NS_MAX) * 1024 / self->ns_per_kib;
        room = later(room, earlier(missed, window - self->inflight_bytes));
    }
    room += self->packet_bytes;
    return room > self->unsent_bytes ? (size_t)(room - self->unsent_bytes) : 0;
}
