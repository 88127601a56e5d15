/* One destination's packets: in order within every flow, bounded in bytes, packets and, while they wait, age; CoDel with
 * ECN once they move (RFC 8289, RFC 8290).  The C of conflux/datapath/queue.py and codel.py, rule for rule, whose comments
 * say why.  It knows no stream and no route: it is told when packets have somewhere to go.
 *
 * Times are nanoseconds of one monotonic clock. */

#ifndef CONFLUX_QUEUE_H
#define CONFLUX_QUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "packet.h"

enum { QUEUE_BUCKET_COUNT = 8 };

/* A packet that waits, with its offload header; allocated by packet_new(). */
struct queued {
    struct queued *next;
    uint64_t queued_at;
    uint32_t flow;
    uint32_t size;
    bool ordered; /* its flow wants its packets in order (TCP): they go in an ordered message */
    struct offload offload;
    uint8_t data[];
};

struct queued *queued_new(size_t size); /* NULL: no memory */
void queued_delete(struct queued *self);

enum queue_drop { QUEUE_FULL, QUEUE_AGED, QUEUE_CODEL, QUEUE_CLEARED };

struct queue; /* all buckets of one destination */

struct queue_all { /* what the queues of all destinations have waiting */
    size_t bytes, bytes_max;
};

/* drop is called once per dropped packet, before it is freed.  together outlives the queue. */
struct queue *queue_new(size_t bytes_max, size_t packets_max, struct queue_all *together,
                        void (*drop)(void *context, enum queue_drop why), void *context);
void queue_delete(struct queue *self); /* drops what is in it as QUEUE_CLEARED */

/* now: when the packet came; among those of its flow it takes the place of its time. */
void queue_push(struct queue *self, struct queued *packet, uint64_t now);
/* Packets have somewhere to go from now on; or hold: they wait. */
void queue_move(struct queue *self, uint64_t now);
void queue_hold(struct queue *self);
/* What is known of the way: rtt of its first hop, 0: nothing; searching: its rate is still being found, and what queues
 * meanwhile is no standing queue.  Told as often as it may have changed. */
void queue_way(struct queue *self, uint64_t rtt, bool searching, uint64_t now);

/* The size of the next packet of the bucket whose turn it is, and its bucket's index; 0: the queue is empty. */
size_t queue_next_bytes(const struct queue *self, unsigned *bucket);
/* The next packet of the bucket whose turn it is, still queued; NULL: the queue is empty. */
const struct queued *queue_next(const struct queue *self);
/* Take the next packet of the bucket whose turn it is; the caller frees it.  NULL: CoDel dropped what was left of the
 * bucket, or the queue is empty.  If CoDel dropped some, the packet may be larger than queue_next_bytes() said.
 * backlog_bytes_min: what the next frame takes anyway, which is no standing queue. */
struct queued *queue_take(struct queue *self, size_t backlog_bytes_min, uint64_t now);
/* The bundle is full: the next bucket's turn.  A bucket that was emptied has left already; no-op then. */
void queue_turn(struct queue *self);
/* Put the packet back in front, shortened: what was split off it has gone. */
void queue_unshift(struct queue *self, struct queued *packet);

void queue_drop_aged(struct queue *self, uint64_t age_max, uint64_t now);
uint64_t queue_oldest_at(const struct queue *self); /* UINT64_MAX: empty */
void queue_clear(struct queue *self);

struct queue_counts {
    uint64_t bytes, packets; /* that wait */
    uint64_t marked; /* ever */
};
struct queue_counts queue_counts(const struct queue *self);

#endif
