/* The engine: what moves packets without Python.  One thread, one epoll; tables are written under its lock from outside,
 * upcalls come back through one eventfd.
 *
 *     TUN ─► egress queue ─► frame (one AEAD) ─► SCTP ─► DTLS ─► UDP
 *     UDP ─► DTLS ─► SCTP ─┬► frame ─► packets ─► TUN
 *                          ├► relay ─► SCTP of the next link
 *                          └► upcalls: feedback, control messages, STUN
 *
 * It decides nothing that is not in its tables: who may send what to whom, when a stream ends, when a key turns and where
 * a route goes is the node's.  Streams and destinations are named by handles that the engine gives out.
 *
 * Every function may be called from any thread and takes the lock; what it changes is in force when it returns.
 * Times are nanoseconds of CLOCK_MONOTONIC. */

#ifndef CONFLUX_ENGINE_H
#define CONFLUX_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "aead.h"
#include "dtls.h"
#include "relay.h"
#include "sctp.h"

enum {
    ENGINE_CHANNEL_COUNT_MAX = 8, /* per tether */
    ENGINE_TETHER_COUNT_MAX = 256, /* per link */
    ENGINE_LINK_COUNT_MAX = 1024,
    ENGINE_ENTRY_COUNT_MAX = 16, /* that wait for a stream's next frame */
};

struct engine_config {
    int tun; /* descriptor, non-blocking, opened with offload headers; -1: none */
    bool segments_udp; /* the device takes UDP super-packets */
    size_t queue_bytes_max, queue_packets_max; /* per destination */
    size_t queues_bytes_max; /* of all destinations */
    uint64_t hold_age_max; /* of packets that have nowhere to go */
    size_t upcall_count_max; /* of each kind that somebody else can cause: a flood of one keeps out no other */
    struct relay_limits relay;
    uint8_t seed[8];
};

/* Every drop has a reason; engine_drop_name() has the words, which are those of the reference datapath where it has the
 * same. */
enum engine_drop {
    DROP_PACKET_SHORT, DROP_PACKET_VERSION, DROP_PACKET_LENGTH, DROP_PACKET_OFFLOAD, DROP_PACKET_TOO_BIG,
    DROP_BAD_SOURCE, DROP_NO_DESTINATION, DROP_QUEUE_FULL, DROP_AGED, DROP_CODEL, DROP_CLEARED,
    DROP_TRUNCATED, DROP_OVERSIZED, DROP_VERSION, DROP_RESERVED, DROP_UNKNOWN_LABEL, DROP_UNKNOWN_EPOCH, DROP_REPLAY,
    DROP_AUTH, DROP_MALFORMED, DROP_UNKNOWN_KIND, DROP_MISPLACED_ENTRY, DROP_UPCALL_FULL, DROP_ENTRY_FULL,
    DROP_RELAY_FULL, DROP_RELAY_RATE, DROP_RELAY_AGED, DROP_RELAY_GONE,
    DROP_SPOOFED, DROP_NOT_OURS, DROP_NO_TETHER, DROP_CARRIER_FULL, DROP_TEXT_MESSAGE,
    DROP_TUN_READ, DROP_TUN_FULL, DROP_TUN_DOWN, DROP_TUN_REFUSED,
    DROP_SOCKET_SEND, DROP_SOCKET_RECEIVE, DROP_NOT_DTLS_NOR_STUN, DROP_STUN_MALFORMED,
    DROP_DTLS_MALFORMED, DROP_DTLS_REPLAY, DROP_DTLS_AUTH,
    DROP_DTLS_LATE, /* a handshake's record after the handshake, or one of too many */
    DROP_SCTP_MALFORMED, DROP_SCTP_TAG, DROP_SCTP_CHECKSUM, DROP_SCTP_WINDOW, DROP_SCTP_OTHER, /* of all links */
    DROP_MEMORY,
    DROP_COUNT,
};
const char *engine_drop_name(enum engine_drop why);

enum upcall_kind {
    UP_PACKET = 1, /* data: offload header and packet, for an address that no egress serves; a, b: the time, high and low */
    UP_ECHO, /* data: an ICMPv6 echo reply that engine_tap() asked for */
    UP_DEVICE_LOST, /* a: errno */
    UP_SENT, /* handle: a sender whose notice was armed sealed a frame */
    UP_ARRIVED, /* handle: a receiver whose notice was armed opened a frame */
    UP_ENTRY, /* handle, a: kind, b: epoch, data: body */
    UP_FEEDBACK, /* link, data: a frame with the feedback flag under a label that is no relay's */
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
    uint8_t address[28]; /* struct sockaddr_in or sockaddr_in6 */
    uint32_t address_bytes; /* 0: none */
    uint32_t size;
    uint8_t data[];
};

struct engine;

struct engine *engine_new(const struct engine_config *config); /* NULL, errno: what failed */
void engine_delete(struct engine *self); /* stops the thread; keys are wiped */
int engine_upcall_fd(const struct engine *self); /* readable while upcalls wait */
struct upcall *engine_take_upcalls(struct engine *self); /* all that wait, oldest first; the caller frees each */

/* ── addresses ── */

struct engine_network {
    uint8_t address[16], mask[16]; /* the first bytes of them */
    uint8_t address_bytes;
};
bool engine_configure(struct engine *self, const struct engine_network *own, size_t own_count,
                      const struct engine_network *realm, size_t realm_count);
void engine_tap(struct engine *self, bool on); /* echo replies come up instead of going to the device */

/* ── egress ── */

uint32_t engine_add_egress(struct engine *self); /* a handle; 0: no memory */
bool engine_set_addresses(struct engine *self, uint32_t egress, const struct engine_network *addresses, size_t count);
void engine_remove_egress(struct engine *self, uint32_t egress); /* what is in it is dropped and counted as cleared */
/* One packet with its offload header, as the device would give it; also what waited for its destination. */
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
/* NULL: hold the packets back.  */
bool engine_set_route(struct engine *self, uint32_t sender, const struct relay_hop *hop);
/* Sends nothing more; the key stays for engine_seal_last(). */
void engine_detach_sender(struct engine *self, uint32_t sender);
void engine_remove_sender(struct engine *self, uint32_t sender);
bool engine_queue_entry(struct engine *self, uint32_t sender, uint8_t kind, const uint8_t *body, size_t size);
/* The stream's last frame, HEADER_BYTES + ENTRY_HEADER_BYTES + TAG_BYTES of it; its size, or 0. */
size_t engine_seal_last(struct engine *self, uint32_t sender, uint8_t *room);

struct engine_sender {
    uint8_t epoch;
    uint64_t counter; /* of the next frame */
    uint64_t route_first; /* first counter on the present route */
    uint64_t bytes_sealed; /* of bundles, under this key */
    uint64_t frames, packets, bytes; /* ever */
    uint64_t silent_since; /* when the first frame went since engine_sender_reported(); 0: none did */
    uint64_t used_at; /* when the epoch's first frame went; 0: none did */
};
bool engine_sender(struct engine *self, uint32_t sender, struct engine_sender *out);
/* When a counter of the present epoch was sent; 0: too long ago, or never.  Then silence begins anew: now, if frames after
 * this one are out, else with the next frame, which makes UP_SENT. */
uint64_t engine_sender_reported(struct engine *self, uint32_t sender, uint64_t counter, uint64_t now, uint64_t *unreported);
void engine_notify_sent(struct engine *self, uint32_t sender); /* UP_SENT with the next frame */

/* ── receiver ── */

uint32_t engine_add_receiver(struct engine *self, const struct engine_network *sources, size_t count,
                             const struct engine_key *key, bool offloads);
bool engine_rekey_receiver(struct engine *self, uint32_t receiver, const struct engine_key *key);
void engine_forget_epoch(struct engine *self, uint32_t receiver); /* the one before the present */
bool engine_add_label(struct engine *self, uint32_t receiver, uint32_t link, uint32_t label);
void engine_remove_label(struct engine *self, uint32_t link, uint32_t label);
bool engine_holds_label(struct engine *self, uint32_t link, uint32_t label);
/* Whether the frame is a valid END that was not seen before. */
bool engine_verify_last(struct engine *self, uint32_t receiver, const uint8_t *frame, size_t size);
void engine_remove_receiver(struct engine *self, uint32_t receiver);

struct engine_receiver {
    uint8_t epoch;
    uint64_t next; /* highest counter of the epoch and one; 0: none */
    uint64_t received, marked, bytes, highest_at; /* of the epoch */
    uint64_t frames, packets, active_at; /* ever */
    uint32_t link, label; /* under which the newest frame came; label 0: none did */
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
    int fd; /* stays the caller's to close, after engine_remove_link() */
    uint8_t address[28];
    uint32_t address_bytes; /* 0: the socket is connected */
    const struct dtls_keys *keys;
    uint16_t port_local, port_remote;
    uint32_t datagram_bytes_max;
    uint8_t entropy[48];
};
const char *engine_add_link(struct engine *self, const struct engine_link_config *config); /* NULL, or why not */
void engine_close_link(struct engine *self, uint32_t link);
void engine_remove_link(struct engine *self, uint32_t link);
bool engine_send(struct engine *self, uint32_t link, uint16_t stream, uint32_t ppid, const uint8_t *data, size_t size);
bool engine_send_frame(struct engine *self, const struct relay_hop *hop, unsigned channel, const uint8_t *frame, size_t size);
bool engine_reset_streams(struct engine *self, uint32_t link, const uint16_t *streams, size_t count);
bool engine_map(struct engine *self, uint32_t link, uint16_t stream, uint64_t tether, unsigned index, uint32_t lifetime_ms);
void engine_unmap(struct engine *self, uint32_t link, uint64_t tether);
struct engine_link {
    struct sctp_state state;
    struct sctp_counts counts;
    uint32_t window_bytes_held_max; /* what the peer may have us hold */
};
bool engine_link(struct engine *self, uint32_t link, struct engine_link *out);

void engine_drops(struct engine *self, uint64_t out[DROP_COUNT]);
struct engine_counts {
    uint64_t tun_read, tun_written, wakeups;
};
struct engine_counts engine_counts(struct engine *self);

#endif
