/* An association's life: INIT and cookie, answers, the walk over a packet's chunks, timers, goodbye; and packets put
 * together from what the other parts have to say. */

#include "sctp.h"

#include <stdlib.h>
#include <string.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "sctp_private.h"

enum {
    INIT_BYTES = 20, /* the fixed part, chunk header included */
    PARAMETER_HEARTBEAT = 1,
    PARAMETER_COOKIE = 7,
    PARAMETER_UNRECOGNIZED = 8,
    PARAMETER_EXTENSIONS = 0x8008,
    PARAMETER_FORWARD_TSN = 0xc000,
    EXTENSION_PARAMETERS_BYTES = 4 + 8, /* FORWARD-TSN supported; extensions: two and two bytes of padding */

    MAC_BYTES = 32,
    COOKIE_BYTES = 64, /* ours: MAC, time, both tags, and what the peer's INIT said */
    KEY_BYTES = 32, /* the last of the configuration's entropy */

    REPORTED_BYTES_MAX = 64, /* of a chunk we do not know */
};
_Static_assert(sizeof((struct sctp *)0)->init_cookie == COOKIE_BYTES, "the cookie's place");

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
    if (self->tag_local == 0) /* zero is INIT's */
        self->tag_local = 1;
    self->tsn_first = self->tsn_next = load_be32(config->entropy + 4);
    self->tsn_acked = self->tsn_forward = self->forward_told = self->tsn_next - 1;
    self->reset_sequence = self->tsn_next;
    self->random = (uint64_t)load_be32(config->entropy + 8) << 32 | load_be32(config->entropy + 12);
    self->packet_bytes = SCTP_PACKET_BYTES_MIN;
    self->packet_bytes_max = bytes < SCTP_PACKET_BYTES_MIN   ? SCTP_PACKET_BYTES_MIN
                             : bytes > SCTP_PACKET_BYTES_MAX ? SCTP_PACKET_BYTES_MAX
                                                             : bytes;
    self->streams_in = self->streams_out = SCTP_STREAM_COUNT_MAX;
    self->size_hint = SCTP_PACKET_BYTES_MIN * 4;
    self->t1_at = self->t2_at = self->heartbeat_at = self->sack_at = self->reset_at = self->mtu_at = SCTP_NEVER;
    if (!sctp_receive_start(self) || !sctp_send_start(self, 0)) {
        sctp_delete(self);
        return NULL;
    }
    return self;
}

/* Free what only a living association needs. */
static void drop_all(struct sctp *self)
{
    sctp_send_drop(self);
    sctp_receive_drop(self);
    free(self->cookie);
    self->cookie = NULL;
    free(self->request_streams);
    self->request_streams = NULL;
}

void sctp_delete(struct sctp *self)
{
    if (self == NULL)
        return;
    drop_all(self);
    OPENSSL_cleanse(self->config.entropy, sizeof self->config.entropy);
    free(self);
}

/* Not everything at once: whoever called may be in the middle of a message. */
void sctp_end(struct sctp *self, enum sctp_end why)
{
    if (self->phase == SCTP_ENDED)
        return;
    self->phase = SCTP_ENDED;
    self->why = why;
    self->t1_at = self->t2_at = self->heartbeat_at = self->sack_at = self->reset_at = self->mtu_at = SCTP_NEVER;
    self->t3_at = self->probe_at = self->loss_at = SCTP_NEVER;
    self->init_due = self->init_ack_due = self->cookie_echo_due = self->shutdown_due = self->shutdown_ack_due = false;
    self->heartbeat_due = self->mtu_due = self->reset_due = self->forward_due = self->sack_wanted = false;
    self->control_size = 0;
}

static void tell_end(struct sctp *self)
{
    if (self->phase != SCTP_ENDED || self->end_told)
        return;
    self->end_told = true;
    drop_all(self);
    self->handler->closed(self->context, self->why);
}

static void abort_with(struct sctp *self, uint16_t cause, enum sctp_end why)
{
    if (self->phase == SCTP_ENDED)
        return;
    self->abort_due = self->tag_remote != 0;
    self->abort_cause = cause;
    sctp_end(self, why);
}

void sctp_violation(struct sctp *self, uint16_t cause)
{
    self->counts.dropped_malformed++;
    abort_with(self, cause, SCTP_END_MALFORMED);
}

void sctp_close(struct sctp *self, bool abort, uint64_t now)
{
    if (abort || self->phase < SCTP_ESTABLISHED) {
        abort_with(self, SCTP_CAUSE_USER, SCTP_END_ASKED);
    } else if (self->phase == SCTP_ESTABLISHED) {
        self->phase = SCTP_SHUTDOWN_PENDING;
        sctp_shutdown_if_drained(self, now);
    }
}

uint64_t sctp_random(struct sctp *self)
{
    uint64_t mixed = self->random += UINT64_C(0x9e3779b97f4a7c15); /* a counter, and splitmix64's finish */

    mixed = (mixed ^ mixed >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    mixed = (mixed ^ mixed >> 27) * UINT64_C(0x94d049bb133111eb);
    return mixed ^ mixed >> 31;
}

/* --- set-up ----------------------------------------------------------------------------------------------------- */

void sctp_connect(struct sctp *self, uint64_t now)
{
    if (self->phase != SCTP_CLOSED)
        return;
    self->phase = SCTP_COOKIE_WAIT;
    self->init_due = true;
    self->t1_at = now + SCTP_RTO_INITIAL_NS;
}

static void opened(struct sctp *self, uint64_t now)
{
    self->phase = SCTP_ESTABLISHED;
    self->t1_at = SCTP_NEVER;
    self->init_due = self->cookie_echo_due = false;
    self->init_count = 0;
    free(self->cookie);
    self->cookie = NULL;
    self->heard_at = now;
    self->heartbeat_at = now + SCTP_HEARTBEAT_NS;
    if (!sctp_send_start(self, now)) {
        sctp_end(self, SCTP_END_MEMORY);
        return;
    }
    sctp_mtu_start(self, now);
    self->handler->opened(self->context);
}

/* What a peer's INIT or INIT-ACK says, and our cookie carries. */
struct peer {
    uint32_t tag, window, tsn;
    uint16_t streams_out, streams_in;
    bool forward, reset;
};

static void adopt(struct sctp *self, const struct peer *peer)
{
    self->tag_remote = peer->tag;
    self->peer_window = peer->window;
    self->tsn_received = peer->tsn - 1;
    self->request_last = peer->tsn - 1;
    self->request_result = 5; /* RFC 6525: bad sequence number, for there was none */
    self->streams_out = peer->streams_in < SCTP_STREAM_COUNT_MAX ? peer->streams_in : SCTP_STREAM_COUNT_MAX;
    self->streams_in = peer->streams_out < SCTP_STREAM_COUNT_MAX ? peer->streams_out : SCTP_STREAM_COUNT_MAX;
    self->forward_supported = peer->forward;
    self->reset_supported = peer->reset;
}

/* Read INIT or INIT-ACK.  cookie: set to where the cookie's parameter stands, or NULL.  unknown: parameters the sender
 * wants to hear of when they are not known, as whole "unrecognized" parameters.  False: not well-formed. */
static bool init_read_untrusted(const uint8_t *chunk, size_t size, struct peer *peer, const uint8_t **cookie,
                                size_t *cookie_size, uint8_t *unknown, size_t unknown_room, size_t *unknown_size)
{
    *cookie = NULL;
    *cookie_size = *unknown_size = 0;
    if (size < INIT_BYTES)
        return false;
    *peer = (struct peer){
        .tag = load_be32(chunk + 4),
        .window = load_be32(chunk + 8),
        .streams_out = load_be16(chunk + 12),
        .streams_in = load_be16(chunk + 14),
        .tsn = load_be32(chunk + 16),
    };
    if (peer->tag == 0 || peer->streams_out == 0 || peer->streams_in == 0)
        return false;
    for (size_t at = INIT_BYTES; at < size && size - at >= 4;) {
        const uint8_t *parameter = chunk + at;
        unsigned type = load_be16(parameter);
        size_t length = load_be16(parameter + 2);

        if (length < 4 || length > size - at)
            return false;
        if (type == PARAMETER_COOKIE) {
            *cookie = parameter + 4;
            *cookie_size = length - 4;
        } else if (type == PARAMETER_FORWARD_TSN) {
            peer->forward = true;
        } else if (type == PARAMETER_EXTENSIONS) {
            for (size_t index = 4; index < length; index++) {
                peer->reset = peer->reset || parameter[index] == SCTP_RECONFIG;
                peer->forward = peer->forward || parameter[index] == SCTP_FORWARD_TSN;
            }
        } else {
            size_t whole = 4 + padded(length);

            if ((type & 0x4000) != 0 && whole <= unknown_room - *unknown_size) { /* high bits x1: report it */
                uint8_t *report = unknown + *unknown_size;

                memset(report, 0, whole);
                store_be16(report, PARAMETER_UNRECOGNIZED);
                store_be16(report + 2, (uint16_t)(4 + length));
                memcpy(report + 4, parameter, length);
                *unknown_size += whole;
            }
            if ((type & 0x8000) == 0 && type > PARAMETER_UNRECOGNIZED + 4) /* high bits 0x: read no further */
                break;
        }
        at += padded(length);
    }
    return true;
}

static bool cookie_mac(const struct sctp *self, const uint8_t *cookie, uint8_t mac[MAC_BYTES])
{
    const uint8_t *key = self->config.entropy + sizeof self->config.entropy - KEY_BYTES;
    unsigned size = MAC_BYTES;

    return HMAC(EVP_sha256(), key, KEY_BYTES, cookie + MAC_BYTES, COOKIE_BYTES - MAC_BYTES, mac, &size) != NULL;
}

static void receive_init(struct sctp *self, const uint8_t *chunk, size_t size, uint64_t now)
{
    const uint8_t *cookie;
    size_t cookie_size;
    struct peer peer;
    uint8_t *at = self->init_cookie + MAC_BYTES;

    if (!init_read_untrusted(chunk, size, &peer, &cookie, &cookie_size, self->init_parameters,
                             sizeof self->init_parameters, &self->init_parameters_size)) {
        self->counts.dropped_malformed++;
        return;
    }
    if (self->phase == SCTP_ENDED || self->phase == SCTP_SHUTDOWN_ACK_SENT)
        return;
    /* Nothing is kept but what goes in the answer: the cookie brings it back.  The tag is that of our own INIT, as
     * section 5.2.1 wants it when two collide. */
    store_be32(at, (uint32_t)(now >> 32));
    store_be32(at + 4, (uint32_t)now);
    store_be32(at + 8, peer.tag);
    store_be32(at + 12, peer.window);
    store_be32(at + 16, peer.tsn);
    store_be16(at + 20, peer.streams_out);
    store_be16(at + 22, peer.streams_in);
    store_be32(at + 24, self->tag_local);
    store_be32(at + 28, (uint32_t)peer.forward << 1 | (uint32_t)peer.reset);
    self->init_ack_due = cookie_mac(self, self->init_cookie, self->init_cookie);
    self->init_tag = peer.tag;
}

static void receive_init_ack(struct sctp *self, const uint8_t *chunk, size_t size, uint64_t now)
{
    const uint8_t *cookie;
    size_t cookie_size, unknown_size;
    struct peer peer;

    if (self->phase != SCTP_COOKIE_WAIT)
        return;
    if (!init_read_untrusted(chunk, size, &peer, &cookie, &cookie_size, NULL, 0, &unknown_size) || cookie == NULL ||
        cookie_size == 0 || cookie_size > SCTP_COOKIE_BYTES_MAX) {
        self->counts.dropped_malformed++;
        return;
    }
    self->cookie = malloc(cookie_size);
    if (self->cookie == NULL) {
        sctp_end(self, SCTP_END_MEMORY);
        return;
    }
    memcpy(self->cookie, cookie, cookie_size);
    self->cookie_size = cookie_size;
    adopt(self, &peer);
    self->phase = SCTP_COOKIE_ECHOED;
    self->init_due = false;
    self->cookie_echo_due = true;
    self->init_count = 0;
    self->t1_at = now + SCTP_RTO_INITIAL_NS;
}

static void receive_cookie_echo(struct sctp *self, const uint8_t *chunk, size_t size, uint64_t now)
{
    const uint8_t *cookie = chunk + SCTP_CHUNK_HEADER_BYTES, *at = cookie + MAC_BYTES;
    uint8_t mac[MAC_BYTES];

    if (size != SCTP_CHUNK_HEADER_BYTES + COOKIE_BYTES || !cookie_mac(self, cookie, mac) ||
        CRYPTO_memcmp(mac, cookie, MAC_BYTES) != 0 || load_be32(at + 24) != self->tag_local) {
        self->counts.dropped_other++;
        return;
    }
    uint64_t made_at = (uint64_t)load_be32(at) << 32 | load_be32(at + 4);
    uint32_t flags = load_be32(at + 28);
    struct peer peer = {
        .tag = load_be32(at + 8),
        .window = load_be32(at + 12),
        .tsn = load_be32(at + 16),
        .streams_out = load_be16(at + 20),
        .streams_in = load_be16(at + 22),
        .forward = (flags & 2) != 0,
        .reset = (flags & 1) != 0,
    };
    bool same = peer.tag == self->tag_remote;
    if (now - made_at > SCTP_COOKIE_LIFE_NS && !(self->phase >= SCTP_ESTABLISHED && same)) {
        uint8_t *cause = sctp_control(self, SCTP_ERROR, 0, 8);

        if (cause != NULL) {
            uint64_t late_us = (now - made_at - SCTP_COOKIE_LIFE_NS) / 1000;

            store_be16(cause, SCTP_CAUSE_STALE_COOKIE);
            store_be16(cause + 2, 8);
            store_be32(cause + 4, late_us > UINT32_MAX ? UINT32_MAX : (uint32_t)late_us);
        }
        return;
    }
    if (self->phase >= SCTP_ESTABLISHED && !same) {
        /* The peer has begun anew and knows nothing of what is in flight: this association is over (a new one needs
         * a new DTLS session anyway). */
        abort_with(self, SCTP_CAUSE_USER, SCTP_END_ABORTED);
        return;
    }
    if (self->phase >= SCTP_SHUTDOWN_ACK_SENT)
        return;
    sctp_control(self, SCTP_COOKIE_ACK, 0, 0);
    if (self->phase < SCTP_ESTABLISHED) {
        adopt(self, &peer);
        opened(self, now);
    }
}

/* --- goodbye ---------------------------------------------------------------------------------------------------- */

void sctp_shutdown_if_drained(struct sctp *self, uint64_t now)
{
    if (self->unsent_first != NULL || self->tsn_acked + 1 != self->tsn_next)
        return;
    if (self->phase == SCTP_SHUTDOWN_PENDING) {
        self->phase = SCTP_SHUTDOWN_SENT;
        self->shutdown_due = true;
        self->t2_at = now + self->rto;
    } else if (self->phase == SCTP_SHUTDOWN_RECEIVED) {
        self->phase = SCTP_SHUTDOWN_ACK_SENT;
        self->shutdown_ack_due = true;
        self->t2_at = now + self->rto;
    }
}

static void receive_shutdown(struct sctp *self, const uint8_t *chunk, size_t size, uint64_t now)
{
    if (size < 8) {
        self->counts.dropped_malformed++;
        return;
    }
    if (self->phase == SCTP_SHUTDOWN_ACK_SENT) {
        self->shutdown_ack_due = true;
        return;
    }
    if (!sctp_carries(self))
        return;
    sctp_acknowledge(self, load_be32(chunk + 4), now);
    if (self->phase == SCTP_ENDED)
        return;
    if (self->phase == SCTP_SHUTDOWN_SENT) { /* both at once */
        self->phase = SCTP_SHUTDOWN_ACK_SENT;
        self->shutdown_ack_due = true;
    } else {
        self->phase = SCTP_SHUTDOWN_RECEIVED;
    }
    self->reset_at = self->mtu_at = SCTP_NEVER;
    self->reset_due = self->mtu_due = false;
    sctp_shutdown_if_drained(self, now);
}

static void receive_shutdown_ack(struct sctp *self)
{
    if (self->phase != SCTP_SHUTDOWN_SENT && self->phase != SCTP_SHUTDOWN_ACK_SENT)
        return;
    sctp_end(self, SCTP_END_ASKED);
    self->shutdown_complete_due = true;
}

/* --- answers ---------------------------------------------------------------------------------------------------- */

uint8_t *sctp_control(struct sctp *self, uint8_t type, uint8_t flags, size_t body)
{
    size_t size = SCTP_CHUNK_HEADER_BYTES + body, whole = padded(size);
    uint8_t *at = self->control + self->control_size;

    if (self->phase == SCTP_ENDED || whole > sizeof self->control - self->control_size) {
        self->counts.dropped_other++; /* whoever floods us with questions goes without some answers */
        return NULL;
    }
    self->control_size += whole;
    memset(at + size, 0, whole - size);
    return store_chunk_header(at, type, flags, size);
}

static void receive_heartbeat(struct sctp *self, const uint8_t *chunk, size_t size)
{
    uint8_t *body;

    if (self->phase < SCTP_COOKIE_ECHOED)
        return;
    body = sctp_control(self, SCTP_HEARTBEAT_ACK, 0, size - SCTP_CHUNK_HEADER_BYTES);
    if (body != NULL)
        memcpy(body, chunk + SCTP_CHUNK_HEADER_BYTES, size - SCTP_CHUNK_HEADER_BYTES);
}

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
    if (self->inflight.count == 0)
        self->error_count = 0;
}

static void receive_unknown(struct sctp *self, const uint8_t *chunk, size_t size)
{
    size_t reported = size < REPORTED_BYTES_MAX ? size : REPORTED_BYTES_MAX;
    uint8_t *cause;

    self->counts.dropped_other++;
    if ((chunk[0] & 0x40) == 0 || self->phase < SCTP_ESTABLISHED)
        return;
    cause = sctp_control(self, SCTP_ERROR, 0, 4 + reported);
    if (cause == NULL)
        return;
    store_be16(cause, SCTP_CAUSE_CHUNK_TYPE);
    store_be16(cause + 2, (uint16_t)(4 + reported));
    memcpy(cause + 4, chunk, reported);
}

static void receive_error(struct sctp *self, const uint8_t *chunk, size_t size)
{
    /* A stale cookie: begin anew, as section 5.2.6 allows; anything else is only said. */
    if (self->phase == SCTP_COOKIE_ECHOED && size >= 8 && load_be16(chunk + 4) == SCTP_CAUSE_STALE_COOKIE) {
        self->phase = SCTP_COOKIE_WAIT;
        self->cookie_echo_due = false;
        self->init_due = true;
        free(self->cookie);
        self->cookie = NULL;
    }
}

/* --- a packet's chunks ------------------------------------------------------------------------------------------ */

/* False: the rest of the packet is not to be read. */
static bool receive_chunk(struct sctp *self, const uint8_t *chunk, size_t size, uint64_t now)
{
    /* Data for us, under our tag: the peer has our cookie, and its COOKIE-ACK was lost or is late. */
    if (self->phase == SCTP_COOKIE_ECHOED && (chunk[0] == SCTP_DATA || chunk[0] == SCTP_SACK))
        opened(self, now);
    switch (chunk[0]) {
    case SCTP_DATA:
        if (sctp_carries(self))
            sctp_receive_data_untrusted(self, chunk, size, now);
        break;
    case SCTP_SACK:
        if (self->packet_had_sack)
            self->counts.dropped_other++; /* one says all there is to say, and may cost a look at the whole ring */
        else if (sctp_carries(self))
            sctp_receive_sack_untrusted(self, chunk, size, now);
        self->packet_had_sack = true;
        break;
    case SCTP_FORWARD_TSN:
        if (sctp_carries(self))
            sctp_receive_forward_untrusted(self, chunk, size, now);
        break;
    case SCTP_RECONFIG:
        if (sctp_carries(self))
            sctp_receive_reconfig_untrusted(self, chunk, size, now);
        break;
    case SCTP_INIT: /* only alone, under tag zero; looked at before */
        return false;
    case SCTP_INIT_ACK:
        receive_init_ack(self, chunk, size, now);
        break;
    case SCTP_HEARTBEAT:
        receive_heartbeat(self, chunk, size);
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
        receive_error(self, chunk, size);
        break;
    case SCTP_COOKIE_ECHO:
        receive_cookie_echo(self, chunk, size, now);
        break;
    case SCTP_COOKIE_ACK:
        if (self->phase == SCTP_COOKIE_ECHOED)
            opened(self, now);
        break;
    case SCTP_PAD:
        break;
    default:
        receive_unknown(self, chunk, size);
        return (chunk[0] & 0x80) != 0; /* high bits 0x: the rest of the packet is not to be read */
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
    /* Who says that an association it does not know is over reflects the tag it was sent (section 8.5.1). */
    bool reflected = (type == SCTP_ABORT || type == SCTP_SHUTDOWN_COMPLETE) && (flags & 1) != 0;
    if (tag != (init ? 0 : reflected ? self->tag_remote : self->tag_local) || (reflected && tag == 0)) {
        self->counts.dropped_tag++;
        return;
    }
    self->heard_at = now;
    self->packet_had_data = self->packet_had_sack = false;
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
                self->counts.dropped_malformed++; /* it must be alone */
            else
                receive_init(self, chunk, length, now);
            break;
        }
        if (!receive_chunk(self, chunk, length, now))
            break;
    }
    if (self->packet_had_data)
        self->sack_packets++;
    if (self->phase == SCTP_SHUTDOWN_PENDING || self->phase == SCTP_SHUTDOWN_RECEIVED)
        sctp_shutdown_if_drained(self, now);
    if (self->phase == SCTP_SHUTDOWN_SENT && self->packet_had_data)
        self->shutdown_due = true; /* answers data, as a SACK does otherwise (section 9.2) */
    tell_end(self);
}

void sctp_receive_done(struct sctp *self, uint64_t now)
{
    self->stream_error_told = self->request_taken = false;
    if (!self->sack_wanted)
        return;
    if (self->sack_packets >= 2)
        self->sack_now = true;
    if (!self->sack_now && self->sack_at == SCTP_NEVER)
        self->sack_at = now + SCTP_SACK_DELAY_NS;
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

/* INIT or INIT-ACK, the parameters all of ours have included. */
static uint8_t *put_init(struct sctp *self, uint8_t *at, uint8_t type, size_t parameters)
{
    at = store_chunk_header(at, type, 0, INIT_BYTES + EXTENSION_PARAMETERS_BYTES + parameters);
    store_be32(at, self->tag_local);
    store_be32(at + 4, sctp_window_advertised(self));
    store_be16(at + 8, SCTP_STREAM_COUNT_MAX);
    store_be16(at + 10, SCTP_STREAM_COUNT_MAX);
    store_be32(at + 12, self->tsn_first);
    at += 16;
    store_be16(at, PARAMETER_FORWARD_TSN);
    store_be16(at + 2, 4);
    store_be16(at + 4, PARAMETER_EXTENSIONS);
    store_be16(at + 6, 6);
    at[8] = SCTP_RECONFIG;
    at[9] = SCTP_FORWARD_TSN;
    at[10] = at[11] = 0;
    return at + EXTENSION_PARAMETERS_BYTES;
}

static size_t put_init_ack(struct sctp *self, uint8_t *packet)
{
    size_t parameters = 4 + COOKIE_BYTES + self->init_parameters_size;
    uint8_t *at = put_init(self, packet + SCTP_HEADER_BYTES, SCTP_INIT_ACK, parameters);

    store_be16(at, PARAMETER_COOKIE);
    store_be16(at + 2, 4 + COOKIE_BYTES);
    memcpy(at + 4, self->init_cookie, COOKIE_BYTES);
    memcpy(at + 4 + COOKIE_BYTES, self->init_parameters, self->init_parameters_size);
    self->init_ack_due = false;
    return packet_finish(self, packet, (size_t)(at - packet) + parameters, self->init_tag);
}

static size_t put_abort(struct sctp *self, uint8_t *packet)
{
    uint8_t *at = store_chunk_header(packet + SCTP_HEADER_BYTES, SCTP_ABORT, 0, 8);

    store_be16(at, self->abort_cause);
    store_be16(at + 2, 4);
    self->abort_due = false;
    return packet_finish(self, packet, SCTP_HEADER_BYTES + 8, self->tag_remote);
}

/* Chunks that go before data.  packet has at least SCTP_PACKET_BYTES_MIN of room, and all of them fit. */
static size_t put_control(struct sctp *self, uint8_t *packet, size_t used, size_t limit, uint64_t now)
{
    if (self->cookie_echo_due) { /* first in its packet, and alone: what is owed before it is opened can wait */
        store_chunk_header(packet + used, SCTP_COOKIE_ECHO, 0, SCTP_CHUNK_HEADER_BYTES + self->cookie_size);
        memcpy(packet + used + SCTP_CHUNK_HEADER_BYTES, self->cookie, self->cookie_size);
        size_t size = SCTP_CHUNK_HEADER_BYTES + self->cookie_size, whole = padded(size);
        memset(packet + used + size, 0, whole - size);
        self->cookie_echo_due = false;
        return used + whole;
    }
    if (self->control_size > 0 && self->control_size <= limit - used) {
        memcpy(packet + used, self->control, self->control_size);
        used += self->control_size;
        self->control_size = 0;
    }
    if (!sctp_carries(self) && self->phase != SCTP_SHUTDOWN_ACK_SENT)
        return used;
    if (self->sack_now || (self->sack_wanted && (self->pace_at <= now || self->probe_due) && sctp_data_wanted(self)))
        used += sctp_put_sack(self, packet + used, limit - used);
    if (self->forward_due)
        used += sctp_put_forward(self, packet + used, limit - used, now);
    if (self->reset_due)
        used += sctp_put_reset(self, packet + used, limit - used, now);
    if (self->heartbeat_due && limit - used >= 16) {
        uint8_t *at = store_chunk_header(packet + used, SCTP_HEARTBEAT, 0, 16);

        self->heartbeat_nonce = sctp_random(self) | 1;
        store_be16(at, PARAMETER_HEARTBEAT);
        store_be16(at + 2, 12);
        store_be32(at + 4, (uint32_t)(self->heartbeat_nonce >> 32));
        store_be32(at + 8, (uint32_t)self->heartbeat_nonce);
        self->heartbeat_due = false;
        used += 16;
    }
    if (self->shutdown_due && limit - used >= 8) {
        store_be32(store_chunk_header(packet + used, SCTP_SHUTDOWN, 0, 8), self->tsn_received);
        self->shutdown_due = false;
        used += 8;
    }
    if (self->shutdown_ack_due && limit - used >= 4) {
        store_chunk_header(packet + used, SCTP_SHUTDOWN_ACK, 0, 4);
        self->shutdown_ack_due = false;
        used += 4;
    }
    return used;
}

size_t sctp_next_packet(struct sctp *self, uint8_t *room, size_t room_size, uint64_t now)
{
    size_t limit = room_size < self->packet_bytes ? room_size : self->packet_bytes;

    if (room_size < SCTP_PACKET_BYTES_MIN)
        return 0;
    if (self->abort_due)
        return put_abort(self, room);
    if (self->shutdown_complete_due) {
        store_chunk_header(room + SCTP_HEADER_BYTES, SCTP_SHUTDOWN_COMPLETE, 0, SCTP_CHUNK_HEADER_BYTES);
        self->shutdown_complete_due = false;
        return packet_finish(self, room, SCTP_HEADER_BYTES + SCTP_CHUNK_HEADER_BYTES, self->tag_remote);
    }
    if (self->phase == SCTP_ENDED)
        return 0;
    if (self->init_ack_due)
        return put_init_ack(self, room);
    if (self->init_due) {
        uint8_t *end = put_init(self, room + SCTP_HEADER_BYTES, SCTP_INIT, 0);

        self->init_due = false;
        return packet_finish(self, room, (size_t)(end - room), 0);
    }
    size_t used = put_control(self, room, SCTP_HEADER_BYTES, limit, now);
    if (self->phase == SCTP_ENDED)
        return 0;
    used = sctp_put_data(self, room, used, room_size, now);
    if (used > SCTP_HEADER_BYTES)
        return packet_finish(self, room, used, self->tag_remote);
    if (self->forward_due) /* data that expired while we looked for some to send */
        used += sctp_put_forward(self, room + used, limit - used, now);
    else if (self->mtu_due && self->phase == SCTP_ESTABLISHED)
        used = sctp_put_mtu_probe(self, room, room_size, now);
    if (used == 0)
        return 0;
    if (used > SCTP_HEADER_BYTES)
        return packet_finish(self, room, used, self->tag_remote);
    if (!self->idle_told && sctp_carries(self) && self->unsent_first == NULL && self->lost.count == 0 &&
        self->inflight_bytes + self->packet_bytes <= rate_window_bytes(&self->rate)) {
        rate_app_limited(&self->rate, self->inflight_bytes);
        self->idle_told = true;
    }
    return 0;
}

/* --- time ------------------------------------------------------------------------------------------------------- */

static bool answer_due(const struct sctp *self)
{
    return self->init_ack_due || self->init_due || self->cookie_echo_due || self->control_size > 0 || self->sack_now ||
           self->forward_due || self->reset_due || self->heartbeat_due || self->shutdown_due ||
           self->shutdown_ack_due || (self->mtu_due && self->phase == SCTP_ESTABLISHED);
}

uint64_t sctp_next_timeout(const struct sctp *self)
{
    if (self->phase == SCTP_ENDED)
        return self->end_told && !self->abort_due && !self->shutdown_complete_due ? SCTP_NEVER : 0;
    if (answer_due(self))
        return 0;
    uint64_t at = earlier(earlier(self->t1_at, self->t2_at), earlier(self->heartbeat_at, self->mtu_at));
    if (!sctp_carries(self))
        return at;
    at = earlier(at, earlier(earlier(self->t3_at, self->probe_at), earlier(self->loss_at, self->sack_at)));
    at = earlier(at, self->reset_at);
    if (self->unsent_first != NULL)
        at = earlier(at, self->unsent_first->expires_at);
    if (sctp_data_wanted(self)) /* half a burst at a time, not a packet: waking up costs more than sending one */
        at = earlier(at, self->probe_due ? 0 : self->pace_at + (self->pace_holds ? self->burst_ns / 2 : 0));
    return at;
}

static void t1_timeout(struct sctp *self, uint64_t now)
{
    if (++self->init_count > SCTP_RETRANSMITS_INIT_MAX) {
        sctp_end(self, SCTP_END_TIMEOUT);
        return;
    }
    self->init_due = self->phase == SCTP_COOKIE_WAIT;
    self->cookie_echo_due = self->phase == SCTP_COOKIE_ECHOED;
    self->t1_at = now + earlier(SCTP_RTO_INITIAL_NS << self->init_count, SCTP_RTO_MAX_NS);
}

static void t2_timeout(struct sctp *self, uint64_t now)
{
    if (++self->shutdown_count > SCTP_RETRANSMITS_MAX_ASSOCIATION) {
        abort_with(self, SCTP_CAUSE_USER, SCTP_END_TIMEOUT);
        return;
    }
    self->shutdown_due = self->phase == SCTP_SHUTDOWN_SENT;
    self->shutdown_ack_due = self->phase == SCTP_SHUTDOWN_ACK_SENT;
    self->t2_at = now + earlier(self->rto << self->shutdown_count, SCTP_RTO_MAX_NS);
}

static void heartbeat_timeout(struct sctp *self, uint64_t now)
{
    if (now - self->heard_at >= SCTP_HEARTBEAT_NS) {
        if (self->heartbeat_nonce != 0 && ++self->error_count > SCTP_RETRANSMITS_MAX_ASSOCIATION) {
            sctp_end(self, SCTP_END_TIMEOUT);
            return;
        }
        self->heartbeat_due = true;
        self->heartbeat_at = now + (self->heartbeat_nonce != 0 ? self->rto : SCTP_HEARTBEAT_NS);
        return;
    }
    self->heartbeat_at = self->heard_at + SCTP_HEARTBEAT_NS;
}

void sctp_handle_timeout(struct sctp *self, uint64_t now)
{
    if (self->t1_at <= now)
        t1_timeout(self, now);
    if (self->t2_at <= now)
        t2_timeout(self, now);
    if (self->heartbeat_at <= now)
        heartbeat_timeout(self, now);
    if (self->mtu_at <= now)
        sctp_mtu_timeout(self, now);
    if (self->sack_at <= now) {
        self->sack_at = SCTP_NEVER;
        self->sack_now = self->sack_wanted;
    }
    if (self->reset_at <= now)
        sctp_reset_timeout(self, now);
    if (sctp_carries(self)) {
        sctp_expire(self, now);
        if (self->loss_at <= now)
            sctp_loss_timeout(self, now);
        if (self->probe_at <= now)
            sctp_probe_timeout(self, now);
        if (self->t3_at <= now)
            sctp_t3_timeout(self, now);
    }
    if (self->phase == SCTP_SHUTDOWN_PENDING || self->phase == SCTP_SHUTDOWN_RECEIVED)
        sctp_shutdown_if_drained(self, now);
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
        .unsent_bytes = self->unsent_bytes,
        .inflight_bytes = self->inflight_bytes,
        .held_bytes = self->held_bytes,
        .rtt_ns = self->srtt,
        .rtt_min_ns = rtt_min != 0 ? rtt_min : self->rtt_min,
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
