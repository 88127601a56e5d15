#include "policy/guard.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "policy/flow.h"
#include "policy/policy.h"
#include "policy/replies.h"

enum {
    PEER = 0, /* the addresses of a flow say whose it is: no address has two members */
    PIECE_COUNT = 1024, /* datagrams whose first piece passed; a power of two */

    ICMP = 1,
    TCP = 6,
    UDP = 17,
    ICMPV6 = 58,
    SCTP = 132,
    IPV4_HEADER_BYTES = 20,
    IPV6_HEADER_BYTES = 40,
    QUOTED_BYTES = 8, /* of the transport header, at least (RFC 792) */
};

static const uint64_t PIECE_NS = 30000000000; /* as long as a host waits for the rest (RFC 791: 15 s; Linux: 30 s) */
static const uint8_t MAPPED[12] = {[10] = 0xff, [11] = 0xff};

struct piece {
    uint8_t source[FLOW_ADDRESS_BYTES], destination[FLOW_ADDRESS_BYTES];
    uint32_t fragment, protocol;
    uint64_t until_ns; /* 0: free */
};

struct guard {
    struct policy *in, *out;
    struct replies *replies;
    uint32_t number; /* of the pair of tables */
    struct piece pieces[PIECE_COUNT];
};

struct guard *guard_new(uint32_t flows, uint64_t seed)
{
    struct guard *self = calloc(1, sizeof *self);

    if (self == NULL)
        return NULL;
    self->replies = replies_new(flows, seed);
    if (self->replies == NULL) {
        free(self);
        return NULL;
    }
    return self;
}

void guard_free(struct guard *self)
{
    if (self == NULL)
        return;
    policy_free(self->in);
    policy_free(self->out);
    replies_free(self->replies);
    free(self);
}

bool guard_load_untrusted(struct guard *self, const uint8_t *in, size_t in_size, const uint8_t *out, size_t out_size)
{
    struct policy *new_in = policy_load_untrusted(in, in_size), *new_out = policy_load_untrusted(out, out_size);

    if (new_in == NULL || new_out == NULL) {
        policy_free(new_in);
        policy_free(new_out);
        return false;
    }
    policy_free(self->in);
    policy_free(self->out);
    self->in = new_in;
    self->out = new_out;
    self->number++;
    memset(self->pieces, 0, sizeof self->pieces); /* a datagram under way may be lost; its flow may be cut */
    return true;
}

static bool allows(const struct policy *table, const struct flow *flow)
{
    return policy_allows(table, policy_class_of(table, flow->source), flow);
}

/* The flow that a packet would answer: the same ends the other way round.  False: it answers none. */
static bool answered_by(const struct flow *flow, struct flow *out)
{
    uint32_t protocol = flow->key >> 16;
    uint16_t port = (uint16_t)flow->key;

    *out = *flow;
    memcpy(out->source, flow->destination, FLOW_ADDRESS_BYTES);
    memcpy(out->destination, flow->source, FLOW_ADDRESS_BYTES);
    if (protocol == ICMP || protocol == ICMPV6) {
        out->key = protocol << 16 | (protocol == ICMP ? 8 : 128);
        return port == (protocol == ICMP ? 0 : 129);
    }
    out->key = protocol << 16 | flow->source_port;
    out->source_port = port;
    return true;
}

/* ── pieces ── */

static struct piece *piece_place(struct guard *self, const struct flow *flow)
{
    uint64_t hash = flow->fragment * UINT64_C(0x9e3779b97f4a7c15);

    for (size_t at = 0; at < FLOW_ADDRESS_BYTES; at += 8) {
        hash = (hash ^ load_be64(flow->source + at)) * UINT64_C(0xbf58476d1ce4e5b9);
        hash = (hash ^ load_be64(flow->destination + at)) * UINT64_C(0x94d049bb133111eb);
    }
    return &self->pieces[(hash ^ hash >> 32) % PIECE_COUNT];
}

static void piece_note(struct guard *self, const struct flow *flow, bool passes, uint64_t now_ns)
{
    struct piece *piece = piece_place(self, flow);

    *piece = (struct piece){
        .fragment = flow->fragment,
        .protocol = flow->key >> 16,
        .until_ns = passes ? now_ns + PIECE_NS : 0, /* a second first piece may say another thing: the last one counts */
    };
    memcpy(piece->source, flow->source, FLOW_ADDRESS_BYTES);
    memcpy(piece->destination, flow->destination, FLOW_ADDRESS_BYTES);
}

static bool piece_passes(struct guard *self, const struct flow *flow, uint64_t now_ns)
{
    const struct piece *piece = piece_place(self, flow);

    return now_ns < piece->until_ns && piece->fragment == flow->fragment && piece->protocol == flow->key >> 16 &&
           memcmp(piece->source, flow->source, FLOW_ADDRESS_BYTES) == 0 &&
           memcmp(piece->destination, flow->destination, FLOW_ADDRESS_BYTES) == 0;
}

/* ── errors ── */

/* The flow of the packet that an ICMP error quotes, as far as it is quoted.  False: it has none that is known. */
static bool quoted_read_untrusted(const uint8_t *packet, size_t size, bool is_ipv4, struct flow *out)
{
    size_t at = IPV6_HEADER_BYTES;

    *out = (struct flow){.key = 0};
    if (is_ipv4) {
        at = size < IPV4_HEADER_BYTES ? size : (size_t)(packet[0] & 15) * 4;
        if (at < IPV4_HEADER_BYTES || packet[0] >> 4 != 4 || size < at + QUOTED_BYTES ||
            (load_be16(packet + 6) & 0x1fff) != 0)
            return false;
        memcpy(out->source, MAPPED, sizeof MAPPED);
        memcpy(out->source + sizeof MAPPED, packet + 12, 4);
        memcpy(out->destination, MAPPED, sizeof MAPPED);
        memcpy(out->destination + sizeof MAPPED, packet + 16, 4);
    } else {
        if (size < IPV6_HEADER_BYTES + QUOTED_BYTES || packet[0] >> 4 != 6)
            return false;
        memcpy(out->source, packet + 8, FLOW_ADDRESS_BYTES);
        memcpy(out->destination, packet + 24, FLOW_ADDRESS_BYTES);
    }
    uint32_t protocol = packet[is_ipv4 ? 9 : 6];
    const uint8_t *header = packet + at;
    out->key = protocol << 16;
    switch (protocol) {
    case TCP:
    case UDP:
    case SCTP:
        out->source_port = load_be16(header);
        out->key |= load_be16(header + 2);
        return true;
    case ICMP:
    case ICMPV6:
        out->source_port = load_be16(header + 4);
        out->key |= header[0];
        return true;
    default:
        return false;
    }
}

/* Whether an error is about what this board sent to its sender, and may send. */
static bool is_related(struct guard *self, const struct flow *flow, const uint8_t *packet, size_t size,
                       uint64_t now_ns)
{
    struct flow quoted, answered;

    if (flow->error_at == 0 || flow->error_at >= size ||
        !quoted_read_untrusted(packet + flow->error_at, size - flow->error_at, packet[0] >> 4 == 4, &quoted) ||
        memcmp(quoted.destination, flow->source, FLOW_ADDRESS_BYTES) != 0 ||
        memcmp(quoted.source, flow->destination, FLOW_ADDRESS_BYTES) != 0)
        return false;
    if (replies_look(self->replies, PEER, &quoted, REPLIES_OUT, self->number, now_ns) == REPLIES_HELD)
        return true;
    return answered_by(&quoted, &answered) && allows(self->in, &answered);
}

/* ── packets ── */

static bool may_come(struct guard *self, const struct flow *flow, const uint8_t *packet, size_t size, uint64_t now_ns)
{
    struct flow answered;

    if (allows(self->in, flow))
        return true;
    switch (replies_look(self->replies, PEER, flow, REPLIES_IN, self->number, now_ns)) {
    case REPLIES_HELD:
        return true;
    case REPLIES_STALE:
        if (answered_by(flow, &answered) && allows(self->out, &answered)) {
            replies_begin(self->replies, PEER, flow, REPLIES_IN, self->number, now_ns);
            return true;
        }
        replies_end(self->replies, PEER, flow, REPLIES_IN);
        return false;
    default:
        return is_related(self, flow, packet, size, now_ns);
    }
}

enum guard_verdict guard_in(struct guard *self, const uint8_t *packet, size_t size, uint64_t now_ns)
{
    struct flow flow;

    if (flow_read_untrusted(packet, size, &flow) != FLOW_FIT)
        return GUARD_UNFIT;
    if (flow.piece == FLOW_LATER)
        return piece_passes(self, &flow, now_ns) ? GUARD_PASS : GUARD_PIECE;
    bool passes = may_come(self, &flow, packet, size, now_ns);
    if (flow.piece == FLOW_FIRST)
        piece_note(self, &flow, passes, now_ns);
    return passes ? GUARD_PASS : GUARD_REFUSED;
}

enum guard_verdict guard_out(struct guard *self, const uint8_t *packet, size_t size, uint64_t now_ns)
{
    struct flow flow, answered;

    if (flow_read_untrusted(packet, size, &flow) != FLOW_FIT || flow.piece == FLOW_LATER || flow.error_at != 0)
        return GUARD_PASS; /* the far end judges */
    enum replies_found found = replies_look(self->replies, PEER, &flow, REPLIES_OUT, self->number, now_ns);
    if (found == REPLIES_HELD)
        return GUARD_PASS;
    if (allows(self->out, &flow)) {
        replies_begin(self->replies, PEER, &flow, REPLIES_OUT, self->number, now_ns);
        return GUARD_PASS;
    }
    if (found == REPLIES_STALE)
        replies_end(self->replies, PEER, &flow, REPLIES_OUT);
    return answered_by(&flow, &answered) && allows(self->in, &answered) ? GUARD_PASS : GUARD_REFUSED;
}
