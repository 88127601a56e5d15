/* libFuzzer over the engine's own files: two engines with a link and a stream from the first to the second.  A script
 * gives the first one's device packets, gives the second one datagrams of strangers, messages, frames and bundles of a
 * lying peer, relays, changes the tables, and lets time pass.
 *
 * The engines have no threads here: their loop is turned by hand, by a clock of the script's.
 *
 *     steps: what | length / 2 | bytes */

#define _GNU_SOURCE

#include <pthread.h>
#include <string.h>
#include <sys/socket.h>

#define pthread_create(thread, how, run, self) ((void)(thread), (void)(how), (void)(run), (void)(self), 0)
#define pthread_join(thread, out) ((void)(thread))
#include "engine/thread.c" /* for turn() */

#include "script.h"

enum { LINK = 1, LABEL = 5, TETHER = 9, STEPS_MAX = 200, TURNS = 3, DEVICE_BYTES = 128 << 10 };

static uint64_t clock_ns;

uint64_t engine_clock(void) { return clock_ns; }

void engine_unlock_and_wake(struct engine *self) { pthread_mutex_unlock(&self->lock); }

struct side {
    struct engine *engine;
    int device, tun; /* our end, and the engine's */
    int socket;
    uint32_t egress, sender, receiver;
};

struct world {
    struct side a, b;
    struct script script;
    struct aead liar; /* has the key of A's stream */
    uint64_t counter; /* of the liar's next frame */
};

static const struct engine_key stream_key = {
    .epoch = 0, .aead = AEAD_CHACHA20_POLY1305, .key = {1}, .nonce_prefix = {2}};
static const struct engine_network networks[2] = {
    {.address = {10, 0, 0, 1}, .mask = {255, 255, 255, 255}, .address_bytes = 4},
    {.address = {10, 0, 0, 2}, .mask = {255, 255, 255, 255}, .address_bytes = 4},
};
static const struct engine_network realm = {.address = {10}, .mask = {255}, .address_bytes = 4};
static const struct relay_hop hop = {
    .link = LINK, .tether = TETHER, .channel_count = 2, .label_out = LABEL, .label_in = LABEL + 1};

static void pair(int *one, int *other, int kind)
{
    int ends[2], room = 1 << 20;

    demand(socketpair(AF_UNIX, kind | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) == 0);
    *one = ends[0];
    *other = ends[1];
    for (int at = 0; at < 2; at++)
        setsockopt(ends[at], SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
}

static void open_engine(struct side *self, unsigned own)
{
    struct engine_config config = {
        .queue_bytes_max = 1 << 16,
        .queue_packets_max = 64,
        .queues_bytes_max = 1 << 18,
        .hold_age_ns_max = SECOND_NS,
        .upcall_count_max = 16,
        .relay = {1 << 16, 1 << 16, 1 << 18, 1 << 14, SECOND_NS, 0},
    };

    pair(&self->device, &self->tun, SOCK_SEQPACKET);
    config.tun = self->tun;
    self->engine = engine_new(&config);
    demand(self->engine != NULL);
    demand(engine_configure(self->engine, &networks[own], 1, &realm, 1));
}

static void open_link(struct side *self, unsigned own)
{
    struct dtls_keys keys = {.cipher = DTLS_CHACHA20_POLY1305};
    struct stun_password password = {.text = "password of 22 bytes..", .size = 22};
    struct engine_link_config link = {.link = LINK,
                                      .fd = self->socket,
                                      .keys = &keys,
                                      .stun_ours = &password,
                                      .stun_peers = &password,
                                      .port_local = 5000,
                                      .port_remote = 5000,
                                      .datagram_bytes_max = 1400,
                                      .started = true};

    keys.key_out[0] = keys.iv_in[0] = (uint8_t)own;
    keys.key_in[0] = keys.iv_out[0] = (uint8_t)!own;
    memset(link.entropy, 0x40 + (int)own, sizeof link.entropy);
    memset(link.start, 0x40 + !own, sizeof link.start);
    demand(engine_add_link(self->engine, &link) == NULL);
    for (uint16_t index = 0; index < hop.channel_count; index++)
        demand(engine_map(self->engine, LINK, 2 * index, TETHER, index, 100, ENGINE_CHANNEL_UP));
}

static void open_stream(struct world *self)
{
    struct side *a = &self->a, *b = &self->b;

    a->egress = engine_add_egress(a->engine);
    demand(engine_set_addresses(a->engine, a->egress, &networks[1], 1));
    a->sender = engine_add_sender(a->engine, a->egress, &stream_key, true);
    demand(engine_set_route(a->engine, a->sender, &hop));
    b->receiver = engine_add_receiver(b->engine, &networks[0], 1, &stream_key, true);
    demand(engine_add_label(b->engine, b->receiver, LINK, LABEL));
    demand(aead_open(&self->liar, stream_key.aead, true, stream_key.key, stream_key.nonce_prefix));
    self->counter = 1000; /* A itself never gets there */
}

static void close_side(struct side *self)
{
    engine_delete(self->engine);
    close(self->device);
    close(self->tun);
    close(self->socket);
}

/* Let both engines turn until nothing moves, or TURNS times; what they give out is read, as the device and Python do. */
static void settle(struct world *self)
{
    static uint8_t room[DEVICE_BYTES];
    struct side *sides[] = {&self->a, &self->b};

    for (int round = 0; round < 2 * TURNS; round++) {
        struct side *side = sides[round % 2];
        struct epoll_event events[EVENT_COUNT];
        int count = epoll_wait(side->engine->epoll, events, EVENT_COUNT, 0);
        side->engine->now = clock_ns;
        turn(side->engine, events, count < 0 ? 0 : count);
        for (ssize_t size; (size = recv(side->device, room, sizeof room, 0)) > 0;) {
            demand(size >= OFFLOAD_HEADER_BYTES + 20);
            demand(room[OFFLOAD_HEADER_BYTES] >> 4 == 4); /* no other address is in the tables */
        }
        for (struct upcall *next, *each = engine_take_upcalls(side->engine); each != NULL; each = next) {
            next = each->next;
            free(each);
        }
    }
}

/* ── steps ── */

static void lie(struct world *self, const uint8_t *bundle, size_t size, bool sealed)
{
    uint8_t *frame = malloc(HEADER_BYTES + size + TAG_BYTES);

    demand(frame != NULL);
    header_store(frame, 0, stream_key.epoch, LABEL, self->counter++);
    memcpy(frame + HEADER_BYTES, bundle, size);
    if (sealed)
        demand(aead_seal(&self->liar, frame, size));
    else
        memset(frame + HEADER_BYTES + size, 0, TAG_BYTES);
    engine_send_frame(self->a.engine, &hop, size % hop.channel_count, frame, HEADER_BYTES + size + TAG_BYTES);
    free(frame);
}

static void change(struct world *self, uint8_t what)
{
    struct engine *a = self->a.engine, *b = self->b.engine;
    struct engine_key next = stream_key;
    struct relay_hop before = hop, ahead = hop;

    switch (what % 12) {
    case 0:
        next.epoch = 1;
        engine_rekey_receiver(b, self->b.receiver, &next);
        break;
    case 1:
        next.epoch = 1;
        engine_rekey_sender(a, self->a.sender, &next);
        break;
    case 2:
        engine_forget_epoch(b, self->b.receiver);
        break;
    case 3:
        engine_remove_label(b, LINK, LABEL); /* the caller's part */
        engine_remove_receiver(b, self->b.receiver);
        break;
    case 4:
        engine_set_route(a, self->a.sender, what & 64 ? NULL : &hop);
        break;
    case 5:
        before.label_in = 7 + (what >> 6);
        before.label_out = ahead.label_out = 20 + what;
        ahead.label_in = 30 + what;
        engine_add_relay(b, &before, &ahead);
        break;
    case 6:
        engine_remove_relay(b, LINK, 7 + (what >> 6));
        break;
    case 7: /* and perhaps anew, as a channel that one of them opens */
        engine_unmap(b, LINK, TETHER);
        if (what & 64) {
            engine_map(a, LINK, 0, TETHER, 0, 100, ENGINE_CHANNEL_ASKED);
            engine_map(b, LINK, 0, TETHER, 0, 100, ENGINE_CHANNEL_OFFERED);
        }
        break;
    case 8:
        engine_close_link(what & 64 ? a : b, LINK);
        break;
    case 9:
        engine_remove_link(what & 64 ? a : b, LINK);
        break;
    case 10:
        engine_detach_sender(a, self->a.sender);
        break;
    default:
        engine_remove_egress(a, self->a.egress);
    }
}

static void step(struct world *self)
{
    static const uint8_t addresses[8] = {10, 0, 0, 1, 10, 0, 0, 2};
    uint8_t what = next_byte(&self->script), bytes[2 * 255 + OFFLOAD_HEADER_BYTES + 20] = {0};
    uint8_t *ip = bytes + OFFLOAD_HEADER_BYTES;
    size_t size = 2 * (size_t)next_byte(&self->script);

    if (size > self->script.left)
        size = self->script.left;
    memcpy(bytes, self->script.at, size);
    self->script.at += size;
    self->script.left -= size;
    switch (what % 10) {
    case 0: /* whatever the device says */
        send(self->a.device, bytes, size, 0);
        break;
    case 1: /* a packet that is right as far as its addresses go */
        memmove(ip + 20, bytes, size);
        memset(bytes, 0, OFFLOAD_HEADER_BYTES + 20);
        ip[0] = 0x45;
        ip[1] = what;
        store_be16(ip + 2, (uint16_t)(size + 20));
        ip[8] = 64;
        ip[9] = what & 64 ? 6 : 17;
        memcpy(ip + 12, addresses, sizeof addresses);
        send(self->a.device, bytes, OFFLOAD_HEADER_BYTES + 20 + size, 0);
        break;
    case 2: /* a datagram of a stranger */
        send(self->a.socket, bytes, size, 0);
        break;
    case 3: /* a bundle of a peer that has the key */
        lie(self, bytes, size, true);
        break;
    case 4: /* a frame of one that has none */
        if (what & 64)
            lie(self, bytes, size, false);
        else
            engine_send_frame(self->a.engine, &hop, 0, bytes, size);
        break;
    case 5: /* a message, perhaps on a stream of the tether */
        engine_send(self->a.engine, LINK, what >> 4, 51 + (what >> 7), bytes, size);
        break;
    case 6:
        engine_queue_entry(self->a.engine, self->a.sender, what >> 4, bytes, size);
        break;
    case 7:
        clock_ns += (uint64_t)(size + 1) * (what & 64 ? MS_NS : 50 * MS_NS);
        break;
    case 8: /* what came before its time: a packet before its egress, a frame before its channel */
        if (what & 64)
            engine_receive_frame(self->b.engine, LINK, what >> 7, bytes, size);
        else
            engine_packet(self->b.engine, bytes, size, clock_ns);
        break;
    default:
        change(self, size > 0 ? bytes[0] : what);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct world self = {.script = {data, size}};

    clock_ns = UINT64_C(1000) * SECOND_NS;
    open_engine(&self.a, 0);
    open_engine(&self.b, 1);
    pair(&self.a.socket, &self.b.socket, SOCK_SEQPACKET);
    open_link(&self.a, 0);
    open_link(&self.b, 1);
    open_stream(&self);
    settle(&self);
    for (int steps = 0; self.script.left > 0 && steps < STEPS_MAX; steps++) {
        step(&self);
        settle(&self);
    }
    aead_erase(&self.liar);
    close_side(&self.a);
    close_side(&self.b);
    return 0;
}
