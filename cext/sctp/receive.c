/* What came: which TSNs, and the messages they make.  A chunk that continues a message is appended to it at once.  A
 * chunk that came before its predecessor is copied, and waits at its TSN's place.  A whole unordered message is
 * handed on, even if chunks before it are missing.  All that waits counts against the window we advertised. */

#include <stdlib.h>
#include <string.h>

#include "sctp/state.h"

enum { SIZE_HINT_MIN = 4096 };

static inline struct sctp_place *place_of(const struct sctp *self, uint32_t tsn)
{
    return &self->in.places[tsn & (self->in.span - 1)];
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
    /* An assembly may wait for the TSN after the highest received. */
    for (uint32_t tsn = self->in.tsn_received + 1, end = tsn + self->in.span; tsn != end; tsn++) {
        places[tsn & (span - 1)] = *place_of(self, tsn);
        if (bit_test(self->in.received_bits, self->in.span, tsn))
            bit_set(bits, span, tsn);
    }
    free(self->in.places);
    free(self->in.received_bits);
    self->in.places = places;
    self->in.received_bits = bits;
    self->in.span = span;
    return true;
}

bool sctp_receive_start(struct sctp *self)
{
    return self->in.span != 0 || ring_grow(self, SCTP_TSN_SPAN_MIN);
}

uint32_t sctp_receive_window(const struct sctp *self)
{
    uint32_t window = self->config.window_bytes;

    return self->in.held_bytes < window ? window - (uint32_t)self->in.held_bytes : 0;
}

/* --- streams ----------------------------------------------------------------------------------------------------- */

static void hand_on(struct sctp *self, uint16_t stream, bool unordered, uint32_t ppid, struct sctp_message *message)
{
    struct sctp_arrival arrival = {.stream = stream, .unordered = unordered, .ppid = ppid, .message = message};

    self->counts.messages_received++;
    if (self->phase != SCTP_ENDED)
        self->handler->message(self->context, &arrival);
    sctp_message_delete(arrival.message);
}

/* Hand on the messages of a stream whose turn has come. */
static void ordered_flush(struct sctp *self, uint16_t number)
{
    struct sctp_stream_in *stream;

    /* The stream is looked up each time: the callee may have closed the association. */
    while ((stream = sctp_streams_in(self, number, false)) != NULL && stream->waiting_count > 0 &&
           !ssn_after(stream->waiting[0].ssn, stream->ssn_next)) {
        struct sctp_ordered item = sctp_streams_pop(stream);

        self->in.held_bytes -= item.message->size + SCTP_RECORD_BYTES;
        if (item.ssn != stream->ssn_next) { /* its turn is past */
            self->counts.dropped_other++;
            sctp_message_delete(item.message);
            continue;
        }
        stream->ssn_next++;
        hand_on(self, number, false, item.ppid, item.message);
    }
}

/* A whole message: hand it on, or keep it until its turn. */
static void message_done(struct sctp *self, uint16_t number, uint16_t ssn, bool unordered, uint32_t ppid,
                         struct sctp_message *message)
{
    if (unordered) {
        hand_on(self, number, true, ppid, message);
        return;
    }
    struct sctp_stream_in *stream = sctp_streams_in(self, number, true);
    if (stream == NULL || ssn_after(stream->ssn_next, ssn) ||
        (ssn != stream->ssn_next && !sctp_streams_push(stream, (struct sctp_ordered){message, ppid, ssn}))) {
        self->counts.dropped_other++; /* its turn is past, or there is no memory */
        sctp_message_delete(message);
        return;
    }
    if (ssn != stream->ssn_next) {
        self->in.held_bytes += message->size + SCTP_RECORD_BYTES;
        return;
    }
    stream->ssn_next++;
    hand_on(self, number, false, ppid, message);
    ordered_flush(self, number);
}

/* --- messages in parts ------------------------------------------------------------------------------------------- */

static struct sctp_assembly *assembly_new(struct sctp *self, size_t room)
{
    struct sctp_assembly *assembly = self->in.spare;

    if (assembly != NULL) {
        self->in.spare = assembly->next;
        self->in.spare_count--;
    } else if ((assembly = malloc(sizeof *assembly)) == NULL) {
        return NULL;
    }
    assembly->message = sctp_message_new(room);
    if (assembly->message == NULL) {
        free(assembly);
        return NULL;
    }
    assembly->message->size = 0;
    self->in.held_bytes += assembly->message->room + SCTP_RECORD_BYTES;
    return assembly;
}

/* Recycle the record.  Returns its message, which is the caller's then; NULL: it has none. */
static struct sctp_message *assembly_take(struct sctp *self, struct sctp_assembly *assembly)
{
    struct sctp_message *message = assembly->message;

    CHECK(self->in.held_bytes >= (message == NULL ? 0 : (uint64_t)message->room) + SCTP_RECORD_BYTES);
    self->in.held_bytes -= (message == NULL ? 0 : message->room) + SCTP_RECORD_BYTES;
    if (self->in.spare_count == SCTP_SPARES_MAX) {
        free(assembly);
        return message;
    }
    assembly->next = self->in.spare;
    self->in.spare = assembly;
    self->in.spare_count++;
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

        if (size > SCTP_MESSAGE_BYTES_MAX - message->size) { /* larger than we accept */
            self->in.held_bytes -= message->room;
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
        self->in.held_bytes += room - message->room;
        message->data = (uint8_t *)(message + 1);
        message->room = room;
        assembly->message = message;
    }
    memcpy(message->data + message->size, data, size);
    message->size += size;
    return true;
}

/* Let a whole message keep at most twice the memory it is charged for: else a peer that cuts small messages in two
 * would make us keep a large guess for each. */
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
    CHECK(self->in.held_bytes >= (uint64_t)place->fragment->size + SCTP_RECORD_BYTES);
    CHECK(self->in.fragment_count > 0);
    self->in.held_bytes -= place->fragment->size + SCTP_RECORD_BYTES;
    self->in.fragment_count--;
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
    self->in.held_bytes += head->size + SCTP_RECORD_BYTES;
    self->in.fragment_count++;
    return true;
}

static inline bool belongs(const struct sctp_assembly *assembly, const struct sctp_fragment *head)
{
    return (head->flags & SCTP_FLAG_BEGIN) == 0 && assembly->stream == head->stream &&
           assembly->unordered == ((head->flags & SCTP_FLAG_UNORDERED) != 0) &&
           (assembly->unordered || assembly->ssn == head->ssn);
}

/* Take the data of a new TSN.  False: there is no memory, and the TSN counts as not received.  done: set to the
 * assembly that it completes, which is out of the ring then. */
static bool take(struct sctp *self, uint32_t tsn, const struct sctp_fragment *head, const uint8_t *data,
                 struct sctp_assembly **done)
{
    struct sctp_place *place = place_of(self, tsn);
    struct sctp_assembly *assembly = place->assembly;
    bool end = (head->flags & SCTP_FLAG_END) != 0;

    if (assembly != NULL && !belongs(assembly, head)) { /* the peer gave it up, or breaks rules */
        assembly_drop(self, assembly);
        place->assembly = assembly = NULL;
    }
    if (assembly == NULL && (head->flags & SCTP_FLAG_BEGIN) == 0) {
        if (tsn != self->in.tsn_received + 1)
            return fragment_keep(self, place, head, data);
        self->counts.dropped_other++; /* the peer gave up its beginning */
        return true;
    }
    if (assembly == NULL) {
        size_t room = head->size;

        /* The last message's size is a good guess, but only one message at a time may take that much. */
        if (!end)
            room = tsn == self->in.tsn_received + 1 ? self->in.size_hint_bytes : room * 2;
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
            /* The fragment is acknowledged and will not come again: the message is lost, because the peer breaks
             * rules or there is no memory. */
            self->counts.dropped_malformed++;
            assembly_drop(self, assembly);
            return true;
        }
        fragment_drop(self, place);
    }
    *done = assembly;
    return true;
}

/* Move the cumulative TSN over all that has come. */
static void advance(struct sctp *self)
{
    while (self->in.reach > 0 && bit_test(self->in.received_bits, self->in.span, self->in.tsn_received + 1)) {
        struct sctp_place *place = place_of(self, ++self->in.tsn_received);

        self->in.reach--;
        bit_clear(self->in.received_bits, self->in.span, self->in.tsn_received);
        if (place->fragment != NULL) { /* the peer gave up its beginning */
            self->counts.dropped_other++;
            fragment_drop(self, place);
        }
    }
}

static void note_duplicate(struct sctp *self, uint32_t tsn)
{
    self->counts.dropped_duplicate++;
    self->due.sack = true;
    if (self->in.duplicate_count < SCTP_DUPLICATES_MAX)
        self->in.duplicates[self->in.duplicate_count++] = tsn;
}

static void note_stream_unknown(struct sctp *self, uint16_t stream)
{
    uint8_t *cause;

    self->counts.dropped_other++;
    if (self->in.stream_error_told || (cause = sctp_answers_add(self, SCTP_ERROR, 0, 8)) == NULL)
        return;
    store_be16(cause, SCTP_CAUSE_STREAM);
    store_be16(cause + 2, 8);
    store_be16(cause + 4, stream);
    store_be16(cause + 6, 0);
    self->in.stream_error_told = true;
}

void sctp_receive_data_untrusted(struct sctp *self, const uint8_t *chunk, size_t size)
{
    struct sctp_assembly *done = NULL;

    if (size < SCTP_DATA_HEADER_BYTES) {
        self->counts.dropped_malformed++;
        return;
    }
    const uint8_t *data = chunk + SCTP_DATA_HEADER_BYTES;
    uint32_t tsn = load_be32(chunk + 4), ahead = tsn - self->in.tsn_received;
    struct sctp_fragment head = {
        .ppid = load_be32(chunk + 12),
        .stream = load_be16(chunk + 8),
        .ssn = load_be16(chunk + 10),
        .size = (uint16_t)(size - SCTP_DATA_HEADER_BYTES),
        .flags = chunk[1],
    };
    if (head.size == 0) {
        sctp_end_violation(self, SCTP_CAUSE_NO_DATA); /* RFC 9260, section 6.2 */
        return;
    }
    self->in.sack_wanted = self->in.packet_had_data = true;
    if ((head.flags & SCTP_FLAG_IMMEDIATE) != 0)
        self->due.sack = true;
    if (ahead == 0 || ahead > INT32_MAX || (ahead < self->in.span && /* no bit reaches further */
                                            bit_test(self->in.received_bits, self->in.span, tsn))) {
        note_duplicate(self, tsn);
        return;
    }
    uint64_t allowed = self->config.window_bytes + (ahead == 1 ? (uint64_t)SCTP_OVERRUN_BYTES : 0);
    if (ahead >= SCTP_TSN_SPAN_MAX - 1 || self->in.held_bytes + head.size > allowed) {
        self->counts.dropped_window++;
        self->due.sack = true;
        return;
    }
    while (ahead + 1 >= self->in.span) {
        if (!ring_grow(self, self->in.span * 2)) {
            self->counts.dropped_other++;
            return;
        }
    }
    if (head.stream >= self->streams_in) {
        struct sctp_place *place = place_of(self, tsn);

        if (place->assembly != NULL) { /* it waited for this TSN, by which alone it is found */
            assembly_drop(self, place->assembly);
            place->assembly = NULL;
        }
        note_stream_unknown(self, head.stream); /* the TSN counts as received, its data is dropped */
    } else if (!take(self, tsn, &head, data, &done)) {
        self->counts.dropped_other++;
        return;
    }
    if (ahead > self->in.reach)
        self->in.reach = ahead;
    bit_set(self->in.received_bits, self->in.span, tsn);
    if (ahead == 1)
        advance(self);
    if (self->in.reach > 0)
        self->due.sack = true;
    if (done != NULL) {
        struct sctp_assembly whole = *done;
        struct sctp_message *message = assembly_take(self, done);

        if ((head.flags & SCTP_FLAG_BEGIN) == 0 && message != NULL)
            self->in.size_hint_bytes = message->size > SIZE_HINT_MIN ? message->size : SIZE_HINT_MIN;
        if (message != NULL)
            message_done(self, whole.stream, whole.ssn, whole.unordered, whole.ppid, message_fit(message));
    }
}

/* --- what the peer gave up --------------------------------------------------------------------------------------- */

void sctp_receive_forward_untrusted(struct sctp *self, const uint8_t *chunk, size_t size)
{
    if (size < 8) {
        self->counts.dropped_malformed++;
        return;
    }
    uint32_t target = load_be32(chunk + 4);
    self->in.sack_wanted = self->due.sack = true;
    if (!tsn_after(target, self->in.tsn_received))
        return; /* it is old; the SACK says so */

    /* Above the highest TSN received, nothing waits in the ring. */
    uint32_t known = self->in.reach + 1;
    if (target - self->in.tsn_received < known)
        known = target - self->in.tsn_received;
    for (uint32_t tsn = self->in.tsn_received + 1, end = tsn + known; tsn != end; tsn++) {
        struct sctp_place *place = place_of(self, tsn);

        if (place->fragment != NULL)
            fragment_drop(self, place);
        if (place->assembly != NULL) {
            assembly_drop(self, place->assembly);
            place->assembly = NULL;
        }
        bit_clear(self->in.received_bits, self->in.span, tsn);
    }
    uint32_t moved = target - self->in.tsn_received;
    self->in.reach -= moved < self->in.reach ? moved : self->in.reach;
    self->in.tsn_received = target;
    advance(self);

    for (size_t at = 8; size - at >= 4; at += 4) {
        uint16_t number = load_be16(chunk + at), ssn = load_be16(chunk + at + 2);
        struct sctp_stream_in *stream = number < self->streams_in ? sctp_streams_in(self, number, true) : NULL;

        if (stream == NULL || ssn_after(stream->ssn_next, ssn))
            continue;
        /* Whole messages that waited for those given up are handed on now, in order. */
        while (stream->waiting_count > 0 && !ssn_after(stream->waiting[0].ssn, ssn) && self->phase != SCTP_ENDED) {
            struct sctp_ordered item = sctp_streams_pop(stream);

            self->in.held_bytes -= item.message->size + SCTP_RECORD_BYTES;
            hand_on(self, number, false, item.ppid, item.message);
        }
        if (self->phase == SCTP_ENDED)
            return;
        stream->ssn_next = (uint16_t)(ssn + 1);
        ordered_flush(self, number);
    }
}

/* --- what the peer is told --------------------------------------------------------------------------------------- */

size_t sctp_receive_put_sack(struct sctp *self, uint8_t *at, size_t room)
{
    uint32_t first = self->in.tsn_received + 1, end = first + self->in.reach;
    size_t used = 16, gap_count = 0, duplicate_count = 0;

    if (room < used)
        return 0;
    for (uint32_t tsn = first; used + 4 <= room; gap_count++, used += 4) {
        tsn = bit_next(self->in.received_bits, self->in.span, tsn, end, true);
        if (tsn == end)
            break;
        store_be16(at + used, (uint16_t)(tsn - self->in.tsn_received));
        tsn = bit_next(self->in.received_bits, self->in.span, tsn, end, false);
        store_be16(at + used + 2, (uint16_t)(tsn - 1 - self->in.tsn_received));
    }
    for (; duplicate_count < self->in.duplicate_count && used + 4 <= room; duplicate_count++, used += 4)
        store_be32(at + used, self->in.duplicates[duplicate_count]);
    store_chunk_header(at, SCTP_SACK, 0, used);
    store_be32(at + 4, self->in.tsn_received);
    store_be32(at + 8, sctp_receive_window(self));
    store_be16(at + 12, (uint16_t)gap_count);
    store_be16(at + 14, (uint16_t)duplicate_count);
    self->in.duplicate_count = 0;
    self->in.sack_wanted = self->due.sack = false;
    self->in.sack_packets = 0;
    self->timers.sack_at = NEVER;
    return used;
}

void sctp_receive_drop(struct sctp *self)
{
    struct sctp_in *in = &self->in;

    for (uint32_t index = 0; index < in->span; index++) {
        struct sctp_place *place = &in->places[index];

        if (place->fragment != NULL)
            fragment_drop(self, place);
        if (place->assembly != NULL)
            assembly_drop(self, place->assembly);
    }
    for (struct sctp_assembly *next; in->spare != NULL; in->spare = next) {
        next = in->spare->next;
        free(in->spare);
    }
    for (unsigned index = 0; index < SCTP_STREAM_COUNT_MAX; index++) {
        struct sctp_stream_in *stream = sctp_streams_in(self, (uint16_t)index, false);

        if (stream != NULL)
            sctp_streams_in_clear(self, stream);
    }
    CHECK(in->held_bytes == 0 && in->fragment_count == 0);
    for (unsigned block = 0; block < SCTP_STREAM_BLOCK_COUNT; block++)
        free(in->streams[block]);
    free(in->places);
    free(in->received_bits);
    *in = (struct sctp_in){.tsn_received = in->tsn_received};
}
