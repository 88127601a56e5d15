/* Two associations in one process, 64 KiB messages, no network: what SCTP itself costs on one core.
 *
 * Built and run by sctp_pair.py.  Arguments: [message bytes] [packet bytes] [seconds] [lose one packet in so many]
 */

#define _POSIX_C_SOURCE 200809L

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "sctp/sctp.h"

enum { BATCH = 64 };

static uint64_t delivered_bytes, delivered;

static uint64_t clock_ns(clockid_t clock)
{
    struct timespec at;

    clock_gettime(clock, &at);
    return (uint64_t)at.tv_sec * 1000000000 + (uint64_t)at.tv_nsec;
}

static void on_opened(void *context) { (void)context; }

static void on_message(void *context, struct sctp_arrival *arrival)
{
    (void)context;
    delivered++;
    delivered_bytes += arrival->message->size;
}

static void on_reset(void *context, bool incoming, bool accepted, const uint16_t *streams, size_t count)
{
    (void)context, (void)incoming, (void)accepted, (void)streams, (void)count;
}

static void on_closed(void *context, enum sctp_end why)
{
    (void)context;
    fprintf(stderr, "closed: %s\n", sctp_end_name(why));
    exit(1);
}

/* Move a batch of packets over; return how many. */
static unsigned carry(struct sctp *from, struct sctp *to, uint64_t now, unsigned lose)
{
    static uint8_t packets[BATCH][SCTP_PACKET_BYTES_MAX];
    static unsigned carried;
    size_t sizes[BATCH];
    unsigned count = 0;

    if (sctp_next_timeout(from) <= now)
        sctp_handle_timeout(from, now);
    while (count < BATCH && (sizes[count] = sctp_next_packet(from, packets[count], sizeof packets[count], now)) != 0)
        count++;
    for (unsigned index = 0; index < count; index++)
        if (lose == 0 || ++carried % lose != 0)
            sctp_receive_untrusted(to, packets[index], sizes[index], now);
    if (count > 0)
        sctp_receive_done(to, now);
    return count;
}

int main(int argc, char **argv)
{
    static const struct sctp_handler handler = {on_opened, on_message, on_reset, on_closed};
    size_t message_bytes = argc > 1 ? strtoul(argv[1], NULL, 0) : 65536;
    struct sctp_config config = {
        .port_local = 5000,
        .port_remote = 5000,
        .packet_bytes_max = argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 0) : 1400,
        .window_bytes = 8 << 20,
        .send_bytes_max = 16 << 20,
    };
    double seconds = argc > 3 ? strtod(argv[3], NULL) : 3;
    unsigned lose = argc > 4 ? (unsigned)strtoul(argv[4], NULL, 0) : 0;
    struct sctp *end[2];

    for (int index = 0; index < 2; index++) {
        memset(config.entropy, 1 + index, sizeof config.entropy);
        if ((end[index] = sctp_new(&config, &handler, NULL)) == NULL)
            return 1;
        sctp_connect(end[index], clock_ns(CLOCK_MONOTONIC));
    }
    struct sctp_sending how = {.unordered = true, .ppid = 53};
    uint64_t started = clock_ns(CLOCK_MONOTONIC), cpu = clock_ns(CLOCK_PROCESS_CPUTIME_ID), now = started;
    while (now - started < (uint64_t)(seconds * 1e9)) {
        while (sctp_room(end[0], now) > 0) {
            struct sctp_message *message = sctp_message_new(message_bytes);

            if (message == NULL || !sctp_send(end[0], message, &how, now))
                break;
        }
        carry(end[0], end[1], now, lose);
        carry(end[1], end[0], now, 0);
        now = clock_ns(CLOCK_MONOTONIC);
    }
    double took = (double)(now - started) / 1e9;
    double spent = (double)(clock_ns(CLOCK_PROCESS_CPUTIME_ID) - cpu) / 1e9;
    uint64_t packets = sctp_counts(end[0])->packets_sent;
    printf("%zu-byte messages, %u-byte packets, %.1f s: %.2f Gbit/s, %.2f Gbit per CPU second, %.0f ns of CPU per "
           "packet for both ends, %.2f acknowledgements per 100 packets, %llu repaired\n",
           message_bytes, sctp_state(end[0]).packet_bytes, took, (double)delivered_bytes * 8e-9 / took,
           (double)delivered_bytes * 8e-9 / spent, spent * 1e9 / (double)packets,
           100.0 * (double)sctp_counts(end[1])->packets_sent / (double)packets,
           (unsigned long long)sctp_counts(end[0])->chunks_retransmitted);
    sctp_delete(end[0]);
    sctp_delete(end[1]);
    return 0;
}
