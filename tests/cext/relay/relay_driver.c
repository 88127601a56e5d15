/* cext/relay/relay.c by lines; see driven.py.  Every answer ends with the drops since the table is there. */

#include "alloc.h"
#include "lines.h"
#include "relay/relay.h"

/* As cext/sctp/sctp.h promises it; the real one drags a whole association in. */
void sctp_message_delete(struct sctp_message *message)
{
    if (message != NULL)
        free(message->data);
    free(message);
}

static struct sctp_message *message_of(struct blob frame)
{
    struct sctp_message *message = malloc(sizeof *message);

    if (message == NULL)
        abort();
    *message = (struct sctp_message){.data = frame.data, .size = (uint32_t)frame.size, .room = (uint32_t)frame.size};
    return message;
}

static void dropped(void *context, enum relay_drop why)
{
    unsigned *drops = context;

    drops[why]++;
}

static struct relay_limits limits(void)
{
    struct relay_limits self;

    self.route_bytes_max = number();
    self.link_bytes_max = number();
    self.bytes_max = number();
    self.mark_bytes = number();
    self.age_ns_max = number();
    self.bytes_per_s = number();
    return self;
}

static struct relay_hop hop(void)
{
    struct relay_hop self;

    self.link = (uint32_t)number();
    self.tether = number();
    self.channel_count = (uint32_t)number();
    self.label_out = (uint32_t)number();
    self.label_in = (uint32_t)number();
    return self;
}

static void receive(struct relay *relay)
{
    uint32_t link = (uint32_t)number(), label = (uint32_t)number();
    bool feedback = number() != 0;
    unsigned channel = (unsigned)number();
    bool unordered = number() != 0;
    uint64_t left = allocations_left;
    allocations_left = UINT64_MAX; /* the caller's memory is not what is tested */
    struct sctp_message *message = message_of(blob());
    allocations_left = left;

    bool taken = relay_receive_untrusted(relay, link, label, feedback, channel, unordered, message, number());
    if (!taken)
        sctp_message_delete(message);
    printf("%d", taken);
}

static void next(struct relay *relay)
{
    uint32_t link = (uint32_t)number();
    struct relay_frame frame;

    if (!relay_next(relay, link, &frame, number()))
        return;
    printf("%" PRIu32 " %" PRIu64 " %u %d ", frame.hop->link, frame.hop->tether, frame.channel, frame.unordered);
    print_hex(frame.message->data, frame.message->size);
    sctp_message_delete(frame.message);
}

static void print_hop(const struct relay_hop *self)
{
    printf("%" PRIu32 "/%" PRIu32 "/%" PRIu32, self->link, self->label_in, self->label_out);
}

static void print_status(const struct relay *relay)
{
    struct relay_status status;

    for (size_t index = 0; relay_status(relay, index, &status); index++) {
        print_hop(&status.before);
        putchar('-');
        print_hop(&status.ahead);
        printf("-%" PRIu64 "-%" PRIu64 "-%" PRIu64 "-%" PRIu64 " ", status.frames_ahead, status.bytes_ahead,
               status.frames_back, status.bytes_back);
    }
}

int main(void)
{
    unsigned drops[4] = {0};
    struct relay *relay = NULL;
    const char *command;

    while ((command = line_next()) != NULL) {
        switch (command[0]) {
        case 'i': {
            struct relay_limits of = limits();
            relay_delete(relay);
            memset(drops, 0, sizeof drops);
            relay = relay_new(&of, dropped, drops);
            break;
        }
        case 'a': {
            struct relay_hop before = hop(), ahead = hop();
            const char *trouble = relay_add(relay, &before, &ahead, number());
            fputs(trouble == NULL ? "" : trouble, stdout);
            break;
        }
        case 'd': {
            uint32_t link = (uint32_t)number();
            relay_remove(relay, link, (uint32_t)number());
            break;
        }
        case 'r':
            receive(relay);
            break;
        case 'n':
            next(relay);
            break;
        case 'w':
            printf("%d", relay_waits(relay, (uint32_t)number()));
            break;
        case 'h': {
            uint32_t link = (uint32_t)number(), label = (uint32_t)number();
            printf("%d", relay_holds(relay, link, label, number() != 0));
            break;
        }
        case 'x': /* so many allocations succeed, and then none; -1: all */
            allocations_left = number();
            break;
        case 's':
            print_status(relay);
            break;
        default:
            return 2;
        }
        printf(";%u %u %u %u", drops[RELAY_FULL], drops[RELAY_RATE], drops[RELAY_AGED], drops[RELAY_GONE]);
        line_end();
    }
    relay_delete(relay);
    return 0;
}
