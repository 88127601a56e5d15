/* How an association opens: INIT, INIT-ACK, COOKIE-ECHO, COOKIE-ACK (RFC 9260, section 5).  Nothing is kept for a peer
 * that has not returned our cookie. */

#include <stdlib.h>
#include <string.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "sctp/state.h"

enum {
    INIT_BYTES = 20, /* the fixed part, chunk header included */
    PARAMETER_COOKIE = 7,
    PARAMETER_UNRECOGNIZED = 8,
    PARAMETER_EXTENSIONS = 0x8008,
    PARAMETER_FORWARD_TSN = 0xc000,
    EXTENSION_PARAMETERS_BYTES = 4 + 8, /* FORWARD-TSN supported; extensions: two and two bytes of padding */

    MAC_BYTES = 32,
    COOKIE_BYTES = 64, /* ours: MAC, time, both tags, and what the peer's INIT said */
    KEY_BYTES = 32, /* the end of the configuration's entropy */
};
_Static_assert(sizeof((struct sctp *)0)->opening.init_cookie == COOKIE_BYTES, "the cookie's place");

void sctp_connect(struct sctp *self, uint64_t now)
{
    if (self->phase != SCTP_CLOSED)
        return;
    self->phase = SCTP_COOKIE_WAIT;
    self->due.init = true;
    self->timers.t1_at = now + SCTP_RTO_INITIAL_NS;
}

void sctp_opening_done(struct sctp *self, uint64_t now)
{
    self->phase = SCTP_ESTABLISHED;
    self->timers.t1_at = NEVER;
    self->due.init = self->due.cookie_echo = false;
    self->opening.init_count = 0;
    free(self->opening.cookie);
    self->opening.cookie = NULL;
    self->heard_at = now;
    self->timers.heartbeat_at = now + SCTP_HEARTBEAT_NS;
    if (!sctp_send_start(self, now)) {
        sctp_end(self, SCTP_END_MEMORY);
        return;
    }
    self->mtu.filled = 0;
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
    self->in.tsn_received = peer->tsn - 1;
    self->request.sequence = peer->tsn - 1;
    self->request.result = 5; /* RFC 6525: bad sequence number, as there was no request */
    self->streams_out = peer->streams_in < SCTP_STREAM_COUNT_MAX ? peer->streams_in : SCTP_STREAM_COUNT_MAX;
    self->streams_in = peer->streams_out < SCTP_STREAM_COUNT_MAX ? peer->streams_out : SCTP_STREAM_COUNT_MAX;
    self->forward_supported = peer->forward;
    self->reset_supported = peer->reset;
}

static uint32_t start_tag(const uint8_t *start)
{
    uint32_t tag = load_be32(start);

    return tag != 0 ? tag : 1; /* as sctp_new() has it */
}

void sctp_start(struct sctp *self, const uint8_t remote[SCTP_START_BYTES], uint64_t now)
{
    struct peer peer = {
        .tag = start_tag(remote),
        .window = SCTP_START_WINDOW_BYTES,
        .tsn = load_be32(remote + 4),
        .streams_out = SCTP_STREAM_COUNT_MAX,
        .streams_in = SCTP_STREAM_COUNT_MAX,
        .forward = true,
        .reset = true,
    };

    if (self->phase != SCTP_CLOSED)
        return;
    adopt(self, &peer);
    sctp_opening_done(self, now);
}

/* Read INIT or INIT-ACK.  cookie: set to the cookie in the chunk, or NULL.  unknown: filled with "unrecognized"
 * parameters, for those unknown ones that the sender wants reported.  False: not well-formed. */
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

void sctp_opening_receive_init_untrusted(struct sctp *self, const uint8_t *chunk, size_t size, uint64_t now)
{
    const uint8_t *cookie;
    size_t cookie_size;
    struct peer peer;
    uint8_t *at = self->opening.init_cookie + MAC_BYTES;

    if (!init_read_untrusted(chunk, size, &peer, &cookie, &cookie_size, self->opening.init_parameters,
                             sizeof self->opening.init_parameters, &self->opening.init_parameters_size)) {
        self->counts.dropped_malformed++;
        return;
    }
    if (self->phase == SCTP_ENDED || self->phase == SCTP_SHUTDOWN_ACK_SENT)
        return;
    /* Nothing is kept but the answer: the cookie brings everything back.  The tag is that of our own INIT, as RFC 9260,
     * section 5.2.1, wants when two INITs collide. */
    store_be32(at, (uint32_t)(now >> 32));
    store_be32(at + 4, (uint32_t)now);
    store_be32(at + 8, peer.tag);
    store_be32(at + 12, peer.window);
    store_be32(at + 16, peer.tsn);
    store_be16(at + 20, peer.streams_out);
    store_be16(at + 22, peer.streams_in);
    store_be32(at + 24, self->tag_local);
    store_be32(at + 28, (uint32_t)peer.forward << 1 | (uint32_t)peer.reset);
    self->due.init_ack = cookie_mac(self, self->opening.init_cookie, self->opening.init_cookie);
    self->opening.init_tag = peer.tag;
}

void sctp_opening_receive_init_ack_untrusted(struct sctp *self, const uint8_t *chunk, size_t size, uint64_t now)
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
    self->opening.cookie = malloc(cookie_size);
    if (self->opening.cookie == NULL) {
        sctp_end(self, SCTP_END_MEMORY);
        return;
    }
    memcpy(self->opening.cookie, cookie, cookie_size);
    self->opening.cookie_size = cookie_size;
    adopt(self, &peer);
    self->phase = SCTP_COOKIE_ECHOED;
    self->due.init = false;
    self->due.cookie_echo = true;
    self->opening.init_count = 0;
    self->timers.t1_at = now + SCTP_RTO_INITIAL_NS;
}

void sctp_opening_receive_cookie_untrusted(struct sctp *self, const uint8_t *chunk, size_t size, uint64_t now)
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
        uint8_t *cause = sctp_answers_add(self, SCTP_ERROR, 0, 8);

        if (cause != NULL) {
            uint64_t late_us = (now - made_at - SCTP_COOKIE_LIFE_NS) / 1000;

            store_be16(cause, SCTP_CAUSE_STALE_COOKIE);
            store_be16(cause + 2, 8);
            store_be32(cause + 4, late_us > UINT32_MAX ? UINT32_MAX : (uint32_t)late_us);
        }
        return;
    }
    if (self->phase >= SCTP_ESTABLISHED && !same) {
        /* The peer has begun again and does not know what is in flight: this association is over.  A new one needs a
         * new DTLS session anyway. */
        sctp_end_abort(self, SCTP_CAUSE_USER, SCTP_END_ABORTED);
        return;
    }
    if (self->phase >= SCTP_SHUTDOWN_ACK_SENT)
        return;
    sctp_answers_add(self, SCTP_COOKIE_ACK, 0, 0);
    if (self->phase < SCTP_ESTABLISHED) {
        adopt(self, &peer);
        sctp_opening_done(self, now);
    }
}

void sctp_opening_receive_error_untrusted(struct sctp *self, const uint8_t *chunk, size_t size)
{
    /* A stale cookie: begin again, as RFC 9260, section 5.2.6, allows.  Other errors need no action. */
    if (self->phase == SCTP_COOKIE_ECHOED && size >= 8 && load_be16(chunk + 4) == SCTP_CAUSE_STALE_COOKIE) {
        self->phase = SCTP_COOKIE_WAIT;
        self->due.cookie_echo = false;
        self->due.init = true;
        free(self->opening.cookie);
        self->opening.cookie = NULL;
    }
}

/* Put INIT or INIT-ACK, with the parameters that both have.  Returns where further parameters go. */
static uint8_t *put_init(struct sctp *self, uint8_t *at, uint8_t type, size_t parameters)
{
    at = store_chunk_header(at, type, 0, INIT_BYTES + EXTENSION_PARAMETERS_BYTES + parameters);
    store_be32(at, self->tag_local);
    store_be32(at + 4, sctp_receive_window(self));
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

uint8_t *sctp_opening_put_init(struct sctp *self, uint8_t *at)
{
    self->due.init = false;
    return put_init(self, at, SCTP_INIT, 0);
}

uint8_t *sctp_opening_put_init_ack(struct sctp *self, uint8_t *at)
{
    size_t parameters = 4 + COOKIE_BYTES + self->opening.init_parameters_size;

    at = put_init(self, at, SCTP_INIT_ACK, parameters);
    store_be16(at, PARAMETER_COOKIE);
    store_be16(at + 2, 4 + COOKIE_BYTES);
    memcpy(at + 4, self->opening.init_cookie, COOKIE_BYTES);
    memcpy(at + 4 + COOKIE_BYTES, self->opening.init_parameters, self->opening.init_parameters_size);
    self->due.init_ack = false;
    return at + parameters;
}

void sctp_opening_timeout(struct sctp *self, uint64_t now)
{
    if (++self->opening.init_count > SCTP_RETRANSMITS_INIT_MAX) {
        sctp_end(self, SCTP_END_TIMEOUT);
        return;
    }
    self->due.init = self->phase == SCTP_COOKIE_WAIT;
    self->due.cookie_echo = self->phase == SCTP_COOKIE_ECHOED;
    self->timers.t1_at = now + earlier(SCTP_RTO_INITIAL_NS << self->opening.init_count, SCTP_RTO_MAX_NS);
}
