/* Messages on their way out: cut into chunks as packets have room, remembered by TSN until the peer has them, repaired
 * when lost, given up when nobody wants them any longer.  A chunk is lost when one sent later came (the idea of RACK,
 * RFC 8985), or when nothing came for an RTO; every transmission counts, so a repair that is lost is seen like any
 * other.  How much may be in flight, and how fast, is rate.h's business. */

#include <stdlib.h>
#include <string.h>

#include "sctp_private.h"

enum {
    PIECE_BYTES_MIN = 256, /* of a further message begun in a packet that has something; less is not worth a header */
    LATER_PACKETS = 3, /* that came before one is held for lost, until this path was seen to reorder */
    REORDERING_QUARTERS_MAX = 8, /* of an RTT */
    FORWARD_STREAMS_MAX = 256, /* named in one FORWARD-TSN; with more it goes less far */
};

#define REORDERING_NS_MIN (1 * SCTP_MS_NS) /* coarse timers and batches look like this much disorder */
#define PROBE_DELAY_NS (2 * SCTP_MS_NS) /* what the peer may take to answer the end of a burst */
#define PROBE_DELAY_LONE_NS (25 * SCTP_MS_NS) /* and a lone packet, whose acknowledgement may be delayed */

/* What one acknowledgement, or one timer, brought to light. */
struct tally {
    uint64_t acked_bytes, lost_bytes;
    const struct sctp_sent *newest; /* sent last of those newly acknowledged */
    const struct sctp_sent *newest_once; /* the same, of those sent once: only they tell the RTT */
};

static inline struct sctp_sent *sent_at(const struct sctp *self, uint32_t tsn)
{
    return &self->sent[tsn & (self->sent_span - 1)];
}

/* --- lists of TSNs ---------------------------------------------------------------------------------------------- */

static void list_append(struct sctp *self, struct sctp_list *list, uint32_t tsn)
{
    sent_at(self, tsn)->older = list->newest;
    if (list->count++ == 0)
        list->oldest = tsn;
    else
        sent_at(self, list->newest)->newer = tsn;
    list->newest = tsn;
}

static void list_remove(struct sctp *self, struct sctp_list *list, uint32_t tsn)
{
    const struct sctp_sent *sent = sent_at(self, tsn);

    if (tsn == list->oldest)
        list->oldest = sent->newer;
    else
        sent_at(self, sent->older)->newer = sent->newer;
    if (tsn == list->newest)
        list->newest = sent->older;
    else
        sent_at(self, sent->newer)->older = sent->older;
    list->count--;
}

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

static inline uint32_t ring_used(const struct sctp *self) { return self->tsn_next - self->tsn_acked - 1; }
static inline bool ring_exhausted(const struct sctp *self) { return ring_used(self) >= SCTP_TSN_SPAN_MAX - 1; }

static bool ring_reserve(struct sctp *self)
{
    if (ring_exhausted(self))
        return false;
    if (ring_used(self) < self->sent_span || ring_grow(self))
        return true;
    sctp_end(self, SCTP_END_MEMORY);
    return false;
}

bool sctp_send_start(struct sctp *self, uint64_t now)
{
    uint64_t seed = sctp_random(self);

    rate_init(&self->rate, self->packet_bytes, seed, now);
    self->pace_at = now;
    self->t3_at = self->probe_at = self->loss_at = SCTP_NEVER;
    self->order_next = 1;
    self->rto = SCTP_RTO_INITIAL_NS;
    self->reordering_quarters = 1;
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

static void outgoing_recycle(struct sctp *self, struct sctp_outgoing *outgoing)
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

static void set_abandoned(struct sctp *self, uint32_t tsn)
{
    bit_set(self->abandoned_bits, self->sent_span, tsn);
    self->abandoned_count++;
}

/* Give a message up: nobody waits for it any longer, neither we nor, told by FORWARD-TSN, the peer.  What of it is in
 * flight stays there: the network carries it still, and rate.h wants to hear when it arrives. */
static void abandon(struct sctp *self, struct sctp_outgoing *outgoing, uint64_t now)
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
        outgoing_recycle(self, outgoing);
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
static void forward_refresh(struct sctp *self, uint64_t now)
{
    uint32_t target = self->tsn_acked;

    if (tsn_after(self->tsn_acked, self->tsn_forward))
        self->tsn_forward = self->tsn_acked;
    if (self->abandoned_count == 0)
        return;
    uint32_t owed = owed_first(self);
    for (uint32_t tsn = self->tsn_forward + 1;; tsn++) {
        tsn = bit_next(self->abandoned_bits, self->sent_span, tsn, owed, true);
        if (tsn == owed)
            break;
        tsn = bit_next(self->abandoned_bits, self->sent_span, tsn, owed, false) - 1;
        target = tsn;
    }
    if (tsn_after(target, self->tsn_forward)) {
        self->tsn_forward = target;
        self->forward_due = true;
    } else if (tsn_after(self->tsn_forward, self->tsn_acked) &&
               now - self->forward_sent_at > self->srtt + self->rttvar) {
        self->forward_due = true; /* it was lost, it seems */
    }
    if (self->forward_due && self->t3_at == SCTP_NEVER)
        self->t3_at = now + self->rto;
}

void sctp_expire(struct sctp *self, uint64_t now)
{
    bool any = false;

    while (self->unsent_first != NULL && self->unsent_first->expires_at <= now && sctp_carries(self)) {
        abandon(self, self->unsent_first, now);
        any = true;
    }
    if (any && sctp_carries(self))
        forward_refresh(self, now);
}

void sctp_send_drop(struct sctp *self)
{
    if (self->sent != NULL) {
        for (uint32_t tsn = self->tsn_acked + 1; tsn != self->tsn_next; tsn++) {
            struct sctp_outgoing *outgoing = sent_at(self, tsn)->outgoing;

            /* what is part sent is freed with the queue */
            if (--outgoing->tsn_left == 0 && outgoing != self->unsent_first)
                outgoing_recycle(self, outgoing);
        }
    }
    self->tsn_next = self->tsn_acked + 1;
    self->tsn_forward = self->tsn_acked;
    while (self->unsent_first != NULL) {
        struct sctp_outgoing *outgoing = self->unsent_first;

        self->unsent_first = outgoing->next;
        outgoing_recycle(self, outgoing);
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

/* --- what was lost ---------------------------------------------------------------------------------------------- */

static void set_lost(struct sctp *self, uint32_t tsn, struct tally *tally, uint64_t now)
{
    struct sctp_sent *sent = sent_at(self, tsn);
    struct sctp_outgoing *outgoing = sent->outgoing;

    list_remove(self, &self->inflight, tsn);
    self->inflight_bytes -= sent->wire_bytes;
    tally->lost_bytes += sent->wire_bytes;
    self->counts.chunks_lost++;
    sctp_mtu_lost(self, sent->wire_bytes, sent->mark.sent_at, now);
    if (outgoing->abandoned) {
        sent->fate = SCTP_GONE;
        bit_clear(self->open_bits, self->sent_span, tsn);
        return;
    }
    sent->fate = SCTP_LOST;
    list_append(self, &self->lost, tsn);
    if (outgoing->expires_at <= now || sent->sent_count > outgoing->retransmits_max)
        abandon(self, outgoing, now);
}

/* Whatever was sent well before the newest packet that came is lost; what was sent a little before may be under way. */
static void detect_losses(struct sctp *self, struct tally *tally, uint64_t now)
{
    uint64_t patience = later(self->rtt_min / 4 * self->reordering_quarters, REORDERING_NS_MIN);

    self->loss_at = SCTP_NEVER;
    while (self->inflight.count > 0) {
        const struct sctp_sent *sent = sent_at(self, self->inflight.oldest);

        if (sent->order >= self->order_acked)
            return;
        uint64_t late_at = sent->mark.sent_at + self->rtt_acked + patience;
        if (late_at > now && (self->reordering || self->order_acked - sent->order < LATER_PACKETS)) {
            self->loss_at = late_at;
            return;
        }
        set_lost(self, self->inflight.oldest, tally, now);
    }
}

/* --- acknowledgements ------------------------------------------------------------------------------------------- */

void sctp_rtt_sample(struct sctp *self, uint64_t rtt)
{
    if (self->srtt == 0) { /* RFC 9260, section 6.3.1 */
        self->srtt = rtt;
        self->rttvar = rtt / 2;
        self->rtt_min = rtt;
    } else {
        uint64_t off = rtt > self->srtt ? rtt - self->srtt : self->srtt - rtt;

        self->rttvar += off / 4 - self->rttvar / 4;
        self->srtt += rtt / 8 - self->srtt / 8;
        self->rtt_min = earlier(self->rtt_min, rtt);
    }
    self->rto = earlier(later(self->srtt + 4 * self->rttvar, SCTP_RTO_MIN_NS), SCTP_RTO_MAX_NS);
}

static uint64_t rto_now(const struct sctp *self)
{
    return earlier(self->rto << self->rto_doublings, SCTP_RTO_MAX_NS);
}

/* Start the timers of what is in flight anew. */
static void timers_restart(struct sctp *self, uint64_t now)
{
    self->probe_at = SCTP_NEVER;
    if (self->inflight.count == 0) {
        self->t3_at = tsn_after(self->tsn_forward, self->tsn_acked) ? now + rto_now(self) : SCTP_NEVER;
        return;
    }
    self->t3_at = now + rto_now(self);
    if (self->srtt != 0 && !self->probe_used && self->peer_window >= self->packet_bytes)
        self->probe_at = now + 2 * self->srtt + (self->inflight.count == 1 ? PROBE_DELAY_LONE_NS : PROBE_DELAY_NS);
}

static void set_acked(struct sctp *self, uint32_t tsn, struct tally *tally, uint64_t now)
{
    struct sctp_sent *sent = sent_at(self, tsn);

    if (sent->fate == SCTP_INFLIGHT) {
        list_remove(self, &self->inflight, tsn);
        self->inflight_bytes -= sent->wire_bytes;
    } else {
        list_remove(self, &self->lost, tsn); /* it was only late */
    }
    bool late = sent->fate == SCTP_LOST;
    /* One repaired that is acknowledged faster than light: the answer is to the first transmission. */
    late = late || (sent->sent_count > 1 && now - sent->mark.sent_at < self->rtt_min / 2);
    if (late && self->reordering_quarters < REORDERING_QUARTERS_MAX)
        self->reordering_quarters++;
    if (late || (sent->sent_count == 1 && sent->order < self->order_acked))
        self->reordering = true;
    sent->fate = SCTP_ACKED;
    bit_clear(self->open_bits, self->sent_span, tsn);
    /* Whether one given up has come, or FORWARD-TSN skipped it, nobody can tell once that may have had its answer. */
    if (sent->outgoing->abandoned && now - sent->outgoing->expires_at >= self->rtt_min - self->rtt_min / 8)
        return;
    tally->acked_bytes += sent->wire_bytes;
    if (sent->wire_bytes > SCTP_PACKET_BYTES_MIN)
        self->large_lost = self->large_timeouts = 0;
    if (late)
        return;
    if (tally->newest == NULL || sent->order > tally->newest->order)
        tally->newest = sent;
    if (sent->sent_count == 1 && (tally->newest_once == NULL || sent->order > tally->newest_once->order))
        tally->newest_once = sent;
}

static void acknowledge_to(struct sctp *self, uint32_t cumulative, struct tally *tally, uint64_t now)
{
    while (self->tsn_acked != cumulative) {
        uint32_t tsn = self->tsn_acked + 1;
        struct sctp_sent *sent = sent_at(self, tsn);
        struct sctp_outgoing *outgoing = sent->outgoing;

        if (sent->fate == SCTP_INFLIGHT || sent->fate == SCTP_LOST)
            set_acked(self, tsn, tally, now);
        if (outgoing->abandoned && bit_test(self->abandoned_bits, self->sent_span, tsn)) {
            bit_clear(self->abandoned_bits, self->sent_span, tsn);
            self->abandoned_count--;
        }
        self->tsn_acked = tsn;
        if (--outgoing->tsn_left == 0 && (outgoing->abandoned || outgoing->offset == outgoing->size))
            outgoing_recycle(self, outgoing);
    }
}

/* Tell rate.h, the RTT and the timers. */
static void acknowledge_done(struct sctp *self, struct tally *tally, bool progress, uint64_t now)
{
    struct rate_ack ack = {.now = now, .acked_bytes = tally->acked_bytes};
    struct rate_mark newest; /* a copy: a message given up below may take a TSN more, and the ring move for it */

    if (tally->newest_once != NULL) {
        ack.rtt_ns = later(now - tally->newest_once->mark.sent_at, 1);
        sctp_rtt_sample(self, ack.rtt_ns);
    }
    if (tally->newest != NULL) {
        newest = tally->newest->mark;
        ack.newest = &newest;
        if (tally->newest->order > self->order_acked) {
            self->order_acked = tally->newest->order;
            self->rtt_acked = now - tally->newest->mark.sent_at;
        }
    }
    detect_losses(self, tally, now);
    ack.lost_bytes = tally->lost_bytes;
    ack.inflight_bytes = self->inflight_bytes;
    if (ack.acked_bytes != 0 || ack.lost_bytes != 0) {
        rate_ack(&self->rate, &ack);
        sctp_pace_refresh(self);
    }
    forward_refresh(self, now);
    if (progress) {
        self->error_count = self->rto_doublings = 0;
        self->probe_used = self->probe_due = false;
        timers_restart(self, now);
    }
}

void sctp_acknowledge(struct sctp *self, uint32_t tsn, uint64_t now)
{
    struct tally tally = {0};

    if (tsn_after(self->tsn_acked, tsn))
        return;
    if (!tsn_after(self->tsn_next, tsn)) {
        sctp_violation(self, SCTP_CAUSE_VIOLATION);
        return;
    }
    bool progress = tsn != self->tsn_acked;
    acknowledge_to(self, tsn, &tally, now);
    acknowledge_done(self, &tally, progress, now);
}

void sctp_receive_sack_untrusted(struct sctp *self, const uint8_t *chunk, size_t size, uint64_t now)
{
    struct tally tally = {0};

    if (size < 16) {
        self->counts.dropped_malformed++;
        return;
    }
    uint32_t cumulative = load_be32(chunk + 4);
    uint32_t window = load_be32(chunk + 8);
    size_t gap_count = load_be16(chunk + 12), duplicate_count = load_be16(chunk + 14);
    if (16 + 4 * (gap_count + duplicate_count) > size) {
        self->counts.dropped_malformed++;
        return;
    }
    if (tsn_after(self->tsn_acked, cumulative))
        return; /* overtaken by a newer one */
    if (!tsn_after(self->tsn_next, cumulative)) {
        sctp_violation(self, SCTP_CAUSE_VIOLATION); /* it was never sent */
        return;
    }
    bool progress = cumulative != self->tsn_acked;
    acknowledge_to(self, cumulative, &tally, now);

    uint32_t before = 0; /* blocks ascend; whoever sends others gets no second pass over the ring */
    for (const uint8_t *gap = chunk + 16; gap_count > 0; gap_count--, gap += 4) {
        uint32_t first = load_be16(gap), last = load_be16(gap + 2);

        if (first <= before || last < first)
            break;
        before = last;
        if (last > ring_used(self)) {
            sctp_violation(self, SCTP_CAUSE_VIOLATION);
            return;
        }
        uint32_t end = cumulative + last + 1;
        for (uint32_t tsn = cumulative + first;; tsn++) {
            tsn = bit_next(self->open_bits, self->sent_span, tsn, end, true);
            if (tsn == end)
                break;
            set_acked(self, tsn, &tally, now);
            progress = true;
        }
    }
    self->peer_window = window;
    if (window < self->packet_bytes)
        self->error_count = 0; /* alive, only full: probed for ever (RFC 9260, section 6.1) */
    acknowledge_done(self, &tally, progress, now);
}

/* --- timers ----------------------------------------------------------------------------------------------------- */

static void losses_done(struct sctp *self, const struct tally *tally, uint64_t now)
{
    if (tally->lost_bytes != 0) {
        struct rate_ack ack = {.now = now, .lost_bytes = tally->lost_bytes, .inflight_bytes = self->inflight_bytes};

        rate_ack(&self->rate, &ack);
        sctp_pace_refresh(self);
    }
    if (sctp_carries(self))
        forward_refresh(self, now);
}

void sctp_loss_timeout(struct sctp *self, uint64_t now)
{
    struct tally tally = {0};

    detect_losses(self, &tally, now);
    losses_done(self, &tally, now);
}

void sctp_probe_timeout(struct sctp *self, uint64_t now)
{
    self->probe_at = SCTP_NEVER;
    if (self->inflight.count == 0)
        return;
    self->probe_due = self->probe_used = true;
    self->counts.probes_tail++;
    self->t3_at = later(self->t3_at, now + rto_now(self));
}

/* A peer that has acknowledged the chunk after its cumulative TSN and does not move on has forgotten it (RFC 9260,
 * section 6.3.3, R3: it may). */
static void distrust_gaps(struct sctp *self)
{
    if (ring_used(self) == 0 || tsn_after(self->tsn_forward, self->tsn_acked) ||
        sent_at(self, self->tsn_acked + 1)->fate != SCTP_ACKED)
        return;
    for (uint32_t tsn = self->tsn_acked + 1; tsn != self->tsn_next; tsn++) {
        struct sctp_sent *sent = sent_at(self, tsn);

        if (sent->fate != SCTP_ACKED)
            continue;
        if (sent->outgoing->abandoned) {
            if (!bit_test(self->abandoned_bits, self->sent_span, tsn))
                set_abandoned(self, tsn);
            sent->fate = SCTP_GONE;
            continue;
        }
        sent->fate = SCTP_LOST;
        bit_set(self->open_bits, self->sent_span, tsn);
        list_append(self, &self->lost, tsn);
    }
}

void sctp_t3_timeout(struct sctp *self, uint64_t now)
{
    struct tally tally = {0};
    bool starved = self->peer_window < self->packet_bytes; /* a probe of a closed window says nothing of the path */

    self->t3_at = self->probe_at = self->loss_at = SCTP_NEVER;
    self->counts.timeouts++;
    if (++self->error_count > SCTP_RETRANSMITS_MAX_ASSOCIATION) {
        sctp_end(self, SCTP_END_TIMEOUT);
        return;
    }
    if (self->rto << self->rto_doublings < SCTP_RTO_MAX_NS)
        self->rto_doublings++;
    while (self->inflight.count > 0)
        set_lost(self, self->inflight.oldest, &tally, now);
    sctp_mtu_timed_out(self, now);
    distrust_gaps(self);
    if (!starved) {
        rate_timeout(&self->rate, now);
        sctp_pace_refresh(self);
    }
    self->pace_at = earlier(self->pace_at, now);
    self->probe_due = self->probe_used = false;
    if (!sctp_carries(self))
        return;
    forward_refresh(self, now);
    if (tsn_after(self->tsn_forward, self->tsn_acked)) {
        self->forward_due = true;
        self->t3_at = now + rto_now(self);
    } else if (ring_used(self) > 0) {
        self->t3_at = now + rto_now(self); /* should nothing go, the next one tries again */
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

size_t sctp_put_data(struct sctp *self, uint8_t *packet, size_t used, size_t room, uint64_t now)
{
    size_t limit = room < self->packet_bytes ? room : self->packet_bytes;
    uint64_t inflight_before = self->inflight_bytes, bytes = 0;
    bool probing = self->probe_due, fresh = true;
    uint8_t *last = NULL;
    unsigned count = 0;

    sctp_expire(self, now);
    if (!sctp_data_wanted(self))
        return used;
    self->pace_holds = self->pace_at > now && !probing;
    if (self->pace_holds)
        return used;
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
            abandon(self, outgoing, now);
            forward_refresh(self, now);
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
    self->pace_at = later(self->pace_at, now < self->burst_ns ? 0 : now - self->burst_ns);
    self->pace_at += bytes * self->ns_per_kib / 1024;
    self->idle_told = self->probe_due = false;
    /* The end of a burst: nothing follows that would make the peer answer soon. */
    bool burst = inflight_before > 0 || bytes > limit / 2;
    if (probing || (self->srtt == 0 && inflight_before == 0) || (burst && !sctp_data_wanted(self)))
        last[1] |= SCTP_FLAG_IMMEDIATE;
    timers_restart(self, now);
    return used;
}

size_t sctp_put_forward(struct sctp *self, uint8_t *at, size_t room, uint64_t now)
{
    uint16_t streams[FORWARD_STREAMS_MAX], ssns[FORWARD_STREAMS_MAX];
    uint32_t target = self->tsn_forward, end = target + 1;
    const struct sctp_outgoing *seen = NULL;
    size_t count = 0, count_max = room / 4 - 2;

    if (!tsn_after(self->tsn_forward, self->tsn_acked)) {
        self->forward_due = false;
        return 0;
    }
    if (room < 8)
        return 0;
    if (count_max > FORWARD_STREAMS_MAX)
        count_max = FORWARD_STREAMS_MAX;
    for (uint32_t tsn = self->tsn_acked + 1;; tsn++) {
        tsn = bit_next(self->abandoned_bits, self->sent_span, tsn, end, true);
        if (tsn == end)
            break;
        const struct sctp_sent *sent = sent_at(self, tsn);
        size_t index = 0;

        if (sent->outgoing == seen || sent->outgoing->unordered)
            continue;
        while (index < count && streams[index] != sent->outgoing->stream)
            index++;
        if (index == count_max) {
            target = tsn - 1;
            break;
        }
        seen = sent->outgoing;
        streams[index] = seen->stream;
        ssns[index] = seen->ssn;
        if (index == count)
            count++;
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
    self->forward_sent_at = now;
    if (self->t3_at == SCTP_NEVER)
        self->t3_at = now + rto_now(self);
    return 8 + 4 * count;
}

size_t sctp_room(const struct sctp *self, uint64_t now)
{
    uint64_t largest = SCTP_MESSAGE_BYTES_MAX; /* whoever keeps to room is never told no, whatever the message's size */

    (void)now;
    if (self->phase != SCTP_ESTABLISHED ||
        (self->accepted_bytes > 0 && self->accepted_bytes + largest > self->config.send_bytes_max))
        return 0;
    if (self->unsent_bytes > 0 && !window_open(self))
        return 0;
    /* One packet more than a burst: what waits then never runs out before pacing stops it, and rate.h learns that the
     * application had enough to send. */
    uint64_t room = later(rate_burst_bytes(&self->rate), 2 * (uint64_t)self->packet_bytes) + self->packet_bytes;
    return room > self->unsent_bytes ? (size_t)(room - self->unsent_bytes) : 0;
}
