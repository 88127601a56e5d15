/* An association: its memory, the walk over a packet's chunks, the next packet made of what the other parts have due,
 * and time. */

#include <string.h>

#include <openssl/crypto.h>

#include "sctp/state.h"

enum { PARAMETER_HEARTBEAT = 1 };

/* --- begin and end ---------------------------------------------------------------------------------------------- */

struct sctp *sctp_new(const struct sctp_config *config, const struct sctp_handler *handler, void *context)
{
    struct sctp *self = calloc(1, sizeof *self);
    uint32_t bytes = config->packet_bytes_max & ~(uint32_t)3;

    if (self == NULL)
        return NULL;
    self->config = *config;
    self->handler = handler;
    self->context = context;
    self->crc = crc32c_best();
    self->tag_local = load_be32(config->entropy);
    if (self->tag_local == 0) /* tag 0 is for INIT */
        self->tag_local = 1;
    self->tsn_first = self->out.tsn_next = load_be32(config->entropy + 4);
    self->out.tsn_acked = self->out.tsn_forward = self->out.forward_told = self->out.tsn_next - 1;
    self->reset.sequence = self->out.tsn_next;
    self->random = (uint64_t)load_be32(config->entropy + 8) << 32 | load_be32(config->entropy + 12);
    self->packet_bytes = SCTP_PACKET_BYTES_MIN;
    self->packet_bytes_max = bytes < SCTP_PACKET_BYTES_MIN   ? SCTP_PACKET_BYTES_MIN
                             : bytes > SCTP_PACKET_BYTES_MAX ? SCTP_PACKET_BYTES_MAX
                                                             : bytes;
    self->streams_in = self->streams_out = SCTP_STREAM_COUNT_MAX;
    self->in.size_hint_bytes = SCTP_PACKET_BYTES_MIN * 4;
    sctp_timers_stop(self);
    if (!sctp_receive_start(self) || !sctp_send_start(self, 0)) {
        sctp_delete(self);
        return NULL;
    }
    return self;
}

/* Free what an association needs until it ends. */
static void drop_all(struct sctp *self)
{
    sctp_outbox_drop(self);
    sctp_receive_drop(self);
    free(self->opening.cookie);
    self->opening = (struct sctp_opening){0};
    free(self->request.streams);
    self->request = (struct sctp_request){0};
}

void sctp_delete(struct sctp *self)
{
    if (self == NULL)
        return;
    drop_all(self);
    OPENSSL_cleanse(self->config.entropy, sizeof self->config.entropy);
    free(self);
}

static void tell_end(struct sctp *self)
{
    if (self->phase != SCTP_ENDED || self->end_told)
        return;
    self->end_told = true;
    drop_all(self);
    self->handler->closed(self->context, self->why);
}

/* --- goodbye ---------------------------------------------------------------------------------------------------- */

static void shutdown_if_drained(struct sctp *self, uint64_t now)
{
    if (self->out.unsent_first != NULL || self->out.tsn_acked + 1 != self->out.tsn_next)
        return;
    if (self->phase == SCTP_SHUTDOWN_PENDING) {
        self->phase = SCTP_SHUTDOWN_SENT;
        self->due.shutdown = true;
        self->timers.t2_at = now + self->rtt.rto_ns;
    } else if (self->phase == SCTP_SHUTDOWN_RECEIVED) {
        self->phase = SCTP_SHUTDOWN_ACK_SENT;
        self->due.shutdown_ack = true;
        self->timers.t2_at = now + self->rtt.rto_ns;
    }
}

void sctp_close(struct sctp *self, bool abort, uint64_t now)
{
    if (abort || self->phase < SCTP_ESTABLISHED) {
        sctp_end_abort(self, SCTP_CAUSE_USER, SCTP_END_ASKED);
    } else if (self->phase == SCTP_ESTABLISHED) {
        self->phase = SCTP_SHUTDOWN_PENDING;
        shutdown_if_drained(self, now);
    }
}

static void receive_shutdown(struct sctp *self, const uint8_t *chunk, size_t size, uint64_t now)
{
    if (size < 8) {
        self->counts.dropped_malformed++;
        return;
    }
    if (self->phase == SCTP_SHUTDOWN_ACK_SENT) {
        self->due.shutdown_ack = true;
        return;
    }
    if (!sctp_carries(self))
        return;
    sctp_loss_acknowledge(self, load_be32(chunk + 4), now);
    if (self->phase == SCTP_ENDED)
        return;
    if (self->phase == SCTP_SHUTDOWN_SENT) { /* both ends close at once */
        self->phase = SCTP_SHUTDOWN_ACK_SENT;
        self->due.shutdown_ack = true;
    } else {
        self->phase = SCTP_SHUTDOWN_RECEIVED;
    }
    self->timers.reset_at = self->timers.mtu_at = NEVER;
    self->due.reset = self->due.mtu = false;
    shutdown_if_drained(self, now);
}

static void receive_shutdown_ack(struct sctp *self)
{
    if (self->phase != SCTP_SHUTDOWN_SENT && self->phase != SCTP_SHUTDOWN_ACK_SENT)
        return;
    sctp_end(self, SCTP_END_ASKED);
    self->due.shutdown_complete = true;
}

/* --- answers ---------------------------------------------------------------------------------------------------- */

static void receive_heartbeat_ack(struct sctp *self, const uint8_t *chunk, size_t size, uint64_t now)
{
    if (size < 16 || load_be16(chunk + 4) != PARAMETER_HEARTBEAT || load_be16(chunk + 6) != 12) {
        self->counts.dropped_malformed++;
        return;
    }
    uint64_t nonce = (uint64_t)load_be32(chunk + 8) << 32 | load_be32(chunk + 12);
    if (!sctp_carries(self))
        return;
    if (nonce == self->heartbeat_nonce && self->heartbeat_nonce != 0)
        self->heartbeat_nonce = 0;
    else if (!sctp_mtu_answered(self, nonce, now))
        return;
    if (self->out.inflight.count == 0)
        self->error_count = 0;
}

/* --- a packet's chunks ------------------------------------------------------------------------------------------ */

/* False: ignore the rest of the packet. */
static bool receive_chunk(struct sctp *self, const uint8_t *chunk, size_t size, uint64_t now)
{
    /* Data under our tag: the peer has our cookie, and its COOKIE-ACK was lost or is late. */
    if (self->phase == SCTP_COOKIE_ECHOED && (chunk[0] == SCTP_DATA || chunk[0] == SCTP_SACK))
        sctp_opening_done(self, now);
    switch (chunk[0]) {
    case SCTP_DATA:
        if (sctp_carries(self))
            sctp_receive_data_untrusted(self, chunk, size);
        if (self->request.deferred)
            sctp_reset_deferred(self);
        break;
    case SCTP_SACK:
        if (self->in.packet_had_sack)
            self->counts.dropped_other++; /* one SACK says everything, and may cost a walk over the whole ring */
        else if (sctp_carries(self))
            sctp_loss_receive_sack_untrusted(self, chunk, size, now);
        self->in.packet_had_sack = true;
        break;
    case SCTP_FORWARD_TSN:
        if (sctp_carries(self))
            sctp_receive_forward_untrusted(self, chunk, size);
        if (self->request.deferred)
            sctp_reset_deferred(self);
        break;
    case SCTP_RECONFIG:
        if (sctp_carries(self))
            sctp_reset_receive_untrusted(self, chunk, size, now);
        break;
    case SCTP_INIT: /* valid only alone, under tag 0; handled before */
        return false;
    case SCTP_INIT_ACK:
        sctp_opening_receive_init_ack_untrusted(self, chunk, size, now);
        break;
    case SCTP_HEARTBEAT:
        sctp_answers_heartbeat_untrusted(self, chunk, size);
        break;
    case SCTP_HEARTBEAT_ACK:
        receive_heartbeat_ack(self, chunk, size, now);
        break;
    case SCTP_ABORT:
        sctp_end(self, SCTP_END_ABORTED);
        return false;
    case SCTP_SHUTDOWN:
        receive_shutdown(self, chunk, size, now);
        break;
    case SCTP_SHUTDOWN_ACK:
        receive_shutdown_ack(self);
        break;
    case SCTP_SHUTDOWN_COMPLETE:
        if (self->phase == SCTP_SHUTDOWN_ACK_SENT)
            sctp_end(self, SCTP_END_SHUTDOWN);
        break;
    case SCTP_ERROR:
        sctp_opening_receive_error_untrusted(self, chunk, size);
        break;
    case SCTP_COOKIE_ECHO:
        sctp_opening_receive_cookie_untrusted(self, chunk, size, now);
        break;
    case SCTP_COOKIE_ACK:
        if (self->phase == SCTP_COOKIE_ECHOED)
            sctp_opening_done(self, now);
        break;
    case SCTP_PAD:
        break;
    default:
        sctp_answers_unknown_untrusted(self, chunk, size);
        return (chunk[0] & 0x80) != 0; /* high bits 0x: ignore the rest of the packet */
    }
    return self->phase != SCTP_ENDED;
}

void sctp_receive_untrusted(struct sctp *self, uint8_t *packet, size_t size, uint64_t now)
{
    self->counts.packets_received++;
    self->counts.bytes_received += size;
    if (size < SCTP_HEADER_BYTES + SCTP_CHUNK_HEADER_BYTES || size > UINT16_MAX) {
        self->counts.dropped_malformed++;
        return;
    }
    static const uint8_t zeros[4];
    uint32_t crc = self->crc(self->crc(CRC32C_START, packet, 8), zeros, 4);
    crc = crc32c_finish(self->crc(crc, packet + SCTP_HEADER_BYTES, size - SCTP_HEADER_BYTES));
    uint32_t claimed = (uint32_t)packet[11] << 24 | (uint32_t)packet[10] << 16 | (uint32_t)packet[9] << 8 | packet[8];
    if (crc != claimed) {
        self->counts.dropped_checksum++;
        return;
    }
    if (self->phase == SCTP_ENDED || load_be16(packet) != self->config.port_remote ||
        load_be16(packet + 2) != self->config.port_local) {
        self->counts.dropped_other++;
        return;
    }
    uint32_t tag = load_be32(packet + 4);
    uint8_t type = packet[SCTP_HEADER_BYTES], flags = packet[SCTP_HEADER_BYTES + 1];
    bool init = type == SCTP_INIT;
    /* A peer that does not know this association ends it under the tag that we sent (RFC 9260, section 8.5.1). */
    bool reflected = (type == SCTP_ABORT || type == SCTP_SHUTDOWN_COMPLETE) && (flags & 1) != 0;
    if (tag != (init ? 0 : reflected ? self->tag_remote : self->tag_local) || (reflected && tag == 0)) {
        self->counts.dropped_tag++;
        return;
    }
    self->heard_at = now;
    self->in.packet_had_data = self->in.packet_had_sack = false;
    for (size_t at = SCTP_HEADER_BYTES; at < size && size - at >= SCTP_CHUNK_HEADER_BYTES;) {
        const uint8_t *chunk = packet + at;
        size_t length = load_be16(chunk + 2);

        if (length < SCTP_CHUNK_HEADER_BYTES || length > size - at) {
            self->counts.dropped_malformed++;
            break;
        }
        at += padded(length);
        if (init) {
            if (at < size)
                self->counts.dropped_malformed++; /* an INIT must be alone */
            else
                sctp_opening_receive_init_untrusted(self, chunk, length, now);
            break;
        }
        if (!receive_chunk(self, chunk, length, now))
            break;
    }
    if (self->in.packet_had_data)
        self->in.sack_packets++;
    if (self->phase == SCTP_SHUTDOWN_PENDING || self->phase == SCTP_SHUTDOWN_RECEIVED)
        shutdown_if_drained(self, now);
    if (self->phase == SCTP_SHUTDOWN_SENT && self->in.packet_had_data)
        self->due.shutdown = true; /* it acknowledges data, as a SACK does before (RFC 9260, section 9.2) */
    tell_end(self);
}

void sctp_receive_done(struct sctp *self, uint64_t now)
{
    self->in.stream_error_told = self->request.taken = false;
    if (!self->in.sack_wanted)
        return;
    if (self->in.sack_packets >= 2)
        self->due.sack = true;
    if (!self->due.sack && self->timers.sack_at == NEVER)
        self->timers.sack_at = now + SCTP_SACK_DELAY_NS;
}

/* --- packets ---------------------------------------------------------------------------------------------------- */

static size_t packet_finish(struct sctp *self, uint8_t *packet, size_t size, uint32_t tag)
{
    store_be16(packet, self->config.port_local);
    store_be16(packet + 2, self->config.port_remote);
    store_be32(packet + 4, tag);
    memset(packet + 8, 0, 4);
    uint32_t crc = crc32c_finish(self->crc(CRC32C_START, packet, size));
    packet[8] = (uint8_t)crc;
    packet[9] = (uint8_t)(crc >> 8);
    packet[10] = (uint8_t)(crc >> 16);
    packet[11] = (uint8_t)(crc >> 24);
    self->counts.packets_sent++;
    self->counts.bytes_sent += size;
    return size;
}

static size_t put_abort(struct sctp *self, uint8_t *packet)
{
    uint8_t *at = store_chunk_header(packet + SCTP_HEADER_BYTES, SCTP_ABORT, 0, 8);

    store_be16(at, self->abort_cause);
    store_be16(at + 2, 4);
    self->due.abort = false;
    return packet_finish(self, packet, SCTP_HEADER_BYTES + 8, self->tag_remote);
}

/* Put the chunks that go before data.  packet has room for at least SCTP_PACKET_BYTES_MIN, which all of them fit. */
static size_t put_control(struct sctp *self, uint8_t *packet, size_t used, size_t limit, uint64_t now)
{
    if (self->due.cookie_echo) { /* it must be first in its packet; before the association is open all else can wait */
        store_chunk_header(packet + used, SCTP_COOKIE_ECHO, 0, SCTP_CHUNK_HEADER_BYTES + self->opening.cookie_size);
        memcpy(packet + used + SCTP_CHUNK_HEADER_BYTES, self->opening.cookie, self->opening.cookie_size);
        size_t size = SCTP_CHUNK_HEADER_BYTES + self->opening.cookie_size, whole = padded(size);
        memset(packet + used + size, 0, whole - size);
        self->due.cookie_echo = false;
        return used + whole;
    }
    if (self->answers.size > 0 && self->answers.size <= limit - used) {
        memcpy(packet + used, self->answers.bytes, self->answers.size);
        used += self->answers.size;
        self->answers.size = 0;
    }
    if (!sctp_carries(self) && self->phase != SCTP_SHUTDOWN_ACK_SENT)
        return used;
    if (self->due.sack || (self->in.sack_wanted && (self->pace.at <= now || self->due.probe) && sctp_send_wanted(self)))
        used += sctp_receive_put_sack(self, packet + used, limit - used);
    if (self->due.forward)
        used += sctp_forward_put(self, packet + used, limit - used, now);
    if (self->due.reset)
        used += sctp_reset_put(self, packet + used, limit - used, now);
    if (self->due.heartbeat && limit - used >= 16) {
        uint8_t *at = store_chunk_header(packet + used, SCTP_HEARTBEAT, 0, 16);

        self->heartbeat_nonce = mix64_next(&self->random) | 1;
        store_be16(at, PARAMETER_HEARTBEAT);
        store_be16(at + 2, 12);
        store_be32(at + 4, (uint32_t)(self->heartbeat_nonce >> 32));
        store_be32(at + 8, (uint32_t)self->heartbeat_nonce);
        self->due.heartbeat = false;
        used += 16;
    }
    if (self->due.shutdown && limit - used >= 8) {
        store_be32(store_chunk_header(packet + used, SCTP_SHUTDOWN, 0, 8), self->in.tsn_received);
        self->due.shutdown = false;
        used += 8;
    }
    if (self->due.shutdown_ack && limit - used >= 4) {
        store_chunk_header(packet + used, SCTP_SHUTDOWN_ACK, 0, 4);
        self->due.shutdown_ack = false;
        used += 4;
    }
    return used;
}

size_t sctp_next_packet(struct sctp *self, uint8_t *room, size_t room_size, uint64_t now)
{
    size_t limit = room_size < self->packet_bytes ? room_size : self->packet_bytes;

    if (room_size < SCTP_PACKET_BYTES_MIN)
        return 0;
    if (self->due.abort)
        return put_abort(self, room);
    if (self->due.shutdown_complete) {
        store_chunk_header(room + SCTP_HEADER_BYTES, SCTP_SHUTDOWN_COMPLETE, 0, SCTP_CHUNK_HEADER_BYTES);
        self->due.shutdown_complete = false;
        return packet_finish(self, room, SCTP_HEADER_BYTES + SCTP_CHUNK_HEADER_BYTES, self->tag_remote);
    }
    if (self->phase == SCTP_ENDED)
        return 0;
    if (self->due.init_ack) {
        const uint8_t *end = sctp_opening_put_init_ack(self, room + SCTP_HEADER_BYTES);
        return packet_finish(self, room, (size_t)(end - room), self->opening.init_tag);
    }
    if (self->due.init) {
        const uint8_t *end = sctp_opening_put_init(self, room + SCTP_HEADER_BYTES);
        return packet_finish(self, room, (size_t)(end - room), 0); /* a peer's tag is not known yet */
    }
    size_t used = put_control(self, room, SCTP_HEADER_BYTES, limit, now);
    if (self->phase == SCTP_ENDED)
        return 0;
    used = sctp_send_put(self, room, used, room_size, now);
    if (used > SCTP_HEADER_BYTES)
        return packet_finish(self, room, used, self->tag_remote);
    if (self->due.forward) /* data expired during the search for data to send */
        used += sctp_forward_put(self, room + used, limit - used, now);
    else if (self->due.mtu && self->phase == SCTP_ESTABLISHED)
        used = sctp_mtu_put_probe(self, room, room_size, now);
    if (used == 0)
        return 0;
    if (used > SCTP_HEADER_BYTES)
        return packet_finish(self, room, used, self->tag_remote);
    if (!self->pace.idle_told && sctp_carries(self) && self->out.unsent_first == NULL && self->out.lost.count == 0 &&
        self->out.inflight_bytes + self->packet_bytes <= rate_window_bytes(&self->rate)) {
        rate_app_limited(&self->rate, self->out.inflight_bytes);
        self->pace.idle_told = true;
    }
    return 0;
}

/* --- time ------------------------------------------------------------------------------------------------------- */

static bool answer_due(const struct sctp *self)
{
    return self->due.init_ack || self->due.init || self->due.cookie_echo || self->answers.size > 0 || self->due.sack ||
           self->due.forward || self->due.reset || self->due.heartbeat || self->due.shutdown ||
           self->due.shutdown_ack || (self->due.mtu && self->phase == SCTP_ESTABLISHED);
}

uint64_t sctp_next_timeout(const struct sctp *self)
{
    if (self->phase == SCTP_ENDED)
        return self->end_told && !self->due.abort && !self->due.shutdown_complete ? NEVER : 0;
    if (answer_due(self))
        return 0;
    const struct sctp_timers *timers = &self->timers;
    uint64_t at = earlier(earlier(timers->t1_at, timers->t2_at), earlier(timers->heartbeat_at, timers->mtu_at));
    if (!sctp_carries(self))
        return at;
    at = earlier(at, earlier(earlier(timers->t3_at, timers->probe_at), earlier(timers->loss_at, timers->sack_at)));
    at = earlier(at, timers->reset_at);
    if (self->out.unsent_first != NULL)
        at = earlier(at, self->out.unsent_first->expires_at);
    if (sctp_send_wanted(self)) /* for half a burst, not for one packet: a wake-up costs more than a packet */
        at = earlier(at, self->due.probe ? 0 : self->pace.at + (self->pace.holds ? self->pace.burst_ns / 2 : 0));
    return at;
}

static void t2_timeout(struct sctp *self, uint64_t now)
{
    if (++self->shutdown_count > SCTP_RETRANSMITS_MAX_ASSOCIATION) {
        sctp_end_abort(self, SCTP_CAUSE_USER, SCTP_END_TIMEOUT);
        return;
    }
    self->due.shutdown = self->phase == SCTP_SHUTDOWN_SENT;
    self->due.shutdown_ack = self->phase == SCTP_SHUTDOWN_ACK_SENT;
    self->timers.t2_at = now + earlier(self->rtt.rto_ns << self->shutdown_count, SCTP_RTO_MAX_NS);
}

static void heartbeat_timeout(struct sctp *self, uint64_t now)
{
    if (now - self->heard_at >= SCTP_HEARTBEAT_NS) {
        if (self->heartbeat_nonce != 0 && ++self->error_count > SCTP_RETRANSMITS_MAX_ASSOCIATION) {
            sctp_end(self, SCTP_END_TIMEOUT);
            return;
        }
        self->due.heartbeat = true;
        self->timers.heartbeat_at = now + (self->heartbeat_nonce != 0 ? self->rtt.rto_ns : SCTP_HEARTBEAT_ANSWER_NS);
        return;
    }
    self->timers.heartbeat_at = self->heard_at + SCTP_HEARTBEAT_NS;
}

void sctp_handle_timeout(struct sctp *self, uint64_t now)
{
    if (self->timers.t1_at <= now)
        sctp_opening_timeout(self, now);
    if (self->timers.t2_at <= now)
        t2_timeout(self, now);
    if (self->timers.heartbeat_at <= now)
        heartbeat_timeout(self, now);
    if (self->timers.mtu_at <= now)
        sctp_mtu_timeout(self, now);
    if (self->timers.sack_at <= now) {
        self->timers.sack_at = NEVER;
        self->due.sack = self->in.sack_wanted;
    }
    if (self->timers.reset_at <= now)
        sctp_reset_timeout(self, now);
    if (sctp_carries(self)) {
        sctp_forward_expire(self, now);
        if (self->timers.loss_at <= now)
            sctp_loss_timeout(self, now);
        if (self->timers.probe_at <= now)
            sctp_loss_probe_timeout(self, now);
        if (self->timers.t3_at <= now)
            sctp_loss_t3_timeout(self, now);
    }
    if (self->phase == SCTP_SHUTDOWN_PENDING || self->phase == SCTP_SHUTDOWN_RECEIVED)
        shutdown_if_drained(self, now);
    tell_end(self);
}

/* --- what is known ---------------------------------------------------------------------------------------------- */

struct sctp_state sctp_state(const struct sctp *self)
{
    uint64_t rtt_min = rate_rtt_min_ns(&self->rate);

    return (struct sctp_state){
        .open = self->phase == SCTP_ESTABLISHED,
        .searching = self->rate.phase == RATE_STARTUP,
        .packet_bytes = self->packet_bytes,
        .unsent_bytes = self->out.unsent_bytes,
        .inflight_bytes = self->out.inflight_bytes,
        .held_bytes = self->in.held_bytes,
        .rtt_ns = self->rtt.srtt_ns,
        .rtt_min_ns = rtt_min != 0 ? rtt_min : self->rtt.min_ns,
        .rate_bytes_s = rate_pacing_bytes_s(&self->rate),
        .window_bytes = rate_window_bytes(&self->rate),
        .peer_window_bytes = self->peer_window,
    };
}

const struct sctp_counts *sctp_counts(const struct sctp *self) { return &self->counts; }

const char *sctp_end_name(enum sctp_end why)
{
    static const char *const names[] = {
        [SCTP_END_NONE] = "none",       [SCTP_END_ASKED] = "asked",     [SCTP_END_SHUTDOWN] = "shutdown",
        [SCTP_END_ABORTED] = "aborted", [SCTP_END_TIMEOUT] = "timeout", [SCTP_END_MALFORMED] = "malformed",
        [SCTP_END_MEMORY] = "memory",
    };

    return (size_t)why < sizeof names / sizeof *names ? names[why] : "unknown";
}
