/* The life of two associations, again and again, each time with another allocation that fails: the first, the second,
 * and so on, until a life has fewer.  Prints per way of failing: lives, ends for want of memory, messages that differ
 * from what was sent.
 *
 *     once: one allocation fails           for-ever: all fail from then on */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "alloc.h"
#include "base/clock.h"
#include "sctp/sctp.h"

enum { PORT = 5000, MESSAGE_COUNT = 60, ROUNDS_MAX = 400, LIVES_MAX = 5000 };

struct side {
    struct sctp *sctp;
    unsigned opened, came, wrong;
    enum sctp_end end;
};

static uint64_t now;
static unsigned packet_number;

/* A message is its first four bytes, repeated; they are its size. */
static void fill(struct sctp_message *message)
{
    for (uint32_t at = 0; at < message->size; at++)
        message->data[at] = (uint8_t)(message->size >> 8 * (at % 4));
}

static void on_opened(void *context) { ((struct side *)context)->opened++; }

static void on_message(void *context, struct sctp_arrival *arrival)
{
    struct side *self = context;
    const struct sctp_message *message = arrival->message;

    self->came++;
    for (uint32_t at = 0; at < message->size; at++)
        if (message->data[at] != (uint8_t)(message->size >> 8 * (at % 4))) {
            self->wrong++;
            return;
        }
}

static void on_reset(void *context, bool incoming, bool accepted, const uint16_t *streams, size_t count)
{
    (void)context, (void)incoming, (void)accepted, (void)streams, (void)count;
}

static void on_closed(void *context, enum sctp_end why) { ((struct side *)context)->end = why; }

static const struct sctp_handler handler = {on_opened, on_message, on_reset, on_closed};

static bool side_open(struct side *self, uint8_t seed)
{
    struct sctp_config config = {PORT, PORT, 1400, 1 << 20, 1 << 20, {0}};

    *self = (struct side){0};
    for (unsigned at = 0; at < sizeof config.entropy; at++)
        config.entropy[at] = (uint8_t)(seed * 101 + at * 37);
    self->sctp = sctp_new(&config, &handler, self);
    if (self->sctp != NULL)
        sctp_connect(self->sctp, now);
    return self->sctp != NULL;
}

/* Every seventh packet is lost, and every fifth overtakes the one before it. */
static void carry(struct side *from, struct side *to)
{
    static uint8_t kept[SCTP_PACKET_BYTES_MAX], packet[SCTP_PACKET_BYTES_MAX];
    size_t size, kept_size = 0;

    while ((size = sctp_next_packet(from->sctp, packet, sizeof packet, now)) > 0) {
        unsigned number = packet_number++;
        if (number % 7 == 6)
            continue;
        if (number % 5 == 4 && kept_size == 0) {
            memcpy(kept, packet, size);
            kept_size = size;
            continue;
        }
        sctp_receive_untrusted(to->sctp, packet, size, now);
        if (kept_size > 0)
            sctp_receive_untrusted(to->sctp, kept, kept_size, now);
        kept_size = 0;
    }
    if (kept_size > 0)
        sctp_receive_untrusted(to->sctp, kept, kept_size, now);
    sctp_receive_done(to->sctp, now);
}

static void send_one(struct side *self, unsigned number)
{
    struct sctp_message *message = sctp_message_new(number % 10 == 0 ? 9000 : 1 + number * 37 % 3000);
    struct sctp_sending how = {
        .stream = (uint16_t)(number % 3 * 70),
        .unordered = number % 4 == 0,
        .ppid = 53,
        .reliability = number % 6 == 5 ? SCTP_LIFETIME_MS_MAX : SCTP_RELIABLE,
        .reliability_value = 1,
    };

    if (message == NULL)
        return;
    fill(message);
    sctp_send(self->sctp, message, &how, now);
}

/* Whether both ends could be made; they are gone in any case. */
static bool live(struct side *a, struct side *b)
{
    bool made = side_open(a, 1) & side_open(b, 2);

    for (unsigned round = 0, sent = 0; made && round < ROUNDS_MAX; round++) {
        for (; sctp_state(a->sctp).open && sent < MESSAGE_COUNT && sent <= 3 * round; sent++) {
            send_one(a, sent);
            send_one(b, sent + 1);
        }
        if (round == 40)
            sctp_reset_streams(a->sctp, (uint16_t[]){0, 70}, 2, now);
        if (round == 60)
            sctp_close(b->sctp, false, now);
        carry(a, b);
        carry(b, a);
        now += 3 * MS_NS;
        struct side *sides[] = {a, b};
        for (unsigned at = 0; at < 2; at++)
            if (sctp_next_timeout(sides[at]->sctp) <= now)
                sctp_handle_timeout(sides[at]->sctp, now);
        if (a->end != SCTP_END_NONE && b->end != SCTP_END_NONE)
            break;
    }
    sctp_delete(a->sctp);
    sctp_delete(b->sctp);
    return made;
}

int main(void)
{
    for (int once = 1; once >= 0; once--) {
        unsigned lives = 0, starved = 0, wrong = 0, came = 0;

        allocations_fail_once = once;
        do {
            struct side a, b;

            now = 100 * MS_NS;
            packet_number = 0;
            allocations_failed = 0;
            allocations_left = lives++;
            bool made = live(&a, &b);
            allocations_left = UINT64_MAX;
            starved += !made || a.end == SCTP_END_MEMORY || b.end == SCTP_END_MEMORY;
            wrong += a.wrong + b.wrong;
            came = a.came + b.came;
        } while (allocations_failed > 0 && lives < LIVES_MAX);
        printf("%s %u lives, %u starved, %u wrong, %u came in the last\n", once ? "once" : "for-ever", lives, starved,
               wrong, came);
    }
    return 0;
}
