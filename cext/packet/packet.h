/* IP packets as the TUN device gives and takes them: what is read of a packet, its offload header, and how a
 * super-packet is split.  It checks strictly what is used, and ignores the rest.  Knows no table, no key and no peer.
 *
 * The offload header is Linux's struct virtio_net_hdr, ten bytes, little-endian; with it a TCP or UDP packet may be
 * many wire packets in one ("super-packet"), and its checksum may be left to the device that sends it. */

#ifndef CONFLUX_PACKET_H
#define CONFLUX_PACKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { PACKET_BYTES_MAX = 65535, OFFLOAD_BYTES = 10 };

/* Drop reasons; packet_fault_name() has the words of the reference datapath: packet-short, packet-version,
 * packet-length, and offload for an offload header that does not fit its packet. */
enum packet_fault { PACKET_OK, PACKET_SHORT, PACKET_VERSION, PACKET_LENGTH, PACKET_OFFLOAD };
const char *packet_fault_name(enum packet_fault fault);

struct packet_view {
    const uint8_t *source, *destination; /* into the packet */
    uint8_t address_bytes; /* 4 or 16 */
    uint8_t protocol; /* 6 TCP, 17 UDP, ...: the first header's field */
    uint32_t flow; /* hash of addresses, protocol and ports, as in conflux/datapath/packet.py */
};

/* The twin of parse() in conflux/datapath/packet.py: the same faults, the same hash. */
enum packet_fault packet_parse(const uint8_t *packet, size_t size, struct packet_view *out);

/* Mark "congestion experienced" in place (RFC 3168, RFC 1624).  False: the packet's sender does not understand
 * marks.  The packet has passed packet_parse(). */
bool packet_mark_congestion(uint8_t *packet);

/* An offload header, in host order. */
struct offload {
    bool checksum_wanted; /* from checksum_start on, into checksum_start + checksum_offset */
    bool ecn; /* TCP with CWR: the segments after the first must not repeat it */
    uint8_t type; /* OFFLOAD_NONE, ... */
    uint16_t header_bytes; /* all headers of the packet, as found in it, not as the header claims */
    uint16_t segment_bytes; /* payload of one wire packet; 0 with OFFLOAD_NONE */
    uint16_t checksum_start, checksum_offset;
};
enum { OFFLOAD_NONE = 0, OFFLOAD_TCP4 = 1, OFFLOAD_TCP6 = 4, OFFLOAD_UDP = 5 };

/* Read the ten bytes and check them against the packet, which has passed packet_parse(): type against version and
 * protocol, lengths against the packet, checksum place against the transport header (or, in a tunnel's packet, behind
 * it), no fragment, no more segments than the kernel would make of 65535 bytes.  The same check serves the TUN device
 * and a peer, which may lie. */
enum packet_fault offload_check_untrusted(const uint8_t header[OFFLOAD_BYTES], const uint8_t *packet, size_t size,
                                          struct offload *out);
void offload_store(const struct offload *self, uint8_t header[OFFLOAD_BYTES]);
bool offload_is_plain(const struct offload *self); /* nothing is left to do: the packet may go without this header */

/* Complete the checksum in place; checksum_wanted becomes false.  Only for OFFLOAD_NONE. */
void packet_complete(struct offload *offload, uint8_t *packet, size_t size);

/* Splits a super-packet; any other packet is one piece. */
struct split {
    const uint8_t *packet;
    size_t size;
    struct offload offload;
    size_t piece_payload_bytes;
    size_t next; /* bytes of payload already cut off */
    bool plain;
};

/* Begin to cut a packet into pieces of at most piece_bytes_max bytes, but of at least one segment.  A piece of
 * several segments is a super-packet itself, so that 64 KiB do not block a slow link.  plain: each piece is one wire
 * packet with a complete checksum, for a peer that takes no offloads. */
void split_start(struct split *self, const uint8_t *packet, size_t size, const struct offload *offload,
                 size_t piece_bytes_max, bool plain);
/* The next piece's size; 0: there are no more. */
size_t split_next_bytes(const struct split *self);
/* Write the next piece, which has split_next_bytes(), and its offload header.  Returns its size. */
size_t split_next(struct split *self, uint8_t *room, struct offload *offload);

#endif
