#include "queue/queue.h"

#include <stdlib.h>

#include "base/check.h"
#include "queue/codel.h"
#include "queue/served.h"

/* The packets of some flows, oldest first. */
struct bucket {
    struct queued *oldest, *newest;
    size_t bytes;
    struct codel codel;
    size_t asked_count; /* of the oldest packets: taken and put back, so CoDel has decided about them */
};

struct queue {
    struct bucket buckets[QUEUE_BUCKET_COUNT];
    uint8_t turns[QUEUE_BUCKET_COUNT]; /* the buckets with packets; the next one served comes first */
    unsigned turn_count;
    int taken_from; /* the bucket of the bundle in the making; -1: none */
    bool moving;
    uint64_t moving_since;
    struct codel_pace pace;
    size_t bytes_max, packets_max;
    struct queue_all *together;
    struct served served;
    struct queue_counts counts;
    void (*drop)(void *context, enum queue_drop why);
    void *context;
};

struct queued *queued_new(size_t size)
{
    struct queued *self = size <= UINT32_MAX ? malloc(sizeof *self + size) : NULL;

    if (self != NULL)
        *self = (struct queued){.size = (uint32_t)size};
    return self;
}

void queued_delete(struct queued *self) { free(self); }

struct queue *queue_new(size_t bytes_max, size_t packets_max, struct queue_all *together,
                        void (*drop)(void *context, enum queue_drop why), void *context)
{
    struct queue *self = calloc(1, sizeof *self);

    if (self == NULL)
        return NULL;
    self->taken_from = -1;
    self->pace = (struct codel_pace){CODEL_TARGET_NS, CODEL_INTERVAL_NS};
    self->bytes_max = bytes_max;
    self->packets_max = packets_max;
    self->together = together;
    self->drop = drop;
    self->context = context;
    return self;
}

void queue_delete(struct queue *self)
{
    if (self == NULL)
        return;
    queue_clear(self);
    CHECK(self->counts.bytes == 0 && self->counts.packets == 0);
    free(self);
}

/* ── turns ───────────────────────────────────────────────────────────────────────────────────────────────────────── */

static void turns_append(struct queue *self, uint8_t index)
{
    CHECK(self->turn_count < QUEUE_BUCKET_COUNT);
    self->turns[self->turn_count++] = index;
}

static void turns_prepend(struct queue *self, uint8_t index)
{
    for (unsigned at = self->turn_count++; at > 0; at--)
        self->turns[at] = self->turns[at - 1];
    self->turns[0] = index;
}

static void turns_remove(struct queue *self, uint8_t index)
{
    unsigned at = 0;

    while (self->turns[at] != index)
        at++;
    CHECK(self->turn_count > 0);
    for (self->turn_count--; at < self->turn_count; at++)
        self->turns[at] = self->turns[at + 1];
}

/* ── packets ─────────────────────────────────────────────────────────────────────────────────────────────────────── */

static void waits(struct queue *self, struct bucket *bucket, const struct queued *packet)
{
    bucket->bytes += packet->size;
    self->counts.bytes += packet->size;
    self->together->bytes += packet->size;
    self->counts.packets++;
}

static void waits_no_more(struct queue *self, struct bucket *bucket, const struct queued *packet)
{
    CHECK(bucket->bytes >= packet->size && self->counts.bytes >= packet->size && self->together->bytes >= packet->size);
    CHECK(self->counts.packets > 0);
    bucket->bytes -= packet->size;
    self->counts.bytes -= packet->size;
    self->together->bytes -= packet->size;
    self->counts.packets--;
}

/* Take a bucket's oldest packet out of every sum, and an empty bucket out of the turns. */
static struct queued *oldest_take(struct queue *self, uint8_t index)
{
    struct bucket *bucket = &self->buckets[index];
    struct queued *packet = bucket->oldest;

    bucket->oldest = packet->next;
    if (bucket->asked_count > 0)
        bucket->asked_count--;
    waits_no_more(self, bucket, packet);
    packet->next = NULL;
    if (bucket->oldest == NULL) {
        bucket->newest = NULL;
        CHECK(bucket->bytes == 0 && bucket->asked_count == 0);
        turns_remove(self, index);
    }
    return packet;
}

static void drop(struct queue *self, struct queued *packet, enum queue_drop why)
{
    self->drop(self->context, why);
    queued_delete(packet);
}

static uint8_t largest_bucket(const struct queue *self)
{
    uint8_t largest = self->turns[0];

    for (unsigned at = 1; at < self->turn_count; at++)
        if (self->buckets[self->turns[at]].bytes > self->buckets[largest].bytes)
            largest = self->turns[at];
    return largest;
}

/* How many bytes may wait: no more than are left for all others. */
static size_t room(struct queue *self, uint64_t now)
{
    const struct queue_all *all = self->together;
    size_t free_bytes = all->bytes < all->bytes_max ? all->bytes_max - all->bytes : 0;
    size_t bound = served_bound(&self->served, self->bytes_max, now);

    return bound < free_bytes ? bound : free_bytes;
}

void queue_push(struct queue *self, struct queued *packet, uint64_t now)
{
    uint8_t index = (uint8_t)(packet->flow % QUEUE_BUCKET_COUNT);
    struct bucket *bucket = &self->buckets[index];

    packet->next = NULL;
    packet->queued_at = now;
    if (bucket->newest == NULL) {
        bucket->oldest = bucket->newest = packet;
        turns_append(self, index);
    } else if (now >= bucket->newest->queued_at) {
        bucket->newest->next = packet;
        bucket->newest = packet;
    } else { /* it waited elsewhere until its destination was known; newer packets of its flow may be here already */
        struct queued **at = &bucket->oldest;
        while ((*at)->queued_at <= now)
            at = &(*at)->next;
        packet->next = *at;
        *at = packet;
    }
    waits(self, bucket, packet);
    while (self->counts.bytes > room(self, now) || self->counts.packets > self->packets_max)
        drop(self, oldest_take(self, largest_bucket(self)), QUEUE_FULL);
}

static void codel_forget(struct queue *self)
{
    for (unsigned index = 0; index < QUEUE_BUCKET_COUNT; index++)
        self->buckets[index].codel = (struct codel){0};
}

void queue_move(struct queue *self, uint64_t now)
{
    if (self->moving)
        return;
    codel_forget(self);
    self->moving = true;
    self->moving_since = now;
}

void queue_hold(struct queue *self)
{
    codel_forget(self);
    self->moving = false;
}

void queue_way(struct queue *self, uint64_t rtt_ns, bool searching, uint64_t now)
{
    /* A packet that the hop repairs comes a round trip late, and the packets behind it in its flow wait: the flow's
     * own round trip is two of the hop's and more.  CUBIC yields 30 % at a drop, and needs nearly one RTT of the hop
     * as queue to keep the hop full.  That queue delays only the flow that made it. */
    uint64_t target_ns = rtt_ns < CODEL_INTERVAL_NS_MAX / 4 ? rtt_ns : CODEL_INTERVAL_NS_MAX / 4;

    self->pace.target_ns = target_ns > CODEL_TARGET_NS ? (uint32_t)target_ns : CODEL_TARGET_NS;
    self->pace.interval_ns = 4 * target_ns > CODEL_INTERVAL_NS ? (uint32_t)(4 * target_ns) : CODEL_INTERVAL_NS;
    if (searching && self->moving)
        self->moving_since = now;
}

size_t queue_next_bytes(const struct queue *self, unsigned *bucket)
{
    if (self->turn_count == 0)
        return 0;
    *bucket = self->turns[0];
    return self->buckets[self->turns[0]].oldest->size;
}

const struct queued *queue_next(const struct queue *self)
{
    return self->turn_count > 0 ? self->buckets[self->turns[0]].oldest : NULL;
}

/* Whether the packet just taken from a bucket is to be dropped; it may be marked instead. */
static bool codel_drops(struct queue *self, struct bucket *bucket, struct queued *packet, size_t backlog_bytes_min,
                        uint64_t now)
{
    /* A packet queued before packets could move waited for a link, not behind a standing queue. */
    uint64_t moving_since = self->moving ? self->moving_since : now;
    uint64_t sojourn = packet->queued_at <= moving_since ? 0 : now - packet->queued_at;

    if (!codel_signal(&bucket->codel, &self->pace, sojourn, bucket->bytes, backlog_bytes_min, now))
        return false;
    if (!packet_mark_congestion(packet->data))
        return true;
    self->counts.marked++;
    return false;
}

struct queued *queue_take(struct queue *self, size_t backlog_bytes_min, uint64_t now)
{
    if (self->turn_count == 0)
        return NULL;
    uint8_t index = self->turns[0];
    struct bucket *bucket = &self->buckets[index];

    self->taken_from = index;
    while (bucket->oldest != NULL) {
        bool asked = bucket->asked_count > 0;
        struct queued *packet = oldest_take(self, index);
        if (asked || !codel_drops(self, bucket, packet, backlog_bytes_min, now)) {
            served_add(&self->served, packet->size, now);
            return packet;
        }
        drop(self, packet, QUEUE_CODEL);
    }
    return NULL;
}

void queue_turn(struct queue *self)
{
    /* A bucket that was emptied by its bundle has left the turns already. */
    if (self->turn_count > 1 && (self->taken_from < 0 || self->taken_from == self->turns[0])) {
        uint8_t index = self->turns[0];
        turns_remove(self, index);
        turns_append(self, index);
    }
    self->taken_from = -1;
}

void queue_unshift(struct queue *self, struct queued *packet)
{
    uint8_t index = (uint8_t)(packet->flow % QUEUE_BUCKET_COUNT);
    struct bucket *bucket = &self->buckets[index];

    packet->next = bucket->oldest;
    bucket->oldest = packet;
    bucket->asked_count++;
    if (bucket->newest == NULL) {
        bucket->newest = packet;
        turns_prepend(self, index);
    }
    waits(self, bucket, packet);
    served_return(&self->served, packet->size);
}

void queue_drop_aged(struct queue *self, uint64_t age_ns_max, uint64_t now)
{
    for (uint8_t index = 0; index < QUEUE_BUCKET_COUNT; index++) {
        const struct bucket *bucket = &self->buckets[index];
        while (bucket->oldest != NULL && now >= bucket->oldest->queued_at &&
               now - bucket->oldest->queued_at >= age_ns_max)
            drop(self, oldest_take(self, index), QUEUE_AGED);
    }
}

uint64_t queue_oldest_at(const struct queue *self)
{
    uint64_t oldest_at = UINT64_MAX;

    for (unsigned at = 0; at < self->turn_count; at++) {
        uint64_t queued_at = self->buckets[self->turns[at]].oldest->queued_at;
        oldest_at = queued_at < oldest_at ? queued_at : oldest_at;
    }
    return oldest_at;
}

void queue_clear(struct queue *self)
{
    while (self->turn_count > 0)
        drop(self, oldest_take(self, self->turns[0]), QUEUE_CLEARED);
}

struct queue_counts queue_counts(const struct queue *self) { return self->counts; }
