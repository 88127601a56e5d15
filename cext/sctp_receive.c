/* What came: which TSNs, and the messages they make.  A chunk that continues a message is appended to it at once; one
 * that came before its predecessor is copied and waits at its TSN's place; a whole unordered message is handed on
 * whatever is missing before it.  All of it is counted against the window we advertised. */

#include <stdlib.h>
#include <string.h>

#include "sctp_private.h"

enum {
    RECORD_BYTES = 64, /* what a waiting fragment or message costs besides its data, at most */
    SIZE_HINT_MIN = 4096,
};

static inline struct sctp_place *place_of(const struct sctp *self, uint32_t tsn)
{
    return &self->places[tsn & (self->received_span - 1)];
}

/* --- the ring ---------------------------------------------------------------------------------------------------- */

static bool ring_grow(struct sctp *self, uint32_t span)
{
    struct sctp_place *places = calloc(span, sizeof *places);
    uint64_t *bits = calloc(span / 64, sizeof *bits);

    if (places == NULL || bits == NULL) {
        free(places);
        free(bits);
        return false;
    }
    /* The TSN after the highest received may have an assembly waiting for it. */
    for (uint32_t tsn = self->tsn_received + 1, end = tsn + self->received_span; tsn != end; tsn++) {
        places[tsn & (span - 1)] = *place_of(self, tsn);
        if (bit_test(self->received_bits, self->received_span, tsn))
            bit_set(bits, span, tsn);
    }
    free(self->places);
    free(self->received_bits);
    self->places = places;
    self->received_bits = bits;
    self->received_span = span;
    return true;
}

bool sctp_receive_start(struct sctp *self)
{
    return self->received_span != 0 || ring_grow(self, SCTP_TSN_SPAN_MIN);
}

uint32_t sctp_window_advertised(const struct sctp *self)
{
    uint32_t window = self->config.window_bytes;

    return self->held_bytes < window ? window - (uint32_t)self->held_bytes : 0;
}

/* --- streams ----------------------------------------------------------------------------------------------------- */

static struct sctp_stream_in *stream_in(struct sctp *self, uint16_t stream, bool make)
{
    if (stream >= SCTP_STREAM_COUNT_MAX)
        return NULL;
    struct sctp_stream_in **block = &self->in_blocks[stream / SCTP_STREAMS_PER_BLOCK];
    if (*block == NULL && make)
        *block = calloc(SCTP_STREAMS_PER_BLOCK, sizeof **block);
    return *block == NULL ? NULL : *block + stream % SCTP_STREAMS_PER_BLOCK;
}

/* A heap: the message whose turn comes first is at index 0.  A peer that sends its SSNs backwards costs no more than
 * one that sends them in order. */
static bool ordered_push(struct sctp_stream_in *stream, struct sctp_ordered item)
{
    if (stream->waiting_count == stream->waiting_room) {
        uint32_t room = stream->waiting_room == 0 ? 8 : stream->waiting_room * 2;
        struct sctp_ordered *waiting = realloc(stream->waiting, room * sizeof *waiting);

        if (waiting == NULL)
            return false;
        stream->waiting = waiting;
        stream->waiting_room = room;
    }
    uint32_t index = stream->waiting_count++;
    while (index > 0 && ssn_after(stream->waiting[(index - 1) / 2].ssn, item.ssn)) {
        stream->waiting[index] = stream->waiting[(index - 1) / 2];
        index = (index - 1) / 2;
    }
    stream->waiting[index] = item;
    return true;
}

static struct sctp_ordered ordered_pop(struct sctp_stream_in *stream)
{
    struct sctp_ordered top = stream->waiting[0], moved = stream->waiting[--stream->waiting_count];
    uint32_t index = 0, child;

    while ((child = 2 * index + 1) < stream->waiting_count) {
        if (child + 1 < stream->waiting_count && ssn_after(stream->waiting[child].ssn, stream->waiting[child + 1].ssn))
            child++;
        if (!ssn_after(moved.ssn, stream->waiting[child].ssn))
            break;
        stream->waiting[index] = stream->waiting[child];
        index = child;
    }
    stream->waiting[index] = moved;
    return top;
}

static void hand_on(struct sctp *self, uint16_t stream, bool unordered, uint32_t ppid, struct sctp_message *message)
{
    struct sctp_arrival arrival = {.stream = stream, .unordered = unordered, .ppid = ppid, .message = message};

    self->counts.messages_received++;
    if (self->phase != SCTP_ENDED)
        self->handler->message(self->context, &arrival);
    sctp_message_delete(arrival.message);
}

/* Hand on what waits in a stream and whose turn has come. */
static void ordered_flush(struct sctp *self, uint16_t number)
{
    struct sctp_stream_in *stream;

    /* Looked up each time: the callee may have closed the association. */
    while ((stream = stream_in(self, number, false)) != NULL && stream->waiting_count > 0 &&
           !ssn_after(stream->waiting[0].ssn, stream->ssn_next)) {
        struct sctp_ordered item = ordered_pop(stream);

        self->held_bytes -= item.message->size + RECORD_BYTES;
        if (item.ssn != stream->ssn_next) { /* its turn is over */
            self->counts.dropped_other++;
            sctp_message_delete(item.message);
            continue;
        }
        stream->ssn_next++;
        hand_on(self, number, false, item.ppid, item.message);
    }
}

static void stream_in_drop(struct sctp *self, struct sctp_stream_in *stream)
{
    for (uint32_t index = 0; index < stream->waiting_count; index++) {
        self->held_bytes -= stream->waiting[index].message->size + RECORD_BYTES;
        sctp_message_delete(stream->waiting[index].message);
    }
    free(stream->waiting);
    *stream = (struct sctp_stream_in){0};
}

void sctp_stream_in_reset(struct sctp *self, uint16_t stream)
{
    struct sctp_stream_in *state = stream_in(self, stream, false);

    if (state != NULL)
        stream_in_drop(self, state);
}

/* A whole message: hand it on, or keep it until its turn. */
static void message_done(struct sctp *self, uint16_t number, uint16_t ssn, bool unordered, uint32_t ppid,
                         struct sctp_message *message)
{
    if (unordered) {
        hand_on(self, number, true, ppid, message);
        return;
    }
    struct sctp_stream_in *stream = stream_in(self, number, true);
    if (stream == NULL || ssn_after(stream->ssn_next, ssn) ||
        (ssn != stream->ssn_next && !ordered_push(stream, (struct sctp_ordered){message, ppid, ssn}))) {
        self->counts.dropped_other++; /* its turn is over, or no memory is left */
        sctp_message_delete(message);
        return;
    }
    if (ssn != stream->ssn_next) {
        self->held_bytes += message->size + RECORD_BYTES;
        return;
    }
    stream->ssn_next++;
    hand_on(self, number, false, ppid, message);
    ordered_flush(self, number);
}

/* --- messages in parts ------------------------------------------------------------------------------------------- */

static struct sctp_assembly *assembly_new(struct sctp *self, size_t room)
{
    struct sctp_assembly *assembly = self->assembly_spare;

    if (assembly != NULL) {
        self->assembly_spare = assembly->next;
        self->assembly_spare_count--;
    } else if ((assembly = malloc(sizeof *assembly)) == NULL) {
        return NULL;
    }
    assembly->message = sctp_message_new(room);
    if (assembly->message == NULL) {
        free(assembly);
        return NULL;
    }
    assembly->message->size = 0;
    self->held_bytes += assembly->message->room + RECORD_BYTES;
    return assembly;
}

/* The record goes; its message, if any, is the caller's. */
static struct sctp_message *assembly_take(struct sctp *self, struct sctp_assembly *assembly)
{
    struct sctp_message *message = assembly->message;

    self->held_bytes -= (message == NULL ? 0 : message->room) + RECORD_BYTES;
    if (self->assembly_spare_count == SCTP_SPARES_MAX) {
        free(assembly);
        return message;
    }
    assembly->next = self->assembly_spare;
    self->assembly_spare = assembly;
    self->assembly_spare_count++;
    return message;
}

static void assembly_drop(struct sctp *self, struct sctp_assembly *assembly)
{
    sctp_message_delete(assembly_take(self, assembly));
    self->counts.dropped_other++;
}

/* False: no memory, and nothing has changed. */
static bool assembly_append(struct sctp *self, struct sctp_assembly *assembly, const uint8_t *data, uint32_t size)
{
    struct sctp_message *message = assembly->message;

    if (message == NULL)
        return true;
    if (size > message->room - message->size) {
        uint32_t room = message->room * 2;

        if (size > SCTP_MESSAGE_BYTES_MAX - message->size) { /* larger than we said we take */
            self->held_bytes -= message->room;
            sctp_message_delete(message);
            assembly->message = NULL;
            self->counts.dropped_other++;
            return true;
        }
        if (room < message->size + size)
            room = message->size + size;
        if (room > SCTP_MESSAGE_BYTES_MAX)
            room = SCTP_MESSAGE_BYTES_MAX;
        message = realloc(message, sizeof *message + room);
        if (message == NULL)
            return false;
        self->held_bytes += room - message->room;
        message->data = (uint8_t *)(message + 1);
        message->room = room;
        assembly->message = message;
    }
    memcpy(message->data + message->size, data, size);
    message->size += size;
    return true;
}

/* A whole message keeps no more memory than twice what it is charged for, wherever it waits from now on: a peer that
 * cuts small ones in two would else have a large guess kept for each. */
static struct sctp_message *message_fit(struct sctp_message *message)
{
    if (message->room / 2 <= message->size)
        return message;
    struct sctp_message *fitted = realloc(message, sizeof *message + message->size);
    if (fitted == NULL)
        return message;
    fitted->data = (uint8_t *)(fitted + 1);
    fitted->room = fitted->size;
    return fitted;
}

static void fragment_drop(struct sctp *self, struct sctp_place *place)
{
    self->held_bytes -= place->fragment->size + RECORD_BYTES;
    self->fragment_count--;
    free(place->fragment);
    place->fragment = NULL;
}

static bool fragment_keep(struct sctp *self, struct sctp_place *place, const struct sctp_fragment *head,
                          const uint8_t *data)
{
    struct sctp_fragment *fragment = malloc(sizeof *fragment + head->size);

    if (fragment == NULL)
        return false;
    *fragment = *head;
    memcpy(fragment->data, data, head->size);
    place->fragment = fragment;
    self->held_bytes += head->size + RECORD_BYTES;
    self->fragment_count++;
    return true;
}

static inline bool belongs(const struct sctp_assembly *assembly, const struct sctp_fragment *head)
{
    return (head->flags & SCTP_FLAG_BEGIN) == 0 && assembly->stream == head->stream &&
           assembly->unordered == ((head->flags & SCTP_FLAG_UNORDERED) != 0) &&
           (assembly->unordered || assembly->ssn == head->ssn);
}

/* Take the data of a new TSN.  Returns false if there is no memory for it: then it did not come.  done: set to the
 * assembly, out of the ring, that is complete with it. */
static bool take(struct sctp *self, uint32_t tsn, const struct sctp_fragment *head, const uint8_t *data,
                 struct sctp_assembly **done)
{
    struct sctp_place *place = place_of(self, tsn);
    struct sctp_assembly *assembly = place->assembly;
    bool end = (head->flags & SCTP_FLAG_END) != 0;

    if (assembly != NULL && !belongs(assembly, head)) { /* given up by the peer, or a peer that breaks rules */
        assembly_drop(self, assembly);
        place->assembly = assembly = NULL;
    }
    if (assembly == NULL && (head->flags & SCTP_FLAG_BEGIN) == 0) {
        if (tsn != self->tsn_received + 1)
            return fragment_keep(self, place, head, data);
        self->counts.dropped_other++; /* its beginning was given up */
        return true;
    }
    if (assembly == NULL) {
        size_t room = head->size;

        /* The last message's size is a good guess, but only one message at a time may lay claim to that much. */
        if (!end)
            room = tsn == self->tsn_received + 1 ? self->size_hint : room * 2;
        if (room < head->size)
            room = head->size;
        if (room > SCTP_MESSAGE_BYTES_MAX)
            room = SCTP_MESSAGE_BYTES_MAX;
        if (head->size > room || (assembly = assembly_new(self, room)) == NULL)
            return false;
        assembly->ppid = head->ppid;
        assembly->stream = head->stream;
        assembly->ssn = head->ssn;
        assembly->unordered = (head->flags & SCTP_FLAG_UNORDERED) != 0;
        if (!assembly_append(self, assembly, data, head->size)) {
            assembly_drop(self, assembly);
            return false;
        }
    } else if (!assembly_append(self, assembly, data, head->size)) {
        return false;
    }
    place->assembly = NULL;
    while (!end) {
        place = place_of(self, ++tsn);
        if (place->fragment == NULL) {
            place->assembly = assembly;
            return true;
        }
        end = (place->fragment->flags & SCTP_FLAG_END) != 0;
        if (!belongs(assembly, place->fragment) ||
            !assembly_append(self, assembly, place->fragment->data, place->fragment->size)) {
            /* Acknowledged already and not to be had again: the message is lost to a peer that breaks rules, or to a
             * lack of memory. */
            self->counts.dropped_malformed++;
            assembly_drop(self, assembly);
            return true;
        }
        fragment_drop(self, place);
    }
    *done = assembly;
    return true;
}

/* Move the cumulative TSN over what has come. */
static void advance(struct sctp *self)
{
    while (self->received_reach > 0 && bit_test(self->received_bits, self->received_span, self->tsn_received + 1)) {
        struct sctp_place *place = place_of(self, ++self->tsn_received);

        self->received_reach--;
        bit_clear(self->received_bits, self->received_span, self->tsn_received);
        if (place->fragment != NULL) { /* its beginning was given up */
            self->counts.dropped_other++;
            fragment_drop(self, place);
        }
    }
}

static void note_duplicate(struct sctp *self, uint32_t tsn)
{
    self->counts.dropped_duplicate++;
    self->sack_now = true;
    if (self->duplicate_count < SCTP_DUPLICATES_MAX)
        self->duplicates[self->duplicate_count++] = tsn;
}

static void note_stream_unknown(struct sctp *self, uint16_t stream)
{
    uint8_t *cause;

    self->counts.dropped_other++;
    if (self->stream_error_told || (cause = sctp_control(self, SCTP_ERROR, 0, 8)) == NULL)
        return;
    store_be16(cause, SCTP_CAUSE_STREAM);
    store_be16(cause + 2, 8);
    store_be16(cause + 4, stream);
    store_be16(cause + 6, 0);
    self->stream_error_told = true;
}

void sctp_receive_data_untrusted(struct sctp *self, const uint8_t *chunk, size_t size, uint64_t now)
{
    struct sctp_assembly *done = NULL;

    (void)now;
    if (size < SCTP_DATA_HEADER_BYTES) {
        self->counts.dropped_malformed++;
        return;
    }
    const uint8_t *data = chunk + SCTP_DATA_HEADER_BYTES;
    uint32_t tsn = load_be32(chunk + 4), ahead = tsn - self->tsn_received;
    struct sctp_fragment head = {
        .ppid = load_be32(chunk + 12),
        .stream = load_be16(chunk + 8),
        .ssn = load_be16(chunk + 10),
        .size = (uint16_t)(size - SCTP_DATA_HEADER_BYTES),
        .flags = chunk[1],
    };
    if (head.size == 0) {
        sctp_violation(self, SCTP_CAUSE_NO_DATA); /* RFC 9260, section 6.2 */
        return;
    }
    self->sack_wanted = self->packet_had_data = true;
    if ((head.flags & SCTP_FLAG_IMMEDIATE) != 0)
        self->sack_now = true;
    if (ahead == 0 || ahead > INT32_MAX || (ahead < self->received_span && /* no bit reaches further */
                                            bit_test(self->received_bits, self->received_span, tsn))) {
        note_duplicate(self, tsn);
        return;
    }
    uint64_t allowed = self->config.window_bytes + (ahead == 1 ? (uint64_t)SCTP_OVERRUN_BYTES : 0);
    if (ahead >= SCTP_TSN_SPAN_MAX - 1 || self->held_bytes + head.size > allowed) {
        self->counts.dropped_window++;
        self->sack_now = true;
        return;
    }
    while (ahead + 1 >= self->received_span) {
        if (!ring_grow(self, self->received_span * 2)) {
            self->counts.dropped_other++;
            return;
        }
    }
    if (head.stream >= self->streams_in) {
        struct sctp_place *place = place_of(self, tsn);

        if (place->assembly != NULL) { /* it waited for this TSN, and is found by it alone */
            assembly_drop(self, place->assembly);
            place->assembly = NULL;
        }
        note_stream_unknown(self, head.stream); /* it came; only nobody wants it */
    } else if (!take(self, tsn, &head, data, &done)) {
        self->counts.dropped_other++;
        return;
    }
    if (ahead > self->received_reach)
        self->received_reach = ahead;
    bit_set(self->received_bits, self->received_span, tsn);
    if (ahead == 1)
        advance(self);
    if (self->received_reach > 0)
        self->sack_now = true;
    if (done != NULL) {
        struct sctp_assembly whole = *done;
        struct sctp_message *message = assembly_take(self, done);

        if ((head.flags & SCTP_FLAG_BEGIN) == 0 && message != NULL)
            self->size_hint = message->size > SIZE_HINT_MIN ? message->size : SIZE_HINT_MIN;
        if (message != NULL)
            message_done(self, whole.stream, whole.ssn, whole.unordered, whole.ppid, message_fit(message));
    }
    if (self->request_deferred)
        sctp_reset_deferred(self);
}

/* --- what the peer gave up --------------------------------------------------------------------------------------- */

void sctp_receive_forward_untrusted(struct sctp *self, const uint8_t *chunk, size_t size, uint64_t now)
{
    (void)now;
    if (size < 8) {
        self->counts.dropped_malformed++;
        return;
    }
    uint32_t target = load_be32(chunk + 4);
    self->sack_wanted = self->sack_now = true;
    if (!tsn_after(target, self->tsn_received))
        return; /* an old one; the SACK tells the peer so */

    /* Beyond what came nothing waits in the ring. */
    uint32_t known = self->received_reach + 1;
    if (target - self->tsn_received < known)
        known = target - self->tsn_received;
    for (uint32_t tsn = self->tsn_received + 1, end = tsn + known; tsn != end; tsn++) {
        struct sctp_place *place = place_of(self, tsn);

        if (place->fragment != NULL)
            fragment_drop(self, place);
        if (place->assembly != NULL) {
            assembly_drop(self, place->assembly);
            place->assembly = NULL;
        }
        bit_clear(self->received_bits, self->received_span, tsn);
    }
    uint32_t moved = target - self->tsn_received;
    self->received_reach -= moved < self->received_reach ? moved : self->received_reach;
    self->tsn_received = target;
    advance(self);

    for (size_t at = 8; size - at >= 4; at += 4) {
        uint16_t number = load_be16(chunk + at), ssn = load_be16(chunk + at + 2);
        struct sctp_stream_in *stream = number < self->streams_in ? stream_in(self, number, true) : NULL;

        if (stream == NULL || ssn_after(stream->ssn_next, ssn))
            continue;
        /* What came whole and waited for those given up goes on before them in order. */
        while (stream->waiting_count > 0 && !ssn_after(stream->waiting[0].ssn, ssn) && self->phase != SCTP_ENDED) {
            struct sctp_ordered item = ordered_pop(stream);

            self->held_bytes -= item.message->size + RECORD_BYTES;
            hand_on(self, number, false, item.ppid, item.message);
        }
        if (self->phase == SCTP_ENDED)
            return;
        stream->ssn_next = (uint16_t)(ssn + 1);
        ordered_flush(self, number);
    }
    if (self->request_deferred)
        sctp_reset_deferred(self);
}

/* --- what the peer is told --------------------------------------------------------------------------------------- */

size_t sctp_put_sack(struct sctp *self, uint8_t *at, size_t room)
{
    uint32_t first = self->tsn_received + 1, end = first + self->received_reach;
    size_t used = 16, gap_count = 0, duplicate_count = 0;

    if (room < used)
        return 0;
    for (uint32_t tsn = first; used + 4 <= room; gap_count++, used += 4) {
        tsn = bit_next(self->received_bits, self->received_span, tsn, end, true);
        if (tsn == end)
            break;
        store_be16(at + used, (uint16_t)(tsn - self->tsn_received));
        tsn = bit_next(self->received_bits, self->received_span, tsn, end, false);
        store_be16(at + used + 2, (uint16_t)(tsn - 1 - self->tsn_received));
    }
    for (; duplicate_count < self->duplicate_count && used + 4 <= room; duplicate_count++, used += 4)
        store_be32(at + used, self->duplicates[duplicate_count]);
    store_chunk_header(at, SCTP_SACK, 0, used);
    store_be32(at + 4, self->tsn_received);
    store_be32(at + 8, sctp_window_advertised(self));
    store_be16(at + 12, (uint16_t)gap_count);
    store_be16(at + 14, (uint16_t)duplicate_count);
    self->duplicate_count = 0;
    self->sack_wanted = self->sack_now = false;
    self->sack_packets = 0;
    self->sack_at = SCTP_NEVER;
    return used;
}

void sctp_receive_drop(struct sctp *self)
{
    for (uint32_t index = 0; index < self->received_span; index++) {
        struct sctp_place *place = &self->places[index];

        if (place->fragment != NULL)
            fragment_drop(self, place);
        if (place->assembly != NULL)
            assembly_drop(self, place->assembly);
    }
    free(self->places);
    free(self->received_bits);
    self->places = NULL;
    self->received_bits = NULL;
    self->received_span = self->received_reach = 0;
    while (self->assembly_spare != NULL) {
        struct sctp_assembly *assembly = self->assembly_spare;

        self->assembly_spare = assembly->next;
        free(assembly);
    }
    self->assembly_spare_count = 0;
    for (unsigned block = 0; block < SCTP_STREAM_BLOCK_COUNT; block++) {
        if (self->in_blocks[block] == NULL)
            continue;
        for (unsigned index = 0; index < SCTP_STREAMS_PER_BLOCK; index++)
            stream_in_drop(self, &self->in_blocks[block][index]);
        free(self->in_blocks[block]);
        self->in_blocks[block] = NULL;
    }
}
