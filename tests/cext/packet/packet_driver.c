/* cext/packet/packet.c by lines; see driven.py. */

#include "lines.h"
#include "packet/packet.h"

static void print_offload(const struct offload *offload)
{
    uint8_t header[OFFLOAD_BYTES];

    offload_store(offload, header);
    print_hex(header, sizeof header);
}

static void parse(void)
{
    struct blob packet = blob();
    struct packet_view view;
    enum packet_fault fault = packet_parse(packet.data, packet.size, &view);

    fputs(packet_fault_name(fault), stdout);
    if (fault == PACKET_OK) {
        putchar(' ');
        print_hex(view.source, view.address_bytes);
        putchar(' ');
        print_hex(view.destination, view.address_bytes);
        printf(" %u %" PRIu32, view.protocol, view.flow);
    }
    free(packet.data);
}

static void mark(void)
{
    struct blob packet = blob();

    printf("%d ", packet_mark_congestion(packet.data));
    print_hex(packet.data, packet.size);
    free(packet.data);
}

static void check(void)
{
    struct blob header = blob(), packet = blob();
    struct offload offload;
    enum packet_fault fault = offload_check_untrusted(header.data, packet.data, packet.size, &offload);

    fputs(packet_fault_name(fault), stdout);
    if (fault == PACKET_OK) {
        printf(" %u ", offload_is_plain(&offload));
        print_offload(&offload);
    }
    free(header.data);
    free(packet.data);
}

static void complete(void)
{
    struct blob header = blob(), packet = blob();
    struct offload offload;

    if (offload_check_untrusted(header.data, packet.data, packet.size, &offload) == PACKET_OK) {
        packet_complete(&offload, packet.data, packet.size);
        print_offload(&offload);
        putchar(' ');
        print_hex(packet.data, packet.size);
    }
    free(header.data);
    free(packet.data);
}

/* Pairs of offload header and packet. */
static void split(void)
{
    struct blob header = blob(), packet = blob();
    size_t piece_bytes_max = number(), bytes;
    bool plain = number() != 0;
    struct offload offload, piece;
    struct split split;

    if (offload_check_untrusted(header.data, packet.data, packet.size, &offload) == PACKET_OK) {
        split_start(&split, packet.data, packet.size, &offload, piece_bytes_max, plain);
        while ((bytes = split_next_bytes(&split)) > 0) {
            uint8_t *room = malloc(bytes);
            if (room == NULL || split_next(&split, room, &piece) != bytes)
                abort();
            print_offload(&piece);
            putchar(' ');
            print_hex(room, bytes);
            putchar(' ');
            free(room);
        }
    }
    free(header.data);
    free(packet.data);
}

int main(void)
{
    const char *command;

    while ((command = line_next()) != NULL) {
        switch (command[0]) {
        case 'p':
            parse();
            break;
        case 'm':
            mark();
            break;
        case 'o':
            check();
            break;
        case 'c':
            complete();
            break;
        case 's':
            split();
            break;
        default:
            return 2;
        }
        line_end();
    }
    return 0;
}
