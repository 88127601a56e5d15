#include "policy/flow.h"

#include <stdbool.h>
#include <string.h>

#include "base/bytes.h"

enum {
    IPV4_HEADER_BYTES = 20,
    IPV6_HEADER_BYTES = 40,
    EXTENSION_COUNT_MAX = 6,
    EXTENSION_BYTES_MIN = 8,

    HOP_BY_HOP = 0,
    ICMP = 1,
    TCP = 6,
    UDP = 17,
    ROUTING = 43,
    FRAGMENT = 44,
    AUTHENTICATION = 51,
    ICMPV6 = 58,
    OPTIONS = 60,
    SCTP = 132,

    SOURCE_ROUTE = 0,
    OPTION_END = 0,
    NO_OPERATION = 1,
    LOOSE_ROUTE = 131,
    STRICT_ROUTE = 137,
    IPV4_MORE = 0x2000,
    IPV4_OFFSET = 0x1FFF,
    IPV6_MORE = 1,
    IPV6_OFFSET = 0xFFF8,
};

static const uint8_t MAPPED[12] = {[10] = 0xFF, [11] = 0xFF};

/* What the network layer says; at: where the transport header begins, offset: of a piece in bytes. */
struct network {
    size_t at, offset;
    uint8_t protocol;
    bool more;
};

/* Why a packet with these options of IPv4 is unfit. */
static enum flow_unfit read_options(const uint8_t *options, size_t size)
{
    size_t bytes;

    for (size_t at = 0; at < size && options[at] != OPTION_END; at += bytes) {
        bytes = 1;
        if (options[at] == LOOSE_ROUTE || options[at] == STRICT_ROUTE)
            return FLOW_ROUTING;
        if (options[at] == NO_OPERATION)
            continue;
        bytes = at + 1 < size ? options[at + 1] : 0;
        if (bytes < 2 || bytes > size - at)
            return FLOW_LENGTH;
    }
    return FLOW_FIT;
}

static enum flow_unfit read_ipv4(const uint8_t *packet, size_t size, struct flow *out, struct network *network)
{
    if (size < IPV4_HEADER_BYTES)
        return FLOW_SHORT;
    size_t header_bytes = (size_t)(packet[0] & 15) * 4;
    if (header_bytes < IPV4_HEADER_BYTES || header_bytes > size || load_be16(packet + 2) != size)
        return FLOW_LENGTH;
    enum flow_unfit unfit = read_options(packet + IPV4_HEADER_BYTES, header_bytes - IPV4_HEADER_BYTES);
    if (unfit != FLOW_FIT)
        return unfit;
    uint16_t bits = load_be16(packet + 6);
    memcpy(out->source, MAPPED, sizeof MAPPED);
    memcpy(out->source + sizeof MAPPED, packet + 12, 4);
    memcpy(out->destination, MAPPED, sizeof MAPPED);
    memcpy(out->destination + sizeof MAPPED, packet + 16, 4);
    out->fragment = load_be16(packet + 4);
    network->protocol = packet[9];
    network->at = header_bytes;
    network->offset = (size_t)(bits & IPV4_OFFSET) * 8;
    network->more = (bits & IPV4_MORE) != 0;
    return FLOW_FIT;
}

static bool is_extension(uint8_t protocol)
{
    return protocol == HOP_BY_HOP || protocol == ROUTING || protocol == FRAGMENT || protocol == AUTHENTICATION ||
           protocol == OPTIONS;
}

static enum flow_unfit read_ipv6(const uint8_t *packet, size_t size, struct flow *out, struct network *network)
{
    if (size < IPV6_HEADER_BYTES)
        return FLOW_SHORT;
    if (load_be16(packet + 4) + (size_t)IPV6_HEADER_BYTES != size)
        return FLOW_LENGTH;
    memcpy(out->source, packet + 8, FLOW_ADDRESS_BYTES);
    memcpy(out->destination, packet + 24, FLOW_ADDRESS_BYTES);
    if (memcmp(out->source, MAPPED, sizeof MAPPED) == 0 || memcmp(out->destination, MAPPED, sizeof MAPPED) == 0)
        return FLOW_MAPPED;
    bool fragmented = false;
    *network = (struct network){.protocol = packet[6], .at = IPV6_HEADER_BYTES};
    for (int count = 0; is_extension(network->protocol); count++) {
        const uint8_t *header = packet + network->at;
        if (count == EXTENSION_COUNT_MAX)
            return FLOW_HEADERS;
        if (size - network->at < EXTENSION_BYTES_MIN)
            return FLOW_SHORT;
        size_t bytes = ((size_t)header[1] + 1) * 8;
        if (network->protocol == FRAGMENT) {
            if (fragmented)
                return FLOW_HEADERS;
            fragmented = true;
            bytes = 8;
            network->offset = load_be16(header + 2) & IPV6_OFFSET;
            network->more = (header[3] & IPV6_MORE) != 0;
            out->fragment = load_be32(header + 4);
            if ((network->offset > 0 || network->more) && is_extension(header[0]))
                return FLOW_HEADERS;
        } else if (network->protocol == AUTHENTICATION) {
            bytes = ((size_t)header[1] + 2) * 4;
        } else if (network->protocol == ROUTING && header[2] == SOURCE_ROUTE) {
            return FLOW_ROUTING;
        }
        if (size - network->at < bytes)
            return FLOW_SHORT;
        network->protocol = header[0];
        network->at += bytes;
    }
    return FLOW_FIT;
}

static size_t transport_bytes(uint8_t protocol)
{
    switch (protocol) {
    case TCP:
        return 20;
    case SCTP:
        return 12;
    case UDP:
    case ICMP:
    case ICMPV6:
        return 8;
    default:
        return 0;
    }
}

static enum flow_unfit read_icmp(const uint8_t *header, uint8_t protocol, size_t at, struct flow *out)
{
    uint8_t type = header[0];
    bool v4 = protocol == ICMP;

    if (v4 ? type == 5 || type == 9 || type == 10 : (type >= 130 && type <= 137) || type == 143)
        return FLOW_LINK;
    out->key |= type;
    if (v4 ? type == 8 || type == 0 : type == 128 || type == 129)
        out->source_port = load_be16(header + 4);
    if (v4 ? type == 3 || type == 11 || type == 12 : type >= 1 && type <= 4)
        out->error_at = at + 8;
    return FLOW_FIT;
}

static enum flow_unfit read_transport(const uint8_t *packet, size_t size, struct flow *out,
                                      const struct network *network)
{
    uint8_t protocol = network->protocol;
    size_t header_bytes = transport_bytes(protocol);
    const uint8_t *header = packet + network->at;

    if (protocol == (packet[0] >> 4 == 4 ? ICMPV6 : ICMP))
        return FLOW_LINK;
    out->key = (uint32_t)protocol << 16;
    if (network->offset > 0) {
        out->piece = FLOW_LATER;
        return network->offset < header_bytes ? FLOW_PIECE : FLOW_FIT;
    }
    if (size - network->at < header_bytes)
        return FLOW_SHORT;
    out->piece = network->more ? FLOW_FIRST : FLOW_WHOLE;
    if (!network->more)
        out->fragment = 0;
    switch (protocol) {
    case TCP:
        out->tcp_flags = header[13];
        /* fall through */
    case UDP:
    case SCTP:
        out->source_port = load_be16(header);
        out->key |= load_be16(header + 2);
        return FLOW_FIT;
    case ICMP:
    case ICMPV6:
        return read_icmp(header, protocol, network->at, out);
    default:
        return FLOW_FIT;
    }
}

enum flow_unfit flow_read_untrusted(const uint8_t *packet, size_t size, struct flow *out)
{
    struct network network = {.at = 0};

    *out = (struct flow){.key = 0};
    if (size == 0)
        return FLOW_SHORT;
    uint8_t version = packet[0] >> 4;
    if (version != 4 && version != 6)
        return FLOW_VERSION;
    enum flow_unfit unfit =
        version == 4 ? read_ipv4(packet, size, out, &network) : read_ipv6(packet, size, out, &network);
    return unfit == FLOW_FIT ? read_transport(packet, size, out, &network) : unfit;
}
