/* The engine's tables when allocations fail: every call is made again and again, with no allocation, with one, with
 * two, until it has all it wants.  Prints a line per call: how often an allocation failed, and how often the call
 * then said so. */

#define _GNU_SOURCE

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "alloc.h"
#include "anchor/frame.h"
#include "engine/engine.h"

enum { COPIES = 100 }; /* so that tables grow */

static const struct engine_config config = {
    .tun = -1,
    .queue_bytes_max = 1 << 20,
    .queue_packets_max = 1000,
    .queues_bytes_max = 1 << 22,
    .hold_age_ns_max = UINT64_C(1000000000),
    .upcall_count_max = 100,
    .relay = {1 << 20, 1 << 20, 1 << 22, 1 << 18, UINT64_C(1000000000), 0},
};

static struct engine *engine;
static uint32_t egress, sender, receiver, copy;
static int ends[2];

static struct engine_network network_of(uint32_t host)
{
    struct engine_network self = {.address = {10, (uint8_t)(host >> 16), (uint8_t)(host >> 8), (uint8_t)host}};

    memset(self.mask, 255, 4);
    self.address_bytes = 4;
    return self;
}

/* ── the calls: true once they did what they were asked for ── */

static bool make_engine(void) { return (engine = engine_new(&config)) != NULL; }

static bool configure(void)
{
    struct engine_network own = network_of(1), realm = network_of(0);

    realm.mask[1] = realm.mask[2] = realm.mask[3] = 0;
    return engine_configure(engine, &own, 1, &realm, 1);
}

static bool add_egress(void) { return (egress = engine_add_egress(engine)) != 0; }

static bool set_addresses(void)
{
    struct engine_network addresses[20];

    for (uint32_t at = 0; at < 20; at++)
        addresses[at] = network_of(1000 + (copy + at) % COPIES);
    return engine_set_addresses(engine, egress, addresses, 20);
}

static bool add_sender(void)
{
    struct engine_key key = {.epoch = 0, .aead = AEAD_CHACHA20_POLY1305};
    return (sender = engine_add_sender(engine, egress, &key, true)) != 0;
}

static bool add_receiver(void)
{
    struct engine_network source = network_of(1000 + copy);
    struct engine_key key = {.epoch = 0, .aead = AEAD_CHACHA20_POLY1305};
    return (receiver = engine_add_receiver(engine, &source, 1, &key, true)) != 0;
}

static bool add_label(void) { return engine_add_label(engine, receiver, 1, 5000 + copy); }

static bool queue_entry(void)
{
    uint8_t body[100] = {(uint8_t)copy};
    return engine_queue_entry(engine, sender, KIND_REPORT, body, sizeof body);
}

static bool add_link(void)
{
    struct dtls_keys keys = {.cipher = DTLS_CHACHA20_POLY1305};
    struct stun_password password = {.size = 22};
    struct engine_link_config link = {.link = 1,
                                      .fd = ends[0],
                                      .keys = &keys,
                                      .stun_ours = &password,
                                      .stun_peers = &password,
                                      .port_local = 5000,
                                      .port_remote = 5000,
                                      .datagram_bytes_max = 1400};

    link.entropy[0] = link.entropy[20] = 1;
    return engine_add_link(engine, &link) == NULL;
}

static bool map_channel(void) { return engine_map(engine, 1, (uint16_t)(3 * copy), copy, 0, 100, ENGINE_CHANNEL_UP); }

static bool add_relay(void)
{
    struct relay_hop before = {1, 1, 1, 2 * copy, 2 * copy + 1}, ahead = {2, 2, 1, 2 * copy, 2 * copy + 1};
    return engine_add_relay(engine, &before, &ahead) == NULL;
}

static bool push_packet(void)
{
    uint8_t packet[OFFLOAD_HEADER_BYTES + 48] = {0}, *ip = packet + OFFLOAD_HEADER_BYTES;
    struct engine_egress before, after;
    struct timespec now;

    ip[0] = 0x45;
    ip[3] = 48;
    ip[9] = 17;
    memcpy(ip + 12, network_of(1).address, 4);
    memcpy(ip + 16, network_of(1000 + COPIES - 1).address, 4); /* the last that set_addresses() set */
    clock_gettime(CLOCK_MONOTONIC, &now);
    engine_egress(engine, egress, &before);
    engine_packet(engine, packet, sizeof packet, (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec);
    engine_egress(engine, egress, &after);
    return after.packets > before.packets;
}

static void try(const char *name, bool (*call)(void), bool every_copy)
{
    unsigned failed = 0, said = 0;

    for (copy = 0; copy < (every_copy ? COPIES : 1); copy++)
        for (uint64_t granted = 0;; granted++) {
            allocations_failed = 0;
            allocations_left = granted;
            bool done = call();
            allocations_left = UINT64_MAX;
            if (allocations_failed == 0 && !done) {
                printf("%s fails with all it wants\n", name);
                exit(1);
            }
            failed += allocations_failed > 0;
            said += !done;
            if (done)
                break;
        }
    printf("%s %u %u\n", name, failed, said);
}

int main(void)
{
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, ends) < 0)
        return 1;
    try("engine", make_engine, false);
    try("configure", configure, false);
    try("egress", add_egress, true);
    try("addresses", set_addresses, true);
    try("sender", add_sender, true);
    try("receiver", add_receiver, true);
    try("label", add_label, true);
    try("entry", queue_entry, true);
    try("link", add_link, false);
    try("channel", map_channel, true);
    try("relay", add_relay, true);
    try("packet", push_packet, false);
    engine_remove_link(engine, 1);
    engine_delete(engine);
    close(ends[0]);
    close(ends[1]);
    return 0;
}
