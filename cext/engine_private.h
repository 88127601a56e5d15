/* What the files of the engine share; see engine.h.  Everything here is touched only under the engine's lock. */

#ifndef CONFLUX_ENGINE_PRIVATE_H
#define CONFLUX_ENGINE_PRIVATE_H

#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>

#include "aead.h"
#include "engine.h"
#include "frame.h"
#include "map.h"
#include "packet.h"
#include "queue.h"
#include "replay.h"

enum {
    SENT_COUNT = 2048, /* frames whose sending is remembered for a report: at 64 KiB each, 1 Gbit */
    RECEIVE_COUNT = 8, /* datagrams (or GRO trains) per system call */
    RECEIVE_BYTES = 65536,
    BATCH_BYTES = 65536, /* one sendmsg() with UDP_SEGMENT; the kernel takes less than 65536 with its headers */
    BATCH_BYTES_MAX = 65000,
    BATCH_SEGMENT_COUNT_MAX = 64, /* UDP_MAX_SEGMENTS of older kernels */
    PUMP_BATCH_COUNT_MAX = 8, /* per link and turn of the loop, so that one link never starves another or the device */
    TUN_BYTES_PER_TURN = 512 * 1024,
    PACKET_COPY_BYTES_MAX = 16384, /* larger packets keep the memory they were read into */
    NETWORK_COUNT_MAX = 64,
    /* That wait, of one kind and caused by one link if no other has any: Python takes them in a few milliseconds, or
     * it is lost anyway. */
    UPCALL_BYTES_MAX = 4 << 20,
    PPID_BINARY = 53, /* RFC 8831, section 8 */
};

#define NEVER UINT64_MAX
#define SECOND UINT64_C(1000000000)
#define MILLISECOND UINT64_C(1000000)

struct link;

/* A place in a link's round of deficit round robin: a destination's, or that of all frames passed on. */
struct turn {
    struct turn *next;
    struct egress *egress; /* NULL: the relay's */
    int64_t deficit;
    bool waiting; /* in one of the lists */
};

struct turns {
    struct turn *first, *last;
};

struct egress {
    struct engine *engine;
    uint32_t handle;
    struct queue *queue;
    struct sender *sender; /* the one that empties it; NULL: none */
    struct link *link; /* of its sender's hop; NULL: packets wait */
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
    uint64_t frames, packets, active_at;
    uint32_t link, label;
};

struct tether {
    uint64_t id;
    uint16_t streams[ENGINE_CHANNEL_COUNT_MAX];
    bool mapped[ENGINE_CHANNEL_COUNT_MAX];
    uint32_t lifetime_ms;
};

struct upcall_share { /* what a link caused of those that wait; nothing if take is not the engine's */
    uint64_t take;
    size_t counts[UP_KIND_COUNT], bytes[UP_KIND_COUNT];
};

struct channel { /* what a stream of a link is, seen from its number */
    struct tether *tether; /* NULL: not mapped */
    uint8_t index;
};

struct link {
    struct engine *engine;
    uint32_t id;
    size_t place; /* in engine->links */
    int fd;
    uint8_t address[28];
    uint32_t address_bytes;
    uint32_t window_bytes; /* what the peer may have us hold */
    bool is_udp; /* else one end of a socket pair: no segmentation, no error queue */
    bool opened; /* the association once was: the handshake is over for both sides */
    bool closed; /* the association is over; only remove() is left to come */
    bool watches_out; /* the socket was full */
    struct dtls *dtls;
    struct sctp *sctp;
    unsigned handshake_count; /* records passed up to the handshake's library */
    struct upcall_share upcalls;
    struct channel *channels; /* by stream, channel_count of them */
    size_t channel_count;
    struct map tethers; /* by id */
    struct turns quiet, waiting; /* those that were quiet go first, once (RFC 8290, section 4.2) */
    struct turn relay;
    uint64_t rtt_min; /* as of its last round; 0: not known */
    bool searching; /* its rate is not found yet */
    uint64_t trains_at; /* until then UDP_SEGMENT is not tried: the kernel refused it */
    uint64_t trains_pause; /* from the last refusal to trains_at; 0: none since a train went */
    size_t out_bytes, out_segment; /* sealed, and not taken by the socket yet */
    uint8_t *out;
};

struct table { /* handles to pointers; handle 0 is none */
    void **items;
    size_t room;
    uint32_t free; /* where to look for a free one */
};

struct engine {
    struct engine_config config;
    pthread_mutex_t lock;
    atomic_int lock_wanted; /* callers waiting: the thread lets them in between two turns of its loop */
    pthread_t thread;
    bool running;
    atomic_bool stopping;
    int epoll, wake, upcall_fd;
    bool wake_written;
    uint64_t now; /* of this turn of the loop, or of this call */

    struct upcall *upcall_first, *upcall_last;
    size_t upcall_counts[UP_KIND_COUNT], upcall_bytes[UP_KIND_COUNT]; /* of those that anybody but us can cause */
    uint64_t upcall_take; /* how often they were taken */

    struct table egresses, senders, receivers;
    struct queue_all queues; /* of all egresses */
    struct map own, realm_addresses; /* our addresses; destinations' addresses */
    struct map labels; /* (link, label) of receivers */
    struct map links_by_id;
    struct link *links[ENGINE_LINK_COUNT_MAX];
    size_t link_count;
    size_t window_bytes; /* of all links */
    struct engine_network realm[NETWORK_COUNT_MAX];
    size_t realm_count;
    struct relay *relay;
    bool tap;
    bool device_lost;
    uint64_t age_at; /* when held packets want to be looked through; NEVER */

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
        return (struct map_key){0xffff, load_u32(address)}; /* no IPv6 address of a realm begins with 48 zero bits */
    return (struct map_key){load_u64(address), load_u64(address + 8)};
}

static inline struct map_key label_key(uint32_t link, uint32_t label)
{
    return (struct map_key){1, (uint64_t)link << 32 | label};
}

static inline void drop(struct engine *self, enum engine_drop why) { self->drops[why]++; }

/* engine_tables.c */
void *table_find(const struct table *self, uint32_t handle);

/* engine_thread.c */
uint64_t engine_clock(void);
/* Queue an upcall; untrusted: a peer can cause it, and too many are dropped.  The caller fills what is left 0. */
struct upcall *up(struct engine *self, enum upcall_kind kind, size_t size, bool untrusted);
/* The same for what came over a link, whoever sent it; a flood over one link keeps out nobody else's. */
struct upcall *up_of_link(struct link *link, enum upcall_kind kind, size_t size);

/* engine_stream.c */
bool network_holds(const struct engine_network *networks, size_t count, const uint8_t *address, size_t bytes);
void egress_update(struct egress *self); /* its way out may have opened or closed */
void egress_wake(struct egress *self); /* it may have something to send */
size_t egress_send_frame(struct egress *self, size_t bundle_bytes_max); /* bytes of the frame; 0: nothing to send */
void egress_detach_link(struct egress *self);
void streams_reroute(struct engine *self, uint32_t link); /* a link or a tether came; routes over it may have been set before */
void streams_age(struct engine *self); /* drop what was held too long */
/* Take one frame of a tether; takes the message in any case. */
void frame_receive_untrusted(struct link *link, struct sctp_message *message, unsigned channel, bool unordered);
void packet_send(struct engine *self, struct queued *packet, const uint8_t *header, size_t size, uint64_t queued_at);
void packet_deliver(struct engine *self, struct offload *offload, uint8_t *packet, size_t size);
void stream_free_all(struct engine *self);

/* engine_tun.c */
void tun_read(struct engine *self);
void tun_write(struct engine *self, const struct offload *offload, const uint8_t *packet, size_t size);

/* engine_link.c */
struct link *link_find(const struct engine *self, uint32_t id);
struct tether *link_tether(const struct link *self, uint64_t id);
void link_end(struct link *self, const char *why); /* say, once, that the association is over */
uint64_t link_next_timeout(const struct link *self);
void link_handle_timeout(struct link *self);
void link_add_drops(const struct link *self, uint64_t drops[DROP_COUNT]); /* those its association counted */
void link_delete(struct link *self);

/* engine_datagrams.c */
bool link_take_socket(struct link *self); /* false: it cannot be watched */
void link_leave_socket(struct link *self);
void link_receive(struct link *self);
void link_error(struct link *self);
void link_hangup(struct link *self); /* the socket was shut down */
bool link_pump(struct link *self); /* true: it stopped with more to do */
void link_send_goodbye(struct link *self); /* what may still go, then close_notify, as far as the socket takes them */

/* engine_turns.c */
void link_wait(struct link *self, struct turn *turn); /* the turn has something to send over the link */
void link_forget(struct link *self, struct turn *turn);
void link_fill(struct link *self); /* hand frames to the association until it has enough for now */

#endif
