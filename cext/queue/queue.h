/* One destination's packets: in order within every flow, bounded in bytes, packets and, while held, age; CoDel with ECN
 * once they move (RFC 8289, RFC 8290).  The twin of conflux/datapath/reference/{queue,codel}.py, rule for rule; their
 * comments say why.  Knows no stream and no route: it is told when packets have somewhere to go.
 *
 * Times are nanoseconds of one monotonic clock. */

#ifndef CONFLUX_QUEUE_H
#define CONFLUX_QUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "packet/packet.h"

enum { QUEUE_BUCKET_COUNT = 8 };

/* A packet that waits, with its offload header; queued_new() allocates it. */
struct queued {
    struct queued *next;
    uint64_t queued_at;
    uint32_t flow;
    uint32_t size;
    bool ordered; /* its flow needs order (TCP): it goes in an ordered message */
    struct offload offload;
    uint8_t data[];
};

struct queued *queued_new(size_t size); /* NULL: no memory */
void queued_delete(struct queued *self);

enum queue_drop { QUEUE_FULL, QUEUE_AGED, QUEUE_CODEL, QUEUE_CLEARED };

struct queue; /* one destination's packets */

struct queue_all { /* the sum over the queues of all destinations */
    size_t bytes, bytes_max;
};

/* drop is called once per dropped packet, before it is freed.  together outlives the queue. */
struct queue *queue_new(size_t bytes_max, size_t packets_max, struct queue_all *together,
                        void (*drop)(void *context, enum queue_drop why), void *context);
void queue_delete(struct queue *self); /* its packets are dropped as QUEUE_CLEARED */

/* now: when the packet came.  It goes behind the older packets of its flow, before the newer ones. */
void queue_push(struct queue *self, struct queued *packet, uint64_t now);
/* From now on packets have somewhere to go (move), or wait (hold). */
void queue_move(struct queue *self, uint64_t now);
void queue_hold(struct queue *self);
/* Set what is known about the way.  rtt_ns: of its first hop; 0: not known.  searching: its rate is not found yet,
 * and the queue meanwhile is no standing queue.  Called whenever either may have changed. */
void queue_way(struct queue *self, uint64_t rtt_ns, bool searching, uint64_t now);

/* The size of the next packet of the bucket whose turn it is, and that bucket's index; 0: the queue is empty. */
size_t queue_next_bytes(const struct queue *self, unsigned *bucket);
/* The next packet of the bucket whose turn it is, still queued; NULL: the queue is empty. */
const struct queued *queue_next(const struct queue *self);
/* Take the next packet of the bucket whose turn it is; the caller frees it.  NULL: CoDel dropped the rest of the
 * bucket, or the queue is empty.  If CoDel dropped some, the packet may be larger than queue_next_bytes() said.
 * backlog_bytes_min: what the next frame will take anyway, which is no standing queue. */
struct queued *queue_take(struct queue *self, size_t backlog_bytes_min, uint64_t now);
/* The bundle is full: it is the next bucket's turn.  No-op if the bucket was emptied: it has left the turns already. */
void queue_turn(struct queue *self);
/* Put a packet, or a piece of it, back in front: other pieces of it may have gone. */
void queue_unshift(struct queue *self, struct queued *packet);

void queue_drop_aged(struct queue *self, uint64_t age_ns_max, uint64_t now);
uint64_t queue_oldest_at(const struct queue *self); /* UINT64_MAX: empty */
void queue_clear(struct queue *self);

struct queue_counts {
    uint64_t bytes, packets; /* that wait */
    uint64_t marked; /* ever */
};
struct queue_counts queue_counts(const struct queue *self);

#endif
