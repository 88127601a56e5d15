/* Fuzzes one SCTP association and its state: an input is a script of packets, time, and what the application does.  A
 * second association plays the peer, so that a script may mix forged packets with honest ones.  Packets get the right
 * ports, tag and checksum, as a peer behind DTLS can send them.  Numbers in the script count from the association's
 * own, so that they are sometimes right. */

#include <stdlib.h>
#include <string.h>

#include "sctp/crc32c.h"
#include "sctp/sctp.h"

enum {
    WINDOW_BYTES = 200000,
    SEND_BYTES_MAX = 300000,
    OVERRUN_BYTES = 4 * SCTP_MESSAGE_BYTES_MAX + 2 * SCTP_MESSAGE_BYTES_MAX, /* and one message's room */
    PACKETS_MAX = 5000, /* at one moment */
    ROUNDS_MAX = 1000,
};

struct script {
    const uint8_t *at;
    size_t left;
};

struct side {
    struct sctp *sctp;
    bool ended;
    unsigned keep; /* of arrivals; bits of what the application does in its callbacks */
    uint64_t *now;
};

static uint8_t next_byte(struct script *self)
{
    if (self->left == 0)
        return 0;
    self->left--;
    return *self->at++;
}

static uint32_t next_word(struct script *self) { return (uint32_t)next_byte(self) << 8 | next_byte(self); }

static void check(bool holds)
{
    if (!holds)
        abort();
}

static void store_word(uint8_t *at, uint32_t value)
{
    at[0] = (uint8_t)(value >> 24);
    at[1] = (uint8_t)(value >> 16);
    at[2] = (uint8_t)(value >> 8);
    at[3] = (uint8_t)value;
}

/* --- the application ---------------------------------------------------------------------------------------------- */

static void say(struct side *self, size_t size, uint16_t stream, uint8_t how)
{
    struct sctp_message *message = sctp_message_new(size);
    struct sctp_sending sending = {
        .stream = stream,
        .unordered = (how & 1) != 0,
        .ppid = 53,
        .reliability = (enum sctp_reliability)((how >> 1) % 3),
        .reliability_value = (how >> 3) & 7,
    };

    if (message == NULL)
        return;
    memset(message->data, 0x55, size);
    sctp_send(self->sctp, message, &sending, *self->now);
}

static void say_next(struct side *self, struct script *script)
{
    size_t size = 1 + ((next_byte(script) & 1) != 0 ? next_word(script) : next_byte(script));
    uint16_t stream = next_byte(script);

    say(self, size, stream, next_byte(script));
}

static void on_opened(void *context) { say(context, 100, 1, 0); }

static void on_message(void *context, struct sctp_arrival *arrival)
{
    struct side *self = context;

    check(!self->ended && arrival->message->size > 0 && arrival->message->size <= arrival->message->room);
    check(arrival->message->room <= SCTP_MESSAGE_BYTES_MAX);
    if ((self->keep & 1) != 0) { /* as a relay: pass on the memory that came */
        struct sctp_sending sending = {.stream = arrival->stream, .unordered = true, .ppid = arrival->ppid};

        sctp_send(self->sctp, arrival->message, &sending, *self->now);
        arrival->message = NULL;
    }
    if ((self->keep & 6) == 6)
        sctp_reset_streams(self->sctp, &arrival->stream, 1, *self->now);
    if ((self->keep & 24) == 24)
        sctp_close(self->sctp, (self->keep & 32) != 0, *self->now);
}

static void on_reset(void *context, bool incoming, bool accepted, const uint16_t *streams, size_t count)
{
    struct side *self = context;

    check(!self->ended);
    (void)accepted;
    if (incoming && count > 0 && (self->keep & 64) != 0) /* data channels answer in kind */
        sctp_reset_streams(self->sctp, streams, count, *self->now);
}

static void on_closed(void *context, enum sctp_end why)
{
    struct side *self = context;

    check(!self->ended && why != SCTP_END_NONE);
    self->ended = true;
}

static const struct sctp_handler handler = {on_opened, on_message, on_reset, on_closed};

/* --- packets ------------------------------------------------------------------------------------------------------ */

static void seal(uint8_t *packet, size_t size, uint32_t tag)
{
    store_word(packet, 5000u << 16 | 5000u);
    store_word(packet + 4, tag);
    memset(packet + 8, 0, 4);
    uint32_t crc = crc32c_finish(crc32c_portable(CRC32C_START, packet, size));
    for (int at = 0; at < 4; at++)
        packet[8 + at] = (uint8_t)(crc >> 8 * at);
}

static void receive(struct side *self, const uint8_t *packet, size_t size)
{
    uint8_t *copy = malloc(size == 0 ? 1 : size); /* exactly as large: reading beyond it is seen */

    check(copy != NULL);
    memcpy(copy, packet, size);
    sctp_receive_untrusted(self->sctp, copy, size, *self->now);
    free(copy);
}

/* Let one side send all that it may now.  to: the receiver, or NULL.  lose: one packet in so many is lost; 0: none. */
static unsigned drain(struct side *self, struct side *to, unsigned lose)
{
    static uint8_t packet[SCTP_PACKET_BYTES_MAX];
    unsigned count = 0;
    size_t size;

    while ((size = sctp_next_packet(self->sctp, packet, sizeof packet, *self->now)) != 0) {
        check(++count < PACKETS_MAX);
        if (to != NULL && (lose == 0 || count % lose != 0))
            receive(to, packet, size);
    }
    if (to != NULL)
        sctp_receive_done(to->sctp, *self->now);
    struct sctp_state state = sctp_state(self->sctp);
    check(state.held_bytes <= WINDOW_BYTES + OVERRUN_BYTES);
    check(state.unsent_bytes <= SEND_BYTES_MAX);
    return count;
}

/* Handle timeouts until none is due; they must end. */
static void settle(struct side *self)
{
    unsigned rounds = 0;

    while (sctp_next_timeout(self->sctp) <= *self->now) {
        check(++rounds < ROUNDS_MAX);
        sctp_handle_timeout(self->sctp, *self->now);
        drain(self, NULL, 0);
    }
}

static void exchange(struct side *a, struct side *b, unsigned lose)
{
    for (unsigned rounds = 0; rounds < 50; rounds++) {
        for (int index = 0; index < 2; index++)
            if (sctp_next_timeout((index == 0 ? a : b)->sctp) <= *a->now)
                sctp_handle_timeout((index == 0 ? a : b)->sctp, *a->now);
        if (drain(a, b, lose) + drain(b, a, 0) == 0)
            return;
    }
}

/* A chunk whose numbers count from where both stand; returns its size. */
static size_t forge(struct script *script, uint8_t *at, uint32_t tsn_theirs, uint32_t tsn_ours)
{
    uint8_t kind = next_byte(script), flags = next_byte(script);
    uint32_t offset = next_word(script);
    size_t size;

    at[1] = flags;
    switch (kind % 6) {
    case 0: /* DATA */
        at[0] = 0;
        store_word(at + 4, tsn_theirs + offset);
        store_word(at + 8, (uint32_t)next_byte(script) << 16 | next_byte(script));
        store_word(at + 12, 53);
        size = 16 + (flags & 0x80 ? 1000u : 1u) + next_byte(script);
        memset(at + 16, 0xaa, size - 16);
        break;
    case 1: /* SACK */
        at[0] = 3;
        store_word(at + 4, tsn_ours + offset);
        store_word(at + 8, next_word(script) * 16);
        size = 16 + 4 * (size_t)(flags & 7);
        store_word(at + 12, (uint32_t)(flags & 7) << 16);
        for (size_t gap = 16; gap < size; gap++)
            at[gap] = next_byte(script);
        break;
    case 2: /* FORWARD-TSN */
        at[0] = 192;
        store_word(at + 4, tsn_theirs + offset);
        size = 8 + 4 * (size_t)(flags & 3);
        for (size_t stream = 8; stream < size; stream += 4)
            store_word(at + stream, (uint32_t)next_byte(script) << 16 | next_byte(script));
        break;
    case 3: /* RE-CONFIG */
        at[0] = 130;
        size = 4 + 16 + 2 * (size_t)(flags & 3);
        store_word(at + 4, (13u + (flags >> 5)) << 16 | (uint32_t)(size - 4));
        store_word(at + 8, (flags & 16 ? tsn_ours : tsn_theirs) + (offset >> 8));
        store_word(at + 12, next_byte(script) % 8);
        store_word(at + 16, tsn_theirs + (offset & 255));
        for (size_t stream = 20; stream < size; stream++)
            at[stream] = stream % 2 == 0 ? 0 : next_byte(script);
        break;
    case 4: /* anything, well framed */
        at[0] = next_byte(script);
        size = 4 + offset % 200;
        for (size_t byte = 4; byte < size; byte++)
            at[byte] = next_byte(script);
        break;
    default: /* SHUTDOWN */
        at[0] = 7;
        size = 8;
        store_word(at + 4, tsn_ours + offset);
        break;
    }
    at[2] = (uint8_t)(size >> 8);
    at[3] = (uint8_t)size;
    while (size % 4 != 0)
        at[size++] = 0;
    return size;
}

static void step(struct script *script, struct side *a, struct side *b)
{
    static uint8_t packet[16384];
    uint32_t tag = 0x01010101, tsn_ours = 0x01010101, tsn_theirs = 0x02020202; /* as sctp_new() takes from entropy */
    uint8_t operation = next_byte(script);
    size_t size = 12;

    switch (operation % 12) {
    case 0: /* bytes */
    case 1: /* bytes under INIT's tag */
        for (size_t left = next_byte(script); left > 0 && script->left > 0; left--)
            packet[size++] = next_byte(script);
        seal(packet, size, operation % 12 == 0 ? tag : 0);
        receive(a, packet, size);
        break;
    case 2: /* not even a header */
        size = next_byte(script) % 40;
        for (size_t at = 0; at < size; at++)
            packet[at] = next_byte(script);
        receive(a, packet, size);
        break;
    case 3:
    case 4:
    case 5:
        for (unsigned count = 1 + next_byte(script) % 6; count > 0 && size < 8000; count--)
            size += forge(script, packet + size, tsn_theirs, tsn_ours);
        seal(packet, size, tag);
        receive(a, packet, size);
        break;
    case 6:
        *a->now += (uint64_t)next_byte(script) * next_byte(script) * 1000000;
        settle(a);
        break;
    case 7:
        exchange(a, b, next_byte(script) % 8);
        break;
    case 8:
        say_next(a, script);
        break;
    case 9:
        say_next(b, script);
        break;
    case 10: {
        uint16_t streams[2] = {next_byte(script), next_byte(script)};

        sctp_reset_streams(a->sctp, streams, 2, *a->now);
        break;
    }
    default:
        if (next_byte(script) % 8 == 0)
            sctp_close(a->sctp, next_byte(script) % 2 == 0, *a->now);
        else
            a->keep = next_byte(script);
        break;
    }
    sctp_receive_done(a->sctp, *a->now);
    drain(a, operation & 128 ? b : NULL, 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct script script = {data, size};
    struct sctp_config config = {
        .port_local = 5000,
        .port_remote = 5000,
        .packet_bytes_max = 4000,
        .window_bytes = WINDOW_BYTES,
        .send_bytes_max = SEND_BYTES_MAX,
    };
    uint64_t now = 1000000000;
    struct side a = {.now = &now}, b = {.now = &now};
    uint8_t begin = next_byte(&script);

    memset(config.entropy, 1, sizeof config.entropy);
    a.sctp = sctp_new(&config, &handler, &a);
    memset(config.entropy, 2, sizeof config.entropy);
    b.sctp = sctp_new(&config, &handler, &b);
    check(a.sctp != NULL && b.sctp != NULL);
    if ((begin & 1) != 0)
        sctp_connect(a.sctp, now);
    if ((begin & 2) != 0)
        sctp_connect(b.sctp, now);
    if ((begin & 4) != 0)
        exchange(&a, &b, 0);
    while (script.left > 0)
        step(&script, &a, &b);
    for (unsigned rounds = 0; rounds < 20; rounds++) {
        now += 500000000;
        settle(&a);
        exchange(&a, &b, 0);
    }
    sctp_delete(a.sctp);
    sctp_delete(b.sctp);
    return 0;
}
