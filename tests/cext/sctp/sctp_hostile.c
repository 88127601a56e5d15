/* One association and a peer whose packets the test forges, under the address sanitizer; driven by lines. */

#include "sctp/sctp.h"

#include <stdio.h>

#include "sctp/crc32c.h"
#include "lines.h"

enum { PORT = 5000, ENTROPY_BYTES = 48, PACKETS_MAX = 1000 };

struct side {
    struct sctp *sctp;
    uint8_t entropy[ENTROPY_BYTES];
};

static uint64_t messages, room_excess_max, resets;
static uint64_t now = 100000000;

static void on_opened(void *context) { (void)context; }

static void on_message(void *context, struct sctp_arrival *arrival)
{
    const struct sctp_message *message = arrival->message;

    (void)context;
    messages++;
    if (message->room - message->size > room_excess_max)
        room_excess_max = message->room - message->size;
}

static void on_reset(void *context, bool incoming, bool accepted, const uint16_t *streams, size_t count)
{
    (void)context, (void)incoming, (void)accepted, (void)streams, (void)count;
    resets++;
}

static void on_closed(void *context, enum sctp_end why) { (void)context, (void)why; }

static const struct sctp_handler handler = {on_opened, on_message, on_reset, on_closed};

static void side_open(struct side *self, unsigned seed)
{
    struct sctp_config config = {
        .port_local = PORT,
        .port_remote = PORT,
        .packet_bytes_max = SCTP_PACKET_BYTES_MIN,
        .window_bytes = 1 << 20,
        .send_bytes_max = 4 << 20,
    };

    for (unsigned at = 0; at < ENTROPY_BYTES; at++)
        self->entropy[at] = config.entropy[at] = (uint8_t)(seed * 101 + at * 37);
    if ((self->sctp = sctp_new(&config, &handler, NULL)) == NULL)
        abort();
    sctp_connect(self->sctp, now);
}

static uint32_t number_at(const struct side *self, unsigned at)
{
    const uint8_t *from = self->entropy + at;

    return (uint32_t)from[0] << 24 | (uint32_t)from[1] << 16 | (uint32_t)from[2] << 8 | from[3];
}

static void exchange(struct side *one, struct side *other)
{
    uint8_t packet[SCTP_PACKET_BYTES_MAX];
    struct side *ways[2][2] = {{one, other}, {other, one}};

    for (unsigned round = 0; round < 20; round++) {
        struct side **way = ways[round % 2];
        size_t size;
        while ((size = sctp_next_packet(way[0]->sctp, packet, sizeof packet, now)) > 0)
            sctp_receive_untrusted(way[1]->sctp, packet, size, now);
        sctp_receive_done(way[1]->sctp, now);
    }
}

static void say(struct side *self, struct blob chunks)
{
    size_t size = 12 + chunks.size;
    uint8_t *packet = calloc(1, size);

    if (packet == NULL)
        abort();
    packet[0] = packet[2] = PORT >> 8;
    packet[1] = packet[3] = PORT & 255;
    memcpy(packet + 4, self->entropy, 4); /* its tag */
    memcpy(packet + 12, chunks.data, chunks.size);
    uint32_t crc = crc32c_finish(crc32c_portable(CRC32C_START, packet, size));
    for (unsigned at = 0; at < 4; at++)
        packet[8 + at] = (uint8_t)(crc >> 8 * at);
    sctp_receive_untrusted(self->sctp, packet, size, now);
    free(packet);
    free(chunks.data);
}

/* What it says now: packets in hexadecimal, a comma behind each. */
static void hear(struct side *self)
{
    uint8_t packet[SCTP_PACKET_BYTES_MAX];
    size_t size;

    sctp_receive_done(self->sctp, now);
    for (unsigned count = 0; count < PACKETS_MAX; count++) {
        if ((size = sctp_next_packet(self->sctp, packet, sizeof packet, now)) == 0)
            break;
        print_hex(packet, size);
        putchar(',');
    }
}

static bool send_message(struct side *self, size_t size, uint32_t lifetime_ms)
{
    struct sctp_message *message = sctp_message_new(size);
    struct sctp_sending how = {
        .unordered = true,
        .ppid = 53,
        .reliability = SCTP_LIFETIME_MS_MAX,
        .reliability_value = lifetime_ms,
    };

    if (message == NULL)
        abort();
    memset(message->data, 'm', size);
    return sctp_send(self->sctp, message, &how, now);
}

int main(void)
{
    struct side a = {0}, b = {0};
    const char *command;

    while ((command = line_next()) != NULL) {
        if (strcmp(command, "open") == 0) {
            side_open(&a, 1);
            side_open(&b, 2);
            exchange(&a, &b);
            printf("%" PRIu32 " %" PRIu32 " %d", number_at(&a, 4), number_at(&b, 4), sctp_state(a.sctp).open);
            messages = room_excess_max = resets = 0;
        } else if (strcmp(command, "say") == 0) {
            say(&a, blob());
        } else if (strcmp(command, "hear") == 0) {
            hear(&a);
        } else if (strcmp(command, "send") == 0) {
            size_t size = number();
            printf("%d", send_message(&a, size, (uint32_t)number()));
        } else if (strcmp(command, "later") == 0) {
            now += number() * 1000000;
        } else if (strcmp(command, "timers") == 0) {
            if (sctp_next_timeout(a.sctp) <= now)
                sctp_handle_timeout(a.sctp, now);
        } else if (strcmp(command, "state") == 0) {
            printf("%" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64, messages, room_excess_max, resets,
                   sctp_state(a.sctp).held_bytes);
        } else if (strcmp(command, "close") == 0) {
            sctp_delete(a.sctp);
            sctp_delete(b.sctp);
        }
        line_end();
    }
    return 0;
}
