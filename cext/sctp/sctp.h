/* One SCTP association as data channels use it: RFC 9260 with partial reliability (RFC 3758), stream reset (RFC 6525)
 * and padding for path MTU probes (RFC 4820, RFC 8899), over DTLS (RFC 8261).  Sans-IO: packets and the time go in,
 * packets and events come out; it knows no socket, no DTLS, no data channel and no Python.  When to send how much is
 * decided in rate.h; what is in flight, lost, repaired or given up is decided here.
 *
 *     sctp_receive_untrusted() ─► [ association ] ─► handler: opened, message, streams_reset, closed
 *     sctp_send() ──────────────► [             ] ─► sctp_next_packet()
 *
 * Not for two threads at once.  Times are nanoseconds of one monotonic clock. */

#ifndef CONFLUX_SCTP_H
#define CONFLUX_SCTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    SCTP_MESSAGE_BYTES_MAX = 65536, /* of one message, either way */
    SCTP_PACKET_BYTES_MIN = 1200 - 48, /* of SCTP in one datagram; fits every path with 48 bytes of DTLS and to spare */
    SCTP_PACKET_BYTES_MAX = 9216, /* jumbo frames */
    SCTP_STREAM_COUNT_MAX = 4096, /* each way; a stream costs memory only once it carried something */
    SCTP_START_BYTES = 8, /* of what sctp_start() takes */
    SCTP_START_WINDOW_BYTES = 128 << 10, /* the least window_bytes of an end that begins with sctp_start() */
};

/* Why an association is over; sctp_end_name() has the words. */
enum sctp_end {
    SCTP_END_NONE, /* it is not over */
    SCTP_END_ASKED, /* sctp_close() */
    SCTP_END_SHUTDOWN, /* the peer closed it */
    SCTP_END_ABORTED, /* the peer aborted it */
    SCTP_END_TIMEOUT, /* too many retransmissions in a row, or of INIT */
    SCTP_END_MALFORMED, /* the peer broke a rule, and the association cannot go on */
    SCTP_END_MEMORY,
};

struct sctp_config {
    uint16_t port_local, port_remote;
    uint32_t packet_bytes_max; /* the largest SCTP packet worth a probe: the interface's MTU less IP, UDP and DTLS */
    uint32_t window_bytes; /* what we hold for the peer at most: the window we advertise */
    uint32_t send_bytes_max; /* messages accepted and not yet acknowledged; above it sctp_send() says no */
    uint8_t entropy[48]; /* secret and never used before: tag, first TSN, cookie key */
};

/* One message's memory.  Its holder frees it, or passes it to sctp_send(). */
struct sctp_message {
    uint8_t *data;
    uint32_t size;
    uint32_t room; /* size may grow to this */
};

enum sctp_reliability { SCTP_RELIABLE, SCTP_RETRANSMITS_MAX, SCTP_LIFETIME_MS_MAX };

struct sctp_sending {
    uint16_t stream;
    bool unordered;
    uint32_t ppid; /* host order */
    enum sctp_reliability reliability;
    uint32_t reliability_value; /* count or milliseconds */
};

/* A whole message that came.  The callee may write in it, and may keep it by setting message to NULL: a relay passes on
 * the memory that came. */
struct sctp_arrival {
    uint16_t stream;
    bool unordered;
    uint32_t ppid;
    struct sctp_message *message;
};

/* Called from within sctp_receive_untrusted() and sctp_handle_timeout().  A callee may call sctp_send(),
 * sctp_reset_streams() and sctp_close(), never sctp_delete(). */
struct sctp_handler {
    void (*opened)(void *context);
    void (*message)(void *context, struct sctp_arrival *arrival);
    /* incoming: the peer reset its outgoing streams (count 0: all of them); else ours were reset, as asked; accepted:
     * false if the peer refused */
    void (*streams_reset)(void *context, bool incoming, bool accepted, const uint16_t *streams, size_t count);
    void (*closed)(void *context, enum sctp_end why);
};

/* Counters for status and benchmarks; all since the beginning. */
struct sctp_counts {
    uint64_t packets_sent, packets_received, bytes_sent, bytes_received; /* SCTP packets */
    uint64_t messages_sent, messages_received, messages_abandoned;
    uint64_t chunks_retransmitted, chunks_lost, probes_tail, timeouts;
    uint64_t dropped_malformed, dropped_tag, dropped_checksum, dropped_window, dropped_duplicate, dropped_other;
};

struct sctp_state {
    bool open;
    bool searching; /* the path's rate is not found yet */
    uint32_t packet_bytes; /* of one packet: the path's MTU as found */
    uint64_t unsent_bytes; /* accepted, not sent once */
    uint64_t inflight_bytes;
    uint64_t held_bytes; /* of received messages that are not whole or not in order yet */
    uint64_t rtt_ns, rtt_min_ns; /* smoothed; 0 before the first measurement */
    uint64_t rate_bytes_s; /* the pacing rate: it sends no faster */
    uint64_t window_bytes; /* what may be in flight: rate.h's window */
    uint64_t peer_window_bytes;
};

struct sctp; /* one association */

/* NULL: no memory.  handler and context must outlive it. */
struct sctp *sctp_new(const struct sctp_config *config, const struct sctp_handler *handler, void *context);
void sctp_delete(struct sctp *self);

/* Begin.  Both ends of a data-channel link call this; the collision is resolved as in RFC 9260, section 5.2. */
void sctp_connect(struct sctp *self, uint64_t now);

/* Begin open: both ends call this instead of sctp_connect(), if each knows the other's start by a way that it trusts.
 * ours: the first bytes of the entropy, a tag and a first TSN; all else that an INIT would say is the same for every
 * association of this program.  It saves two round trips. */
void sctp_start(struct sctp *self, const uint8_t remote[SCTP_START_BYTES], uint64_t now);

/* Take one packet, with its checksum.  Anything may be in it. */
void sctp_receive_untrusted(struct sctp *self, uint8_t *packet, size_t size, uint64_t now);

/* End a batch of received packets: one acknowledgement answers all of it. */
void sctp_receive_done(struct sctp *self, uint64_t now);

/* Write the next packet that may go now to room, and return its size; 0: none may go now.  Call it until 0, or until
 * the caller has enough.  The packets of one burst have sctp_state.packet_bytes, but for a few shorter ones.  A
 * larger packet is a probe of the path (its first chunk is a HEARTBEAT: packet[12] is 4), or holds a chunk cut when
 * the path carried more: IP may fragment that one. */
size_t sctp_next_packet(struct sctp *self, uint8_t *room, size_t room_size, uint64_t now);

/* When to call sctp_handle_timeout(), or when sctp_next_packet() has a packet (pacing); UINT64_MAX: never. */
uint64_t sctp_next_timeout(const struct sctp *self);
void sctp_handle_timeout(struct sctp *self, uint64_t now);

/* How many more bytes of messages to hand over now: what goes within about one millisecond, less what waits.  A caller
 * that keeps to it does its queueing where queues are managed.  0 while not open. */
size_t sctp_room(const struct sctp *self, uint64_t now);

/* Room for a message, its size set; NULL: above SCTP_MESSAGE_BYTES_MAX, or no memory. */
struct sctp_message *sctp_message_new(size_t size);
void sctp_message_delete(struct sctp_message *message); /* NULL is fine */
/* Takes the message in any case.  False: not open; the message is empty; the stream is being reset, or above what the
 * peer receives; or more than send_bytes_max would wait. */
bool sctp_send(struct sctp *self, struct sctp_message *message, const struct sctp_sending *how, uint64_t now);

/* Reset our direction of streams, once what was sent on them has gone; streams_reset() tells when.  False: not open,
 * or a stream that the peer does not receive. */
bool sctp_reset_streams(struct sctp *self, const uint16_t *streams, size_t count, uint64_t now);

/* Close it; abort: at once, with one ABORT packet from sctp_next_packet().  closed(SCTP_END_ASKED) is called. */
void sctp_close(struct sctp *self, bool abort, uint64_t now);

struct sctp_state sctp_state(const struct sctp *self);
const struct sctp_counts *sctp_counts(const struct sctp *self);
const char *sctp_end_name(enum sctp_end why);

#endif
