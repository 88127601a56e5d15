/* Packets into frames: what the next frame of a destination carries.  conflux/datapath/reference/sender.py is the
 * readable twin of the rules here. */

#include <stdlib.h>

#include "engine/private.h"

/* Put a packet back in front of its queue, in pieces that fit; without memory, drop it. */
static void split_back(struct egress *self, struct queued *packet, size_t piece_bytes_max, bool plain)
{
    struct queued *pieces = NULL, *piece; /* the last piece comes first */
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
    size_t bytes = packet->size;
    if (packet->offload.type != OFFLOAD_NONE)
        bytes = (size_t)packet->offload.header_bytes + packet->offload.segment_bytes;
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

/* Fill a bundle from the bucket whose turn it is.  Returns the bundle's end. */
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
        if (taken > 0 &&
            queue_next_bytes(self->queue, &now_bucket) + ENTRY_HEADER_BYTES + OFFLOAD_BYTES > (size_t)(end - at))
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
                queue_unshift(self->queue, packet); /* CoDel dropped the one before it: this needs a larger frame */
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
    if (self->notify) {
        struct upcall *upcall = upcall_push(engine, UP_SENT, 0, false);
        if (upcall != NULL) {
            upcall->handle = self->handle;
            self->notify = false;
        }
    }
}

static size_t largest(size_t one, size_t other) { return one > other ? one : other; }

static bool tether_is_whole(const struct link *link, const struct tether *self, unsigned channel_count)
{
    for (unsigned index = 0; index < channel_count; index++)
        if (!self->mapped[index] || link->channels[self->streams[index]].unasked)
            return false;
    return true;
}

size_t outgoing_send_frame(struct turn *turn, struct link *link, size_t bundle_bytes_max)
{
    struct egress *self = turn->egress;
    struct sender *sender = self->sender;
    struct queue_counts waiting = queue_counts(self->queue);
    uint64_t packets_before = sender->state.packets;
    unsigned bucket = 0, index;
    bool ordered = false;

    if (waiting.packets == 0 && sender->entry_count == 0)
        return 0;
    struct tether *tether = links_tether(link, sender->hop.tether);
    if (tether == NULL || !tether_is_whole(link, tether, sender->hop.channel_count) || sender->state.counter == COUNTER_END)
        return 0; /* packets wait: the tether is being made or is gone, or the node is about to rekey */

    queue_way(self->queue, link->rtt_min_ns, link->searching, self->engine->now);
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
    if (size == 0) { /* CoDel dropped everything that would have fit */
        sctp_message_delete(message);
        return queue_next(self->queue) != NULL ? outgoing_send_frame(turn, link, bundle_bytes_max) : 0;
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
    if (sender->state.packets > packets_before) /* entries alone do not keep a stream alive */
        self->active_at = self->engine->now;
    index = bucket % sender->hop.channel_count;
    struct sctp_sending how = {
        .stream = tether->streams[index],
        .unordered = !ordered && !link->channels[tether->streams[index]].asked,
        .ppid = PPID_BINARY,
        .reliability = SCTP_LIFETIME_MS_MAX,
        .reliability_value = tether->lifetime_ms,
    };
    if (!sctp_send(link->sctp, message, &how, self->engine->now))
        drop(self->engine, DROP_CARRIER_FULL);
    return frame_bytes;
}
