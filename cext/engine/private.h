/* What the engine's files share; see engine.h.  The engine's lock protects all of it. */

#ifndef CONFLUX_ENGINE_PRIVATE_H
#define CONFLUX_ENGINE_PRIVATE_H

#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>

#include "anchor/aead.h"
#include "engine/engine.h"
#include "anchor/frame.h"
#include "base/bucket.h"
#include "base/bytes.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/map.h"
#include "packet/packet.h"
#include "policy/guard.h"
#include "queue/queue.h"
#include "anchor/replay.h"

enum {
    SENT_COUNT = 2048, /* frames whose sending is remembered for a report: at 64 KiB each, 1 Gbit */
    RECEIVE_COUNT = 8, /* datagrams (or GRO trains) per system call */
    RECEIVE_BYTES = 65536,
    BATCH_BYTES = 65536, /* of one sendmsg() with UDP_SEGMENT; the kernel takes less than 65536, headers included */
    BATCH_BYTES_MAX = 65000,
    BATCH_SEGMENT_COUNT_MAX = 64, /* UDP_MAX_SEGMENTS of older kernels */
    PUMP_BATCH_COUNT_MAX = 8, /* per link and turn of the loop: no link starves another one or the device */
    TUN_BYTES_PER_TURN = 512 * 1024,
    PACKET_COPY_BYTES_MAX = 16384, /* a larger packet keeps the memory it was read into */
    NETWORK_COUNT_MAX = ENGINE_NETWORK_COUNT_MAX,
    /* Of waiting upcalls of one kind, even of one link if no other has any: Python takes them within a few
     * milliseconds, or is lost anyway. */
    UPCALL_BYTES_MAX = 4 << 20,
    PPID_DCEP = 50, PPID_BINARY = 53, /* RFC 8831, section 8 */
};

struct link;

/* A turn in a link's deficit round robin: of a destination, or of all frames passed on. */
struct turn {
    struct turn *next;
    struct egress *egress; /* NULL: the turn of frames passed on */
    /* Send the next frame over the link.  Returns the frame's bytes, or 0: there is nothing to send. */
    size_t (*send_frame)(struct turn *self, struct link *link, size_t bundle_bytes_max);
    int64_t deficit; /* bytes it may still send */
    bool waiting; /* in one of the lists */
};

struct turn_list {
    struct turn *first, *last;
};

struct egress {
    struct engine *engine;
    uint32_t handle;
    struct queue *queue;
    struct sender *sender; /* it empties the queue; NULL: none */
    struct link *link; /* of the sender's hop; NULL: packets wait */
    struct turn turn;
    struct map_key addresses[NETWORK_COUNT_MAX];
    size_t address_count;
    uint64_t active_at;
};

struct entry {
    uint8_t kind;
    uint16_t size;
    uint8_t *body;
};

struct sender {
    uint32_t handle;
    struct egress *egress; /* NULL: detached */
    struct aead aead;
    bool has_hop, offloads, notify;
    struct relay_hop hop;
    struct entry entries[ENGINE_ENTRY_COUNT_MAX];
    size_t entry_count, entry_bytes;
    struct engine_sender state;
    uint64_t sent_at[SENT_COUNT]; /* by counter */
};

struct receiving { /* one epoch */
    struct aead aead; /* context NULL: none */
    struct replay_window window;
    uint8_t epoch;
    uint64_t received, marked, bytes, highest_at;
};

struct receiver {
    uint32_t handle;
    struct receiving present, next, before;
    bool offloads, notify;
    struct engine_network sources[NETWORK_COUNT_MAX];
    size_t source_count;
    uint64_t frames, packets, bytes, active_at;
    uint32_t link, label;
    struct bucket entries; /* for Python */
};

struct tether {
    uint64_t id;
    uint16_t streams[ENGINE_CHANNEL_COUNT_MAX];
    bool mapped[ENGINE_CHANNEL_COUNT_MAX];
    uint32_t lifetime_ms;
    uint8_t early_left; /* frames under unknown labels that may still wait: early.c */
};

struct upcalls { /* waiting to be taken */
    struct upcall *first, *last;
    size_t counts[UP_KIND_COUNT], bytes[UP_KIND_COUNT]; /* of those that a peer can cause */
    uint64_t take; /* how often they were taken */
};

struct upcall_share { /* of the waiting upcalls, those of one link; none if `take` is not the engine's */
    uint64_t take;
    size_t counts[UP_KIND_COUNT], bytes[UP_KIND_COUNT];
};

struct channel { /* by a stream's number: the tether it belongs to */
    struct tether *tether; /* NULL: not mapped */
    uint8_t index;
    bool asked; /* opened by us and not acknowledged yet: what goes here goes ordered (RFC 8832, section 6) */
    bool unasked; /* to be opened by us: nothing goes here before the OPEN */
};

enum { EARLY_COUNT_MAX = 8 }; /* per tether, and waiting per link: the first packets of a stream fit one frame */

struct early { /* a frame that waits for its label */
    struct sctp_message *message;
    struct channel channel;
    uint64_t came_at;
};

struct link {
    struct engine *engine;
    uint32_t id;
    size_t place; /* in engine->links */
    int fd;
    uint8_t address[ENGINE_ADDRESS_BYTES];
    uint32_t address_bytes;
    uint32_t window_bytes; /* how much is held for the peer at most */
    bool is_udp; /* else one end of a socket pair: no segmentation, no error queue */
    bool heard; /* the peer sealed a packet: both ends have finished the handshake */
    bool closed; /* the association is over; engine_remove_link() will follow */
    bool watches_out; /* the socket was full, and is watched for room */
    struct dtls *dtls;
    struct stun *stun;
    struct bucket stun_bucket, feedback_bucket; /* of what Python reads */
    struct sctp *sctp;
    unsigned handshake_count; /* records passed up, for the handshake's library */
    struct upcall_share upcalls;
    struct channel *channels; /* by stream, channel_count of them */
    size_t channel_count;
    struct map tethers; /* by id */
    struct early early[EARLY_COUNT_MAX];
    size_t early_count, early_bytes;
    struct turn_list quiet, waiting; /* turns that were quiet go first, once (RFC 8290, section 4.2) */
    struct turn passing;
    uint64_t rtt_min_ns; /* as of its last round; 0: not known */
    bool searching; /* its rate is not found yet */
    uint64_t trains_at; /* UDP_SEGMENT is not tried until then: the kernel refused it */
    uint64_t trains_pause_ns; /* from the last refusal to trains_at; 0: none since a train went */
    struct engine_moved moved;
    size_t out_bytes, out_segment; /* sealed records that the socket has not taken yet */
    uint8_t *out;
};

struct handles {
    void **items; /* by handle; NULL: free */
    size_t room;
    uint32_t free; /* no lower handle is free; 0: handle 1 */
};

struct engine {
    struct engine_config config;
    pthread_mutex_t lock;
    atomic_int lock_wanted; /* waiting callers: the thread lets them in between two turns of its loop */
    pthread_t thread;
    bool running;
    atomic_bool stopping;
    int epoll, wake, upcall_fd;
    bool wake_written;
    uint64_t now; /* of this turn of the loop, or of this call */

    struct upcalls upcalls;

    struct handles egresses, senders, receivers;
    struct queue_all queues; /* of all egresses */
    struct map own, realm_addresses; /* our addresses; destinations' addresses */
    struct map labels; /* (link, label) of receivers */
    struct map links_by_id;
    struct link *links[ENGINE_LINK_COUNT_MAX];
    size_t link_count;
    size_t window_bytes; /* of all links */
    struct engine_network realm[NETWORK_COUNT_MAX];
    size_t realm_count;
    struct guard *guard; /* NULL: the realm has no policy */
    struct bucket refused; /* of the packets of this host whose senders are told */
    struct relay *relay;
    struct bucket stun_bucket; /* of all links */
    uint16_t taps[ENGINE_TAP_COUNT_MAX]; /* identifiers of echo replies that do not go to the device */
    size_t tap_count;
    bool device_lost;
    uint64_t age_at; /* when to look through held packets; NEVER: none wait */

    uint64_t drops[DROP_COUNT];
    struct engine_counts counts;

    struct queued *spare; /* room for the largest packet, to be read into */
    uint8_t *receive_room; /* RECEIVE_COUNT x RECEIVE_BYTES */
    uint8_t *batch; /* BATCH_BYTES */
    uint8_t *piece; /* one packet split off a super-packet for the device */
};

static inline struct map_key address_key(const uint8_t *address, size_t bytes)
{
    if (bytes == 4)
        return (struct map_key){0xffff, load_be32(address)}; /* no IPv6 address of a realm begins with 48 zero bits */
    return (struct map_key){load_be64(address), load_be64(address + 8)};
}

static inline struct map_key label_key(uint32_t link, uint32_t label)
{
    return (struct map_key){1, (uint64_t)link << 32 | label};
}

/* Whether an address is in one of the networks. */
static inline bool networks_hold(const struct engine_network *networks, size_t count, const uint8_t *address,
                                 size_t bytes)
{
    for (size_t at = 0; at < count; at++) {
        const struct engine_network *network = &networks[at];
        uint8_t differs = network->address_bytes != bytes;
        for (size_t byte = 0; byte < bytes && !differs; byte++)
            differs = (address[byte] ^ network->address[byte]) & network->mask[byte];
        if (!differs)
            return true;
    }
    return false;
}

static inline void drop(struct engine *self, enum engine_drop why) { self->drops[why]++; }

/* ── handles.c ── */

void *handles_find(const struct handles *self, uint32_t handle); /* NULL: no such handle */
uint32_t handles_add(struct handles *self, void *item); /* 0: no memory */
void handles_remove(struct handles *self, uint32_t handle);

/* ── upcall.c ── */

/* Queue an upcall; untrusted: a peer can cause it, and too many are dropped (NULL).  The caller fills what is left
 * 0. */
struct upcall *upcall_push(struct engine *self, enum upcall_kind kind, size_t size, bool untrusted);
/* The same for what came over a link: a flood over one link keeps out no other link's upcalls. */
struct upcall *upcall_push_of_link(struct link *link, enum upcall_kind kind, size_t size);
void upcall_free_all(struct engine *self);

/* ── links.c ── */

struct link *links_find(const struct engine *self, uint32_t id);
struct tether *links_tether(const struct link *self, uint64_t id);
void links_end(struct link *self, const char *why); /* tell, once, that the association is over */

/* ── link.c ── */

uint64_t link_next_timeout(const struct link *self);
void link_handle_timeout(struct link *self);
void link_add_drops(const struct link *self, uint64_t drops[DROP_COUNT]); /* those its association counted */
void link_delete(struct link *self);

/* ── turns.c ── */

void turns_add(struct link *link, struct turn *turn); /* the turn has something to send over the link */
void turns_remove(struct link *link, struct turn *turn);
void turns_fill(struct link *link); /* hand frames to the association until it has enough for now */

/* ── egress.c ── */

void egress_update(struct egress *self); /* its way out may have opened or closed */
void egress_wake(struct egress *self); /* it may have something to send */
void egress_detach_link(struct egress *self);
void egress_reroute(struct engine *self, uint32_t link); /* a link or a tether came: routes may lead over it already */
void egress_age(struct engine *self); /* drop what was held too long */
/* Queue a packet of this host for its destination; takes the packet. */
void packet_queue(struct engine *self, struct queued *packet, const uint8_t *header, size_t size, uint64_t queued_at);

/* ── outgoing.c, passing.c: what a turn sends ── */

size_t outgoing_send_frame(struct turn *turn, struct link *link, size_t bundle_bytes_max);
size_t passing_send_frame(struct turn *turn, struct link *link, size_t bundle_bytes_max);

/* ── incoming.c ── */

/* Take one frame of a tether; takes the message in any case. */
void incoming_frame_untrusted(struct link *link, struct sctp_message *message, const struct channel *channel,
                              bool unordered);

/* ── early.c ── */

/* Keep a frame under a label that is not known yet, and take the message; false: it may not wait. */
bool early_hold(struct link *link, const struct channel *channel, struct sctp_message *message);
void early_deliver(struct link *link, uint32_t label); /* the label is known now */
void early_forget(struct link *link, const struct tether *tether); /* NULL: of every tether */

/* ── tun.c ── */

void tun_read(struct engine *self);
void tun_write(struct engine *self, const struct offload *offload, const uint8_t *packet, size_t size);

/* ── datagrams.c ── */

bool datagrams_open(struct link *self); /* watch the link's socket; false: it cannot be watched */
void datagrams_close(struct link *self);
void datagrams_receive(struct link *self);
void datagrams_error(struct link *self);
void datagrams_hangup(struct link *self); /* the socket was shut down */
bool datagrams_pump(struct link *self); /* true: it stopped with more to do */
void datagrams_send_goodbye(struct link *self); /* what may still go, then close_notify, if the socket takes them */

/* ── tables.c ── */

void tables_free(struct engine *self);

#endif
