/* Packets into frames and frames into packets: egress, sender and receiver of the engine.  Decides what a frame carries
 * and which packet is let through; knows no socket.  conflux/datapath/{sender,receiver,egress}.py are the readable twins
 * of the rules here. */

#include <stdlib.h>

#include "engine_lock.h"
#include "engine_private.h"

enum {
    PROTOCOL_TCP = 6,
    PROTOCOL_ICMPV6 = 58,
    ECHO_REPLY = 129,
};

bool network_holds(const struct engine_network *networks, size_t count, const uint8_t *address, size_t bytes)
{
    for (size_t at = 0; at < count; at++) {
        const struct engine_network *network = &networks[at];
        uint8_t differs = network->address_bytes != bytes;
        for (size_t byte = 0; byte < bytes && !differs; byte++)
            differs = (address[byte] ^ network->address[byte]) & network->mask[byte];
        if (!differs)
            return true;
    }
    return false;
}

/* ── egress ── */

static bool moving(const struct egress *self) { return self->sender != NULL && self->sender->has_hop; }

void egress_wake(struct egress *self)
{
    if (self->link != NULL && (queue_counts(self->queue).packets > 0 || self->sender->entry_count > 0))
        link_wait(self->link, &self->turn);
}

void egress_detach_link(struct egress *self)
{
    if (self->link != NULL)
        link_forget(self->link, &self->turn);
    self->link = NULL;
}

/* Take note that the way out may have opened or closed. */
void egress_update(struct egress *self)
{
    egress_detach_link(self);
    if (!moving(self)) {
        queue_hold(self->queue);
        self->engine->age_at = self->engine->now; /* looked through soon, and then when the oldest is too old */
        return;
    }
    queue_move(self->queue, self->engine->now);
    self->link = link_find(self->engine, self->sender->hop.link);
    egress_wake(self);
}

void streams_reroute(struct engine *self, uint32_t link)
{
    for (size_t at = 1; at < self->egresses.room; at++) {
        struct egress *egress = self->egresses.items[at];
        if (egress != NULL && moving(egress) && egress->sender->hop.link == link)
            egress_update(egress);
    }
}

void streams_age(struct engine *self)
{
    uint64_t age_max = self->config.hold_age_max;

    self->age_at = NEVER;
    for (size_t at = 1; at < self->egresses.room; at++) {
        struct egress *egress = self->egresses.items[at];
        if (egress == NULL || moving(egress))
            continue;
        queue_drop_aged(egress->queue, age_max, self->now);
        uint64_t oldest_at = queue_oldest_at(egress->queue);
        if (oldest_at != NEVER && oldest_at + age_max < self->age_at)
            self->age_at = oldest_at + age_max;
    }
}

/* A packet of this host: where to?  Takes the packet. */
void packet_send(struct engine *self, struct queued *packet, const uint8_t *header, size_t size, uint64_t queued_at)
{
    static const enum engine_drop reasons[] = {
        [PACKET_SHORT] = DROP_PACKET_SHORT,
        [PACKET_VERSION] = DROP_PACKET_VERSION,
        [PACKET_LENGTH] = DROP_PACKET_LENGTH,
        [PACKET_OFFLOAD] = DROP_PACKET_OFFLOAD,
    };
    struct packet_view view;
    struct egress *egress;
    enum packet_fault fault = packet_parse(packet->data, size, &view);

    if (fault == PACKET_OK)
        fault = offload_check_untrusted(header, packet->data, size, &packet->offload);
    if (fault != PACKET_OK) {
        drop(self, reasons[fault]);
    } else if (map_find(&self->own, address_key(view.source, view.address_bytes)) == NULL) {
        drop(self, DROP_BAD_SOURCE);
    } else if ((egress = map_find(&self->realm_addresses, address_key(view.destination, view.address_bytes))) != NULL) {
        packet->size = (uint32_t)size;
        packet->flow = view.flow;
        packet->ordered = view.protocol == PROTOCOL_TCP;
        packet->queued_at = queued_at;
        queue_push(egress->queue, packet, queued_at);
        egress->active_at = self->now;
        if (moving(egress))
            egress_wake(egress);
        else if (queued_at + self->config.hold_age_max < self->age_at)
            self->age_at = queued_at + self->config.hold_age_max;
        return;
    } else if (network_holds(self->realm, self->realm_count, view.destination, view.address_bytes) &&
               map_find(&self->own, address_key(view.destination, view.address_bytes)) == NULL) {
        struct upcall *upcall = up(self, UP_PACKET, OFFLOAD_BYTES + size, true);
        if (upcall != NULL) {
            upcall->a = (uint32_t)(queued_at >> 32);
            upcall->b = (uint32_t)queued_at;
            memcpy(upcall->data, header, OFFLOAD_BYTES);
            memcpy(upcall->data + OFFLOAD_BYTES, packet->data, size);
        }
    } else {
        drop(self, DROP_NO_DESTINATION); /* multicast, another network, ourselves */
    }
    queued_delete(packet);
}

/* ── a frame out ── */

/* Put a packet back in front as pieces that each fit, or drop it for want of memory. */
static void split_back(struct egress *self, struct queued *packet, size_t piece_bytes_max, bool plain)
{
    struct queued *pieces = NULL, *piece; /* the last one first */
    struct split split;
    size_t bytes;
    bool complete = true;

    split_start(&split, packet->data, packet->size, &packet->offload, piece_bytes_max, plain);
    while (complete && (bytes = split_next_bytes(&split)) > 0) {
        complete = (piece = queued_new(bytes)) != NULL;
        if (!complete)
            break;
        piece->size = (uint32_t)split_next(&split, piece->data, &piece->offload);
        piece->queued_at = packet->queued_at;
        piece->flow = packet->flow;
        piece->ordered = packet->ordered;
        piece->next = pieces;
        pieces = piece;
    }
    while ((piece = pieces) != NULL) {
        pieces = piece->next;
        if (complete)
            queue_unshift(self->queue, piece);
        else
            queued_delete(piece);
    }
    if (!complete)
        drop(self->engine, DROP_MEMORY);
    queued_delete(packet);
}

/* The smallest frame that can carry the next packet, or the first segment of it. */
static size_t bundle_bytes_min(const struct queue *queue)
{
    const struct queued *packet = queue_next(queue);

    if (packet == NULL)
        return 0;
    size_t bytes = packet->offload.type == OFFLOAD_NONE ? packet->size
                                                        : (size_t)packet->offload.header_bytes + packet->offload.segment_bytes;
    return ENTRY_HEADER_BYTES + OFFLOAD_BYTES + bytes;
}

static size_t entry_bytes(const struct queued *packet)
{
    return ENTRY_HEADER_BYTES + (offload_is_plain(&packet->offload) ? 0 : OFFLOAD_BYTES) + packet->size;
}

static uint8_t *write_packet(uint8_t *at, const struct queued *packet)
{
    if (offload_is_plain(&packet->offload)) {
        at = entry_header_store(at, KIND_PACKET, (uint16_t)packet->size);
    } else {
        at = entry_header_store(at, KIND_OFFLOAD, (uint16_t)(OFFLOAD_BYTES + packet->size));
        offload_store(&packet->offload, at);
        at += OFFLOAD_BYTES;
    }
    memcpy(at, packet->data, packet->size);
    return at + packet->size;
}

static uint8_t *write_entries(struct sender *self, uint8_t *at)
{
    for (size_t index = 0; index < self->entry_count; index++) {
        struct entry *entry = &self->entries[index];
        at = entry_header_store(at, entry->kind, entry->size);
        memcpy(at, entry->body, entry->size);
        at += entry->size;
        free(entry->body);
    }
    self->entry_count = self->entry_bytes = 0;
    return at;
}

/* Fill a bundle from the bucket whose turn it is; returns its end. */
static uint8_t *write_packets(struct egress *self, uint8_t *at, uint8_t *end, bool *ordered, unsigned *bucket)
{
    struct sender *sender = self->sender;
    size_t bundle_bytes_max = (size_t)(end - at);
    unsigned first_bucket = 0, now_bucket = 0;
    uint64_t taken = 0;
    struct queued *packet;

    if (queue_next_bytes(self->queue, &first_bucket) == 0)
        return at;
    while (queue_next_bytes(self->queue, &now_bucket) > 0 && now_bucket == first_bucket) {
        if (taken > 0 && queue_next_bytes(self->queue, &now_bucket) + ENTRY_HEADER_BYTES + OFFLOAD_BYTES > (size_t)(end - at))
            break;
        packet = queue_take(self->queue, bundle_bytes_max, self->engine->now);
        if (packet == NULL)
            break;
        if (!sender->offloads && packet->offload.type == OFFLOAD_NONE && packet->offload.checksum_wanted)
            packet_complete(&packet->offload, packet->data, packet->size);
        if (!sender->offloads && !offload_is_plain(&packet->offload)) {
            split_back(self, packet, packet->size, true);
            continue;
        }
        if (entry_bytes(packet) > (size_t)(end - at)) {
            if (taken > 0 || (packet->offload.type == OFFLOAD_NONE && entry_bytes(packet) <= BUNDLE_BYTES_MAX)) {
                queue_unshift(self->queue, packet); /* CoDel dropped what was before it: it needs a larger frame */
                break;
            }
            if (packet->offload.type == OFFLOAD_NONE) { /* no frame can carry it: the MTU was raised by hand */
                drop(self->engine, DROP_PACKET_TOO_BIG);
                queued_delete(packet);
                continue;
            }
            split_back(self, packet, bundle_bytes_max - ENTRY_HEADER_BYTES - OFFLOAD_BYTES, false);
            continue;
        }
        at = write_packet(at, packet);
        *ordered |= packet->ordered;
        taken++;
        queued_delete(packet);
    }
    if (queue_next_bytes(self->queue, &now_bucket) > 0 && now_bucket == first_bucket)
        queue_turn(self->queue);
    sender->state.packets += taken;
    *bucket = first_bucket;
    return at;
}

static void sender_sealed(struct sender *self, struct engine *engine, size_t frame_bytes)
{
    struct engine_sender *state = &self->state;

    self->sent_at[state->counter % SENT_COUNT] = engine->now;
    state->counter++;
    state->bytes_sealed += frame_bytes - HEADER_BYTES - TAG_BYTES;
    state->frames++;
    state->bytes += frame_bytes;
    if (state->silent_since == 0)
        state->silent_since = engine->now;
    if (state->used_at == 0)
        state->used_at = engine->now;
    if (self->notify) {
        struct upcall *upcall = up(engine, UP_SENT, 0, false);
        if (upcall != NULL) {
            upcall->handle = self->handle;
            self->notify = false;
        }
    }
}

static size_t largest(size_t one, size_t other) { return one > other ? one : other; }

static bool tether_is_whole(const struct tether *self, unsigned channel_count)
{
    for (unsigned index = 0; index < channel_count; index++)
        if (!self->mapped[index])
            return false;
    return true;
}

size_t egress_send_frame(struct egress *self, size_t bundle_bytes_max)
{
    struct sender *sender = self->sender;
    struct queue_counts waiting = queue_counts(self->queue);
    uint64_t packets_before = sender->state.packets;
    unsigned bucket = 0, index;
    bool ordered = false;

    if (waiting.packets == 0 && sender->entry_count == 0)
        return 0;
    struct tether *tether = link_tether(self->link, sender->hop.tether);
    if (tether == NULL || !tether_is_whole(tether, sender->hop.channel_count) || sender->state.counter == COUNTER_END)
        return 0; /* packets wait: the tether is being made, or the node is about to hear that it is gone, or to rekey */

    queue_way(self->queue, self->link->rtt_min, self->link->searching, self->engine->now);
    size_t room = largest(bundle_bytes_max, bundle_bytes_min(self->queue)) + sender->entry_bytes;
    size_t all = waiting.bytes + waiting.packets * (ENTRY_HEADER_BYTES + OFFLOAD_BYTES) + sender->entry_bytes;
    if (room > all && self->sender->offloads)
        room = all;
    if (room > BUNDLE_BYTES_MAX)
        room = BUNDLE_BYTES_MAX;
    struct sctp_message *message = sctp_message_new(HEADER_BYTES + room + TAG_BYTES);
    if (message == NULL) {
        drop(self->engine, DROP_MEMORY);
        return 0;
    }
    uint8_t *bundle = message->data + HEADER_BYTES, *end = bundle + room;
    uint8_t *at = write_entries(sender, bundle);
    at = write_packets(self, at, end, &ordered, &bucket);
    size_t size = (size_t)(at - bundle);
    if (size == 0) { /* CoDel took all that would have fit */
        sctp_message_delete(message);
        return queue_next(self->queue) != NULL ? egress_send_frame(self, bundle_bytes_max) : 0;
    }
    header_store(message->data, 0, sender->state.epoch, sender->hop.label_out, sender->state.counter);
    if (!aead_seal(&sender->aead, message->data, size)) {
        sctp_message_delete(message);
        drop(self->engine, DROP_MEMORY);
        return 0;
    }
    message->size = (uint32_t)(HEADER_BYTES + size + TAG_BYTES);
    size_t frame_bytes = message->size;
    sender_sealed(sender, self->engine, frame_bytes);
    if (sender->state.packets > packets_before) /* entries alone keep no stream alive */
        self->active_at = self->engine->now;
    index = bucket % sender->hop.channel_count;
    struct sctp_sending how = {
        .stream = tether->streams[index],
        .unordered = !ordered,
        .ppid = PPID_BINARY,
        .reliability = SCTP_LIFETIME_MS_MAX,
        .reliability_value = tether->lifetime_ms,
    };
    if (!sctp_send(self->link->sctp, message, &how, self->engine->now))
        drop(self->engine, DROP_CARRIER_FULL);
    return frame_bytes;
}

/* ── a frame in ── */

void packet_deliver(struct engine *self, struct offload *offload, uint8_t *packet, size_t size)
{
    if (self->tap && packet[0] >> 4 == 6 && size > 48 && packet[6] == PROTOCOL_ICMPV6 && packet[40] == ECHO_REPLY) {
        struct upcall *upcall = up(self, UP_ECHO, size, true);
        if (upcall != NULL)
            memcpy(upcall->data, packet, size);
        return;
    }
    if (offload->type != OFFLOAD_UDP || self->config.segments_udp) {
        tun_write(self, offload, packet, size);
        return;
    }
    struct split split; /* this kernel does not segment UDP */
    split_start(&split, packet, size, offload, size, true);
    while (split_next_bytes(&split) > 0) {
        struct offload piece;
        size_t bytes = split_next(&split, self->piece, &piece);
        tun_write(self, &piece, self->piece, bytes);
    }
}

static void packet_receive_untrusted(struct engine *self, struct receiver *receiver, uint8_t kind, uint8_t *body,
                                     size_t size, bool marked)
{
    static const uint8_t no_offload[OFFLOAD_BYTES];
    static const enum engine_drop reasons[] = {
        [PACKET_SHORT] = DROP_PACKET_SHORT,
        [PACKET_VERSION] = DROP_PACKET_VERSION,
        [PACKET_LENGTH] = DROP_PACKET_LENGTH,
        [PACKET_OFFLOAD] = DROP_PACKET_OFFLOAD,
    };
    uint8_t header[OFFLOAD_BYTES];
    struct packet_view view;
    struct offload offload;

    memcpy(header, kind == KIND_OFFLOAD ? body : no_offload, OFFLOAD_BYTES);
    if (kind == KIND_OFFLOAD) {
        body += OFFLOAD_BYTES;
        size -= OFFLOAD_BYTES;
    }
    enum packet_fault fault = packet_parse(body, size, &view);
    if (fault == PACKET_OK)
        fault = offload_check_untrusted(header, body, size, &offload);
    if (fault != PACKET_OK) {
        drop(self, reasons[fault]);
    } else if (!network_holds(receiver->sources, receiver->source_count, view.source, view.address_bytes)) {
        drop(self, DROP_SPOOFED);
    } else if (map_find(&self->own, address_key(view.destination, view.address_bytes)) == NULL) {
        drop(self, DROP_NOT_OURS);
    } else {
        if (marked)
            packet_mark_congestion(body); /* RFC 6040: what a relay marked outside, the inner flow's ends must know */
        receiver->packets++;
        packet_deliver(self, &offload, body, size);
    }
}

static struct receiving *epoch_of(struct receiver *self, uint8_t number)
{
    if (self->present.aead.context != NULL && self->present.epoch == number)
        return &self->present;
    if (self->next.aead.context != NULL && self->next.epoch == number)
        return &self->next;
    if (self->before.aead.context != NULL && self->before.epoch == number)
        return &self->before;
    return NULL;
}

/* Open a frame whose header is well-formed, in place; NULL: it is dropped and counted. */
static struct receiving *receiver_unseal_untrusted(struct engine *self, struct receiver *receiver, uint8_t *frame,
                                                   size_t size)
{
    struct receiving *epoch = epoch_of(receiver, frame_epoch(frame));
    size_t bundle_bytes = size - HEADER_BYTES - TAG_BYTES;
    uint64_t counter = frame_counter(frame);

    if (epoch == NULL) {
        drop(self, DROP_UNKNOWN_EPOCH);
        return NULL;
    }
    if (!replay_check(&epoch->window, counter)) {
        drop(self, DROP_REPLAY);
        return NULL;
    }
    if (!aead_unseal(&epoch->aead, frame, size, frame + HEADER_BYTES)) {
        drop(self, DROP_AUTH);
        return NULL;
    }
    bool newest = counter >= epoch->window.next;
    replay_update(&epoch->window, counter);
    if (epoch == &receiver->next) { /* the sender has switched: from now on the old key is on its way out */
        aead_erase(&receiver->before.aead);
        receiver->before = receiver->present;
        receiver->present = receiver->next;
        memset(&receiver->next, 0, sizeof receiver->next);
        epoch = &receiver->present;
    }
    epoch->received++;
    epoch->marked += frame_flags(frame) & FLAG_CE;
    epoch->bytes += bundle_bytes;
    if (newest)
        epoch->highest_at = self->now;
    receiver->frames++;
    if (bundle_check(frame + HEADER_BYTES, bundle_bytes) != FAULT_NONE) {
        drop(self, bundle_check(frame + HEADER_BYTES, bundle_bytes) == FAULT_UNKNOWN_KIND ? DROP_UNKNOWN_KIND
                                                                                         : DROP_MALFORMED);
        return NULL;
    }
    return epoch;
}

static void receiver_frame_untrusted(struct link *link, struct receiver *receiver, uint8_t *frame, size_t size)
{
    struct engine *self = link->engine;
    uint8_t flags = frame_flags(frame), number = frame_epoch(frame);
    uint32_t label = frame_label(frame);
    uint64_t counter = frame_counter(frame);
    struct receiving *epoch = receiver_unseal_untrusted(self, receiver, frame, size);

    if (epoch == NULL)
        return;
    receiver->active_at = self->now;
    if (epoch == &receiver->present && counter + 1 == epoch->window.next) {
        receiver->link = link->id; /* the sender's newest frame took this route */
        receiver->label = label;
    }
    if (receiver->notify) {
        struct upcall *upcall = up(self, UP_ARRIVED, 0, false);
        if (upcall != NULL) {
            upcall->handle = receiver->handle;
            receiver->notify = false;
        }
    }
    uint8_t *at = frame + HEADER_BYTES, *end = frame + size - TAG_BYTES;
    while (at < end) {
        uint8_t kind = at[0], *body = at + ENTRY_HEADER_BYTES;
        size_t body_bytes = entry_size(at);
        at = body + body_bytes;
        if (kind == KIND_PACKET || (kind == KIND_OFFLOAD && receiver->offloads)) {
            packet_receive_untrusted(self, receiver, kind, body, body_bytes, flags & FLAG_CE);
        } else if (kind == KIND_REKEY || kind == KIND_CONFIRM || kind == KIND_REPORT) {
            struct upcall *upcall = up_of_link(link, UP_ENTRY, body_bytes);
            if (upcall != NULL) {
                upcall->handle = receiver->handle;
                upcall->a = kind;
                upcall->b = number;
                memcpy(upcall->data, body, body_bytes);
            }
        } else if (kind != KIND_PADDING) {
            drop(self, DROP_MISPLACED_ENTRY); /* END counts only where the route's teardown carries it */
        }
    }
}

void frame_receive_untrusted(struct link *link, struct sctp_message *message, unsigned channel, bool unordered)
{
    static const enum engine_drop reasons[] = {
        [FAULT_TRUNCATED] = DROP_TRUNCATED,
        [FAULT_OVERSIZED] = DROP_OVERSIZED,
        [FAULT_VERSION] = DROP_VERSION,
        [FAULT_RESERVED] = DROP_RESERVED,
    };
    struct engine *self = link->engine;
    enum fault fault = header_check(message->data, message->size);
    struct receiver *receiver;

    if (fault != FAULT_NONE) {
        drop(self, reasons[fault]);
        sctp_message_delete(message);
        return;
    }
    uint32_t label = frame_label(message->data);
    bool feedback = frame_flags(message->data) & FLAG_FEEDBACK;
    if (!feedback && (receiver = map_find(&self->labels, label_key(link->id, label))) != NULL) {
        receiver_frame_untrusted(link, receiver, message->data, message->size);
    } else if (relay_receive_untrusted(self->relay, link->id, label, feedback, channel, unordered, message, self->now)) {
        return; /* it has the message now; the links are looked at when this turn of the loop ends */
    } else if (feedback) {
        struct upcall *upcall = up_of_link(link, UP_FEEDBACK, message->size);
        if (upcall != NULL)
            memcpy(upcall->data, message->data, message->size);
    } else {
        drop(self, DROP_UNKNOWN_LABEL);
    }
    sctp_message_delete(message);
}

bool engine_verify_last(struct engine *self, uint32_t handle, const uint8_t *frame, size_t size)
{
    uint8_t copy[HEADER_BYTES + ENTRY_HEADER_BYTES + TAG_BYTES];
    bool last = false;

    if (size != sizeof copy || header_check(frame, size) != FAULT_NONE)
        return false;
    memcpy(copy, frame, size);
    engine_lock(self);
    struct receiver *receiver = table_find(&self->receivers, handle);
    if (receiver != NULL && receiver_unseal_untrusted(self, receiver, copy, size) != NULL)
        last = copy[HEADER_BYTES] == KIND_END;
    engine_unlock(self);
    return last;
}
