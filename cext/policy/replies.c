#include "policy/replies.h"

#include <stdlib.h>
#include <string.h>

#include "base/mix.h"

enum {
    WAYS = 8,
    SLOT_BYTES = 64, /* a cache line */
    ROOM_MAX = 1 << 22,

    ICMP = 1,
    TCP = 6,
    ICMPV6 = 58,

    SEEN_OUT = 1,
    SEEN_IN = 2,
    CLOSING = 4,
};

static const uint64_t SECOND_NS = 1000000000;

/* Seconds that an entry outlives its last packet.  A TCP connection may be silent for the two hours after which a kernel
 * probes it (RFC 1122, 4.2.3.6); one half open or at its end has minutes, as in other stateful filters.  Datagrams have
 * less than most NATs give them (RFC 4787, REQ-5: two minutes) while they are unanswered. */
enum {
    TCP_OPEN_S = 7200,
    TCP_OPENING_S = 300,
    TCP_CLOSING_S = 120,
    ANSWERED_S = 180,
    UNANSWERED_S = 30,
    ECHO_S = 30,
};

struct tuple {
    uint8_t local[FLOW_ADDRESS_BYTES], remote[FLOW_ADDRESS_BYTES];
    uint32_t peer;
    uint16_t local_port, remote_port;
    uint32_t protocol;
};

_Static_assert(sizeof(struct tuple) == 44, "without padding: it is compared and hashed as bytes");

struct slot {
    struct tuple tuple;
    uint32_t policy;
    uint64_t seen_ns; /* when the last packet was */
    uint8_t seen; /* 0: free */
};

struct replies {
    struct slot *slots;
    uint16_t *marks; /* of each slot a part of its hash, so that a miss reads two lines and not sixteen; 0: free */
    uint64_t seed, displaced;
    uint32_t set_count;
};

/* The two sets that may hold a flow, by the numbers of their first slots, and its mark. */
struct place {
    size_t sets[2];
    uint16_t mark;
};

_Static_assert(sizeof(struct slot) == SLOT_BYTES, "an entry is a cache line");

struct replies *replies_new(uint32_t room, uint64_t seed)
{
    if (room < WAYS || room > ROOM_MAX || (room & (room - 1)) != 0)
        return NULL;
    struct replies *self = malloc(sizeof *self);
    if (self == NULL)
        return NULL;
    *self = (struct replies){.seed = seed, .set_count = room / WAYS};
    self->slots = aligned_alloc(SLOT_BYTES, (size_t)room * SLOT_BYTES);
    self->marks = calloc(room, sizeof *self->marks);
    if (self->slots == NULL || self->marks == NULL) {
        replies_free(self);
        return NULL;
    }
    memset(self->slots, 0, (size_t)room * SLOT_BYTES);
    return self;
}

void replies_free(struct replies *self)
{
    if (self == NULL)
        return;
    free(self->slots);
    free(self->marks);
    free(self);
}

uint64_t replies_displaced(const struct replies *self) { return self->displaced; }

/* The two ends of a packet's flow as the table has them.  False: it has none. */
static bool tuple_of(uint32_t peer, const struct flow *flow, enum replies_way way, struct tuple *out)
{
    bool sent = way == REPLIES_OUT;
    uint32_t protocol = flow->key >> 16;
    uint16_t port = (uint16_t)flow->key;

    if (flow->piece == FLOW_LATER)
        return false;
    *out = (struct tuple){.peer = peer, .protocol = protocol};
    memcpy(out->local, sent ? flow->source : flow->destination, FLOW_ADDRESS_BYTES);
    memcpy(out->remote, sent ? flow->destination : flow->source, FLOW_ADDRESS_BYTES);
    if (protocol == ICMP || protocol == ICMPV6) {
        uint16_t wanted = protocol == ICMP ? (sent ? 8 : 0) : (sent ? 128 : 129);
        out->local_port = flow->source_port; /* the identifier, the same both ways */
        return port == wanted;
    }
    out->local_port = sent ? flow->source_port : port;
    out->remote_port = sent ? port : flow->source_port;
    return true;
}

static struct place place_of(const struct replies *self, const struct tuple *tuple)
{
    uint64_t words[(sizeof *tuple + 7) / 8] = {0}, hash = self->seed;
    size_t last = self->set_count - 1;

    memcpy(words, tuple, sizeof *tuple);
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        hash = mix64(hash ^ words[i]);
    return (struct place){{(hash & last) * WAYS, (hash >> 24 & last) * WAYS}, (uint16_t)(hash >> 48 | 1)};
}

static uint64_t life_ns(const struct slot *slot)
{
    bool answered = (slot->seen & SEEN_OUT) != 0 && (slot->seen & SEEN_IN) != 0;

    switch (slot->tuple.protocol) {
    case TCP:
        return SECOND_NS * (slot->seen & CLOSING ? TCP_CLOSING_S : answered ? TCP_OPEN_S : TCP_OPENING_S);
    case ICMP:
    case ICMPV6:
        return SECOND_NS * ECHO_S;
    default:
        return SECOND_NS * (answered ? ANSWERED_S : UNANSWERED_S);
    }
}

static bool is_alive(const struct slot *slot, uint64_t now_ns)
{
    return slot->seen != 0 && now_ns < slot->seen_ns + life_ns(slot);
}

static struct slot *find(const struct replies *self, const struct tuple *tuple)
{
    struct place place = place_of(self, tuple);

    for (int choice = 0; choice < 2; choice++) {
        for (size_t at = place.sets[choice]; at < place.sets[choice] + WAYS; at++) {
            if (self->marks[at] == place.mark && memcmp(&self->slots[at].tuple, tuple, sizeof *tuple) == 0)
                return &self->slots[at];
        }
    }
    return NULL;
}

static void note(struct slot *slot, const struct flow *flow, enum replies_way way, uint64_t now_ns)
{
    if (way == REPLIES_OUT && (flow->tcp_flags & (FLOW_SYN | FLOW_ACK)) == FLOW_SYN)
        slot->seen = 0; /* another connection with the same ports */
    slot->seen |= (uint8_t)(way == REPLIES_OUT ? SEEN_OUT : SEEN_IN);
    if (flow->tcp_flags & (FLOW_FIN | FLOW_RST))
        slot->seen |= CLOSING;
    slot->seen_ns = now_ns;
}

enum replies_found replies_look(struct replies *self, uint32_t peer, const struct flow *flow, enum replies_way way,
                                uint32_t policy, uint64_t now_ns)
{
    struct tuple tuple;
    struct slot *slot = tuple_of(peer, flow, way, &tuple) ? find(self, &tuple) : NULL;

    if (slot == NULL || !is_alive(slot, now_ns))
        return REPLIES_NONE;
    if (slot->policy != policy)
        return REPLIES_STALE;
    note(slot, flow, way, now_ns);
    return REPLIES_HELD;
}

/* A new entry, in the set with more room: in a slot that is free or over, else in place of the one that was silent for
 * longest. */
static struct slot *enter(struct replies *self, const struct tuple *tuple, uint64_t now_ns)
{
    struct place place = place_of(self, tuple);
    struct slot *oldest = NULL, *best = NULL;
    int least = WAYS;

    for (int choice = 0; choice < 2; choice++) {
        struct slot *set = self->slots + place.sets[choice], *room = NULL;
        int alive = 0;
        for (int i = 0; i < WAYS; i++) {
            if (!is_alive(&set[i], now_ns))
                room = &set[i];
            else
                alive++;
            if (oldest == NULL || set[i].seen_ns < oldest->seen_ns)
                oldest = &set[i];
        }
        if (alive < least) {
            least = alive;
            best = room;
        }
    }
    if (best == NULL) {
        best = oldest;
        self->displaced++;
    }
    self->marks[best - self->slots] = place.mark;
    *best = (struct slot){.tuple = *tuple};
    return best;
}

void replies_begin(struct replies *self, uint32_t peer, const struct flow *flow, enum replies_way way, uint32_t policy,
                   uint64_t now_ns)
{
    struct tuple tuple;

    if (!tuple_of(peer, flow, way, &tuple))
        return;
    struct slot *slot = find(self, &tuple);
    if (slot == NULL)
        slot = enter(self, &tuple, now_ns);
    else if (!is_alive(slot, now_ns))
        slot->seen = 0;
    slot->policy = policy;
    note(slot, flow, way, now_ns);
}

void replies_end(struct replies *self, uint32_t peer, const struct flow *flow, enum replies_way way)
{
    struct tuple tuple;
    struct slot *slot = tuple_of(peer, flow, way, &tuple) ? find(self, &tuple) : NULL;

    if (slot == NULL)
        return;
    slot->seen = 0;
    self->marks[slot - self->slots] = 0;
}

uint32_t replies_count(const struct replies *self, uint64_t now_ns)
{
    uint32_t count = 0;

    for (size_t i = 0; i < (size_t)self->set_count * WAYS; i++)
        count += is_alive(&self->slots[i], now_ns);
    return count;
}
