/* What the parts of the native datapath that hold packets cost, each alone; see datapath_tables.py.
 *
 * Every figure is the least of several rounds: what the code costs, not what the machine's other work costs. */

#include <inttypes.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/bytes.h"
#include "packet/packet.h"
#include "queue/queue.h"
#include "relay/relay.h"

enum {
    ROUND_COUNT = 15,
    TURN_COUNT = 20000,
    SUPER_BYTES = 65000,
    SEGMENT_BYTES = 1348,
    HEADER_BYTES = 20 + 32, /* IPv4, and TCP with timestamps */
    ROUTE_COUNT = 10000,
    FRAME_BYTES = 1400,
};

static uint64_t clock_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static void report(const char *name, double least_ns)
{
    printf("%s %.2f\n", name, least_ns);
}

/* The least time of one turn of the loop body. */
#define MEASURE(name, turns, body)                                                                                     \
    do {                                                                                                               \
        uint64_t least = UINT64_MAX;                                                                                   \
        for (int round = 0; round < ROUND_COUNT; round++) {                                                            \
            uint64_t started = clock_ns();                                                                             \
            for (uint32_t turn = 0; turn < (turns); turn++)                                                            \
                body;                                                                                                  \
            uint64_t took = clock_ns() - started;                                                                      \
            least = took < least ? took : least;                                                                       \
        }                                                                                                              \
        report(name, (double)least / (turns));                                                                         \
    } while (0)

void sctp_message_delete(struct sctp_message *message)
{
    free(message->data);
    free(message);
}

static void tcp4(uint8_t *packet, size_t size)
{
    memset(packet, 0x5A, size);
    packet[0] = 0x45;
    packet[1] = 0;
    store_be16(packet + 2, (uint16_t)size);
    store_be16(packet + 6, 0x4000);
    packet[9] = 6;
    packet[20 + 12] = 8 << 4;
}

static uint32_t sink;

static void measure_parse(void)
{
    uint8_t v4[1400], v6[1400];
    struct packet_view view;

    tcp4(v4, sizeof v4);
    memset(v6, 0x5A, sizeof v6);
    v6[0] = 0x60;
    store_be16(v6 + 4, sizeof v6 - 40);
    v6[6] = 6;
    MEASURE("parse_ipv4_ns", TURN_COUNT, {
        v4[21] = (uint8_t)turn;
        sink += packet_parse(v4, sizeof v4, &view) == PACKET_OK ? view.flow : 0;
    });
    MEASURE("parse_ipv6_ns", TURN_COUNT, {
        v6[41] = (uint8_t)turn;
        sink += packet_parse(v6, sizeof v6, &view) == PACKET_OK ? view.flow : 0;
    });
}

static void measure_split(void)
{
    uint8_t *packet = malloc(SUPER_BYTES), *room = malloc(SUPER_BYTES * 2);
    const uint8_t header[OFFLOAD_BYTES] = {1,  OFFLOAD_TCP4, 0,  0, SEGMENT_BYTES & 255, SEGMENT_BYTES >> 8,
                                           20, 0,            16, 0};
    struct offload offload, piece;
    struct split split;

    if (packet == NULL || room == NULL)
        abort();
    tcp4(packet, SUPER_BYTES);
    memset(room, 1, SUPER_BYTES * 2);
    if (offload_check_untrusted(header, packet, SUPER_BYTES, &offload) != PACKET_OK)
        abort();
    MEASURE("check_offload_ns", TURN_COUNT, {
        sink += offload_check_untrusted(header, packet, SUPER_BYTES, &offload);
    });
    MEASURE("copy_65000_ns", 300, {
        memcpy(room, packet, SUPER_BYTES);
        sink += room[turn];
    });
    MEASURE("split_65000_plain_ns", 300, {
        size_t at = 0;
        split_start(&split, packet, SUPER_BYTES, &offload, 0, true);
        for (size_t bytes; (bytes = split_next_bytes(&split)) > 0; at += bytes)
            split_next(&split, room + at, &piece);
        sink += room[turn];
    });
    MEASURE("split_65000_into_16384_ns", 300, {
        size_t at = 0;
        split_start(&split, packet, SUPER_BYTES, &offload, 16384, false);
        for (size_t bytes; (bytes = split_next_bytes(&split)) > 0; at += bytes)
            split_next(&split, room + at, &piece);
        sink += room[turn];
    });
    free(packet);
    free(room);
}

static void queue_dropped(void *context, enum queue_drop why)
{
    (void)context;
    sink += why;
}

static void measure_queue(void)
{
    struct queue_all all = {0, 64 << 20};
    struct queue *queue = queue_new(1 << 20, 2048, &all, queue_dropped, NULL);
    uint64_t now = 1;

    if (queue == NULL)
        abort();
    queue_move(queue, 0);
    /* 64 packets of eight flows wait, as behind a link that is busy. */
    for (uint32_t flow = 0; flow < 64; flow++) {
        struct queued *packet = queued_new(1400);
        if (packet == NULL)
            abort();
        tcp4(packet->data, 1400);
        packet->flow = flow;
        queue_push(queue, packet, now);
    }
    MEASURE("queue_push_take_ns", TURN_COUNT, {
        unsigned bucket;
        sink += (uint32_t)queue_next_bytes(queue, &bucket);
        struct queued *packet = queue_take(queue, 16384, now += 1000);
        queue_turn(queue);
        packet->flow = turn;
        queue_push(queue, packet, now);
    });
    MEASURE("queue_new_push_take_delete_ns", TURN_COUNT, {
        struct queued *packet = queued_new(1400);
        if (packet == NULL)
            abort();
        packet->data[0] = 0x45;
        packet->flow = turn;
        queue_push(queue, packet, now);
        queued_delete(queue_take(queue, 16384, now += 1000));
        queue_turn(queue);
    });
    queue_delete(queue);
}

static void relay_dropped(void *context, enum relay_drop why)
{
    (void)context;
    sink += why;
}

static struct sctp_message *frame(void)
{
    struct sctp_message *message = malloc(sizeof *message);
    uint8_t *data = malloc(FRAME_BYTES);

    if (message == NULL || data == NULL)
        abort();
    memset(data, 0, FRAME_BYTES);
    data[0] = 1;
    *message = (struct sctp_message){.data = data, .size = FRAME_BYTES, .room = FRAME_BYTES};
    return message;
}

static size_t bytes_allocated(void)
{
    struct mallinfo2 info = mallinfo2();

    return info.uordblks + info.hblkhd;
}

static uint32_t mixed(uint32_t number) { return number * 2654435761u + 1; }

static void measure_relay(void)
{
    const struct relay_limits limits = {512 << 10, 2 << 20, 16 << 20, 128 << 10, 2000000000, 0};
    struct relay *relay = relay_new(&limits, relay_dropped, NULL);
    struct relay_frame out;
    size_t before = bytes_allocated();
    uint64_t least = UINT64_MAX;

    for (int round = 0; round < ROUND_COUNT; round++) {
        uint64_t started = clock_ns();
        for (uint32_t route = 0; route < ROUTE_COUNT; route++) {
            struct relay_hop back = {1 + route % 16, 7, 4, mixed(route), mixed(route + 100000)};
            struct relay_hop ahead = {20 + route % 16, 8, 4, mixed(route + 200000), mixed(route + 300000)};
            if (relay_add(relay, &back, &ahead, 0) != NULL)
                abort();
        }
        uint64_t took = clock_ns() - started;
        least = took < least ? took : least;
        if (round < ROUND_COUNT - 1)
            for (uint32_t route = 0; route < ROUTE_COUNT; route++)
                relay_remove(relay, 1 + route % 16, mixed(route + 100000));
    }
    report("relay_add_ns", (double)least / ROUTE_COUNT);
    report("relay_route_bytes", (double)(bytes_allocated() - before) / ROUTE_COUNT);
    struct sctp_message *message = frame();
    MEASURE("relay_one_of_10000_routes_ns", TURN_COUNT, {
        uint32_t route = turn % ROUTE_COUNT;
        if (!relay_receive_untrusted(relay, 1 + route % 16, mixed(route + 100000), false, 1, true, message, 1))
            abort();
        if (!relay_next(relay, 20 + route % 16, &out, 1))
            abort();
        message = out.message;
    });
    MEASURE("relay_one_route_ns", TURN_COUNT, {
        if (!relay_receive_untrusted(relay, 1, mixed(100000), false, 1, true, message, 1))
            abort();
        if (!relay_next(relay, 20, &out, 1))
            abort();
        message = out.message;
    });
    sctp_message_delete(message);
    relay_delete(relay);
}

int main(void)
{
    measure_parse();
    measure_split();
    measure_queue();
    measure_relay();
    return sink == 1;
}
