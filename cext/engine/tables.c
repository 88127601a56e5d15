/* The tables of streams, written from outside the engine's thread: egress, sender, receiver, relay.  See engine.h. */

#include <stdlib.h>

#include "engine/private.h"
#include "engine/lock.h"

/* ── addresses ── */

static struct map_key network_key(const struct engine_network *network)
{
    return address_key(network->address, network->address_bytes);
}

bool engine_configure(struct engine *self, const struct engine_network *own, size_t own_count,
                      const struct engine_network *realm, size_t realm_count)
{
    bool kept = realm_count <= NETWORK_COUNT_MAX;

    engine_lock(self);
    map_free(&self->own);
    for (size_t at = 0; at < own_count; at++)
        kept &= map_set(&self->own, network_key(&own[at]), self);
    self->realm_count = realm_count < NETWORK_COUNT_MAX ? realm_count : NETWORK_COUNT_MAX;
    memcpy(self->realm, realm, self->realm_count * sizeof *realm);
    engine_unlock(self);
    return kept;
}

enum { FLOW_COUNT = 16384 }; /* that this board began, of 66 bytes each */

bool engine_set_policy(struct engine *self, const uint8_t *in, size_t in_size, const uint8_t *out, size_t out_size,
                       uint64_t seed)
{
    engine_lock(self);
    struct guard *guard = self->guard != NULL ? self->guard : guard_new(FLOW_COUNT, seed);
    bool loaded = guard != NULL && guard_load_untrusted(guard, in, in_size, out, out_size);
    if (loaded)
        self->guard = guard;
    else if (guard != self->guard)
        guard_free(guard);
    engine_unlock(self);
    return loaded;
}

void engine_clear_policy(struct engine *self)
{
    engine_lock(self);
    guard_free(self->guard);
    self->guard = NULL;
    engine_unlock(self);
}

bool engine_tap(struct engine *self, const uint16_t *identifiers, size_t count)
{
    if (count > ENGINE_TAP_COUNT_MAX)
        return false;
    engine_lock(self);
    memcpy(self->taps, identifiers, count * sizeof *identifiers);
    self->tap_count = count;
    engine_unlock(self);
    return true;
}

/* ── egress ── */

static void queue_dropped(void *context, enum queue_drop why)
{
    static const enum engine_drop reasons[] = {
        [QUEUE_FULL] = DROP_QUEUE_FULL,
        [QUEUE_AGED] = DROP_AGED,
        [QUEUE_CODEL] = DROP_CODEL,
        [QUEUE_CLEARED] = DROP_CLEARED,
    };
    drop(((struct egress *)context)->engine, reasons[why]);
}

uint32_t engine_add_egress(struct engine *self)
{
    struct egress *egress = calloc(1, sizeof *egress);

    if (egress == NULL)
        return 0;
    engine_lock(self);
    egress->engine = self;
    egress->active_at = self->now;
    egress->turn = (struct turn){.egress = egress, .send_frame = outgoing_send_frame};
    egress->queue = queue_new(self->config.queue_bytes_max, self->config.queue_packets_max, &self->queues,
                              queue_dropped, egress);
    if (egress->queue != NULL)
        egress->handle = handles_add(&self->egresses, egress);
    uint32_t handle = egress->handle;
    if (handle == 0) {
        if (egress->queue != NULL)
            queue_delete(egress->queue);
        free(egress);
    } else {
        queue_hold(egress->queue);
    }
    engine_unlock(self);
    return handle;
}

static void forget_addresses(struct engine *self, struct egress *egress)
{
    for (size_t at = 0; at < egress->address_count; at++)
        if (map_find(&self->realm_addresses, egress->addresses[at]) == egress)
            map_remove(&self->realm_addresses, egress->addresses[at]);
    egress->address_count = 0;
}

bool engine_set_addresses(struct engine *self, uint32_t handle, const struct engine_network *addresses, size_t count)
{
    bool kept = count <= NETWORK_COUNT_MAX;

    engine_lock(self);
    struct egress *egress = handles_find(&self->egresses, handle);
    if (egress != NULL) {
        forget_addresses(self, egress);
        for (size_t at = 0; at < count && at < NETWORK_COUNT_MAX; at++) {
            egress->addresses[egress->address_count++] = network_key(&addresses[at]);
            kept &= map_set(&self->realm_addresses, network_key(&addresses[at]), egress);
        }
    }
    engine_unlock(self);
    return kept && egress != NULL;
}

static void egress_delete(struct egress *egress)
{
    if (egress->sender != NULL)
        egress->sender->egress = NULL;
    egress_detach_link(egress);
    queue_delete(egress->queue);
    free(egress);
}

void engine_remove_egress(struct engine *self, uint32_t handle)
{
    engine_lock(self);
    struct egress *egress = handles_find(&self->egresses, handle);
    if (egress != NULL) {
        forget_addresses(self, egress);
        handles_remove(&self->egresses, handle);
        egress_delete(egress);
    }
    engine_unlock(self);
}

void engine_packet(struct engine *self, const uint8_t *data, size_t size, uint64_t queued_at)
{
    engine_lock(self);
    struct queued *packet = NULL;
    if (size < OFFLOAD_BYTES || size - OFFLOAD_BYTES > PACKET_BYTES_MAX) {
        drop(self, size < OFFLOAD_BYTES ? DROP_PACKET_SHORT : DROP_PACKET_TOO_BIG);
    } else if ((packet = queued_new(size - OFFLOAD_BYTES)) == NULL) {
        drop(self, DROP_MEMORY);
    } else {
        memcpy(packet->data, data + OFFLOAD_BYTES, size - OFFLOAD_BYTES);
        packet_queue(self, packet, data, size - OFFLOAD_BYTES, queued_at);
    }
    engine_unlock_and_wake(self);
}

bool engine_egress(struct engine *self, uint32_t handle, struct engine_egress *out)
{
    engine_lock(self);
    const struct egress *egress = handles_find(&self->egresses, handle);
    if (egress != NULL) {
        struct queue_counts counts = queue_counts(egress->queue);
        *out = (struct engine_egress){counts.bytes, counts.packets, counts.marked, egress->active_at};
    }
    engine_unlock(self);
    return egress != NULL;
}

/* ── sender ── */

static bool open_key(struct aead *aead, const struct engine_key *key, bool sealing)
{
    return aead_open(aead, key->aead, sealing, key->key, key->nonce_prefix);
}

uint32_t engine_add_sender(struct engine *self, uint32_t handle, const struct engine_key *key, bool offloads)
{
    struct sender *sender = calloc(1, sizeof *sender);
    uint32_t made = 0;

    if (sender == NULL)
        return 0;
    engine_lock(self);
    struct egress *egress = handles_find(&self->egresses, handle);
    if (egress != NULL && open_key(&sender->aead, key, true) && (made = handles_add(&self->senders, sender)) > 0) {
        sender->handle = made;
        sender->offloads = offloads;
        sender->notify = true;
        sender->state.epoch = key->epoch;
        if (egress->sender != NULL)
            egress->sender->egress = NULL;
        egress->sender = sender;
        sender->egress = egress;
        egress_update(egress);
    } else {
        aead_erase(&sender->aead);
        free(sender);
    }
    engine_unlock_and_wake(self);
    return made;
}

bool engine_rekey_sender(struct engine *self, uint32_t handle, const struct engine_key *key)
{
    struct aead fresh;
    bool opened = open_key(&fresh, key, true);

    engine_lock(self);
    struct sender *sender = handles_find(&self->senders, handle);
    if (sender != NULL && opened) {
        aead_erase(&sender->aead);
        sender->aead = fresh;
        sender->state.epoch = key->epoch;
        sender->state.counter = sender->state.route_first = sender->state.bytes_sealed = 0;
        sender->state.silent_since = 0; /* reports on the epoch before do not count for this one */
        sender->notify = true;
        memset(sender->sent_at, 0, sizeof sender->sent_at);
    } else if (opened) {
        aead_erase(&fresh);
    }
    engine_unlock_and_wake(self);
    return sender != NULL && opened;
}

bool engine_set_route(struct engine *self, uint32_t handle, const struct relay_hop *hop)
{
    bool usable = hop == NULL || (hop->channel_count > 0 && hop->channel_count <= ENGINE_CHANNEL_COUNT_MAX);

    engine_lock(self);
    struct sender *sender = handles_find(&self->senders, handle);
    if (sender != NULL && usable) {
        sender->has_hop = hop != NULL;
        if (hop != NULL)
            sender->hop = *hop;
        sender->state.route_first = sender->state.counter;
        sender->state.silent_since = 0;
        sender->notify = true;
        if (sender->egress != NULL)
            egress_update(sender->egress);
    }
    engine_unlock_and_wake(self);
    return sender != NULL && usable;
}

static void sender_detach(struct sender *sender)
{
    struct egress *egress = sender->egress;

    sender->has_hop = sender->notify = false;
    if (egress == NULL)
        return;
    egress->sender = NULL;
    sender->egress = NULL;
    egress_update(egress);
}

void engine_detach_sender(struct engine *self, uint32_t handle)
{
    engine_lock(self);
    struct sender *sender = handles_find(&self->senders, handle);
    if (sender != NULL)
        sender_detach(sender);
    engine_unlock_and_wake(self);
}

static void sender_delete(struct sender *sender)
{
    sender_detach(sender);
    for (size_t at = 0; at < sender->entry_count; at++)
        free(sender->entries[at].body);
    aead_erase(&sender->aead);
    free(sender);
}

void engine_remove_sender(struct engine *self, uint32_t handle)
{
    engine_lock(self);
    struct sender *sender = handles_find(&self->senders, handle);
    if (sender != NULL) {
        handles_remove(&self->senders, handle);
        sender_delete(sender);
    }
    engine_unlock_and_wake(self);
}

static void entry_drop_oldest(struct engine *self, struct sender *sender)
{
    sender->entry_bytes -= ENTRY_HEADER_BYTES + sender->entries[0].size;
    free(sender->entries[0].body);
    sender->entry_count--;
    memmove(sender->entries, sender->entries + 1, sender->entry_count * sizeof *sender->entries);
    drop(self, DROP_ENTRY_FULL);
}

bool engine_queue_entry(struct engine *self, uint32_t handle, uint8_t kind, const uint8_t *body, size_t size)
{
    enum { ENTRY_BYTES_MAX = 16384 }; /* of all that wait: the reference datapath's bundle */
    uint8_t *copy = malloc(size > 0 ? size : 1);

    if (copy == NULL || size + ENTRY_HEADER_BYTES > ENTRY_BYTES_MAX) {
        free(copy);
        return false;
    }
    memcpy(copy, body, size);
    engine_lock(self);
    struct sender *sender = handles_find(&self->senders, handle);
    bool waits = false;
    for (size_t at = 0; sender != NULL && at < sender->entry_count; at++) {
        const struct entry *entry = &sender->entries[at];
        waits |= entry->kind == kind && entry->size == size && memcmp(entry->body, body, size) == 0;
    }
    if (sender != NULL && !waits) {
        while (sender->entry_count > 0 && (sender->entry_count == ENGINE_ENTRY_COUNT_MAX ||
                                           sender->entry_bytes + ENTRY_HEADER_BYTES + size > ENTRY_BYTES_MAX))
            entry_drop_oldest(self, sender);
        sender->entries[sender->entry_count++] = (struct entry){kind, (uint16_t)size, copy};
        sender->entry_bytes += ENTRY_HEADER_BYTES + size;
        copy = NULL;
        if (sender->egress != NULL && kind != KIND_REPORT) /* a report entry does not need a frame of its own */
            egress_wake(sender->egress);
    }
    engine_unlock_and_wake(self);
    free(copy);
    return sender != NULL;
}

size_t engine_seal_last(struct engine *self, uint32_t handle, uint8_t *room)
{
    size_t size = 0;

    engine_lock(self);
    struct sender *sender = handles_find(&self->senders, handle);
    if (sender != NULL && sender->aead.context != NULL && sender->state.counter != COUNTER_END) {
        header_store(room, 0, sender->state.epoch, 0, sender->state.counter);
        entry_header_store(room + HEADER_BYTES, KIND_END, 0);
        sender->sent_at[sender->state.counter % SENT_COUNT] = 0;
        sender->state.counter++;
        if (aead_seal(&sender->aead, room, ENTRY_HEADER_BYTES))
            size = HEADER_BYTES + ENTRY_HEADER_BYTES + TAG_BYTES;
    }
    engine_unlock(self);
    return size;
}

bool engine_sender(struct engine *self, uint32_t handle, struct engine_sender *out)
{
    engine_lock(self);
    const struct sender *sender = handles_find(&self->senders, handle);
    if (sender != NULL)
        *out = sender->state;
    engine_unlock(self);
    return sender != NULL;
}

uint64_t engine_sender_reported(struct engine *self, uint32_t handle, uint64_t counter, uint64_t now)
{
    uint64_t sent_at = 0;

    engine_lock(self);
    struct sender *sender = handles_find(&self->senders, handle);
    if (sender != NULL && counter < sender->state.counter) {
        uint64_t unreported_count = sender->state.counter - 1 - counter;
        if (unreported_count < SENT_COUNT)
            sent_at = sender->sent_at[counter % SENT_COUNT];
        sender->state.silent_since = unreported_count > 0 ? now : 0;
        sender->notify |= unreported_count == 0;
    }
    engine_unlock(self);
    return sent_at;
}

void engine_notify_sent(struct engine *self, uint32_t handle)
{
    engine_lock(self);
    struct sender *sender = handles_find(&self->senders, handle);
    if (sender != NULL)
        sender->notify = true;
    engine_unlock(self);
}

/* ── receiver ── */

uint32_t engine_add_receiver(struct engine *self, const struct engine_network *sources, size_t count,
                             const struct engine_key *key, bool offloads)
{
    struct receiver *receiver = calloc(1, sizeof *receiver);
    uint32_t made = 0;

    if (receiver == NULL)
        return 0;
    engine_lock(self);
    if (count <= NETWORK_COUNT_MAX && open_key(&receiver->present.aead, key, false) &&
        (made = handles_add(&self->receivers, receiver)) > 0) {
        receiver->handle = made;
        receiver->present.epoch = key->epoch;
        receiver->offloads = offloads;
        receiver->notify = true;
        receiver->active_at = self->now;
        memcpy(receiver->sources, sources, count * sizeof *sources);
        receiver->source_count = count;
    } else {
        aead_erase(&receiver->present.aead);
        free(receiver);
    }
    engine_unlock(self);
    return made;
}

bool engine_rekey_receiver(struct engine *self, uint32_t handle, const struct engine_key *key)
{
    struct receiving next = {.epoch = key->epoch};
    bool opened = open_key(&next.aead, key, false);

    engine_lock(self);
    struct receiver *receiver = handles_find(&self->receivers, handle);
    if (receiver != NULL && opened) {
        aead_erase(&receiver->next.aead);
        receiver->next = next;
    } else {
        aead_erase(&next.aead);
    }
    engine_unlock(self);
    return receiver != NULL && opened;
}

void engine_forget_epoch(struct engine *self, uint32_t handle)
{
    engine_lock(self);
    struct receiver *receiver = handles_find(&self->receivers, handle);
    if (receiver != NULL)
        aead_erase(&receiver->before.aead);
    engine_unlock(self);
}

bool engine_add_label(struct engine *self, uint32_t handle, uint32_t link, uint32_t label)
{
    bool kept = false;

    engine_lock(self);
    struct receiver *receiver = handles_find(&self->receivers, handle);
    struct receiver *holder = map_find(&self->labels, label_key(link, label));
    if (receiver != NULL && (holder == NULL || holder == receiver))
        kept = map_set(&self->labels, label_key(link, label), receiver);
    struct link *over = kept ? links_find(self, link) : NULL;
    if (over != NULL)
        early_deliver(over, label);
    engine_unlock(self);
    return kept;
}

void engine_remove_label(struct engine *self, uint32_t link, uint32_t label)
{
    engine_lock(self);
    map_remove(&self->labels, label_key(link, label));
    engine_unlock(self);
}

bool engine_holds_label(struct engine *self, uint32_t link, uint32_t label)
{
    engine_lock(self);
    bool holds = map_find(&self->labels, label_key(link, label)) != NULL;
    engine_unlock(self);
    return holds;
}

static void receiver_delete(struct receiver *receiver)
{
    aead_erase(&receiver->present.aead);
    aead_erase(&receiver->next.aead);
    aead_erase(&receiver->before.aead);
    free(receiver);
}

void engine_remove_receiver(struct engine *self, uint32_t handle)
{
    engine_lock(self);
    struct receiver *receiver = handles_find(&self->receivers, handle);
    if (receiver != NULL) {
        handles_remove(&self->receivers, handle);
        receiver_delete(receiver); /* the caller has removed its labels */
    }
    engine_unlock(self);
}

bool engine_receiver(struct engine *self, uint32_t handle, bool notify, struct engine_receiver *out)
{
    engine_lock(self);
    struct receiver *receiver = handles_find(&self->receivers, handle);
    if (receiver != NULL) {
        const struct receiving *epoch = &receiver->present;
        *out = (struct engine_receiver){
            .epoch = epoch->epoch,
            .next = epoch->window.next,
            .received = epoch->received,
            .marked = epoch->marked,
            .bytes = epoch->bytes,
            .highest_at = epoch->highest_at,
            .frames = receiver->frames,
            .packets = receiver->packets,
            .frame_bytes = receiver->bytes,
            .active_at = receiver->active_at,
            .link = receiver->link,
            .label = receiver->label,
        };
        receiver->notify |= notify;
    }
    engine_unlock(self);
    return receiver != NULL;
}

/* ── relays ── */

const char *engine_add_relay(struct engine *self, const struct relay_hop *before, const struct relay_hop *ahead)
{
    engine_lock(self);
    const char *problem = relay_add(self->relay, before, ahead, self->now);
    engine_unlock(self);
    return problem;
}

void engine_remove_relay(struct engine *self, uint32_t link, uint32_t label_in)
{
    engine_lock(self);
    relay_remove(self->relay, link, label_in);
    engine_unlock(self);
}

bool engine_relay_holds(struct engine *self, uint32_t link, uint32_t label, bool feedback)
{
    engine_lock(self);
    bool holds = relay_holds(self->relay, link, label, feedback);
    engine_unlock(self);
    return holds;
}

bool engine_relay(struct engine *self, size_t index, struct relay_status *out)
{
    engine_lock(self);
    bool found = relay_status(self->relay, index, out);
    engine_unlock(self);
    return found;
}

/* ── the end ── */

void tables_free(struct engine *self)
{
    for (size_t at = 1; at < self->senders.room; at++)
        if (self->senders.items[at] != NULL)
            sender_delete(self->senders.items[at]);
    for (size_t at = 1; at < self->receivers.room; at++)
        if (self->receivers.items[at] != NULL)
            receiver_delete(self->receivers.items[at]);
    for (size_t at = 1; at < self->egresses.room; at++)
        if (self->egresses.items[at] != NULL)
            egress_delete(self->egresses.items[at]);
    free(self->senders.items);
    free(self->receivers.items);
    free(self->egresses.items);
    map_free(&self->labels);
    map_free(&self->own);
    map_free(&self->realm_addresses);
}
