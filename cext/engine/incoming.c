/* Frames into packets: whose frame it is, whether it is genuine, and which packet in it is let through.
 * conflux/datapath/reference/receiver.py is the readable twin of the rules here. */

#include "engine/lock.h"
#include "engine/private.h"

enum {
    PROTOCOL_ICMPV6 = 58,
    ECHO_REPLY = 129,
    PROTOCOL_ICMP = 1,
    ECHO_REPLY_IPV4 = 0,
    ECHO_HEADER_BYTES = 8,
    IDENTIFIER_AT = 4, /* in the echo reply */
    ENTRY_BURST = 30,
    FEEDBACK_BURST = 20, /* per tether of a link */
};

/* Between two entries of a stream that Python reads.  A sender repeats the offer of a key every second, and asks for
 * another interval of reports as its round trip changes. */
#define ENTRY_INTERVAL_NS (100 * MS_NS)
/* Between two frames of feedback, per tether: reports come every 100 ms at most, and a key's answer now and then. */
#define FEEDBACK_INTERVAL_NS (50 * MS_NS)

/* Whether an echo reply may be one that the daemon waits for.  Other programs ping too: only their identifier tells
 * their replies apart, and Python, which knows more, gives back what is not its own. */
static bool is_tapped(const struct engine *self, const uint8_t *packet, size_t size)
{
    bool is_ipv6 = packet[0] >> 4 == 6;
    size_t at = is_ipv6 ? 40 : 20; /* with options it is no reply to us */

    if (self->tap_count == 0 || size <= at + ECHO_HEADER_BYTES || (!is_ipv6 && packet[0] != 0x45))
        return false;
    if (is_ipv6 ? packet[6] != PROTOCOL_ICMPV6 || packet[at] != ECHO_REPLY
                : packet[9] != PROTOCOL_ICMP || packet[at] != ECHO_REPLY_IPV4)
        return false;
    uint16_t identifier = load_be16(packet + at + IDENTIFIER_AT);
    for (size_t tap = 0; tap < self->tap_count; tap++)
        if (self->taps[tap] == identifier)
            return true;
    return false;
}

static void deliver(struct engine *self, struct offload *offload, uint8_t *packet, size_t size)
{
    if (is_tapped(self, packet, size)) {
        struct upcall *upcall = upcall_push(self, UP_ECHO, OFFLOAD_BYTES + size, true);
        if (upcall != NULL) {
            offload_store(offload, upcall->data);
            memcpy(upcall->data + OFFLOAD_BYTES, packet, size);
        }
        return;
    }
    if (offload->type != OFFLOAD_UDP || self->config.segments_udp) {
        tun_write(self, offload, packet, size);
        return;
    }
    struct split split; /* this kernel does not split UDP super-packets */
    split_start(&split, packet, size, offload, size, true);
    while (split_next_bytes(&split) > 0) {
        struct offload piece;
        size_t bytes = split_next(&split, self->piece, &piece);
        tun_write(self, &piece, self->piece, bytes);
    }
}

void engine_deliver(struct engine *self, const uint8_t *data, size_t size)
{
    struct offload offload;
    struct packet_view view;

    if (size < OFFLOAD_BYTES)
        return;
    const uint8_t *packet = data + OFFLOAD_BYTES;
    size -= OFFLOAD_BYTES;
    if (packet_parse(packet, size, &view) != PACKET_OK ||
        offload_check_untrusted(data, packet, size, &offload) != PACKET_OK)
        return; /* no UP_ECHO */
    engine_lock(self);
    tun_write(self, &offload, packet, size); /* an echo reply is never a super-packet */
    engine_unlock(self);
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
    static const enum engine_drop refusals[] = {
        [GUARD_REFUSED] = DROP_POLICY,
        [GUARD_UNFIT] = DROP_POLICY_UNFIT,
        [GUARD_PIECE] = DROP_POLICY_PIECE,
    };
    uint8_t header[OFFLOAD_BYTES];
    struct packet_view view;
    struct offload offload;
    enum guard_verdict verdict;

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
    } else if (!networks_hold(receiver->sources, receiver->source_count, view.source, view.address_bytes)) {
        drop(self, DROP_SPOOFED);
    } else if (map_find(&self->own, address_key(view.destination, view.address_bytes)) == NULL) {
        drop(self, DROP_NOT_OURS);
    } else if (self->guard != NULL && (verdict = guard_in(self->guard, body, size, self->now)) != GUARD_PASS) {
        drop(self, refusals[verdict]);
    } else {
        if (marked)
            packet_mark_congestion(body); /* RFC 6040: a relay's mark on the frame must reach the inner flow's ends */
        receiver->packets++;
        deliver(self, &offload, body, size);
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

/* Open, in place, a frame with a well-formed header.  NULL: it is dropped and counted. */
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
    if (epoch == &receiver->next) { /* the sender uses its new key now: the present key becomes the one before */
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
    receiver->bytes += size;
    if (bundle_check(frame + HEADER_BYTES, bundle_bytes) != FAULT_NONE) {
        drop(self, bundle_check(frame + HEADER_BYTES, bundle_bytes) == FAULT_UNKNOWN_KIND ? DROP_UNKNOWN_KIND
                                                                                         : DROP_MALFORMED);
        return NULL;
    }
    return epoch;
}

/* What the stream's sender has to say to Python. */
static void entry_receive_untrusted(struct link *link, struct receiver *receiver, uint8_t kind, uint8_t epoch,
                                    const uint8_t *body, size_t size)
{
    struct engine *self = link->engine;

    if (!bucket_take(&receiver->entries, ENTRY_INTERVAL_NS, ENTRY_BURST, self->now)) {
        drop(self, DROP_ENTRY_RATE);
        return;
    }
    struct upcall *upcall = upcall_push_of_link(link, UP_ENTRY, size);
    if (upcall == NULL)
        return;
    upcall->handle = receiver->handle;
    upcall->a = kind;
    upcall->b = epoch;
    memcpy(upcall->data, body, size);
}

static void feedback_receive_untrusted(struct link *link, const uint8_t *frame, size_t size)
{
    struct engine *self = link->engine;
    uint64_t tethers = link->tethers.count > 0 ? link->tethers.count : 1;

    if (!bucket_take(&link->feedback_bucket, FEEDBACK_INTERVAL_NS / tethers, FEEDBACK_BURST * tethers, self->now)) {
        drop(self, DROP_FEEDBACK_RATE);
        return;
    }
    struct upcall *upcall = upcall_push_of_link(link, UP_FEEDBACK, size);
    if (upcall != NULL)
        memcpy(upcall->data, frame, size);
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
        receiver->link = link->id; /* the sender's newest frame came by this route */
        receiver->label = label;
    }
    if (receiver->notify) {
        struct upcall *upcall = upcall_push(self, UP_ARRIVED, 0, false);
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
            entry_receive_untrusted(link, receiver, kind, number, body, body_bytes);
        } else if (kind != KIND_PADDING) {
            drop(self, DROP_MISPLACED_ENTRY); /* END is valid only in a route's teardown message */
        }
    }
}

void incoming_frame_untrusted(struct link *link, struct sctp_message *message, const struct channel *channel,
                              bool unordered)
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
    } else if (relay_receive_untrusted(self->relay, link->id, label, feedback, channel->index, unordered, message,
                                       self->now)) {
        return; /* it has the message now; this turn of the loop goes through the links later */
    } else if (feedback) {
        feedback_receive_untrusted(link, message->data, message->size);
    } else if (early_hold(link, channel, message)) {
        return;
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
    struct receiver *receiver = handles_find(&self->receivers, handle);
    if (receiver != NULL && receiver_unseal_untrusted(self, receiver, copy, size) != NULL)
        last = copy[HEADER_BYTES] == KIND_END;
    engine_unlock(self);
    return last;
}
