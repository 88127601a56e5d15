/* libFuzzer over cext/relay/relay.c: a script adds and removes routes, and hands frames over, while time passes.  Every
 * frame is passed on once, dropped once, or is still the caller's; it goes where its route says, under its next label.
 *
 *     limits | steps */

#include <string.h>

#include "anchor/frame.h"
#include "relay/relay.h"
#include "script.h"

enum { LINK_COUNT = 4, LABEL_COUNT = 8, PAYLOAD_BYTES_MAX = 3000 };

static size_t alive; /* messages */

/* As cext/sctp/sctp.h promises it; the real one drags a whole association in. */
void sctp_message_delete(struct sctp_message *message)
{
    if (message == NULL)
        return;
    alive--;
    free(message->data);
    free(message);
}

struct world {
    struct relay *relay;
    struct script script;
    uint64_t now;
    uint64_t received, passed, dropped;
};

static void dropped(void *context, enum relay_drop why)
{
    struct world *self = context;

    demand(why <= RELAY_GONE);
    self->dropped++;
}

static struct sctp_message *message_new(struct script *script, uint32_t label, bool feedback)
{
    struct sctp_message *message = calloc(1, sizeof *message);
    size_t size = HEADER_BYTES + TAG_BYTES + next_word(script) % PAYLOAD_BYTES_MAX;

    demand(message != NULL);
    message->data = calloc(1, size);
    demand(message->data != NULL);
    message->size = message->room = (uint32_t)size;
    message->data[0] = FRAME_VERSION;
    message->data[1] = feedback ? FLAG_FEEDBACK : 0;
    store_be32(message->data + 4, label);
    alive++;
    return message;
}

static struct relay_hop hop(struct script *script)
{
    uint8_t where = next_byte(script), labels = next_byte(script);

    return (struct relay_hop){
        .link = where % LINK_COUNT,
        .tether = where >> 4,
        .channel_count = 1 + (where >> 2) % RELAY_CHANNEL_COUNT_MAX,
        .label_out = 100 + labels % LABEL_COUNT,
        .label_in = (labels >> 4) % LABEL_COUNT,
    };
}

static void receive(struct world *self)
{
    uint8_t where = next_byte(&self->script);
    uint32_t link = where % LINK_COUNT, label = (where >> 2) % LABEL_COUNT;
    bool feedback = where & 128, unordered = where & 64;
    unsigned channel = next_byte(&self->script);
    struct sctp_message *message = message_new(&self->script, label, feedback);
    bool holds = relay_holds(self->relay, link, label, feedback);
    bool taken = relay_receive_untrusted(self->relay, link, label, feedback, channel, unordered, message, self->now);

    demand(taken == holds);
    self->received += taken;
    if (!taken)
        sctp_message_delete(message);
}

static void pass(struct world *self)
{
    uint32_t link = next_byte(&self->script) % LINK_COUNT;
    bool waits = relay_waits(self->relay, link);
    struct relay_frame frame;

    if (!relay_next(self->relay, link, &frame, self->now))
        return;
    demand(waits);
    demand(frame.hop->link == link && frame.channel < frame.hop->channel_count);
    demand(frame_label(frame.message->data) == frame.hop->label_out);
    self->passed++;
    sctp_message_delete(frame.message);
}

static void look(const struct world *self)
{
    struct relay_status status;

    demand(alive == self->received - self->passed - self->dropped);
    for (size_t index = 0; relay_status(self->relay, index, &status); index++) {
        demand(relay_holds(self->relay, status.before.link, status.before.label_in, false));
        demand(relay_holds(self->relay, status.ahead.link, status.ahead.label_in, true));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct world self = {.script = {data, size}, .now = UINT64_C(1000000000)};
    struct relay_limits limits = {
        .route_bytes_max = (size_t)next_byte(&self.script) << 8,
        .link_bytes_max = (size_t)next_byte(&self.script) << 9,
        .bytes_max = (size_t)next_byte(&self.script) << 10,
        .mark_bytes = (size_t)next_byte(&self.script) << 6,
        .age_ns_max = (uint64_t)next_byte(&self.script) * 10000000,
        .bytes_per_s = (uint64_t)next_byte(&self.script) << 10,
    };

    self.relay = relay_new(&limits, dropped, &self);
    demand(self.relay != NULL);
    while (self.script.left > 0) {
        switch (next_byte(&self.script) % 8) {
        case 0: {
            struct relay_hop before = hop(&self.script), ahead = hop(&self.script);
            relay_add(self.relay, &before, &ahead, self.now);
            break;
        }
        case 1: {
            uint32_t link = next_byte(&self.script) % LINK_COUNT;
            relay_remove(self.relay, link, next_byte(&self.script) % LABEL_COUNT);
            break;
        }
        case 2:
            self.now += (uint64_t)next_word(&self.script) * 100000;
            break;
        case 3:
        case 4:
            pass(&self);
            break;
        default:
            receive(&self);
        }
        look(&self);
    }
    relay_delete(self.relay);
    demand(alive == 0);
    return 0;
}
