/* libFuzzer over cext/packet/packet.c: any offload header on any packet is refused, or its pieces are what they
 * promise.
 *
 *     choices | piece_bytes_max (2) | offload header (10) | packet */

#include <stdlib.h>
#include <string.h>

#include "packet/packet.h"

enum { PREFIX_BYTES = 3 + OFFLOAD_BYTES, PLAIN = 1, MEND_LENGTH = 2, MEND_PLACE = 4 };

static void demand(bool claim)
{
    if (!claim)
        abort();
}

/* Correct the lengths, which are never right by chance. */
static void mend(uint8_t choices, uint8_t *header, uint8_t *packet, size_t size)
{
    bool ipv4 = size >= 20 && packet[0] >> 4 == 4, ipv6 = size >= 40 && packet[0] >> 4 == 6;

    if (choices & MEND_LENGTH && ipv4) {
        packet[2] = (uint8_t)(size >> 8);
        packet[3] = (uint8_t)size;
    }
    if (choices & MEND_LENGTH && ipv6) {
        packet[4] = (uint8_t)((size - 40) >> 8);
        packet[5] = (uint8_t)(size - 40);
    }
    if (choices & MEND_PLACE && (ipv4 || ipv6)) {
        size_t start = ipv4 ? (size_t)(packet[0] & 15) * 4 : 40;
        header[0] = 1;
        header[6] = (uint8_t)start;
        header[7] = 0;
        header[8] = packet[ipv4 ? 9 : 6] == 6 ? 16 : 6;
        header[9] = 0;
        if (size - start >= 8 && start < size && header[8] == 6) {
            packet[start + 4] = (uint8_t)((size - start) >> 8);
            packet[start + 5] = (uint8_t)(size - start);
        }
    }
}

/* A copy of its own size: the sanitizer sees a byte too far. */
static uint8_t *copy_of(const uint8_t *data, size_t size)
{
    uint8_t *copy = malloc(size > 0 ? size : 1);

    demand(copy != NULL);
    memcpy(copy, data, size);
    return copy;
}

static void check_pieces(const uint8_t *packet, size_t size, const struct offload *offload, size_t piece_bytes_max,
                         bool plain)
{
    size_t from = offload->type == OFFLOAD_NONE ? size : offload->header_bytes, dealt = 0, bytes;
    size_t most = from + offload->segment_bytes > piece_bytes_max ? from + offload->segment_bytes : piece_bytes_max;
    struct split split;

    split_start(&split, packet, size, offload, piece_bytes_max, plain);
    while ((bytes = split_next_bytes(&split)) > 0) {
        uint8_t *piece = malloc(bytes), header[OFFLOAD_BYTES];
        struct offload of_piece, again;
        struct packet_view view;
        demand(piece != NULL && bytes <= most);
        demand(split_next(&split, piece, &of_piece) == bytes);
        demand(packet_parse(piece, bytes, &view) == PACKET_OK);
        offload_store(&of_piece, header);
        demand(offload_check_untrusted(header, piece, bytes, &again) == PACKET_OK);
        demand(again.type == of_piece.type && again.segment_bytes == of_piece.segment_bytes);
        demand(!plain || offload_is_plain(&of_piece));
        if (offload->type != OFFLOAD_NONE)
            demand(memcmp(piece + from, packet + from + dealt, bytes - from) == 0);
        dealt += bytes - (offload->type == OFFLOAD_NONE ? 0 : from);
        free(piece);
    }
    demand(dealt == size - (offload->type == OFFLOAD_NONE ? 0 : from));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < PREFIX_BYTES || size - PREFIX_BYTES > PACKET_BYTES_MAX)
        return 0;
    uint8_t *header = copy_of(data + 3, OFFLOAD_BYTES), *packet = copy_of(data + PREFIX_BYTES, size - PREFIX_BYTES);
    size -= PREFIX_BYTES;
    mend(data[0], header, packet, size);

    struct packet_view view;
    struct offload offload, again;
    if (packet_parse(packet, size, &view) == PACKET_OK) {
        demand(view.source >= packet && view.destination + view.address_bytes <= packet + size);
        if (offload_check_untrusted(header, packet, size, &offload) == PACKET_OK) {
            uint8_t stored[OFFLOAD_BYTES];
            offload_store(&offload, stored);
            demand(offload_check_untrusted(stored, packet, size, &again) == PACKET_OK);
            check_pieces(packet, size, &offload, (size_t)data[1] << 8 | data[2], data[0] & PLAIN);
        }
        uint32_t flow = view.flow;
        packet_mark_congestion(packet);
        demand(packet_parse(packet, size, &view) == PACKET_OK && view.flow == flow);
    }
    free(header);
    free(packet);
    return 0;
}
