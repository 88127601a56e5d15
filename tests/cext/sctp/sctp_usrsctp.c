/* Our association and usrsctp in one process, in turns: sctp_usrsctp BEGIN LOSE GOODBYE
 *
 * BEGIN: both, or theirs.  LOSE: one packet in so many each way; 0: none.  GOODBYE: ours, theirs, abort.
 * Messages of many sizes go both ways, ordered and not, then all streams are reset, then one end closes.  Prints what
 * happened, one fact a line. */

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sys/socket.h>
#include <usrsctp.h>

#include "sctp/sctp.h"

enum { PORT = 5000, ROUNDS_MAX = 60000, MS = 1000000, STREAMS = 4, PACKETS_MAX = 4096, PPID = 53 };

static const uint32_t sizes[] = {1, 2, 3, 4, 5, 1100, 1132, 1133, 1200, 1428, 5000, 16384, 65535, 65536};
enum { SIZES = sizeof sizes / sizeof *sizes, MESSAGES = 2 * SIZES };

static struct {
    uint8_t *data;
    size_t size;
} wire[PACKETS_MAX]; /* from usrsctp to us, until usrsctp's turn is over */
static unsigned wire_count, carried, lose;

static struct sctp *ours;
static uint64_t now = MS;
static unsigned came_here, came_there, wrong, resets_in, resets_out, refused;
static bool opened_here, opened_there, gone_there;
static enum sctp_end why;
static uint8_t partial[1 << 17];
static size_t partial_size;

static bool lost(void) { return lose != 0 && ++carried % lose == 0; }

static uint8_t filling(uint32_t number, uint32_t at) { return (uint8_t)(number * 31 + at * 7 + (at >> 8)); }

/* Number i: sizes[i / 2], ordered if i is even; the first byte is the number. */
static void check(const uint8_t *data, size_t size, unsigned stream, bool unordered, uint32_t ppid)
{
    unsigned number = data[0];
    bool right = number < MESSAGES && size == sizes[number / 2] && unordered == (number % 2 == 1) && ppid == PPID &&
                 stream == number % STREAMS;

    for (size_t at = 1; right && at < size; at++)
        right = data[at] == filling(number, (uint32_t)at);
    if (!right) {
        wrong++;
        fprintf(stderr, "wrong: number %u, %zu bytes, stream %u\n", number, size, stream);
    }
}

static void fill(uint8_t *data, unsigned number)
{
    for (uint32_t at = 0; at < sizes[number / 2]; at++)
        data[at] = at == 0 ? (uint8_t)number : filling(number, at);
}

/* --- ours -------------------------------------------------------------------------------------------------------- */

static void on_opened(void *context)
{
    (void)context;
    opened_here = true;
}

static void on_message(void *context, struct sctp_arrival *arrival)
{
    (void)context;
    check(arrival->message->data, arrival->message->size, arrival->stream, arrival->unordered, arrival->ppid);
    came_here++;
}

static void on_reset(void *context, bool incoming, bool accepted, const uint16_t *streams, size_t count)
{
    (void)context, (void)streams;
    if (incoming)
        resets_in += (unsigned)count;
    else if (accepted)
        resets_out += (unsigned)count;
    else
        refused += (unsigned)count;
}

static void on_closed(void *context, enum sctp_end end)
{
    (void)context;
    why = end;
}

/* --- theirs ------------------------------------------------------------------------------------------------------ */

static int on_output(void *address, void *data, size_t size, uint8_t tos, uint8_t df)
{
    (void)address, (void)tos, (void)df;
    if (wire_count == PACKETS_MAX || lost())
        return 0;
    wire[wire_count].data = malloc(size);
    memcpy(wire[wire_count].data, data, size);
    wire[wire_count++].size = size;
    return 0;
}

static int on_receive(struct socket *socket, union sctp_sockstore from, void *data, size_t size,
                      struct sctp_rcvinfo info, int flags, void *context)
{
    (void)socket, (void)from, (void)context;
    if (data == NULL) {
        gone_there = true;
        return 1;
    }
    if ((flags & MSG_NOTIFICATION) != 0) {
        const union sctp_notification *note = data;

        if (note->sn_header.sn_type == SCTP_ASSOC_CHANGE) {
            opened_there = opened_there || note->sn_assoc_change.sac_state == SCTP_COMM_UP;
            gone_there = gone_there || note->sn_assoc_change.sac_state == SCTP_COMM_LOST ||
                         note->sn_assoc_change.sac_state == SCTP_SHUTDOWN_COMP;
        }
    } else {
        if (partial_size + size <= sizeof partial) {
            memcpy(partial + partial_size, data, size);
            partial_size += size;
        }
        if ((flags & MSG_EOR) != 0) {
            check(partial, partial_size, info.rcv_sid, (info.rcv_flags & SCTP_UNORDERED) != 0, ntohl(info.rcv_ppid));
            came_there++;
            partial_size = 0;
        }
    }
    free(data);
    return 1;
}

static void set(struct socket *socket, int level, int option, const void *value, size_t size)
{
    if (usrsctp_setsockopt(socket, level, option, value, (socklen_t)size) != 0) {
        fprintf(stderr, "option %d: %s\n", option, strerror(errno));
        exit(2);
    }
}

static struct socket *theirs_new(void)
{
    struct socket *socket = usrsctp_socket(AF_CONN, SOCK_STREAM, IPPROTO_SCTP, on_receive, NULL, 0, NULL);
    struct sockaddr_conn address = {.sconn_family = AF_CONN, .sconn_port = htons(PORT), .sconn_addr = &wire};
    struct sctp_initmsg init = {.sinit_num_ostreams = 1024, .sinit_max_instreams = 2048};
    struct sctp_assoc_value resets = {.assoc_id = SCTP_ALL_ASSOC,
                                      .assoc_value = SCTP_ENABLE_RESET_STREAM_REQ | SCTP_ENABLE_CHANGE_ASSOC_REQ};
    uint16_t events[] = {SCTP_ASSOC_CHANGE, SCTP_STREAM_RESET_EVENT};
    int on = 1, bytes = 1 << 20;

    usrsctp_set_non_blocking(socket, 1);
    for (size_t index = 0; index < sizeof events / sizeof *events; index++) {
        struct sctp_event event = {.se_assoc_id = SCTP_ALL_ASSOC, .se_type = events[index], .se_on = 1};

        set(socket, IPPROTO_SCTP, SCTP_EVENT, &event, sizeof event);
    }
    set(socket, IPPROTO_SCTP, SCTP_NODELAY, &on, sizeof on);
    set(socket, IPPROTO_SCTP, SCTP_ENABLE_STREAM_RESET, &resets, sizeof resets);
    set(socket, IPPROTO_SCTP, SCTP_INITMSG, &init, sizeof init);
    set(socket, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
    set(socket, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
    if (usrsctp_bind(socket, (struct sockaddr *)&address, sizeof address) != 0)
        exit(2);
    if (usrsctp_connect(socket, (struct sockaddr *)&address, sizeof address) != 0 && errno != EINPROGRESS)
        exit(2);
    return socket;
}

/* --- both -------------------------------------------------------------------------------------------------------- */

/* Carry all packets both ways; a millisecond passes. */
static void turn(void)
{
    uint8_t room[SCTP_PACKET_BYTES_MAX];
    size_t size;

    for (unsigned index = 0; index < wire_count; index++) {
        sctp_receive_untrusted(ours, wire[index].data, wire[index].size, now);
        free(wire[index].data);
    }
    wire_count = 0;
    sctp_receive_done(ours, now);
    if (sctp_next_timeout(ours) <= now)
        sctp_handle_timeout(ours, now);
    while ((size = sctp_next_packet(ours, room, sizeof room, now)) != 0)
        if (!lost())
            usrsctp_conninput(&wire, room, size, 0);
    now += MS;
    usrsctp_handle_timers(1);
    usleep(100); /* usrsctp reads the real clock */
}

static bool send_here(unsigned number)
{
    struct sctp_message *message = sctp_message_new(sizes[number / 2]);
    struct sctp_sending how = {.stream = number % STREAMS, .unordered = number % 2 == 1, .ppid = PPID};

    fill(message->data, number);
    return sctp_send(ours, message, &how, now);
}

static bool send_there(struct socket *socket, unsigned number)
{
    static uint8_t data[65536];
    struct sctp_sndinfo info = {.snd_sid = number % STREAMS,
                                .snd_flags = number % 2 == 1 ? SCTP_UNORDERED : 0,
                                .snd_ppid = htonl(PPID)};

    fill(data, number);
    return usrsctp_sendv(socket, data, sizes[number / 2], NULL, 0, &info, sizeof info, SCTP_SENDV_SNDINFO, 0) > 0;
}

static void reset_there(struct socket *socket)
{
    union {
        struct sctp_reset_streams reset;
        uint8_t room[sizeof(struct sctp_reset_streams) + STREAMS * sizeof(uint16_t)];
    } request = {.reset = {.srs_flags = SCTP_STREAM_RESET_OUTGOING, .srs_number_streams = STREAMS}};

    for (uint16_t stream = 0; stream < STREAMS; stream++)
        request.reset.srs_stream_list[stream] = stream;
    set(socket, IPPROTO_SCTP, SCTP_RESET_STREAMS, &request, sizeof(struct sctp_reset_streams) + STREAMS * 2);
}

int main(int argc, char **argv)
{
    static const struct sctp_handler handler = {on_opened, on_message, on_reset, on_closed};
    struct sctp_config config = {.port_local = PORT,
                                 .port_remote = PORT,
                                 .packet_bytes_max = 1400,
                                 .window_bytes = 1 << 20,
                                 .send_bytes_max = 4 << 20};
    unsigned rounds = 0, sent_here = 0, sent_there = 0;

    if (argc != 4)
        return 2;
    lose = (unsigned)atoi(argv[2]);
    usrsctp_init_nothreads(0, on_output, NULL);
    usrsctp_sysctl_set_sctp_ecn_enable(0);
    usrsctp_register_address(&wire);
    memset(config.entropy, 7, sizeof config.entropy);
    ours = sctp_new(&config, &handler, NULL);
    if (strcmp(argv[1], "both") == 0)
        sctp_connect(ours, now);
    struct socket *theirs = theirs_new();

    while (rounds++ < ROUNDS_MAX && !(opened_here && opened_there))
        turn();
    while (rounds++ < ROUNDS_MAX && (came_here < MESSAGES || came_there < MESSAGES)) {
        if (sent_here < MESSAGES && send_here(sent_here))
            sent_here++;
        if (sent_there < MESSAGES && send_there(theirs, sent_there))
            sent_there++;
        turn();
    }
    uint16_t streams[STREAMS] = {0, 1, 2, 3};
    sctp_reset_streams(ours, streams, STREAMS, now);
    while (rounds++ < ROUNDS_MAX && resets_out + refused < STREAMS)
        turn();
    reset_there(theirs);
    while (rounds++ < ROUNDS_MAX && resets_in < STREAMS) /* it may send more than one request */
        turn();
    /* Both begin again with SSN 0: one ordered message each shows whether both do. */
    send_here(0);
    send_there(theirs, 0);
    while (rounds++ < ROUNDS_MAX && (came_here <= MESSAGES || came_there <= MESSAGES))
        turn();

    if (strcmp(argv[3], "theirs") == 0)
        usrsctp_shutdown(theirs, SHUT_RDWR);
    else
        sctp_close(ours, strcmp(argv[3], "abort") == 0, now);
    while (rounds++ < ROUNDS_MAX && (why == SCTP_END_NONE || !gone_there))
        turn();
    printf("opened %d %d\n", opened_here, opened_there);
    printf("came %u %u\n", came_here, came_there);
    printf("wrong %u\n", wrong);
    printf("resets %u %u %u\n", resets_in, resets_out, refused);
    printf("end %s %d\n", sctp_end_name(why), gone_there);
    printf("malformed %llu\n", (unsigned long long)sctp_counts(ours)->dropped_malformed);
    sctp_delete(ours);
    usrsctp_close(theirs);
    for (unsigned index = 0; index < wire_count; index++)
        free(wire[index].data);
    return 0;
}
