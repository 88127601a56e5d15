/* Reads of a packet what rules speak of: ends, protocol and port.  The twin of conflux/policy/flow.py, rule for rule;
 * its comments say why.  Knows no rule, no peer and no state. */

#ifndef CONFLUX_POLICY_FLOW_H
#define CONFLUX_POLICY_FLOW_H

#include <stddef.h>
#include <stdint.h>

enum { FLOW_ADDRESS_BYTES = 16 };

/* Why a packet is not judged but dropped. */
enum flow_unfit {
    FLOW_FIT,
    FLOW_SHORT, /* it ends within a header */
    FLOW_VERSION,
    FLOW_LENGTH, /* its header says another size */
    FLOW_MAPPED, /* an IPv6 address that stands for an IPv4 one */
    FLOW_HEADERS, /* more extension headers than are read, or some within a datagram in pieces */
    FLOW_ROUTING,
    FLOW_PIECE, /* a piece that begins within a header of its datagram */
    FLOW_LINK, /* of neighbours on a link, or ICMP of the other family */
};

enum { FLOW_FIN = 0x01, FLOW_SYN = 0x02, FLOW_RST = 0x04, FLOW_ACK = 0x10 }; /* of tcp_flags */

enum flow_piece { FLOW_WHOLE, FLOW_FIRST, FLOW_LATER };

struct flow {
    uint8_t source[FLOW_ADDRESS_BYTES], destination[FLOW_ADDRESS_BYTES]; /* IPv4 behind ::ffff:0:0/96 */
    uint32_t key; /* protocol << 16 | port of the destination, or type of ICMP, or 0 */
    uint16_t source_port; /* or the identifier of an echo, or 0 */
    uint8_t piece; /* enum flow_piece */
    uint8_t tcp_flags; /* 0 of any other protocol */
    uint32_t fragment; /* identifies the datagram of a piece */
    size_t error_at; /* where the packet begins that an ICMP error quotes; 0: it is no error */
};

/* out is whole only if the packet is fit. */
enum flow_unfit flow_read_untrusted(const uint8_t *packet, size_t size, struct flow *out);

#endif
