/* cext/queue/queue.c by lines; see driven.py.  Packets are numbered; every answer ends with the drops since the
 * last.  Other queues are only a number of waiting bytes. */

#include "lines.h"
#include "queue/queue.h"

enum { ENTRY_HEADER_BYTES = 3, NUMBER_AT = 20 };

static void dropped(void *context, enum queue_drop why)
{
    unsigned *drops = context;

    drops[why]++;
}

/* flow, size, ECN bits, number, now */
static void push(struct queue *queue)
{
    uint32_t flow = (uint32_t)number();
    size_t size = number();
    struct queued *packet = queued_new(size);

    if (packet == NULL)
        abort();
    memset(packet->data, 0, size);
    packet->data[0] = 0x45;
    packet->data[1] = (uint8_t)number();
    uint32_t which = (uint32_t)number();
    memcpy(packet->data + NUMBER_AT, &which, 4);
    packet->flow = flow;
    queue_push(queue, packet, number());
}

static uint32_t number_of(const struct queued *packet)
{
    uint32_t which;

    memcpy(&which, packet->data + NUMBER_AT, 4);
    return which;
}

/* room, bundle_bytes_max, now: one bundle, as FlowQueue.take() makes it. */
static void take(struct queue *queue)
{
    size_t bytes_max = number(), bundle_bytes_max = number(), bytes;
    uint64_t now = number();
    int64_t room = (int64_t)bytes_max;
    unsigned bucket, first = 0, taken = 0;

    for (bool begun = false; (bytes = queue_next_bytes(queue, &bucket)) > 0; begun = true) {
        if (!begun)
            printf("%u", first = bucket);
        else if (bucket != first)
            break;
        bool may_be_larger = taken == 0 && bytes_max >= bundle_bytes_max;
        if ((int64_t)(ENTRY_HEADER_BYTES + bytes) > room && !may_be_larger)
            break;
        struct queued *packet = queue_take(queue, bundle_bytes_max, now);
        if (packet == NULL)
            break;
        if ((int64_t)(ENTRY_HEADER_BYTES + packet->size) > room && !may_be_larger) {
            queue_unshift(queue, packet);
            break;
        }
        printf(" %u/%u", number_of(packet), packet->data[1]);
        room -= (int64_t)(ENTRY_HEADER_BYTES + packet->size);
        taken++;
        queued_delete(packet);
    }
    queue_turn(queue);
}

/* pieces, now: take one packet and put it back in so many pieces, the first with its number. */
static void pieces(struct queue *queue)
{
    uint64_t count = number(), now = number();
    struct queued *packet = queue_take(queue, 0, now);

    if (packet == NULL)
        return;
    printf("%u/%u", number_of(packet), packet->data[1]);
    size_t size = packet->size / count;
    for (uint64_t i = 0; i < count; i++) {
        struct queued *piece = queued_new(size);
        if (piece == NULL)
            abort();
        memcpy(piece->data, packet->data, size);
        piece->flow = packet->flow;
        piece->queued_at = packet->queued_at;
        queue_unshift(queue, piece);
    }
    queued_delete(packet);
}

int main(void)
{
    unsigned drops[4] = {0};
    struct queue *queue = NULL;
    struct queue_all all;
    const char *command;

    while ((command = line_next()) != NULL) {
        switch (command[0]) {
        case 'n': { /* bytes_max, packets_max, bytes_max of all: a new queue */
            size_t bytes_max = number(), packets_max = number();
            queue_delete(queue);
            memset(drops, 0, sizeof drops);
            all = (struct queue_all){.bytes_max = number()};
            queue = queue_new(bytes_max, packets_max, &all, dropped, drops);
            break;
        }
        case 'o': /* bytes: as many wait in other queues */
            all.bytes = queue_counts(queue).bytes + number();
            break;
        case 'p':
            push(queue);
            break;
        case 'm':
            queue_move(queue, number());
            break;
        case 'h':
            queue_hold(queue);
            break;
        case 'w': { /* rtt, searching, now */
            uint64_t rtt = number();
            bool searching = number() != 0;
            queue_way(queue, rtt, searching, number());
            break;
        }
        case 't':
            take(queue);
            break;
        case 's':
            pieces(queue);
            break;
        case 'a': {
            uint64_t age_ns_max = number();
            queue_drop_aged(queue, age_ns_max, number());
            break;
        }
        case 'c':
            queue_clear(queue);
            break;
        case 'l': { /* look */
            struct queue_counts counts = queue_counts(queue);
            uint64_t oldest_at = queue_oldest_at(queue);
            printf("%" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRId64, counts.bytes, counts.packets, counts.marked,
                   oldest_at == UINT64_MAX ? -1 : (int64_t)oldest_at);
            break;
        }
        default:
            return 2;
        }
        printf(";%u %u %u %u", drops[QUEUE_FULL], drops[QUEUE_AGED], drops[QUEUE_CODEL], drops[QUEUE_CLEARED]);
        line_end();
    }
    queue_delete(queue);
    return 0;
}
