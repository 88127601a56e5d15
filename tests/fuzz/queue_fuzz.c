/* libFuzzer over cext/queue/queue.c: a script pushes, takes and puts back packets while time passes.  Every packet is
 * taken once or dropped once, those of a flow in their order, and no bound is passed.
 *
 *     bytes_max / 256, packets_max | steps */

#include <string.h>

#include "queue/queue.h"
#include "script.h"

enum { HEADER_BYTES = 20, FLOW_COUNT = 16, NUMBER_AT = 12, BYTES_MAX = 1500 };

struct world {
    struct queue *queue;
    struct queue_all all;
    struct script script;
    uint64_t now;
    uint64_t pushed, taken, dropped;
    uint32_t last_number[FLOW_COUNT];
    size_t bytes_max, packets_max;
};

static void dropped(void *context, enum queue_drop why)
{
    struct world *self = context;

    demand(why <= QUEUE_CLEARED);
    self->dropped++;
}

static void push(struct world *self)
{
    uint8_t flow = next_byte(&self->script);
    size_t size = HEADER_BYTES + next_word(&self->script) % (BYTES_MAX - HEADER_BYTES);
    struct queued *packet = queued_new(size);

    demand(packet != NULL);
    memset(packet->data, 0, size);
    packet->data[0] = 0x45;
    packet->data[1] = flow >> 4; /* of congestion marks: some senders understand them */
    packet->flow = flow % FLOW_COUNT;
    uint32_t number = (uint32_t)++self->pushed;
    memcpy(packet->data + NUMBER_AT, &number, 4);
    queue_push(self->queue, packet, self->now);
    struct queue_counts counts = queue_counts(self->queue);
    demand(counts.packets <= self->packets_max);
    demand(counts.bytes <= self->all.bytes_max);
}

static void take(struct world *self, bool puts_back)
{
    unsigned bucket = QUEUE_BUCKET_COUNT;
    size_t wanted = queue_next_bytes(self->queue, &bucket);
    const struct queued *next = queue_next(self->queue);

    demand((wanted == 0) == (next == NULL));
    demand(wanted == 0 || (bucket < QUEUE_BUCKET_COUNT && next->size == wanted));
    struct queued *packet = queue_take(self->queue, next_byte(&self->script), self->now);
    if (packet == NULL)
        return;
    demand(packet->flow % QUEUE_BUCKET_COUNT == bucket);
    if (puts_back) {
        queue_unshift(self->queue, packet);
        return;
    }
    uint32_t number;
    memcpy(&number, packet->data + NUMBER_AT, 4);
    demand(number > self->last_number[packet->flow]); /* in order, and no packet twice */
    self->last_number[packet->flow] = number;
    self->taken++;
    queued_delete(packet);
}

static void step(struct world *self)
{
    switch (next_byte(&self->script) % 10) {
    case 0:
    case 1:
        push(self);
        break;
    case 2:
    case 3:
        take(self, false);
        break;
    case 4:
        take(self, true);
        break;
    case 5:
        queue_turn(self->queue);
        break;
    case 6:
        self->now += (uint64_t)next_word(&self->script) * 1000000;
        break;
    case 7:
        if (next_byte(&self->script) & 1)
            queue_move(self->queue, self->now);
        else
            queue_hold(self->queue);
        break;
    case 8:
        queue_way(self->queue, (uint64_t)next_byte(&self->script) * 10000000, next_byte(&self->script) & 1, self->now);
        break;
    default:
        if (next_byte(&self->script) & 1)
            queue_drop_aged(self->queue, (uint64_t)next_byte(&self->script) * 10000000, self->now);
        else
            queue_clear(self->queue);
    }
}

static void look(const struct world *self)
{
    struct queue_counts counts = queue_counts(self->queue);

    demand(counts.packets == self->pushed - self->taken - self->dropped);
    demand(counts.bytes == self->all.bytes);
    demand((counts.packets == 0) == (counts.bytes == 0));
    demand((queue_oldest_at(self->queue) == UINT64_MAX) == (counts.packets == 0));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct world self = {.script = {data, size}, .now = UINT64_C(1000000000)};

    self.bytes_max = (size_t)next_byte(&self.script) << 8;
    self.packets_max = next_byte(&self.script);
    self.all.bytes_max = (size_t)next_byte(&self.script) << 10;
    self.queue = queue_new(self.bytes_max, self.packets_max, &self.all, dropped, &self);
    demand(self.queue != NULL);
    while (self.script.left > 0) {
        step(&self);
        look(&self);
    }
    queue_delete(self.queue);
    demand(self.all.bytes == 0);
    demand(self.dropped == self.pushed - self.taken);
    return 0;
}
