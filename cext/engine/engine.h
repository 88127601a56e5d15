/* The engine moves packets without Python.  One thread, one epoll; other threads write its tables under its lock, and
 * its upcalls come back through one eventfd.
 *
 *     TUN ─► egress queue ─► frame (one AEAD) ─► SCTP ─► DTLS ─► UDP
 *     UDP ─► DTLS ─► SCTP ─┬► frame ─► packets ─► TUN
 *                          ├► relay ─► SCTP of the next link
 *                          └► upcalls: feedback, control messages, STUN
 *
 * It does what its tables say.  Who may send what to whom, when a stream ends, when a key turns and where a route goes
 * is the node's to decide.  Streams and destinations have handles, which the engine gives out.
 *
 * Every function may be called from any thread, and takes the lock.  Its changes are in force when it returns. Times
 * are nanoseconds of CLOCK_MONOTONIC. */

#ifndef CONFLUX_ENGINE_H
#define CONFLUX_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "anchor/aead.h"
#include "dtls/dtls.h"
#include "relay/relay.h"
#include "sctp/sctp.h"
#include "stun/stun.h"

enum {
    ENGINE_CHANNEL_COUNT_MAX = RELAY_CHANNEL_COUNT_MAX, /* per tether: its arrays have this size */
    ENGINE_TETHER_COUNT_MAX = 256, /* per link */
    ENGINE_LINK_COUNT_MAX = 1024,
    ENGINE_ENTRY_COUNT_MAX = 16, /* that wait for a stream's next frame */
    ENGINE_NETWORK_COUNT_MAX = 64, /* of one table's entry */
    ENGINE_TAP_COUNT_MAX = 64, /* pings that run at the same time */
    ENGINE_ADDRESS_BYTES = 28, /* the larger of struct sockaddr_in and sockaddr_in6 */
};

struct engine_config {
    int tun; /* descriptor, non-blocking, opened with offload headers; -1: none */
    bool segments_udp; /* the device takes UDP super-packets */
    size_t queue_bytes_max, queue_packets_max; /* per destination */
    size_t queues_bytes_max; /* of all destinations */
    uint64_t hold_age_ns_max; /* of packets that have nowhere to go */
    size_t upcall_count_max; /* of each kind that a peer can cause: a flood of one kind keeps out no other */
    struct relay_limits relay;
    uint8_t seed[8];
};

/* Every drop has a reason; engine_drop_name() has the words, which the reference datapath shares where it drops the
 * same. */
enum engine_drop {
    DROP_PACKET_SHORT, DROP_PACKET_VERSION, DROP_PACKET_LENGTH, DROP_PACKET_OFFLOAD, DROP_PACKET_TOO_BIG,
    DROP_BAD_SOURCE, DROP_NO_DESTINATION, DROP_QUEUE_FULL, DROP_AGED, DROP_CODEL, DROP_CLEARED,
    DROP_TRUNCATED, DROP_OVERSIZED, DROP_VERSION, DROP_RESERVED, DROP_UNKNOWN_LABEL, DROP_UNKNOWN_EPOCH, DROP_REPLAY,
    DROP_AUTH, DROP_MALFORMED, DROP_UNKNOWN_KIND, DROP_MISPLACED_ENTRY, DROP_UPCALL_FULL, DROP_ENTRY_FULL,
    DROP_ENTRY_RATE, DROP_FEEDBACK_RATE,
    DROP_RELAY_FULL, DROP_RELAY_RATE, DROP_RELAY_AGED, DROP_RELAY_GONE,
    DROP_SPOOFED, DROP_NOT_OURS, DROP_POLICY, DROP_POLICY_UNFIT, DROP_POLICY_PIECE, DROP_POLICY_SENT, DROP_NO_TETHER, DROP_CARRIER_FULL, DROP_TEXT_MESSAGE,
    DROP_TUN_READ, DROP_TUN_FULL, DROP_TUN_DOWN, DROP_TUN_REFUSED,
    DROP_SOCKET_SEND, DROP_SOCKET_RECEIVE, DROP_NOT_DTLS_NOR_STUN, DROP_STUN_MALFORMED,
    DROP_STUN_AUTH, DROP_STUN_RATE, DROP_STUN_REPEATED,
    DROP_DTLS_MALFORMED, DROP_DTLS_REPLAY, DROP_DTLS_AUTH,
    DROP_DTLS_LATE, /* a handshake's record after the handshake, or one of too many */
    DROP_SCTP_MALFORMED, DROP_SCTP_TAG, DROP_SCTP_CHECKSUM, DROP_SCTP_WINDOW, DROP_SCTP_OTHER, /* of all links */
    DROP_MEMORY,
    DROP_COUNT,
};
const char *engine_drop_name(enum engine_drop why);

enum upcall_kind {
    UP_PACKET = 1, /* data: offload header and packet, for an address without an egress; came_at */
    UP_ECHO, /* data: offload header and packet, an echo reply that engine_tap() asked for */
    UP_REFUSED, /* data: offload header and packet of this host, which no rule allows; not of all */
    UP_DEVICE_LOST, /* a: errno */
    UP_SENT, /* handle: a sender sealed a frame, and its notice was armed */
    UP_ARRIVED, /* handle: a receiver opened a frame, and its notice was armed */
    UP_ENTRY, /* handle, a: kind, b: epoch, data: body */
    UP_FEEDBACK, /* link, data: a frame with the feedback flag, under a label that no relay has */
    UP_WIRE_OPENED, /* link */
    UP_WIRE_CLOSED, /* link, data: the reason */
    UP_WIRE_MESSAGE, /* link, a: stream, b: PPID, data */
    UP_WIRE_RESET, /* link, a: incoming, b: accepted, data: streams, two bytes each, in host order */
    UP_WIRE_DATAGRAM, /* link, data, address */
    UP_WIRE_ERROR, /* link, address */
    UP_KIND_COUNT,
};

struct upcall {
    struct upcall *next;
    enum upcall_kind kind;
    uint32_t link, handle;
    uint32_t a, b;
    uint64_t came_at;
    uint8_t address[ENGINE_ADDRESS_BYTES]; /* struct sockaddr_in or sockaddr_in6 */
    uint32_t address_bytes; /* 0: none */
    uint32_t size;
    uint8_t data[];
};

struct engine;

struct engine *engine_new(const struct engine_config *config); /* NULL, errno: what failed */
void engine_delete(struct engine *self); /* stops the thread; keys are wiped */
int engine_upcall_fd(const struct engine *self); /* readable while upcalls wait */
struct upcall *engine_take_upcalls(struct engine *self); /* all of them, oldest first; the caller frees each */

/* ── addresses ── */

struct engine_network {
    uint8_t address[16], mask[16]; /* the first bytes of them */
    uint8_t address_bytes;
};
bool engine_configure(struct engine *self, const struct engine_network *own, size_t own_count,
                      const struct engine_network *realm, size_t realm_count);
/* Judge every packet by a pair of tables from now on (policy/guard.h).  False: they are none, or there is no memory;
 * nothing has then changed.  engine_clear_policy(): all pass again. */
bool engine_set_policy(struct engine *self, const uint8_t *in, size_t in_size, const uint8_t *out, size_t out_size,
                       uint64_t seed);
void engine_clear_policy(struct engine *self);
/* Echo replies with one of these identifiers make UP_ECHO.  All others, and all when there are none, go to the device.
 * False: too many. */
bool engine_tap(struct engine *self, const uint16_t *identifiers, size_t count);
void engine_deliver(struct engine *self, const uint8_t *data, size_t size); /* UP_ECHO's data, to the device after all */

/* ── egress ── */

uint32_t engine_add_egress(struct engine *self); /* a handle; 0: no memory */
bool engine_set_addresses(struct engine *self, uint32_t egress, const struct engine_network *addresses, size_t count);
void engine_remove_egress(struct engine *self, uint32_t egress); /* its packets are dropped, and counted as cleared */
/* Take one packet with its offload header, as the device would give it; also one that waited for its destination. */
void engine_packet(struct engine *self, const uint8_t *data, size_t size, uint64_t queued_at);
struct engine_egress {
    uint64_t bytes, packets, marked, active_at;
};
bool engine_egress(struct engine *self, uint32_t egress, struct engine_egress *out);

/* ── sender ── */

struct engine_key {
    uint8_t epoch;
    int aead;
    uint8_t key[AEAD_KEY_BYTES], nonce_prefix[AEAD_NONCE_PREFIX_BYTES];
};
uint32_t engine_add_sender(struct engine *self, uint32_t egress, const struct engine_key *key, bool offloads);
bool engine_rekey_sender(struct engine *self, uint32_t sender, const struct engine_key *key);
/* hop NULL: hold the packets back. */
bool engine_set_route(struct engine *self, uint32_t sender, const struct relay_hop *hop);
/* Send nothing more; the key stays for engine_seal_last(). */
void engine_detach_sender(struct engine *self, uint32_t sender);
void engine_remove_sender(struct engine *self, uint32_t sender);
bool engine_queue_entry(struct engine *self, uint32_t sender, uint8_t kind, const uint8_t *body, size_t size);
/* Write the stream's last frame, of HEADER_BYTES + ENTRY_HEADER_BYTES + TAG_BYTES.  Returns its size, or 0. */
size_t engine_seal_last(struct engine *self, uint32_t sender, uint8_t *room);

struct engine_sender {
    uint8_t epoch;
    uint64_t counter; /* of the next frame */
    uint64_t route_first; /* first counter on the present route */
    uint64_t bytes_sealed; /* of bundles, under this key */
    uint64_t frames, packets, bytes; /* ever */
    uint64_t silent_since; /* when the first frame after engine_sender_reported() went; 0: none did */
};
bool engine_sender(struct engine *self, uint32_t sender, struct engine_sender *out);
/* A report names this counter.  Returns when that counter of the present epoch was sent; 0: too long ago, or never.
 * Silence begins again: now, if later frames are out; else with the next frame, which makes UP_SENT. */
uint64_t engine_sender_reported(struct engine *self, uint32_t sender, uint64_t counter, uint64_t now);
void engine_notify_sent(struct engine *self, uint32_t sender); /* UP_SENT with the next frame */

/* ── receiver ── */

uint32_t engine_add_receiver(struct engine *self, const struct engine_network *sources, size_t count,
                             const struct engine_key *key, bool offloads);
bool engine_rekey_receiver(struct engine *self, uint32_t receiver, const struct engine_key *key);
void engine_forget_epoch(struct engine *self, uint32_t receiver); /* the one before the present */
bool engine_add_label(struct engine *self, uint32_t receiver, uint32_t link, uint32_t label);
void engine_remove_label(struct engine *self, uint32_t link, uint32_t label);
bool engine_holds_label(struct engine *self, uint32_t link, uint32_t label);
/* Whether the frame is a genuine END that was not seen before. */
bool engine_verify_last(struct engine *self, uint32_t receiver, const uint8_t *frame, size_t size);
void engine_remove_receiver(struct engine *self, uint32_t receiver);

struct engine_receiver {
    uint8_t epoch;
    uint64_t next; /* the epoch's highest counter + 1; 0: none */
    uint64_t received, marked, bytes, highest_at; /* of the epoch */
    uint64_t frames, packets, frame_bytes, active_at; /* ever */
    uint32_t link, label; /* with which the newest frame came; label 0: none did */
};
/* notify: UP_ARRIVED with the next frame. */
bool engine_receiver(struct engine *self, uint32_t receiver, bool notify, struct engine_receiver *out);

/* ── relays ── */

const char *engine_add_relay(struct engine *self, const struct relay_hop *before, const struct relay_hop *ahead);
void engine_remove_relay(struct engine *self, uint32_t link, uint32_t label_in);
bool engine_relay_holds(struct engine *self, uint32_t link, uint32_t label, bool feedback);
bool engine_relay(struct engine *self, size_t index, struct relay_status *out);

/* ── links ── */

struct engine_link_config {
    uint32_t link;
    int fd; /* the caller closes it, after engine_remove_link() */
    uint8_t address[ENGINE_ADDRESS_BYTES];
    uint32_t address_bytes; /* 0: the socket is connected */
    const struct dtls_keys *keys;
    const struct stun_password *stun_ours, *stun_peers;
    uint16_t port_local, port_remote;
    uint32_t datagram_bytes_max;
    uint8_t entropy[48]; /* it begins with our start, if there is a start */
    bool started; /* both ends know the other's start: SCTP needs no opening */
    uint8_t start[8]; /* the peer's */
};
const char *engine_add_link(struct engine *self, const struct engine_link_config *config); /* NULL, or why not */
void engine_close_link(struct engine *self, uint32_t link);
void engine_remove_link(struct engine *self, uint32_t link);
bool engine_send(struct engine *self, uint32_t link, uint16_t stream, uint32_t ppid, const uint8_t *data, size_t size);
bool engine_send_frame(struct engine *self, const struct relay_hop *hop, unsigned channel, const uint8_t *frame,
                       size_t size);
/* Take a frame that came up as UP_WIRE_MESSAGE, because it came before its stream was mapped.  False: it still is not. */
bool engine_receive_frame(struct engine *self, uint32_t link, uint16_t stream, const uint8_t *frame, size_t size);
bool engine_reset_streams(struct engine *self, uint32_t link, const uint16_t *streams, size_t count);
enum engine_channel {
    ENGINE_CHANNEL_UP, /* both ends know it */
    ENGINE_CHANNEL_ASKED, /* we open it: frames follow the OPEN, in order until the peer has acknowledged it */
    ENGINE_CHANNEL_OFFERED, /* the peer opened it: its first frames may come before their label is known */
};
bool engine_map(struct engine *self, uint32_t link, uint16_t stream, uint64_t tether, unsigned index,
                uint32_t lifetime_ms, enum engine_channel how);
void engine_unmap(struct engine *self, uint32_t link, uint64_t tether);
struct engine_link {
    struct sctp_state state;
    struct sctp_counts counts;
    uint32_t window_bytes_held_max; /* how much we hold for the peer at most */
    struct engine_moved {
        uint64_t udp_bytes_sent, udp_sent; /* payload, and datagrams */
        uint64_t udp_bytes_received, udp_received;
        uint64_t stun_bytes_received, stun_received; /* of these */
    } moved;
};
bool engine_link(struct engine *self, uint32_t link, struct engine_link *out);

void engine_drops(struct engine *self, uint64_t out[DROP_COUNT]);
struct engine_counts {
    uint64_t tun_read, tun_written, wakeups;
};
struct engine_counts engine_counts(struct engine *self);

#endif
