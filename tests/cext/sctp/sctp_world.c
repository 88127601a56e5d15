#include "sctp/sctp_world.h"

#include <stdlib.h>
#include <string.h>

#include "base/mix.h"

enum { PACKET_ROOM = 10240, EVENTS_MAX = 200 * 1000 * 1000, ROUNDS_MAX = 100000, FILLS_PER_TURN = 8 };

struct flying {
    uint64_t at, order;
    uint8_t to;
    uint16_t size;
    uint8_t *data;
};

struct end {
    struct world *world;
    struct world_side *seen;
    const struct world_load *load, *other_load;
    struct sctp *sctp;
    int index;
    uint32_t next_message; /* of ours */
    uint64_t next_message_at;
    uint8_t *came; /* of the other's messages */
    uint32_t *last_of_stream; /* ordered; number + 1 */
    uint64_t bottleneck_free_at;
    uint64_t away_until; /* the association is not run before */
    bool reset_asked, close_asked;
};

struct world {
    const struct world_config *config;
    struct world_result *result;
    uint64_t now, random, order;
    struct flying *flying; /* a heap by arrival */
    size_t flying_count, flying_room;
    struct end end[2];
    uint64_t *sent_at[2]; /* by message */
    bool failed;
};

static bool happens(struct world *self, uint32_t ppm) { return ppm != 0 && mix64_next(&self->random) % 1000000 < ppm; }

/* --- packets under way ------------------------------------------------------------------------------------------- */

static bool before(const struct flying *a, const struct flying *b)
{
    return a->at < b->at || (a->at == b->at && a->order < b->order);
}

static void relaunch(struct world *self, struct flying *item, uint64_t at)
{
    if (self->flying_count == self->flying_room) {
        size_t room = self->flying_room * 2 + 64;
        struct flying *flying = realloc(self->flying, room * sizeof *flying);

        if (flying == NULL) {
            free(item->data);
            self->failed = true;
            return;
        }
        self->flying = flying;
        self->flying_room = room;
    }
    item->at = at;
    size_t index = self->flying_count++;
    while (index > 0 && before(item, &self->flying[(index - 1) / 2])) {
        self->flying[index] = self->flying[(index - 1) / 2];
        index = (index - 1) / 2;
    }
    self->flying[index] = *item;
}

static void fly(struct world *self, int to, const uint8_t *data, size_t size, uint64_t at)
{
    struct flying item = {.order = self->order++, .to = (uint8_t)to, .size = (uint16_t)size, .data = malloc(size)};

    if (item.data == NULL) {
        self->failed = true;
        return;
    }
    memcpy(item.data, data, size);
    relaunch(self, &item, at);
}

static struct flying land(struct world *self)
{
    struct flying top = self->flying[0], moved = self->flying[--self->flying_count];
    size_t index = 0, child;

    while ((child = 2 * index + 1) < self->flying_count) {
        if (child + 1 < self->flying_count && before(&self->flying[child + 1], &self->flying[child]))
            child++;
        if (!before(&self->flying[child], &moved))
            break;
        self->flying[index] = self->flying[child];
        index = child;
    }
    self->flying[index] = moved;
    return top;
}

static void send_over(struct world *self, int from, uint8_t *data, size_t size)
{
    const struct world_wire *wire = &self->config->wire[from];
    struct end *end = &self->end[from];
    uint64_t at = self->now;
    uint32_t bytes_max = wire->packet_bytes_max;

    end->seen->wire_packets++;
    if (wire->narrow_from_ns != 0 && self->now >= wire->narrow_from_ns)
        bytes_max = wire->packet_bytes_narrow;
    if ((bytes_max != 0 && size > bytes_max) || happens(self, wire->loss_ppm) ||
        (self->now >= wire->cut_from_ns && self->now < wire->cut_until_ns)) {
        end->seen->wire_dropped++;
        return;
    }
    if (wire->rate_bytes_s != 0) {
        uint64_t free_at = end->bottleneck_free_at > at ? end->bottleneck_free_at : at;

        if ((free_at - at) * wire->rate_bytes_s / 1000000000 + size > wire->queue_bytes) {
            end->seen->wire_dropped++;
            return;
        }
        at = end->bottleneck_free_at = free_at + size * UINT64_C(1000000000) / wire->rate_bytes_s;
    }
    at += wire->delay_ns;
    if (wire->jitter_ns != 0)
        at += mix64_next(&self->random) % wire->jitter_ns;
    if (happens(self, wire->flip_ppm))
        data[mix64_next(&self->random) % size] ^= (uint8_t)(1 << mix64_next(&self->random) % 8);
    fly(self, 1 - from, data, size, at);
    if (happens(self, wire->duplicate_ppm))
        fly(self, 1 - from, data, size, at + wire->delay_ns / 2);
}

/* --- messages ---------------------------------------------------------------------------------------------------- */

/* A message begins with its number, and is filled with bytes derived from it. */
static uint8_t filling(uint32_t number, uint32_t at) { return (uint8_t)(number * 31 + at * 7 + (at >> 8)); }

static uint32_t size_of(const struct world_load *load, uint32_t number)
{
    if (number < load->pings)
        return load->ping_bytes;
    uint32_t span = load->size_max - load->size_min + 1;

    return load->size_min + (uint32_t)((uint64_t)(number * UINT32_C(2654435761)) * span >> 32);
}

static bool unordered_of(const struct world_load *load, uint32_t number)
{
    return load->unordered == 1 || (load->unordered == 2 && number % 2 == 1);
}

static bool send_next(struct end *self)
{
    const struct world_load *load = self->load;
    uint32_t number = self->next_message, size = size_of(load, number);
    struct sctp_message *message = sctp_message_new(size);
    struct sctp_sending how = {
        .stream = (uint16_t)(number / 2 % load->streams),
        .unordered = unordered_of(load, number),
        .ppid = 53,
        .reliability = (enum sctp_reliability)load->reliability,
        .reliability_value = load->reliability_value,
    };

    if (message == NULL)
        return false;
    for (uint32_t at = 0; at < size; at++)
        message->data[at] = filling(number, at);
    for (uint32_t at = 0; at < 4 && size >= 4; at++)
        message->data[at] = (uint8_t)(number >> (24 - 8 * at));
    if (!sctp_send(self->sctp, message, &how, self->world->now))
        return false;
    self->world->sent_at[self->index][number] = self->world->now;
    self->next_message++;
    self->seen->sent++;
    return true;
}

static void on_opened(void *context)
{
    struct end *self = context;

    self->seen->opened++;
    self->seen->opened_ns = self->world->now;
}

static void on_message(void *context, struct sctp_arrival *arrival)
{
    struct end *self = context;
    const struct sctp_message *message = arrival->message;
    const struct world_load *load = self->other_load;
    uint32_t number = 0;

    self->seen->delivered++;
    self->seen->delivered_bytes += message->size;
    self->seen->delivered_last_ns = self->world->now;
    if (message->size < 4)
        return;
    for (uint32_t at = 0; at < 4; at++)
        number = number << 8 | message->data[at];
    if (number >= load->messages || message->size != size_of(load, number) || arrival->ppid != 53 ||
        arrival->stream != number / 2 % load->streams || arrival->unordered != unordered_of(load, number)) {
        self->seen->corrupted++;
        return;
    }
    for (uint32_t at = 4; at < message->size; at++) {
        if (message->data[at] != filling(number, at)) {
            self->seen->corrupted++;
            break;
        }
    }
    if (self->came[number]++ != 0)
        self->seen->twice++;
    uint64_t latency = self->world->now - self->world->sent_at[1 - self->index][number];
    self->seen->latency_sum_ns += latency;
    if (latency > self->seen->latency_max_ns)
        self->seen->latency_max_ns = latency;
    if (arrival->unordered)
        return;
    if (number + 1 <= self->last_of_stream[arrival->stream])
        self->seen->misordered++;
    self->last_of_stream[arrival->stream] = number + 1;
}

static void on_reset(void *context, bool incoming, bool accepted, const uint16_t *streams, size_t count)
{
    struct end *self = context;

    (void)streams;
    if (incoming)
        self->seen->resets_in += (uint32_t)count;
    else if (accepted)
        self->seen->resets_out += (uint32_t)count;
    else
        self->seen->resets_refused += (uint32_t)count;
}

static void on_closed(void *context, enum sctp_end why)
{
    struct end *self = context;

    self->seen->closed++;
    self->seen->end = why;
}

static const struct sctp_handler handler = {on_opened, on_message, on_reset, on_closed};

/* --- one side's turn --------------------------------------------------------------------------------------------- */

static bool idle(const struct end *self)
{
    struct sctp_state state = sctp_state(self->sctp);

    return self->next_message == self->load->messages && state.unsent_bytes == 0 && state.inflight_bytes == 0;
}

static void fill(struct end *self)
{
    struct world *world = self->world;

    while (self->next_message < self->load->messages && self->next_message_at <= world->now) {
        bool ping = self->next_message < self->load->pings;

        if (!ping && self->load->gap_ns == 0 && sctp_room(self->sctp, world->now) == 0)
            break;
        if (!send_next(self))
            break;
        if (ping)
            self->next_message_at = world->now + self->load->ping_gap_ns;
        else if (self->load->gap_ns != 0)
            self->next_message_at += self->load->gap_ns;
    }
}

/* Send what may go now.  False: nothing may. */
static bool send_packets(struct end *self)
{
    uint8_t room[PACKET_ROOM];
    size_t size;
    bool any = false;

    while ((size = sctp_next_packet(self->sctp, room, sizeof room, self->world->now)) != 0) {
        send_over(self->world, self->index, room, size);
        any = true;
    }
    return any;
}

static void turn(struct end *self)
{
    struct world *world = self->world;
    const struct world_config *config = world->config;

    fill(self);
    if (self->index == 0 && idle(self) && self->seen->opened != 0) {
        if (config->reset_at_end && !self->reset_asked) {
            uint16_t streams[WORLD_STREAMS_MAX];

            for (uint16_t stream = 0; stream < self->load->streams; stream++)
                streams[stream] = stream;
            self->reset_asked = sctp_reset_streams(self->sctp, streams, self->load->streams, world->now);
        } else if (config->close_at_end != 0 && !self->close_asked &&
                   (!config->reset_at_end || self->seen->resets_out + self->seen->resets_refused > 0)) {
            self->close_asked = true;
            sctp_close(self->sctp, config->close_at_end == 2, world->now);
        }
    }
    for (int fills = 1; send_packets(self) && fills < FILLS_PER_TURN; fills++)
        fill(self);
    struct sctp_state state = sctp_state(self->sctp);
    if (state.held_bytes > self->seen->held_bytes_max)
        self->seen->held_bytes_max = state.held_bytes;
    if (state.unsent_bytes > self->seen->unsent_bytes_max)
        self->seen->unsent_bytes_max = state.unsent_bytes;
}

static bool away(const struct world *self, int index) { return self->now < self->end[index].away_until; }

static bool stalled(const struct world *self, int index)
{
    return index == 1 && self->now >= self->config->stall_from_ns && self->now < self->config->stall_until_ns;
}

static bool done(const struct world *self)
{
    const struct world_config *config = self->config;

    if (self->end[0].seen->opened == 0 || self->end[1].seen->opened == 0)
        return false;
    if (config->close_at_end != 0)
        return self->end[0].seen->closed != 0 && self->end[1].seen->closed != 0;
    if (config->reset_at_end && self->end[0].seen->resets_out + self->end[0].seen->resets_refused == 0)
        return false;
    return idle(&self->end[0]) && idle(&self->end[1]);
}

static uint64_t wake_at(const struct world *self, int index)
{
    const struct end *end = &self->end[index];
    uint64_t at = sctp_next_timeout(end->sctp);

    if (end->next_message < end->load->messages && (end->load->gap_ns != 0 || end->next_message_at > self->now) &&
        end->seen->opened != 0 && end->next_message_at < at)
        at = end->next_message_at;
    if (index == 1 && self->config->stall_from_ns <= self->now && self->now < self->config->stall_until_ns &&
        at < self->config->stall_until_ns)
        at = self->config->stall_until_ns;
    return at < end->away_until ? end->away_until : at;
}

static void run(struct world *self)
{
    unsigned rounds = 0; /* at one moment */

    for (int index = 0; index < 2; index++)
        if ((self->config->connect & 1 << index) != 0)
            sctp_connect(self->end[index].sctp, self->now);
    while (!self->failed && self->result->events < EVENTS_MAX) {
        for (int index = 0; index < 2; index++) {
            struct end *end = &self->end[index];

            if (stalled(self, index) || away(self, index))
                continue;
            if (sctp_next_timeout(end->sctp) <= self->now)
                sctp_handle_timeout(end->sctp, self->now);
            turn(end);
            end->away_until = self->now + self->config->turn_ns[index];
        }
        if (self->config->stop_when_done && done(self))
            return;
        uint64_t at = self->flying_count > 0 ? self->flying[0].at : UINT64_MAX;
        for (int index = 0; index < 2; index++) {
            uint64_t wake = wake_at(self, index);

            if (wake < at)
                at = wake;
        }
        if (at > self->config->until_ns) {
            self->now = self->config->until_ns;
            return;
        }
        if (at > self->now) {
            self->now = at;
            rounds = 0;
        } else if (++rounds > ROUNDS_MAX) {
            self->failed = true;
            return;
        }
        bool touched[2] = {false, false};
        while (self->flying_count > 0 && self->flying[0].at <= self->now) {
            struct flying item = land(self);

            self->result->events++;
            if (away(self, item.to)) { /* they wait in the order in which they came */
                relaunch(self, &item, self->end[item.to].away_until);
                continue;
            }
            if (!stalled(self, item.to)) {
                sctp_receive_untrusted(self->end[item.to].sctp, item.data, item.size, self->now);
                touched[item.to] = true;
            }
            free(item.data);
        }
        for (int index = 0; index < 2; index++)
            if (touched[index])
                sctp_receive_done(self->end[index].sctp, self->now);
        self->result->events++;
    }
    self->failed = true;
}

bool world_run(const struct world_config *config, struct world_result *result)
{
    struct world self = {.config = config, .result = result, .now = 1000000, .random = config->seed};

    *result = (struct world_result){0};
    for (int index = 0; index < 2; index++) {
        struct end *end = &self.end[index];
        struct sctp_config own = {
            .port_local = 5000,
            .port_remote = 5000,
            .packet_bytes_max = config->packet_bytes_max,
            .window_bytes = config->window_bytes,
            .send_bytes_max = config->send_bytes_max,
        };

        for (size_t at = 0; at < sizeof own.entropy; at++)
            own.entropy[at] = (uint8_t)mix64_next(&self.random);
        *end = (struct end){
            .world = &self,
            .seen = &result->side[index],
            .load = &config->load[index],
            .other_load = &config->load[1 - index],
            .index = index,
            .sctp = sctp_new(&own, &handler, end),
            .came = calloc(config->load[1 - index].messages + 1, 1),
            .last_of_stream = calloc(UINT16_MAX + 1, sizeof(uint32_t)),
        };
        self.sent_at[index] = calloc(config->load[index].messages + 1, sizeof(uint64_t));
        self.failed = self.failed || end->sctp == NULL || end->came == NULL || end->last_of_stream == NULL ||
                      self.sent_at[index] == NULL;
    }
    if (!self.failed)
        run(&self);
    result->now_ns = self.now;
    for (int index = 0; index < 2; index++) {
        struct end *end = &self.end[index];

        if (end->sctp != NULL) {
            result->side[index].counts = *sctp_counts(end->sctp);
            result->side[index].state = sctp_state(end->sctp);
        }
        sctp_delete(end->sctp);
        free(end->came);
        free(end->last_of_stream);
        free(self.sent_at[index]);
    }
    while (self.flying_count > 0)
        free(land(&self).data);
    free(self.flying);
    return !self.failed;
}
