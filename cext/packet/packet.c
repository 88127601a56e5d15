#include "packet/packet.h"

#include <string.h>

#include "base/bytes.h"

enum {
    IPV4_HEADER_BYTES_MIN = 20,
    IPV6_HEADER_BYTES = 40,
    TCP_HEADER_BYTES_MIN = 20,
    UDP_HEADER_BYTES = 8,

    PROTOCOL_HOP_BY_HOP = 0,
    PROTOCOL_IPV4 = 4,
    PROTOCOL_TCP = 6,
    PROTOCOL_UDP = 17,
    PROTOCOL_IPV6 = 41,
    PROTOCOL_ROUTING = 43,
    PROTOCOL_GRE = 47,
    PROTOCOL_OPTIONS = 60,
    PROTOCOL_SCTP = 132,
    PROTOCOL_UDP_LITE = 136,

    IPV4_FRAGMENT = 0x3FFF, /* more-fragments flag and offset */
    ECN = 3,
    PORTS_BYTES = 4,
    EXTENSION_COUNT_MAX = 4, /* no honest packet has more: three kinds may stand before TCP */

    TCP_SEQUENCE_AT = 4,
    TCP_DATA_OFFSET_AT = 12,
    TCP_FLAGS_AT = 13,
    TCP_CHECKSUM_AT = 16,
    TCP_FIN = 0x01,
    TCP_PSH = 0x08,
    TCP_CWR = 0x80,
    UDP_LENGTH_AT = 4,
    UDP_CHECKSUM_AT = 6,
    CHECKSUM_BYTES = 2,

    /* struct virtio_net_hdr */
    NEEDS_CHECKSUM = 1,
    DATA_VALID = 2,
    SEGMENT_ECN = 0x80,

    /* Linux sends no smaller TCP segments (tcp_min_snd_mss of 48, less 40 of options) and no more UDP segments at once
     * (UDP_MAX_SEGMENTS).  Without these bounds one packet of a peer could cost us tens of thousands. */
    TCP_SEGMENT_BYTES_MIN = 8,
    UDP_SEGMENT_COUNT_MAX = 128,
};

const char *packet_fault_name(enum packet_fault fault)
{
    switch (fault) {
    case PACKET_OK:
        return "ok";
    case PACKET_SHORT:
        return "packet-short";
    case PACKET_VERSION:
        return "packet-version";
    case PACKET_LENGTH:
        return "packet-length";
    case PACKET_OFFLOAD:
        break;
    }
    return "offload";
}

/* ── flow ────────────────────────────────────────────────────────────────────────────────────────────────────────── */

/* CRC-32 as in zlib (polynomial 0xEDB88320, reflected), four bytes a step.  It is linear: an entry is the sum of
 * its bits' values, so eight numbers make a table. */
#define BIT(i, bit, term) ((i) & (bit) ? (term) : 0u)
#define SUM(i, a, b, c, d, e, f, g, h)                                                                                 \
    (BIT(i, 1, a) ^ BIT(i, 2, b) ^ BIT(i, 4, c) ^ BIT(i, 8, d) ^ BIT(i, 16, e) ^ BIT(i, 32, f) ^ BIT(i, 64, g) ^       \
     BIT(i, 128, h))
#define LAST(i) SUM(i, 0x77073096, 0xEE0E612C, 0x076DC419, 0x0EDB8832, 0x1DB71064, 0x3B6E20C8, 0x76DC4190, 0xEDB88320)
#define THIRD(i) SUM(i, 0x191B3141, 0x32366282, 0x646CC504, 0xC8D98A08, 0x4AC21251, 0x958424A2, 0xF0794F05, 0x3B83984B)
#define SECOND(i) SUM(i, 0x01C26A37, 0x0384D46E, 0x0709A8DC, 0x0E1351B8, 0x1C26A370, 0x384D46E0, 0x709A8DC0, 0xE1351B80)
#define FIRST(i) SUM(i, 0xB8BC6765, 0xAA09C88B, 0x8F629757, 0xC5B428EF, 0x5019579F, 0xA032AF3E, 0x9B14583D, 0xED59B63B)
#define ROW4(of, i) of(i), of((i) + 1), of((i) + 2), of((i) + 3)
#define ROW16(of, i) ROW4(of, i), ROW4(of, (i) + 4), ROW4(of, (i) + 8), ROW4(of, (i) + 12)
#define ROW64(of, i) ROW16(of, i), ROW16(of, (i) + 16), ROW16(of, (i) + 32), ROW16(of, (i) + 48)
#define ROW256(of) {ROW64(of, 0), ROW64(of, 64), ROW64(of, 128), ROW64(of, 192)}

static const uint32_t CRC[4][256] = {ROW256(LAST), ROW256(THIRD), ROW256(SECOND), ROW256(FIRST)};

/* zlib's crc32(at[:size], crc) */
static uint32_t crc32(const uint8_t *at, size_t size, uint32_t crc)
{
    crc = ~crc;
    for (; size >= 4; at += 4, size -= 4) {
        crc ^= (uint32_t)at[3] << 24 | (uint32_t)at[2] << 16 | (uint32_t)at[1] << 8 | at[0];
        crc = CRC[3][crc & 255] ^ CRC[2][crc >> 8 & 255] ^ CRC[1][crc >> 16 & 255] ^ CRC[0][crc >> 24];
    }
    for (; size > 0; at++, size--)
        crc = crc >> 8 ^ CRC[0][(crc ^ *at) & 255];
    return ~crc;
}

static bool has_ports(uint8_t protocol)
{
    return protocol == PROTOCOL_TCP || protocol == PROTOCOL_UDP || protocol == PROTOCOL_SCTP ||
           protocol == PROTOCOL_UDP_LITE; /* all have their ports in the same place */
}

static enum packet_fault parse_ipv4(const uint8_t *packet, size_t size, struct packet_view *out)
{
    size_t header_size = (size_t)(packet[0] & 15) * 4;

    if (header_size < IPV4_HEADER_BYTES_MIN || load_be16(packet + 2) != size || header_size > size)
        return PACKET_LENGTH;
    out->source = packet + 12;
    out->destination = packet + 16;
    out->address_bytes = 4;
    out->protocol = packet[9];
    out->flow = crc32(packet + 12, 8, out->protocol);
    /* Fragments count as without ports, the first one too, so that all pieces of a datagram share a flow. */
    if (has_ports(out->protocol) && (load_be16(packet + 6) & IPV4_FRAGMENT) == 0) {
        size_t left = size - header_size;
        out->flow = crc32(packet + header_size, left < PORTS_BYTES ? left : PORTS_BYTES, out->flow);
    }
    return PACKET_OK;
}

static enum packet_fault parse_ipv6(const uint8_t *packet, size_t size, struct packet_view *out)
{
    if (size < IPV6_HEADER_BYTES)
        return PACKET_SHORT;
    if (load_be16(packet + 4) + (size_t)IPV6_HEADER_BYTES != size)
        return PACKET_LENGTH;
    out->source = packet + 8;
    out->destination = packet + 24;
    out->address_bytes = 16;
    out->protocol = packet[6];
    /* Any extension header, also the fragment header, ends the search for ports. */
    size_t left = size - 8, hashed = has_ports(out->protocol) ? 32 + PORTS_BYTES : 32;
    out->flow = crc32(packet + 8, left < hashed ? left : hashed, out->protocol);
    return PACKET_OK;
}

enum packet_fault packet_parse(const uint8_t *packet, size_t size, struct packet_view *out)
{
    if (size < IPV4_HEADER_BYTES_MIN)
        return PACKET_SHORT;
    switch (packet[0] >> 4) {
    case 4:
        return parse_ipv4(packet, size, out);
    case 6:
        return parse_ipv6(packet, size, out);
    default:
        return PACKET_VERSION;
    }
}

/* ── checksums ───────────────────────────────────────────────────────────────────────────────────────────────────── */

/* The ones' complement sum in the machine's byte order (RFC 1071, section 2 (B)).  Sums of 32-bit words cannot
 * overflow 64 bits, and the compiler adds several at once. */
static uint64_t sum_of(const uint8_t *at, size_t size)
{
    uint64_t sum = 0;
    size_t word_count = size / 4;
    uint32_t word = 0;

    for (size_t i = 0; i < word_count; i++) {
        memcpy(&word, at + 4 * i, 4);
        sum += word;
    }
    word = 0;
    memcpy(&word, at + 4 * word_count, size % 4);
    return sum + word;
}

static uint16_t fold(uint64_t sum)
{
    sum = (sum & 0xFFFFFFFF) + (sum >> 32);
    sum = (sum & 0xFFFF) + (sum >> 16 & 0xFFFF) + (sum >> 32);
    sum = (sum & 0xFFFF) + (sum >> 16);
    return (uint16_t)((sum & 0xFFFF) + (sum >> 16));
}

bool packet_mark_congestion(uint8_t *packet)
{
    if (packet[0] >> 4 == 4) {
        uint8_t ecn = packet[1] & ECN;
        if (ecn == 0)
            return false;
        if (ecn == ECN)
            return true;
        uint16_t before = load_be16(packet), after = before | ECN;
        /* RFC 1624, equation 3: the checksum is updated, not recomputed, so a wrong one stays wrong. */
        uint64_t sum = (uint64_t)(uint16_t)~load_be16(packet + 10) + (uint16_t)~before + after;
        store_be16(packet, after);
        store_be16(packet + 10, (uint16_t)~fold(sum));
        return true;
    }
    if ((packet[1] >> 4 & ECN) == 0)
        return false;
    packet[1] |= ECN << 4;
    return true;
}

void packet_complete(struct offload *offload, uint8_t *packet, size_t size)
{
    if (!offload->checksum_wanted)
        return;
    /* The field already holds the pseudo-header's sum, and is part of the sum. */
    uint16_t checksum = (uint16_t)~fold(sum_of(packet + offload->checksum_start, size - offload->checksum_start));
    if (checksum == 0 && offload->checksum_offset == UDP_CHECKSUM_AT)
        checksum = 0xFFFF; /* 0 means that a datagram has no checksum (RFC 768) */
    memcpy(packet + offload->checksum_start + offload->checksum_offset, &checksum, sizeof checksum);
    *offload = (struct offload){.type = OFFLOAD_NONE};
}

/* ── offload header ──────────────────────────────────────────────────────────────────────────────────────────────── */

/* Where the transport header begins, and its protocol; 0: it is not found. */
static size_t transport_start(const uint8_t *packet, size_t size, uint8_t *protocol)
{
    if (packet[0] >> 4 == 4) {
        *protocol = packet[9];
        return load_be16(packet + 6) & IPV4_FRAGMENT ? 0 : (size_t)(packet[0] & 15) * 4;
    }
    size_t at = IPV6_HEADER_BYTES;
    *protocol = packet[6];
    for (int count = 0; count < EXTENSION_COUNT_MAX; count++) {
        if (*protocol != PROTOCOL_HOP_BY_HOP && *protocol != PROTOCOL_ROUTING && *protocol != PROTOCOL_OPTIONS)
            return at; /* a fragment header is no transport with checksums or segments */
        if (size - at < 8)
            return 0;
        size_t extension_bytes = ((size_t)packet[at + 1] + 1) * 8;
        if (size - at < extension_bytes)
            return 0;
        *protocol = packet[at];
        at += extension_bytes;
    }
    return 0;
}

struct transport {
    size_t start, end; /* of its header */
    size_t field; /* its checksum's place, counted from start; 0: a protocol whose checksum is not known here */
    uint8_t protocol;
};

/* Find the transport header.  False: a fragment, cut short, or with lengths that are not the packet's. */
static bool transport_find(const uint8_t *packet, size_t size, struct transport *out)
{
    size_t start = transport_start(packet, size, &out->protocol), header_bytes = 0;

    if (start == 0)
        return false;
    out->start = start;
    out->field = 0;
    if (out->protocol == PROTOCOL_TCP) {
        if (size - start < TCP_HEADER_BYTES_MIN)
            return false;
        header_bytes = (size_t)(packet[start + TCP_DATA_OFFSET_AT] >> 4) * 4;
        if (header_bytes < TCP_HEADER_BYTES_MIN || header_bytes > size - start)
            return false;
        out->field = TCP_CHECKSUM_AT;
    } else if (out->protocol == PROTOCOL_UDP) {
        if (size - start < UDP_HEADER_BYTES || load_be16(packet + start + UDP_LENGTH_AT) != size - start)
            return false;
        header_bytes = UDP_HEADER_BYTES;
        out->field = UDP_CHECKSUM_AT;
    }
    out->end = start + header_bytes;
    return true;
}

/* Whether the wanted checksum is that of a packet inside a tunnel (VXLAN and the like, GRE, IP in IP): Linux leaves
 * that open too.  It must lie behind the outer headers that policy reads: else a peer could make our kernel write
 * another port there than the one that was let through. */
static bool checksum_is_tunnelled(const struct transport *outer, size_t start, size_t offset, size_t size)
{
    switch (outer->protocol) {
    case PROTOCOL_UDP:
    case PROTOCOL_IPV4:
    case PROTOCOL_IPV6:
    case PROTOCOL_GRE:
        return start >= outer->end && start + offset + CHECKSUM_BYTES <= size;
    default:
        return false;
    }
}

/* Whether a super-packet's type fits the packet, and its segments are neither too small nor too many. */
static bool segments_fit(uint8_t type, bool ecn, bool ipv4, uint8_t protocol, size_t payload, size_t segment_bytes)
{
    switch (type) {
    case OFFLOAD_TCP4:
        return ipv4 && protocol == PROTOCOL_TCP && segment_bytes >= TCP_SEGMENT_BYTES_MIN;
    case OFFLOAD_TCP6:
        return !ipv4 && protocol == PROTOCOL_TCP && segment_bytes >= TCP_SEGMENT_BYTES_MIN;
    case OFFLOAD_UDP:
        return protocol == PROTOCOL_UDP && !ecn && segment_bytes > 0 &&
               payload <= segment_bytes * UDP_SEGMENT_COUNT_MAX;
    default:
        return false;
    }
}

enum packet_fault offload_check_untrusted(const uint8_t header[OFFLOAD_BYTES], const uint8_t *packet, size_t size,
                                          struct offload *out)
{
    uint8_t flags = header[0], type = header[1] & (uint8_t)~SEGMENT_ECN;
    bool ecn = (header[1] & SEGMENT_ECN) != 0;
    uint16_t segment_bytes = load_le16(header + 4);
    uint16_t checksum_start = load_le16(header + 6), checksum_offset = load_le16(header + 8);

    *out = (struct offload){.type = OFFLOAD_NONE};
    if ((flags & ~(NEEDS_CHECKSUM | DATA_VALID)) != 0)
        return PACKET_OFFLOAD;
    if ((flags & NEEDS_CHECKSUM) == 0) /* a super-packet always wants checksums: those of its segments */
        return header[1] == OFFLOAD_NONE ? PACKET_OK : PACKET_OFFLOAD;

    struct transport transport;
    if (!transport_find(packet, size, &transport))
        return PACKET_OFFLOAD;
    size_t header_bytes = transport.end;
    if (checksum_start != transport.start || transport.field == 0 || checksum_offset != transport.field) {
        if (header[1] != OFFLOAD_NONE || !checksum_is_tunnelled(&transport, checksum_start, checksum_offset, size))
            return PACKET_OFFLOAD;
        header_bytes = (size_t)checksum_start + checksum_offset + CHECKSUM_BYTES;
    }
    if (header[1] != OFFLOAD_NONE) {
        size_t payload = size - header_bytes;
        if (!segments_fit(type, ecn, packet[0] >> 4 == 4, transport.protocol, payload, segment_bytes))
            return PACKET_OFFLOAD;
        if (payload > segment_bytes) { /* else it is one segment and needs no split, as in the kernel */
            out->type = type;
            out->ecn = ecn;
            out->segment_bytes = segment_bytes;
        }
    }
    out->checksum_wanted = true;
    out->header_bytes = (uint16_t)header_bytes;
    out->checksum_start = checksum_start;
    out->checksum_offset = checksum_offset;
    return PACKET_OK;
}

void offload_store(const struct offload *self, uint8_t header[OFFLOAD_BYTES])
{
    header[0] = self->checksum_wanted ? NEEDS_CHECKSUM : 0;
    header[1] = self->type | (self->ecn ? SEGMENT_ECN : 0);
    store_le16(header + 2, self->header_bytes);
    store_le16(header + 4, self->segment_bytes);
    store_le16(header + 6, self->checksum_start);
    store_le16(header + 8, self->checksum_offset);
}

bool offload_is_plain(const struct offload *self) { return self->type == OFFLOAD_NONE && !self->checksum_wanted; }

/* ── splitting ───────────────────────────────────────────────────────────────────────────────────────────────────── */

/* The bytes that are cut into pieces: a super-packet's payload, or any other packet as a whole. */
static size_t dealt_from(const struct split *self)
{
    return self->offload.type == OFFLOAD_NONE ? 0 : self->offload.header_bytes;
}

void split_start(struct split *self, const uint8_t *packet, size_t size, const struct offload *offload,
                 size_t piece_bytes_max, bool plain)
{
    *self = (struct split){.packet = packet, .size = size, .offload = *offload, .plain = plain};
    if (offload->type == OFFLOAD_NONE) {
        self->piece_payload_bytes = size;
        return;
    }
    size_t segment_bytes = offload->segment_bytes;
    self->piece_payload_bytes = segment_bytes;
    if (!plain && piece_bytes_max >= offload->header_bytes + 2 * segment_bytes)
        self->piece_payload_bytes = (piece_bytes_max - offload->header_bytes) / segment_bytes * segment_bytes;
}

static size_t split_next_payload(const struct split *self)
{
    size_t left = self->size - dealt_from(self) - self->next;
    return left < self->piece_payload_bytes ? left : self->piece_payload_bytes;
}

size_t split_next_bytes(const struct split *self)
{
    size_t payload = split_next_payload(self);
    return payload == 0 ? 0 : dealt_from(self) + payload;
}

/* Turn a super-packet's headers into those of a piece, as the kernel does. */
static void headers_mend(const struct split *self, uint8_t *piece, size_t size, bool last)
{
    const struct offload *offload = &self->offload;
    uint8_t *transport = piece + offload->checksum_start;

    if (piece[0] >> 4 == 4) {
        uint16_t checksum;
        store_be16(piece + 2, (uint16_t)size);
        store_be16(piece + 4, (uint16_t)(load_be16(piece + 4) + self->next / offload->segment_bytes));
        store_be16(piece + 10, 0);
        checksum = (uint16_t)~fold(sum_of(piece, (size_t)(piece[0] & 15) * 4));
        memcpy(piece + 10, &checksum, sizeof checksum);
    } else {
        store_be16(piece + 4, (uint16_t)(size - IPV6_HEADER_BYTES));
    }

    uint16_t length = (uint16_t)(size - offload->checksum_start);
    uint16_t length_before = (uint16_t)(self->size - offload->checksum_start);
    if (offload->type == OFFLOAD_UDP) {
        store_be16(transport + UDP_LENGTH_AT, length);
    } else {
        uint32_t sequence = load_be32(transport + TCP_SEQUENCE_AT);
        sequence += (uint32_t)self->next;
        store_be32(transport + TCP_SEQUENCE_AT, sequence);
        if (!last)
            transport[TCP_FLAGS_AT] &= (uint8_t)~(TCP_FIN | TCP_PSH);
        if (self->next > 0 && offload->ecn)
            transport[TCP_FLAGS_AT] &= (uint8_t)~TCP_CWR;
    }
    /* The field holds the pseudo-header's sum, and the length is part of that. */
    uint8_t *field = transport + offload->checksum_offset;
    store_be16(field, fold((uint64_t)load_be16(field) + length + (uint16_t)~length_before));
}

size_t split_next(struct split *self, uint8_t *room, struct offload *offload)
{
    size_t payload = split_next_payload(self), from = dealt_from(self), size = from + payload;

    if (payload == 0)
        return 0;
    *offload = self->offload;
    memcpy(room, self->packet, from);
    memcpy(room + from, self->packet + from + self->next, payload);
    if (offload->type != OFFLOAD_NONE) {
        headers_mend(self, room, size, size + self->next == self->size);
        if (payload <= offload->segment_bytes) {
            offload->type = OFFLOAD_NONE;
            offload->segment_bytes = 0;
        }
        if (offload->type == OFFLOAD_NONE || self->next > 0)
            offload->ecn = false;
    }
    self->next += payload;
    if (self->plain)
        packet_complete(offload, room, size);
    return size;
}
